"""Stable SAM: any method's update, brought back to the length of the clean gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from fenland.algebra import ratio
from fenland.arguments import check_among, check_instance, check_positive
from fenland.rules.context import Context
from fenland.rules.methods.ascend import Ascend
from fenland.rules.methods.base import Method
from fenland.rules.parameters import ParameterNames
from fenland.rules.requests import Grad, Program, Update


@dataclass(frozen=True)
class Renormalize(Method):
    r"""d = gamma * d', gamma = ||g|| / ||d'||: the update d' of any method with a gradient g at w, made as long as g.

    With SAM it is Stable SAM. ||d|| = ||g|| exactly (gamma = 1 where d' = 0). Norms are plain L2 over all parameters,
    g's before any filter or mask.
    Source: Tan, Zhang, Liu, Wang, Hao, JMLR 2025, arXiv 2401.07250; composition with relatives is ours.

    Attributes:
        method: what is renormalised.
        cap: upper bound on gamma (no unit); the authors' code carries min(1, gamma) as a comment. None: no bound.
        gamma_norm: "l2", or "metric" for the authors' code on adaptive balls: the ball's dual norms, of g at w and of h
            at w + e, e.g. || |w| g || / || |w + e| h || for ASAM's. Then ||d|| is not ||g||. Only for d' = h.
    """

    method: Method = Ascend()  # noqa: RUF009 - rules are frozen
    cap: float | None = None
    gamma_norm: Literal["l2", "metric"] = "l2"

    def __post_init__(self) -> None:
        check_instance("method", self.method, Method, "fenland.Ascend()")
        check_among("gamma_norm", self.gamma_norm, ("l2", "metric"))
        if self.gamma_norm == "metric" and self.method.reads_norms:
            raise ValueError(f'gamma_norm = "metric": only for a method with d = h, not {self.method}; use "l2"')
        if isinstance(self.method, Renormalize):
            raise ValueError("Renormalize(Renormalize(...)): renormalising twice changes nothing; drop one")
        if self.method.corrects:
            raise ValueError(
                f"Renormalize({self.method}): it corrects w after the base's step, where d has been used already; "
                "renormalise the coupled form instead"
            )
        if not self.method.clean_gradient:
            raise ValueError(
                f"Renormalize({self.method}): needs the gradient at w, which it never computes; "
                "use a method with a clean gradient"
            )
        check_positive("cap", self.cap, "no bound on gamma")

    def step(self, s: Context) -> Program:
        inner, metric = self.method.step(s), self.gamma_norm == "metric"
        request: Any = next(inner)
        g: Any = None
        answer: Any = None
        while not isinstance(request, Update):
            if isinstance(request, Grad):
                request = replace(request, final=False, dual=metric)
            answer = yield request
            g = answer if g is None else g
            request = inner.send(answer)
        if request.d is g:
            yield request
            return
        gamma = ratio(g.dual, answer.dual) if metric else ratio(g.norm, request.d.norm)
        yield Update(request.d * (gamma if self.cap is None else gamma.clamp_max(self.cap)))

    @property
    def reads_dual(self) -> bool:
        return self.gamma_norm == "metric"

    @property
    def evaluations(self) -> int:
        return self.method.evaluations

    @property
    def searches(self) -> bool:
        return self.method.searches

    @property
    def per_sample(self) -> bool:
        return self.method.per_sample

    @property
    def keeps(self) -> tuple[str, ...]:
        return self.method.keeps

    @property
    def numbers(self) -> dict[str, float]:
        return self.method.numbers

    def check(self, params: ParameterNames) -> None:
        self.method.check(params)
