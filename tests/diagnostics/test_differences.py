"""Exact products are checked, differences take the step that suits their noise, and `converged` is measured."""

import warnings

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fenland.diagnostics import curvature, differences
from fenland.diagnostics.flat import Flat
from fenland.diagnostics.hessian import Hessian
from fenland.diagnostics.objective import Objective

X = torch.randn(60, 5, generator=torch.Generator().manual_seed(1))
Y = torch.randint(0, 3, (60,), generator=torch.Generator().manual_seed(2))
DATA = [(X[:40], Y[:40]), (X[40:], Y[40:])]


class Silent(torch.autograd.Function):
    """tanh, whose backward builds no graph."""

    @staticmethod
    def forward(ctx, x):
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        with torch.no_grad():
            return g * (1 - ctx.saved_tensors[0] ** 2)


class Partial(torch.autograd.Function):
    """tanh, whose backward forgets that its own slope depends on x: what is left is symmetric."""

    @staticmethod
    def forward(ctx, x):
        ctx.slope = 1 - x.tanh() ** 2
        return x.tanh()

    @staticmethod
    def backward(ctx, g):
        return g * ctx.slope


class Of(nn.Module):
    """A function as a module."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


def hooked(x):
    y = torch.tanh(x)
    if y.requires_grad:
        y.register_hook(lambda g: g.detach().clone())
    return y


class Equilibrium(nn.Module):
    """z = tanh(W z + x), differentiated by the implicit function theorem in a hook, as deep equilibrium models do."""

    def __init__(self, size):
        super().__init__()
        self.w = nn.Parameter(0.3 * torch.randn(size, size) / size**0.5)

    def f(self, z, x):
        return torch.tanh(z @ self.w + x)

    def forward(self, x):
        with torch.no_grad():
            z = torch.zeros_like(x)
            for _ in range(60):
                z = self.f(z, x)
        z = self.f(z, x)
        if not z.requires_grad:
            return z
        start = z.detach().requires_grad_()
        again = self.f(start, x.detach())

        def solve(g):
            found = g
            for _ in range(60):
                found = torch.autograd.grad(again, start, found, retain_graph=True)[0] + g
            return found

        z.register_hook(solve)
        return z


def net(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 12), *middle, nn.Linear(12, 3))


CUT = {
    "no graph": lambda: net(Of(Silent.apply)),
    "part of the graph": lambda: net(Of(Partial.apply)),
    "a hook": lambda: net(Of(hooked)),
    "an equilibrium": lambda: net(Equilibrium(12)),
    "no graph beside kinks": lambda: net(nn.ReLU(), nn.Linear(12, 12), Of(Silent.apply)),
}


@pytest.mark.parametrize("case", CUT)
def test_cut_second_derivatives_are_said(case):
    with pytest.warns(UserWarning, match=r'cuts the second derivative; pass hvp="difference"'):
        curvature.trace(CUT[case](), nets.cross_entropy, DATA, draws=2)


@pytest.mark.parametrize("case", ["no graph", "part of the graph", "a hook"])
def test_differences_see_what_is_cut(case):
    want = curvature.extreme_eigenvalues(net(nn.Tanh()), nets.cross_entropy, DATA, tol=1e-4)
    got = curvature.extreme_eigenvalues(CUT[case](), nets.cross_entropy, DATA, hvp="difference", tol=5e-3)
    assert got.converged
    for pair, true in ((got.smallest[0], want.smallest[0]), (got.largest[0], want.largest[0])):
        assert pair.value == pytest.approx(true.value, abs=pair.off)


def test_what_is_cut_has_not_converged():
    """Its operator has no eigenpairs that Lanczos could find: the flag is from the residuals themselves."""
    with (
        pytest.warns(UserWarning, match="cuts the second derivative"),
        pytest.warns(UserWarning, match='pass hvp="difference", since the exact products are none'),
    ):
        found = curvature.extreme_eigenvalues(CUT["no graph"](), nets.cross_entropy, DATA)
    assert not found.converged


def test_a_cut_that_leaves_the_products_symmetric_has_not_converged_either():
    """The curvature of the tanh alone is lost: Lanczos finds the exact pairs of what is left, and they are others."""
    with pytest.warns(UserWarning, match="cuts the second derivative"):
        found = curvature.extreme_eigenvalues(net(Of(Partial.apply)), nets.cross_entropy, DATA)
    true = curvature.extreme_eigenvalues(net(nn.Tanh()), nets.cross_entropy, DATA)
    assert max(pair.residual for pair in (*found.smallest, *found.largest)) < 1e-3
    assert abs(found.smallest[0].value - true.smallest[0].value) > 0.01
    assert not found.converged


def scaled(factor):
    return lambda model, batch: F.cross_entropy(factor * model(batch[0]), batch[1])


WHOLE = {
    "tanh": (lambda: net(nn.Tanh()), nets.cross_entropy),
    "ReLU": (lambda: net(nn.ReLU()), nets.cross_entropy),
    "deep ReLU": (lambda: net(nn.ReLU(), nn.Linear(12, 12), nn.LeakyReLU(), nn.Linear(12, 12), nn.ReLU()), scaled(3.0)),
    "hard": (lambda: net(nn.Hardswish(), nn.Linear(12, 12), nn.ReLU6()), nets.cross_entropy),
    "normed": (lambda: net(nn.LayerNorm(12), nn.GELU(), nn.BatchNorm1d(12)), nets.cross_entropy),
    "dropout": (lambda: net(nn.Tanh(), nn.Dropout(0.4)), nets.cross_entropy),
    "steep": (lambda: net(nn.Tanh()), scaled(80.0)),
    "flat": (lambda: net(nn.Tanh()), scaled(1e-4)),
    "linear": (lambda: net(), lambda model, batch: model(batch[0]).mean()),
    "bfloat16": (lambda: net(nn.Tanh()).bfloat16(), lambda m, b: F.cross_entropy(m(b[0].bfloat16()).float(), b[1])),
    "large weights": (lambda: _times(net(nn.Tanh()), 30.0), nets.cross_entropy),
    "small weights": (lambda: _times(net(nn.Tanh()), 1e-3), nets.cross_entropy),
}


def _times(model, factor):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(factor)
    return model


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("case", WHOLE)
def test_no_false_alarm(case, mode):
    make, loss_fn = WHOLE[case]
    for dtype in (None, torch.float64)[: 1 if case == "bfloat16" else 2]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            curvature.trace(make(), loss_fn, DATA, draws=2, mode=mode, dtype=dtype)


def test_a_loss_that_breaks_off_w_proves_nothing():
    def fragile(model, batch):
        moved = (model[0].weight - START).norm()
        return F.cross_entropy(model(batch[0]), batch[1]) / (moved < 1e-3)

    START = net(nn.Tanh())[0].weight.detach().clone()
    curvature.trace(net(nn.Tanh()), fragile, DATA, draws=2)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 60.0])
@pytest.mark.parametrize("size", [1e-2, 1.0, 10.0])
def test_the_step_is_near_the_best_one(factor, size):
    """Against exact products in double precision, along another direction than the search looks at."""
    model = _times(net(nn.Tanh(), nn.Linear(12, 12), nn.Tanh()), size)
    with Objective(model, scaled(factor), DATA) as objective:
        flat = Flat(objective)
        step, taken = differences.choose_step(objective, flat)
        v = flat.signs(torch.Generator().manual_seed(7))
        with Objective(model, scaled(factor), DATA, dtype=torch.float64) as double:
            v = Hessian(double).matvec(v.double())
            exact = Hessian(double, checked=True).matvec(v)
        wrong = {
            s: float((differences.product(objective, flat, v.float(), s).double() - exact).norm())
            for s in [step, *(differences.usual_step(flat) * 2.0**k for k in range(-4, 7))]
        }
    assert taken == 7
    assert wrong[step] <= 6 * min(wrong.values())


def test_a_steep_loss_is_measured_as_exactly_as_it_is_said():
    """The usual step is too long for it: the old one gave 259.8 for 261.1 and called it converged."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    data = [(torch.randn(256, 20), torch.randint(0, 10, (256,)))]
    exact = curvature.extreme_eigenvalues(model, scaled(50.0), data, which="largest", tol=1e-4).largest[0]
    close = curvature.extreme_eigenvalues(model, scaled(50.0), data, which="largest", hvp="difference")
    assert close.converged
    assert close.largest[0].value == pytest.approx(exact.value, rel=1e-3)
    usual = torch.finfo(torch.float32).eps ** (1 / 3)
    with pytest.warns(UserWarning, match="did not reach tol"):
        far = curvature.extreme_eigenvalues(model, scaled(50.0), data, which="largest", hvp="difference", step=usual)
    assert not far.converged
    assert abs(far.largest[0].value - exact.value) <= far.largest[0].off


def test_noise_in_the_products_is_no_convergence():
    """A forward in half precision: Lanczos' own estimate of the residual would call it converged."""

    def coarse(model, batch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(batch[0])
        return F.cross_entropy(logits.float(), batch[1])

    with pytest.warns(UserWarning, match="did not reach tol"):
        found = curvature.extreme_eigenvalues(net(nn.Tanh()), coarse, DATA, hvp="difference")
    assert not found.converged


def test_converged_is_what_the_residuals_say():
    for tol in (0.3, 1e-2, 1e-4):
        found = curvature.extreme_eigenvalues(net(nn.Tanh()), nets.cross_entropy, DATA, tol=tol, dtype=torch.float64)
        assert found.converged
        scale = max(abs(pair.value) for pair in found.largest + found.smallest)
        for pair in found.largest + found.smallest:
            assert pair.residual <= tol * max(abs(pair.value), 0.01 * scale) + 1e-13 * scale
