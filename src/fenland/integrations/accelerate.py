"""Hugging Face Accelerate: a step that knows `accelerator.accumulate`, its GradScaler and its wrapped optimizer.

Shown on a CPU: fp32, a CPU GradScaler put in by hand (Accelerate itself refuses fp16 without a GPU), accumulation,
clipping, `save_state`. Only a GPU can prove fp16 as Accelerate chooses it, and generators of devices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fenland.integrations.replay import Accumulate, Replay, before_base_step, sharpness_aware

try:
    from accelerate import Accelerator
    from accelerate.utils import DistributedType
except ImportError as error:  # pragma: no cover
    raise ImportError("fenland.integrations.accelerate needs Accelerate: pip install accelerate") from error


class SharpnessAwareStep:
    """The step of an Accelerate loop: forward, backward and, when it is due, the optimizer.

    >>> model, opt, loader = accelerator.prepare(model, fenland.SSAM(base, rho=0.05, model=model), loader)
    >>> step = SharpnessAwareStep(accelerator, model, opt, max_norm=1.0)
    >>> for x, y in loader:
    ...     with accelerator.accumulate(model):
    ...         loss = step(compute_loss, x, y)  # compute_loss(x, y) returns the loss

    The batch goes in as arguments, because all micro-batches of a step are run again at w + e: a function that read the
    loop's variables would see the last one each time.

    Args:
        accelerator: the `Accelerator`.
        model: what `prepare` returned for the model.
        optimizer: what `prepare` returned for a fenland optimizer.
        max_norm: upper bound on ||d||, applied once; None for no bound.
        accumulate: "whole", or "micro" for one ascent a micro-batch (m-SAM, one process).

    Raises:
        TypeError: the optimizer is not fenland's.
        ValueError: DeepSpeed, Megatron-LM or XLA, which step by themselves.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: torch.nn.Module,
        optimizer: Any,
        *,
        max_norm: float | None = None,
        accumulate: Accumulate = "whole",
    ) -> None:
        kind = accelerator.distributed_type
        if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM, DistributedType.XLA):
            raise ValueError(f"{kind}: takes one backward a step and steps by itself; use DDP or FSDP2")
        self.accelerator, self.model, self.optimizer = accelerator, model, optimizer
        self.opt = sharpness_aware(optimizer, "optimizer")
        self.max_norm = max_norm
        self._replay = Replay(self.opt, accumulate)

    def __call__(self, compute_loss: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Run one micro-batch, and step on the last one of an accumulation; gradients are zeroed here.

        Args:
            compute_loss: forward pass; returns the loss, undivided.
            args: its arguments, the batch.
            kwargs: the same.

        Returns:
            The micro-batch's loss at w, detached.

        Raises:
            ValueError: no arguments while accumulating.
        """
        if not args and not kwargs and self.accelerator.gradient_accumulation_steps > 1:
            raise ValueError("step(compute_loss) with gradient accumulation: pass the batch, step(compute_loss, x, y)")
        if not self._replay.held:
            self.opt.zero_grad()
        held = self._replay.note(partial(self._again, compute_loss, args, kwargs))
        try:
            loss = compute_loss(*args, **kwargs)
            held.loss = loss.detach() / self.accelerator.gradient_accumulation_steps
            self.accelerator.backward(loss)
        except BaseException:
            self._replay.forget()
            raise
        if self.accelerator.sync_gradients:
            self._step()
        return loss.detach()

    def _again(self, compute_loss: Callable[..., Tensor], args: Any, kwargs: Any, last: bool) -> Tensor:
        with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
            loss = compute_loss(*args, **kwargs)
            self.accelerator.backward(loss)
        share: Tensor = loss.detach() / self.accelerator.gradient_accumulation_steps
        return share

    def _step(self) -> None:
        scaler = self.accelerator.scaler
        with before_base_step(self.opt.base, self._clip):
            self._replay.step(scaler=scaler)
        skipped = self.opt.last.skipped
        if scaler is not None:
            scaler.update()
        if skipped is not None and (scaler is not None or skipped.device.type == "cpu"):
            self.optimizer._is_overflow = bool(skipped)  # what AcceleratedScheduler looks at

    def _clip(self) -> None:
        if self.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
