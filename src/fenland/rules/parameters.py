"""Names and owners of parameters, for the rules that ask (biases apart, norm layers only)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fenland.algebra.shards import any_dtensor


class ParameterNames:
    """Knows each parameter's name and the module that owns it, as far as groups or a model tell.

    Args:
        groups: an optimizer's parameter groups, with "param_names" if it was built on `named_parameters()`.
        model: the module that has the parameters, or None.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], model: nn.Module | None) -> None:
        self.params = [p for group in groups for p in group["params"]]
        self._names: dict[int, str] = {}
        self._owners: dict[int, nn.Module] = {}
        for group in groups:
            for p, name in zip(group["params"], group.get("param_names", ()), strict=False):
                self._names[id(p)] = name
        for path, module in model.named_modules() if model is not None else ():
            for name, p in module.named_parameters(recurse=False):
                self._names.setdefault(id(p), f"{path}.{name}" if path else name)
                self._owners[id(p)] = module

    def name(self, p: Tensor) -> str:
        """The parameter's name."""
        return self._names[id(p)]

    def told(self, p: Tensor) -> str:
        """The parameter as a message names it: by its name, or by its place and shape where it has none."""
        name = self._names.get(id(p))
        place = next((i for i, x in enumerate(self.params) if x is p), None)
        return f"{name!r}" if name is not None else f"parameter {place} (shape {tuple(p.shape)})"

    def owner(self, p: Tensor) -> nn.Module | None:
        """The module that owns it; None where only names are known."""
        return self._owners.get(id(p))

    def require_names(self, what: str) -> None:
        """Raise a ValueError unless every parameter has a name; `what` needs them, such as "ball = ..."."""
        if not all(id(p) in self._names for p in self.params):
            raise ValueError(
                f"{what}: needs the names of the parameters; pass model=, or build the base on model.named_parameters()"
            )

    def require_real(self, what: str) -> None:
        """Raise a ValueError where a parameter is complex; `what` is made for real numbers."""
        if any(p.is_complex() for p in self.params):
            raise ValueError(f"{what}: is made for real numbers, and a parameter is complex; use fenland.L2()")

    def require_whole(self, what: str) -> None:
        """Raise a ValueError where a parameter is sharded; `what` needs whole tensors."""
        if any_dtensor(self.params):
            raise ValueError(f"{what}: needs whole tensors, and parameters are sharded; use another {what.split()[0]}")
