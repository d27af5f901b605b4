"""One table of small seeded problems: every suite draws its models, data and parameter groups from here.

A `Problem` is a model with a few batches. `start(t)` chooses batch t; each `loss()` is then one more pass over that
batch, and `pass_index` tells the model which one it is (for models that use other parameters in other passes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCHES = 4


@dataclass
class Problem:
    """A model, its batches and what the base optimizer is given."""

    model: nn.Module
    x: Tensor  # [BATCHES, n, ...]
    y: Tensor  # [BATCHES, n]
    criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    group_options: list[dict] = field(default_factory=list)  # one group per entry, parameters dealt out in turn
    batch: int = 0
    pass_index: int = 0

    def start(self, t: int) -> None:
        self.batch, self.pass_index = t % BATCHES, 0

    def loss(self, part: slice = slice(None)) -> Tensor:
        if hasattr(self.model, "pass_index"):
            self.model.pass_index = self.pass_index
        self.pass_index += 1
        return self.criterion(self.model(self.x[self.batch][part]), self.y[self.batch][part])

    def parameters(self) -> list:
        params = list(self.model.parameters())
        if not self.group_options:
            return params
        k = len(self.group_options)
        return [{"params": params[i::k], **options} for i, options in enumerate(self.group_options)]

    def closure(self, optimizer: torch.optim.Optimizer) -> Callable[[], Tensor]:
        def run() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss()
            loss.backward()
            return loss

        return run


class Quadratic(nn.Module):
    """f(w) = w'Hw/2 over two tensors of different shape; the model's output is the loss."""

    def __init__(self, hessian: Tensor, start: Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(start[:6].clone().view(2, 3))
        self.b = nn.Parameter(start[6:].clone())
        self.hessian = hessian  # a plain attribute, not a buffer

    def forward(self, x: Tensor) -> Tensor:
        w = torch.cat([self.a.reshape(-1), self.b])
        return 0.5 * w @ self.hessian @ w


class Conditional(nn.Module):
    """`extra` takes part only in the pass number `only` (stochastic depth, mixtures, several tasks)."""

    def __init__(self, only: int) -> None:
        super().__init__()
        self.first, self.extra, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.only, self.pass_index = only, 0

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.first(x))
        if self.pass_index == self.only:
            z = z + torch.tanh(self.extra(z))
        return self.last(z)


class Tied(nn.Module):
    """The embedding is the output layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(self.embed(x))))


class Buffered(nn.Module):
    """Every way to keep a buffer: in place, rebound, a counter, lazy (None before the first forward), made late."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("in_place", torch.zeros(8))
        self.register_buffer("rebound", torch.ones(8))
        self.register_buffer("counter", torch.zeros((), dtype=torch.long))
        self.register_buffer("lazy", None)
        self.register_buffer("hidden", torch.zeros(8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.layer(x))
        now = z.detach().mean(0)
        # Used before the update, so that pass 2 shows whether it started from the same buffers.
        z = z + 0.1 * self.in_place.clone() + 0.1 * self.rebound
        if self.lazy is not None:
            z = z + 0.1 * self.lazy.clone()
        if "late" in self._buffers:
            z = z + 0.1 * self.late.clone()
        self.in_place.mul_(0.9).add_(now, alpha=0.1)
        self.rebound = 0.9 * self.rebound + 0.1 * now
        self.counter += 1
        self.lazy = now.clone() if self.lazy is None else self.lazy + now
        self.hidden.add_(now)
        if "late" in self._buffers:
            self.late.mul_(2.0)
        else:
            self.register_buffer("late", now.clone())
        return self.head(z)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x.unflatten(1, (2, 3)))[0][:, -1])


def _mlp(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, classes))


def _conv(norm: nn.Module, dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), norm, nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(64, 3)
    )


def _spectral() -> nn.Module:
    norm = nn.utils.parametrizations.spectral_norm
    return nn.Sequential(norm(nn.Linear(6, 8)), nn.Tanh(), nn.Dropout(0.3), norm(nn.Linear(8, 3)))


def _frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    model[2].requires_grad_(False)
    return model


def _unused() -> nn.Module:
    model = _mlp()
    model.register_parameter("never_used", nn.Parameter(torch.ones(3)))
    return model


def _vectors(n: int = 8, classes: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(BATCHES, n, 6), torch.randint(classes, (BATCHES, n))


def _images(n: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(BATCHES, n, 1, 4, 4), torch.randint(3, (BATCHES, n))


def _tokens() -> tuple[Tensor, Tensor]:
    return torch.randint(5, (BATCHES, 4)), torch.randint(5, (BATCHES, 4))


def hessian(*, negative: bool = False, sign: float = 1.0) -> Tensor:
    """A dense symmetric matrix with eigenvalues `sign` times 0.1 to 3 (the first -0.5 if `negative`)."""
    q = torch.linalg.qr(torch.randn(10, 10, dtype=torch.float64)).Q
    eigenvalues = sign * torch.linspace(0.1, 3.0, 10, dtype=torch.float64)
    if negative:
        eigenvalues[0] = -0.5
    return q @ torch.diag(eigenvalues) @ q.T


def _quadratic() -> Problem:
    model = Quadratic(hessian(), torch.randn(10, dtype=torch.float64))
    dummy = torch.zeros(BATCHES, 1, 1)
    return Problem(model, dummy, dummy, criterion=lambda out, _: out)


# name -> how to make the model and the data (after the seed is set, in float64)
CASES: dict[str, Callable[[], Problem]] = {
    "mlp": lambda: Problem(_mlp(), *_vectors()),
    "quadratic": _quadratic,
    "conv_bn_dropout": lambda: Problem(_conv(nn.BatchNorm2d(4), 0.4), *_images()),
    "bn_cumulative": lambda: Problem(_conv(nn.BatchNorm2d(4, momentum=None)), *_images()),
    "instance_norm": lambda: Problem(_conv(nn.InstanceNorm2d(4, track_running_stats=True)), *_images()),
    "group_norm": lambda: Problem(_conv(nn.GroupNorm(2, 4)), *_images()),
    "spectral_norm": lambda: Problem(_spectral(), *_vectors()),
    "buffers": lambda: Problem(Buffered(), *_vectors()),
    "tied": lambda: Problem(Tied(), *_tokens()),
    "embedding": lambda: Problem(nn.Sequential(nn.Embedding(5, 4), nn.Tanh(), nn.Linear(4, 5)), *_tokens()),
    "recurrent": lambda: Problem(Recurrent(), *_vectors()),
    "first_pass_only": lambda: Problem(Conditional(only=0), *_vectors()),
    "second_pass_only": lambda: Problem(Conditional(only=1), *_vectors()),
    "frozen": lambda: Problem(_frozen(), *_vectors()),
    "unused": lambda: Problem(_unused(), *_vectors()),
    "groups": lambda: Problem(_mlp(), *_vectors(), group_options=[{"rho": 0.1}, {"rho": 0.0}, {"rho": 0.3}]),
}

# The cases in which a forward changes a buffer or draws random numbers.
BUFFERED = ("conv_bn_dropout", "bn_cumulative", "instance_norm", "spectral_norm", "buffers")
RANDOM = ("conv_bn_dropout", "spectral_norm")


def make_problem(name: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> Problem:
    """Build the case `name`; the global generator is as before afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        problem = CASES[name]()
    problem.model.to(dtype)
    if problem.x.is_floating_point():
        problem.x = problem.x.to(dtype)
    return problem
