"""One loss over many batches, as a function of the weights: what every measurement evaluates."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from fenland.arguments import check_among, check_instance
from fenland.diagnostics import graph
from fenland.diagnostics.batches import CURE, cast, check_batches, check_size, fresh, generators_of, usable, weighed
from fenland.diagnostics.calls import check_loss_fn
from fenland.diagnostics.chosen import Chosen, chosen, copied
from fenland.diagnostics.preserve import MODES, PreserveState

LossFn: TypeAlias = "Callable[[nn.Module, Any], Tensor]"
Mode: TypeAlias = Literal["eval", "train", "keep"]
STEADY = 1e-3  # relative change of the loss at the same weights that is reported


class Objective:
    """L(w) = mean over examples of `loss_fn(model, batch)`, its gradient, and a guarantee that nothing stays changed.

    Use it as a context: inside, the model runs in `mode`; on exit mode, buffers, gradients and generators are as on
    entry, exceptions included. Each pass over the batches starts from the same buffers and random numbers.

    Args:
        model: the module; it must not be sharded.
        loss_fn: called as `loss_fn(model, batch)`, returns the batch's mean loss as a scalar tensor. It moves the batch
            to the model's device if that is needed.
        batches: a list of batches or a loader that can be gone through again; the same examples each time.
        mode: "eval" (dropout off, BN with its running statistics), "train", or "keep" as the model is.
        parameters: names of parameters, or a function of a name; None takes all that require a gradient.
        dtype: run on a copy of the model in this dtype (`torch.float64`); None runs the model itself.
        size: number of examples in a batch, which weights its loss; None takes its tensors' first dimension.

    Raises:
        TypeError: a wrong kind of argument, such as a generator that is used up after one pass.
        ValueError: no parameter to differentiate, no batch, a loss that is not finite or not a scalar.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        batches: Iterable[Any],
        *,
        mode: Mode = "eval",
        parameters: Chosen = None,
        dtype: torch.dtype | None = None,
        size: Callable[[Any], float] | None = None,
    ) -> None:
        check_instance("model", model, nn.Module, "the module that you train")
        for name, module in model.named_modules():
            if isinstance(module, nn.parallel.DistributedDataParallel):
                where = f"model.{name}" if name else "model"
                raise ValueError(
                    f"{where}: is DistributedDataParallel, which allows no torch.autograd.grad; pass {where}.module"
                )
        check_loss_fn(loss_fn)
        check_batches(batches)
        check_size(size)
        check_among("mode", mode, MODES)
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(f"dtype = {dtype!r}: must be a floating point dtype, such as torch.float64, or None")
        self.names, self.params = chosen(model, parameters)
        self.cast_to = dtype
        self.model = model if dtype is None else copied(model, dtype)
        #: The weights that nothing may use: where a copy is measured, the model's own.
        self._others = [] if dtype is None else list(model.parameters())
        self.loss_fn = loss_fn
        self.batches = batches
        self.size = size
        if dtype is not None:
            _, self.params = chosen(self.model, self.names)  # by name: `parameters` may be an iterator, used up by now
        self._preserved = PreserveState(self.model, mode, generators_of(batches))
        self._whole = parameters is None  # of a chosen part, none need be used
        self._seen: tuple[int, float] | None = None
        self._loss: float | None = None
        self._looked = self._warned = False

    def __enter__(self) -> Objective:
        self._preserved.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._preserved.__exit__(*error)

    def alone(self, batch: Any) -> Objective:
        """One batch of a pass as an objective of its own, to be entered inside this one.

        Its passes start from the buffers and random numbers of the moment when it is entered.
        """
        part = copy.copy(self)
        part.batches, part.size = [batch], _one
        part._seen = part._loss = None
        part._preserved = PreserveState(self.model, "keep", weights=False)
        return part

    @property
    def seen(self) -> tuple[int, float]:
        """Batches and examples of a pass; (0, 0) before the first."""
        return self._seen or (0, 0.0)

    def passes(self) -> Iterator[tuple[Any, float]]:
        """Each batch with its weight; buffers and generators start as on entry."""
        self._preserved.again()
        count, total = 0, 0.0
        for batch, weight in weighed(self.batches, self.size):
            count, total = count + 1, total + weight
            yield self._ready(batch), weight
        if count == 0 and self._seen is None:
            raise ValueError("batches: there is none in it; give at least one batch")
        if self._seen is not None and self._seen != (count, total):
            raise ValueError(
                f"batches: {self._seen[0]} batches with {self._seen[1]:g} examples in the first pass, {count} with "
                f"{total:g} in a later one; every pass must see the same examples{f': {CURE}' if count == 0 else ''}"
            )
        self._seen = (count, total)

    def first(self) -> Any:
        """The first batch of a pass; None where there is none."""
        self._preserved.again()
        return next((self._ready(batch) for batch in self.batches), None)

    def _ready(self, batch: Any) -> Any:
        return usable(fresh(batch) if self.cast_to is None else cast(batch, self.cast_to))

    def loss_of(self, batch: Any) -> Tensor:
        """The loss of one batch, checked.

        Raises:
            TypeError: it is no tensor.
            ValueError: it is not a scalar, or not finite, or loss_fn has called backward.
        """
        with torch.enable_grad():
            loss = self.loss_fn(self.model, batch)
        if any(p.grad is not None for p in self.model.parameters()):
            raise ValueError(
                "loss_fn calls backward: it must return the loss, and leave its gradient to the measurement"
            )
        if not isinstance(loss, Tensor):
            raise TypeError(f"loss_fn returned {_kind(loss)}: it must return the loss as a scalar tensor{_cure(loss)}")
        if loss.is_complex():
            raise ValueError("loss_fn returned a complex number: it must return a real one, such as loss.real")
        if loss.numel() != 1:
            raise ValueError(f"loss_fn returned shape {tuple(loss.shape)}: it must return one number, such as the mean")
        if not torch.isfinite(loss.detach()).all():
            raise ValueError(
                f"loss_fn returned {loss.item()}: the loss must be finite; has training diverged, or is a batch broken?"
            )
        return loss.reshape(())

    def gradients_of(self, loss: Tensor, create_graph: bool = False) -> list[Tensor | None]:
        """The loss's gradient for each chosen parameter, None where it is not used.

        Raises:
            ValueError: the loss depends on no chosen parameter, or a gradient is not finite.
        RuntimeError: parameters are hidden from autograd, as by a reentrant checkpoint.
        """
        found: Sequence[Tensor | None] = [None] * len(self.params)
        if loss.requires_grad:
            if not self._looked:
                graph.refuse_hidden_parameters(loss)
                self._refuse_others(loss)
                self._looked = True
            found = torch.autograd.grad(loss, self.params, create_graph=create_graph, allow_unused=True)
            found = [g.to_dense() if g is not None and g.is_sparse else g for g in found]
        if all(g is None for g in found) and (self._whole or not graph.reaches(loss, self.model.parameters())):
            raise ValueError(
                "the loss depends on none of the parameters: does loss_fn use the model that it is given, "
                "with gradients switched on?"
            )
        self._check_finite(found, loss)
        return list(found)

    def _refuse_others(self, loss: Tensor) -> None:
        if graph.reaches(loss, self._others):
            raise ValueError(
                f"dtype = {self.cast_to}: a copy of the model is measured, and loss_fn uses the model itself; let it "
                "use none but the model that it is given"
            )

    def _check_finite(self, found: Sequence[Tensor | None], loss: Tensor) -> None:
        for name, g in zip(self.names, found, strict=True):
            if g is not None and not bool(torch.isfinite(g).all()):
                raise ValueError(
                    f"the gradient of {name} is not finite, though the loss is {loss.item():.4g}: a root, a norm or a "
                    "logarithm at zero has no finite slope; add a small constant inside it"
                )

    @torch.no_grad()
    def loss(self, at_w: bool = False) -> float:
        """L at the weights as they are now; `at_w` says that they are those of entry."""
        total, count = 0.0, 0.0
        for batch, weight in self.passes():
            total, count = total + weight * self.loss_of(batch).item(), count + weight
        return self.note(total / count) if at_w else total / count

    @torch.no_grad()
    def losses(self) -> list[tuple[float, float]]:
        """The loss of each batch, with its number of examples."""
        return [(self.loss_of(batch).item(), weight) for batch, weight in self.passes()]

    def gradient(self, at_w: bool = False) -> tuple[float, list[Tensor]]:
        """L and its gradient (unit: loss per unit of w), zeros for parameters that are not used."""
        total, count = 0.0, 0.0
        sums = [torch.zeros_like(p, dtype=_wide(p.dtype)) for p in self.params]
        for batch, weight in self.passes():
            loss = self.loss_of(batch)
            for x, g in zip(sums, self.gradients_of(loss), strict=True):
                if g is not None:
                    x.add_(g.detach().to(x.dtype), alpha=weight)
            total, count = total + weight * loss.item(), count + weight
        value = total / count
        return self.note(value) if at_w else value, [x.div_(count) for x in sums]

    def note(self, loss: float) -> float:
        """Warn once where the loss at the same weights changes from pass to pass: then nothing here is exact."""
        if self._loss is not None and abs(loss - self._loss) > STEADY * max(abs(loss), abs(self._loss)):
            told, self._warned = self._warned, True
            if told:
                return self._loss
            warnings.warn(
                f"the loss at the same weights changed from {self._loss:.6g} to {loss:.6g} between two passes: the "
                "batches or the model are random in a way that torch's generators do not control; make a fixed list of "
                "batches",
                UserWarning,
                stacklevel=2,
            )
            loss = self._loss
        self._loss = loss if self._loss is None else self._loss
        return loss


def _one(_: Any) -> float:
    return 1.0


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _cure(value: Any) -> str:
    """What to return instead of what holds the loss."""
    names = (
        [str(name) for name, each in value.items() if isinstance(each, Tensor)] if isinstance(value, Mapping) else []
    )
    if "loss" in names or isinstance(getattr(value, "loss", None), Tensor):
        return """, such as found["loss"]""" if "loss" in names else ", such as found.loss"
    if names:
        return f", such as the sum of {', '.join(names[:5])}"
    return ", such as its first element" if isinstance(value, (list, tuple)) and value else ""


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
