"""FSDP2: sharded parameters, and norms over all shards.

Run: torchrun --nproc-per-node 2 examples/fsdp2.py [--quick]
"""

import gc

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

import fenland
from digits import accuracy, arguments, load, shuffled


def main() -> None:
    args = arguments(epochs=15)
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    device = f"cuda:{rank}" if kind == "cuda" else "cpu"
    x, y, x_test, y_test = (t.to(device) for t in load())

    model = nn.Sequential(
        nn.Linear(64, 128),
        nn.LayerNorm(128),
        nn.ReLU(),
        nn.Linear(128, 10),
    ).to(device)
    mesh = init_device_mesh(kind, (world,))
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # The base is made after sharding: its parameters are DTensors.
    opt = fenland.SSAM(
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        rho=0.05,
        model=model,
    )

    for _ in range(args.epochs):
        for inputs, labels in shuffled(x[rank::world], y[rank::world], 32):

            def closure(inputs=inputs, labels=labels):
                opt.zero_grad()
                loss = cross_entropy(model(inputs), labels)
                loss.backward()
                return loss

            loss = opt.step(closure)

    right = accuracy(
        model, x_test, y_test
    )  # every rank takes part: the forward gathers the shards
    if rank == 0:
        print(
            f"{world} ranks, rank 0 holds "
            f"{next(model.parameters()).to_local().numel()} "
            "of the first layer's weights"
        )
        print(f"loss {loss:.4f} accuracy {right:.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
    # FSDP2 holds process groups in cycles, and gloo's threads must end
    # before the interpreter does.
    gc.collect()
