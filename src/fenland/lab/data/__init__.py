"""Data: real images as tensors, decoded once, on the device where they fit, augmented there; texts as their tokens."""

from fenland.lab.data.batches import Batches
from fenland.lab.data.images import Images
from fenland.lab.data.load import BUILT_IN, identify, load, load_texts
from fenland.lab.data.selection import select
from fenland.lab.data.token_batches import TokenBatches
from fenland.lab.data.tokens import Tokens

__all__ = [
    "BUILT_IN",
    "Batches",
    "Images",
    "TokenBatches",
    "Tokens",
    "identify",
    "load",
    "load_texts",
    "select",
]
