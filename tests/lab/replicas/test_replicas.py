"""Replicas against the real optimizer: every preset that can run agrees over 50 steps, the others are refused."""

import pytest
import torch

import fenland
from fenland.lab.replicas import (
    LinearAutoencoder,
    Quartic,
    grid,
    rule,
    run,
)
from fenland.presets import PRESETS

STEPS = 50
REFUSED = {
    "RiemannianSAM": "manifolds",
    "SAMON": "names or layers",
    "AESAM": "on the host",
    "ESAM": "samples",
    "KSAM": "samples",
}
RUNNING = [name for name in PRESETS if name not in REFUSED]
# What a preset needs beside its defaults to do anything here, or to run at all.
OPTIONS = {"LpSAM": {"p": 4.0}, "NStepSAM": {"n": 3}, "WSAM": {"gamma": 0.6}, "ZSharp": {"quantile": 0.3}}
VARIANTS = [
    ("SSAM", {"cap": 0.9}),
    ("SSAM", {"ball": fenland.Adaptive(), "gamma_norm": "metric"}),
    ("GSAM", {"minimize_fp": False}),
    ("WSAM", {"decoupled": False, "gamma": 0.6}),
    ("GNP", {"unit_gradient": True}),
    ("FriendlySAM", {"average": "new", "sigma": 0.7}),
    ("NStepSAM", {"n": 2, "convention": "project"}),
    ("NStepSAM", {"n": 2, "convention": "full"}),
    ("ASAM", {"granularity": "layer"}),
    ("LpSAM", {"p": float("inf")}),
    ("LpSAM", {"p": 1.0}),
    ("ControlSAM", {"direction": "h", "length": "g"}),
    ("ZSharp", {"quantile": 0.5, "scope": "layer"}),
]
# Learning rates with which 50 steps stay short of a minimum: at SAM's cycle around one, rounding grows step by step.
PROBLEMS = {
    "quartic": (Quartic(), 0.05, 0.02),
    "quartic tensor": (Quartic(split=False), 0.05, 0.02),
    "autoencoder": (LinearAutoencoder(3, "half"), 0.05, 0.02),
}


def points(problem, count, scale=0.7):
    draws = torch.Generator().manual_seed(7)
    return scale * torch.randn(count, problem.size, generator=draws, dtype=torch.float64)


def torch_run(name, options, problem, start, rho, lr, momentum, steps):
    """The real optimizer on one start; autograd instead of the problem's own gradient."""
    params = [torch.nn.Parameter(x.clone()) for x in start]
    base = torch.optim.SGD(params, lr=lr, momentum=momentum)

    def value():
        return problem.value([p[None] for p in params])[0]

    if "full_norm" in PRESETS[name].needs:
        options = {
            **options,
            "full_norm": lambda: sum(g.square().sum() for g in torch.autograd.grad(value(), params)).sqrt(),
        }
    opt = PRESETS[name].build(base, rho=rho, replay_rng=False, **options)

    def closure():
        opt.zero_grad()
        with torch.enable_grad():
            loss = value()
            loss.backward()
        return loss

    for _ in range(steps):
        opt.step(closure)
    return [p.detach() for p in params]


def compare(name, options, problem, rho, lr, momenta=(0.0, 0.8), count=2, steps=STEPS):
    momenta = [0.8] if name == "MSAM" else momenta
    count = 1 if name == "RandomSAM" else count  # each replica draws its own numbers, the first of which are torch's
    starts = problem.pack(points(problem, count))
    radii = [rho] if name in ("LESAM", "RandomSAM") else [rho / 2, rho]
    momenta = [momenta[-1]] if name == "RandomSAM" else momenta
    if name == "FisherSAM":
        options = {**options, "eta": 3.0}
    many = grid(starts, rho=radii, lr=[lr], momentum=momenta)
    out = run(problem, rule(name, **options), many, steps, engine="plain")
    assert (out.lost == -1).all()
    for r in range(many.replicas):
        one = [x[r] for x in many.start]
        wanted = torch_run(name, options, problem, one, float(many.rho[r]), lr, float(many.momentum[r]), steps)
        for x, y in zip(out.w, wanted, strict=True):
            torch.testing.assert_close(x[r], y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("where", PROBLEMS)
@pytest.mark.parametrize("name", RUNNING)
def test_every_preset_agrees_with_the_optimizer(name, where):
    problem, rho, lr = PROBLEMS[where]
    compare(name, OPTIONS.get(name, {}), problem, rho, lr, count=1 if where == "quartic tensor" else 2)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=lambda x: str(x))
def test_options_agree_with_the_optimizer(name, options):
    compare(name, options, LinearAutoencoder(3, "half"), 0.05, 0.02)


@pytest.mark.parametrize("name", REFUSED)
def test_the_others_are_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"{name}.*{REFUSED[name]}"):
        rule(name)
