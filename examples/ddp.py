"""DistributedDataParallel, on two processes.

Run: torchrun --nproc-per-node 2 examples/ddp.py [--quick] [--rank-local]

With --rank-local each rank climbs along its own gradient: the recipe of
the SAM paper, with one all-reduce less.
"""

import gc
import sys

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import fenland
from digits import accuracy, arguments, load, network, shuffled


def main(sync: str) -> None:
    args = arguments(epochs=20)
    dist.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo"
    )
    rank, world = dist.get_rank(), dist.get_world_size()
    device = f"cuda:{rank}" if torch.cuda.is_available() else "cpu"
    x, y, x_test, y_test = (t.to(device) for t in load())
    model = DistributedDataParallel(network().to(device))
    opt = fenland.SSAM(
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        rho=0.05,
        model=model,
        sync=sync,
    )

    torch.manual_seed(rank)  # every rank has its own dropout masks
    for _ in range(args.epochs):
        for inputs, labels in shuffled(x[rank::world], y[rank::world], 32):

            def closure(inputs=inputs, labels=labels):
                opt.zero_grad()
                loss = cross_entropy(model(inputs), labels)
                loss.backward()
                return loss

            loss = opt.step(closure)

    first = next(model.parameters()).detach().clone()
    dist.broadcast(first, 0)
    assert torch.equal(first, next(model.parameters())), "ranks differ"
    if rank == 0:
        print(f"{world} ranks, equal bit for bit")
        print(
            f"loss {loss:.4f} "
            f"accuracy {accuracy(model.module, x_test, y_test):.4f}"
        )
    dist.destroy_process_group()


if __name__ == "__main__":
    if wants_local := "--rank-local" in sys.argv:
        sys.argv.remove("--rank-local")
    main("local" if wants_local else "global")
    # DDP holds its process group in cycles, and gloo's threads must end
    # before the interpreter does.
    gc.collect()
