"""From a plan (where to measure) to a landscape: in chunks, going on from what a killed run has kept."""

from __future__ import annotations

import hashlib
import io
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fenland.arguments import check_count, check_number, check_whole
from fenland.diagnostics.landscape_axes import weights_of
from fenland.diagnostics.landscape_points import Evaluator, Place
from fenland.diagnostics.landscape_result import FORMAT, Landscape, read, write_whole

Extent: TypeAlias = "float | tuple[float, float]"
LossFn: TypeAlias = "Callable[[nn.Module, Any], Tensor]"
MEMORY = 256 * 2**20  # bytes of weights that are held at once
MOST = 32  # points at once: activations grow with them


@dataclass(frozen=True)
class Options:
    """How a landscape is measured; every function of `fenland.diagnostics.landscape` takes these as keywords.

    Attributes:
        bn: "eval", "batch" or "recalibrate": what BN layers use.
        engine: "auto", "vmap" (many points at once) or "loop".
        chunk: points at once; None takes what 256 MiB of weights hold, at most 32.
        size: number of examples in a batch, which weights its loss; None takes its tensors' first dimension.
        file: where the result is kept, and beside it what is half done; None keeps nothing.
        save_every: seconds between two savings of what is half done.
        progress: called as progress(points done, points in all).
    """

    bn: str = "eval"
    engine: str = "auto"
    chunk: int | None = None
    size: Callable[[Any], float] | None = None
    file: str | Path | None = None
    save_every: float = 5.0
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class Plan:
    """Where to measure.

    Attributes:
        kind: of `Landscape`.
        directions: one or two.
        labels: of the axes.
        axes: coordinates along each.
        start: weights at 0; None for the model's own.
        buffers: at 0 and at 1; None for the model's own.
        path: of `Landscape`.
        explained: of `Landscape`.
    """

    kind: str
    directions: Sequence[Mapping[str, Tensor]]
    labels: tuple[str, ...]
    axes: Sequence[Tensor]
    start: Mapping[str, Tensor] | None = None
    buffers: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None = None
    path: Tensor | None = None
    explained: Tensor | None = None

    def place(self, model: nn.Module, at: Sequence[float]) -> Place:
        """Weights and buffers at coordinates `at`."""
        start = weights_of(model) if self.start is None else self.start
        params = dict(start)
        for a, d in zip(at, self.directions, strict=True):
            if a:
                params |= {name: wide(params[name]) + a * wide(x) for name, x in d.items()}
        params = {name: p.to(start[name].dtype) for name, p in params.items()}
        buffers = {name: b.detach() for name, b in model.named_buffers()}
        if self.buffers is not None:
            one, two = self.buffers
            t = min(max(at[0], 0.0), 1.0) if self.kind == "between" else 0.0  # a variance beyond may be negative
            buffers |= {name: _mixed(one[name], two[name], t) for name in one if name in buffers}
        return params, buffers

    def key(self, model: nn.Module, settings: tuple[Any, ...]) -> str:
        """What a half-done file must agree with: all but data and loss, for which L at 0 speaks."""
        held = io.BytesIO()
        start = {name: w.cpu() for name, w in (self.start or weights_of(model)).items()}
        along = [{name: d.cpu() for name, d in each.items()} for each in self.directions]
        torch.save([start, along, list(self.axes), self.kind, list(self.labels), settings], held)
        return hashlib.sha256(held.getvalue()).hexdigest()


