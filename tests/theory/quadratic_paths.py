"""The real optimizer on a quadratic, step by step."""

import torch

import fenland


def optimizer(weights, method, lr, rho, base):
    sgd = torch.optim.SGD([weights], lr=lr, **base)
    if method == "SGD":
        return sgd
    return {
        "USAM": fenland.USAM,
        "SAM": fenland.SAM,
        "SSAM": fenland.SSAM,
        "SSAM-U": lambda b, rho: fenland.SSAM(b, rho=rho, normalize=False),
    }[method](sgd, rho=rho)


def path(curvatures, method, lr, rho, base, steps, start=None):
    """Norms of w after every step of the real optimizer on a quadratic; stops beyond 1e9."""
    values = torch.tensor(curvatures, dtype=torch.float64)
    w = torch.nn.Parameter(torch.ones_like(values) if start is None else torch.tensor(start, dtype=torch.float64))
    opt = optimizer(w, method, lr, rho, base)
    norms = []

    def closure():
        opt.zero_grad()
        loss = (values * w * w).sum() / 2
        loss.backward()
        return loss

    for _ in range(steps):
        opt.step(closure)
        norms.append(w.detach().norm().item())
        if norms[-1] > 1e9:
            break
    return norms
