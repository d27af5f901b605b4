"""XSAM's search for alpha: against NumPy, without a trace on weights, buffers and generators, and resumed exactly."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import fenland

GRID = (0.0, 0.5, 1.0, 1.5, 2.0)
H = np.diag([4.0, 1.0, 0.2])


def loss(w):
    return 0.5 * w @ H @ w + 0.1 * np.sum(w**4)


def grad(w):
    return H @ w + 0.4 * w**3


def slerp(u, v, alpha):
    theta = np.arccos(np.clip(u @ v, -1, 1))
    return (np.sin((1 - alpha) * theta) * u + np.sin(alpha * theta) * v) / np.sin(theta)


def reference(w, steps, lr, rho, rho_max, every):
    alphas = []
    for t in range(steps):
        g = grad(w)
        h = grad(w + rho * g / np.linalg.norm(g))
        u, v = g / np.linalg.norm(g), h / np.linalg.norm(h)
        if t % every == 0:
            alpha = GRID[int(np.argmax([loss(w + rho_max * slerp(u, v, a)) for a in GRID]))]
        alphas.append(alpha)
        w = w - lr * np.linalg.norm(h) * slerp(u, v, alpha)
    return w, alphas


def optimizer(w, **options):
    options = {"rho": 0.2, "grid": GRID, "rho_max": 0.4, "every": 3} | options
    return fenland.XSAM(torch.optim.SGD([w], lr=0.05), **options)


def closure_of(w, opt, calls=None):
    def closure():
        opt.zero_grad()
        value = 0.5 * (w @ torch.from_numpy(H) @ w) + 0.1 * (w**4).sum()
        value.backward()
        if calls is not None:
            calls.append(w.detach().clone())
        return value

    return closure


def test_the_search_follows_numpy():
    start = np.array([1.0, -2.0, 3.0])
    w = torch.nn.Parameter(torch.tensor(start))
    opt = optimizer(w)
    seen = []
    for _ in range(8):
        opt.step(closure_of(w, opt))
        seen.append(opt.state_dict()["param_groups"][0]["fenland.alpha"])
    want, alphas = reference(start, 8, 0.05, 0.2, 0.4, 3)
    assert seen == alphas
    np.testing.assert_allclose(w.detach().numpy(), want, rtol=1e-10)


def test_it_costs_one_closure_call_a_value_on_its_steps_only():
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
    opt, calls = optimizer(w), []
    counts = []
    for _ in range(4):
        opt.step(closure_of(w, opt, calls))
        counts.append(len(calls))
        calls.clear()
    assert counts == [2 + len(GRID), 2, 2, 2 + len(GRID)]


def test_a_search_leaves_no_trace_and_survives_a_failure():
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)
    )
    x, plain = torch.randn(16, 4), copy.deepcopy(model)
    opt = fenland.XSAM(torch.optim.SGD(model.parameters(), lr=0.0), rho=0.1, grid=GRID, model=model)
    before = [p.detach().clone() for p in model.parameters()]
    calls = 0

    def closure():
        nonlocal calls
        calls += 1
        if fail and calls == 4:
            raise KeyboardInterrupt
        opt.zero_grad()
        value = model(x).square().mean()
        value.backward()
        return value

    for fail in (True, False):
        calls = 0
        torch.manual_seed(0)
        state = torch.get_rng_state()
        buffers = [b.clone() for b in model.buffers()]
        if fail:
            with pytest.raises(KeyboardInterrupt):
                opt.step(closure)
            assert torch.equal(torch.get_rng_state(), state)
            assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
        else:
            opt.step(closure)
    torch.manual_seed(0)
    plain(x)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), model.buffers(), strict=True))


def test_alpha_is_resumed():
    start = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    one, two = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    opt = optimizer(one)
    for _ in range(2):
        opt.step(closure_of(one, opt))
    with torch.no_grad():
        two.copy_(one)
    other = optimizer(two)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    for w, o in ((one, opt), (two, other)):
        for _ in range(3):
            o.step(closure_of(w, o))
    assert torch.equal(one, two)


def test_renormalised_it_has_the_length_of_g():
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
    rule = fenland.Renormalize(fenland.SphericalSearch(GRID))
    opt = fenland.SharpnessAware(torch.optim.SGD([w], lr=0.0), rho=0.2, method=rule)
    opt.step(closure_of(w, opt))
    assert w.grad is not None
    assert float(w.grad.norm()) == pytest.approx(float(opt.last.grad_norm), rel=1e-10)


def test_two_calls_cannot_search():
    w = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    opt = optimizer(w)
    closure_of(w, opt)()
    with pytest.raises(RuntimeError, match="step\\(closure\\)"):
        opt.ascend()