def measure(
    model: nn.Module, loss_fn: LossFn, batches: Iterable[Any], plan: Plan, given: Mapping[str, Any]
) -> Landscape:
    """All losses of a plan; `given` are `Options`.

    Raises:
        ValueError: no batch, an option out of range, or a file that holds another landscape.
        TypeError: an argument of the wrong kind, or one that does not exist.
    """
    options = _options(given)
    evaluator = Evaluator(model, loss_fn, batches, options.bn, options.engine, options.size)
    points = list(itertools.product(*(axis.tolist() for axis in plan.axes)))
    size = options.chunk or max(1, min(MOST, MEMORY // sum(w.nbytes for w in weights_of(model).values())))
    with evaluator:
        zero = plan.place(model, (0.0,) * len(plan.axes))
        center = evaluator.losses([zero])[0]
        key = plan.key(model, (options.bn, options.engine, size))
        kept = _Kept(options.file, {"key": key, "center": repr(center), "examples": evaluator.examples})
        if kept.finished is not None:
            return kept.finished
        saved = time.monotonic()
        try:
            while len(kept.losses) < len(points):
                chunk = points[len(kept.losses) : len(kept.losses) + size]
                kept.losses += evaluator.losses([plan.place(model, at) for at in chunk])
                if time.monotonic() - saved >= options.save_every:
                    kept.save()
                    saved = time.monotonic()
                if options.progress is not None:
                    options.progress(len(kept.losses), len(points))
        except BaseException:
            kept.save()
            raise
    losses = torch.tensor(kept.losses, dtype=torch.float64, device="cpu").reshape([len(axis) for axis in plan.axes])
    seen = Landscape(
        tuple(plan.axes), losses, center, plan.kind, plan.labels, evaluator.bn, evaluator.engine, evaluator.examples,
        plan.path, plan.explained,
    )  # fmt: skip
    kept.finish(seen)
    return seen


class _Kept:
    """What a file holds of a landscape, done or half done.

    Args:
        file: of the result, or None.
        mark: what it must agree with.

    Raises:
        ValueError: the file holds another landscape.
    """

    def __init__(self, file: str | Path | None, mark: dict[str, Any]) -> None:
        self.file = Path(file) if file is not None else None
        self.mark = mark
        self.losses: list[float] = []
        self.finished: Landscape | None = None
        if self.file is None:
            return
        self.part = self.file.with_name(f"{self.file.name}.part")
        found = next((path for path in (self.file, self.part) if path.exists()), None)
        if found is None:
            return
        values = read(found)
        if values.pop("mark", None) != mark:
            raise ValueError(
                f"file = {str(file)!r}: {found.name} holds another landscape (other weights, directions, points, data "
                "or options); delete it or name another file"
            )
        if found == self.file:
            self.finished = Landscape(**values)
        else:
            self.losses = list(values["losses"])

    def save(self) -> None:
        """Keep the losses so far."""
        if self.file is not None and self.losses:
            write_whole({"format": FORMAT, "mark": self.mark, "losses": self.losses}, self.part)

    def finish(self, seen: Landscape) -> None:
        """Write the whole result and drop what was half done."""
        if self.file is not None:
            seen.save(self.file, mark=self.mark)
            self.part.unlink(missing_ok=True)


def axis(extent: Extent, points: int) -> Tensor:
    """`points` coordinates; 0 is among them where the range is symmetric and the number odd."""
    check_whole("points", points, 2)
    low, high = extent if isinstance(extent, tuple) else (-extent, extent)
    check_number("extent", low)
    check_number("extent", high)
    if not low < high:
        raise ValueError(f"extent = {extent!r}: must be a number > 0, or (low, high) with low < high")
    return torch.linspace(low, high, points, dtype=torch.float64, device="cpu")


def wide(x: Tensor) -> Tensor:
    """In float64 where the device has it, so that points are exact to the weights' own precision."""
    return x if x.device.type == "mps" else x.double()


def _options(given: Mapping[str, Any]) -> Options:
    known = Options.__dataclass_fields__
    for name in given:
        if name not in known:
            raise TypeError(f"{name}: no such argument; the options are {', '.join(known)}")
    options = Options(**given)
    check_count("chunk", options.chunk, "what memory allows")
    check_number("save_every", options.save_every, low=0.0)
    return options


def _mixed(one: Tensor, two: Tensor, at: float) -> Tensor:
    if not one.is_floating_point():
        return one if at <= 0.5 else two
    return (wide(one) + at * (wide(two) - wide(one))).to(one.dtype)
