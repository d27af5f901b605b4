"""What a step costs beyond the base's own: time and memory, beside the floor and what people use instead."""

from fenland.lab.bench.compare import Change, changes
from fenland.lab.bench.measure import Plan, measure
from fenland.lab.bench.shapes import SETS

__all__ = ["SETS", "Change", "Plan", "changes", "measure"]
