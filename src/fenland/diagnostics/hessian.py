"""Products of the Hessian with vectors, over any number of batches in the memory of one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fenland.arguments import check_among, check_positive
from fenland.diagnostics import differences, graph
from fenland.diagnostics.flat import Flat
from fenland.diagnostics.objective import Objective

Hvp = Literal["autograd", "difference"]
HVPS = ("autograd", "difference")
NOT_TWICE = ("is not implemented", "once_differentiable", "double backward", "trying to differentiate")


class Hessian:
    """H = d^2 L / dw^2 of an objective, as an operator on flat vectors (unit: loss / w^2).

    It has what `hessian_eigenthings` asks of an operator: `size`, `dtype`, `device`, `matvec`. Parameters that the loss
    does not use have zero rows.

    - "autograd" differentiates the gradient: exact up to rounding. With a single batch the gradient's graph is made
      once and kept; with more it is made anew for each batch, so memory does not grow with their number. Before the
      first product, four gradients and two products on the first batch look whether the model cuts second derivatives.
    - "difference" is (g(w + s*v) - g(w - s*v)) / (2*s) with |v| = 1: two gradients a product, no second derivative
      needed. Its error falls with s^2 and rises with rounding / s; `difference_error` measures it.

    Args:
        objective: entered as a context by the caller.
        hvp: "autograd" or "difference".
        step: s of "difference" (unit of w); None finds the one at which products change least, from 1/16 to 64 times
            the cube root of the parameters' rounding error (5e-3 in float32, 6e-6 in float64).
        checked: whether "autograd" has been checked already.
    """

    def __init__(
        self, objective: Objective, hvp: Hvp = "autograd", step: float | None = None, checked: bool = False
    ) -> None:
        check_among("hvp", hvp, HVPS)
        check_positive("step", step, "the cube root of the rounding error")
        self.objective = objective
        self.hvp = hvp
        self.flat = Flat(objective)
        self.size, self.dtype, self.device = self.flat.size, self.flat.dtype, self.flat.device
        self.step = step
        self._checked = checked or hvp == "difference"
        self.products = 0
        #: Whether the check has found that the model cuts second derivatives.
        self.cut = False
        self.loss: float | None = None
        self._kept: tuple[list[Tensor | None], float] | None = None

    def matvec(self, v: Tensor) -> Tensor:
        """H v for v of shape (size,)."""
        return self.matvecs([v])[0]

    def matvecs(self, vs: list[Tensor]) -> list[Tensor]:
        """H v for several v in one pass over the data.

        Raises:
            RuntimeError: the model cannot be differentiated twice; the message names the cure.
            ValueError: a product is not finite.
        """
        self.products += len(vs)
        found = self._exact(vs) if self.hvp == "autograd" else [self._difference(v) for v in vs]
        if not all(bool(torch.isfinite(x).all()) for x in found):
            raise ValueError("a product with the Hessian is not finite; the curvature of this model has no value here")
        return found

    def difference_error(self, v: Tensor, product: Tensor) -> float | None:
        """||H_s v - H_2s v|| / ||v||, truncation and rounding of "difference" together; None for "autograd"."""
        if self.hvp == "autograd":
            return None
        self.products += 1
        return float((self._difference(v, 2.0) - product).norm() / v.norm())

    def _exact(self, vs: list[Tensor]) -> list[Tensor]:
        if not self._checked:
            self._checked = True
            self.cut = differences.say_where_cut(self.objective, lambda alone: Hessian(alone, checked=True).matvecs)
        directions = [self.flat.split(v) for v in vs]
        if self._kept is not None:
            grads, _ = self._kept
            return [self.flat.join(self._second(grads, d, keep=True)) for d in directions]
        sums = [torch.zeros(self.size, dtype=self.dtype, device=self.device) for _ in vs]
        total, value, batches = 0.0, 0.0, 0
        last: list[Tensor | None] = []
        for batch, weight in self.objective.passes():
            last = []  # let the graph before go
            loss = self.objective.loss_of(batch)
            last = self._gradient(loss)
            batches, total, value = batches + 1, total + weight, value + weight * loss.item()
            # The first batch's graph must outlive its products: it may turn out to be the only one.
            for j, d in enumerate(directions):
                product = self._second(last, d, keep=batches == 1 or j + 1 < len(directions))
                sums[j].add_(self.flat.join(product), alpha=weight)
        self.loss = self.objective.note(value / total)
        if batches == 1:
            self._kept = (last, total)
        return [x.div_(total) for x in sums]

    def _gradient(self, loss: Tensor) -> list[Tensor | None]:
        try:
            found = self.objective.gradients_of(loss, create_graph=True)
            if self.loss is None and graph.once_differentiable(found):
                raise RuntimeError("a function in it is marked once_differentiable")
            return found
        except RuntimeError as error:
            raise _explained(error) from error

    def _second(self, grads: list[Tensor | None], direction: list[Tensor], keep: bool) -> list[Tensor | None]:
        live = [(g, d) for g, d in zip(grads, direction, strict=True) if g is not None and g.requires_grad]
        if not live:
            return [None] * len(direction)
        try:
            found = torch.autograd.grad(
                [g for g, _ in live],
                self.objective.params,
                [d.to(g.dtype) for g, d in live],
                retain_graph=keep,
                allow_unused=True,
            )
        except RuntimeError as error:
            raise _explained(error) from error
        return list(found)

    def _difference(self, v: Tensor, factor: float = 1.0) -> Tensor:
        if self.step is None:
            self.step, taken = differences.choose_step(self.objective, self.flat)
            self.products += taken
        return differences.product(self.objective, self.flat, v, factor * self.step)


def _explained(error: RuntimeError) -> RuntimeError:
    """An error of the second derivative with its cause and cure; any other error as it is."""
    text = str(error)
    if not any(sign in text for sign in NOT_TWICE):
        return error
    cause = text.strip().splitlines()[0]
    cure = 'Pass hvp="difference", which needs gradients only and states its error'
    if "attention" in cause:
        cure += (
            "; for fused attention, running loss_fn under "
            "torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH) keeps the exact one"
        )
    return RuntimeError(f"the model cannot be differentiated twice ({cause}). {cure}")
