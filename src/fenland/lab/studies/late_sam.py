"""Late SAM: SGD with SAM from a share of training on, beside SAM from the start, and what happens after the switch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fenland.lab.errors import BadInput
from fenland.lab.figures.plots import Panel
from fenland.lab.studies.late_sam_claims import CLAIMS, SGD_ONLY, ZHOU, accuracy, logarithm
from fenland.lab.study import C, Grid, Lab, Measured, Piece, Plot, Seeds, Study, Tables, Training
from fenland.lab.study.ends import after, end, line
from fenland.lab.study.grid import above_zero
from fenland.lab.study.images import about_data
from fenland.lab.study.recipes import line_of, lines_of
from fenland.lab.study.rows import gathered
from fenland.lab.study.words import by

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig

ENOUGH = 100  # epochs, from which on a run speaks about the published 200


@dataclass(frozen=True)
class Config(Training):
    """What is run."""

    model: str = "mlp"  # the network
    rho: float = 0.05  # SAM's radius
    epochs: int = 40
    lr: float = 0.05
    schedule: str = "constant"
    momentum: float = 0.9
    weight_decay: float = 0.0
    # shares of training without the ascent: 0 is SAM, 1 is SGD
    starts: tuple[float, ...] = (0.0, 0.5, 0.75, 0.9, SGD_ONLY)
    examples: int = 300  # training images of losses and eigenvalues
    tol: float = 0.05  # of the eigenvalues
    points: int = 13  # along the lines between ends
    after: int = 600  # steps from SGD's end on, with SAM and without
    every: int = 30  # of them between two rows

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
    joined = gathered(lab, pieces, "ends of runs", "start", "seed")
    measured = rows.merge(joined["ends"], on=["start", "seed"], how="left")
    logs = measured["eigenvalue"].clip(lower=1e-12).map(math.log10)
    return tables | joined | {"runs": measured.assign(log_eigenvalue=logs)}


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
           "weight_decay": 5e-4, "augment": True, "device": "cuda", "examples": 5000, "after": 8000, "every": 200},
    runs=Grid(case, after=ends, start=C.starts, seed=C.seeds),
    claims=CLAIMS,
    figures=[
        Seeds("accuracy", accuracy, "start", setting, _named, title="Test accuracy at the end, %"),
        Seeds("sharpness", logarithm, "start", setting, _named, title="Largest eigenvalue at the end, log10"),
        Plot("after", "After the end of SGD", after_panels, setting),
        Plot("lines", "Training loss between the ends", line_panels, setting),
    ],
    choices=(
        "The paper's WRN-16-8 on CIFAR-10 switches at epoch 175 of 200. Here the switch is at 0, 50, 75, 90 and 100 % "
        "of the steps. The schedule of SGD is not known to us; preset paper takes that of davda54/sam.",
        "Preset quick trains an MLP on scikit-learn's digits at a constant learning rate, so that steps after the "
        "switch are like those before.",
        "To follow the two phases, training continues from the end of the runs by SGD alone, once with SAM and once "
        "with SGD. A barrier is how far the loss between two points rises above the straight line between their "
        "losses.",
    ),
)  # fmt: skip
