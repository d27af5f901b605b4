"""The study `architectures`: the report's setting, failed runs are counted, verdicts follow the tables."""

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fenland.lab.errors import BadInput
from fenland.lab.figures import inline_svg
from fenland.lab.studies import find
from fenland.lab.studies.architectures import Config, family_of
from fenland.lab.study.grid import failed
from fenland.lab.study.run import run_study
from fenland.lab.training.optimizers import build_optimizer

STUDY = find("architectures")
PAPER = STUDY.presets["paper"]
NOWHERE = SimpleNamespace(data_dir=lambda data: None)
# Test accuracies at which everything that the report says holds.
SAID = {
    "resnet20": {"sgd": 0.91, "sam": 0.92, "asam": 0.93},
    "wrn16-8": {"sgd": 0.95, "sam": 0.96, "asam": 0.97},
    "pyramidnet110-a48": {"sgd": 0.94, "sam": 0.94, "asam": 0.92},
    "vgg16": {"sgd": 0.93, "sam": 0.94, "asam": 0.94},
}


def test_the_paper_preset_is_the_published_setting():
    runs = STUDY.runs.runs(PAPER, NOWHERE)
    assert len({run.hash for run in runs}) == 5 * 3 * 3
    assert {run.lr for run in runs} == {0.1}
    assert {(run.optimizer, run.rho, run.options) for run in runs} == {
        ("sgd", None, ()), ("sam", 0.05, ()), ("asam", 2.0, ("eta=0",)),
    }  # fmt: skip
    from torch import nn

    assert all(build_optimizer(run, nn.Linear(2, 2)) for run in runs[::3])


def test_runs_fail_by_diverging_or_by_guessing():
    runs = pd.DataFrame(
        [["finished", 0.9], ["finished", 0.101], ["diverged", 0.1], ["diverged", 0.8]],
        columns=["status", "test_accuracy"],
    )
    assert failed(runs.assign(chance=0.1)).tolist() == [False, True, True, True]


def made(accuracy=None, dead=(("sam", 1), ("asam", 1)), noise=0.0005, config=PAPER):
    """Tables with these accuracies, and so many failed runs on VGG."""
    rng = np.random.default_rng(0)
    rows, epochs = [], []
    for model, scores in (accuracy or SAID).items():
        for optimizer, score in scores.items():
            for number, seed in enumerate(config.seeds):
                broken = model.startswith("vgg") and number < dict(dead).get(optimizer, 0)
                found = 0.1 if broken else score + noise * rng.standard_normal()
                run = f"{model}{optimizer}{seed}"
                rows.append([run, model, family_of(model), optimizer, seed, "finished", found, 0.1, broken])
                epochs += [[run, model, optimizer, seed, epoch, found, 1 - found] for epoch in (1, 2)]
    names = ["run", "model", "family", "optimizer", "seed", "status", "test_accuracy", "chance", "failed"]
    along = ["run", "model", "optimizer", "seed", "epoch", "test_accuracy", "test_loss"]
    return {
        "runs": pd.DataFrame(rows, columns=names),
        "epochs": pd.DataFrame(epochs, columns=along),
        "data": pd.DataFrame([{"data": "cifar10", "stored": ""}]),
    }


def answers(config=PAPER, **changes):
    return [verdict.holds for verdict in STUDY.judge(config, made(config=config, **changes))]


def test_what_the_report_says_holds():
    # Three runs of SGD that do not fail leave open whether one in three would.
    assert answers() == [True] * 7 + [None]


def test_doctored_tables_flip_the_verdicts():
    worse = {model: {"sgd": 0.95, "sam": 0.93, "asam": 0.91} for model in ("resnet20", "wrn16-8")}
    assert answers(accuracy={**SAID, **worse})[:4] == [False] * 4
    far = {"sgd": 0.90, "sam": 0.94, "asam": 0.95}
    assert answers(accuracy={**SAID, "pyramidnet110-a48": far})[4:6] == [False, False]
    assert answers(noise=0.2)[:6] == [None] * 6


def test_failures_are_judged_by_what_so_few_runs_can_say():
    few = answers(dead=())
    assert few[6:] == [None, None]
    many = replace(PAPER, seeds=tuple(range(20)))
    assert answers(many, dead=())[6:] == [False, True]
    assert answers(many, dead=(("sam", 3), ("asam", 1), ("sgd", 2)))[6:] == [True, False]
    assert answers(many, dead=(("sam", 3),))[6] is False
    assert answers(replace(many, epochs=10))[6:] == [None, None]


def test_failed_runs_are_left_out_of_means_and_counted_beside():
    sheet = STUDY.list(PAPER, made())[0]
    row = next(row for row in sheet.rows if row[0] == "vgg16")
    assert float(row[2].split()[0]) == pytest.approx(94.0, abs=0.2)
    assert row[2].endswith("1 of 3 failed")
    assert "failed" not in row[1]


def test_it_runs_and_a_failing_network_is_counted(tmp_path):
    """A step of ten times the weights makes an ASAM that learns nothing."""
    overrides = {
        "models": "wrn10-1",
        "asam_rho": "1e4",
        "seeds": "0,1",
        "epochs": "4",
        "limit": "256",
        "batch_size": "32",
    }
    done = run_study(STUDY, "quick", overrides, tmp_path, console=Console(file=io.StringIO()))
    runs = pd.read_parquet(done.folder / "tables" / "runs.parquet")
    assert len(runs) == 6
    assert [verdict.holds for verdict in done.verdicts] == [None, None]
    broken = runs.groupby("optimizer")["failed"].sum()
    assert broken["asam"] == 2
    assert broken["sgd"] == 0
    assert "2 of 2 failed" in done.report.read_text()


def test_it_draws():
    for drawn in STUDY.draw(PAPER, made()):
        assert inline_svg(drawn, list(drawn.labels)).startswith("<svg")


def test_bad_settings_are_named():
    with pytest.raises(BadInput, match="models"):
        Config(models=("mlp",))
    with pytest.raises(BadInput, match="asam_rho"):
        Config(asam_rho=0.0)
