"""The plan: what it holds, in which order, and how it goes on from its records."""

from pathlib import Path

import pytest

from gains import plan
from gains.outlook import outlook
from gains.records import Rows
from gains.tasks import TASKS

KEY = "fashion-5k"
TASK = {KEY: TASKS[KEY]}


def row(
    unit: plan.Unit, accuracy: float | None = 0.5, status: str = "finished", loss: float = 1.0
) -> dict[str, object]:
    return {
        "task": unit.task, "method": unit.method, "purpose": unit.purpose, "status": status, "settings": unit.settings,
        "test_loss": loss, "test_accuracy": accuracy, "process_seconds": 2.0, "gradient_evaluations": unit.steps,
    }  # fmt: skip


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path / "records")


def follow(rows: Rows, count: int, tasks: dict[str, object] = TASK) -> list[plan.Unit]:
    """Do the next so many runs, all with the same result."""
    done = []
    for _ in range(count):
        unit = next(each for each in plan.missing(tasks, rows) if each.known)
        rows.add(unit.task, row(unit))
        done.append(unit)
    return done


@pytest.mark.parametrize("key", TASKS)
def test_every_method_of_a_task_has_the_same_number_of_tries(key: str) -> None:
    task = TASKS[key]
    assert {len(method.points) for method in task.methods.values()} == {4}
    assert sum(method.role == "base" for method in task.methods.values()) == 1
    named = {method.same_seconds for method in task.methods.values()} - {""}
    assert all(task.methods[name].role == "matched" for name in named)
    # An ascent has two learning rates by two radii, what has none has four learning rates.
    for method in task.methods.values():
        rates, radii = ({point[index] for point in method.points} for index in (0, 1))
        assert (len(rates), len(radii)) in ((4, 1), (2, 2))
        assert (radii == {None}) == (len(rates) == 4)


@pytest.mark.parametrize("key", TASKS)
def test_choosing_never_sees_the_test_set_and_testing_always_does(key: str, rows: Rows) -> None:
    task = TASKS[key]
    for name, method in task.methods.items():
        for purpose in (plan.CHOOSING, plan.RADIUS):
            assert plan.unit(key, task, name, purpose, method.points[0]).run.validate == task.validate > 0
        assert plan.unit(key, task, name, plan.TEST, method.points[0]).run.validate == 0


def test_choosing_takes_half_the_steps_and_late_sam_begins_at_three_quarters() -> None:
    task = TASKS[KEY]
    half = plan.unit(KEY, task, "late SAM", plan.CHOOSING, (0.1, 0.1))
    whole = plan.unit(KEY, task, "late SAM", plan.TEST, (0.1, 0.1))
    assert (half.steps, whole.steps) == (20 * 39, 40 * 39)
    assert half.run.options == (f"start={round(0.75 * half.steps)}",)
    assert whole.gradients == pytest.approx(1.25 * whole.steps * 128)
    # The bases with the methods' seconds take the methods' gradients.
    for method, base in (("SAM", "SGD, seconds of SAM"), ("late SAM", "SGD, seconds of late SAM")):
        ours, theirs = (plan.unit(KEY, task, name, plan.TEST, task.methods[name].points[0]) for name in (method, base))
        assert ours.gradients == theirs.gradients


def test_a_comparison_of_base_and_sam_comes_before_all_else(rows: Rows) -> None:
    first = follow(rows, 8 + 2 * plan.EARLY)
    assert {unit.method for unit in first} == {"SGD", "SAM"}
    assert [unit.purpose for unit in first] == [plan.CHOOSING] * 8 + [plan.TEST] * 6
    assert [unit.run.seed for unit in first[8:]] == [0, 0, 1, 1, 2, 2]


def test_the_whole_plan_is_done_run_by_run_and_then_nothing_is_missing(rows: Rows) -> None:
    every = len(list(plan.units(TASK, rows)))
    seen = follow(rows, sum(1 for _ in plan.missing(TASK, rows)) - 4)
    # Each method's curve meets its choosing at two of its four radii.
    assert every == len(seen) + 4
    assert plan.missing(TASK, rows) == []
    assert len({str(unit.settings) for unit in seen}) == len(seen)
    assert {unit.run.seed for unit in seen if unit.purpose == plan.TEST} == set(range(TASKS[KEY].seeds))


def test_the_highest_validation_accuracy_is_chosen_and_a_run_that_diverged_is_not(rows: Rows) -> None:
    task = TASKS[KEY]
    points = task.methods["SAM"].points
    for point, accuracy in zip(points, (None, 0.5, 0.6, 0.4), strict=True):
        assert plan.chosen(KEY, task, "SAM", rows) is None
        status = "diverged" if accuracy is None else "finished"
        rows.add(KEY, row(plan.unit(KEY, task, "SAM", plan.CHOOSING, point), accuracy, status))
    assert plan.chosen(KEY, task, "SAM", rows) == points[2]


def test_of_equal_accuracies_the_lower_loss_counts(rows: Rows) -> None:
    task = TASKS[KEY]
    points = task.methods["SGD"].points
    for point, loss in zip(points, (0.5, 0.3, 0.2, 0.4), strict=True):
        rows.add(KEY, row(plan.unit(KEY, task, "SGD", plan.CHOOSING, point), loss=loss))
    assert plan.chosen(KEY, task, "SGD", rows) == points[2]


def test_another_process_goes_on_where_the_records_end(rows: Rows) -> None:
    done = follow(rows, 3)
    again = Rows(rows.folder)
    assert [found["settings"] for found in again.of(KEY)] == [unit.settings for unit in done]
    assert next(iter(plan.missing(TASK, again))).settings not in [unit.settings for unit in done]
    again.add(KEY, row(done[0]))
    assert len(again.of(KEY)) == 3


def test_a_changed_setting_makes_a_row_no_longer_the_plans(rows: Rows) -> None:
    unit = follow(rows, 1)[0]
    rows.of(KEY)[0]["settings"]["weight_decay"] = 0.0
    assert next(iter(plan.missing(TASK, rows))).settings == unit.settings


def test_the_outlook_counts_what_is_left_at_the_pace_of_what_is_done(rows: Rows) -> None:
    done = follow(rows, 1)[0]
    (found,) = outlook(TASK, rows)
    assert found.done == 1
    assert found.left == len(plan.missing(TASK, rows))
    gradients = sum(each.gradients for each in plan.missing(TASK, rows))
    assert found.hours == pytest.approx(gradients * 2.0 / (done.steps * 128) / 3600)
