"""The study `hallucinated`: who is counted where, against theory and real steps; verdicts follow the tables."""

import math

import pytest
import torch
from bare import Lab

import fenland
from fenland import theory
from fenland.lab.errors import BadInput
from fenland.lab.replicas.fates import wave, wells
from fenland.lab.studies import find
from fenland.lab.studies.hallucinated import Config
from fenland.lab.study.full_batch import Setting, batch_of, entropy, large_radius
from fenland.rules import Window

STUDY = find("hallucinated")
SMALL = Config(
    rhos=(2.0, 3.5),
    well_rhos=(0.5, 1.5, 2.5),
    starts=80,
    steps=1200,
    warm=400,
    net_rhos=(0.5, 5.0),
    net_steps=20,
    net_warm=10,
    seeds=(0, 1),
)


@pytest.fixture(scope="module")
def tables():
    return STUDY.runs(SMALL, Lab())


@pytest.mark.parametrize("method", ["SAM", "SSAM"])
def test_shares_on_the_wave_are_theorys(method):
    rows = wave((1.0, 3.5, 7.0), 0.05, 1200, 100, method=method).set_index("rho")
    for rho, row in rows.iterrows():
        fates = theory.cosine_fates(rho)
        for kind in ("minimum", "maximum", "hallucinated"):
            assert row[kind] == pytest.approx(getattr(fates, kind), abs=0.03)
    assert rows.loc[3.5, "slope"] == pytest.approx(abs(math.sin(3.5)), abs=0.02)
    assert math.isnan(rows.loc[1.0, "slope"])


@pytest.mark.parametrize(("warm", "start", "place"), [(0, 2.0, 2.5), (300, 2.0, 0.0), (300, 3.5, 2.5), (0, 1.0, 0.0)])
def test_between_the_wells_real_steps_end_where_the_shares_say(warm, start, place):
    """rho = 1.5: 2.5 is no critical point; 0 is the wide minimum."""
    w = torch.nn.Parameter(torch.tensor([start], dtype=torch.float64))
    opt = fenland.SAM(torch.optim.SGD([w], lr=0.005), rho=1.5, when=Window(warm))

    def closure():
        opt.zero_grad()
        loss = (w**4 / 4 - 7 * w**3 / 3 + 6 * w**2).sum()
        loss.backward()
        return loss.detach()

    for _ in range(warm + 500):
        opt.step(closure)
    assert w.item() == pytest.approx(place, abs=0.35 if place == 0.0 else 1e-3)


def test_shares_between_the_wells():
    before = wells((0.5, 1.5), 0.005, 1500, 80).set_index("rho")
    after = wells((0.5, 1.5), 0.005, 1500, 80, warm=500).set_index("rho")
    assert before.loc[1.5, "hallucinated"] == pytest.approx(0.625, abs=0.02)
    assert after.loc[1.5, "hallucinated"] == pytest.approx(0.25, abs=0.02)
    assert before.loc[0.5, "hallucinated"] == after.loc[0.5, "hallucinated"] == 0.0
    assert (before[["minimum", "maximum", "hallucinated"]].sum(axis=1) - 1).abs().max() < 1e-12


def holds(tables, words):
    (found,) = [each.holds for each in STUDY.judge(SMALL, tables) if words in each.claim]
    return found


def test_verdicts_follow_the_tables(tables):
    assert holds(tables, "can come to rest") is True
    assert holds(tables, "needs a radius beyond") is True
    assert holds(tables, "share rho/pi") is True
    assert holds(tables, "Beside a wide minimum") is True
    assert holds(tables, "from every start") is False
    assert holds(tables, "lets fewer starts stall") is True
    assert holds(tables, "prevents that the maximum") is True
    assert holds(tables, "prevents hallucinated minimisers too") is False
    none = {name: rows.assign(hallucinated=0.0, maximum=0.0, minimum=1.0) for name, rows in tables.items()}
    assert holds(none, "can come to rest") is False
    assert holds(none, "Beside a wide minimum") is False
    assert holds(none, "from every start") is True
    assert holds(none, "share rho/pi") is False


def test_network_verdicts_follow_the_table(tables):
    net = tables["network"]
    late = net["warm"] > 0
    better = {**tables, "network": net.assign(accuracy=0.1 + 0.8 * late + 0.001 * net["seed"], ascent_grad_norm=1.0)}
    assert holds(better, "On a network a warm start") is True
    assert holds(better, "What stops SAM on the network") is False
    still = {**tables, "network": better["network"].assign(ascent_grad_norm=0.01 * net["grad_norm"])}
    assert holds(still, "What stops SAM on the network") is True
    worse = {**tables, "network": net.assign(accuracy=0.9 - 0.8 * late + 0.001 * net["seed"])}
    assert holds(worse, "On a network a warm start") is False
    assert holds(worse, "What stops SAM on the network") is None


def test_the_network_is_trained_by_the_real_optimizer():
    """Plain steps alone are torch's SGD; g and h are those of the last step."""
    setting = Setting(images=30, width=3, lr=0.5, steps=4)
    row = large_radius(setting, 0.3, 3, 1).iloc[0]
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(64, 3), torch.nn.Tanh(), torch.nn.Linear(3, 10))
    batch, params = batch_of(30), list(model.parameters())
    opt = torch.optim.SGD(params, lr=0.5)
    for _ in range(3):
        opt.zero_grad()
        entropy(model, batch).backward()
        opt.step()
    loss = entropy(model, batch)
    g = torch.autograd.grad(loss, params)
    length = sum(x.square().sum() for x in g).sqrt()
    with torch.no_grad():
        for p, x in zip(params, g, strict=True):
            p.add_(0.3 * x / length)
    h = torch.autograd.grad(entropy(model, batch), params)
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert row["grad_norm"] == pytest.approx(length.item(), rel=1e-4)
    assert row["ascent_grad_norm"] == pytest.approx(sum(x.square().sum() for x in h).sqrt().item(), rel=1e-4)


def test_every_figure_speaks(tables):
    names = {figure.name for figure in STUDY.draw(SMALL, tables)}
    for figure in STUDY.draw(SMALL, tables):
        assert len(figure.title) <= 46
        assert "nan" not in (figure.description + figure.caption).lower()
    assert {each.figure for each in STUDY.judge(SMALL, tables)} <= names


def test_bad_input():
    with pytest.raises(BadInput, match="warm"):
        Config(warm=0)
