"""The rules on thousands of replicas are the optimizer's; kept state survives torch's distributed checkpoint calls."""

import numpy as np
import pytest
import torch
from test_contract import ROWS, make
from torch import nn

import fenland
from fenland.lab.replicas import Problem, rule
from fenland.lab.replicas.step import Given, Program
from harness import assert_same

R, STEPS = 5, 7
RULES = {
    "SAM": {},
    "SSAM": {"method": fenland.Renormalize()},
    "capped": {"method": fenland.Renormalize(cap=0.9)},
    "metric": {"method": fenland.Renormalize(gamma_norm="metric"), "ball": fenland.Adaptive()},
    "ASAM": {"ball": fenland.Adaptive()},
    "Lp": {"ball": fenland.Lp(4.0)},
    "LE": {"ball": fenland.LossBudget(0.1)},
    "GSAM": {"combine": fenland.SurrogateGap()},
    "stable GSAM": {"method": fenland.Renormalize(fenland.Ascend(combine=fenland.SurrogateGap()))},
    "GNP": {"combine": fenland.Penalty()},
    "GNP code": {"combine": fenland.Penalty(unit_gradient=True)},
    "XSAM": {"combine": fenland.Spherical()},
    "control": {"combine": fenland.Control()},
    "VaSSO": {"source": fenland.ExponentialAverage()},
    "Friendly": {"source": fenland.Friendly()},
    "lagged": {"source": fenland.Previous()},
    "spectral": {"ball": fenland.Spectral()},
    "sparse": {"ball": fenland.Sparse()},
    "split": {"method": fenland.InnerSteps(3)},
    "project": {"method": fenland.InnerSteps(3, "project", 0.7)},
    "full": {"method": fenland.InnerSteps(2, "full", combine=fenland.SurrogateGap())},
    "stable inner": {"method": fenland.Renormalize(fenland.InnerSteps(2, combine=fenland.Penalty()))},
    "LookSAM": {"method": fenland.Reuse(), "when": fenland.EveryK(3)},
    "stable LookSAM": {"method": fenland.Renormalize(fenland.Reuse()), "when": fenland.EveryK(3)},
    "WSAM": {"method": fenland.WeightedDecoupled(0.8)},
    "MSAM": {"method": fenland.BaseMomentum()},
    "stable friend": {"method": fenland.Renormalize(fenland.Ascend(fenland.Friendly(), fenland.Weighted(0.7)))},
}
LR, RHO, MOMENTUM = 0.1, 0.3, 0.6


class Field(Problem):
    """A gradient field of its own for each replica; no function has it."""

    shapes = ((2, 3), (4,))

    def __init__(self, matrix):
        self.matrix = matrix

    def value(self, w):
        raise NotImplementedError

    def gradient(self, w):
        return _grad(self.matrix, w)


def _fields():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.standard_normal((R, 10, 10))), torch.from_numpy(rng.standard_normal((R, 10)))


def _grad(matrix, w):
    """A gradient field without structure, on one replica or on all."""
    flat = torch.cat([x.flatten(-k) if k else x for x, k in zip(w, (2, 0), strict=True)], -1)
    g = torch.einsum("...ij,...j->...i", matrix, flat) / 3 + torch.sin(flat)
    return [g[..., :6].reshape(*g.shape[:-1], 2, 3), g[..., 6:].clone()]


@pytest.mark.parametrize("name", RULES)
def test_stacked_replicas_follow_the_optimizer(name):
    matrix, start = _fields()
    w = [start[:, :6].reshape(R, 2, 3).clone(), start[:, 6:].clone()]
    singles = []
    for r in range(R):
        params = [nn.Parameter(x[r].clone()) for x in w]
        base = torch.optim.SGD(params, lr=LR, momentum=MOMENTUM)
        singles.append((params, fenland.SharpnessAware(base, RHO, **RULES[name])))
    program = Program(Field(matrix), rule(singles[0][1]), momentum=True, radius=RHO)
    each = lambda x: torch.full((R,), x, dtype=torch.float64)  # noqa: E731
    given, state = Given(each(RHO), each(LR), each(MOMENTUM), each(0.0)), program.start(w)
    for t in range(STEPS):
        state = program.step(state, given, [], t, torch.tensor(float(t + 1)))
        for r, (params, opt) in enumerate(singles):

            def closure(params=params, r=r):
                for p, x in zip(params, _grad(matrix[r], [p.detach() for p in params]), strict=True):
                    p.grad = x
                return torch.zeros(())

            opt.step(closure)
            for x, p in zip(state["w"], params, strict=True):
                torch.testing.assert_close(x[r], p.detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("row", [r for r in ROWS if r.kept or r.name == "AESAM"], ids=lambda r: r.name)
def test_kept_state_survives_torch_s_distributed_checkpoint(row):
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    whole, half = make(row, "mlp", "adamw").run(6), make(row, "mlp", "adamw").run(3)
    saved = get_optimizer_state_dict(half.problem.model, half.opt)
    fresh = make(row, "mlp", "adamw")
    fresh.problem.model.load_state_dict(half.problem.model.state_dict())
    set_optimizer_state_dict(fresh.problem.model, fresh.opt, saved)
    assert_same(fresh.run(3, start=3).weights, whole.weights)
