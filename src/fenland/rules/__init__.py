"""The papers' equations: five small choices, pure functions of vectors and scalars. Nothing here knows torch.optim."""

from fenland.rules.adaptive import Adaptive, Fisher
from fenland.rules.averages import BaseMomentum, Centralized, ExponentialAverage, Friendly, Previous, Random
from fenland.rules.ball import L2, Ball, Clipped, Steepest, Unnormalized
from fenland.rules.budget import FullNorm, LossBudget
from fenland.rules.combine import AtAscentPoint, Combine, Gram, Renormalize
from fenland.rules.context import At
from fenland.rules.hard import HardSamples, LossIncrease
from fenland.rules.inner import InnerSteps
from fenland.rules.lp import InfNorm, Lp
from fenland.rules.masks import NORM_LAYERS, OnlyLayers, RandomTensors, Sparse, ZScore
from fenland.rules.mixtures import Control, Penalty, Reuse, Spherical, SurrogateGap, Weighted
from fenland.rules.radius import Cosine, LearningRateTied, Radius, TiedToLearningRate, WarmUp
from fenland.rules.radius import current_radius as current_radius
from fenland.rules.riemannian import Riemannian
from fenland.rules.source import Gradient, Source
from fenland.rules.spectral import Spectral
from fenland.rules.when import AdaptiveToNorm, Always, Both, EveryK, When, Window, WithProbability

__all__ = [
    "L2",
    "NORM_LAYERS",
    "Adaptive",
    "AdaptiveToNorm",
    "Always",
    "At",
    "AtAscentPoint",
    "Ball",
    "BaseMomentum",
    "Both",
    "Centralized",
    "Clipped",
    "Combine",
    "Control",
    "Cosine",
    "EveryK",
    "ExponentialAverage",
    "Fisher",
    "Friendly",
    "FullNorm",
    "Gradient",
    "Gram",
    "HardSamples",
    "InfNorm",
    "InnerSteps",
    "LearningRateTied",
    "LossBudget",
    "LossIncrease",
    "Lp",
    "OnlyLayers",
    "Penalty",
    "Previous",
    "Radius",
    "Random",
    "RandomTensors",
    "Renormalize",
    "Reuse",
    "Riemannian",
    "Source",
    "Sparse",
    "Spectral",
    "Spherical",
    "Steepest",
    "SurrogateGap",
    "TiedToLearningRate",
    "Unnormalized",
    "WarmUp",
    "Weighted",
    "When",
    "Window",
    "WithProbability",
    "ZScore",
]
