"""The loss on lines and planes through weight space, in the call style of training: `loss_fn(model, batch)`.

Weights, buffers, gradients, modes and random generators stay as they are, bit for bit, exceptions included. What batch
normalisation does is a choice that is kept with the result, since it changes the picture: `bn="eval"` uses the running
statistics of the weights at the centre, which fit other points badly; `"batch"` those of each batch, as in training;
`"recalibrate"` finds those of all batches anew at each point (twice the time). Dropout is off.

With `file=` the work survives being killed: losses found are kept in `FILE.part`, written whole and then renamed, and a
second call with the same arguments goes on from there and gives the very same file. A finished file is read, not
measured again.

Example:
    >>> seen = random_slice(model, loss_fn, batches, points=21, file="landscape.pt")
    >>> seen.plot("landscape.png")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fenland.arguments import check_number, check_whole
from fenland.diagnostics.landscape_axes import (
    Direction,
    checkpoint_of,
    named,
    normalized,
    principal,
    random_direction,
    weights_of,
)
from fenland.diagnostics.landscape_measure import Extent, LossFn, Options, Plan, axis, measure, wide
from fenland.diagnostics.landscape_result import Landscape

__all__ = ["Landscape", "Options", "between", "random_direction", "random_slice", "slice_along", "trajectory"]


def random_slice(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    *,
    dims: int = 2,
    seed: int = 0,
    extent: Extent = 1.0,
    points: int = 21,
    normalize: str = "filter",
    **options: Any,
) -> Landscape:
    """The loss around the weights, along one or two random directions.

    Args:
        model: the module.
        loss_fn: `loss_fn(model, batch)`, the batch's mean loss as a scalar tensor.
        batches: a list of batches, or a loader that gives the same examples each time.
        dims: 1 or 2.
        seed: of the directions; the second uses another stream.
        extent: coordinates run from -extent to extent, or over (low, high), in units of the direction.
        points: along each direction; odd numbers include the weights themselves.
        normalize: "filter" (Li et al. 2018, arXiv 1712.09913; 1.0 then changes each filter by its own norm), "unit" or
            "none".
        options: see `Options`.

    Raises:
        ValueError: an argument is out of range, or no batch; the message names it.
    """
    if dims not in (1, 2):
        raise ValueError(f"dims = {dims!r}: must be 1 or 2")
    check_whole("seed", seed, 0)
    drawn = [random_direction(model, 2 * seed + k, normalize) for k in range(dims)]
    how = {"filter": ", filter-normalised", "unit": ", unit length", "none": ""}[normalize]
    labels = tuple(f"random direction {k + 1}{how}" for k in range(dims))
    return measure(model, loss_fn, batches, Plan("random", drawn, labels, [axis(extent, points)] * dims), options)


def slice_along(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    directions: Sequence[Direction | Sequence[Tensor]],
    *,
    extent: Extent = 1.0,
    points: int = 21,
    normalize: str = "unit",
    labels: Sequence[str] | None = None,
    **options: Any,
) -> Landscape:
    """The loss around the weights along one or two given directions, such as eigenvectors of the Hessian.

    Args:
        model: the module.
        loss_fn: `loss_fn(model, batch)`, the batch's mean loss as a scalar tensor.
        batches: a list of batches, or a loader that gives the same examples each time.
        directions: one or two; each a list of tensors in the order of the parameters (all, or those that require a
            gradient), or a mapping by name.
        extent: coordinates run from -extent to extent, or over (low, high).
        points: along each direction.
        normalize: "unit" (coordinates are then distances in w), "filter" or "none".
        labels: of the axes.
        options: see `Options`.

    Raises:
        ValueError: directions that do not fit the model, or an argument out of range.
    """
    if isinstance(directions, (Tensor, Mapping)) or not 1 <= len(directions) <= 2:
        raise ValueError("directions: pass a list of one or two, each a list of tensors or a mapping by name")
    given = [normalized(model, named(model, d, f"directions[{k}]"), normalize) for k, d in enumerate(directions)]
    names = tuple(labels) if labels is not None else tuple(f"direction {k + 1}" for k in range(len(given)))
    if len(names) != len(given):
        raise ValueError(f"labels: {len(names)} for {len(given)} directions")
    plan = Plan("along", given, names, [axis(extent, points)] * len(given))
    return measure(model, loss_fn, batches, plan, options)


def between(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    *,
    extent: Extent = (0.0, 1.0),
    points: int = 21,
    **options: Any,
) -> Landscape:
    """The loss on the line from one checkpoint (0) to another (1). Source: Goodfellow et al. 2015, arXiv 1412.6544.

    Buffers in floating point (running statistics) go along on the line from 0 to 1 and stay as they are beyond; others
    are the first checkpoint's up to 1/2, then the second's: at 0 and 1 the losses are those of the checkpoints.

    Args:
        model: the module; its own weights do not matter.
        loss_fn: `loss_fn(model, batch)`, the batch's mean loss as a scalar tensor.
        batches: a list of batches, or a loader that gives the same examples each time.
        first: state dict of the module.
        second: another.
        extent: (low, high) along the line.
        points: on it.
        options: see `Options`.

    Raises:
        ValueError: keys or shapes that do not fit the model.
        TypeError: no state dicts, or other dtypes than the model's.
    """
    one, two = checkpoint_of(model, first, "first"), checkpoint_of(model, second, "second")
    along = axis(extent if isinstance(extent, tuple) else (0.0, extent), points)
    names = weights_of(model)
    away = {name: wide(two[name]) - wide(one[name]) for name in names}  # exact: 1 is the second, bit for bit
    buffers = [{k: t for k, t in state.items() if k not in names} for state in (one, two)]
    start = {name: one[name] for name in names}
    label = ("from the first checkpoint (0) to the second (1)",)
    line = Plan("between", [away], label, [along], start, (buffers[0], buffers[1]))
    return measure(model, loss_fn, batches, line, options)


def trajectory(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    checkpoints: Sequence[Mapping[str, Tensor]],
    *,
    margin: float = 0.2,
    points: int = 21,
    **options: Any,
) -> Landscape:
    """The loss in the plane in which a run's checkpoints vary most, with their path and its explained variance.

    The plane goes through the last checkpoint, whose buffers are used; the others lie off it by what `explained`
    leaves out. Source: Li et al. 2018, arXiv 1712.09913, section 7 (they do not centre; here the variance is the usual
    one, about the mean).

    Args:
        model: the module; its own weights do not matter.
        loss_fn: `loss_fn(model, batch)`, the batch's mean loss as a scalar tensor.
        batches: a list of batches, or a loader that gives the same examples each time.
        checkpoints: at least three state dicts, in order.
        margin: around the path, as a share of its extent.
        points: along each direction.
        options: see `Options`.

    Raises:
        ValueError: too few checkpoints, or ones that do not fit the model or vary in one direction only.
        TypeError: no state dicts, or other dtypes than the model's.
    """
    check_number("margin", margin, low=0.0)
    states = [checkpoint_of(model, state, f"checkpoints[{i}]") for i, state in enumerate(checkpoints)]
    names = weights_of(model)
    directions, path, explained = principal([{name: state[name] for name in names} for state in states])
    axes = []
    for k in range(2):
        low, high = float(path[:, k].min()), float(path[:, k].max())
        room = margin * (high - low)
        axes.append(axis((low - room, high + room), points))
    labels = tuple(f"component {k + 1} ({100 * float(explained[k]):.1f} % of variance)" for k in range(2))
    buffers = {k: t for k, t in states[-1].items() if k not in names}
    start = {name: states[-1][name] for name in names}
    plane = Plan("trajectory", directions, labels, axes, start, (buffers, buffers), path, explained)
    return measure(model, loss_fn, batches, plane, options)
