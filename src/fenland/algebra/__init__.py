"""Vector arithmetic over all parameters at once: the only bulk tensor code of fenland."""

from fenland.algebra.base import Algebra, Scalar, Vector
from fenland.algebra.lists import Lists
from fenland.algebra.stacked import Stacked

__all__ = ["Algebra", "Lists", "Scalar", "Stacked", "Vector"]
