"""What the contract suites share: every preset as a variant, base optimizers, sessions, and bit-exact comparison."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

import fenland
from cases import Problem, make_problem
from fenland.presets import PRESETS


@dataclass(frozen=True)
class Variant:
    """A preset with fixed options: one row of the contract suite."""

    name: str
    preset: Any
    options: dict = field(default_factory=dict)

    @property
    def passes(self) -> int:
        return self.preset.closure_calls

    def build(self, base: Optimizer, **overrides: Any) -> fenland.SharpnessAware:
        return self.preset.build(base, **{**self.options, **overrides})


# Options that change the path through the engine and so deserve the whole contract.
EXTRA: list[tuple[str, str, dict]] = [
    ("SSAM(cap)", "SSAM", {"cap": 1.0}),
]


def preset(name: str) -> Any:
    found = [p for p in PRESETS.values() if p.name.lower() == name.lower()]
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


# Every path through the engine once: these run the whole contract, with all its crosses. tests/variants/ runs the core
# of each of its sentences over every preset.
WHOLE_CONTRACT = ("SAM", "USAM", "SSAM", "SSAM-U", "ASAM", "GSAM", "VaSSO")
VARIANTS = [Variant(n, PRESETS[n]) for n in WHOLE_CONTRACT] + [Variant(n, preset(p), o) for n, p, o in EXTRA]
TWO_CALL = [v for v in VARIANTS if v.passes == 2]

every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
every_two_call = pytest.mark.parametrize("variant", TWO_CALL, ids=lambda v: v.name)
every_perturb = pytest.mark.parametrize("perturb", ["swap", "inplace", "auto"])
both_forms = pytest.mark.parametrize("form", ["closure", "two_call"])

BASES: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda p, lr=0.1: SGD(p, lr=lr),
    "sgd_momentum": lambda p, lr=0.1: SGD(p, lr=lr, momentum=0.9, weight_decay=1e-3),
    "sgd_fused": lambda p, lr=0.1: SGD(p, lr=lr, momentum=0.9, weight_decay=1e-3, fused=True),
    "sgd_foreach": lambda p, lr=0.1: SGD(p, lr=lr, momentum=0.9, weight_decay=1e-3, foreach=True),
    "adamw": lambda p, lr=0.01: AdamW(p, lr=lr),
    "adamw_fused": lambda p, lr=0.01: AdamW(p, lr=lr, fused=True),
    "adamw_foreach": lambda p, lr=0.01: AdamW(p, lr=lr, foreach=True),
}
every_base = pytest.mark.parametrize("base", list(BASES))


@dataclass
class Session:
    """A problem under training by one optimizer."""

    problem: Problem
    opt: Any
    form: str = "closure"

    def step(self, t: int = 0) -> Tensor | None:
        self.problem.start(t)
        if self.form == "closure":
            return self.opt.step(self.problem.closure(self.opt))
        loss = self.problem.loss()
        loss.backward()
        self.opt.ascend()
        self.problem.loss().backward()
        self.opt.descend()
        self.opt.zero_grad()
        return loss

    def run(self, steps: int, start: int = 0) -> Session:
        for t in range(start, start + steps):
            self.step(t)
        return self

    @property
    def base(self) -> Optimizer:
        return getattr(self.opt, "base", self.opt)

    @property
    def weights(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.problem.model.parameters()]


def make(
    variant: Variant,
    case: str = "mlp",
    base: str = "sgd_momentum",
    *,
    form: str = "closure",
    dtype: torch.dtype = torch.float64,
    lr: float | None = None,
    rho: Any = 0.1,
    **options: Any,
) -> Session:
    """A fresh session; the problem, the weights and the batches depend on `case` and `dtype` alone."""
    problem = make_problem(case, dtype)
    made = BASES[base](problem.parameters(), **({} if lr is None else {"lr": lr}))
    options.setdefault("model", problem.model)
    torch.manual_seed(7)
    return Session(problem, variant.build(made, rho=rho, **options), form)


def plain(case: str = "mlp", base: str = "sgd_momentum", *, dtype: torch.dtype = torch.float64) -> Session:
    """The base optimizer alone on the same problem."""
    problem = make_problem(case, dtype)
    torch.manual_seed(7)
    return Session(problem, BASES[base](problem.parameters()))


def buffers(model: nn.Module) -> dict[str, Tensor | None]:
    """Every buffer by name, lazy (None) and non-persistent ones too."""
    return {
        f"{prefix}.{name}": None if b is None else b.detach().clone()
        for prefix, module in model.named_modules()
        for name, b in module._buffers.items()
    }


def snapshot(session: Session) -> dict[str, Any]:
    """All that a failed step must leave as it was."""
    return {
        "weights": session.weights,
        "state": copy.deepcopy(session.opt.state_dict()),  # the base's and fenland's own
        "buffers": buffers(session.problem.model),
        "rng": torch.get_rng_state(),
    }


def assert_same(got: Any, want: Any, path: str = "value") -> None:
    """Bit for bit, through dicts and lists."""
    assert type(got) is type(want) or isinstance(got, nn.Parameter | Tensor), f"{path}: {type(got)} for {type(want)}"
    if isinstance(want, dict):
        assert got.keys() == want.keys(), f"{path}: keys {sorted(map(str, got))} for {sorted(map(str, want))}"
        for key in want:
            assert_same(got[key], want[key], f"{path}[{key!r}]")
    elif isinstance(want, list | tuple):
        assert len(got) == len(want), f"{path}: length {len(got)} for {len(want)}"
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            assert_same(a, b, f"{path}[{i}]")
    elif isinstance(want, Tensor):
        assert (got.dtype, got.shape) == (want.dtype, want.shape), f"{path}: {got.dtype} {tuple(got.shape)}"
        difference = (got.double() - want.double()).abs().max() if want.numel() else 0
        same = torch.equal(got, want) or bool(((got == want) | (got.isnan() & want.isnan())).all())
        assert same, f"{path} differs by {float(difference):.3g}"
    else:
        assert got == want, f"{path}: {got} for {want}"


def one_forward(session: Session, t: int = 0) -> tuple[dict[str, Tensor | None], Tensor]:
    """Buffers and random state after one plain training forward at w, on a copy; the session is untouched."""
    state = torch.get_rng_state()
    other = copy.deepcopy(session.problem)
    other.start(t)
    other.loss().backward()
    result = buffers(other.model), torch.get_rng_state()
    torch.set_rng_state(state)
    return result


class Recorder(Optimizer):
    """Plain SGD that keeps what it was handed: `d` and the weights at the hand-over."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})
        self.handed: list[list[Tensor | None]] = []

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        row: list[Tensor | None] = []
        for group in self.param_groups:
            for p in group["params"]:
                row.append(None if p.grad is None else p.grad.clone())
                if p.grad is not None:
                    p.add_(p.grad, alpha=-group["lr"])
        self.handed.append(row)


