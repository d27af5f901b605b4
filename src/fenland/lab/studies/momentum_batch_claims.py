"""The claims of the study `momentum-batch`: of the saddle, then of training."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from fenland.lab.studies.momentum_batch_training import EFFECTIVE, MITIGATE, PAPER, SAME, of_training
from fenland.lab.study import OURS, Claim, Finding, Measured, Source, ours
from fenland.lab.study.quantities import statement

# Methods as they are written.
NAMES = {"SGD": "SGD", "USAM": "SAM (unnormalised)", "SSAM-U": "SSAM (unnormalised)", "SAM": "SAM (normalised)",
         "SSAM": "SSAM (normalised)"}  # fmt: skip
CLOSE = 0.10  # a median within this share of the theory agrees with it: the first visit is a little earlier


def cells(measured: Measured, method: str, reading: str = SAME) -> pd.DataFrame:
    """The medians of a method, by momentum and batch."""
    rows = measured["medians"]
    rows = rows[(rows["method"] == method) & (rows["reading"] == reading)]
    return rows.set_index(["momentum", "batch"]).sort_index()


MOMENTUM = "Median steps at the same lr, intervals by order statistics."
BATCH = "Steps, not samples: a step of the larger batch also costs more."
INERTIA = "Per batch size. With much momentum inertia bounds the growth, and holds back the faster one, SGD, more."
# The paper's theory is of the unnormalised ascent.
OTHER = ours("the paper's claim, of the other ascent")
WHOSE = {"USAM": PAPER, "SAM": OTHER, "SSAM-U": OURS}


def claims(measured: Measured) -> Iterator[Claim]:
    """Of the saddle first, then of the trained network."""
    for method, source in WHOSE.items():
        sentence = f"Momentum speeds the escape of {NAMES[method]} from a saddle."
        yield Claim(sentence, source, faster(method, "momentum"), "escape", notes=MOMENTUM)
    yield Claim(
        "Momentum speeds the escape beyond what its larger effective step lr/(1 - momentum) does.",
        Source("ours, to weigh the claim above", ours=True), effective, "effective",
        notes="Methods SGD, SAM (both ascents) and SSAM. A ratio of about 1 or more says that the gain is the step's "
        "length.",
    )  # fmt: skip
    for method, source in WHOSE.items():
        sentence = f"Small batches speed the escape of {NAMES[method]} from a saddle."
        yield Claim(sentence, source, faster(method, "batch"), "escape", notes=BATCH)
    yield Claim(
        "SGD escapes first, then SSAM, then SAM, whatever momentum and batch size are.",
        ours(f"SSAM's place; that SAM comes after SGD: {PAPER}"), order, "escape",
        notes="The normalised ascent of one radius: small batches drown it in noise, and it comes near SGD.",
    )  # fmt: skip
    for method in ("USAM", "SAM"):
        yield Claim(
            f"Momentum closes the gap between {NAMES[method]} and SGD at a saddle: it mitigates SAM's own instability.",
            MITIGATE if method == "USAM" else OTHER, closes(method), "escape", notes=INERTIA,
        )  # fmt: skip
    yield Claim(
        "The closed form with momentum predicts the median escape time of SGD and unnormalised SAM.",
        ours("fenland.theory.diffusion.displacement"), theory, "escape",
        notes="Half of the paths lie beyond the radius when 0.674 standard deviations reach it; single steps count at "
        "high momentum.",
    )  # fmt: skip
    yield from of_training(measured)


def _steps(row: pd.Series) -> str:
    return f"{row['median']:.0f} [{row['low']:.0f}, {row['high']:.0f}]"


@statement
def faster(measured: Measured, method: str, axis: str) -> Finding:
    """The largest momentum against the least at each batch size, or the smallest batch against the largest."""
    table = cells(measured, method)
    momenta, batches = (sorted(table.index.get_level_values(k).unique()) for k in (0, 1))
    if axis == "momentum":
        pairs = {f"B = {b}": (table.loc[(momenta[-1], b)], table.loc[(momenta[0], b)]) for b in batches}
        words = "; ".join(f"{at}: {_steps(slow)} to {_steps(fast)}" for at, (fast, slow) in pairs.items())
        said = f"fewer steps with momentum {momenta[-1]:g} than with {momenta[0]:g}, at every batch size"
    else:
        pairs = {f"momentum {m:g}": (table.loc[(m, batches[0])], table.loc[(m, batches[-1])]) for m in momenta}
        words = "; ".join(f"{at}: {_steps(fast)} against {_steps(slow)}" for at, (fast, slow) in pairs.items())
        said = f"fewer steps with B = {batches[0]} than with B = {batches[-1]}, at every momentum"
    return Finding(said, words, all(fast["high"] < slow["low"] for fast, slow in pairs.values()))


def effective(measured: Measured) -> Finding:
    """The largest momentum against none at the same lr/(1 - momentum)."""
    ratios, gains = [], []
    for method in ("SGD", "USAM", "SAM", "SSAM-U"):
        table = cells(measured, method, EFFECTIVE)
        momenta, batches = (sorted(table.index.get_level_values(k).unique()) for k in (0, 1))
        for batch in batches:
            without, with_it = table.loc[(momenta[0], batch)], table.loc[(momenta[-1], batch)]
            ratios.append(with_it["median"] / without["median"])
            gains.append(with_it["high"] < without["low"])
    return Finding(
        "fewer steps with momentum at the same lr/(1 - momentum)",
        f"{min(ratios):.2f} to {max(ratios):.2f} times as many steps with the largest momentum as without", all(gains),
    )  # fmt: skip


def order(measured: Measured) -> Finding:
    """SGD, SSAM, SAM in every cell, for both ascents."""
    found = {method: cells(measured, method)["median"] for method in NAMES}
    ratios = {m: (found[m] / found["SGD"]).agg(["min", "max"]) for m in NAMES if m != "SGD"}
    shown = ("USAM", "SSAM-U", "SAM", "SSAM")
    holds = all(
        (found["SGD"] <= found[ssam]).all() and (found[ssam] <= found[sam]).all()
        for ssam, sam in (("SSAM-U", "USAM"), ("SSAM", "SAM"))
    )
    words = "; ".join(f"{NAMES[m]}: {ratios[m]['min']:.2f} to {ratios[m]['max']:.2f} times SGD's" for m in shown)
    return Finding("medians in this order in every cell, for both ascents", words, holds)


@statement
def closes(measured: Measured, method: str) -> Finding:
    """Steps relative to SGD's with and without momentum."""
    ratio = cells(measured, method)["median"] / cells(measured, "SGD")["median"]
    momenta = ratio.index.get_level_values(0)
    without, with_it = ratio.loc[momenta.min()], ratio.loc[momenta.max()]
    return Finding(
        f"steps relative to SGD's at least a tenth fewer with momentum {momenta.max():g}, at every batch size",
        f"{without.min():.2f} to {without.max():.2f} times SGD's without, {with_it.min():.2f} to "
        f"{with_it.max():.2f} with",
        bool((with_it <= 0.9 * without).all()),
    )


def theory(measured: Measured) -> Finding:
    """Medians against the closed form."""
    rows = measured["medians"]
    rows = rows[rows["theory"].notna() & rows["median"].map(math.isfinite)]
    away = (rows["median"] / rows["theory"] - 1).abs()
    return Finding(
        f"within {CLOSE:.0%} at every momentum, batch size and reading",
        f"at most {away.max():.1%} away in {len(rows)} cells" if len(rows) else "no cell",
        bool((away <= CLOSE).all()) if len(rows) else None,
    )
