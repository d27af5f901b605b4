"""The processes that share one run: who they are, what is whose part, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn

from fenland.lab.config import RunConfig

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of one run. With one process every method is the identity."""

    rank: int = 0  # number of this process, from 0; only the first one writes
    size: int = 1  # how many there are

    def part(self, count: int) -> tuple[slice, bool]:
        """This process's part of an evaluation batch, and whether it counts.

        A batch with fewer examples than processes is everybody's (a sharded model needs all of them at every forward)
        and counts once.
        """
        if count < self.size:
            return slice(None), self.rank == 0
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size), True

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite the tensors with those of the first process."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the processes; the tensor is overwritten."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def told(self, value: T) -> T:
        """What the first process says."""
        if self.size == 1:
            return value
        said = [value]
        dist.broadcast_object_list(said, 0)
        return said[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, on all of them."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found


def here() -> World:
    """This process's place: of the process group where there is one, else alone."""
    return World(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else World()


def make_fabric(config: RunConfig, world: World) -> Fabric:
    """Fabric for the run's device, precision and strategy."""
    precision: Any = config.precision
    if world.size == 1:
        return Fabric(accelerator=config.device, devices=1, precision=precision)
    plan: DDPStrategy | ModelParallelStrategy
    if config.strategy == "fsdp":
        # Fabric knows no float64 for it; that the engine has its model and batches in float64 then is enough.
        precision = "32-true" if precision == "64-true" else precision
        plan = ModelParallelStrategy(_shard, data_parallel_size=world.size, tensor_parallel_size=1)
    else:
        plan = DDPStrategy()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    environment = TorchElasticEnvironment()
    fabric = Fabric(
        accelerator=config.device,
        devices=local,
        num_nodes=world.size // local,
        precision=precision,
        strategy=plan,
        plugins=[environment],
    )
    if os.environ.get("LT_CLI_USED") != "1":  # `fabric run` has set the environment up by itself
        fabric.launch()
    return fabric


def _shard(model: nn.Module, mesh: Any) -> nn.Module:
    """FSDP2: each of the model's children gathers its weights by itself, then what is left."""
    from torch.distributed.fsdp import fully_shard

    line = mesh["data_parallel"]
    for child in model.children():
        if any(True for _ in child.parameters()) and not isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            fully_shard(child, mesh=line)
    fully_shard(model, mesh=line)
    return model


def on_cpu(tensor: Tensor) -> Tensor:
    """A copy on the CPU, of all shards together."""
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return torch.clone(whole.detach()).cpu()
