"""fenland: sharpness-aware minimization for PyTorch. One engine, and a lab that measures stability.

>>> opt = fenland.SSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05, model=model)
>>> loss = opt.step(closure)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fenland import presets, rules
from fenland.optimizer import SharpnessAware, step_together
from fenland.presets import *  # noqa: F403  (the methods)
from fenland.rules import *  # noqa: F403  (the choices that they are made of)

__version__ = "0.1.0"

__all__ = ["SharpnessAware", "step_together"]
__all__ += presets.__all__
__all__ += rules.__all__

# Loaded when asked for: they need more than a training step does.
_LAZY = {
    "diagnose": "fenland.diagnostics.doctor",
    "find_rho": "fenland.diagnostics.finder",
    "sharpness": "fenland.diagnostics.sharpness",
}
__all__ += ["diagnose", "find_rho", "sharpness"]

if TYPE_CHECKING:
    from fenland.diagnostics.doctor import diagnose as diagnose
    from fenland.diagnostics.finder import find_rho as find_rho
    from fenland.diagnostics.sharpness import sharpness as sharpness


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        found = getattr(import_module(_LAZY[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'fenland' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
