"""A run may measure the ends of the Hessian's spectrum on its way: it trains as without, and the report shows them."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.figures.comparison import draw_all
from fenland.lab.models import build_model
from fenland.lab.store.records import read_records
from fenland.lab.store.runs import Store
from fenland.lab.training.probe import PROBE
from fenland.lab.training.trainer import train

PLAIN = data.identify(RunConfig("digits", "mlp", "ssam", epochs=3, batch_size=64, limit=256, weights=True))


@pytest.fixture(scope="module")
def runs():
    torch.set_num_threads(1)
    return train(PLAIN), train(replace(PLAIN, curvature=2))


def test_it_trains_as_without(runs):
    plain, probed = runs
    assert all(torch.equal(plain.weights[name], probed.weights[name]) for name in plain.weights)
    assert [r.gradient_evaluations for r in plain.records] == [r.gradient_evaluations for r in probed.records]


def test_epochs_that_are_due_and_the_last_are_measured(runs):
    plain, probed = runs
    assert [math.isfinite(r.largest_eigenvalue) for r in probed.records] == [False, True, True]
    assert not any(math.isfinite(r.smallest_eigenvalue) for r in plain.records)


def test_the_largest_is_that_of_the_hessian_on_the_probe(runs):
    """Power iteration on products by autograd, written out here: it finds the eigenvalue of largest size."""
    last = runs[1].records[-1]
    images = data.load(PLAIN)
    model = build_model("mlp", images.shape, len(images.classes))
    model.load_state_dict(runs[1].weights)
    batches = data.Batches(images, torch.device("cpu"), PLAIN.batch_size, PLAIN.seed)
    (x, y), *others = batches.evaluation("train", PROBE)
    assert not others
    weights = list(model.parameters())
    grads = torch.autograd.grad(cross_entropy(model(x), y), weights, create_graph=True)
    torch.manual_seed(0)
    v = [torch.randn_like(w) for w in weights]
    for _ in range(200):
        length = torch.stack([u.norm() for u in v]).norm()
        v = [u / length for u in v]
        hv = torch.autograd.grad(grads, weights, grad_outputs=v, retain_graph=True)
        value = sum(float((a * b).sum()) for a, b in zip(v, hv, strict=True))
        v = hv
    assert value > 0
    assert last.largest_eigenvalue == pytest.approx(value, rel=0.02)
    assert last.smallest_eigenvalue < last.largest_eigenvalue


def test_the_report_has_the_curves(runs, tmp_path):
    store = Store(tmp_path)
    config = replace(PLAIN, curvature=2, weights=False)
    store.save(config, replace(runs[1], weights=None), {})
    names = {drawn.name for drawn in draw_all(read_records(tmp_path))}
    assert {"largest_eigenvalue", "smallest_eigenvalue"} <= names
    assert pd.read_parquet(tmp_path / "runs" / config.hash / "metrics.parquet")["largest_eigenvalue"].notna().sum() == 2


def test_runs_without_it_keep_their_names():
    assert "curvature" not in PLAIN.identity()
    assert replace(PLAIN, curvature=1).hash != PLAIN.hash


def test_several_processes_cannot():
    with pytest.raises(BadInput, match="curvature"):
        replace(PLAIN, curvature=1, devices=2, strategy="ddp")
