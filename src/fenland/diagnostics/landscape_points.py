"""The loss at many points of weight space: one by one, or many at once, with the model left as it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fenland.arguments import check_among
from fenland.diagnostics.batches import check_batches, check_size, fresh, generators_of, usable, weighed
from fenland.diagnostics.calls import check_loss_fn
from fenland.diagnostics.preserve import PreserveState
from fenland.step.guards.generators import is_generator, set_states, states_of

BN = ("eval", "batch", "recalibrate")
ENGINES = ("auto", "vmap", "loop")
SMALL = 50_000  # weights up to which a CPU gains by running many points at once
AGREE = 1e-3  # relative difference of the two engines beyond which "auto" trusts the plain one

Place = tuple[dict[str, Tensor], dict[str, Tensor]]  # parameters and buffers by name


class Evaluator:
    """L at given weights and buffers, the mean over all examples; inside its context nothing of the model changes.

    Weights are never written to: the model runs on other tensors (`torch.func.functional_call`), buffers are copies.

    Args:
        model: the module.
        loss_fn: `loss_fn(model, batch)`, the batch's mean loss as a scalar tensor.
        batches: a list of batches or a loader that can be gone through again.
        bn: what batch normalisation uses: "eval" the running statistics given with the point; "batch" each batch's own;
            "recalibrate" statistics of all batches at this point, found in a pass of its own.
        engine: "vmap" runs many points at once, "loop" one by one; "auto" takes vmap for small models without
            convolutions and on accelerators, as long as its losses agree with the loop's.
        size: number of examples in a batch, which weights its loss; None takes its tensors' first dimension.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[[nn.Module, Any], Tensor],
        batches: Iterable[Any],
        bn: str,
        engine: str,
        size: Callable[[Any], float] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model = {model!r}: must be the module that you train")
        check_loss_fn(loss_fn)
        check_batches(batches)
        check_size(size)
        check_among("bn", bn, BN)
        check_among("engine", engine, ENGINES)
        self.model, self.batches, self.size = model, batches, size
        self.norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        self.bn = bn if self.norms else "none"
        if self.bn == "recalibrate" and any(not m.track_running_stats for m in self.norms):
            raise ValueError("bn = 'recalibrate': a BN layer keeps no running statistics; use bn='batch'")
        if self.bn == "recalibrate" and engine == "vmap":
            raise ValueError("engine = 'vmap': recalibration counts batches one by one; use engine='loop' or 'auto'")
        self.engine = _engine(model, engine, self.bn)
        self.strict = engine == "vmap"
        self._whole = _Loss(model, loss_fn)
        self._checked = False
        self._seen: tuple[int, float] | None = None
        self._preserved = PreserveState(model, "eval", generators_of(batches))
        self._devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
        self._held = [x for m in model.modules() for x in vars(m).values() if is_generator(x)]
        self._remembers = False  # whether a forward leaves something in its modules for the next one

    def __enter__(self) -> Evaluator:
        self._preserved.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._preserved.__exit__(*error)

    @property
    def examples(self) -> float:
        """Number of examples of one pass; 0 before the first."""
        return self._seen[1] if self._seen else 0

    def losses(self, places: Sequence[Place]) -> list[float]:
        """L at each place; not finite where the loss is not. Where memory does not hold all at once, in halves.

        Raises:
            ValueError: no batch, a loss that is not a scalar, or another number of examples than before.
            TypeError: the loss is no tensor.
        """
        if self.engine == "vmap" and not self._checked:
            self._choose(places)
        if self._remembers and self.engine == "loop" and len(places) > 1:  # each point has a pass of its own
            return [self._measured([place])[0] for place in places]
        try:
            return self._measured(places)
        except torch.OutOfMemoryError:
            if self.engine != "vmap" or len(places) == 1:
                raise
        half = len(places) // 2
        return self.losses(places[:half]) + self.losses(places[half:])

    def _measured(self, places: Sequence[Place]) -> list[float]:
        places = [(params, _copied(buffers)) for params, buffers in places]
        if self.bn == "recalibrate":
            with self._calibrating(places):
                self._sums(places, self._one_by_one)
        flags = [m.training for m in self.norms]
        for m in self.norms:
            m.training = self.bn == "batch"
        try:
            return self._sums(places, self._at_once if self.engine == "vmap" else self._one_by_one)
        finally:
            for m, flag in zip(self.norms, flags, strict=True):
                m.training = flag

    def _sums(self, places: Sequence[Place], run: Callable[[Sequence[Place], Any], Tensor]) -> list[float]:
        """Mean over the examples of all batches, which start from the same random numbers as every pass."""
        self._preserved.again()
        totals, batches, count = torch.zeros(len(places), dtype=torch.float64, device="cpu"), 0, 0.0
        for batch, size in weighed(self.batches, self.size):
            totals += size * run(places, usable(batch)).double().cpu()
            batches, count = batches + 1, count + size
        self._remembers |= self._preserved.moved()
        if not batches:
            raise ValueError("batches: there is none in it; give at least one batch")
        if self._seen not in (None, (batches, count)):
            raise ValueError(
                f"batches: {count:g} examples in this pass, {self.examples:g} before; every point must see "
                "the same ones"
            )
        self._seen = batches, count
        return [float(x) for x in totals / count]

    def _one_by_one(self, places: Sequence[Place], batch: Any) -> Tensor:
        random, out = states_of(self._devices, self._held), []
        for params, buffers in places:
            set_states(random, {})  # the same random numbers at every point
            # The weights have no gradient here; a loss may take one to its inputs (a penalty, an equation's residual).
            found = torch.func.functional_call(self._whole, _inner({**params, **buffers}), (fresh(batch),))
            out.append(found.detach().reshape(()))
        return torch.stack(out)

    def _at_once(self, places: Sequence[Place], batch: Any) -> Tensor:
        params = _stacked([_inner(p) for p, _ in places])
        kept = [_inner(b) for _, b in places]

        def one(point: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
            loss: Tensor = torch.func.functional_call(self._whole, {**point, **buffers}, (fresh(batch),))
            return loss.reshape(())

        losses: Tensor = torch.func.vmap(one, randomness="same")(params, _stacked(kept))
        return losses.detach()

    def _choose(self, places: Sequence[Place]) -> None:
        """Keep vmap if it runs and gives the loop's loss at the first point; where it was asked for, say why not."""
        self._checked = True
        few = places[:2]
        try:
            fast = self.losses(few)[0]
        except Exception as error:  # whatever vmap makes of somebody's code: the loop says what is wrong with it
            if self.strict and not isinstance(error, (RuntimeError, NotImplementedError)):
                raise
            if self.strict:
                raise ValueError(
                    f"engine = 'vmap': this model or loss_fn does not run under torch.func.vmap ({error}); "
                    "use engine='loop' or 'auto'"
                ) from error
            self.engine = "loop"
            return
        self.engine = "loop"
        slow = self.losses(few)[0]
        if self.strict or abs(fast - slow) <= AGREE * max(abs(slow), 1e-12) or math.isnan(slow):
            self.engine = "vmap"

    @contextmanager
    def _calibrating(self, places: Sequence[Place]) -> Iterator[None]:
        """BN layers count anew into the places' buffers, each batch with the same weight."""
        fresh = {}
        for name, module in self.model.named_modules():
            if isinstance(module, _BatchNorm):
                head = f"{name}." if name else ""
                fresh[f"{head}running_mean"], fresh[f"{head}running_var"] = 0.0, 1.0
                fresh[f"{head}num_batches_tracked"] = 0.0
        for _, buffers in places:
            for name, value in fresh.items():
                buffers[name].fill_(value)
        before = [(m, m.training, m.momentum) for m in self.norms]
        for m in self.norms:
            m.training, m.momentum = True, None
        try:
            yield
        finally:
            for m, flag, momentum in before:
                m.training, m.momentum = flag, momentum


class _Loss(nn.Module):
    """loss_fn as a module of the model, so that `functional_call` reaches all that loss_fn calls."""

    def __init__(self, model: nn.Module, loss_fn: Callable[[nn.Module, Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.loss_fn = loss_fn

    def forward(self, batch: Any) -> Tensor:
        """The loss, checked for its kind."""
        loss = self.loss_fn(self.model, batch)
        if not isinstance(loss, Tensor):
            raise TypeError(f"loss_fn returned a {type(loss).__name__}: it must return the loss as a scalar tensor")
        if loss.numel() != 1:
            raise ValueError(f"loss_fn returned shape {tuple(loss.shape)}: it must return one number, such as the mean")
        return loss


def _engine(model: nn.Module, engine: str, bn: str) -> str:
    """What "auto" takes.

    Measured on one CPU core, vmap over the loop: 1.4x for a perceptron of 2410 weights and batches of 16, 1.0x with
    batches of 1000; 0.8x for 269 thousand weights; 0.5x for convolutions, which become grouped ones. On accelerators it
    saves launches, one for all points.
    """
    if engine != "auto":
        return engine
    params = list(model.parameters())
    if bn == "recalibrate":
        return "loop"
    small = sum(p.numel() for p in params) <= SMALL and all(p.dim() <= 2 for p in params)
    return "vmap" if small or all(p.device.type != "cpu" for p in params) else "loop"


def _inner(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{name}": t for name, t in tensors.items()}


def _stacked(each: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([x[name] for x in each]) for name in each[0]}


def _copied(buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in buffers.items()}
