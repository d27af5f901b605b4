"""What the tests of other people's code share: a network that betrays mistakes, and the loops that people write."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fenland
from fenland.presets import PRESETS

SIZE, CLASSES, BATCH, BATCHES = 6, 3, 8, 4
NEEDED: dict[str, dict[str, Any]] = {"DNSAM": {"full_norm": lambda: 1.0}, "AESAM": {"total_steps": 10}}
WHOLE_LOSS = sorted(name for name, row in PRESETS.items() if not row.per_sample)
TWO_CALLS = sorted(name for name in WHOLE_LOSS if PRESETS[name].closure_calls == 2)


class Net(nn.Module):
    """Two parts, BatchNorm and dropout: a pass too many, a wrong mask or a forgotten part shows at once."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(SIZE, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Dropout(dropout))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def net(dtype: torch.dtype = torch.float64, **options: Any) -> Net:
    torch.manual_seed(3)
    return Net(**options).to(dtype)


def batch(t: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(50 + t % BATCHES)
    return torch.randn(BATCH, SIZE, generator=g, dtype=torch.float64).to(dtype), torch.randint(
        CLASSES, (BATCH,), generator=g
    )


def sgd(params: Any, lr: float = 0.1, **options: Any) -> torch.optim.Optimizer:
    params = params.parameters() if isinstance(params, nn.Module) else params
    return torch.optim.SGD(params, lr=lr, momentum=0.9, **options)


def ssam(model: nn.Module, base: torch.optim.Optimizer | None = None, **options: Any) -> Any:
    return fenland.SSAM(base or sgd(model), **{"rho": 0.2, "model": model, **options})


def build(preset: str, base: torch.optim.Optimizer, **options: Any) -> Any:
    """Any preset, with the arguments that it cannot do without."""
    return PRESETS[preset].build(base, **{**NEEDED.get(preset, {}), **options})


Loss = Callable[[], Tensor]


def loss_of(model: nn.Module, t: int = 0) -> Tensor:
    p = next(model.parameters())
    x, y = batch(t, p.dtype)
    return F.cross_entropy(model(x), y)


def closure_for(opt: Any, loss: Loss) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        opt.zero_grad()
        value = loss()
        value.backward()
        return value

    return closure


def by_closure(opt: Any, loss: Loss) -> None:
    opt.step(closure_for(opt, loss))


def by_two_calls(opt: Any, loss: Loss) -> None:
    opt.zero_grad()
    loss().backward()
    opt.ascend()
    loss().backward()
    opt.descend()


def by_block(opt: Any, loss: Loss) -> None:
    opt.zero_grad()
    loss().backward()
    with opt.ascent():
        loss().backward()


FORMS: dict[str, Callable[[Any, Loss], None]] = {
    "closure": by_closure,
    "two calls": by_two_calls,
    "block": by_block,
}


def plain(opt: torch.optim.Optimizer, loss: Loss) -> None:
    """The same loop over a bare optimizer."""
    opt.zero_grad()
    loss().backward()
    opt.step()


def everything(model: nn.Module) -> dict[str, Any]:
    """Weights, buffers and the generators' states: what a step may change outside the optimizer."""
    numpys = np.random.get_state()  # noqa: NPY002 - the global one is what is guarded
    return {
        **{name: x.detach().clone() for name, x in model.state_dict().items()},
        "torch's generator": torch.get_rng_state(),
        "numpy's generator": torch.from_numpy(np.asarray(numpys[1]).astype("int64")),
    }


def differences(got: dict[str, Any], want: dict[str, Any], tolerance: float = 0.0) -> list[str]:
    """The names whose values differ, with how far."""
    assert got.keys() == want.keys()
    found = []
    for name, value in want.items():
        if torch.equal(got[name], value):
            continue
        apart = float((got[name].double() - value.double()).abs().max())
        if not apart <= tolerance:
            found.append(f"{name} by {apart:.3g}")
    return found


def assert_same(got: nn.Module | dict[str, Any], want: nn.Module | dict[str, Any], tolerance: float = 0.0) -> None:
    got = everything(got) if isinstance(got, nn.Module) else got
    want = everything(want) if isinstance(want, nn.Module) else want
    found = differences(got, want, tolerance)
    assert not found, f"differ: {'; '.join(found)}"


def counted(model: nn.Module) -> int:
    """How many forward passes BatchNorm has seen."""
    (seen,) = {int(x) for name, x in model.state_dict().items() if name.endswith("num_batches_tracked")}
    return seen


def fenland_state(opt: Any) -> dict[str, Any]:
    """What a checkpoint holds of fenland's own: counts and kept vectors, by path."""
    whole, found = opt.state_dict(), {}
    # A base that packs in a way of its own has fenland's part beside it, under one name.
    state = next((v for k, v in whole.items() if isinstance(v, dict) and str(k).startswith("fenland")), whole)
    for k, group in enumerate(state["param_groups"]):
        found.update({f"group {k} {name}": copy.deepcopy(x) for name, x in group.items() if "fenland" in str(name)})
    for index, kept in state["state"].items():
        found.update({f"{index} {name}": copy.deepcopy(x) for name, x in kept.items() if "fenland" in str(name)})
    return found


def assert_fenland_state(opt: Any, want: dict[str, Any]) -> None:
    got = fenland_state(opt)
    assert got.keys() == want.keys()
    for name, value in want.items():
        same = torch.equal(got[name], value) if isinstance(value, Tensor) else got[name] == value
        assert same, f"{name}: {got[name]} for {value}"


def sam_by_hand(model: nn.Module, parts: Sequence[Sequence[str]], lr: float, rho: float, t: int, joint: bool) -> None:
    """One SAM step of plain gradient descent over all `parts` at once, from the definition, on deep copies.

    Args:
        model: changed in place; buffers and torch's generator as after one forward at w.
        parts: names of the parameters of each optimizer.
        lr: step size.
        rho: radius, of each part or of all together.
        t: number of the batch.
        joint: whether ||g|| runs over all parts.
    """
    before, rng = copy.deepcopy(model), torch.get_rng_state()
    named = dict(model.named_parameters())
    g = dict(zip(named, torch.autograd.grad(loss_of(model, t), list(named.values())), strict=True))
    after = torch.get_rng_state()
    norms = [torch.sqrt(sum((g[n] ** 2).sum() for n in part)) for part in parts]
    whole = torch.sqrt(sum(x**2 for x in norms))
    with torch.no_grad():
        for part, norm in zip(parts, norms, strict=True):
            for n in part:
                before.get_parameter(n).add_(g[n] * rho / (whole if joint else norm))
    torch.set_rng_state(rng)
    there = dict(before.named_parameters())
    h = dict(zip(there, torch.autograd.grad(loss_of(before, t), list(there.values())), strict=True))
    torch.set_rng_state(after)
    with torch.no_grad():
        for n in (n for part in parts for n in part):
            named[n].sub_(lr * h[n])


def parameters(model: nn.Module, names: Sequence[str]) -> Iterator[nn.Parameter]:
    return (model.get_parameter(n) for n in names)


STEPS = 6


def rows(dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    return [batch(t, dtype) for t in range(STEPS)]


def seed() -> None:
    torch.manual_seed(12)


def plain_loop(model: nn.Module, opt: Any, data: Iterable[tuple[Tensor, Tensor]]) -> list[float]:
    losses = []
    for x, y in data:

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        losses.append(float(opt.step(closure).detach()))
    return losses
