"""Data: real images as tensors, decoded once, on the device where they fit, augmented there."""

from fenland.lab.data.batches import Batches
from fenland.lab.data.images import Images
from fenland.lab.data.load import BUILT_IN, identify, load
from fenland.lab.data.selection import select

__all__ = ["BUILT_IN", "Batches", "Images", "identify", "load", "select"]
