"""The claims of the study `uniform-stability`: who parts less, who generalises better, and who keeps to a bound."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pandas as pd

from fenland.lab.figures.style import title_of
from fenland.lab.store.statistics import Interval, finished, interval
from fenland.lab.study import Claim, Contrast, Finding, Measured, Quantity, Source, Statement, last_epoch, paired, ratio
from fenland.lab.study.quantities import gap, statement
from fenland.lab.study.twins import LINEAR
from fenland.lab.study.words import by, left_out, lossy, sentences, shown

READING = Source(
    "ours, as a reading of the SSAM paper's Figs. 4 and 5 by its abstract; the captions state no order", ours=True
)
GROWS = Source(
    "ours, as a reading of the SSAM paper's Figs. 4 and 5; bounds grow with the steps (Hardt et al. 2016)", ours=True
)
BOUND = Source("fenland.theory.uniform_stability (SGD: Hardt et al. 2016, theorem 3.8; others derived)", ours=True)
# (less stable, more stable), as the paper is read: with its own unnormalised ascent, then with Foret's.
ORDER = (("sgd", "usam"), ("usam", "ssam-u"), ("sgd", "sam"), ("sam", "ssam"))
WORDS = {"normalised": "|w − w'| / sqrt(|w|² + |w'|²)", "absolute": "|w − w'|"}


def derived(measured: Measured, task: str = "") -> pd.DataFrame:
    """The pairs with task, both distances and the generalisation gap; of one task, or of all."""
    table = measured["pairs"]
    found: pd.DataFrame = table.assign(
        task=table["data"] + "/" + table["model"],
        absolute=table["distance"],
        normalised=table["distance"] / table["norm"],
        gap=table["test_loss"] - table["train_loss"],
        run=table["data"] + table["model"] + table["optimizer"] + table["pair"].astype(str),
    )
    return found[found["task"] == task] if task else found


def claims(measured: Measured) -> Iterator[Claim]:
    """For each task of the networks, then the bounds."""
    config, networks = measured.config, derived(measured)
    steps = [pair for pair in ORDER if set(pair) <= set(networks["optimizer"]) & set(config.optimizers)]
    for task in networks.loc[networks["model"] != LINEAR, "task"].unique():
        rows = derived(measured, task)
        table = Measured(config, measured.tables | {"ends": rows})
        note = _note(measured, rows)
        distance = Quantity(config.measure, table="ends", where={"epoch": last_epoch})
        yield Claim(
            f"{task}: the distance grows with training.", GROWS, grows(rows, config), config.measure, notes=note,
            expected=f"{WORDS[config.measure]} larger after the last epoch than after the first",
        )  # fmt: skip
        for theirs, mine in steps:
            nearer = ratio(distance, "optimizer", mine, theirs, over="pair", template="{value}", of=finished) < 1
            yield Claim(
                f"{task}: the runs of {title_of(mine)} part less than those of {title_of(theirs)}.", READING,
                of_table(nearer, table), config.measure, notes=note,
                expected=f"a ratio of {WORDS[config.measure]} below 1 at the end",
            )  # fmt: skip
        for theirs, mine in steps:
            last = finished(rows[rows["epoch"] == rows["epoch"].max()])
            means = ", ".join(
                f"{title_of(name)} {shown(interval(last[last['optimizer'] == name]['gap']))}" for name in (theirs, mine)
            )
            smaller = paired(
                Quantity("gap", table="ends", where={"epoch": last_epoch}), "optimizer", mine, theirs, over="pair",
                template=f"{{value}} ({means})", of=finished,
            ) < 0  # fmt: skip
            yield Claim(
                f"{task}: {title_of(mine)} has a smaller generalisation gap than {title_of(theirs)}.", READING,
                of_table(smaller, table), "gap", notes=note,
                expected="a difference of the gaps (test loss − train loss) below 0 at the end",
            )  # fmt: skip
    for name in dict.fromkeys(measured["bounds"]["optimizer"]):
        yield Claim(
            f"Softmax regression: the mean distance of {title_of(name)}'s runs keeps to its bound.", BOUND,
            within(name), "convex",
        )  # fmt: skip


def of_table(statement: Statement, table: Measured) -> Statement:
    """A statement about other tables than the study's."""
    return lambda _: statement(table)


def _note(measured: Measured, rows: pd.DataFrame) -> str:
    means = finished(rows[rows["epoch"] == rows["epoch"].max()]).groupby("optimizer", sort=False)["train_loss"].mean()
    losses = ", ".join(f"{title_of(str(name))} {value:.2g}" for name, value in means.items())
    return sentences(
        f"Paired over {rows['pair'].nunique()} pairs.",
        f"Train losses at the end: {losses}: who has gone less far has also parted less.",
        lossy(measured, *rows["data"].unique()), left_out(rows.sort_values("epoch").groupby("run").tail(1)),
    )  # fmt: skip


def grows(rows: pd.DataFrame, config: Any) -> Statement:
    """The last epoch less the first, for each optimizer."""
    found: dict[str, Interval] = {}
    for name in (name for name in config.optimizers if (rows["optimizer"] == name).any()):
        own = rows[rows["optimizer"] == name].assign(value=rows[config.measure])
        found[title_of(name)] = gap(own[own["epoch"].isin([1, own["epoch"].max()])], "epoch", own["epoch"].max(), 1,
                                    "pair")  # fmt: skip
    return Contrast(lambda _: found, "{key} {value}", over="pairs") > 0


@statement
def within(measured: Measured, name: str) -> Finding:
    """The mean distance by epoch against the mean bound; the tightest epoch is shown."""
    rows, limits = finished(derived(measured)), measured["bounds"]
    rows = rows[(rows["model"] == LINEAR) & (rows["optimizer"] == name) & (rows["epoch"] > 0)]
    limits = limits[limits["optimizer"] == name]
    if not limits["bound"].notna().any():
        why = str(limits["why"].iloc[0]) if len(limits) else ""
        return Finding("no bound", "not compared", None, f"No bound is known here: {why}.")
    shares = {}
    for epoch, part in by(rows, "epoch"):
        bound, mean = float(limits[limits["epoch"] == epoch]["bound"].mean()), interval(part["distance"])
        shares[epoch] = Interval(mean.mean / bound, mean.low / bound, mean.high / bound, mean.n)
    most = max(shares, key=lambda epoch: shares[epoch].mean, default=0)
    tightest = {f"at most {{value}} of it (epoch {most})": shares[most]} if shares else {}
    found = (Contrast(lambda _: tightest, "{key}", sign=False, over="pairs") < 1)(measured)
    note = "Convex with known L and beta, so the bound's assumptions hold. It is one for the worst data, hence loose."
    return dataclasses.replace(found, expected="|w − w'| at most 1 times the bound, at every epoch", note=note)
