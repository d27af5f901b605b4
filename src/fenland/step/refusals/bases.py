"""Bases and groups that a sharpness-aware step cannot serve."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

# Bases that a sharpness-aware step cannot serve, by class name: they need more of a step than gradients in `p.grad`.
_HESSIAN = "needs backward(create_graph=True), whose graph does not survive the way to w + e"
_INSIDE = "updates each weight inside backward, and never steps with the gradient of all"
_REFUSED = {
    "LBFGS": "evaluates its closure itself, many times a step",
    "DPOptimizer": "reads per-sample gradients (p.grad_sample), never p.grad",
    "AdaHessian": _HESSIAN,
    "Adahessian": _HESSIAN,
    "SophiaH": _HESSIAN,
    "LOMO": _INSIDE,
    "AdaLOMO": _INSIDE,
    "AliG": "reads the loss from a closure that it calls itself",
}


def check_base(base: Any, own: type) -> None:
    """Raise a TypeError where `base` is no first-order optimizer; `own` is the class of sharpness-aware ones."""
    if isinstance(base, own):
        raise TypeError("base is a SharpnessAware already: nest choices (ball, source, combine, when), not optimizers")
    if not isinstance(base, torch.optim.Optimizer):
        raise TypeError(
            f"base = {base!r}: must be a torch.optim.Optimizer instance, "
            "such as torch.optim.SGD(model.parameters(), lr=0.1)"
        )
    if not hasattr(base, "param_groups"):
        raise TypeError(f"base is {type(base).__name__}, which shows no param_groups: wrap the optimizer inside it")
    if any(hasattr(type(base), name) for name in ("first_step", "set_closure")):
        raise TypeError(
            f"base is {type(base).__name__}, which is a sharpness-aware optimizer itself: wrap the optimizer that it "
            "wraps, such as torch.optim.SGD(model.parameters(), lr=0.1)"
        )
    for kind in type(base).__mro__:
        if kind.__name__ in _REFUSED:
            raise TypeError(
                f"base is {type(base).__name__}, which {_REFUSED[kind.__name__]}: use a first-order optimizer"
            )
    if _needs_closure(type(base).step):
        raise TypeError(
            f"base is {type(base).__name__}, whose step() needs a closure and evaluates it itself; use a first-order "
            "optimizer that steps with the gradients in p.grad (of schedulefree the class without Closure in its name)"
        )


def _needs_closure(step: Any) -> bool:
    """Whether `step(self, closure)` cannot be called without its closure."""
    try:
        _, *arguments = inspect.signature(step).parameters.values()
    except (TypeError, ValueError):  # no signature is known
        return False
    named = [x for x in arguments if x.name == "closure"]
    return bool(named) and named[0].default is inspect.Parameter.empty


def check_groups(base: torch.optim.Optimizer, groups: Sequence[dict[str, Any]]) -> None:
    """Raise a ValueError where the base's groups cannot carry a radius, or climb where they should descend."""
    name = type(base).__name__
    if "rho" in getattr(base, "defaults", {}):
        raise ValueError(f"base = {name}: its own option is called rho, which is the radius here; use another base")
    if any(group.get("maximize") for group in groups):
        raise ValueError(f"base = {name}(maximize=True): the ascent would run downhill; minimise the negated objective")
    if any(0 in p.stride() and p.numel() > 1 for group in groups for p in group["params"] if _is_dense(p)):
        raise ValueError(
            "a parameter is expanded, so that several of its elements share memory and cannot each be perturbed; "
            "give the optimizer a contiguous copy of it"
        )
    if any(p.is_meta for group in groups for p in group["params"]):
        raise ValueError("a parameter is on the meta device, which holds no numbers: materialise the model first")


def listed(group: dict[str, Any]) -> list[Any]:
    """The tensors of a group that is to be added, in whatever form torch takes them; generators become lists in it."""
    params = group["params"]
    if isinstance(params, torch.Tensor):
        return [params]
    if not isinstance(params, (list, set)):  # a set has no order: torch refuses it
        params = group["params"] = list(params)  # as torch does; a generator would be used up here
    return [p[1] if isinstance(p, tuple) else p for p in params]


def _is_dense(p: Any) -> bool:
    """Whether it is a plain tensor that has strides."""
    return p.layout == torch.strided and not torch.nn.parameter.is_lazy(p)
