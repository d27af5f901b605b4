"""Directions of a loss landscape: random and filter-normalised, given, between checkpoints, or a trajectory's own.

A direction is a mapping from parameter names to tensors of the parameters' shapes; what is missing counts as zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fenland.algebra.shards import any_dtensor
from fenland.arguments import check_among

Direction: TypeAlias = "Mapping[str, Tensor]"
NORMALIZATIONS = ("filter", "unit", "none")
TINY = 1e-30


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters by name, detached; floating point and whole.

    Raises:
        ValueError: none, lazy, or sharded ones.
        TypeError: complex or integer ones.
    """
    params = dict(model.named_parameters())
    if not params:
        raise ValueError("model: it has no parameters, so there is no landscape")
    if any(nn.parameter.is_lazy(p) for p in params.values()):
        raise ValueError("model: it has lazy parameters without a shape; run one batch through it first")
    if any_dtensor(list(params.values())):
        raise ValueError("model: its parameters are sharded (DTensor); load the checkpoint into a whole model")
    for name, p in params.items():
        if not p.is_floating_point():
            raise TypeError(
                f"model: parameter {name!r} is {p.dtype}; only real floating point weights have a landscape"
            )
    return {name: p.detach() for name, p in params.items()}


def random_direction(model: nn.Module, seed: int = 0, normalize: str = "filter") -> dict[str, Tensor]:
    """A normal draw, by default filter-normalised (see `normalized`); the generators of torch are left alone.

    Args:
        model: whose weights it fits.
        seed: of the draw, made on the CPU in float32, so that devices agree.
        normalize: "filter", "unit" or "none".
    """
    draws = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(w.shape, generator=draws, device="cpu").to(w) for name, w in weights_of(model).items()}
    return normalized(model, drawn, normalize)


def normalized(model: nn.Module, direction: Direction, normalize: str = "filter") -> dict[str, Tensor]:
    r"""A direction, scaled.

    "filter": each filter d_i of a weight (its slice along dimension 0: an output channel or unit) gets the norm of the
    weights' own filter, d_i * ||w_i|| / ||d_i||; parameters of one dimension (biases, BN) get zero, so that plots do
    not depend on how a network scales its layers. Source: Li et al. 2018, arXiv 1712.09913, section 4.
    "unit": ||d|| = 1 over all parameters. "none": as it is.
    """
    check_among("normalize", normalize, NORMALIZATIONS)
    weights = weights_of(model)
    if normalize == "filter":
        return {name: _as_filters(weights[name], d) for name, d in direction.items()}
    if normalize == "unit":
        length = sum(float(d.double().square().sum()) for d in direction.values()) ** 0.5
        if length < TINY:
            raise ValueError("direction: it is zero everywhere and cannot be given unit length")
        return {name: d / length for name, d in direction.items()}
    return dict(direction)


def _as_filters(w: Tensor, d: Tensor) -> Tensor:
    if w.dim() < 2:
        return torch.zeros_like(d)
    rows, along = w.flatten(1).float().norm(dim=1), d.flatten(1).float().norm(dim=1)
    factor = (rows / along.clamp_min(TINY)).reshape(-1, *(1,) * (d.dim() - 1))
    return d.mul(factor.to(d.dtype))


def named(model: nn.Module, given: Direction | Sequence[Tensor], which: str) -> dict[str, Tensor]:
    """A direction in our form, on the weights' device and in their dtype.

    Args:
        model: whose weights it must fit.
        given: by name, or a list in the order of `model.parameters()`: all of them, or those that require a gradient,
            as eigenvectors of `fenland.diagnostics.curvature` are.
        which: what messages call it.

    Raises:
        ValueError: names, number or shapes do not fit, or it is not finite.
    """
    weights = weights_of(model)
    if not isinstance(given, Mapping):
        given = list(given)
        names = list(weights)
        if len(given) != len(names):
            names = [name for name, p in model.named_parameters() if p.requires_grad]
        if len(given) != len(names):
            raise ValueError(
                f"{which}: {len(given)} tensors for {len(weights)} parameters ({len(names)} of them with a gradient); "
                "pass one for each, or a mapping by name"
            )
        given = dict(zip(names, given, strict=True))
    for name, d in given.items():
        if name not in weights:
            raise ValueError(f"{which}: {name!r} is no parameter of the model, which has {_few(weights)}")
        if not isinstance(d, Tensor) or d.shape != weights[name].shape:
            shape = tuple(d.shape) if isinstance(d, Tensor) else type(d).__name__
            raise ValueError(f"{which}: {name!r} is {shape}, and the parameter {tuple(weights[name].shape)}")
        if not bool(torch.isfinite(d).all()):
            raise ValueError(f"{which}: {name!r} is not finite")
    return {name: d.detach().to(weights[name]) for name, d in given.items()}


