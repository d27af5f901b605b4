"""What people use instead: the textbook two-step SAM as it is copied around, and pip's pytorch-optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Give = Callable[[], Any]  # puts fresh gradients into every p.grad


class TextbookSAM:
    """The two-step SAM of countless repositories, written anew: a Python loop, clone, add, restore by copy.

    Source of the rule: Foret et al. 2021, arXiv 2010.01412. No guard of any kind: it stands for copy-pasted code.
    """

    def __init__(self, base: torch.optim.Optimizer, rho: float = 0.05) -> None:
        self.base, self.rho = base, rho
        self.params: list[Tensor] = [p for group in base.param_groups for p in group["params"]]
        self.saved: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def step(self, closure: Give) -> None:
        """Gradients, to w + rho g / ||g||, gradients, back to w, a step of the base with h."""
        closure()
        grads = [p.grad for p in self.params if p.grad is not None]
        norm = torch.stack([g.norm() for g in grads]).norm()
        for p in self.params:
            if p.grad is not None:
                self.saved[p] = p.detach().clone()
                p.add_(p.grad * (self.rho / (norm + 1e-12)))
                p.grad = None
        del grads
        closure()
        for p, w in self.saved.items():
            p.copy_(w)
        self.base.step()


class BareMove:
    """The fewest calls that this package's way of stepping can be made of: no check, no guard, no record.

    What is between it and SAM is the price of safety. Many small tensors are measured joined, w + e is formed in the
    gradients' buffers, the parameters point at them and back.
    """

    def __init__(self, base: torch.optim.Optimizer, rho: float = 0.05) -> None:
        self.base, self.rho = base, rho
        self.params: list[Tensor] = [p for group in base.param_groups for p in group["params"]]
        limit = 1 << 12
        self.small = [i for i, p in enumerate(self.params) if p.numel() <= limit]
        self.large = [i for i, p in enumerate(self.params) if p.numel() > limit]

    def _norm(self, gs: list[Any]) -> Tensor:
        joined = torch._C._nn.flatten_dense_tensors([gs[i] for i in self.small])
        large = torch._foreach_norm([gs[i] for i in self.large]) if self.large else ()
        whole: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(joined), *large]))
        return whole

    @torch.no_grad()
    def step(self, closure: Give) -> None:
        """One step."""
        closure()
        gs: list[Any] = [p.grad for p in self.params]
        step = self.rho / self._norm(gs)
        if max(p.numel() for p in self.params) <= 1 << 18:
            torch._foreach_mul_(gs, step)
            torch._foreach_add_(gs, self.params)
        else:
            for p, g in zip(self.params, gs, strict=True):
                torch.addcmul(p, g, step, out=g)
        ws = [p.data for p in self.params]
        for p, x in zip(self.params, gs, strict=True):
            p.data = x
            p.grad = None
        del gs, x
        closure()
        for p, w in zip(self.params, ws, strict=True):
            p.data = w
        if bool(torch.isfinite(self._norm([p.grad for p in self.params]))):
            self.base.step()


class FromPip:
    """An optimizer of pytorch-optimizer with `first_step` and `second_step`."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def step(self, closure: Give) -> None:
        """Gradients, its first step, gradients, its second step."""
        closure()
        self.optimizer.first_step(zero_grad=True)
        closure()
        self.optimizer.second_step(zero_grad=False)


PIP = ("SAM", "WSAM", "LookSAM")


def from_pip(name: str, params: list[Tensor], base: type, options: dict[str, Any]) -> FromPip | None:
    """pytorch-optimizer's optimizer of that name over a base of that class; None where it is not installed."""
    try:
        import pytorch_optimizer
    except ImportError:
        return None
    kind = getattr(pytorch_optimizer, name)
    if name == "WSAM":
        return FromPip(kind(nn.Module(), params, base, rho=0.05, **options))
    return FromPip(kind(params, base, rho=0.05, **options))
