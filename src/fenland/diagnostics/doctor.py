"""The doctor: is the run stable, is the ascent active, is it near a saddle, and what to do about it.

>>> report = fenland.diagnose(model, loss_fn, batches, optimizer)
>>> print(report)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fenland.algebra import Lists, Vector
from fenland.arguments import check_number, check_seed, check_whole
from fenland.diagnostics import curvature
from fenland.diagnostics.advice import Findings, advice, verdict
from fenland.diagnostics.climbing import Climber, compared
from fenland.diagnostics.diagnosis import STALLED, Ascent, Diagnosis, Saddle
from fenland.diagnostics.flat import length
from fenland.diagnostics.hessian import Hessian, Hvp
from fenland.diagnostics.objective import LossFn, Mode, Objective
from fenland.diagnostics.preserve import displaced
from fenland.diagnostics.recipe import Recipe, allowed, names_of, radii_of, read
from fenland.theory import held_beside

ROUNDING = 10  # rounding errors that two losses may differ by where nothing else does
STILL = 1e-6  # float32 cannot tell cos(g, h) better from 1


def diagnose(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    mode: Mode = "train",
    near: float = 0.05,
    tol: float = 1e-3,
    max_products: int = 300,
    hvp: Hvp = "autograd",
    step: float | None = None,
    dtype: torch.dtype | None = None,
    size: Callable[[Any], float] | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Measure curvature, gradient and ascent at the present weights, and say what follows for this optimizer.

    The limits are those of `fenland.theory` for SGD, SAM and SSAM on the local quadratic model, with the base's
    momentum and weight decay. They hold for steps with the mean gradient over `batches`. A network that trains near
    them moves so that the curvature follows the learning rate (Cohen et al. 2021, arXiv 2103.00065). So read "unstable"
    as "the loss rises before it falls again, if it does". Weights, buffers, `.grad` and generators stay as they are.

    Args:
        model: the module; it must not be sharded.
        loss_fn: a function of model and batch that returns the batch's mean loss, as in training.
        batches: a list of batches or a loader; a few hundred examples of the training set are enough.
        optimizer: fenland's or torch's, on the model's parameters; None measures curvature and gradient only.
        mode: "train" (as the optimizer sees the loss; dropout masks are the same in every pass), "eval" or "keep".
        near: distance (unit of w) within which a saddle counts as near, beside the normalised ascent's own rho.
        tol: largest relative residual of the eigenvalues, see `curvature.extreme_eigenvalues`.
        max_products: the most products with the Hessian, see there.
        hvp: how such a product is made, see there.
        step: of hvp="difference", see `Hessian`.
        dtype: see `Objective`.
        size: see `Objective`.
        seed: of Lanczos' start.

    Raises:
        TypeError: an argument of the wrong kind, such as a one-shot generator of batches.
        ValueError: the loss is not finite, there is no batch, the optimizer has none of the model's parameters.
        RuntimeError: the model cannot be differentiated twice (hvp="difference" can), or the weights are at an ascent
            point.
    """
    check_number("near", near, low=0.0)
    check_number("tol", tol, low=0.0)
    check_whole("max_products", max_products, 1)
    check_seed(seed)
    start = time.perf_counter()
    recipe = read(optimizer)
    names = None if optimizer is None else names_of(model, recipe)
    with Objective(model, loss_fn, batches, mode=mode, parameters=names, dtype=dtype, size=size) as objective:
        loss, g = objective.gradient(at_w=True)
        norm = float(Lists().norm(g))
        originals = dict(model.named_parameters())
        radii = radii_of(recipe, [originals[name] for name in objective.names])
        ascent = _ascend(objective, recipe, radii, loss, g) if recipe.rho > 0 else None
        hessian = Hessian(objective, hvp, step)
        strayed = _strayed(objective, hessian, recipe, loss, g)
        extremes = curvature.of(hessian, tol=tol, max_products=max_products, seed=seed)
        count, examples = objective.seen
    low, high = extremes.smallest[0], extremes.largest[0]
    effective, gamma = (ascent.effective, ascent.gamma) if ascent is not None else (None, None)
    limits = allowed(recipe, (low.value, low.residual), (high.value, high.residual), effective, gamma)
    found = Findings(recipe, extremes, norm, ascent, limits, _saddle(recipe, extremes, norm, near), strayed)
    said, because = verdict(found)
    return Diagnosis(
        optimizer=recipe.name,
        method=recipe.method,
        lr=recipe.lr,
        loss=loss,
        gradient_norm=norm,
        largest=high,
        smallest=low,
        converged=extremes.converged,
        ascent=ascent,
        limits=limits,
        saddle=found.saddle,
        strayed=strayed,
        verdict=said,
        because=because,
        advice=advice(found),
        mode=mode,
        batches=count,
        examples=examples,
        products=extremes.products,
        seconds=time.perf_counter() - start,
    )


