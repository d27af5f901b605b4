"""The papers' equations: five small choices, pure functions of vectors and scalars. Nothing here knows torch.optim."""

from fenland.rules.ball import L2, Ball, Steepest, Unnormalized
from fenland.rules.combine import AtAscentPoint, Combine, Gram, Renormalize
from fenland.rules.context import At
from fenland.rules.radius import Radius, current_radius
from fenland.rules.source import Gradient, Source
from fenland.rules.when import Always, When

__all__ = [
    "L2",
    "Always",
    "At",
    "AtAscentPoint",
    "Ball",
    "Combine",
    "Gradient",
    "Gram",
    "Radius",
    "Renormalize",
    "Source",
    "Steepest",
    "Unnormalized",
    "When",
    "current_radius",
]
