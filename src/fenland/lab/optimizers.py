"""The optimizers that the lab compares: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput, one_of

Wrap = Callable[[torch.optim.Optimizer, float, nn.Module], torch.optim.Optimizer]


@dataclass(frozen=True)
class Row:
    """How to build one optimizer.

    Args:
        title: name in tables and figures.
        rho: default radius, None for an optimizer without an ascent.
        passes: gradient evaluations per step; progress bars weigh runs by it (the trainer counts the real ones).
        wrap: puts the method around a base optimizer.
    """

    title: str
    rho: float | None
    passes: int
    wrap: Wrap


def _plain(base: torch.optim.Optimizer, rho: float, model: nn.Module) -> torch.optim.Optimizer:
    return base


def _preset(name: str) -> Wrap:
    def wrap(base: torch.optim.Optimizer, rho: float, model: nn.Module) -> torch.optim.Optimizer:
        import fenland

        preset: Callable[..., torch.optim.Optimizer] = getattr(fenland, name)
        return preset(base, rho=rho, model=model)

    return wrap


# 0.05: Foret et al. 2021, the default for CIFAR and ImageNet. USAM's ascent is rho * g, so its rho is a length per
# gradient and not comparable: equal radii at ||g|| = 1, a smaller one wherever the gradient is smaller.
OPTIMIZERS: dict[str, Row] = {
    "sgd": Row("SGD", None, 1, _plain),
    "sam": Row("SAM", 0.05, 2, _preset("SAM")),
    "usam": Row("USAM", 0.05, 2, _preset("USAM")),
    "ssam": Row("SSAM", 0.05, 2, _preset("SSAM")),
}


def check_optimizer(name: str) -> Row:
    """The row of a name.

    Raises:
        BadInput: naming the optimizers that exist.
    """
    if name not in OPTIMIZERS:
        raise BadInput("optimizers", name, one_of(OPTIMIZERS))
    return OPTIMIZERS[name]


def build_optimizer(config: RunConfig, model: nn.Module) -> torch.optim.Optimizer:
    """SGD with the configuration's settings, wrapped as its optimizer's row says."""
    row = check_optimizer(config.optimizer)
    rho = row.rho if config.rho is None else config.rho
    base = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    return row.wrap(base, 0.0 if rho is None else rho, model)
