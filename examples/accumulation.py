"""Gradient accumulation: K micro-batches a step, in one closure: python examples/accumulation.py [--quick].

e comes from the gradient of all K, and all K are run again at w + e. With `--micro` each has its own ascent (m-SAM):
the same cost, another method.
"""

import sys

import torch
from torch.nn.functional import cross_entropy

import fenland
from digits import accuracy, arguments, load, network, shuffled

K = 4


def main(micro: bool) -> None:
    args = arguments(epochs=25)
    x, y, x_test, y_test = load()
    model = network()
    opt = fenland.SAM(
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        rho=0.05,
        model=model,
    )

    for _ in range(args.epochs):
        for inputs, labels in shuffled(x, y, 96):
            parts = list(
                zip(inputs.chunk(K), labels.chunk(K), strict=True)
            )

            def whole(parts=parts):
                opt.zero_grad()
                total = 0.0
                for part, label in parts:
                    loss = cross_entropy(model(part), label) / K
                    loss.backward()  # adds to what is there
                    total += loss.detach()
                return total

            def one(part, label):
                opt.zero_grad()
                loss = cross_entropy(model(part), label)
                loss.backward()
                return loss.detach()

            each = [lambda p=p, one=one: one(*p) for p in parts]
            loss = sum(opt.step(each)) / K if micro else opt.step(whole)
    print(
        f"loss {loss:.4f} accuracy {accuracy(model, x_test, y_test):.4f}"
    )


if __name__ == "__main__":
    if wants_micro := "--micro" in sys.argv:
        sys.argv.remove("--micro")
    main(wants_micro)
