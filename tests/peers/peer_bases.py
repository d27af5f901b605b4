"""Base optimizers that keep state, groups or gradients in a way of their own.

Where a package is in `constraints.txt` or in torch, the real class is used. The others are stand-ins of the same
structure, written here: `ScheduleFree` (facebookresearch/schedule_free), `Lookahead` (as in torch-optimizer),
`Chained` (the Muon + AdamW classes of speed-run repositories), `DPOptimizer` (Opacus), `CurvatureFromGraph`
(AdaHessian, Sophia-H), `Quantised` (torchao, bitsandbytes: state in a tensor subclass).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer


class ScheduleFree(Optimizer):
    """Weights are y while training and x for evaluation; z is state; `step` wants train mode."""

    def __init__(self, params: Any, lr: float = 0.1, beta: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "k": 0, "train_mode": False})

    @torch.no_grad()
    def eval(self) -> None:
        self._to(False, lambda beta: 1 - 1 / beta)

    @torch.no_grad()
    def train(self) -> None:
        self._to(True, lambda beta: 1 - beta)

    def _to(self, mode: bool, weight: Callable[[float], float]) -> None:
        for group in self.param_groups:
            if group["train_mode"] == mode:
                continue
            for p in group["params"]:
                if "z" in self.state[p]:
                    p.lerp_(self.state[p]["z"], weight(group["beta"]))
            group["train_mode"] = mode

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        if not self.param_groups[0]["train_mode"]:
            raise Exception("Optimizer was not in train mode when step is called.")  # as the original does
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            k, lr, beta = group["k"], group["lr"], group["beta"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                z = self.state[p].setdefault("z", p.detach().clone())
                p.lerp_(z, 1 / (k + 1)).add_(p.grad, alpha=lr * (beta * (1 - 1 / (k + 1)) - 1))
                z.sub_(p.grad, alpha=lr)
            group["k"] = k + 1
        return loss


class Lookahead(Optimizer):
    """Wraps another optimizer, without `Optimizer.__init__`; its own state stands beside the inner one's."""

    def __init__(self, optimizer: Optimizer, k: int = 2, alpha: float = 0.5) -> None:
        self.optimizer, self.k, self.alpha = optimizer, k, alpha
        self.param_groups = optimizer.param_groups
        self.state: Any = defaultdict(dict)
        for group in self.param_groups:
            group["counter"] = 0

    def step(self, closure: Any = None) -> Any:
        loss = self.optimizer.step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"] if group["counter"] == 0 else ():
                    slow = self.state[p].setdefault("slow", p.detach().clone())
                    slow.lerp_(p, self.alpha)
                    p.copy_(slow)
                group["counter"] = (group["counter"] + 1) % self.k
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        fast = self.optimizer.state_dict()
        slow = {k: dict(self.state[p]) for k, p in enumerate(p for g in self.param_groups for p in g["params"])}
        return {"fast_state": fast["state"], "slow_state": slow, "param_groups": fast["param_groups"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict({"state": state["fast_state"], "param_groups": state["param_groups"]})
        self.param_groups = self.optimizer.param_groups
        for k, p in enumerate(p for g in self.param_groups for p in g["params"]):
            self.state[p] = {name: x.clone() for name, x in state["slow_state"][k].items()}

    def add_param_group(self, group: dict[str, Any]) -> None:
        self.optimizer.add_param_group({**group, "counter": 0})


class Chained(Optimizer):
    """Two optimizers behind one `step`, each with its groups: matrices and the rest."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        params = list(params)
        self.parts = [
            SGD([p for p in params if p.ndim > 1], lr=lr, momentum=0.9),
            AdamW([p for p in params if p.ndim <= 1], lr=lr / 10),
        ]
        self.defaults: dict[str, Any] = {}

    @property
    def param_groups(self) -> Any:
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> Any:
        return {p: x for part in self.parts for p, x in part.state.items()}

    def step(self, closure: Any = None) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> Any:
        return {"optimizers": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: Any) -> None:
        for part, saved in zip(self.parts, state["optimizers"], strict=True):
            part.load_state_dict(saved)


class DPOptimizer(Optimizer):
    """Steps with per-sample gradients (`p.grad_sample`), clipped and summed: `p.grad` on entry is not read."""

    def __init__(
        self, optimizer: Optimizer, noise_multiplier: float, max_grad_norm: float, expected_batch_size: int
    ) -> None:
        self.original_optimizer = optimizer
        self.noise_multiplier, self.max_grad_norm = noise_multiplier, max_grad_norm
        self.expected_batch_size = expected_batch_size
        for p in self.params:
            p.summed_grad = None

    @property
    def params(self) -> list[Tensor]:
        return [p for g in self.original_optimizer.param_groups for p in g["params"] if p.requires_grad]

    @property
    def grad_samples(self) -> list[Tensor]:
        return [p.grad_sample for p in self.params]

    param_groups = property(lambda self: self.original_optimizer.param_groups)
    state = property(lambda self: self.original_optimizer.state)
    defaults = property(lambda self: self.original_optimizer.defaults)

    def step(self, closure: Any = None) -> Any:
        for p in self.params:
            p.grad = p.grad_sample.sum(0) / self.expected_batch_size
        return self.original_optimizer.step()

    def state_dict(self) -> Any:
        return self.original_optimizer.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.original_optimizer.load_state_dict(state)


class CurvatureFromGraph(Optimizer):
    """Estimates the Hessian's diagonal by differentiating `p.grad`: backward must have kept the graph."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        params = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        g = torch.Generator().manual_seed(0)
        zs = [torch.randint(0, 2, p.shape, generator=g).to(p.dtype) * 2 - 1 for p in params]
        products = torch.autograd.grad([p.grad for p in params], params, grad_outputs=zs)
        with torch.no_grad():
            for p, z, product in zip(params, zs, products, strict=True):
                p.sub_(p.grad / (1 + (z * product).abs()), alpha=self.param_groups[0]["lr"])


class Halves(Tensor):
    """A tensor subclass that keeps 16 bits and shows float64, as quantised states do."""

    @staticmethod
    def __new__(cls, value: Tensor) -> Halves:
        return torch.Tensor._make_wrapper_subclass(cls, value.shape, dtype=torch.float64)

    def __init__(self, value: Tensor) -> None:
        self.kept = value.to(torch.bfloat16)

    def __repr__(self) -> str:
        return f"Halves({tuple(self.shape)})"

    def wide(self) -> Tensor:
        return self.kept.double()

    def __tensor_flatten__(self) -> Any:
        return ["kept"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.clone.default, torch.ops.aten.detach.default, torch.ops.aten._to_copy.default):
            return cls(args[0].kept.clone())
        wide = [a.wide() if isinstance(a, Halves) else a for a in args]
        return func(*wide, **(kwargs or {}))


class Quantised(Optimizer):
    """Momentum in a tensor subclass."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                before = self.state[p].get("momentum")
                now = p.grad if before is None else before.wide() * 0.9 + p.grad
                self.state[p]["momentum"] = Halves(now)
                p.sub_(now, alpha=group["lr"])


class NoClosure(SGD):
    """`step()` takes nothing, as in several wrappers."""

    def step(self) -> None:  # type: ignore[override]
        super().step()


class Averager:
    """What PostLocalSGDOptimizer wants, without a process group."""

    step = 0

    def average_parameters(self, params: Any) -> None:
        self.step += 1


def post_local_sgd(params: Any) -> Optimizer:
    from torch.distributed.optim import PostLocalSGDOptimizer

    return PostLocalSGDOptimizer(optim=SGD(params, lr=0.1, momentum=0.9), averager=Averager())


def adafactor(params: Any) -> Optimizer:
    from transformers import Adafactor

    return Adafactor(params, lr=None, scale_parameter=True, relative_step=True, warmup_init=True)


def from_pytorch_optimizer(name: str, **options: Any) -> Callable[[Any], Optimizer]:
    def make(params: Any) -> Optimizer:
        import pytorch_optimizer

        return getattr(pytorch_optimizer, name)(params, **options)

    return make


def lookahead_of_pytorch_optimizer(params: Any) -> Optimizer:
    import pytorch_optimizer

    return pytorch_optimizer.Lookahead(SGD(params, lr=0.1, momentum=0.9), k=2)


def schedule_free_wrapper(params: Any) -> Optimizer:
    import pytorch_optimizer

    return pytorch_optimizer.ScheduleFreeWrapper(SGD(params, lr=0.1))


def in_train_mode(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def made(params: Any) -> Any:
        opt = make(params)
        opt.train()
        return opt

    return made


BASES: dict[str, tuple[str | None, Callable[[Any], Optimizer]]] = {
    # name: the package that it needs, and how it is made
    "ScheduleFree": (None, in_train_mode(ScheduleFree)),
    "Lookahead": (None, lambda p: Lookahead(SGD(p, lr=0.1, momentum=0.9))),
    "Chained": (None, Chained),
    "Quantised": (None, Quantised),
    "NoClosure": (None, lambda p: NoClosure(p, lr=0.1, momentum=0.9)),
    "PostLocalSGDOptimizer": (None, post_local_sgd),
    "Adafactor": ("transformers", adafactor),
    "pytorch_optimizer ScheduleFreeSGD": (
        "pytorch_optimizer",
        in_train_mode(from_pytorch_optimizer("ScheduleFreeSGD", lr=0.1)),
    ),
    "pytorch_optimizer ScheduleFreeAdamW": (
        "pytorch_optimizer",
        in_train_mode(from_pytorch_optimizer("ScheduleFreeAdamW", lr=0.01)),
    ),
    "pytorch_optimizer ScheduleFreeWrapper": ("pytorch_optimizer", in_train_mode(schedule_free_wrapper)),
    "pytorch_optimizer Lookahead": ("pytorch_optimizer", lookahead_of_pytorch_optimizer),
}


class Small(nn.Module):
    """No buffers and no dropout: only the optimizers differ."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def small(dtype: torch.dtype = torch.float64) -> Small:
    torch.manual_seed(3)
    return Small().to(dtype)
