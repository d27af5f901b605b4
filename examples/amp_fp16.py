"""fp16 with a GradScaler, on a GPU or on a CPU: python examples/amp_fp16.py [--quick]."""

import torch
from torch.nn.functional import cross_entropy

import fenland
from digits import accuracy, arguments, load, network, shuffled


def main() -> None:
    args = arguments(epochs=20)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, y, x_test, y_test = (t.to(device) for t in load())
    model = network().to(device)
    base = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, fused=True
    )
    opt = fenland.SSAM(
        base, rho=0.05, model=model, max_norm=5.0
    )  # bounds the unscaled d, once
    scaler = torch.amp.GradScaler(device)

    for _ in range(args.epochs):
        for inputs, labels in shuffled(x, y):

            def closure(inputs=inputs, labels=labels):
                opt.zero_grad()
                with torch.autocast(device, dtype=torch.float16):
                    loss = cross_entropy(model(inputs), labels)
                scaler.scale(loss).backward()
                return loss  # unscaled

            loss = opt.step(closure, scaler=scaler)
            scaler.update()
    print(f"scale {scaler.get_scale():.0f}")
    print(
        f"loss {loss:.4f} accuracy {accuracy(model, x_test, y_test):.4f}"
    )


if __name__ == "__main__":
    main()
