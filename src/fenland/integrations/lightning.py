"""Lightning: a callback for the `Trainer` (automatic optimization), and a step for Fabric.

>>> trainer = Trainer(callbacks=[SharpnessAwareCallback()], accumulate_grad_batches=4, gradient_clip_val=1.0)

with `configure_optimizers` returning `fenland.SSAM(base, rho=0.05, model=self)`.

Shown on a CPU: 32-true, bf16-mixed, 16-mixed with a CPU GradScaler, accumulation, clipping, resume, DDP on gloo. Only a
GPU can prove 16-mixed as Lightning chooses it, generators of devices, NCCL and FSDP.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fenland.integrations.replay import Accumulate, Replay, before_base_step, sharpness_aware

try:
    import lightning.pytorch as pl
    from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
except ImportError as error:  # pragma: no cover
    raise ImportError("fenland.integrations.lightning needs Lightning: pip install lightning") from error


class SharpnessAwareCallback(pl.Callback):
    r"""Makes sharpness-aware steps right under a Lightning `Trainer`.

    - 32-true, bf16-mixed and 16-mixed: the GradScaler unscales and steps the base, once.
    - `accumulate_grad_batches=K`: e comes from the whole accumulated gradient, then the K micro-batches, held until
      then, are run again at w + e.
    - `gradient_clip_val`, `configure_gradient_clipping` and `on_before_optimizer_step` see d, once, after unscaling.
    - Logs, metrics and `on_train_batch_end` see pass 1 only; dropout masks are equal; buffers count one forward.

    Pass 2 calls `training_step` again: what it does besides (its own counters and lists, `self.logger.experiment`)
    happens twice. The hooks around backward run for each backward. Without this callback, Lightning clips g and h and
    logs both passes, and with `accumulate_grad_batches` above 1 the step is refused. In the epoch in which
    `StochasticWeightAveraging` measures BatchNorm's statistics there is no backward, and no step is taken.

    Args:
        accumulate: "whole", or "micro" for one ascent a micro-batch (m-SAM, one process).

    Raises:
        TypeError: the optimizer is not fenland's.
        ValueError: manual optimization, `dataloader_iter`, or a strategy that accumulates by itself (DeepSpeed); and an
            optimizer that needs single samples' losses or rank-local ascents.
        RuntimeError: `optimizer_zero_grad` leaves gradients of the step before.
    """

    def __init__(self, accumulate: Accumulate = "whole") -> None:
        self.accumulate = accumulate
        self._replay: Replay | None = None
        self._original: dict[str, Callable[..., Any]] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check what is to be trained, and stand between the loop and its strategy."""
        strategy = trainer.strategy
        _check(trainer, pl_module)
        self._replay = Replay(sharpness_aware(trainer.optimizers[0], "the optimizer"), self.accumulate)
        ours = {
            "training_step": partial(self._first_pass, trainer),
            "backward": partial(self._backward, pl_module),
            "optimizer_step": partial(self._step, trainer),
        }
        self._original = {name: getattr(strategy, name) for name in ours}
        vars(strategy).update(ours)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """An epoch that was left in mid-accumulation takes its micro-batches with it."""
        if self._replay is not None:
            self._replay.forget()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Step aside."""
        self._leave(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Step aside."""
        self._leave(trainer)

    def _leave(self, trainer: pl.Trainer) -> None:
        for name in self._original:
            vars(trainer.strategy).pop(name, None)
        self._original, self._replay = {}, None

    # What the loop calls instead of the strategy.

    def _first_pass(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> Any:
        """`strategy.training_step` at w."""
        if _only_forwards(trainer):
            return self._original["training_step"](*args, **kwargs)
        held = self._held.note(partial(self._again, trainer, args, kwargs))
        output = self._original["training_step"](*args, **kwargs)
        loss = _share(output, trainer)
        held.loss = None if loss is None else loss.detach()
        return output

    def _backward(self, module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        """`strategy.backward` in pass 1: a step's first micro-batch must find no gradient of the step before."""
        if len(self._held.held) == 1 and any(p.grad is not None and bool(p.grad.any()) for p in self._held.params()):
            raise RuntimeError(
                f"{type(module).__name__}.optimizer_zero_grad left gradients of the step before: the ascent would "
                "climb along them. Zero at every call (accumulate_grad_batches= and SharpnessAwareCallback accumulate)"
            )
        self._original["backward"](*args, **kwargs)

    def _again(self, trainer: pl.Trainer, args: Any, kwargs: Any, last: bool) -> Tensor | None:
        """The same at w + e, with its backward; nothing is logged."""
        strategy, module = trainer.strategy, trainer.lightning_module
        unsynchronised = None if last else getattr(strategy, "block_backward_sync", None)
        with unsynchronised() if unsynchronised else contextlib.nullcontext(), _silent(module):
            loss = _share(self._original["training_step"](*args, **kwargs), trainer)
            if loss is None:
                return None
            before_scaling = loss.detach().clone()
            self._original["backward"](loss, self._held.opt)
        return before_scaling

    def _step(
        self, trainer: pl.Trainer, optimizer: Any, closure: Callable[[], Any], model: Any = None, **kwargs: Any
    ) -> Any:
        """`strategy.optimizer_step`: the closure is the last micro-batch's pass 1."""
        if _only_forwards(trainer):
            return closure()
        replay, precision = self._held, trainer.precision_plugin
        scaler = getattr(precision, "scaler", None)

        def d_is_ready() -> None:
            with _unscaled(replay.opt):
                precision._after_closure(trainer.lightning_module, replay.opt)

        with before_base_step(replay.opt.base, d_is_ready):
            value = replay.step(closure, scaler)
        if scaler is not None and value is not None:
            scaler.update()
        return value

    @property
    def _held(self) -> Replay:
        if self._replay is None:
            raise RuntimeError(
                "SharpnessAwareCallback is not training: it works between on_train_start and on_train_end"
            )
        return self._replay


class LiveCallback(pl.Callback):
    """Runs a `fenland.diagnostics.live.Live` beside training; its records go to the trainer's loggers.

    One update an optimizer step, also under accumulation. Record "gamma" is logged as "fenland/gamma", and so on.

    Args:
        make: the fenland optimizer and the module -> what has `update()`, such as
            `lambda opt, module: Live(opt, module, loss_fn, probe=batches, every=50)`.

    Raises:
        TypeError: at the start of training, the optimizer is not fenland's.
    """

    def __init__(self, make: Callable[[Any, pl.LightningModule], Any]) -> None:
        self.make = make
        self.live: Any = None
        self._steps = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the monitor."""
        self.live = self.make(sharpness_aware(trainer.optimizers[0], "the optimizer"), pl_module)
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Update it after a step; micro-batches that only accumulate are none."""
        if self.live is None or trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        record = self.live.update()
        if record:
            for logger in trainer.loggers:
                logger.log_metrics({f"fenland/{name}": value for name, value in record.items()}, step=self._steps)


def fabric_step(fabric: Any, optimizer: Any, closure: Callable[[], Any]) -> Any:
    """A sharpness-aware step under Fabric, in every precision.

    `optimizer.step(closure)` on what `fabric.setup` returned does the same except in 16-mixed, where Fabric would step
    its GradScaler after one backward.

    Args:
        fabric: the `Fabric`.
        optimizer: what `fabric.setup` returned for a fenland optimizer.
        closure: zeroes the gradients, runs forward and `fabric.backward(loss)`, returns the loss. To accumulate, let it
            run all micro-batches; to clip, give the optimizer `max_norm=`.

    Returns:
        What the closure returned at w.
    """
    opt = sharpness_aware(optimizer, "optimizer")
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    value = opt.step(closure, scaler=scaler)
    if scaler is not None:
        scaler.update()
    return value


def _check(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    if not module.automatic_optimization:
        raise ValueError(
            "SharpnessAwareCallback is for automatic optimization; with automatic_optimization = False call "
            "optimizer.step(closure) in training_step, the closure running self.manual_backward"
        )
    if len(trainer.optimizers) != 1:
        raise TypeError("SharpnessAwareCallback: configure_optimizers must return one fenland optimizer")
    if trainer.strategy.handles_gradient_accumulation:
        raise ValueError(
            f"{type(trainer.strategy).__name__} accumulates and steps by itself, with one backward a step: "
            'use strategy="ddp" or FSDP2 (ModelParallelStrategy)'
        )
    if is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True):
        raise ValueError("training_step(dataloader_iter) would draw another batch in pass 2: take `batch` instead")


def _only_forwards(trainer: pl.Trainer) -> bool:
    """Whether this epoch runs no backward: `StochasticWeightAveraging` measures BatchNorm's statistics so."""
    return bool(getattr(trainer.fit_loop, "_skip_backward", False))


def _share(output: Any, trainer: pl.Trainer) -> Tensor | None:
    """The loss in what `training_step` returned, divided as Lightning divides it.

    None for what is no tensor: Lightning itself says what `training_step` may return.
    """
    loss = output.get("loss") if isinstance(output, Mapping) else output
    return loss / trainer.accumulate_grad_batches if isinstance(loss, Tensor) else None


@contextlib.contextmanager
def _unscaled(opt: Any) -> Iterator[None]:
    """Lightning refuses to clip for optimizers that unscale by themselves; here d is unscaled already."""
    opt._step_supports_amp_scaling = False
    try:
        yield
    finally:
        del opt._step_supports_amp_scaling


@contextlib.contextmanager
def _silent(module: pl.LightningModule) -> Iterator[None]:
    """No logging, and metrics (torchmetrics) as they were: their state is not in buffers."""
    metrics = {m: _metric_state(m) for m in module.modules() if hasattr(m, "_defaults") and hasattr(m, "_update_count")}
    vars(module).update(log=_nothing, log_dict=_nothing)
    try:
        yield
    finally:
        del vars(module)["log"], vars(module)["log_dict"]
        for metric, state in metrics.items():
            vars(metric).update(state)


def _metric_state(metric: nn.Module) -> dict[str, Any]:
    names = [*metric._defaults, "_update_count", "_computed", "_forward_cache"]  # type: ignore[misc]
    with torch.no_grad():
        return {n: copy.deepcopy(vars(metric)[n]) for n in names if n in vars(metric)}


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stands in for `log` in pass 2."""
