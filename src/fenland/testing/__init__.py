"""The step contract over a rule of your own: one call runs all of it and names what is broken.

>>> from fenland.testing import check
>>> check(MyMethod(), when=fenland.EveryK(2))

It needs torch alone and runs on the CPU, in a second or two.
"""

from fenland.testing.contract import Point, Report, check, examine
from fenland.testing.points import POINTS

__all__ = ["POINTS", "Point", "Report", "check", "examine"]
