"""The study `radius`: its setting is the report's, its loss is the base code's, verdicts follow the tables."""

import io
import math
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from rich.console import Console
from torch.nn.functional import cross_entropy

from fenland.lab.errors import BadInput
from fenland.lab.figures import inline_svg
from fenland.lab.studies import find
from fenland.lab.studies.investigations import SMOOTHING, divergence
from fenland.lab.studies.radius import TABLE_I, Config
from fenland.lab.study.run import run_study

STUDY = find("radius")
PAPER = STUDY.presets["paper"]
COLUMNS = TABLE_I.columns
PUBLISHED = {rho: (cell.mean / 100, COLUMNS["loss"][rho].mean) for rho, cell in COLUMNS["test_accuracy"].items()}
NOWHERE = SimpleNamespace(data_dir=lambda data: None)


def test_the_paper_preset_is_the_published_setting():
    runs = STUDY.runs.runs(PAPER, NOWHERE)
    assert {run.rho for run in runs} == {0.01, 0.05, 0.1, 0.5}
    assert {run.seed for run in runs} == {0, 10, 42}
    assert len({run.hash for run in runs}) == 12
    one = runs[0]
    assert (one.data, one.epochs, one.schedule, one.lr, one.momentum, one.weight_decay, one.limit) == (
        "cifar10", 200, "step", 0.1, 0.9, 5e-4, None,
    )  # fmt: skip


def test_the_training_loss_is_that_of_the_base_code_up_to_a_constant():
    """torch's smoothing of 1/9 over ten classes puts 0.9 on the true class and a ninetieth on each other."""
    logits = torch.randn(7, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(7)
    ours = cross_entropy(logits, labels, label_smoothing=SMOOTHING, reduction="none")
    gap = ours - divergence(logits, labels)
    assert torch.allclose(gap, gap[0].expand(7))
    perfect = torch.full((1, 10), 0.1 / 9, dtype=torch.float64)
    perfect[0, 3] = 0.9
    assert divergence(perfect.log(), torch.tensor([3])).item() == pytest.approx(0.0, abs=1e-12)
    flat = divergence(torch.zeros(1, 10), torch.tensor([3])).item()
    assert flat == pytest.approx(math.log(10) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1 / 9), rel=1e-6)


def tables(config=PAPER, shift=(0.0, 0.0, 0.0, 0.0), stored="", noise=1e-4):
    """Runs that give the published numbers, accuracies and losses of each radius moved by `shift` (share of 1)."""
    rows, epochs = [], []
    for (rho, row), by in zip(PUBLISHED.items(), shift, strict=True):
        for number, seed in enumerate(config.seeds):
            wobble = noise * (number - 1) * (1 + rho)
            loss = row[1] - by + wobble
            rows.append(
                [f"{rho}-{seed}", rho, seed, "finished", row[0] + by + wobble, loss, loss, 0.001 * (1 + 9 * rho)]
            )
            marks = (config.epochs * 3 // 10, config.epochs * 6 // 10)
            for epoch in range(1, config.epochs + 1):
                level = 0.5 - 0.2 * sum(epoch > mark for mark in marks) - 0.0001 * epoch
                epochs.append([f"{rho}-{seed}", rho, seed, epoch, 0.9, level, level])
    names = ["run", "rho", "seed", "status", "test_accuracy", "test_loss", "smoothed_loss", "train_loss"]
    along = ["run", "rho", "seed", "epoch", "test_accuracy", "test_loss", "train_eval_loss"]
    return {
        "runs": pd.DataFrame(rows, columns=names),
        "epochs": pd.DataFrame(epochs, columns=along),
        "data": pd.DataFrame([{"data": config.data, "stored": stored}]),
    }


def answers(*args, config=PAPER, **kwargs):
    return [verdict.holds for verdict in STUDY.judge(config, tables(config, *args, **kwargs))]


def test_the_published_numbers_hold():
    assert answers() == [True] * 8


@pytest.mark.parametrize(
    ("shift", "flipped"),
    [
        ((0.01, 0, 0, 0), {0, 2, 6, 7}),  # the smallest radius best: neither the order nor the values
        ((0, 0, 0, 0.05), {0, 1, 2, 3, 6, 7}),  # the largest best
        ((0.01, 0.01, 0.01, 0.01), {6, 7}),  # the same order at other values
    ],
)
def test_doctored_tables_flip_the_verdicts(shift, flipped):
    found = answers(shift)
    assert {index for index, holds in enumerate(found) if holds is False} == flipped


def test_a_descent_that_is_not_slowed_and_a_loss_that_does_not_drop_are_seen():
    made = tables()
    made["runs"]["train_loss"] = 0.01 / (1 + made["runs"]["rho"]) + 1e-5 * made["runs"]["seed"]
    made["epochs"]["test_loss"] = 1.0 / made["epochs"]["epoch"]
    found = {verdict.claim[:14]: verdict.holds for verdict in STUDY.judge(PAPER, made)}
    assert found["A large radius"] is False
    assert found["In most runs t"] is False


def test_small_scale_and_lossy_images_leave_open_what_they_cannot_decide():
    small = STUDY.judge(replace(PAPER, epochs=20), tables(replace(PAPER, epochs=20)))
    assert [verdict.holds for verdict in small] == [None] * 4 + [True] + [None] * 3
    assert all("Not decided" in verdict.note for verdict in small if verdict.holds is None)
    lossy = STUDY.judge(PAPER, tables(stored="JPEG"))
    assert [verdict.holds for verdict in lossy] == [True] * 6 + [None] * 2
    assert all("JPEG" in verdict.note for verdict in lossy)


def test_equal_radii_stay_open():
    noisy = answers(shift=(0.0028, 0, 0, 0), noise=3e-3)
    assert noisy[0] is None


def test_a_diverged_radius_counts_as_guessing(tmp_path):
    """Run for real on digits, one radius so large that nothing is learned."""
    overrides = {"model": "mlp", "rhos": "0.05,0.5", "seeds": "0,1", "epochs": "2", "limit": "256"}
    done = run_study(STUDY, "quick", overrides, tmp_path, console=Console(file=io.StringIO()))
    runs = pd.read_parquet(done.folder / "tables" / "runs.parquet")
    assert len(runs) == 4
    assert (runs["chance"] == 0.1).all()
    assert runs["smoothed_loss"].between(0, 5).all()
    assert {verdict.holds for verdict in done.verdicts} <= {None, True, False}
    page = done.report.read_text()
    assert "Accuracy and loss by radius" in page
    assert "96.89" not in page.split("<table>")[0]


def test_it_draws():
    for drawn in STUDY.draw(PAPER, tables()):
        assert inline_svg(drawn, list(drawn.labels)).startswith("<svg")
    sheet = STUDY.list(PAPER, tables())[0]
    assert sheet.rows[1][:2] == ("0.05", "97.17")
    assert sheet.rows[1][2].startswith("97.17 ±")


def test_bad_settings_are_named():
    with pytest.raises(BadInput, match="rhos"):
        Config(rhos=(0.05,))
    with pytest.raises(BadInput, match="rhos"):
        Config(rhos=(0.05, -0.1))