def _ascend(objective: Objective, recipe: Recipe, radii: Sequence[float], loss: float, g: Vector) -> Ascent:
    """One ascent from w: what it asks for, what the precision holds of it, and the gradient there."""
    unit = Climber(objective, recipe.ball).unit(g)
    e = [rho * u for rho, u in zip(radii, unit, strict=True)]
    with displaced(objective.params, e):
        above, h = objective.gradient()
    V = Lists()
    wanted = float(V.norm(e))
    g_norm, h_norm, cosine, gamma = compared(g, h)
    realised, fidelity = _held(objective.params, e, None)
    _, fidelity_bf16 = _held(objective.params, e, torch.bfloat16)
    return Ascent(
        rho=recipe.rho,
        wanted=wanted,
        realised=realised,
        fidelity=fidelity,
        fidelity_bf16=fidelity_bf16,
        effective=wanted / g_norm if g_norm > 0 else None,
        gamma=gamma,
        cosine=min(1.0, max(-1.0, cosine)),
        rise=above - loss,
        slope=float(V.dot(g, e)),
        active=wanted > 0 and (1 - cosine > STILL or abs(gamma - 1) > STILL),
        stalled=g_norm > 0 and h_norm < STALLED * g_norm,
    )


def _strayed(objective: Objective, hessian: Hessian, recipe: Recipe, loss: float, g: Vector) -> float | None:
    """How far the loss leaves the quadratic model on the way of the next 1 / (1 - momentum) steps; see `Diagnosis`."""
    if recipe.lr is None or not recipe.steps_by_sgd or recipe.lr == 0:
        return None
    flat = hessian.flat.join(g)
    norm = length(flat)
    if norm == 0:
        return None
    reach = recipe.lr / (1 - recipe.momentum)
    try:  # before any product: the graph that a Hessian keeps does not survive a change of the weights
        with displaced(objective.params, [-reach * x for x in g]):
            change = objective.loss() - loss
    except ValueError:  # the loss is not finite there
        return math.inf
    u = flat / norm
    along = float(u @ hessian.matvec(u))
    off = abs(change / norm / norm / reach + 1 - reach / 2 * along)
    # Near a minimum the decrease is less than the loss's own rounding, which is no curvature.
    return max(0.0, off - ROUNDING * hessian.flat.eps * abs(loss) / norm / norm / reach)


@torch.no_grad()
def _held(params: Sequence[Tensor], e: Vector, dtype: torch.dtype | None) -> tuple[float, float]:
    """|e| and its cosine with the wanted e, as weights of `dtype` (None: their own) hold it."""
    dot, length, wanted = 0.0, 0.0, 0.0
    for p, x in zip(params, e, strict=True):
        w = p.to(dtype or p.dtype)
        there = ((w.to(x.dtype) + x).to(w.dtype).double() - w.double()).reshape(-1)
        x = x.double().reshape(-1)
        dot, length, wanted = dot + float(there @ x), length + float(there @ there), wanted + float(x @ x)
    if wanted == 0:
        return 0.0, 1.0
    return length**0.5, dot / (length * wanted) ** 0.5 if length > 0 else 0.0


def _saddle(recipe: Recipe, extremes: curvature.Extremes, g_norm: float, near: float) -> Saddle | None:
    low, high = extremes.smallest[0], extremes.largest[0].value
    m = -low.value
    if m <= max(low.residual, low.error or 0.0):
        return None
    normalized = recipe.normalized and recipe.rho > 0
    reach = max(near, recipe.rho) if normalized else near
    captured = recipe.rho > 0 and (g_norm < recipe.rho * m if normalized else recipe.rho * m > 1)
    held = None
    if captured and recipe.method == "SAM" and recipe.lr is not None and high > 0 and recipe.momentum == 0:
        held = 0 < recipe.lr * high < 2 and held_beside(m, high, recipe.lr)
    return Saddle(m, g_norm / m, g_norm / m <= reach, captured, held)
