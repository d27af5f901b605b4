"""The study `uniform-stability`: members of a pair part by the exchanged example alone, and verdicts follow tables."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.figures import inline_svg
from fenland.lab.studies import find
from fenland.lab.studies.uniform_stability import Config
from fenland.lab.study.run import run_study
from fenland.lab.study.twins import bounds, follow

STUDY = find("uniform-stability")
OPTIMIZERS = ("sgd", "sam", "ssam")
SMALL = {"momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "lr": 0.05, "limit": 64, "batch_size": 16}


def test_a_set_without_its_exchanged_example_gives_the_same_run(monkeypatch):
    """Where the neighbour is the set itself, the members stay together to the last bit."""
    run = RunConfig("digits", "mlp", "ssam", rho=0.05, epochs=2, **SMALL)
    unchanged = data.load(run)
    monkeypatch.setattr(data, "load", lambda config: unchanged)
    assert follow(run, 50)["distance"].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("optimizer", ["sgd", "sam", "ssam"])
def test_the_distance_is_that_of_the_weights_after_the_first_full_batch(optimizer):
    """One step on all examples of a linear model, by autograd alone."""
    rho = None if optimizer == "sgd" else 0.1
    settings = {**SMALL, "batch_size": 64}
    run = RunConfig("digits", "linear", optimizer, seed=2, data_seed=2, rho=rho, epochs=1, **settings)
    row = follow(run, 50).iloc[1]
    ends = []
    for replace in (None, 0):
        images = data.load(RunConfig(**{**run.as_dict(), "replace": replace}))
        torch.manual_seed(2)
        layer = torch.nn.Linear(64, 10)
        w = torch.cat([layer.weight, layer.bias[:, None]], 1).detach().double()
        x, labels = next(data.Batches(images, torch.device("cpu"), 64, 2, dtype=torch.float64).epoch(1))
        x = torch.cat([x.flatten(1), torch.ones(64, 1, dtype=torch.float64)], 1)

        def slope(at, x=x, labels=labels):
            at = at.requires_grad_()
            return torch.autograd.grad(cross_entropy(x @ at.T, labels), at)[0]

        g = slope(w.clone())
        h = g if rho is None else slope(w + rho * g / g.norm())
        ends.append(w - 0.05 * h * (g.norm() / h.norm() if optimizer == "ssam" else 1))
    assert row["distance"] == pytest.approx((ends[0] - ends[1]).norm().item(), rel=1e-4)
    assert row["norm"] == pytest.approx(torch.cat(ends).norm().item(), rel=1e-5)


def test_the_constants_of_the_bound_are_those_of_softmax_regression():
    """L and beta against gradients and Hessians of single examples at random weights; SGD's bound by its formula."""
    run = RunConfig("digits", "linear", "sgd", epochs=3, **{**SMALL, "lr": 1e-3})
    found = bounds(run)
    radius = found["radius"].iloc[0]
    images, labels = next(data.Batches(data.load(run), torch.device("cpu"), 64, 0, dtype=torch.float64).epoch(1))
    x = torch.cat([images.flatten(1), torch.ones(64, 1, dtype=torch.float64)], 1)
    weights = torch.randn(10, 65, dtype=torch.float64)
    for example, label in zip(x[:3], labels[:3], strict=True):
        value = lambda w, e=example, y=label: cross_entropy((w.view(10, 65) @ e)[None], y[None])  # noqa: E731
        flat = weights.flatten().requires_grad_()
        (slope,) = torch.autograd.grad(value(flat), flat)
        assert slope.norm() <= math.sqrt(2) * radius
        curvature = torch.autograd.functional.hessian(value, flat)
        assert torch.linalg.eigvalsh(curvature).max() <= radius**2 / 2
    assert 2 / (radius**2 / 2) > 1e-3
    steps = 4 * found["epoch"]
    assert found["bound"].tolist() == pytest.approx((2 * math.sqrt(2) * radius * 1e-3 * steps / 64).tolist())


def test_methods_without_a_bound_say_why():
    found = bounds(RunConfig("digits", "linear", "ssam", rho=0.05, epochs=1, **SMALL))
    assert found["bound"].isna().all()
    assert "SSAM" in found["why"].iloc[0]


def test_a_pair_that_breaks_ends_early():
    run = RunConfig("digits", "mlp", "sgd", epochs=3, **{**SMALL, "lr": 1e30})
    found = follow(run, 50)
    assert found["status"].iloc[-1] == "diverged"
    assert len(found) < 4


