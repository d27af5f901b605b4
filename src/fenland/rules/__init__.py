"""The papers' equations and programs. Nothing here knows torch.optim."""

from fenland.rules.adaptive import Adaptive, Fisher
from fenland.rules.averages import Centralized, ExponentialAverage, Friendly, Previous
from fenland.rules.choices import Ball, Combine, Source, When
from fenland.rules.context import Context
from fenland.rules.lengths import Clipped, FullNorm, LossBudget, Unnormalized
from fenland.rules.lp import InfNorm, Lp
from fenland.rules.masks import NORM_LAYERS, OnlyLayers, RandomTensors, Sparse, ZScore
from fenland.rules.methods import (
    L2,
    Always,
    Ascend,
    AtAscentPoint,
    AtRandomPoint,
    BaseMomentum,
    Gradient,
    HardSamples,
    InnerSteps,
    LossIncrease,
    Method,
    Renormalize,
    Reuse,
    SphericalSearch,
    WeightedDecoupled,
)
from fenland.rules.methods import chosen as chosen
from fenland.rules.parameters import ParameterNames as ParameterNames
from fenland.rules.radius import Cosine, LearningRateTied, Radius, TiedToLearningRate, WarmUp
from fenland.rules.radius import current_radius as current_radius
from fenland.rules.requests import Grad, Highest, Update
from fenland.rules.riemannian import Riemannian
from fenland.rules.spectral import Spectral
from fenland.rules.two_gradient import Control, Penalty, Spherical, SurrogateGap, Weighted
from fenland.rules.when import AdaptiveToNorm, Both, EveryK, Window, WithProbability

__all__ = [
    "L2",
    "NORM_LAYERS",
    "Adaptive",
    "AdaptiveToNorm",
    "Always",
    "Ascend",
    "AtAscentPoint",
    "AtRandomPoint",
    "Ball",
    "BaseMomentum",
    "Both",
    "Centralized",
    "Clipped",
    "Combine",
    "Context",
    "Control",
    "Cosine",
    "EveryK",
    "ExponentialAverage",
    "Fisher",
    "Friendly",
    "FullNorm",
    "Grad",
    "Gradient",
    "HardSamples",
    "Highest",
    "InfNorm",
    "InnerSteps",
    "LearningRateTied",
    "LossBudget",
    "LossIncrease",
    "Lp",
    "Method",
    "OnlyLayers",
    "Penalty",
    "Previous",
    "Radius",
    "RandomTensors",
    "Renormalize",
    "Reuse",
    "Riemannian",
    "Source",
    "Sparse",
    "Spectral",
    "Spherical",
    "SphericalSearch",
    "SurrogateGap",
    "TiedToLearningRate",
    "Unnormalized",
    "Update",
    "WarmUp",
    "Weighted",
    "WeightedDecoupled",
    "When",
    "Window",
    "WithProbability",
    "ZScore",
]
