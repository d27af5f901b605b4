"""The papers' programs: each asks for gradients, one request at a time, and ends with its update."""

from fenland.rules.methods.ascend import L2, Always, Ascend, AtAscentPoint, Gradient, InnerSteps, chosen
from fenland.rules.methods.base import Method
from fenland.rules.methods.blind import AtRandomPoint, BaseMomentum
from fenland.rules.methods.kept import Reuse, SphericalSearch
from fenland.rules.methods.per_sample import HardSamples, LossIncrease
from fenland.rules.methods.renormalize import Renormalize
from fenland.rules.methods.weighted import WeightedDecoupled

__all__ = [
    "L2",
    "Always",
    "Ascend",
    "AtAscentPoint",
    "AtRandomPoint",
    "BaseMomentum",
    "Gradient",
    "HardSamples",
    "InnerSteps",
    "LossIncrease",
    "Method",
    "Renormalize",
    "Reuse",
    "SphericalSearch",
    "WeightedDecoupled",
    "chosen",
]
