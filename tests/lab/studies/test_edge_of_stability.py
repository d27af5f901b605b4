"""The study `edge-of-stability`: its numbers are exact Hessians' and real steps'; verdicts follow the tables."""

import pytest
import torch
from bare import Lab
from torch import nn

from fenland import theory
from fenland.lab.errors import BadInput
from fenland.lab.studies import find
from fenland.lab.studies.edge_of_stability import Config
from fenland.lab.study.full_batch import Setting, batch_of, settle, squared_error

STUDY = find("edge-of-stability")
SMALL = Config(images=40, width=4, rhos=(0.1, 0.3), unnormalised=(0.3,), steps=60, every=20, seeds=(0, 1))
SETTING = Setting(images=30, width=3, lr=0.5, steps=10, every=5, tol=1e-4)


@pytest.fixture(scope="module")
def tables():
    return STUDY.runs(SMALL, Lab())


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 3), nn.Tanh(), nn.Linear(3, 10))


def test_the_first_row_is_the_exact_hessian_s():
    model, batch = network(5).double(), tuple(x.double() for x in batch_of(30))
    params = dict(model.named_parameters())
    shapes = [(name, p.shape, p.numel()) for name, p in params.items()]

    def loss(flat):
        parts = flat.split([count for _, _, count in shapes])
        own = {name: x.view(shape) for (name, shape, _), x in zip(shapes, parts, strict=True)}
        out = torch.func.functional_call(model, own, (batch[0],))
        return (out - batch[1]).square().sum(1).mean() / 2

    flat = torch.cat([p.detach().reshape(-1) for p in params.values()])
    exact = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))[-1].item()
    g = torch.autograd.functional.jacobian(loss, flat)
    h = torch.autograd.functional.jacobian(loss, flat + 0.2 * g / g.norm())
    for method in ("SAM", "SSAM"):
        row = settle(SETTING, method, 0.2, 5).iloc[0]
        assert row["eigenvalue"] == pytest.approx(exact, rel=1e-3)
        assert row["loss"] == pytest.approx(loss(flat).item(), rel=1e-5)
        assert row["grad_norm"] == pytest.approx(g.norm().item(), rel=1e-4)
        assert row["gamma"] == pytest.approx((g.norm() / h.norm()).item(), rel=1e-3)
        gamma = row["gamma"] if method == "SSAM" else None
        assert row["edge"] == pytest.approx(theory.edge_curvature(0.5, 0.2, method, row["grad_norm"], gamma))
        assert row["edge_gd"] == pytest.approx(4.0)


def test_gd_is_plain_descent():
    rows = settle(SETTING, "GD", 0.0, 5)
    model, batch = network(5), batch_of(30)
    opt = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(10):
        opt.zero_grad()
        squared_error(model, batch).backward()
        opt.step()
    assert rows["step"].tolist() == [0, 5, 10]
    assert rows["loss"].iloc[-1] == pytest.approx(squared_error(model, batch).item(), rel=1e-5)
    assert (rows["edge"] == rows["edge_gd"]).all()


def holds(tables, words):
    (found,) = [each.holds for each in STUDY.judge(SMALL, tables) if words in each.claim]
    return found


def test_verdicts_follow_the_tables(tables):
    steps = tables["steps"]
    wobble = 1 + 1e-3 * steps["seed"]
    at = {"steps": steps.assign(eigenvalue=steps["edge"] * wobble)}
    off = {"steps": steps.assign(eigenvalue=1.3 * steps["edge"] * wobble)}
    for words in ("gradient descent settles", "Full-batch SAM settles", "SSAM settles", "USAM settles", "SSAM on the"):
        assert holds(at, words) is True
        assert holds(off, words) is False
    assert holds({"steps": steps.assign(eigenvalue=0.5 * steps["edge_gd"] * wobble)}, "below 2/eta") is True
    assert holds({"steps": steps.assign(eigenvalue=2.0 * steps["edge_gd"] * wobble)}, "below 2/eta") is False
    assert holds({"steps": steps.assign(eigenvalue=wobble - steps["rho"])}, "The larger rho") is True
    assert holds({"steps": steps.assign(eigenvalue=wobble + steps["rho"])}, "The larger rho") is False


def test_every_figure_speaks(tables):
    for figure in STUDY.draw(SMALL, tables):
        assert len(figure.title) <= 46
        assert "nan" not in (figure.description + figure.caption).lower()


def test_bad_input():
    with pytest.raises(BadInput, match="rhos"):
        Config(rhos=(0.0,))
