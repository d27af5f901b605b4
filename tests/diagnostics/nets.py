"""Small networks with everything that gets in a Hessian's way, and their exact Hessians."""

import copy
import warnings

import torch
import torch.nn.functional as F
from torch import nn


class Conv(nn.Module):
    """Convolution, batch norm, dropout, and a parameter that nothing uses."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(3 * 4 * 4, 4)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.head(self.drop(torch.tanh(self.norm(self.conv(x)))).flatten(1))


class Tied(nn.Module):
    """One weight used twice under two names, and a frozen one."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.second = nn.Linear(5, 5)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(5, 4).requires_grad_(False)

    def forward(self, x):
        return self.frozen(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Linear(nn.Module):
    """L = w'Aw/2 as a model: its Hessian is A."""

    def __init__(self, a):
        super().__init__()
        self.w = nn.Parameter(torch.randn(len(a), generator=torch.Generator().manual_seed(3), dtype=a.dtype))
        self.a = a

    def forward(self, scale):
        return 0.5 * scale.mean() * self.w @ self.a @ self.w


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def value(model, batch):
    return model(batch)


def images(sizes=(6, 6, 4), shape=(1, 6, 6), seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(n, *shape, generator=generator), torch.randint(0, 4, (n,), generator=generator)) for n in sizes
    ]


def symmetric(eigenvalues, seed=0):
    """A float64 matrix with these eigenvalues."""
    n = len(eigenvalues)
    q = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    return q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ q.T


def exact(model, loss_fn, batches, names=None, training=False):
    """The Hessian by torch.func in float64, over the parameters that require a gradient; and the loss."""
    model = copy.deepcopy(model).double().train(training)
    batches = [tuple(x.double() if x.is_floating_point() else x for x in b) for b in batches]
    params = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad and (names is None or n in names)}
    shapes = {n: p.shape for n, p in params.items()}
    wrapped = _Wrapped(model, loss_fn)

    def loss(flat):
        parts = flat.split([p.numel() for p in params.values()])
        own = {f"model.{n}": x.view(shapes[n]) for n, x in zip(params, parts, strict=True)}
        total = sum(len(b[0]) for b in batches)
        return sum(len(b[0]) * torch.func.functional_call(wrapped, own, (b,)) for b in batches) / total

    flat = torch.cat([p.reshape(-1) for p in params.values()])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script")  # torch.func still uses it
        return torch.func.hessian(loss)(flat).detach(), loss(flat).detach().item()


class _Wrapped(nn.Module):
    def __init__(self, model, loss_fn):
        super().__init__()
        self.model, self.loss_fn = model, loss_fn

    def forward(self, batch):
        return self.loss_fn(self.model, batch)


def state(model):
    """Everything that a measurement must not change."""
    return (
        [p.detach().clone() for p in model.parameters()],
        [b.clone() for b in model.buffers()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        [p.requires_grad for p in model.parameters()],
        [m.training for m in model.modules()],
        torch.get_rng_state(),
    )


def same(one, two):
    """Whether two states are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return one == two
