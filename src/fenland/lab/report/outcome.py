"""Who wins, how sure that is, and what was measured beside it: sentences from numbers, and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fenland.lab.figures.style import title_of
from fenland.lab.store.records import Records
from fenland.lab.store.statistics import Interval, finished, paired, summary

Row = dict[str, Any]
_NOTHING = 1e-12  # a difference of accuracies that is rounding


@dataclass(frozen=True)
class Outcome:
    """The report's first lines.

    Attributes:
        headline: who wins over whom, by how much, and whether the interval excludes zero; one sentence.
        beside: what else was measured that goes with it (gap, sharpness, gamma, cost), a sentence each.
        decided: whether the interval of the difference lies above zero.
    """

    headline: str
    beside: tuple[str, ...]
    decided: bool


def decide(records: Records) -> Outcome:
    """Compare the best mean test accuracy with the baseline, or with the second best where the baseline is the best.

    Args:
        records: the runs of a comparison.
    """
    rows: list[Row] = [{str(k): v for k, v in row.items()} for row in summary(records).to_dict("records")]
    ranked = sorted((row for row in rows if row["n"]), key=lambda row: (-row["test_accuracy"], row["test_loss"]))
    diverged = tuple(_diverged(row) for row in rows if row["diverged"])
    if not ranked:
        return Outcome("Every run diverged, so there is nothing to compare.", diverged, False)
    best = ranked[0]
    if len(ranked) == 1:
        return Outcome(f"{_reached(best)}; there is no other optimizer to compare it with.", diverged, False)
    base = next((row for row in ranked if row["optimizer"] == records.baseline), ranked[1])
    rival = ranked[1] if base is best else base
    gain = paired(records.results, best["optimizer"], rival["optimizer"])
    headline = _headline(best, rival, gain, best_is_baseline=best is base)
    beside = [
        *_second(records, ranked, best, rival),
        *_fit(records, best, rival),
        *_ascent(ranked),
        *_cost(records, best, rival),
    ]
    return Outcome(headline, (*beside, *diverged), gain.excludes_zero and gain.mean > 0)


def _headline(best: Row, rival: Row, gain: Interval, best_is_baseline: bool) -> str:
    winner, loser = title_of(best["optimizer"]), title_of(rival["optimizer"])
    if gain.excludes_zero and gain.mean > 0:
        verb = "stays ahead of" if best_is_baseline else "beats"
        return f"{winner} {verb} {loser}: {_reached(best, name=False)}, {_gained(gain)}, which excludes zero."
    if gain.n < 2:
        found = f"{_reached(best)} against {loser}'s {_percent(rival['test_accuracy'])}"
        verb = "gives" if gain.n == 1 else "give"
        return f"No winner can be named: {found}, and {_seeds(gain.n)} {verb} no interval."
    if abs(gain.mean) < _NOTHING and abs(best["test_accuracy"] - rival["test_accuracy"]) < _NOTHING:
        return f"No winner: {winner} and {loser} reach the same mean test accuracy, {_percent(best['test_accuracy'])}."
    return f"No clear winner: {_reached(best)}, {_gained(gain, loser)}, which {_reason(gain)}."


def _reason(gain: Interval) -> str:
    if gain.excludes_zero:  # and is below it: the mean of all its seeds is higher, that of the shared ones is not
        return "excludes zero, while the mean over all of its own seeds is the higher one"
    if gain.high - gain.low > 1e-12:
        return "includes zero"
    return "has no width because all seeds differ by the same amount, and shows nothing"


def _gained(gain: Interval, over: str = "") -> str:
    side = "above" if gain.mean >= 0 else "below"
    where = f"{side} {over}" if over else "more" if side == "above" else "less"
    bounds = f"{_signed(gain.low)} to {_signed(gain.high)}"
    return f"{100 * abs(gain.mean):.2f} points {where} (95 % interval {bounds} over {_seeds(gain.n)})"


def _signed(share: float) -> str:
    """A difference of accuracies in percentage points."""
    return f"{100 * share:+.2f}".replace("-", "−")


def _reached(row: Row, name: bool = True) -> str:
    who = f"{title_of(row['optimizer'])} reaches " if name else ""
    return f"{who}{_percent(row['test_accuracy'])} test accuracy"


def _second(records: Records, ranked: list[Row], best: Row, rival: Row) -> list[str]:
    """The runner-up, where the headline is about another one."""
    second = next(row for row in ranked if row is not best)
    if second is rival:
        return []
    gain = paired(records.results, best["optimizer"], second["optimizer"])
    name = title_of(second["optimizer"])
    if not gain.n:
        return [f"The runner-up is {name} with {_percent(second['test_accuracy'])}, and they share no finished seed."]
    if abs(second["test_accuracy"] - best["test_accuracy"]) < _NOTHING:
        return [f"{name} reaches the same mean test accuracy; {title_of(best['optimizer'])} has the lower test loss."]
    verdict = "excludes zero" if gain.excludes_zero else "includes zero"
    tail = f" (95 % interval {_signed(gain.low)} to {_signed(gain.high)}), which {verdict}" if gain.n > 1 else ""
    side = "above" if gain.mean > 0 else "below"
    return [
        f"The runner-up is {title_of(second['optimizer'])} with {_percent(second['test_accuracy'])}: "
        f"{title_of(best['optimizer'])} is {100 * abs(gain.mean):.2f} points {side} it{tail}."
    ]


def _fit(records: Records, best: Row, rival: Row) -> list[str]:
    """Training loss, test loss and the gap between them: fitted better, or generalised better?"""
    names = ("train_loss", "test_loss", "loss_gap")
    if not all(math.isfinite(row[name]) for row in (best, rival) for name in names):
        return []
    train, test, gap = (f"{_short(best[name])} against {_short(rival[name])}" for name in names)
    fit, found = (paired(records.results, best["optimizer"], rival["optimizer"], name) for name in (names[0], names[2]))
    sure = "the interval of that difference excludes zero" if found.excludes_zero else "that difference is not certain"
    size = "smaller" if best["loss_gap"] < rival["loss_gap"] else "larger"
    closer = "more" if best["train_loss"] < rival["train_loss"] else "less"
    ours, theirs = title_of(best["optimizer"]), title_of(rival["optimizer"])
    fits = f"{ours} fits the training data {closer} closely than {theirs} (training loss {train})"
    level = f"{ours} and {theirs} fit the training data without a certain difference (training loss {train})"
    return [
        f"{fits if fit.excludes_zero else level}. The gap from training to test loss is {size} for {ours} ({gap}; "
        f"{sure}). Its test loss is {test}."
    ]


def _ascent(ranked: list[Row]) -> list[str]:
    """Sharpness and gamma at the last epoch, of those that climb: the best four, a sweep has many."""
    climbing = [row for row in ranked if math.isfinite(row["final_sharpness"])][:4]
    if not climbing:
        return []
    sharp = ", ".join(f"{title_of(row['optimizer'])} {_short(row['final_sharpness'], 2)}" for row in climbing)
    text = f"Sharpness, the rise of the loss on the way to the ascent point, over the last epoch: {sharp}"
    known = [row for row in climbing if math.isfinite(row["final_gamma"])]
    gammas = ", ".join(f"{title_of(row['optimizer'])} {row['final_gamma']:.2f}" for row in known)
    return [f"{text}. Gamma: {gammas}." if known else f"{text}."]


def _cost(records: Records, best: Row, rival: Row) -> list[str]:
    """What the best cost, and where it stood when it had cost as much as its rival."""
    ratio = best["gradient_evaluations"] / rival["gradient_evaluations"]
    if not math.isfinite(ratio) or not math.isfinite(best["seconds"] / rival["seconds"]):
        return []
    seconds = best["seconds"] / rival["seconds"]
    ours, theirs = title_of(best["optimizer"]), title_of(rival["optimizer"])
    evaluations = "as many gradient evaluations as" if ratio == 1 else f"{ratio:.2g} times the gradient evaluations of"
    text = f"{ours} took {evaluations} {theirs} and {seconds:.2g} times its training time"
    budget = rival["gradient_evaluations"]
    then = _at_cost(records, best["optimizer"], budget) if ratio > 1 else math.nan
    if not math.isfinite(then):
        return [f"{text}."]
    when = f"After the {budget:,.0f} evaluations of {theirs}, in the middle of its own schedule"
    return [f"{text}. {when}, {ours} had a test accuracy of {_percent(then)}."]


def _at_cost(records: Records, label: str, budget: float) -> float:
    """Mean test accuracy at the last epoch within a budget of gradient evaluations."""
    metrics = records.metrics
    if not {"gradient_evaluations", "test_accuracy"} <= set(metrics):
        return math.nan
    done = finished(records.results)
    runs = set(done.loc[done["label"] == label, "run"])
    within = metrics[metrics["run"].isin(runs) & (metrics["gradient_evaluations"] <= budget)]
    return float(within.groupby("run")["test_accuracy"].last().mean()) if len(within) else math.nan


def _diverged(row: Row) -> str:
    total = row["n"] + row["diverged"]
    return f"{row['diverged']} of {total} runs of {title_of(row['optimizer'])} diverged; its means leave them out."


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %" if pd.notna(value) else "an unknown"


def _short(value: float, digits: int = 3) -> str:
    """A few significant digits, small numbers as powers of ten."""
    text = f"{value:.{digits}g}"
    mantissa, _, power = text.partition("e")
    raised = str(int(power or 0)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return (f"{mantissa} · 10{raised}" if power else text).replace("-", "−")


def _seeds(count: int) -> str:
    return f"{count} shared seed{'' if count == 1 else 's'}"
