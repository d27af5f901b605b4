"""A flat vector of all chosen parameters, and the tensors that it stands for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fenland.diagnostics.objective import Objective


def length(v: Tensor) -> float:
    """|v|_2 in float64: squares of float32 leave its range where curvature is far below 1e-19 or beyond 1e19."""
    return float(torch.linalg.vector_norm(v, dtype=torch.float64))


class Flat:
    """Between one tensor a parameter and one vector of shape (size,), in at least float32.

    Args:
        objective: whose parameters.
    """

    def __init__(self, objective: Objective) -> None:
        self.names, self.params = objective.names, objective.params
        self.size = sum(p.numel() for p in self.params)
        self.device = self.params[0].device
        self.dtype = torch.float64 if all(p.dtype == torch.float64 for p in self.params) else torch.float32
        #: Rounding error of the coarsest parameter.
        self.eps = max(torch.finfo(p.dtype).eps for p in self.params)

    def join(self, parts: Sequence[Tensor | None]) -> Tensor:
        """One vector; None counts as zeros."""
        pairs = zip(parts, self.params, strict=True)
        whole = [torch.zeros(p.numel(), device=self.device) if x is None else x.detach().reshape(-1) for x, p in pairs]
        return torch.cat([x.to(self.device, self.dtype) for x in whole])

    def split(self, v: Tensor) -> list[Tensor]:
        """One tensor a parameter, in the parameter's dtype and on its device."""
        parts = v.split([p.numel() for p in self.params])  # type: ignore[no-untyped-call]
        return [x.view(p.shape).to(p) for x, p in zip(parts, self.params, strict=True)]

    def named(self, v: Tensor) -> dict[str, Tensor]:
        """One tensor a parameter, by name."""
        return dict(zip(self.names, self.split(v), strict=True))

    def signs(self, generator: torch.Generator) -> Tensor:
        """A random vector with entries +1 and -1."""
        bits = torch.randint(0, 2, (self.size,), generator=generator, device="cpu")
        return (2 * bits - 1).to(self.device, self.dtype)
