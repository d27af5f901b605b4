"""The live objects of one run: model, optimizer and batches on their device, one step, one evaluation."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.training.evaluation import Evaluation, Tally
from fenland.lab.training.metrics import Seconds
from fenland.lab.training.optimizers import build_optimizer, check_optimizer
from fenland.lab.training.task import load_examples, make_batches, make_model
from fenland.lab.training.world import World
from fenland.optimizer import SharpnessAware

# An optimizer without a record gets its gradient norm measured at every eighth step, to keep its time its own.
NORM_EVERY = 8


class Engine:
    """Model, optimizer and data of a run on their device."""

    def __init__(self, config: RunConfig, fabric: Fabric, world: World) -> None:
        self.config = config
        self.fabric = fabric
        self.world = world
        self.device = fabric.device
        examples = load_examples(config)
        self.noisy_labels = examples.noisy_labels if config.label_noise > 0 else None
        dtype = torch.float64 if config.precision == "64-true" else torch.float32
        self.batches = make_batches(examples, config, self.device, dtype, world.rank, world.size)
        self._layout = torch.channels_last if config.channels_last else torch.contiguous_format
        model = make_model(config, examples)
        model = model.to(self.device, dtype).to(memory_format=self._layout)  # type: ignore[call-overload]
        self.parameters = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        self._warm_up(model)
        self.model = fabric.setup_module(model)
        # What the strategy made of the model: itself, its replicated form or its sharded one.
        self.inner: nn.Module = self.model._forward_module
        self.row = check_optimizer(config.optimizer)
        self.optimizer = self._optimizer()
        self.stepper: Any = fabric.setup_optimizers(self.optimizer)
        self.weights = list(self.inner.parameters())
        self.scaler: Any = getattr(fabric.strategy.precision, "scaler", None)
        self.evaluations = 0
        self.loss: Tensor | None = None

    def _optimizer(self) -> torch.optim.Optimizer:
        try:
            return build_optimizer(self.config, self.inner, self.config.epochs * self.batches.steps)
        except BadInput:
            raise
        except (TypeError, ValueError) as error:
            cure = f"does not fit the model {self.config.model} here: {error}"
            raise BadInput("optimizers", self.config.optimizer, cure) from error

    def _warm_up(self, model: nn.Module) -> None:
        """Pay for lazy imports and kernel choices before the clock starts, on a copy that is thrown away."""
        with torch.random.fork_rng():
            spare = copy.deepcopy(model)
            optimizer = torch.optim.SGD(spare.parameters(), lr=0.0)
            images, labels = next(self.batches.epoch(0))
            images = images.to(memory_format=self._layout)
            logits = self._logits(spare, images)
            cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of every group."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def step(self, images: Tensor, labels: Tensor, number: int) -> tuple[Tensor, object]:
        """One step of the optimizer: the loss at the weights before it, and the step's record."""
        images = images.to(memory_format=self._layout)
        closure = self._losses(images, labels) if self.row.per_sample else self._closure(images, labels)
        if self.scaler is None:
            loss: Tensor = self.stepper.step(closure)
        else:
            loss = self._scaled_step(closure)
        record = getattr(self.optimizer, "last", None)
        if record is None and number % NORM_EVERY == 0:
            record = _GradNorm(self.weights)
        return loss, record

    def _scaled_step(self, closure: Callable[[], Tensor]) -> Tensor:
        """float16: gradients carry the scaler's factor until the optimizer has them."""
        if isinstance(self.optimizer, SharpnessAware):
            loss: Tensor = self.optimizer.step(closure, scaler=self.scaler)
        else:
            loss = closure()
            self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def _closure(self, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            self.evaluations += 1
            self.optimizer.zero_grad()
            logits = self._logits(self.inner, images)
            loss = cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
            self.fabric.backward(loss)
            self.loss = loss.detach()
            return loss

        return closure

    def _losses(self, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
        """One loss an example, with its graph; backward is the optimizer's."""

        def losses() -> Tensor:
            self.evaluations += 1
            self.optimizer.zero_grad()
            logits = self._logits(self.inner, images)
            each = cross_entropy(logits, labels, reduction="none", label_smoothing=self.config.label_smoothing)
            self.loss = each.detach().mean()
            return each

        return losses

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """Not Fabric's own forward: that refuses an optimizer's backward, and rounds float64 logits to float32."""
        with self.fabric.autocast():
            logits: Tensor = model(images)
        return logits if logits.dtype == torch.float64 else logits.float()

    def broken(self) -> bool:
        """Whether the last loss or the weights hold a number that is not finite."""
        found = [weight.detach().sum() for weight in self.weights] + ([] if self.loss is None else [self.loss])
        return not all(bool(torch.isfinite(x)) for x in found)

    @torch.no_grad()
    def evaluate(self, split: str, limit: int | None) -> Evaluation:
        """What the model is worth on ``train`` or ``test``, in evaluation mode; ``limit`` as in ``evaluation``."""
        self.model.eval()
        # The replicas' own running statistics differ: the first one's count.
        self.world.broadcast(list(self.inner.buffers()))
        found = Tally(self.device)
        for images, labels in self.batches.evaluation(split, limit):
            share, counts = self.world.part(len(labels))
            logits = self._logits(self.model.module, images[share].to(memory_format=self._layout))
            if counts:
                found.add(logits, labels[share])
        self.model.train()
        self.world.total(found.sums)
        return found.result()

    def clock(self) -> Seconds:
        """The time, after the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return Seconds(time.perf_counter(), time.process_time())


class _GradNorm:
    """A step's record for an optimizer that keeps none: the gradient it has just used."""

    def __init__(self, weights: list[nn.Parameter]) -> None:
        norm: Any = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        self.grad_norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