def checkpoint_of(model: nn.Module, state: Any, which: str) -> dict[str, Tensor]:
    """A checkpoint's entries for this model's parameters and buffers, checked.

    Args:
        model: that the checkpoint is of.
        state: its state dict.
        which: what messages call it.

    Raises:
        TypeError: not a mapping of tensors, or entries of another kind of number.
        ValueError: keys or shapes that do not fit the model.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"{which} = a {type(state).__name__}: must be a state dict; load the file and pass its weights")
    own = model.state_dict()
    tensors = {name: t for name, t in own.items() if isinstance(t, Tensor)}
    missing, extra = [k for k in tensors if k not in state], [k for k in state if k not in own]
    if missing or extra:
        what = [f"it lacks {_few(missing)}"] * bool(missing) + [f"the model lacks {_few(extra)}"] * bool(extra)
        raise ValueError(f"{which}: its keys are not the model's: {'; '.join(what)}")
    found = {}
    for name, t in tensors.items():
        there = state[name]
        if not isinstance(there, Tensor) or there.shape != t.shape:
            shape = tuple(there.shape) if isinstance(there, Tensor) else type(there).__name__
            raise ValueError(f"{which}: {name!r} is {shape}, and the model's {tuple(t.shape)}")
        if there.dtype != t.dtype:
            raise TypeError(f"{which}: {name!r} is {there.dtype}, and the model's {t.dtype}; convert one of them")
        found[name] = there.detach().to(t.device)
    return found


def principal(points: Sequence[Mapping[str, Tensor]], count: int = 2) -> tuple[list[dict[str, Tensor]], Tensor, Tensor]:
    """The directions in which a trajectory of weights varies most.

    Principal components of the m checkpoints about their mean, by the m x m Gram matrix in float64, so that no matrix
    of weights is factorised. Source of the use: Li et al. 2018, arXiv 1712.09913, section 7.

    Args:
        points: checkpoints, m > count.
        count: number of directions.

    Returns:
        `count` unit directions; coordinates (m, count) of the checkpoints relative to the last (unit of w); the share
        of the variance along each, (count,).

    Raises:
        ValueError: too few checkpoints, or ones that do not vary in so many directions.
    """
    m = len(points)
    if m <= count:
        raise ValueError(f"checkpoints: {m} given; {count} directions of a trajectory need at least {count + 1}")
    device = next(iter(points[0].values())).device
    gram = torch.zeros(m, m, dtype=torch.float64, device=device)
    for name in points[0]:
        rows = torch.stack([p[name].double().flatten() for p in points])
        rows = rows - rows.mean(0)
        gram += rows @ rows.T
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    if float(values[count - 1]) <= 1e-14 * float(values.sum()) or not float(values.sum()) > 0:
        raise ValueError(
            f"checkpoints: they vary in fewer than {count} directions; give others, or use between() on a line"
        )
    directions: list[dict[str, Tensor]] = []
    for k in range(count):
        weight = vectors[:, k] / values[k].sqrt()
        weight = weight - weight.mean()  # the rows' mean cancels
        weight = weight * (1.0 if float(vectors[0, k] - vectors[-1, k]) >= 0 else -1.0)  # the start lies at >= 0
        directions.append(
            {
                name: torch.einsum("m,m...->...", weight, torch.stack([p[name].double() for p in points]))
                for name in points[0]
            }
        )
    coordinates = torch.zeros(m, count, dtype=torch.float64, device="cpu")
    for i, point in enumerate(points):
        for k, d in enumerate(directions):
            parts = [((point[name].double() - points[-1][name].double()) * d[name]).sum() for name in d]
            coordinates[i, k] = float(torch.stack(parts).sum())
    return directions, coordinates, (values[:count] / values.sum()).cpu()


def _few(names: Any) -> str:
    listed = list(names)
    return ", ".join(map(repr, listed[:3])) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
