"""Stable SAM in a plain PyTorch loop: python examples/plain_loop.py [--quick]."""

import torch
from torch.nn.functional import cross_entropy

import fenland
from digits import accuracy, arguments, load, network, shuffled


def main() -> None:
    args = arguments(epochs=25)
    x, y, x_test, y_test = load()
    model = network()
    base = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4
    )
    opt = fenland.SSAM(base, rho=0.05, model=model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        opt, args.epochs
    )

    for epoch in range(args.epochs):
        for inputs, labels in shuffled(x, y):

            def closure(inputs=inputs, labels=labels):
                opt.zero_grad()
                loss = cross_entropy(model(inputs), labels)
                loss.backward()
                return loss

            loss = opt.step(closure)  # runs the closure at w and at w + e
        scheduler.step()
        print(
            f"epoch {epoch}: loss {loss:.3f}, sharpness {opt.last.sharpness:.3f}, gamma {opt.last.gamma:.2f}"
        )
    print(
        f"loss {loss:.4f} accuracy {accuracy(model, x_test, y_test):.4f}"
    )


if __name__ == "__main__":
    main()
