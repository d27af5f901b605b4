"""The study `single-neuron`: paths are the optimizer's, and verdicts follow the tables."""

import pytest
import torch
from bare import Lab

import fenland
from fenland import theory
from fenland.lab.errors import BadInput
from fenland.lab.replicas.neurons import neuron
from fenland.lab.studies import find
from fenland.lab.studies.single_neuron import Config

STUDY = find("single-neuron")
SMALL = Config(lrs=(0.05,), rhos=(0.1, 0.2), x=(0.1,), steps=4000)


@pytest.fixture(scope="module")
def tables():
    return STUDY.runs(SMALL, Lab())


@pytest.mark.parametrize("make", ["SAM", "USAM", "SSAM"])
def test_paths_are_the_real_optimizers(make):
    w = torch.nn.Parameter(torch.tensor([0.1, 8.0], dtype=torch.float64))
    opt = getattr(fenland, make)(torch.optim.SGD([w], lr=0.05), rho=0.1)

    def closure():
        opt.zero_grad()
        loss = (1 + (w[0] * w[1]) ** 2).sqrt() - 1
        loss.backward()
        return loss.detach()

    for _ in range(60):
        opt.step(closure)
    row = neuron(make, (0.1,), 0.05, [(0.1, 8.0)], 60, 60).iloc[-1]
    assert row["x"] == pytest.approx(w[0].item(), rel=1e-6)
    assert row["y2"] == pytest.approx(w[1].item() ** 2, rel=1e-9)
    assert row["predicted"] == theory.neuron_end(0.05, 0.1, make)


def holds(tables, words):
    (found,) = [each.holds for each in STUDY.judge(SMALL, tables) if words in each.claim]
    return found


def test_verdicts_follow_the_tables(tables):
    theirs = ("GD ends", "USAM stays", "SAM goes on", "2*eta*rho^2", "on the unnormalised", "on the normalised")
    for words in theirs:
        assert holds(tables, words) is True
    paths = tables["paths"]
    sharp = {"paths": paths.assign(y2=paths["y2"] * 1.2)}
    for words in ("GD ends", "USAM stays", "on the normalised"):
        assert holds(sharp, words) is False
    stays = {"paths": paths.assign(y2=paths["y2"].where(paths["method"] != "SAM", 30.0))}
    assert holds(stays, "SAM goes on") is False
    assert holds(stays, "2*eta*rho^2") is None


def test_every_figure_speaks(tables):
    for figure in STUDY.draw(SMALL, tables):
        assert len(figure.title) <= 46
        assert "nan" not in (figure.description + figure.caption).lower()


def test_bad_input():
    with pytest.raises(BadInput, match="lrs"):
        Config(lrs=(0.0,))
