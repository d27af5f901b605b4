"""What a study is written with, and what runs, judges and draws it."""

from fenland.lab.store.statistics import Interval, interval
from fenland.lab.study.claims import Claim
from fenland.lab.study.grid import C, Grid, Training
from fenland.lab.study.parts import OURS, Finding, Lab, Measured, Piece, Sheet, Source, Statement, Tables, Verdict, ours
from fenland.lab.study.quantities import Contrast, Quantity, both, last_epoch, paired, ratio
from fenland.lab.study.recipes import Plot, Seeds, curves
from fenland.lab.study.study import Study

__all__ = [
    "OURS", "C", "Claim", "Contrast", "Finding", "Grid", "Interval", "Lab", "Measured", "Piece", "Plot", "Quantity",
    "Seeds", "Sheet", "Source", "Statement", "Study", "Tables", "Training", "Verdict", "both", "curves", "interval",
    "last_epoch", "ours", "paired", "ratio",
]  # fmt: skip
