"""Figures of a comparison: one style, one colour and one line style per optimizer, drawn for the page and for paper."""

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.comparison import draw_all
from fenland.lab.figures.files import save_files
from fenland.lab.figures.svg import inline_svg

__all__ = ["Drawn", "draw_all", "inline_svg", "save_files"]
