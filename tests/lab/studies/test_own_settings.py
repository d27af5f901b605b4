"""The study `own-settings`: trajectories are the optimizer's, tables follow theory, verdicts follow the tables."""

import math

import pandas as pd
import pytest
import torch
from bare import Lab

import fenland
from fenland import theory
from fenland.lab.errors import BadInput
from fenland.lab.replicas.stability_analysis import (
    DEMO,
    beale,
    displacements,
    ends,
    follow,
    momentum_map,
    square_net,
    square_saddle,
)
from fenland.lab.studies import find
from fenland.lab.studies.own_settings import Config, at_rest
from fenland.lab.study.parts import Measured

STUDY = find("own-settings")
SMALL = Config(lr=1e-3, steps=300, net_seeds=60, net_steps=200, paths=2000, net_rhos=(0.1, 0.2, 0.5))


@pytest.fixture(scope="module")
def tables():
    return STUDY.runs(SMALL, Lab())


def stepped(walk, make, lr, rho, steps, both=False):
    """The real optimizer on the walk's function by autograd; `both` adds pass 1's gradient, as the demo does."""
    w = [torch.nn.Parameter(torch.tensor(x, dtype=torch.float64)) for x in walk.start]
    opt = make(torch.optim.SGD(w, lr=lr), rho)

    def value():
        return walk.problem.value([x[None] for x in w]).sum()

    for _ in range(steps):
        if both:
            g = torch.autograd.grad(value(), w)
            length = sum(x.square() for x in g).sqrt()
            with torch.no_grad():
                e = [rho * x / length for x in g]
                for x, step in zip(w, e, strict=True):
                    x.add_(step)
            h = torch.autograd.grad(value(), w)
            with torch.no_grad():
                for x, step, a, b in zip(w, e, g, h, strict=True):
                    x.sub_(step).sub_(lr * (a + b))
            continue

        def closure():
            opt.zero_grad()
            loss = value()
            loss.backward()
            return loss.detach()

        opt.step(closure)
    return [x.item() for x in w]


@pytest.mark.parametrize(
    ("method", "make"),
    [("SAM", fenland.SAM), ("SSAM", fenland.SSAM), ("USAM", fenland.USAM), ("SGD", lambda base, rho: base)],
)
def test_trajectories_are_the_real_optimizers(method, make):
    rho = 0.0 if method == "SGD" else 1e-3
    for walk, steps in ((beale(1e-4, 40, 40), 40), (square_saddle(40, 40), 40)):
        last = follow(walk, method, (rho,)).iloc[-1]
        wanted = stepped(walk, lambda base, r: make(base, rho=r), walk.lr, rho, steps)
        assert (last["x"], last["y"]) == pytest.approx(wanted, rel=1e-9)


def test_the_demo_steps_by_g_and_h():
    walk = square_saddle(60, 60)
    last = follow(walk, DEMO, (0.1,)).iloc[-1]
    assert (last["x"], last["y"]) == pytest.approx(
        stepped(walk, lambda base, r: base, walk.lr, 0.1, 60, both=True), rel=1e-9
    )


def test_the_cosine_is_that_of_the_two_gradients():
    row = follow(beale(1e-4, 2, 1), "SAM", (0.5,)).iloc[0]
    w = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    value = beale(1e-4, 1, 1).problem.value
    (g,) = torch.autograd.grad(value([x[None] for x in w]).sum(), w)
    at = (w + 0.5 * g / g.norm()).detach().requires_grad_()
    (h,) = torch.autograd.grad(value([x[None] for x in at]).sum(), at)
    assert row["cosine"] == pytest.approx(torch.nn.functional.cosine_similarity(g, h, dim=0).item(), rel=1e-9)
    assert follow(beale(1e-4, 2, 1), "SGD", (0.0,))["cosine"].isna().all()


def test_where_trajectories_end():
    rows = pd.DataFrame({
        "method": ["a", "b", "c", "d", "e"], "rho": 0.1, "lr": 1.0, "step": 1, "x": [0.05, 0.15, 2.6, 2.4, 0.0],
        "y": [1.0, 1.0, 0.5, 0.5, 1.0], "lost": [-1, -1, -1, -1, 3],
    })  # fmt: skip
    places = {"saddle": (0.0, 1.0), "minimum": (3.0, 0.5)}
    assert ends(rows, places)["where"].tolist() == ["saddle", "on the way", "minimum", "on the way", "lost"]


def test_the_unnormalised_ascent_is_lost_within_steps():
    rows = follow(beale(1e-4, 50, 1), "USAM", (0.01, 0.05))
    assert (rows.groupby("rho")["lost"].max() > 0).all()
    assert rows["lost"].max() <= 2


