"""Other people's optimizers as bases: `python tests/peers/outside.py` (or `make test-peers`).

Every optimizer of pytorch_optimizer is wrapped and trained beside its bare self, in both call forms: at rho = 0 the
runs must be equal bit for bit, at rho > 0 equal to SAM written out around the bare base. A base that is refused must
be refused at construction, by name. What does not run by itself on this problem is listed.

Exit code 1 where something is neither equal nor refused by name.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fenland

STEPS = 3
# Arguments that an optimizer cannot do without, and small values that fit this problem.
ARGUMENTS: dict[str, Any] = {
    "lr": 1e-2,
    "num_iterations": 10,
    "num_epochs": 2,
    "num_batches_per_epoch": 5,
    "batch_size": 8,
    "num_data": 64,
    "total_steps": 10,
    "total_iterations": 10,
    "weight_decay": 0.0,
    "base_optimizer": torch.optim.SGD,
    "rho_scheduler": SimpleNamespace(step=lambda: 0.05),
}
MATRICES_ONLY = ("SpectralSphere",)
FLOAT32_ONLY = ("FAdam",)


@dataclass
class Outcome:
    """What came of one base: a verdict, and why."""

    name: str
    verdict: str  # equal | refused | alone | WRONG
    why: str = ""


class Net(nn.Module):
    """Tensors of 1, 2 and 4 dimensions, none of which has a gradient that vanishes by construction."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).flatten(1))


def net(kind: Any) -> nn.Module:
    """The network that this optimizer is made for."""
    torch.manual_seed(1)
    if kind.__name__ in MATRICES_ONLY:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(16, 4, bias=False), nn.Tanh(), nn.Linear(4, 3, bias=False)
        ).double()
    return Net() if kind.__name__ in FLOAT32_ONLY else Net().double()


