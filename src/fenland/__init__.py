"""fenland: sharpness-aware minimization for PyTorch. One engine, and a lab that measures stability.

>>> opt = fenland.SSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05, model=model)
>>> loss = opt.step(closure)
"""

from fenland import presets, rules
from fenland.optimizer import SharpnessAware
from fenland.presets import *  # noqa: F403  (the methods)
from fenland.rules import *  # noqa: F403  (the choices that they are made of)

__version__ = "0.1.0"

__all__ = ["SharpnessAware"]
__all__ += presets.__all__
__all__ += rules.__all__
