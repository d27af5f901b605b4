"""The largest Hessian eigenvalue of a small network under full-batch steps, beside the edge of stability."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

import fenland
from fenland import theory
from fenland.diagnostics import curvature
from fenland.lab.data import digits
from fenland.lab.study.network import closure
from fenland.rules import Window

METHODS = ("GD", "SAM", "SSAM", "USAM", "SSAM-U")
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Setting:
    """A network of one hidden tanh layer on digits, full batch, squared error of one-hot targets."""

    images: int = 300  # of the training set, centred
    width: int = 32  # of the hidden layer
    lr: float = 0.8  # eta, without momentum and weight decay
    steps: int = 1200  # taken
    every: int = 25  # steps between two rows
    tol: float = 0.01  # of the eigenvalues, see `curvature.extreme_eigenvalues`


def settle(setting: Setting, method: str, rho: float, seed: int) -> pd.DataFrame:
    """One training: ``method, rho, seed, step, loss, eigenvalue, residual, grad_norm, gamma, edge, edge_gd``.

    ``eigenvalue`` is that of the training loss at the weights, ``edge`` `theory.edge_curvature` at the gradient norm
    and the gamma of the very step; for GD both edges are 2/eta.
    """
    batch = batch_of(setting.images)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(batch[0].shape[1], setting.width), nn.Tanh(), nn.Linear(setting.width, 10))
    opt = optimizer(method, torch.optim.SGD(model.parameters(), lr=setting.lr), rho)
    rows = []
    for step in range(setting.steps + 1):
        # Before the step: the eigenvalue and the gradient that the step sees are those of the same weights.
        found = eigenvalue(model, squared_error, batch, setting.tol) if step % setting.every == 0 else None
        loss = float(opt.step(closure(opt, model, squared_error, batch)))
        if found is not None:
            rows.append(
                [step, loss, found.value, found.residual, *_of_step(opt), *_edges(setting.lr, rho, method, opt)]
            )
    names = ["step", "loss", "eigenvalue", "residual", "grad_norm", "gamma", "edge", "edge_gd"]
    return pd.DataFrame(rows, columns=names).assign(method=method, rho=rho, seed=seed)


def large_radius(setting: Setting, rho: float, warm: int, seed: int) -> pd.DataFrame:
    """One training by SAM with cross-entropy: ``rho, warm, seed, accuracy, loss, grad_norm, ascent_grad_norm``.

    The loss, ||g|| and ||h|| are those of the last step, before it; ``warm`` is the number of plain steps at first.
    """
    batch = batch_of(setting.images)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(batch[0].shape[1], setting.width), nn.Tanh(), nn.Linear(setting.width, 10))
    opt = fenland.SAM(torch.optim.SGD(model.parameters(), lr=setting.lr), rho=rho, when=Window(warm))
    for _ in range(setting.steps):
        opt.step(closure(opt, model, entropy, batch))
    with torch.no_grad():
        right = model(batch[0]).argmax(1) == batch[1].argmax(1)
    last = {name: getattr(opt.last, name) for name in ("loss", "grad_norm", "ascent_grad_norm")}
    norms = {name: math.nan if value is None else float(value) for name, value in last.items()}
    return pd.DataFrame([{"rho": rho, "warm": warm, "seed": seed, "accuracy": float(right.float().mean()), **norms}])


def entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1].argmax(1))


def batch_of(count: int) -> Batch:
    """The first so many training images of digits as vectors around 0, and one-hot targets."""
    images = digits.load()
    pixels = torch.from_numpy(images.train[:count]).flatten(1).float() / 16
    labels = torch.from_numpy(images.train_labels[:count])
    return pixels - pixels.mean(0), nn.functional.one_hot(labels, 10).float()


def squared_error(model: nn.Module, batch: Batch) -> Tensor:
    """Half the squared distance from the targets, mean over the images."""
    loss: Tensor = (model(batch[0]) - batch[1]).square().sum(1).mean() / 2
    return loss


def optimizer(method: str, base: torch.optim.Optimizer, rho: float) -> fenland.SharpnessAware:
    """A method of `METHODS` over a base; "GD" is the base, whose steps are recorded too."""
    made: dict[str, Callable[[], fenland.SharpnessAware]] = {
        "GD": lambda: fenland.SAM(base, rho=0.0),
        "SAM": lambda: fenland.SAM(base, rho=rho),
        "SSAM": lambda: fenland.SSAM(base, rho=rho),
        "USAM": lambda: fenland.USAM(base, rho=rho),
        "SSAM-U": lambda: fenland.SSAM(base, rho=rho, normalize=False),
    }
    return made[method]()


def eigenvalue(model: nn.Module, loss_fn: Callable[[Any, Any], Tensor], batch: Any, tol: float) -> curvature.Eigenpair:
    """The largest of the Hessian, with its residual."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="eigenvalues did not reach tol")  # the residual says so
        return curvature.extreme_eigenvalues(model, loss_fn, [batch], tol=tol, max_products=60).largest[0]


def _of_step(opt: fenland.SharpnessAware) -> tuple[float, float]:
    last = opt.last
    return float(last.grad_norm or 0.0), 1.0 if last.gamma is None else float(last.gamma)


def _edges(lr: float, rho: float, method: str, opt: fenland.SharpnessAware) -> tuple[float, float]:
    norm, gamma = _of_step(opt)
    plain = theory.edge_curvature(lr)
    if method == "GD":
        return plain, plain
    return theory.edge_curvature(lr, rho, method, norm, gamma if method.startswith("SSAM") else None), plain
