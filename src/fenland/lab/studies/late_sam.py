"""Late SAM: SGD with SAM from a share of training on, beside SAM from the start, and what happens after the switch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from fenland.lab.errors import BadInput
from fenland.lab.figures.plots import Panel
from fenland.lab.study import (
    C,
    Claim,
    Finding,
    Grid,
    Interval,
    Lab,
    Measured,
    Piece,
    Plot,
    Quantity,
    Seeds,
    Source,
    Study,
    Tables,
    Training,
    interval,
    ours,
    paired,
    ratio,
)  # fmt: skip
from fenland.lab.study.ends import after, barrier, end, line
from fenland.lab.study.grid import above_zero
from fenland.lab.study.images import about_data
from fenland.lab.study.quantities import ratio_of
from fenland.lab.study.recipes import line_of, lines_of
from fenland.lab.study.words import above, below, by, shown, together

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig

ZHOU = Source("Sharpness-Aware Minimization Efficiently Selects Flatter Minima Late in Training, Zhou et al. 2025, "
              "arXiv 2410.10373")  # fmt: skip
SHORT = Source("Late SAM, arXiv 2410.10373")
SGD_ONLY = 1.0  # of the share of training before SAM
ENOUGH = 100  # epochs, from which on a run speaks about the published 200
accuracy = Quantity("test_accuracy", "Test accuracy, %", unit="points", scale=100, form=".2f")
logarithm = Quantity("log_eigenvalue", "Largest eigenvalue of the training loss, log10", form=".2f")
sharpness = Quantity("eigenvalue", "Largest eigenvalue of the training loss")


@dataclass(frozen=True)
class Config(Training):
    """What is run.

    Attributes:
        model: the network.
        rho: SAM's radius.
        starts: shares of training without the ascent: 0 is SAM, 1 is SGD.
        examples: training images of losses and eigenvalues.
        tol: of the eigenvalues.
        points: along the lines between ends.
        after: steps from SGD's end on, with SAM and without.
        every: of them between two rows.
    """

    model: str = "mlp"
    rho: float = 0.05
    epochs: int = 40
    lr: float = 0.05
    schedule: str = "constant"
    momentum: float = 0.9
    weight_decay: float = 0.0
    starts: tuple[float, ...] = (0.0, 0.5, 0.75, 0.9, SGD_ONLY)
    examples: int = 300
    tol: float = 0.05
    points: int = 13
    after: int = 600
    every: int = 30

    def __post_init__(self) -> None:
        above_zero(self, "rho", "points", "after", "every", "examples")
        if self.points < 3:
            raise BadInput("points", self.points, "give at least 3: the ends and one between them")
        if self.after < 4 * self.every:
            raise BadInput("after", self.after, "give at least 4 times `every`: the first quarter is looked at")

    def why(self) -> str:
        """Why a claim about the published scale stays open; empty at that scale."""
        if self.data == "cifar10" and self.limit is None and self.epochs >= ENOUGH:
            return ""
        return f"Not decided: {self.here()} say nothing certain about 200 epochs on CIFAR-10."


def case(config: Config, lab: Lab, start: float) -> Mapping[str, Any]:
    """SAM from a share of the steps on."""
    from fenland.lab.config import RunConfig

    run = RunConfig(config.data, config.model, "sgd", data_dir=lab.data_dir(config.data), limit=config.limit)
    count = about_data(run)[2]
    first = round(start * config.epochs * (count // config.batch_size))
    return {"optimizer": "windowsam", "options": (f"start={first}",), "weights": True}


def ends(config: Config, lab: Lab, tables: Tables, runs: Mapping[str, RunConfig]) -> Tables:
    """Eigenvalues at the ends, the lines from SGD's end to the others, and the steps after it."""
    rows = tables["runs"]
    done = rows[rows["status"] == "finished"]
    keys = zip(done["start"].tolist(), done["seed"].tolist(), done["run"].tolist(), strict=True)
    of = {(float(start), int(seed)): runs[str(run)] for start, seed, run in keys}
    common, pieces = {"examples": config.examples}, []
    for (start, seed), run in of.items():
        about = {"start": start, "seed": seed, "run": run.hash, **common}
        file, sgd = lab.weights_file(run), of.get((SGD_ONLY, seed))
        pieces.append(Piece("ends", {**about, "tol": config.tol}, partial(end, run, file, tol=config.tol, **common)))
        if sgd is not None and start != SGD_ONLY:
            compute = partial(line, run, lab.weights_file(sgd), file, points=config.points, **common)
            pieces.append(Piece("lines", {**about, "sgd": sgd.hash, "points": config.points}, compute))
        if start == SGD_ONLY:
            how: dict[str, Any] = {"rho": config.rho, "steps": config.after, "every": config.every, "tol": config.tol}
            pieces += [
                Piece("after", {**about, **how, "method": method}, partial(after, run, file, method, **how, **common))
                for method in ("GD", "SAM")
            ]
    found: dict[str, list[pd.DataFrame]] = {}
    for piece, part in zip(pieces, lab.keep_all(pieces, "ends of runs"), strict=True):
        found.setdefault(piece.name, []).append(part.assign(start=piece.key["start"], seed=piece.key["seed"]))
    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}
    measured = rows.merge(joined["ends"], on=["start", "seed"], how="left")
    logs = measured["eigenvalue"].clip(lower=1e-12).map(math.log10)
    return tables | joined | {"runs": measured.assign(log_eigenvalue=logs)}


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
    answers = [True if x.low > 0.5 else False if x.high < 0.5 else None for x in shares.values()]
    return Finding("more than half of the way from SGD's to SAM's (logarithms) at every start", said,
                   False if False in answers else None if None in answers else True,
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
    holds = True if ratio_far.low > 1 else False if ratio_far.high < 1 else None
    return Finding("in the first quarter of the steps SAM goes farther than SGD", said, holds,
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


def after_panels(measured: Measured) -> list[Panel]:
    """Loss, distance, eigenvalue after SGD's end."""
    rows = measured["after"].replace({"method": {"GD": "SGD"}})
    titles = {"loss": "Training loss", "distance": "Distance from SGD's end", "eigenvalue": "Largest eigenvalue"}
    return [
        Panel(lines_of(rows.assign(value=rows[column]), "method", "step"), "step after SGD's end", title,
              log_y=column != "distance", whole=True)
        for column, title in titles.items()
    ]  # fmt: skip


def line_panels(measured: Measured) -> list[Panel]:
    """The training loss on the lines."""
    rows = measured["lines"].assign(value=measured["lines"]["loss"])
    lines = [line_of(_named(start), part, "at") for start, part in by(rows, "start")]
    return [Panel(lines, "0: SGD's end, 1: the other", "Training loss", log_y=True)]


def _named(start: float) -> str:
    return "SGD" if start == SGD_ONLY else "SAM" if start == 0 else f"SAM from {100 * start:g} %"


def setting(measured: Measured) -> str:
    """What the figures show."""
    return f"{measured.config.model}, {measured.config.here()}, rho = {measured.config.rho:g}."


STUDY = Study(
    name="late-sam",
    title="SAM late in training",
    source=ZHOU,
    question="Does SAM in the last part of training do what SAM from the start does, and what comes after the switch?",
    config=Config,
        paper={"data": "cifar10", "model": "wrn16-8", "epochs": 200, "batch_size": 128, "lr": 0.1, "schedule": "step",
           "weight_decay": 5e-4, "augment": True, "device": "cuda", "examples": 5000,
           "after": 8000, "every": 200},
    runs=Grid(case, after=ends, start=C.starts, seed=C.seeds),
    claims=[
        Claim("SAM from 90 % of training on reaches the test accuracy of SAM from the start.", SHORT,
              paired(accuracy, "start", 0.9, 0.0).within(0.5), "accuracy", "paper", notes=("Paired over seeds.",)),
        Claim("SAM from the start ends flatter than SGD.", SHORT,
              ratio(sharpness, "start", 0.0, SGD_ONLY) < 1, "sharpness", notes=("Paired over seeds.",)),
        Claim("Late SAM's largest eigenvalue is nearer to that of SAM from the start than to SGD's.", SHORT, nearer,
              "sharpness", notes=(steps_left,)),
        Claim("SAM leaves the end of SGD faster than SGD itself moves on.", SHORT, escapes, "after"),
        Claim("The way out leads uphill: loss and largest eigenvalue rise first.",
              ours("what an escape from a minimum is"), uphill, "after"),
        Claim("After it SAM is at a flatter place than SGD, trained as long.", SHORT, settles, "after"),
        Claim("Late SAM stays in the valley of SGD's end: no barrier lies between.", SHORT, same_valley, "lines"),
    ],
    figures=[
        Seeds("accuracy", accuracy, "start", setting, _named, title="Test accuracy at the end, %"),
        Seeds("sharpness", logarithm, "start", setting, _named, title="Largest eigenvalue at the end, log10"),
        Plot("after", "After the end of SGD", after_panels, setting),
        Plot("lines", "Training loss between the ends", line_panels, setting),
    ],
    choices=(
        "The paper's WRN-16-8 on CIFAR-10 switches at epoch 175 of 200. Here the switch is at 0, 50, 75, 90 and 100 % "
        "of the steps; SGD's schedule is not known here and is that of davda54/sam in preset paper.",
        "Preset quick: an MLP on scikit-learn's digits at a constant learning rate, so that steps after the switch are "
        "like those before.",
        "The two phases are followed from the end of the runs by SGD alone, where training goes on with SAM and, "
        "beside it, with SGD. A barrier is what the loss on a line rises over the straight line between its ends.",
    ),
)  # fmt: skip