@dataclass
class Watched:
    """One step as seen from outside: the points where the closure ran, its gradients, and d."""

    points: list[list[np.ndarray]]
    gradients: list[list[np.ndarray]]
    d: list[np.ndarray]
    after: list[np.ndarray]
    opt: Any

    @property
    def e(self) -> list[np.ndarray]:
        return [b - a for a, b in zip(self.points[0], self.points[-1], strict=True)]


def watch(
    build: Callable[[Optimizer], Any],
    w: list[np.ndarray],
    grad: Callable[[list[np.ndarray]], list[np.ndarray]],
    *,
    loss: Callable[[list[np.ndarray]], float] = lambda w: 0.0,
    group_options: list[dict] | None = None,
    lr: float = 0.1,
) -> Watched:
    """Take one step on hand-made gradients; `build` turns the recording base into the optimizer under test."""
    params = [nn.Parameter(torch.tensor(x)) for x in w]
    groups: Any = params
    if group_options is not None:
        groups = [{"params": [p], **o} for p, o in zip(params, group_options, strict=True)]
    base = Recorder(groups, lr=lr)
    opt = build(base)
    points, gradients = [], []

    def closure() -> Tensor:
        at = [p.detach().numpy().copy() for p in params]
        points.append(at)
        gradients.append(grad(at))
        for p, g in zip(params, gradients[-1], strict=True):
            p.grad = torch.tensor(g)
        return torch.tensor(loss(at), dtype=torch.float64)

    opt.step(closure)
    (d,) = base.handed
    after = [p.detach().numpy().copy() for p in params]
    return Watched(points, gradients, [x.numpy() for x in d], after, opt)


def stepper(variant: Variant) -> Callable[..., list[np.ndarray]]:
    """The variant as a stepper for the oracles."""

    def step(w: list[np.ndarray], grad: Any, rho: float, lr: float) -> list[np.ndarray]:
        return watch(lambda base: variant.build(base, rho=rho), w, grad, lr=lr).after

    return step


def tensors(tree: Any) -> Iterator[Tensor]:
    """All tensors in a nest of dicts and lists."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from tensors(value)
