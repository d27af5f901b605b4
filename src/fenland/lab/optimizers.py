"""The optimizers that the lab compares: one row each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput, one_of
from fenland.presets import PRESETS
from fenland.presets.table import Preset

Wrap = Callable[[torch.optim.Optimizer, float, nn.Module], torch.optim.Optimizer]


@dataclass(frozen=True)
class Row:
    """How to build one optimizer.

    Args:
        title: name in tables.
        rho: default radius, None for an optimizer without an ascent.
        passes: gradient evaluations per step; progress bars weigh runs by it (the trainer counts the real ones).
        wrap: puts the method around a base optimizer.
    """

    title: str
    rho: float | None
    passes: float
    wrap: Wrap


def _plain(base: torch.optim.Optimizer, rho: float, model: nn.Module) -> torch.optim.Optimizer:
    return base


def _row(preset: Preset) -> Row:
    """The row of an engine's preset, with the preset's own default radius."""

    def wrap(base: torch.optim.Optimizer, rho: float, model: nn.Module) -> torch.optim.Optimizer:
        return preset.build(base, rho=rho, model=model)

    rho = inspect.signature(preset.build).parameters["rho"].default
    return Row(preset.name, rho, preset.closure_calls, wrap)


def _runs_here(preset: Preset) -> bool:
    """Whether the trainer has all it needs: a model, closures that run backward themselves, flat parameters."""
    return not set(preset.needs) - {"model"} and not preset.per_sample and preset.name != "RiemannianSAM"


# Radii are the presets' own and not comparable between rows: the ascent of USAM and SSAM-U is rho * g, a length per
# gradient, so equal to SAM's at ||g|| = 1 and shorter wherever the gradient is smaller.
OPTIMIZERS: dict[str, Row] = {"sgd": Row("SGD", None, 1, _plain), "adamw": Row("AdamW", None, 1, _plain)} | {
    preset.name.lower(): _row(preset) for preset in PRESETS.values() if _runs_here(preset)
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
    return row.wrap(_base(config, model), 0.0 if rho is None else rho, model)


def _base(config: RunConfig, model: nn.Module) -> torch.optim.Optimizer:
    decay = config.weight_decay
    if config.base == "adamw":
        return torch.optim.AdamW(model.parameters(), config.lr, betas=(config.momentum, 0.999), weight_decay=decay)
    return torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=decay)
