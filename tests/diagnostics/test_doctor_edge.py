"""The doctor on the edge of stability, and on points where the ascent stalls, beside the optimizer's own steps."""

import math

import nets
import pytest
import torch
from torch import nn

import fenland
from fenland import theory
from fenland.diagnostics.doctor import diagnose
from fenland.rules import Window

ONE = [torch.ones(1)]


class Wave(nn.Module):
    """1 - cos(w)."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([float(w)], dtype=torch.float64))

    def forward(self, scale):
        return (1 - self.w.cos()).sum()


def walk(model, optimizer, count):
    def closure():
        optimizer.zero_grad()
        loss = model(ONE[0])
        loss.backward()
        return loss.detach()

    for _ in range(count):
        optimizer.step(closure)


@pytest.mark.parametrize("base", [{}, {"momentum": 0.9}, {"weight_decay": 0.5}])
@pytest.mark.parametrize("make", ["SAM", "USAM", "SSAM"])
def test_the_edge_is_the_curvature_whose_limit_is_the_learning_rate(make, base):
    model = nets.Linear(torch.diag(torch.tensor([0.6, 1.0, 4.0], dtype=torch.float64)))
    with torch.no_grad():
        model.w.copy_(torch.tensor([0.5, 0.3, 0.01]))
    lr = 0.2
    report = diagnose(
        model, nets.value, ONE, getattr(fenland, make)(torch.optim.SGD(model.parameters(), lr=lr, **base))
    )
    edges = {each.method: each.edge for each in report.limits}
    assert edges["SGD"] == pytest.approx(theory.edge_curvature(lr, **base))
    ascended = "USAM" if make == "USAM" else "SAM"
    assert theory.stable_lr(edges[ascended], report.ascent.effective, "USAM", **base) == pytest.approx(lr, rel=1e-6)
    stable = next(edge for name, edge in edges.items() if name.startswith("SSAM"))
    assert edges[ascended] < stable <= edges["SGD"]
    assert f"at lr 0.2 the edge of stability is l = {edges[ascended]:.4g}" in str(report)
    sam = next((each for each in report.limits if each.method == "SAM"), None)
    if sam is not None:  # the edge and the learning rate at which SAM settles are two sides of one equation
        assert (lr < sam.now) == (report.largest.value < sam.edge)


def test_no_edge_where_there_is_no_learning_rate_of_sgd():
    model = nets.Linear(torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64)))
    adam = fenland.SAM(torch.optim.Adam(model.parameters(), lr=0.1))
    for optimizer in (None, adam, torch.optim.SGD(model.parameters(), lr=0.0)):
        assert all(each.edge is None for each in diagnose(model, nets.value, ONE, optimizer).limits)
    heavy = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=30.0)
    assert diagnose(model, nets.value, ONE, heavy).limits[0].edge == 0.0


@pytest.mark.parametrize(("make", "rho"), [(fenland.SAM, 3.5), (fenland.SAM, 5.0), (fenland.SSAM, 3.5)])
def test_a_hallucinated_minimiser_is_no_critical_point(make, rho):
    """SAM walks there by itself and stays; the doctor says so, and what theory says of the place is true."""
    model = Wave(0.4)
    optimizer = make(torch.optim.SGD(model.parameters(), lr=0.1), rho=rho)
    walk(model, optimizer, 400)
    report = diagnose(model, nets.value, ONE, optimizer)
    stall = theory.cosine_stall(rho)
    if make is fenland.SAM:  # SSAM's step there has the length of g, and goes to and fro
        assert model.w.item() == pytest.approx(stall, abs=1e-9)
        assert report.ascent.stalled
        assert "yet this is no critical point of L" in report.because
        assert any("when=fenland.Window(start)" in each.what for each in report.advice)
        assert report.gradient_norm == pytest.approx(abs(math.sin(rho)))
    else:
        assert abs(model.w.item() - stall) < 0.1
        assert report.gradient_norm > 0.25


def test_a_start_without_the_ascent_cures_where_the_minimum_holds_sam():
    """Past the maximum's reach: SAM at rho = 2 from 1.5 climbs to the maximum; after 200 plain steps it stays below."""
    ends = []
    for when in (Window(0), Window(200)):
        model = Wave(1.5)
        walk(model, fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.05), rho=2.0, when=when), 600)
        ends.append(abs(model.w.item()))
    assert ends[0] > math.pi - 0.3
    assert ends[1] < 0.3


def test_minima_and_ordinary_points_are_not_called_so():
    for w in (0.3, 1e-3):
        model = Wave(w)
        for rho in (0.05, 0.5):
            optimizer = fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=rho)
            assert not diagnose(model, nets.value, ONE, optimizer).ascent.stalled
    torch.manual_seed(0)
    net, data = nets.Conv().eval(), nets.images()
    for rho in (0.05, 0.5):
        optimizer = fenland.SAM(torch.optim.SGD(net.parameters(), lr=0.1), rho=rho, model=net)
        report = diagnose(net, nets.cross_entropy, data, optimizer, mode="eval")
        assert not report.ascent.stalled
        assert "no critical point" not in str(report)
