"""Every variant without a trajectory of its authors' code against its NumPy twin: 12 steps, momentum, batches."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fenland
from twins import SGDTwin, norm
from twins_family import FAMILY, Batches, plus

STEPS, BATCH = 12, 8


class Head(nn.Linear):
    """A layer type of its own, to be chosen by type."""


def _full_norm(model, problem):
    x, y = torch.from_numpy(problem.x), torch.from_numpy(problem.y)

    def full_norm():
        grads = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
        return torch.cat([g.reshape(-1) for g in grads]).norm()

    return full_norm


# name, rho, options of the preset, options of the twin where they are called otherwise
ROWS = [
    ("ClippedUSAM", 0.3, {}, None),
    ("LpSAM", 0.3, {"p": 2.0}, {"p_": 2.0}),
    ("LpSAM", 0.3, {"p": 3.5}, {"p_": 3.5}),
    ("LpSAM", 0.3, {"p": 1.0}, {"p_": 1.0}),
    ("LpSAM", 0.01, {"p": math.inf}, {"p_": math.inf}),
    ("InfNormSAM", 0.02, {}, None),
    ("ASAM", 0.5, {}, None),
    ("ASAM", 0.5, {"granularity": "layer", "eta": 0.1}, None),
    ("ASAM", 0.5, {"include_bias": False}, None),
    ("FisherSAM", 0.3, {}, None),
    ("FisherSAM", 0.3, {"eta": 1e3}, None),
    ("SpectralSAM", 0.1, {}, None),
    ("DNSAM", 0.3, {"full_norm": _full_norm}, {}),
    ("LESAM", 0.3, {}, None),
    ("LESAM", 0.1, {"sigma": 0.02}, None),
    ("SAMON", 0.5, {"layers": (Head,)}, {}),
    ("SparseSAM", 0.3, {}, None),
    ("SparseSAM", 0.3, {"sparsity": 0.9}, None),
    ("ZSharp", 0.3, {}, None),
    ("ZSharp", 0.3, {"quantile": 0.5, "scope": "layer"}, None),
    ("GSAM", 0.3, {}, None),
    ("GSAM", 0.3, {"alpha": 0.4, "minimize_fp": False}, None),
    ("WSAM", 0.1, {}, None),
    ("WSAM", 0.1, {"gamma": 0.8, "decoupled": False}, None),
    ("GNP", 0.3, {}, None),
    ("GNP", 0.3, {"alpha": 0.3, "unit_gradient": True}, None),
    ("XSAM", 0.3, {}, None),
    ("XSAM", 0.3, {"alpha": 1.6}, None),
    ("LookSAM", 0.3, {}, None),
    ("LookSAM", 0.3, {"k": 3, "alpha": 0.4}, None),
    ("ControlSAM", 0.3, {}, None),
    ("ControlSAM", 0.3, {"direction": "h", "length": "g"}, None),
    ("RST", 0.3, {}, None),
    ("RST", 0.3, {"p": 0.3, "seed": 5}, {"probability": 0.3, "seed": 5}),
    ("AESAM", 0.3, {"total_steps": 10}, {"total": 10}),
    ("IntervalSAM", 0.5, {"k": 4}, None),
    ("WindowSAM", 0.3, {"start": 3, "stop": 9}, None),
    ("FriendlySAM", 0.3, {}, None),
    ("FriendlySAM", 0.3, {"sigma": 0.7, "decay": 0.6, "average": "new"}, None),
    ("VaSSO", 0.3, {}, None),
    ("VaSSO", 0.3, {"theta": 0.3}, None),
    ("MSAM", 0.3, {}, None),
    ("RandomSAM", 0.3, {}, None),
    ("RandomSAM", 0.3, {"seed": 3}, None),
    ("LaggedSAM", 0.3, {}, None),
    ("GCSAM", 0.3, {}, None),
    ("NStepSAM", 0.3, {}, None),
    ("NStepSAM", 0.3, {"n": 3, "convention": "full"}, None),
    ("NStepSAM", 0.3, {"n": 4, "convention": "project", "step": 0.6}, None),
    ("ESAM", 0.2, {}, None),
    ("KSAM", 0.2, {}, None),
    ("KSAM", 0.2, {"ascent": 0.25, "descent": 0.75}, None),
]


def _setting():
    rng = np.random.default_rng(3)
    problem = Batches(rng.standard_normal((24, 10)), rng.integers(0, 3, 24), BATCH)
    model = nn.Sequential(nn.Linear(10, 6), nn.Tanh(), Head(6, 3)).double()
    torch.manual_seed(4)
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    return problem, model


def _closure(problem, model, opt, per_sample):
    x, y = torch.from_numpy(problem.x), torch.from_numpy(problem.y)

    def closure():
        opt.zero_grad()
        rows = torch.from_numpy(problem.rows())
        losses = F.cross_entropy(model(x[rows]), y[rows], reduction="none")
        if per_sample:
            return losses
        losses.mean().backward()
        return losses.mean()

    return closure


def _close(got, want, step):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b, rtol=1e-9, atol=1e-11, err_msg=f"step {step}")


@pytest.mark.parametrize(
    ("name", "rho", "options", "twins"),
    ROWS,
    ids=[f"{n}{sorted(o) if o else ''}-{i}" for i, (n, _, o, _) in enumerate(ROWS)],
)
def test_the_variant_is_its_twin(name, rho, options, twins):
    problem, model = _setting()
    w = [p.detach().numpy().copy() for p in model.parameters()]
    made = {k: v(model, problem) if k == "full_norm" else v for k, v in options.items()}
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    opt = getattr(fenland, name)(base, rho=rho, model=model, **made)
    closure = _closure(problem, model, opt, fenland.PRESETS[name].per_sample)
    memory = {"sgd": SGDTwin(0.1, 0.9, 1e-2)}
    plain = [x.copy() for x in w]
    for t in range(STEPS):
        problem.t = t
        opt.step(closure)
        d = FAMILY[name](memory, problem, w, rho, t, **(options if twins is None else twins))
        w = memory["sgd"].step(w, d)
        if "after" in memory:
            w = plus(w, memory["after"], 0.1)
        _close(model.parameters(), w, t)
    assert norm(plus(w, plain, -1)) > 0.1  # it moved


def test_every_preset_has_a_twin_a_trajectory_or_a_test_of_its_own():
    elsewhere = {"SAM", "USAM", "SSAM", "SSAM-U"} | {"RiemannianSAM"}
    assert set(fenland.PRESETS) == elsewhere | set(FAMILY)
    assert {row[0] for row in ROWS} == set(FAMILY)


def test_aesam_s_twin_really_decides():
    problem, model = _setting()
    w, memory = [p.detach().numpy() for p in model.parameters()], {"sgd": SGDTwin(0.1, 0.9)}
    for t in range(STEPS):
        problem.t = t
        w = memory["sgd"].step(w, FAMILY["AESAM"](memory, problem, w, 0.3, t))
    assert 0 < sum(memory["ascents"]) < STEPS
