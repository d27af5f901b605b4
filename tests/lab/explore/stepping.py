"""The real optimizers on a torch parameter, for the numbers of the explorer to be set beside."""

import torch

import fenland

WRAPPERS = {
    "SAM": fenland.SAM,
    "USAM": fenland.USAM,
    "SSAM": fenland.SSAM,
    "SSAM-U": lambda base, rho: fenland.SSAM(base, rho, normalize=False),
}


def loss_of(name, w):
    """The formulas of two landscapes, written anew."""
    x, y = w
    return {"saddle": lambda: x**2 - y**2 + y**4 / 4, "quadratic": lambda: x**2 / 2 + 10 * y**2 / 2}[name]()


def stepped(name, method, start, rho, lr, momentum, steps):
    """(w_t, the last point at which step t asked for a gradient) for t < steps, as lists of pairs."""
    w = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    base = torch.optim.SGD([w], lr=lr, momentum=momentum)
    opt = base if method == "SGD" else WRAPPERS[method](base, rho)
    asked = []

    def closure():
        opt.zero_grad()
        loss = loss_of(name, w)
        loss.backward()
        asked.append(w.detach().clone().tolist())
        return loss

    path, ascent = [], []
    for _ in range(steps):
        path.append(w.detach().clone().tolist())
        opt.step(closure)
        ascent.append(asked[-1])
    return path, ascent
