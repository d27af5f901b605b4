"""A run of the plan on tiny images: what its row holds, that it goes on, and what corruptions do."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from gains import plan, run
from gains.corruptions import CORRUPTIONS, NOISE
from gains.tasks import TASKS, Task

GENERATOR = np.random.default_rng(0)


@pytest.fixture
def tiny() -> Task:
    """Digits in place of Fashion-MNIST: 128 to train on, 64 to choose by, two epochs."""
    task = TASKS["fashion-5k"]
    fields = {**task.fields, "limit": 128, "epochs": 2, "batch_size": 32}
    return dataclasses.replace(task, data="digits", fields=fields, examples=128, validate=64)


def test_a_row_holds_what_was_run_what_came_of_it_and_what_it_cost(tiny: Task, tmp_path: Path) -> None:
    unit = plan.unit("tiny", tiny, "late SAM", plan.TEST, (0.05, 0.1), seed=1)
    row = json.loads(json.dumps(run.carry_out(unit, None, tmp_path)))
    assert (row["task"], row["method"], row["purpose"], row["status"]) == ("tiny", "late SAM", "test", "finished")
    assert row["settings"] == unit.settings
    assert row["gradient_evaluations"] == 8 + 2
    assert row["process_seconds"] > 0
    assert 0 < row["test_accuracy"] <= 1
    assert 0 <= row["test_ece"] <= 1
    assert set(row["corruptions"]) == set(CORRUPTIONS)
    assert {"torch", "commit", "cpu", "time"} <= set(row["environment"])
    assert list(tmp_path.iterdir()) == []


def test_choosing_is_tested_on_held_out_examples_and_not_on_corrupted_ones(tiny: Task, tmp_path: Path) -> None:
    unit = plan.unit("tiny", tiny, "SGD", plan.CHOOSING, (0.05, None))
    row = run.carry_out(unit, None, tmp_path)
    assert "corruptions" not in row
    assert row["test_accuracy"] * 64 == pytest.approx(round(row["test_accuracy"] * 64))


def test_clean_test_images_are_tested_as_in_training(
    tiny: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CORRUPTIONS", {"none": lambda images: images})
    row = run.carry_out(plan.unit("tiny", tiny, "SGD", plan.TEST, (0.05, None)), None, tmp_path)
    assert row["corruptions"]["none"]["accuracy"] == row["test_accuracy"]
    assert row["corruptions"]["none"]["loss"] == pytest.approx(row["test_loss"], rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_corruptions_keep_shape_and_type_and_are_the_same_each_time(shape: tuple[int, int, int]) -> None:
    images = GENERATOR.integers(0, 256, (20, *shape)).astype(np.uint8)
    for corrupt in CORRUPTIONS.values():
        spoiled = corrupt(images)
        assert spoiled.shape == images.shape
        assert spoiled.dtype == np.uint8
        assert (spoiled == corrupt(images)).all()
        assert (spoiled != images).any()


def test_what_each_corruption_does() -> None:
    grey = np.full((50, 1, 28, 28), 128, np.uint8)
    assert (CORRUPTIONS["noise"](grey) - 128.0).std() == pytest.approx(255 * NOISE, rel=0.02)
    assert (CORRUPTIONS["blur"](grey) == 128).all()
    assert (CORRUPTIONS["contrast"](grey) == 128).all()
    halves = grey.copy()
    halves[..., :14], halves[..., 14:] = 100, 200
    assert set(np.unique(CORRUPTIONS["contrast"](halves))) == {130, 170}
    edge = CORRUPTIONS["blur"](halves)[0, 0, 14]
    assert (edge[:9] == 100).all()
    assert (edge[-9:] == 200).all()
    assert (np.diff(edge.astype(int))[11:16] > 0).all()
