"""The optimizers that the lab compares: one row each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from fenland.lab.config import RunConfig
from fenland.lab.config.options import arguments, read_options
from fenland.lab.errors import BadInput, one_of
from fenland.optimizer import SharpnessAware
from fenland.presets import PRESETS
from fenland.presets.table import Preset
from fenland.rules import Renormalize

Build = Callable[..., torch.optim.Optimizer]


@dataclass(frozen=True)
class Row:
    """How to build one optimizer."""

    title: str  # name in tables
    rho: float | None  # default radius, None for an optimizer without an ascent
    passes: float  # gradient evaluations per step; progress bars weigh runs by it (the trainer counts the real ones)
    build: Build | None = None  # puts the method around a base optimizer; None leaves the base alone
    per_sample: bool = False  # the closure returns one loss an example and leaves backward to the optimizer
    stable: bool = False  # its descent gradient is brought back to the length of the clean one

    @property
    def takes(self) -> frozenset[str]:
        """The names of the preset's own arguments."""
        return frozenset() if self.build is None else frozenset(inspect.signature(self.build).parameters)


def _row(preset: Preset) -> Row:
    """The row of an engine's preset, with the preset's own default radius."""
    rho = inspect.signature(preset.build).parameters["rho"].default
    return Row(preset.name, rho, preset.closure_calls, preset.build, preset.per_sample)


def _runs_here(preset: Preset) -> bool:
    """Whether the trainer has all it needs: a model, the number of steps, flat parameters."""
    return not set(preset.needs) - {"model", "total_steps"} and preset.name != "RiemannianSAM"


def _stable(name: str) -> Row:
    """A preset whose d is renormalised: ``fenland.Renormalize`` composed with the preset's ascent."""
    return replace(_PRESETS[name], title=f"Stable {_PRESETS[name].title}", stable=True)


_PRESETS = {preset.name.lower(): _row(preset) for preset in PRESETS.values() if _runs_here(preset)}

# Their rule leaves the choice of d open, and g is there, of the same examples, to measure d by.
_STABLE = (
    "asam", "fishersam", "lpsam", "clippedusam", "lesam", "samon", "sparsesam", "zsharp", "friendlysam", "vasso",
    "nstepsam", "rst", "aesam", "intervalsam", "windowsam",
)  # fmt: skip

# Radii are the presets' own and not comparable between rows: the ascent of USAM and SSAM-U is rho * g, a length per
# gradient, so equal to SAM's at ||g|| = 1 and shorter wherever the gradient is smaller.
OPTIMIZERS: dict[str, Row] = {
    "sgd": Row("SGD", None, 1),
    "adamw": Row("AdamW", None, 1),
    **_PRESETS,
    **{f"stable-{name}": _stable(name) for name in _STABLE},
}


def check_optimizer(name: str) -> Row:
    """The row of a name."""
    if name not in OPTIMIZERS:
        raise BadInput("optimizers", name, one_of(OPTIMIZERS, name))
    return OPTIMIZERS[name]


def check_options(optimizer: str, options: tuple[str, ...]) -> dict[str, Any]:
    """The options of an optimizer as keyword arguments; their values are checked when it is built."""
    row = check_optimizer(optimizer)
    builds: list[Callable[..., Any]] = [] if row.build is None else [row.build, *[Renormalize] * row.stable]
    return read_options(optimizer, builds, options)


def build_optimizer(config: RunConfig, model: nn.Module, total_steps: int | None = None) -> torch.optim.Optimizer:
    """The base with the configuration's settings, wrapped as its optimizer's row says.

    Args:
        config: the run.
        model: whose parameters are trained.
        total_steps: steps of the whole training, for a method that follows its progress; None: as many as epochs.

    Raises:
        BadInput: an option is wrong.
    """
    row = check_optimizer(config.optimizer)
    options = check_options(config.optimizer, config.options)
    base = _base(config, model)
    if row.build is None:
        return base
    given: dict[str, Any] = {"rho": row.rho if config.rho is None else config.rho, "model": model}
    # A method's own draws differ between repetitions, as the order of the examples does.
    given |= {"seed": config.seed} if "seed" in row.takes else {}
    given |= {"total_steps": total_steps or config.epochs} if "total_steps" in row.takes else {}
    try:
        own = {name: options.pop(name) for name in arguments(Renormalize) if row.stable and name in options}
        made = row.build(base, **{**given, **options})
        return _renormalized(made, given["rho"], own) if row.stable and isinstance(made, SharpnessAware) else made
    except (TypeError, ValueError) as error:
        blamed = [text for text in config.options if text.partition("=")[0] in str(error)]
        if not blamed:
            raise
        raise BadInput("options", f"{config.optimizer}:{blamed[0]}", str(error)) from error


def _renormalized(made: SharpnessAware, rho: float, options: dict[str, Any]) -> SharpnessAware:
    """The same rules with the method's d brought back to the length of the clean gradient."""
    rules = vars(made.rules) | {"method": Renormalize(made.rules.method, **options)}
    return SharpnessAware(made.base, rho, model=made.model, **rules)


def _base(config: RunConfig, model: nn.Module) -> torch.optim.Optimizer:
    decay = config.weight_decay
    trained = [weight for weight in model.parameters() if weight.requires_grad]  # of a model with adapters those alone
    if config.base == "adamw":
        return torch.optim.AdamW(trained, config.lr, betas=(config.momentum, 0.999), weight_decay=decay)
    return torch.optim.SGD(trained, lr=config.lr, momentum=config.momentum, weight_decay=decay)
