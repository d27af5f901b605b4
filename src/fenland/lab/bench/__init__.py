"""What a step costs beyond the base's own: time and memory, beside the floor and what people use instead."""

from fenland.lab.bench.compare import Change, changes
from fenland.lab.bench.shapes import SETS
from fenland.lab.bench.timing import Plan, measure

__all__ = ["SETS", "Change", "Plan", "changes", "measure"]
