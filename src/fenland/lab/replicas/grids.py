"""A grid of trajectories: the product of radii, learning rates, momenta and starts, one replica a combination."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fenland.algebra import Vector

AXES = ("rho", "lr", "momentum", "start")


@dataclass(frozen=True, eq=False)
class Grid:
    """R replicas: what each starts from and is stepped with.

    Attributes:
        rho: radii, shape (R,) (unit of w for normalised balls).
        lr: learning rates, shape (R,).
        momentum: of SGD, shape (R,).
        start: weights, each of shape (R, *shape).
        shape: of the product, whose axes are `AXES`; results reshape to it.
    """

    rho: Tensor
    lr: Tensor
    momentum: Tensor
    start: Vector
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        count = math.prod(self.shape)
        if not self.start or not count:
            raise ValueError(f"a grid of shape {self.shape} with {len(self.start)} weights: nothing to run")
        for name, x in (("rho", self.rho), ("lr", self.lr), ("momentum", self.momentum)):
            if x.shape != (count,):
                raise ValueError(f"{name} of shape {tuple(x.shape)}: must be ({count},), one a replica")
            if not bool((torch.isfinite(x) & (x >= 0)).all()):
                raise ValueError(f"{name}: must be finite and >= 0")
        if any(x.shape[0] != count or x.dtype != torch.float64 for x in self.start):
            raise ValueError(f"start: must be float64 with {count} replicas in front")

    @property
    def replicas(self) -> int:
        """R."""
        return int(self.rho.shape[0])


def grid(
    start: Vector,
    *,
    rho: float | Sequence[float] = 0.05,
    lr: float | Sequence[float] = 0.1,
    momentum: float | Sequence[float] = 0.0,
) -> Grid:
    """Every combination of radius, learning rate, momentum and start, in this order of axes (the last runs fastest).

    Args:
        start: S starts, each weight of shape (S, *shape); `problem.pack` makes them from points (S, n).
        rho: one radius or several (unit of w for normalised balls).
        lr: one learning rate or several.
        momentum: one momentum or several.
    """
    given = [[x] if isinstance(x, (int, float)) else list(x) for x in (rho, lr, momentum)]
    axes = [torch.tensor(x, dtype=torch.float64) for x in given]
    starts = start[0].shape[0] if start else 0
    shape = (*(len(x) for x in axes), starts)
    each = [x.reshape(-1) for x in torch.meshgrid(*axes, torch.arange(starts, dtype=torch.float64), indexing="ij")]
    index = each[3].to(torch.int64)
    return Grid(each[0].clone(), each[1].clone(), each[2].clone(), [x[index] for x in start], shape)
