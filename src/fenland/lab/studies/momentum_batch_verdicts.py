"""What momentum and batch size change, judged from the tables of the study `momentum-batch`."""

from __future__ import annotations

import math

import pandas as pd

from fenland.lab.store.statistics import Interval, interval
from fenland.lab.study.base import Tables, Verdict

PAPER = "Stability Analysis of SAM, arXiv 2301.06308"
NAMES = {"SGD": "SGD", "USAM": "SAM (unnormalised)", "SSAM-U": "SSAM (unnormalised)", "SAM": "SAM (normalised)",
         "SSAM": "SSAM (normalised)"}  # fmt: skip
SAME, EFFECTIVE = "same lr", "same lr/(1 - momentum)"
CLOSE = 0.10  # a median within this share of the theory agrees with it: the first visit is a little earlier


def judge(tables: Tables) -> list[Verdict]:
    """All verdicts."""
    medians, trained = tables["medians"], tables["trained"]
    return [
        *(_momentum(medians, method) for method in ("USAM", "SAM", "SSAM-U")),
        _effective(medians),
        *(_batch(medians, method) for method in ("USAM", "SAM", "SSAM-U")),
        _order(medians),
        *(_gap(medians, method) for method in ("USAM", "SAM")),
        _theory(medians),
        *(_accuracy_momentum(trained, reading) for reading in (SAME, EFFECTIVE)),
        *(_accuracy_batch(trained, reading) for reading in (SAME, EFFECTIVE)),
        _interaction(trained),
    ]


def _cells(medians: pd.DataFrame, method: str, reading: str = SAME) -> pd.DataFrame:
    rows = medians[(medians["method"] == method) & (medians["reading"] == reading)]
    return rows.set_index(["momentum", "batch"])


def _steps(row: pd.Series) -> str:
    return f"{row['median']:.0f} [{row['low']:.0f}, {row['high']:.0f}]"


def _momentum(medians: pd.DataFrame, method: str) -> Verdict:
    cells = _cells(medians, method)
    low, high = cells.index.get_level_values(0).min(), cells.index.get_level_values(0).max()
    batches = sorted(cells.index.get_level_values(1).unique())
    pairs = {b: (cells.loc[(low, b)], cells.loc[(high, b)]) for b in batches}
    return Verdict(
        f"Momentum speeds the escape of {NAMES[method]} from a saddle.",
        PAPER if method != "SSAM-U" else "ours",
        f"fewer steps with momentum {high:g} than with {low:g}, at every batch size",
        "; ".join(f"B = {b}: {_steps(x)} to {_steps(y)}" for b, (x, y) in pairs.items()),
        all(y["high"] < x["low"] for x, y in pairs.values()),
        "Median steps at the same lr, intervals by order statistics.",
        "escape",
    )


def _effective(medians: pd.DataFrame) -> Verdict:
    ratios, gains = [], []
    for method in ("SGD", "USAM", "SAM", "SSAM-U"):
        cells = _cells(medians, method, EFFECTIVE)
        low, high = cells.index.get_level_values(0).min(), cells.index.get_level_values(0).max()
        for batch in sorted(cells.index.get_level_values(1).unique()):
            x, y = cells.loc[(low, batch)], cells.loc[(high, batch)]
            ratios.append(y["median"] / x["median"])
            gains.append(y["high"] < x["low"])
    return Verdict(
        "Momentum speeds the escape beyond what its larger effective step lr/(1 - momentum) does.",
        "ours, to weigh the claim above",
        "fewer steps with momentum at the same lr/(1 - momentum)",
        f"{min(ratios):.2f} to {max(ratios):.2f} times as many steps with the largest momentum as without",
        all(gains),
        "Methods SGD, SAM (both ascents) and SSAM. A ratio of about 1 or more says that the gain is the step's length.",
        "effective",
    )


def _batch(medians: pd.DataFrame, method: str) -> Verdict:
    cells = _cells(medians, method)
    small, large = cells.index.get_level_values(1).min(), cells.index.get_level_values(1).max()
    momenta = sorted(cells.index.get_level_values(0).unique())
    pairs = {m: (cells.loc[(m, small)], cells.loc[(m, large)]) for m in momenta}
    return Verdict(
        f"Small batches speed the escape of {NAMES[method]} from a saddle.",
        PAPER if method != "SSAM-U" else "ours",
        f"fewer steps with B = {small} than with B = {large}, at every momentum",
        "; ".join(f"momentum {m:g}: {_steps(x)} against {_steps(y)}" for m, (x, y) in pairs.items()),
        all(x["high"] < y["low"] for x, y in pairs.values()),
        "Steps, not samples: a step of the larger batch also costs more.",
        "escape",
    )


def _order(medians: pd.DataFrame) -> Verdict:
    holds, ratios = True, {"USAM": [], "SSAM-U": [], "SAM": [], "SSAM": []}  # type: ignore[var-annotated]
    sgd = _cells(medians, "SGD")
    for method, found in ratios.items():
        cells = _cells(medians, method)
        found += [cells.loc[key]["median"] / sgd.loc[key]["median"] for key in sgd.index]
    for ours, theirs in (("SSAM-U", "USAM"), ("SSAM", "SAM")):
        a, b = _cells(medians, ours)["median"], _cells(medians, theirs)["median"]
        holds &= bool((sgd["median"] <= a).all() and (a <= b).all())
    return Verdict(
        "SGD escapes first, then SSAM, then SAM, whatever momentum and batch size are.",
        "SSAM's place: ours; SAM after SGD: " + PAPER,
        "medians in this order in every cell, for both ascents",
        "; ".join(f"{NAMES[m]}: {min(x):.2f} to {max(x):.2f} times SGD's" for m, x in ratios.items()),
        holds,
        "The normalised ascent of one radius: small batches drown it in noise, and it comes near SGD.",
        "escape",
    )