def tables(order=(1.0, 0.8, 0.6), gaps=(0.3, 0.2, 0.1), growth=1.0, bound=10.0, spread=0.01):
    """Distances by optimizer in these ratios, four pairs around them."""
    rows, limits = [], []
    for model in ("mlp", "linear"):
        for name, size, gap in zip(OPTIMIZERS, order, gaps, strict=True):
            for pair in range(4):
                for epoch in range(4):
                    away = 1 + spread * (pair - 1.5)
                    rows.append(
                        {
                            "data": "mnist", "model": model, "optimizer": name, "pair": pair, "epoch": epoch,
                            "status": "finished", "distance": size * (1 + growth * epoch) * away * (epoch > 0),
                            "norm": 100.0, "train_loss": 1.0, "test_loss": 1 + gap * away,
                        }
                    )  # fmt: skip
                    if model == "linear" and epoch:
                        limit = bound * epoch if name != "ssam" else np.nan
                        limits.append({"optimizer": name, "pair": pair, "epoch": epoch, "bound": limit, "why": "no"})
    about = pd.DataFrame([{"data": "mnist", "stored": ""}])
    return {"pairs": pd.DataFrame(rows), "bounds": pd.DataFrame(limits), "data": about}


def judged(found, **settings):
    verdicts = STUDY.judge(Config(**settings), found)
    words = ("grows", "part less", "smaller generalisation gap", "keeps to its bound")
    assert all(any(word in v.claim for word in words) for v in verdicts)
    return {word: [v.holds for v in verdicts if word in v.claim] for word in words}


def test_both_ascents_are_set_against_sgd_and_their_own_renormalised_form():
    both = tables(), tables(order=(1.0, 0.9, 0.7))
    names = {"sam": "usam", "ssam": "ssam-u"}
    own = both[1]["pairs"][both[1]["pairs"]["optimizer"] != "sgd"]
    pairs = pd.concat([both[0]["pairs"], own.replace({"optimizer": names})], ignore_index=True)
    found = [v.claim for v in STUDY.judge(Config(), both[0] | {"pairs": pairs}) if "part less" in v.claim]
    order = (("USAM", "SGD"), ("SSAM-U", "USAM"), ("SAM", "SGD"), ("SSAM", "SAM"))
    assert found == [f"mnist/mlp: the runs of {mine} part less than those of {theirs}." for mine, theirs in order]


@pytest.mark.parametrize("measure", ["normalised", "absolute"])
def test_ordered_tables_hold(measure):
    found = judged(tables(), measure=measure)
    assert found["grows"] == [True]
    assert found["part less"] == found["smaller generalisation gap"] == [True, True]
    assert found["keeps to its bound"] == [True, True, None]


def test_doctored_tables_turn_their_verdicts():
    assert judged(tables(order=(0.6, 0.8, 1.0)))["part less"] == [False, False]
    assert judged(tables(order=(1.0, 0.8, 0.9)))["part less"] == [True, False]
    assert judged(tables(gaps=(0.1, 0.2, 0.05)))["smaller generalisation gap"] == [False, True]
    assert judged(tables(growth=-0.2))["grows"] == [False]
    assert judged(tables(bound=0.5))["keeps to its bound"] == [False, False, None]
    loose = judged(tables(spread=1.3))
    assert loose["smaller generalisation gap"] == [None, None]


def test_the_whole_study_on_digits(tmp_path):
    settings = {"tasks": "digits/mlp", "epochs": "2", "limit": "64", "convex_limit": "64", "pairs": "2",
                "test_examples": "50", "convex_optimizers": "sgd,ssam"}  # fmt: skip
    done = run_study(STUDY, "quick", settings, tmp_path)
    assert len(done.verdicts) == 1 + 4 + 4 + 2
    pieces = sorted((tmp_path / "pieces").glob("*.parquet"))
    assert len(pieces) == 2 * (5 + 2) + 2 * 2, "a pair and an optimizer each"
    pairs = pd.read_parquet(tmp_path / "uniform-stability/tables/pairs.parquet")
    assert (pairs[pairs["epoch"] == 0]["distance"] == 0).all()
    assert (pairs[pairs["epoch"] == 2]["distance"] > 0).all()
    starts = pairs[pairs["epoch"] == 0].groupby(["model", "pair"])["norm"].nunique()
    assert (starts == 1).all(), "all optimizers of a pair start from the same weights"
    pieces[0].unlink()
    (tmp_path / "uniform-stability/config.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in pieces[1:]}
    run_study(STUDY, "quick", settings, tmp_path)
    assert pieces[0].is_file()
    assert all(path.stat().st_mtime_ns == at for path, at in before.items()), "a kill loses one piece"
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "uniform-stability/tables/pairs.parquet"), pairs)


def test_its_figures_show_both_distances_the_gap_and_the_bounds():
    drawn = STUDY.draw(Config(), tables())
    assert [each.name for each in drawn] == ["normalised", "absolute", "gap", "convex"]
    for each in drawn:
        assert "SSAM" in inline_svg(each, list(each.labels))


@pytest.mark.parametrize(
    ("field", "value"), [("tasks", ("mnist",)), ("pairs", 0), ("optimizers", ("sgd", "esam")), ("optimizers", ("sga",))]
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(BadInput, match=field):
        Config(**{field: value})
