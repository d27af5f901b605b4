"""RiemannianSAM on the sphere and on Stiefel's manifold, against the rule written out."""

import sys
import warnings

import pytest
import torch
from torch import nn

import fenland

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # geoopt's import uses torch.jit
    geoopt = pytest.importorskip("geoopt")


def _sphere_step(w, grad, rho, lr):
    """Retraction by normalising, transport by projecting."""

    def project(x, v):
        return v - (x * v).sum(-1, keepdim=True) * x

    r = project(w, grad(w))
    up = w + rho * r / r.norm()
    up = up / up.norm(dim=-1, keepdim=True)
    h = project(w, project(up, grad(up)))
    new = w - lr * h
    return new / new.norm(dim=-1, keepdim=True)


def _stiefel_step(w, grad, rho, lr):
    def project(x, v):
        inner = x.T @ v
        return v - x @ ((inner + inner.T) / 2)

    def retract(x):
        q, r = torch.linalg.qr(x)
        return q * (r.diagonal().sign() + 0.5).sign()

    r = project(w, grad(w))
    up = retract(w + rho * r / r.norm())
    h = project(w, project(up, grad(up)))
    return retract(w - lr * h)


CASES = {
    "sphere": (lambda: geoopt.Sphere(), (6,), _sphere_step),
    "stiefel": (lambda: geoopt.Stiefel(canonical=False), (6, 3), _stiefel_step),
}


def _field(shape):
    torch.manual_seed(1)
    matrix = torch.randn(6, 6, dtype=torch.float64)
    matrix = matrix @ matrix.T
    return (lambda w: matrix @ w), (lambda w: 0.5 * (w * (matrix @ w)).sum())


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_rule_written_out(name):
    manifold, shape, step = CASES[name]
    torch.manual_seed(0)
    start = manifold().projx(torch.randn(shape, dtype=torch.float64))
    grad, loss = _field(shape)
    w = geoopt.ManifoldParameter(start.clone(), manifold=manifold())
    opt = fenland.RiemannianSAM(geoopt.optim.RiemannianSGD([w], lr=0.05), rho=0.2)
    reference, points = start.clone(), []

    def closure():
        opt.zero_grad()
        points.append(w.detach().clone())
        value = loss(w)
        value.backward()
        return value

    values = []
    for _ in range(15):
        values.append(opt.step(closure).item())
        reference = step(reference, grad, 0.2, 0.05)
        torch.testing.assert_close(w.detach(), reference, rtol=1e-9, atol=1e-11)
    for x in points:  # ascent points too lie on the manifold
        torch.testing.assert_close(manifold().projx(x), x, rtol=1e-12, atol=1e-12)
    assert values[-1] < values[0]


@pytest.mark.parametrize("rho", [0.3, 0.1])
def test_flat_parameters_beside_a_manifold_share_one_norm(rho):
    """The sphere's radius is 0.3; the flat group's is the same, or its own."""
    torch.manual_seed(0)
    sphere = geoopt.ManifoldParameter(
        geoopt.Sphere().projx(torch.randn(5, dtype=torch.float64)), manifold=geoopt.Sphere()
    )
    flat = nn.Parameter(torch.randn(4, dtype=torch.float64))
    groups = [{"params": [sphere]}, {"params": [flat], "rho": rho}]
    opt = fenland.RiemannianSAM(geoopt.optim.RiemannianSGD(groups, lr=0.0), rho=0.3)
    before, points = [sphere.detach().clone(), flat.detach().clone()], []

    def closure():
        opt.zero_grad()
        points.append([sphere.detach().clone(), flat.detach().clone()])
        loss = (sphere**3).sum() + (flat**2).sum()
        loss.backward()
        return loss

    opt.step(closure)
    g = 3 * before[0] ** 2
    r = g - (before[0] @ g) * before[0]
    length = torch.sqrt(r.norm() ** 2 + (2 * before[1]).norm() ** 2)
    torch.testing.assert_close(points[1][1], before[1] + rho * 2 * before[1] / length)
    up = before[0] + 0.3 * r / length
    torch.testing.assert_close(points[1][0], up / up.norm())
    assert torch.equal(flat.detach(), before[1])


def test_a_manifold_with_another_metric_is_refused_by_name():
    w = geoopt.ManifoldParameter(torch.eye(3, dtype=torch.float64)[:, :2], manifold=geoopt.Stiefel())
    opt = fenland.RiemannianSAM(geoopt.optim.RiemannianSGD([w], lr=0.1), rho=0.1)

    def closure():
        opt.zero_grad()
        loss = (w**3).sum()
        loss.backward()
        return loss

    with pytest.raises(ValueError, match="canonical=False"):
        opt.step(closure)


def test_without_geoopt_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"fenland\[riemannian\]"):
        fenland.Riemannian()


def test_fenland_itself_never_imports_it():
    assert "geoopt" in sys.modules  # by this file
    import fenland.rules.riemannian as module

    assert not hasattr(module, "geoopt")
