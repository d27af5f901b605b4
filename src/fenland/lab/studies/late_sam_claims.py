"""The claims of the study `late-sam`, and what it finds in its tables."""

from __future__ import annotations

import math

import pandas as pd

from fenland.lab.study import Claim, Finding, Interval, Measured, Quantity, Source, interval, ours, paired, ratio
from fenland.lab.study.ends import barrier
from fenland.lab.study.quantities import ratio_of
from fenland.lab.study.words import above, below, shown, together

ZHOU = Source("Sharpness-Aware Minimization Efficiently Selects Flatter Minima Late in Training, Zhou et al. 2025, "
              "arXiv 2410.10373")  # fmt: skip
SHORT = Source("Late SAM, arXiv 2410.10373")
SGD_ONLY = 1.0  # of the share of training before SAM
accuracy = Quantity("test_accuracy", "Test accuracy, %", unit="points", scale=100, form=".2f")
logarithm = Quantity("log_eigenvalue", "Largest eigenvalue of the training loss, log10", form=".2f")
sharpness = Quantity("eigenvalue", "Largest eigenvalue of the training loss")


def about(measured: Measured) -> str:
    """What the numbers are about, for claims on the way of the weights, which any scale can show."""
    return f"About {measured.config.model}, {measured.config.here()}."


def steps_left(measured: Measured) -> str:
    """How many steps SAM had."""
    runs = measured["runs"]
    total = max(int(str(options).removeprefix("start=")) for options in runs["options"])
    left = {start: round((1 - start) * total) for start in sorted(runs["start"].unique()) if 0 < start < SGD_ONLY}
    return "SAM had " + ", ".join(f"{count} steps from {start:g} on" for start, count in left.items()) + "."


def nearer(measured: Measured) -> Finding:
    """Late SAM's eigenvalue between those of SGD and of SAM from the start: 0 is SGD's, 1 is SAM's."""
    rows = measured["runs"]
    wide = rows.pivot_table(index="seed", columns="start", values="eigenvalue").map(math.log)
    late = [start for start in measured.config.starts if 0 < start < SGD_ONLY]
    shares = {start: interval((wide[SGD_ONLY] - wide[start]) / (wide[SGD_ONLY] - wide[0.0])) for start in late}
    said = "; ".join(f"from {start:g}: {shown(found, '.2f', sign=False)}" for start, found in shares.items())
    return Finding("more than half of the way from SGD's to SAM's (logarithms) at every start", said,
                   together(above(each, 0.5) for each in shares.values()),
                   open="An interval over seeds reaches to both sides of a half.")  # fmt: skip


def same_valley(measured: Measured) -> Finding:
    """No barrier between SGD's end and late SAM's."""
    rows = measured["lines"]
    found = rows.groupby(["start", "seed"])["loss"].agg(lambda losses: barrier(list(losses)))
    scale = measured["lines"].groupby(["start", "seed"])["loss"].max()
    late = [start for start in rows["start"].unique() if start > 0]
    each = {start: shown(interval(found[start]), ".2g") for start in sorted(rows["start"].unique())}
    said = "; ".join(f"from {start:g}: {rise}" for start, rise in each.items())
    high = max(float((found[start] / scale[start]).max()) for start in late)
    return Finding(
        "rises by less than 10 % of the higher end's loss, for every late start",
        f"{said} over the chord; at most {100 * max(0.0, high):.1f} % of the higher loss", high < 0.1,
    )  # fmt: skip


def escapes(measured: Measured) -> Finding:
    """After the switch SAM's training loss and distance against those of SGD going on."""
    rows = measured["after"]
    first = rows[(rows["step"] > 0) & (rows["step"] <= measured.config.after // 4)]
    far = first.groupby(["method", "seed"])["distance"].max().unstack("method")
    begun = rows[rows["step"] == 0].groupby("seed")["loss"].first()
    sam = first[first["method"] == "SAM"].groupby("seed")["loss"].max() / begun
    ratio_far, rise = _geometric(far["SAM"] / far["GD"]), _geometric(sam)
    said = (
        f"distance {shown(ratio_far, '.2f', sign=False)} times SGD's, loss up to {shown(rise, '.2f', sign=False)} "
        "times that at the switch"
    )  # fmt: skip
    return Finding("in the first quarter of the steps SAM goes farther than SGD", said, above(ratio_far, 1),
                   open="The interval over seeds reaches 1.")  # fmt: skip


def _geometric(ratios: pd.Series) -> Interval:
    return ratio_of(interval(ratios.map(math.log)))


def uphill(measured: Measured) -> Finding:
    """The largest training loss and eigenvalue on SAM's way, over those at the switch."""
    rows = measured["after"][measured["after"]["method"] == "SAM"]
    begun = rows[rows["step"] == 0].groupby("seed")[["loss", "eigenvalue"]].first()
    most = rows.groupby("seed")[["loss", "eigenvalue"]].max() / begun
    loss, eigenvalue = _geometric(most["loss"]), _geometric(most["eigenvalue"])
    said = f"loss {shown(loss, '.3g', sign=False)} times, eigenvalue {shown(eigenvalue, '.3g', sign=False)} times"
    return Finding("both more than 1.5 times those at the switch", said,
                   together(above(each, 1.5) for each in (loss, eigenvalue)),
                   open="An interval over seeds reaches to both sides.")  # fmt: skip


def settles(measured: Measured) -> Finding:
    """SAM's eigenvalue over the last quarter of the steps, against SGD's own there."""
    rows = measured["after"]
    rows = rows[rows["step"] >= 0.75 * measured.config.after]
    rows = rows.assign(value=rows["eigenvalue"].map(math.log))
    logs = rows.pivot_table(index="seed", columns="method", values="value")
    found = ratio_of(interval(logs["SAM"] - logs["GD"]))
    return Finding("below 1 times SGD's", f"{shown(found, '.3g', sign=False)} times", below(found, 1.0),
                   "Geometric means over the last quarter of the steps.",
                   open="The interval over seeds reaches to both sides of 1.")  # fmt: skip


CLAIMS = (
    Claim("SAM from 90 % of training on reaches the test accuracy of SAM from the start.", SHORT,
          paired(accuracy, "start", 0.9, 0.0).within(0.5), "accuracy", "paper", notes="Paired over seeds."),
    Claim("SAM from the start ends flatter than SGD.", SHORT,
          ratio(sharpness, "start", 0.0, SGD_ONLY) < 1, "sharpness", "paper", notes="Paired over seeds."),
    Claim("Late SAM's largest eigenvalue is nearer to that of SAM from the start than to SGD's.", SHORT, nearer,
          "sharpness", "paper", notes=steps_left),
    Claim("SAM leaves the end of SGD faster than SGD itself moves on.", SHORT, escapes, "after", notes=about),
    Claim("The way out leads uphill: loss and largest eigenvalue rise first.",
          ours("what an escape from a minimum is"), uphill, "after"),
    Claim("After it SAM is at a flatter place than SGD, trained as long.", SHORT, settles, "after",
          notes=about),
    Claim("Late SAM stays in the valley of SGD's end: no barrier lies between.", SHORT, same_valley, "lines",
          notes=about),
)  # fmt: skip
