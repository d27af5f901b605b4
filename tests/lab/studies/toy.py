"""A study of seconds for the tests of the framework: it rolls dice, and counts how often it did."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.style import blank, head
from fenland.lab.study.base import Study, Verdict


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


class Toy(Study[Config]):
    name = "toy"
    title = "Dice, rolled <twice> & counted"
    source = "Ours"
    question = "Is the mean of a die half of its sides, plus a half?"
    choices = ("A die has its pips on the outside.",)
    presets = MappingProxyType({"quick": Config(), "paper": Config(sides=20, seeds=tuple(range(20)))})
    runs = 0
    computed = 0

    def run(self, config, lab):
        type(self).runs += 1
        pieces = []
        for seed in lab.track(config.seeds, len(config.seeds), "dice"):
            pieces.append(
                lab.keep("rolls", {"seed": seed, "sides": config.sides}, lambda s=seed: self._roll(config, s))
            )
        return {"rolls": pd.concat(pieces, ignore_index=True)}

    def _roll(self, config, seed):
        type(self).computed += 1
        rolls = np.random.default_rng(seed).integers(1, config.sides + 1, 50)
        return pd.DataFrame({"seed": seed, "value": rolls})

    def figures(self, config, tables):
        def draw(canvas):
            figure, axes = blank(canvas)
            axes.plot(tables["rolls"]["value"].rolling(9).mean(), **canvas.look("mean"))
            head(axes, canvas, "Rolls", ("mean",))
            return figure

        return [Drawn("rolls", "Rolls & means", "In order.", "Rolls by number.", draw, ("mean",))]

    def verdicts(self, config, tables):
        mean = float(tables["rolls"]["value"].mean())
        expected = (config.sides + 1) / 2
        return [
            Verdict(
                "The mean is in the middle", "ours", f"{expected:g} ± 1", f"{mean:.2f}", abs(mean - expected) < 1,
                figure="rolls",
            ),
            Verdict("No roll is above the last side", "ours", "never", "once", False, "An invented failure."),
            Verdict("The die is fair", "ours", "equal shares", "few rolls", None, "50 rolls cannot tell."),
        ]  # fmt: skip
