"""Vector arithmetic over all parameters at once: the only bulk tensor code of fenland."""

from fenland.algebra.base import Algebra, Scalar, Vector
from fenland.algebra.lazy import Coefficient, Lazy, Leaf, inverse, project, ratio
from fenland.algebra.lists import Lists
from fenland.algebra.stacked import Stacked

__all__ = [
    "Algebra",
    "Coefficient",
    "Lazy",
    "Leaf",
    "Lists",
    "Scalar",
    "Stacked",
    "Vector",
    "inverse",
    "project",
    "ratio",
]
