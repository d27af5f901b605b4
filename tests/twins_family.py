"""Slow twins of the whole family: the papers' equations (variants.md) in plain NumPy. They never import fenland.

A twin maps (s, p, w, rho, t, **options) to the d that the base gets on step t at the weights w. `s` is a dict that
lives between steps (s["sgd"] is the base's twin); `p` is the problem of `Batches`. A twin that corrects w after the
base's step leaves what is added, in units of the learning rate, in s["after"].
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import torch

from twins import Vector, dot, mlp_loss, norm


class Batches:
    """Linear-tanh-Linear under cross entropy, one mini-batch a step; w = [W1, b1, W2, b2]."""

    def __init__(self, x: np.ndarray, y: np.ndarray, size: int) -> None:
        self.x, self.y, self.size, self.t = x, y, size, 0

    def rows(self) -> np.ndarray:
        return np.arange(self.t * self.size, (self.t + 1) * self.size) % len(self.y)

    def grad(self, w: Vector, chosen: np.ndarray | None = None) -> Vector:
        rows = self.rows() if chosen is None else self.rows()[chosen]
        return mlp_loss(self.x[rows], self.y[rows])[1](w)

    def full_grad(self, w: Vector) -> Vector:
        return mlp_loss(self.x, self.y)[1](w)

    def losses(self, w: Vector) -> np.ndarray:
        return np.array([mlp_loss(self.x[[i]], self.y[[i]])[0](w) for i in self.rows()])


def plus(w: Vector, e: Vector, scale: float = 1.0) -> Vector:
    return [x + scale * y for x, y in zip(w, e, strict=True)]


def times(s: float, v: Vector) -> Vector:
    return [s * x for x in v]


def unit(v: Vector) -> Vector:
    return times(1 / norm(v), v)


def at(p: Batches, w: Vector, e: Vector) -> Vector:
    return p.grad(plus(w, e))


def flat(v: Vector) -> np.ndarray:
    return np.concatenate([x.reshape(-1) for x in v])


def clipped(s, p, w, rho, t):
    g = p.grad(w)
    return at(p, w, times(rho * min(1.0, 1 / norm(g)), g))


def lp(s, p, w, rho, t, p_=2.0):
    g = p.grad(w)
    a = np.abs(flat(g))
    if p_ == 1:
        return at(p, w, [rho * np.sign(x) * (np.abs(x) == a.max()) for x in g])
    if math.isinf(p_):
        return at(p, w, [rho * np.sign(x) for x in g])
    q = p_ / (p_ - 1)
    return at(p, w, [rho * np.sign(x) * np.abs(x) ** (q - 1) / (a**q).sum() ** (1 / p_) for x in g])


def inf_norm(s, p, w, rho, t):
    g = p.grad(w)
    return at(p, w, times(rho / np.abs(flat(g)).max(), g))


def asam(s, p, w, rho, t, eta=0.01, granularity="element", include_bias=True):
    g, metric = p.grad(w), []
    for i, x in enumerate(w):
        size = np.linalg.norm(x) * np.ones_like(x) if granularity == "layer" else np.abs(x)
        metric.append(size + eta if include_bias or i % 2 == 0 else np.ones_like(x))
    tg = [m * x for m, x in zip(metric, g, strict=True)]
    return at(p, w, [rho * m * x / norm(tg) for m, x in zip(metric, tg, strict=True)])


def fisher(s, p, w, rho, t, eta=1.0):
    g = p.grad(w)
    fg = [x / (1 + eta * x**2) for x in g]
    return at(p, w, times(rho / np.sqrt(dot(g, fg)), fg))


def spectral(s, p, w, rho, t):
    polar = []
    for x in p.grad(w):
        u, _, v = np.linalg.svd(x.reshape(len(x), -1) if x.ndim > 1 else x[None], full_matrices=False)
        polar.append((u @ v).reshape(x.shape))
    return at(p, w, times(rho, polar))


def dnsam(s, p, w, rho, t):
    return at(p, w, times(rho / norm(p.full_grad(w)), p.grad(w)))


def lesam(s, p, w, rho, t, sigma=0.1):
    g = p.grad(w)
    return at(p, w, times(min(sigma / norm(g), rho) / norm(g), g))


def samon(s, p, w, rho, t):
    """The last layer stands for the norm layers."""
    g = p.grad(w)
    return at(p, w, [0 * g[0], 0 * g[1], *times(rho / norm(g[2:]), g[2:])])


def sparse(s, p, w, rho, t, sparsity=0.5):
    g = p.grad(w)
    size = np.sort(np.abs(flat(g)))
    least = size[int(sparsity * len(size))]
    return at(p, w, [rho * (np.abs(x) >= least) * x / norm(g) for x in g])


def zsharp(s, p, w, rho, t, quantile=0.95, scope="all"):
    g = p.grad(w)
    z = [np.abs(x - x.mean()) / x.std() for x in g]
    pools = [np.sort(flat(z))] * len(z) if scope == "all" else [np.sort(x.reshape(-1)) for x in z]
    kept = [x * (y >= pool[int(quantile * len(pool))]) for x, y, pool in zip(g, z, pools, strict=True)]
    return at(p, w, times(rho, unit(kept)))


def two(p, w, rho):
    g = p.grad(w)
    return g, at(p, w, times(rho, unit(g)))


def gsam(s, p, w, rho, t, alpha=0.6, minimize_fp=True):
    g, h = two(p, w, rho)
    if minimize_fp:
        return plus(h, plus(g, unit(h), -dot(g, unit(h))), -alpha)
    return plus(g, plus(h, unit(g), -dot(h, unit(g))), alpha)


def wsam(s, p, w, rho, t, gamma=0.9, decoupled=True):
    g, h = two(p, w, rho)
    k = gamma / (1 - gamma)
    if not decoupled:
        return plus(times(1 - k, g), h, k)
    s["after"] = times(-k, plus(h, g, -1))
    return g


def gnp(s, p, w, rho, t, alpha=0.8, unit_gradient=False):
    g, h = two(p, w, rho)
    return plus(times(alpha, h), unit(g) if unit_gradient else g, 1 - alpha)


def xsam(s, p, w, rho, t, alpha=0.5):
    g, h = two(p, w, rho)
    theta = np.arccos(np.clip(dot(unit(g), unit(h)), -1, 1))
    arc = plus(times(np.sin((1 - alpha) * theta), unit(g)), unit(h), np.sin(alpha * theta))
    return times(norm(h) / np.sin(theta), arc)


def looksam(s, p, w, rho, t, k=5, alpha=0.7):
    if t % k == 0:
        g, h = two(p, w, rho)
        s["v"] = plus(h, unit(g), -dot(h, unit(g)))
        return h
    g = p.grad(w)
    return plus(g, unit(s["v"]), alpha * norm(g))


def control(s, p, w, rho, t, direction="g", length="h"):
    both = dict(zip("gh", two(p, w, rho), strict=True))
    return times(norm(both[length]), unit(both[direction]))


def rst(s, p, w, rho, t, probability=0.5, seed=0):
    return two(p, w, rho)[random.Random(f"{seed}/{t}").random() < probability]


def aesam(s, p, w, rho, t, total=10):
    g = p.grad(w)
    size, keep = norm(g) ** 2, 0.9 if t else 0.0
    s["mean"] = keep * s.get("mean", 0) + (1 - keep) * size
    s["var"] = keep * s.get("var", 0) + (1 - keep) * (size - s["mean"]) ** 2
    c = -t / total + (1 - t / total)
    s.setdefault("ascents", []).append(size >= s["mean"] + c * np.sqrt(s["var"]))
    return two(p, w, rho)[1] if s["ascents"][-1] else g


def interval(s, p, w, rho, t, k=10):
    return two(p, w, rho)[(t + 1) % k == 0]


def window(s, p, w, rho, t, start=0, stop=100):
    return two(p, w, rho)[start <= t < stop]


def friendly(s, p, w, rho, t, sigma=1.0, decay=0.9, average="old"):
    g = p.grad(w)
    if "m" not in s:
        s["m"], a = g, g
    else:
        old, s["m"] = s["m"], plus(times(decay, s["m"]), g, 1 - decay)
        a = plus(g, old if average == "old" else s["m"], -sigma)
    return at(p, w, times(rho, unit(a)))


def vasso(s, p, w, rho, t, theta=0.9):
    g = p.grad(w)
    s["m"] = plus(times(1 - theta, s.get("m", g)), g, theta)
    return at(p, w, times(rho, unit(s["m"])))


def msam(s, p, w, rho, t):
    v = s["sgd"].velocity
    return p.grad(w) if v is None else at(p, w, times(-rho, unit(v)))


def random_sam(s, p, w, rho, t, seed=0):
    generator = torch.Generator().manual_seed(seed * 1_000_003 + t)
    return at(
        p, w, times(rho, unit([torch.randn(x.shape, generator=generator, dtype=torch.float64).numpy() for x in w]))
    )


def gcsam(s, p, w, rho, t):
    return at(p, w, times(rho, unit([x - x.mean(1, keepdims=True) if x.ndim > 1 else x for x in p.grad(w)])))


def lagged(s, p, w, rho, t):
    g = p.grad(w)
    a, s["g"] = s.get("g", g), g
    return at(p, w, times(rho, unit(a)))


def n_step(s, p, w, rho, t, n=2, convention="split", step=1.0):
    e = [0 * x for x in w]
    for _ in range(n):
        u = unit(at(p, w, e))
        e = plus(e, u, {"split": rho / n, "project": step * rho, "full": rho}[convention])
        if convention == "project" and norm(e) > rho:
            e = times(rho, unit(e))
    return at(p, w, e)


def esam(s, p, w, rho, t, beta=0.6, keep=0.5, seed=0):
    draws = random.Random(f"{seed}/{t}")
    numbers = [draws.random() for _ in w]
    g = [x * (u < beta or u == min(numbers)) for x, u in zip(p.grad(w), numbers, strict=True)]
    there = plus(w, unit(g), rho / beta)
    rise = p.losses(there) - p.losses(w)
    return p.grad(there, np.argsort(rise)[-round(keep * len(rise)) :])


def ksam(s, p, w, rho, t, ascent=0.5, descent=0.5):
    order = np.argsort(p.losses(w))
    few, some = (order[-round(share * len(order)) :] for share in (ascent, descent))
    return p.grad(plus(w, unit(p.grad(w, few)), rho), some)


FAMILY: dict[str, Callable] = {
    "ClippedUSAM": clipped, "LpSAM": lp, "InfNormSAM": inf_norm, "ASAM": asam, "FisherSAM": fisher,
    "SpectralSAM": spectral, "DNSAM": dnsam, "LESAM": lesam, "SAMON": samon, "SparseSAM": sparse, "ZSharp": zsharp,
    "GSAM": gsam, "WSAM": wsam, "GNP": gnp, "XSAM": xsam, "LookSAM": looksam, "ControlSAM": control, "RST": rst,
    "AESAM": aesam, "IntervalSAM": interval, "WindowSAM": window, "FriendlySAM": friendly, "VaSSO": vasso, "MSAM": msam,
    "RandomSAM": random_sam, "LaggedSAM": lagged, "NStepSAM": n_step, "ESAM": esam, "KSAM": ksam, "GCSAM": gcsam,
}  # fmt: skip