def _gap(medians: pd.DataFrame, method: str) -> Verdict:
    ratio = _cells(medians, method)["median"] / _cells(medians, "SGD")["median"]
    low, high = ratio.index.get_level_values(0).min(), ratio.index.get_level_values(0).max()
    x, y = ratio.loc[low], ratio.loc[high]
    return Verdict(
        f"Momentum closes the gap between {NAMES[method]} and SGD at a saddle: it mitigates SAM's own instability.",
        PAPER + ", as a reading of 'mitigate'",
        f"steps relative to SGD's at least a tenth fewer with momentum {high:g}, at every batch size",
        f"{x.min():.2f} to {x.max():.2f} times SGD's without, {y.min():.2f} to {y.max():.2f} with",
        bool((y <= 0.9 * x).all()),
        "Per batch size. With much momentum inertia bounds the growth, and holds back the faster one, SGD, more.",
        "escape",
    )


def _theory(medians: pd.DataFrame) -> Verdict:
    rows = medians[medians["theory"].notna() & medians["median"].map(math.isfinite)]
    away = (rows["median"] / rows["theory"] - 1).abs()
    return Verdict(
        "The closed form with momentum predicts the median escape time of SGD and unnormalised SAM.",
        "ours: fenland.theory.diffusion.displacement",
        f"within {CLOSE:.0%} at every momentum, batch size and reading",
        f"at most {away.max():.1%} away in {len(rows)} cells" if len(rows) else "no cell",
        bool((away <= CLOSE).all()) if len(rows) else None,
        "Half of the paths lie beyond the radius when 0.674 standard deviations reach it; single steps count at high "
        "momentum.",
        "escape",
    )


def _paired(trained: pd.DataFrame, optimizer: str, column: str, better: float, worse: float) -> Interval:
    """Test accuracy at one value of a column minus that at another: the mean over the rest of the grid, by seed."""
    rows = trained[(trained["optimizer"] == optimizer) & (trained["status"] == "finished")]
    table = rows.pivot_table(index="seed", columns=column, values="test_accuracy")
    if better not in table or worse not in table:
        return interval([])
    return interval(100 * (table[better] - table[worse]))


def _points(found: Interval) -> str:
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _sign(found: Interval) -> bool | None:
    """Whether the difference is positive; None where the interval holds zero."""
    return found.mean > 0 if found.excludes_zero else None


def _accuracy_momentum(trained: pd.DataFrame, reading: str) -> Verdict:
    trained = trained[trained["reading"] == reading]
    low, high = trained["momentum"].min(), trained["momentum"].max()
    found = {o: _paired(trained, o, "momentum", high, low) for o in ("sam", "sgd", "ssam")}
    return Verdict(
        f"A network trained by SAM generalises better with momentum ({reading}).",
        PAPER,
        f"test accuracy higher with momentum {high:g} than with {low:g}",
        "; ".join(f"{o.upper()}: {_points(x)} points" for o, x in found.items()),
        _sign(found["sam"]),
        _scale(trained) + _step_note(reading),
        "accuracy",
    )


def _step_note(reading: str) -> str:
    longer = " Momentum also multiplies the step, which a short training rewards: see the other reading."
    return longer if reading == SAME else ""


def _accuracy_batch(trained: pd.DataFrame, reading: str) -> Verdict:
    trained = trained[trained["reading"] == reading]
    small, large = trained["batch_size"].min(), trained["batch_size"].max()
    found = {o: _paired(trained, o, "batch_size", small, large) for o in ("sam", "sgd", "ssam")}
    return Verdict(
        f"A network trained by SAM generalises better with small batches ({reading}).",
        PAPER,
        f"test accuracy higher with B = {small} than with B = {large}",
        "; ".join(f"{o.upper()}: {_points(x)} points" for o, x in found.items()),
        _sign(found["sam"]),
        _scale(trained) + " Equal epochs: small batches take more steps." + _step_note(reading),
        "accuracy",
    )


def _interaction(trained: pd.DataFrame) -> Verdict:
    trained = trained[trained["reading"] == SAME]
    low, high = trained["momentum"].min(), trained["momentum"].max()
    done = trained[trained["status"] == "finished"]
    wide = done.pivot_table(index="seed", columns=["optimizer", "momentum"], values="test_accuracy")
    gain = {o: 100 * (wide[(o, high)] - wide[(o, low)]) for o in ("sam", "sgd")}
    found = interval(gain["sam"] - gain["sgd"])
    return Verdict(
        "Momentum helps SAM's accuracy more than SGD's.",
        PAPER + ", as a reading of 'mitigate'",
        "the gain by momentum is larger for SAM",
        f"{_points(found)} points more",
        _sign(found),
        _scale(trained),
        "accuracy",
    )


def _scale(trained: pd.DataFrame) -> str:
    failed = int((trained["status"] != "finished").sum())
    lost = f" {failed} runs diverged and are left out." if failed else ""
    return f"Paired over {trained['seed'].nunique()} seeds, mean over the rest of the grid.{lost}"
