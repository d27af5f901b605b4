"""A study of seconds for the tests of the framework: it rolls dice, and counts how often it did."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.style import blank, head
from fenland.lab.study import OURS, Claim, Finding, Piece, Source, Study

COUNTS = {"runs": 0, "computed": 0}


@dataclass(frozen=True)
class Config:
    sides: int = 6
    weights: tuple[float, ...] = (1.0, 0.5)
    seeds: tuple[int, ...] = (0, 1)
    name: str = "dice"
    fair: bool = True
    shape: Literal["cube", "coin"] = "cube"
    limit: int | None = None

    def __post_init__(self):
        if self.sides < 2:
            raise ValueError(f"sides = {self.sides}: must be at least 2")


def measure(config, lab):
    COUNTS["runs"] += 1
    pieces = [Piece("rolls", {"seed": s, "sides": config.sides}, partial(roll, config.sides, s)) for s in config.seeds]
    return {"rolls": pd.concat(lab.keep_all(pieces, "dice"), ignore_index=True)}


def roll(sides, seed):
    COUNTS["computed"] += 1
    rolls = np.random.default_rng(seed).integers(1, sides + 1, 50)
    return pd.DataFrame({"seed": seed, "value": rolls})


def draw(measured):
    def paint(canvas):
        figure, axes = blank(canvas)
        axes.plot(measured["rolls"]["value"].rolling(9).mean(), **canvas.look("mean"))
        head(axes, canvas, "Rolls", ("mean",))
        return figure

    return Drawn("rolls", "Rolls & means", "In order.", "Rolls by number.", paint, ("mean",))


def middle(measured):
    mean, expected = float(measured["rolls"]["value"].mean()), (measured.config.sides + 1) / 2
    return Finding(f"{expected:g} ± 1", f"{mean:.2f}", abs(mean - expected) < 1)


CLAIMS = [
    Claim("The mean is in the middle", OURS, middle, "rolls"),
    Claim("No roll is above the last side", OURS, lambda m: Finding("never", "once", False),
          notes=("An invented failure.",)),
    Claim("The die is fair", Source("Pacioli, 1494"), lambda m: Finding("equal shares", "few rolls", None),
          notes=("50 rolls cannot tell.",)),
]  # fmt: skip
STUDY = Study(
    name="toy",
    title="Dice, rolled <twice> & counted",
    source=Source("Ours"),
    question="Is the mean of a die half of its sides, plus a half?",
    choices=("A die has its pips on the outside.",),
    config=Config,
    paper={"sides": 20, "seeds": tuple(range(20))},
    runs=measure,
    claims=CLAIMS,
    figures=[draw],
)
