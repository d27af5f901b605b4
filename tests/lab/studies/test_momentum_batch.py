"""The study `momentum-batch`: escapes against theory, both readings of momentum, and verdicts that can fail."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from fenland.lab.errors import BadInput
from fenland.lab.replicas.escapes import escapes, median, predicted
from fenland.lab.studies import find
from fenland.lab.studies.momentum_batch import NAMES as METHODS
from fenland.lab.studies.momentum_batch import READINGS, Config
from fenland.lab.studies.momentum_batch_training import GRID

SADDLE = {"strength": 1.0, "std": 1.0, "radius": 1.0}
SMALL = Config(
    paths=60, steps=500, lr=0.05, momenta=(0.0, 0.9), batches=(1, 64), train_batches=(32, 256), epochs=1, seeds=(0, 1)
)


@pytest.mark.parametrize(("method", "rho"), [("SGD", 0.0), ("USAM", 0.5)])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_medians_follow_the_closed_form(method, rho, momentum):
    steps = escapes(method, rho, 0.02, momentum, (4,), **SADDLE, paths=400, steps=1000, seed=1)["step"]
    theory = predicted(method, rho, 0.02, momentum, 4, 1.0, 1.0, 1.0)
    middle, low, high = median(steps)
    assert low <= middle <= high
    assert middle == pytest.approx(theory, rel=0.1)


def test_the_closed_form_is_silent_where_there_is_none_and_infinite_where_held():
    assert np.isnan(predicted("SAM", 0.1, 0.02, 0.0, 4, 1.0, 1.0, 1.0))
    assert predicted("USAM", 1.5, 0.02, 0.0, 4, 1.0, 1.0, 1.0) == np.inf


def test_the_median_counts_what_never_left():
    steps = pd.Series([1.0, 2.0, 3.0, np.nan, np.nan])
    assert median(steps)[0] == 3.0
    assert median(pd.Series([1.0, np.nan, np.nan]))[0] == np.inf
    spread = pd.Series(np.arange(1.0, 101.0))
    assert median(spread) == (51.0, 41.0, 61.0)


def test_a_run_that_is_that_of_both_readings_is_a_row_of_each():
    cases = GRID.cases(SMALL)
    plan = list(zip(cases, GRID.runs(SMALL, SimpleNamespace(data_dir=lambda data: None)), strict=True))
    hashes = [{run.hash for case, run in plan if case["reading"] == reading} for reading in READINGS]
    assert len(plan) == 2 * 3 * 2 * 2 * 2
    assert len(hashes[0] & hashes[1]) == len(plan) // 4


def test_the_same_lr_reading_and_the_other_share_the_largest_momentum():
    lab = SimpleNamespace(data_dir=lambda data: None)
    plan = list(zip(GRID.cases(SMALL), GRID.runs(SMALL, lab), strict=True))
    runs = [{(r.momentum, r.lr) for case, r in plan if case["reading"] == reading} for reading in READINGS]
    assert runs[0] == {(0.0, 0.02), (0.9, 0.02)}
    assert runs[1] == {(0.0, 0.2), (0.9, 0.02)}


def _medians(change=lambda row: 0.0):
    """Medians in which everything claimed holds, but for what `change` adds."""
    slow = {"SGD": 1.0, "SSAM-U": 1.5, "USAM": 2.0, "SSAM": 1.2, "SAM": 1.6}
    rows = []
    for method in METHODS:
        for reading in READINGS:
            for momentum in (0.0, 0.9):
                for batch in (1, 64):
                    gap = 1 + (slow[method] - 1) * (0.5 if momentum else 1.0)
                    value = 100 * gap * (1 + 0.2 * (batch > 1)) * (0.2 if momentum else 1.0)
                    rows.append([method, reading, momentum, batch, value])
    table = pd.DataFrame(rows, columns=["method", "reading", "momentum", "batch", "median"])
    table["theory"] = table["median"].where(table["method"].isin(["SGD", "USAM"]))
    table["median"] += table.apply(change, axis=1)
    return table.assign(low=table["median"] - 1, high=table["median"] + 1, escaped=1.0)


def _runs(momentum=5.0, batch=5.0, more=1.0):
    """Accuracies with these gains in points by momentum, by the small batch, and more by momentum for SAM."""
    rows = []
    for optimizer in ("sgd", "sam", "ssam"):
        for m in (0.0, 0.9):
            for b in (16, 128):
                for seed in range(4):
                    gain = momentum * (m > 0) + batch * (b == 16) + more * (m > 0) * (optimizer == "sam")
                    noise = 0.01 * ((seed * 7 + b + int(10 * m) * ord(optimizer[1])) % 5)
                    rows.append([optimizer, m, b, seed, "finished", (80 + gain + noise) / 100])
    names = ["optimizer", "momentum", "batch_size", "seed", "status", "test_accuracy"]
    table = pd.DataFrame(rows, columns=names)
    return pd.concat([table.assign(reading=reading) for reading in READINGS])


def _judged(medians=None, trained=None):
    tables = {"medians": _medians() if medians is None else medians, "trained": _runs() if trained is None else trained}
    return {v.claim: v.holds for v in find("momentum-batch").judge(SMALL, tables)}


def test_doctored_tables_flip_the_verdicts():
    assert all(_judged().values())
    same = _judged(_medians(lambda row: 500 if row["momentum"] and row["reading"] == READINGS[0] else 0))
    assert not any(holds for claim, holds in same.items() if claim.startswith("Momentum speeds the escape of"))
    other = _judged(_medians(lambda row: 500 if row["momentum"] and row["reading"] == READINGS[1] else 0))
    assert not any(holds for claim, holds in other.items() if "beyond what" in claim)
    large = _judged(_medians(lambda row: -25 if row["batch"] > 1 else 0))
    assert not any(holds for claim, holds in large.items() if claim.startswith("Small batches speed"))
    fast = _judged(_medians(lambda row: -90 if row["method"] == "SSAM" and not row["momentum"] else 0))
    assert not any(holds for claim, holds in fast.items() if "escapes first" in claim)
    far = _judged(_medians(lambda row: 0.3 * row["median"] if row["method"] == "USAM" else 0))
    assert not any(holds for claim, holds in far.items() if "closed form" in claim)
    wide = _judged(_medians(lambda row: row["median"] if row["momentum"] and row["method"] in ("SAM", "USAM") else 0))
    assert not any(holds for claim, holds in wide.items() if "closes the gap" in claim)


def test_doctored_runs_flip_the_verdicts():
    worse = _judged(trained=_runs(momentum=-5, batch=-5, more=-1))
    assert [worse[c] for c in worse if "generalises better" in c or "more than SGD" in c] == [False] * 5
    nothing = _runs(momentum=0, batch=0, more=0)
    nothing["test_accuracy"] += np.random.default_rng(0).normal(0, 0.02, len(nothing))
    assert None in _judged(trained=nothing).values()


LARGE = find("momentum-batch").presets["paper"]


def _corner(loss=1.4, stuck=0.5, sam=0.25, sgd=0.05, normed=(0.9508, 0.8620), spread=0.0579, noise=1e-3):
    """What the paper says of ResNet-18: without momentum at rho 0.5 and B = 512, and Table 1."""
    rows, table = [], []
    for seed in range(3):
        wobble = noise * (seed - 1)
        for momentum in (0.0, 0.9):
            for batch in (128, 512):
                for name, rho in (("sgd", np.nan), ("sam", 0.1), ("sam", 0.5)):
                    held = name == "sam" and rho == 0.5 and batch == 512
                    low = stuck if held else 0.70 + 0.02 * (batch == 128)
                    gain = (sam if held else sgd if name == "sgd" else 0.10) * (momentum > 0)
                    about = {"reading": READINGS[0], "optimizer": name, "momentum": momentum, "batch_size": batch}
                    rows.append({**about, "rho": rho, "seed": seed, "status": "finished", "train_loss": loss + wobble,
                                 "test_accuracy": low + gain + wobble * (1 + momentum)})  # fmt: skip
        for rho, cells in ((0.1, {0.95: normed[0]}), (0.5, {0.0: normed[1], 0.9: normed[1] + spread})):
            table += [{"rho": rho, "momentum": m, "seed": seed, "test_accuracy": x + wobble} for m, x in cells.items()]
    return {"medians": _medians(), "trained": pd.DataFrame(rows), "normed": pd.DataFrame(table)}


def test_the_papers_numbers_are_judged_at_its_scale_alone():
    words = ("does not get anywhere", "points and more there", "come out again", "depends on momentum: 5.79")

    def answers(config=LARGE, **changes):
        found = find("momentum-batch").judge(config, _corner(**changes))
        return [next(v.holds for v in found if word in v.claim) for word in words]

    assert answers() == [True] * 4
    assert answers(loss=0.8) == [False, True, True, True]
    assert answers(stuck=0.65) == [False, True, True, True]
    assert answers(sam=0.15)[1] is False
    assert answers(normed=(0.93, 0.8620))[2] is False
    assert answers(spread=0.01)[3] is False
    assert answers(noise=0.3)[:2] == [None, None]
    assert answers(replace(LARGE, model="lenet")) == [None] * 4
    assert "lenet on cifar10" in find("momentum-batch").judge(replace(LARGE, model="lenet"), _corner())[-1].note


def test_sgd_has_no_radius_and_is_one_run_of_both():
    config = find("momentum-batch").presets["two-cores"]
    runs = find("momentum-batch").trained(config, SimpleNamespace(data_dir=lambda data: None))
    assert len({run.hash for run in runs}) == (1 + 2) * 2 * 2 * 3
    assert {(run.optimizer, run.rho) for run in runs} == {("sgd", None), ("sam", 0.1), ("sam", 0.5)}
    assert {(run.model, run.augment, run.limit, run.epochs) for run in runs} == {("lenet", False, None, 10)}


def test_the_paper_preset_is_the_papers_network():
    runs = find("momentum-batch").trained(LARGE, SimpleNamespace(data_dir=lambda data: None))
    assert {(run.model, run.augment) for run in runs} == {("resnet18-plain", False), ("resnet18", True)}
    assert {run.momentum for run in runs if run.model == "resnet18"} == {0.0, 0.5, 0.9, 0.95}
    assert {run.batch_size for run in runs if run.model == "resnet18-plain"} == {128, 512}


@pytest.mark.parametrize("files", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_draws(tmp_path, files):
    from fenland.lab.figures import inline_svg, save_files

    study = find("momentum-batch")
    for drawn in study.draw(SMALL, {"medians": _medians(), "trained": _runs()}):
        if files:
            assert all(path.stat().st_size > 5000 for path in save_files(drawn, list(drawn.labels), tmp_path))
        assert inline_svg(drawn, list(drawn.labels)).startswith("<svg")


@pytest.mark.slow
def test_the_study_runs(tmp_path):
    from rich.console import Console

    from fenland.lab.study.laboratory import Laboratory

    study = find("momentum-batch")
    tables = study.runs(SMALL, Laboratory(tmp_path, study, Console(quiet=True)))
    assert len(tables["trained"]) == 2 * 3 * 2 * 2 * 2
    holds = {v.claim: v.holds for v in study.judge(SMALL, tables)}
    assert all(holds[c] for c in holds if c.startswith(("Momentum speeds the escape of", "Small batches speed")))


def test_bad_settings_are_named():
    with pytest.raises(BadInput, match="rho"):
        Config(rho=1.5)
    with pytest.raises(BadInput, match="train_batches"):
        Config(train_batches=(16,))
