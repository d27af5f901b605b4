"""Data: real images as tensors, decoded once, the whole set on the device."""

from fenland.lab.data.batches import Batches
from fenland.lab.data.images import Images
from fenland.lab.data.load import BUILT_IN, identify, load

__all__ = ["BUILT_IN", "Batches", "Images", "identify", "load"]
