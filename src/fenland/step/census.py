"""Names and owners of parameters, for the rules that ask (biases apart, norm layers only)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Census:
    """Finds each parameter's name and the module that owns it."""

    def __init__(self, groups: Sequence[dict[str, Any]], model: nn.Module | None) -> None:
        self._names: dict[int, str] = {}
        self._owners: dict[int, nn.Module] = {}
        for group in groups:
            for p, name in zip(group["params"], group.get("param_names", ()), strict=False):
                self._names[id(p)] = name
        if model is not None:
            for path, module in model.named_modules():
                for name, p in module.named_parameters(recurse=False):
                    self._names.setdefault(id(p), f"{path}.{name}" if path else name)
                    self._owners[id(p)] = module

    def knows(self, groups: Sequence[dict[str, Any]]) -> bool:
        """Whether every parameter has a name."""
        return all(id(p) in self._names for group in groups for p in group["params"])

    def name(self, p: Tensor) -> str:
        """The parameter's name."""
        return self._names[id(p)]

    def owner(self, p: Tensor) -> nn.Module | None:
        """The module that owns it; None where only names are known."""
        return self._owners.get(id(p))
