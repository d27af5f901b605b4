"""The live monitor: its records are the optimizer's, its eigenvalues the probe's, its time bounded."""

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fenland
from fenland.diagnostics import curvature
from fenland.diagnostics.live import Live

DATA = nets.images(shape=(5,))


def setup(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 4))
    return model, fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.1, **options)


def train(model, opt, live, count, after=lambda: None):
    seen = []
    for i in range(count):
        x, y = DATA[i % 3]

        def closure(x=x, y=y):
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        opt.step(closure)
        seen.append((float(opt.last.gamma), float(opt.last.sharpness)))
        after()
        live.update()
    return seen


class Clock:
    """Time that passes only where it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_records_are_means_of_the_optimizer_s():
    model, opt = setup(record_every=2)
    got = []
    live = Live(opt, every=5, on_record=got.append)
    seen = train(model, opt, live, 12)
    assert got == live.records
    assert [r["step"] for r in got] == [5, 10]
    for record, part in zip(got, (seen[:5], seen[5:10]), strict=True):
        assert record["gamma"] == pytest.approx(sum(g for g, _ in part) / 5, rel=1e-5)
        assert record["sharpness"] == pytest.approx(sum(s for _, s in part) / 5, rel=1e-3)
        assert 0.5 < record["cosine"] <= 1.0
        assert "largest_eigenvalue" not in record


def test_eigenvalues_are_those_of_the_probe():
    model, opt = setup()
    live = Live(opt, model, nets.cross_entropy, DATA, every=4, budget=1.0, tol=1e-3, products=200)
    train(model, opt, live, 4)
    want = curvature.extreme_eigenvalues(model, nets.cross_entropy, DATA, tol=1e-4)
    (record,) = live.records
    assert record["largest_eigenvalue"] == pytest.approx(want.largest[0].value, rel=1e-3)
    assert record["smallest_eigenvalue"] == pytest.approx(want.smallest[0].value, abs=1e-3 * want.largest[0].value)
    assert 0 <= record["largest_residual"] < 0.01 * record["largest_eigenvalue"]


def test_the_edge_of_stability_beside_them():
    """At these steps' mean norms the largest eigenvalue that one step of SAM would not lengthen; 2 / lr without it."""
    model, opt = setup()
    live = Live(opt, model, nets.cross_entropy, DATA, every=4, budget=1.0)
    train(model, opt, live, 4)
    (record,) = live.records
    assert record["edge_sgd"] == pytest.approx(2 / 0.1)
    rho = 0.1 / record["grad_norm"]
    assert fenland.theory.stable_lr(record["edge"], rho, "USAM") == pytest.approx(0.1, rel=1e-6)
    assert record["edge"] == pytest.approx(fenland.theory.edge_curvature(0.1, 0.1, "SAM", record["grad_norm"]))
    adam = fenland.SAM(torch.optim.Adam(model.parameters(), lr=0.1), rho=0.1)
    live = Live(adam, model, nets.cross_entropy, DATA, every=2, budget=1.0)
    train(model, adam, live, 2)
    assert "largest_eigenvalue" in live.records[0]
    assert "edge" not in live.records[0]


def test_training_is_the_same_with_and_without_it():
    def weights(probe):
        model, opt = setup(model=None)
        live = Live(opt, model, nets.cross_entropy, probe, every=2, budget=1.0)
        train(model, opt, live, 8)
        assert ("largest_eigenvalue" in live.records[0]) == (probe is not None)
        return nets.state(model)

    assert nets.same(weights(None), weights(DATA))


@pytest.mark.parametrize(("cost", "budget"), [(0.5, 0.05), (3.0, 0.2), (20.0, 0.1)])
def test_the_share_of_time_is_bounded(cost, budget, monkeypatch):
    """Steps take 0.5 s, a measurement `cost`, on a clock of the test's own; 4 s are guessed for it."""
    clock, shares, measured = Clock(), [], []
    model, opt = setup()

    def slow(*args, **options):
        clock.now += cost
        measured.append(clock.now)
        pair = curvature.Eigenpair(1.0, 0.0)
        return curvature.Extremes((pair,), (pair,), True, 1, 0.0)

    monkeypatch.setattr(curvature, "extreme_eigenvalues", slow)
    live = Live(opt, model, nets.cross_entropy, DATA, every=10, budget=budget, products=4, clock=clock)

    def step():
        clock.now += 0.5

    train(model, opt, live, 250, step)
    shares = [r["monitor_share"] for r in live.records]
    assert measured
    first = next(i for i, r in enumerate(live.records) if "largest_eigenvalue" in r)
    assert all(s <= budget * 1.001 for s in shares[:first])
    if cost <= 4.0:  # no dearer than was guessed: never over
        assert max(shares) <= budget * 1.001
    later = [i for i, r in enumerate(live.records) if i > first and "largest_eigenvalue" in r]
    assert all(live.records[i]["monitor_share"] <= budget * 1.001 for i in later)


def test_its_real_time_is_what_it_says():
    model, opt = setup()
    live = Live(opt, model, nets.cross_entropy, DATA, every=10, budget=0.3, products=20)
    train(model, opt, live, 200)
    assert any("largest_eigenvalue" in r for r in live.records)
    assert 0 < live.records[-1]["monitor_share"] < 0.45  # 0.3, and one measurement on a busy machine


def test_bad_input():
    model, opt = setup()
    with pytest.raises(TypeError, match="must be a fenland optimizer"):
        Live(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="probe: needs model and loss_fn"):
        Live(opt, probe=DATA)
    for name, value in (("every", 0), ("budget", 0), ("budget", 2), ("products", 1), ("tol", -1)):
        with pytest.raises(ValueError, match=f"{name} = {value}"):
            Live(opt, **{name: value})
    for options, error, match in (
        ({"probe": (b for b in DATA)}, TypeError, "one-shot"),
        ({"probe": DATA[0]}, TypeError, "looks like one batch"),
        ({"loss_fn": lambda batch: batch}, TypeError, "cannot be called as loss_fn"),
        ({"model": "net"}, TypeError, "model = 'net'"),
        ({"mode": "test"}, ValueError, "mode = 'test'"),
        ({"hvp": "magic"}, ValueError, "hvp = 'magic'"),
    ):  # at once, and not in the midst of a long run
        with pytest.raises(error, match=match):
            Live(opt, **{"model": model, "loss_fn": nets.cross_entropy, "probe": DATA, **options})