def batch(t: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(t)
    return torch.randn(8, 1, 4, 4, generator=g).double(), torch.randint(3, (8,), generator=g)


def loss_of(model: nn.Module, t: int) -> Tensor:
    x, y = batch(t)
    return F.cross_entropy(model(x.to(next(model.parameters()).dtype)), y)


def made(kind: Any, model: nn.Module) -> Any:
    """The bare optimizer on the model's parameters, in train mode where it has one."""
    wanted = inspect.signature(kind.__init__).parameters
    options = {
        name: value
        for name, value in ARGUMENTS.items()
        if name in wanted and (name == "lr" or wanted[name].default is inspect.Parameter.empty)
    }
    first = next(name for name in wanted if name != "self")
    if first != "params" and "params" in wanted:
        options["params"] = list(model.parameters())
    if first != "model" and "model" in wanted:
        options["model"] = model
    if "base_optimizer" in wanted and "type[" not in str(wanted["base_optimizer"].annotation):
        options["base_optimizer"] = torch.optim.SGD(model.parameters(), lr=ARGUMENTS["lr"])
    if kind.__name__.startswith("Distributed") and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    torch.manual_seed(2)
    opt = kind(_first_argument(kind, model), **options)
    if hasattr(opt, "train"):
        opt.train()
    return opt


def _first_argument(kind: Any, model: nn.Module) -> Any:
    """What this class builds itself on: parameters, groups that name the matrices, a model, or an optimizer."""
    params = list(model.parameters())
    name = next(p for p in inspect.signature(kind.__init__).parameters if p != "self")
    if name == "model":
        return model
    if name == "optimizer":
        return torch.optim.SGD(params, lr=ARGUMENTS["lr"], momentum=0.9)
    if "muon" in kind.__name__.lower() or kind.__name__ == "AdaGO":
        groups = [[p for p in params if p.ndim > 1], [p for p in params if p.ndim <= 1]]
        return [{"params": group, "use_muon": k == 0} for k, group in enumerate(groups)]
    return params


def bare(opt: Any, model: nn.Module, rho: float, graph: bool) -> None:
    """Plain training, or SAM written out: h at w + e goes to the base, buffers and masks are those of pass 1."""
    params = list(model.parameters())
    for t in range(STEPS):
        torch.manual_seed(10 + t)
        opt.zero_grad()
        there, rng = copy.deepcopy(model), torch.get_rng_state()
        loss = loss_of(model, t)
        loss.backward(create_graph=graph)
        if rho:
            after = torch.get_rng_state()
            norm = torch.sqrt(sum((p.grad**2).sum() for p in params))
            with torch.no_grad():
                for p, q in zip(there.parameters(), params, strict=True):
                    p.add_(q.grad * float(rho / norm))
            torch.set_rng_state(rng)
            for p, h in zip(params, torch.autograd.grad(loss_of(there, t), list(there.parameters())), strict=True):
                p.grad = h
            torch.set_rng_state(after)
        opt.step()


def wrapped(opt: Any, model: nn.Module, form: str, graph: bool) -> None:
    for t in range(STEPS):
        torch.manual_seed(10 + t)

        def closure(t: int = t) -> Tensor:
            opt.zero_grad()
            loss = loss_of(model, t)
            loss.backward(create_graph=graph)
            return loss

        if form == "closure":
            opt.step(closure)
            continue
        closure()
        with opt.ascent():
            loss_of(model, t).backward(create_graph=graph)


def apart(a: nn.Module, b: nn.Module) -> float:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return max(float((x.double() - y.double()).abs().max()) for x, y in pairs)


def attempt(kind: Any, graph: bool) -> Callable[[], str | None]:
    """Run the comparison for one base; returns what is wrong, or None."""

    def run() -> str | None:
        for rho in (0.0, 0.05):
            want = net(kind)
            bare(made(kind, want), want, rho, graph)
            for form in ("closure", "block"):
                model = net(kind)
                opt = fenland.SAM(made(kind, model), rho=rho, model=model)
                wrapped(opt, model, form, graph)
                off = apart(model, want)
                if not off <= (0.0 if rho == 0.0 else 1e-5):
                    return f"rho = {rho}, {form}: weights differ by {off:.2g}"
                if rho == 0.0:
                    opt.load_state_dict(copy.deepcopy(opt.state_dict()))
        return None

    return run


def judge(name: str, kind: Any) -> Outcome:
    """One base: does it run alone, is it refused by name, is it equal?"""
    refused = _refusal(kind)
    if refused is not None:
        return Outcome(name, "refused", refused)
    graph, step = False, inspect.signature(kind.step).parameters
    needs_closure = "closure" in step and step["closure"].default is inspect.Parameter.empty
    try:
        if not needs_closure:
            bare(made(kind, model := net(kind)), model, 0.0, graph)
    except Exception:
        graph = True  # second-order optimizers want backward(create_graph=True)
        try:
            bare(made(kind, model := net(kind)), model, 0.0, graph)
        except Exception as error:
            return Outcome(name, "alone", f"does not run by itself here: {_line(error)}")
    if needs_closure:
        return Outcome(name, "WRONG", "step(closure) is required, and the base is not refused")
    try:
        wrong = attempt(kind, graph)()
    except Exception as error:
        return Outcome(name, "WRONG", _line(error))
    return Outcome(name, "equal") if wrong is None else Outcome(name, "WRONG", wrong)


def _refusal(kind: Any) -> str | None:
    """What is said at construction where the base is refused by its name."""
    try:
        base = made(kind, model := net(kind))
    except Exception:
        return None  # it does not even stand by itself
    try:
        fenland.SAM(base, rho=0.05, model=model)
    except (TypeError, ValueError) as error:
        return _line(error) if kind.__name__ in str(error) else None
    return None


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]


def kinds() -> dict[str, Any]:
    """pytorch_optimizer's classes by name."""
    import pytorch_optimizer

    return {
        name: kind
        for name, kind in sorted(vars(pytorch_optimizer).items())
        if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and not inspect.isabstract(kind)
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only these optimizers")
    names = set(parser.parse_args(argv).names)
    torch.set_num_threads(1)
    outcomes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {name: kind for name, kind in kinds().items() if not names or name in names}
        for i, (name, kind) in enumerate(found.items(), 1):
            outcomes.append(judge(name, kind))
            if outcomes[-1].verdict != "equal":
                print(f"[{i}/{len(found)}] {name}: {outcomes[-1].verdict} ({outcomes[-1].why})", flush=True)
    tally = Counter(o.verdict for o in outcomes)
    print(", ".join(f"{n} {verdict}" for verdict, n in sorted(tally.items())))
    return 1 if tally["WRONG"] or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
