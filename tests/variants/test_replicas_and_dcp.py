"""The rules on thousands of replicas are the optimizer's; kept state survives torch's distributed checkpoint calls."""

import numpy as np
import pytest
import torch
from test_contract import ROWS, make
from torch import nn

import fenland
from fenland.algebra import Stacked
from fenland.rules import At, Gram
from harness import Recorder, assert_same

R, STEPS = 5, 4
RULES = {
    "SAM": {},
    "SSAM": {"combine": fenland.Renormalize()},
    "capped": {"combine": fenland.Renormalize(cap=0.9)},
    "ASAM": {"ball": fenland.Adaptive()},
    "Lp": {"ball": fenland.Lp(4.0)},
    "LE": {"ball": fenland.LossBudget(0.1)},
    "GSAM": {"combine": fenland.SurrogateGap()},
    "stable GSAM": {"combine": fenland.Renormalize(fenland.SurrogateGap())},
    "GNP": {"combine": fenland.Penalty()},
    "GNP code": {"combine": fenland.Penalty(unit_gradient=True)},
    "XSAM": {"combine": fenland.Spherical()},
    "control": {"combine": fenland.Control()},
    "VaSSO": {"source": fenland.ExponentialAverage()},
    "Friendly": {"source": fenland.Friendly()},
    "lagged": {"source": fenland.Previous()},
    "spectral": {"ball": fenland.Spectral()},
    "sparse": {"ball": fenland.Sparse()},
}
LR, RHO = 0.1, 0.3


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
        singles.append((params, fenland.SharpnessAware(Recorder(params, lr=LR), RHO, **RULES[name])))
    choices, V, state = singles[0][1].choices, Stacked(), None
    for t in range(STEPS):
        g = _grad(matrix, w)
        state = choices.source.start(g) if state is None else state
        where = At(V, t, RHO)
        best = choices.ball.steepest(choices.source.vector(g, state, where), w, where)
        h = _grad(matrix, V.add(w, V.scale(best.scale * RHO, best.direction)))
        alpha, beta = choices.combine.coefficients(Gram(V.norm(g), V.norm(h), V.dot(g, h)))
        w = V.sub(w, V.scale(LR, V.add(V.scale(alpha, g), V.scale(beta, h))))
        for r, (params, opt) in enumerate(singles):

            def closure(params=params, r=r):
                for p, x in zip(params, _grad(matrix[r], [p.detach() for p in params]), strict=True):
                    p.grad = x
                return torch.zeros(())

            opt.step(closure)
            for x, p in zip(w, params, strict=True):
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
