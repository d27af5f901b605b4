"""Hugging Face `Trainer`: `SharpnessAwareTrainer`, and the mixin for other trainers that derive from `Trainer`.

Shown on a CPU: fp32, bf16, a CPU GradScaler put in by hand, accumulation, clipping, resume. On a CPU the Trainer runs
`fp16=True` as fp32 or refuses it, by its version; only a GPU can prove that flag, FSDP2 and generators of devices.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from fenland.integrations.replay import Accumulate, Replay, before_base_step, sharpness_aware, unwrapped
from fenland.optimizer import SharpnessAware

try:
    import transformers
    from transformers import Trainer, TrainerCallback
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "fenland.integrations.transformers needs Transformers' Trainer: pip install transformers accelerate"
    ) from error

if tuple(int(part) for part in transformers.__version__.split(".")[:2]) < (5, 6):
    # 5.0 offers no place to keep g unclipped; from 5.3 to 5.5 every optimizer gets 1/K of the gradient of K batches.
    raise ImportError(
        "fenland.integrations.transformers needs Transformers 5.6 or newer, and "
        f"{transformers.__version__} is installed: "
        "its Trainer clips the gradient too early or divides accumulated losses twice: pip install -U transformers"
    )

Choose = Callable[[torch.optim.Optimizer, torch.nn.Module], SharpnessAware]


class SharpnessAwareMixin:
    """Sharpness-aware steps for a class that derives from `transformers.Trainer`; put it first among the bases.

    - `gradient_accumulation_steps=K`: e comes from the whole accumulated gradient, then the K micro-batches are run
      again at w + e, each with its share of the loss (`num_items_in_batch` is the same in both passes).
    - `max_grad_norm` (1.0 by default) bounds ||d||, once, after unscaling; 0 is no bound. g is not clipped.
    - `loss` in the logs is pass 1's, `grad_norm` is ||g|| at w.
    - `on_pre_optimizer_step` callbacks see g, with a loss scale where there is one.

    Args:
        args: of the trainer.
        sharpness_aware: base optimizer and model -> fenland optimizer, such as
            `lambda base, model: fenland.SSAM(base, rho=0.05, model=model)`. The base is what the trainer makes from its
            arguments, or the one in `optimizers=`. Not needed where `optimizers=` has a fenland optimizer.
        accumulate: "whole", or "micro" for one ascent a micro-batch (m-SAM, one process).
        kwargs: of the trainer.

    Raises:
        TypeError: there is no fenland optimizer at the start of training.
        ValueError: DeepSpeed, XLA, SageMaker or FSDP1, which step by themselves or hide the weights' shapes.
    """

    optimizer: Any
    accelerator: Any
    args: Any
    model: Any

    def __init__(
        self, *args: Any, sharpness_aware: Choose | None = None, accumulate: Accumulate = "whole", **kwargs: Any
    ) -> None:
        self._choose = sharpness_aware
        self._accumulate: Accumulate = accumulate
        self._replay: Replay | None = None
        self._grad_norm: Tensor | None = None
        super().__init__(*args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer's own optimizer, made sharpness-aware."""
        made = super().create_optimizer(*args, **kwargs)  # type: ignore[misc]
        if not isinstance(unwrapped(made), SharpnessAware) and self._choose is not None:
            self.optimizer = made = self._choose(made, self.model)
        sharpness_aware(made, "sharpness_aware(base, model) or optimizers[0]")
        return made

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer's scheduler, on an optimizer that steps as fenland does."""
        self._check()
        self._replay = Replay(sharpness_aware(self.optimizer, "the optimizer"), self._accumulate)

        def step(wrapper: Any, closure: Any = None) -> None:
            _step(self, wrapper)

        # Accelerate's wrapper would step with one gradient; and schedulers want to see the `step` that is used.
        self.optimizer.step = MethodType(step, self.optimizer)
        return super().create_scheduler(*args, **kwargs)  # type: ignore[misc]

    def _check(self) -> None:
        """Refuse engines that step by themselves."""
        of = vars(self).get
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if self.accelerator.distributed_type in ("DEEPSPEED", "XLA", "MEGATRON_LM") or of("is_fsdp_xla_enabled"):
            raise ValueError(f"{self.accelerator.distributed_type}: takes one backward a step; use DDP or FSDP2")
        if of("is_fsdp_enabled") and getattr(plugin, "fsdp_version", 1) != 2:
            raise ValueError("FSDP1 flattens and shards the weights, and their norm is lost: use fsdp_version=2")

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Pass 1 of a micro-batch, held for pass 2."""
        if self._replay is None:
            raise RuntimeError("training_step() before train(): there is no optimizer yet")
        whole, count = super().training_step, num_items_in_batch  # type: ignore[misc]

        def again(last: bool) -> Tensor:
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                loss: Tensor = whole(model, copy.copy(inputs), count)
            return loss

        held = self._replay.note(again)
        loss: Tensor = whole(model, copy.copy(inputs), count)
        held.loss = loss
        return loss

    def _clip_grad_norm(self, model: torch.nn.Module) -> None:
        """Not here: `p.grad` holds g."""

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Tensor:
        """Filled in by the step that follows, and logged after it."""
        self._grad_norm = torch.zeros((), device=self.args.device)
        return self._grad_norm


class SharpnessAwareTrainer(SharpnessAwareMixin, Trainer):
    """`transformers.Trainer` with sharpness-aware steps; see `SharpnessAwareMixin` for its two arguments.

    >>> trainer = SharpnessAwareTrainer(
    ...     model, args, train_dataset=data, sharpness_aware=lambda base, model: fenland.SSAM(base, model=model)
    ... )
    """


class LiveCallback(TrainerCallback):
    """Runs a `fenland.diagnostics.live.Live` beside training; its records go to `trainer.state.log_history`.

    Trackers that the trainer reports to are not reached from a callback: give `Live` an `on_record=` for them.

    Args:
        make: the fenland optimizer and the model -> what has `update()`, such as
            `lambda opt, model: Live(opt, model, loss_fn, probe=batches, every=50)`.
    """

    def __init__(self, make: Callable[[SharpnessAware, torch.nn.Module], Any]) -> None:
        self.make = make
        self.live: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make the monitor."""
        self.live = self.make(sharpness_aware(kwargs["optimizer"], "the optimizer"), kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Update it after an optimizer step."""
        record = self.live.update() if self.live is not None else None
        if record:
            state.log_history.append(
                {**{f"fenland/{name}": x for name, x in record.items()}, "step": state.global_step}
            )


def _step(trainer: Any, wrapper: Any) -> None:
    """`AcceleratedOptimizer.step` of a sharpness-aware trainer."""
    replay, scaler = trainer._replay, trainer.accelerator.scaler
    bound = trainer.args.max_grad_norm

    def clip() -> None:
        if bound:
            torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), bound)

    with before_base_step(replay.opt.base, clip):
        replay.step(scaler=scaler)
    last = replay.opt.last
    if scaler is not None:
        scaler.update()
    if last.skipped is not None and (scaler is not None or last.skipped.device.type == "cpu"):
        wrapper._is_overflow = bool(last.skipped)  # then the trainer leaves its scheduler where it is
    if last.grad_norm is not None and trainer._grad_norm is not None:
        trainer._grad_norm.copy_(last.grad_norm)
