"""A rule over many replicas at once against the optimizer's own steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fenland.testing.trial import Case, DoesNotApply, near

COUNT, STEPS, LR, MOMENTUM, SHAPES = 3, 5, 0.1, 0.6, ((2, 3), (4,))
SIZE = 10


def replicas(case: Case) -> None:
    """Stacked replicas step as the optimizer does: sums over tensors go through `a.V`."""
    from fenland.lab.replicas import Problem, grid, rule, run

    torch.manual_seed(0)
    matrix, bias = torch.randn(SIZE, SIZE, dtype=torch.float64) / 3, torch.randn(SIZE, dtype=torch.float64)

    class Field(Problem):
        """A gradient field without symmetry; no function has it."""

        shapes = SHAPES

        def value(self, w: list[Tensor]) -> Tensor:
            raise NotImplementedError

        def gradient(self, w: list[Tensor]) -> list[Tensor]:
            flat = torch.cat([x.flatten(1) for x in w], 1)
            g = flat @ matrix.T + torch.sin(flat) + bias
            return [g[:, :6].reshape(-1, 2, 3), g[:, 6:].clone()]

    problem = Field()
    start = problem.pack(torch.randn(COUNT, SIZE))
    options = {**case.options, "rho": case.rho}
    singles: list[tuple[list[nn.Parameter], Any]] = []
    for r in range(COUNT):
        params = [nn.Parameter(x[r].clone()) for x in start]
        try:
            singles.append((params, case.build(torch.optim.SGD(params, lr=LR, momentum=MOMENTUM), **options)))
            stacked = rule(singles[-1][1])
        except ValueError as error:
            raise DoesNotApply(str(error)) from None
    found = run(problem, stacked, grid(start, rho=case.rho, lr=LR, momentum=MOMENTUM), STEPS, engine="plain").w
    for r, (params, opt) in enumerate(singles):

        def closure(params: list[nn.Parameter] = params) -> Tensor:
            for p, g in zip(params, problem.gradient([p.detach()[None] for p in params]), strict=True):
                p.grad = g[0]
            return torch.zeros(())

        for _ in range(STEPS):
            opt.step(closure)
        near([x[r] for x in found], [p.detach() for p in params], 1e-9, 1e-11, f"weights of replica {r}")
