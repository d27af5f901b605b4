"""What a wrong call of a method is told: people bring the arguments of other libraries."""

from __future__ import annotations

import difflib
import functools
import inspect
import reprlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

from fenland.optimizer import SharpnessAware

F = TypeVar("F", bound=Callable[..., SharpnessAware])

# Arguments of other libraries (docs/migrating.md) and what stands for them.
ELSEWHERE = {
    "adaptive": "fenland.ASAM(base, rho, eta=0.0) is the adaptive ball of davda54/sam and pytorch_optimizer",
    "base_optimizer": "the base is the first argument, as an instance",
    "use_gc": "fenland.GCSAM centralises the ascent's gradient",
    "perturb_eps": "none is needed: a zero gradient is a plain step of the base",
    "epsilon": "none is needed: a zero gradient is a plain step of the base",
    "interval": "when=fenland.EveryK(k) ascends on every k-th step",
    "lmbda": "FriendlySAM calls it decay",
    "decouple": "WSAM calls it decoupled",
    "rho_scheduler": "rho may be a function of the step, such as fenland.TiedToLearningRate(...)",
}
_OWN = tuple(name for name in inspect.signature(SharpnessAware.__init__).parameters if name not in ("self", "base"))


def explained(build: F) -> F:
    """The function with errors that name the argument and the cure where it is called with others than it takes."""
    taken = inspect.signature(build)

    @functools.wraps(build)
    def called(*given: Any, **named: Any) -> SharpnessAware:
        _check_base_first(build.__name__, given)
        _check_names(build.__name__, taken, named)
        return build(*given, **named)

    return cast(F, called)


def _check_base_first(method: str, given: tuple[Any, ...]) -> None:
    if len(given) > 1 and isinstance(given[1], type) and issubclass(given[1], torch.optim.Optimizer):
        name = given[1].__name__
        raise TypeError(
            f"{method}(params, {name}, ...): the base comes as an instance, with its own arguments: "
            f"fenland.{method}(torch.optim.{name}(params, lr=...), rho=...)"
        )


def _check_names(method: str, taken: inspect.Signature, named: dict[str, Any]) -> None:
    known = [name for name in taken.parameters if name != "options"]
    if "options" in taken.parameters:
        known += [name for name in _OWN if name not in known]
    for name, value in named.items():
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, 1)
        if name in ELSEWHERE:
            cure = ELSEWHERE[name]
        elif name in ("lr", "momentum", "weight_decay", "betas", "nesterov", "eps", "foreach", "fused"):
            cure = f"it belongs to the base: torch.optim.SGD(model.parameters(), {name}=...)"
        else:
            cure = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
        raise TypeError(f"{name} = {reprlib.repr(value)}: {method} has no such argument; {cure}")
