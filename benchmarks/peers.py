"""What people use instead: the textbook two-step SAM as it is copied around, and pip's pytorch-optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class TextbookSAM:
    """The two-step SAM of countless repositories, written anew: a Python loop, clone, add, restore by copy.

    Source of the rule: Foret et al. 2021, arXiv 2010.01412. No guard of any kind: it stands for copy-pasted code.
    """

    def __init__(self, base: torch.optim.Optimizer, rho: float = 0.05) -> None:
        self.base, self.rho = base, rho
        self.params = [p for group in base.param_groups for p in group["params"]]
        self.saved: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def ascend(self) -> None:
        """To w + rho g / ||g||."""
        norm = torch.stack([p.grad.norm() for p in self.params if p.grad is not None]).norm()
        for p in self.params:
            if p.grad is not None:
                self.saved[p] = p.detach().clone()
                p.add_(p.grad * (self.rho / (norm + 1e-12)))
                p.grad = None

    @torch.no_grad()
    def descend(self) -> None:
        """Back to w, and a step of the base with h."""
        for p, w in self.saved.items():
            p.copy_(w)
        self.base.step()


class FromPip:
    """An optimizer of pytorch-optimizer with `first_step` and `second_step`."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def ascend(self) -> None:
        """Its first step."""
        self.optimizer.first_step(zero_grad=True)

    def descend(self) -> None:
        """Its second step."""
        self.optimizer.second_step(zero_grad=False)


def from_pip(params: list[Tensor], base: Callable[..., Any], **options: Any) -> FromPip | None:
    """pytorch-optimizer's SAM over the same base; None where it is not installed."""
    try:
        from pytorch_optimizer import SAM
    except ImportError:
        return None
    return FromPip(SAM(params, base, rho=0.05, **options))
