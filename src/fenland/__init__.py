"""fenland: sharpness-aware minimization for PyTorch. One engine, and a lab that measures stability.

>>> opt = fenland.SSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05, model=model)
>>> loss = opt.step(closure)
"""

from fenland.optimizer import SharpnessAware
from fenland.presets import PRESETS, SAM, SSAM, USAM
from fenland.rules import (
    L2,
    Always,
    AtAscentPoint,
    Ball,
    Combine,
    Gradient,
    Renormalize,
    Source,
    Unnormalized,
    When,
)

__version__ = "0.1.0"

__all__ = [
    "L2",
    "PRESETS",
    "SAM",
    "SSAM",
    "USAM",
    "Always",
    "AtAscentPoint",
    "Ball",
    "Combine",
    "Gradient",
    "Renormalize",
    "SharpnessAware",
    "Source",
    "Unnormalized",
    "When",
]
