"""fenland: sharpness-aware minimization for PyTorch. One engine, and a lab that measures stability.

>>> opt = fenland.SSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05, model=model)
>>> loss = opt.step(closure)

Importing the package loads nothing, torch neither: the first use of a name loads what it needs (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fenland import presets, rules
    from fenland.diagnostics.doctor import diagnose as diagnose
    from fenland.diagnostics.finder import find_rho as find_rho
    from fenland.diagnostics.sharpness import sharpness as sharpness
    from fenland.optimizer import SharpnessAware
    from fenland.presets import *  # noqa: F403  (the methods)
    from fenland.rules import *  # noqa: F403  (the choices that they are made of)
    from fenland.together import step_together

    __all__ = ["SharpnessAware", "diagnose", "find_rho", "sharpness", "step_together"]
    __all__ += presets.__all__
    __all__ += rules.__all__

# One by one: they need more than a training step does.
_ALONE = {
    "diagnose": "fenland.diagnostics.doctor",
    "find_rho": "fenland.diagnostics.finder",
    "sharpness": "fenland.diagnostics.sharpness",
}
# All at once, since each is made of the others.
_TOGETHER = ("fenland.presets", "fenland.rules")


def _load() -> None:
    """Make the names of a training step the package's own, and `__all__` with them."""
    from fenland.optimizer import SharpnessAware
    from fenland.together import step_together

    found: dict[str, Any] = {"SharpnessAware": SharpnessAware, "step_together": step_together}
    for module in map(import_module, _TOGETHER):
        found |= {name: getattr(module, name) for name in module.__all__}
    globals().update(found, __all__=[*found, *_ALONE])


def __getattr__(name: str) -> Any:
    if name in _ALONE:
        globals()[name] = getattr(import_module(_ALONE[name]), name)
    elif name == "__all__" or not name.startswith("_"):  # tools that look for `__wrapped__` and the like load nothing
        _load()
    if name in globals():
        return globals()[name]
    raise AttributeError(f"module 'fenland' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
