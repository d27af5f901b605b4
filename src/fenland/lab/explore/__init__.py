"""The explorer: one page on which people choose a landscape and a method and see what the steps do."""

from fenland.lab.explore.page import write_explorer

__all__ = ["write_explorer"]