def test_seeds_of_the_square_network():
    """Plain descent: every start with v > 0 solves it, v*u^2 = 1; those with v < 0 that do not end on u = 0."""
    rows = square_net("SGD", (0.0,), 0.01, 2500, 100)
    solved = rows["where"] == "minimum"
    assert solved[rows["start"] == "v > 0"].all()
    assert (rows["v"] * rows["u"] ** 2)[solved].to_numpy() == pytest.approx(1.0, abs=0.3)
    assert (rows["u"].abs()[rows["where"] == "saddle"] < 0.2).all()
    held = square_net("SAM", (0.5,), 0.01, 2500, 100)
    assert (held["where"] == "saddle").mean() > (rows["where"] == "saddle").mean() + 0.2


def test_displacements_are_what_theory_says():
    rows = displacements((0.2, 2.0), 0.01, 4.0, 50, 4000)
    assert ((rows["measured"] - rows["exact"]).abs() < 4 * rows["error"]).all()
    full = rows[rows["model"] == "full"]
    assert full["exact"].to_numpy() == pytest.approx(full["printed"].to_numpy(), rel=0.02)
    others = rows[(rows["model"] == "shared") & (rows["rho"] == 2.0)]
    assert (others["exact"] < 0.5 * others["printed"]).all()


def test_the_map_is_theorys():
    rows = momentum_map(0.9, (0.01, 1.0), (2.0, 20.0))
    assert len(rows) == 8
    for row in rows.itertuples():
        assert row.ratio == theory.momentum_ratio(row.scaled, row.reach, 0.9, row.sign)


def verdict(tables, words, config=SMALL):
    found = [each for each in STUDY.judge(config, tables) if words in each.claim]
    assert len(found) == 1, words
    return found[0]


def test_verdicts_follow_the_tables(tables):
    assert verdict(tables, "theory is about, unnormalised, diverges").holds is True
    assert verdict(tables, "rho 0.5, ends at the saddle").holds is True
    assert verdict(tables, "demo's step g + h escapes").holds is True
    assert verdict(tables, "Theorem 2 is the mean squared displacement of SAM").holds is False
    assert verdict(tables, "Theorem 2 is that of the full gradient").holds is True
    assert verdict(tables, "Past Theorem 1's threshold").holds is False
    assert verdict(tables, "Theorem 3 is the mean squared").holds is False
    assert verdict(tables, "It is where eta").holds is True
    right = {**tables, "momentum": tables["momentum"].assign(ratio=1.0)}
    assert verdict(right, "Theorem 3 is the mean squared").holds is True
    sam = tables["diffusion"].assign(measured=tables["diffusion"]["printed"])
    assert verdict({**tables, "diffusion": sam}, "Theorem 2 is the mean squared displacement of SAM").holds is True
    assert verdict({**tables, "cosine": tables["cosine"].assign(cosine=0.5)}, "cosine of g and h").holds is False
    moved = tables["beale"].assign(x=3.0, y=0.5)
    assert verdict({**tables, "beale": moved}, "held at the saddle (0, 1)").holds is False


def test_net_verdicts_follow_the_shares(tables):
    net = tables["net"]
    all_solved = {**tables, "net": net.assign(where="minimum", f=0.0)}
    assert verdict(all_solved, "Most seeds of gradient descent").holds is True
    assert verdict(all_solved, "Most seeds of SAM").holds is False
    growing = {**tables, "net": net.assign(f=net["rho"] + 1e-3 * net["u"].abs())}
    assert verdict({**growing, "net": net.assign(f=-net["rho"])}, "mean loss of the toy network").holds is False


def test_every_figure_speaks(tables):
    names = {figure.name for figure in STUDY.draw(SMALL, tables)}
    for figure in STUDY.draw(SMALL, tables):
        assert len(figure.title) <= 46, figure.title
        assert "nan" not in (figure.description + figure.caption).lower()
    assert {each.figure for each in STUDY.judge(SMALL, tables)} <= names


def test_at_rest_is_at_the_saddle():
    rows = at_rest(1e-3, 0.5)
    assert len(rows) == 601
    assert ((rows["x"].abs() < 0.1) & ((rows["y"] - 1).abs() < 0.1)).all()
    assert math.isfinite(rows["cosine"].iloc[-1])


def test_bad_input():
    with pytest.raises(BadInput, match="rhos"):
        Config(rhos=(0.0, 0.1))
    assert isinstance(Measured(SMALL, {}).config, Config)
