"""Analytic problems in thousands of replicas at once, stepped by the very rules of the optimizer."""

from fenland.lab.replicas.factors import LinearAutoencoder, MatrixSensing
from fenland.lab.replicas.grids import AXES, Grid, grid
from fenland.lab.replicas.problems import Beale, FromFunction, Problem, Quadratic, Quartic, Saddle, near
from fenland.lab.replicas.rules import Rule, rule
from fenland.lab.replicas.toys import Neuron, SquareNeuron, UnequalWells, Wave, spread
from fenland.lab.replicas.trajectories import Noise, Outcome, has_compiler, run

__all__ = [
    "AXES",
    "Beale",
    "FromFunction",
    "Grid",
    "LinearAutoencoder",
    "MatrixSensing",
    "Neuron",
    "Noise",
    "Outcome",
    "Problem",
    "Quadratic",
    "Quartic",
    "Rule",
    "Saddle",
    "SquareNeuron",
    "UnequalWells",
    "Wave",
    "grid",
    "has_compiler",
    "near",
    "rule",
    "run",
    "spread",
]
