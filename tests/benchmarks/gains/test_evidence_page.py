"""The tables of the evidence say what the records say, and say what is open."""

import dataclasses
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from fenland.lab.figures.style import Canvas
from fenland.lab.store.statistics import interval
from gains import figure, page, plan
from gains.page import Compared
from gains.records import Row, Rows
from gains.summary import MEASURES, cost, difference
from gains.tasks import TASKS

GAINED = (0.01, 0.02, 0.03)


def result(method: str, seed: int, accuracy: float, seconds: float, status: str = "finished") -> Row:
    spoiled = {kind: {"accuracy": accuracy - 0.2, "loss": 1.0, "ece": 0.1} for kind in ("noise", "blur", "contrast")}
    return {
        "task": "t", "method": method, "purpose": plan.TEST, "status": status, "settings": {"seed": seed},
        "test_accuracy": accuracy, "test_loss": 1 - accuracy, "test_ece": 0.05, "train_accuracy": 1.0,
        "process_seconds": seconds, "corruptions": spoiled,
    }  # fmt: skip


@pytest.fixture
def task() -> Compared:
    base = [result("SGD", seed, 0.70 + 0.01 * seed, 10.0) for seed in range(4)]
    sam = [result("SAM", seed, 0.70 + 0.01 * seed + gain, 21.0) for seed, gain in enumerate(GAINED)]
    longer = [result("SGD, longer", seed, 0.72, 20.0) for seed in range(2)]
    return Compared("A task", "SGD", {"SAM": "SGD, longer"}, [*base, *sam, *longer])


def test_differences_are_paired_by_seed(task: Compared) -> None:
    found = difference(task.rows, "SAM", "SGD", MEASURES["accuracy"])
    assert found == pytest.approx(interval([100 * gain for gain in GAINED]))
    assert difference(task.rows, "SAM", "SGD", MEASURES["corrupted"]).mean == pytest.approx(2.0)
    assert cost(task.rows, "SAM", "SGD") == pytest.approx(2.1)
    assert cost(task.rows, "SAM", "nobody") is None


def test_a_row_shows_the_gain_and_a_cell_with_too_few_seeds_is_open(task: Compared) -> None:
    line = page.gains([task]).splitlines()[2]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:2] == ["A task", "SAM"]
    assert re.fullmatch(r"\+2\.00 \(-0\.48 to \+4\.48\)", cells[2])
    assert cells[3] == page.OPEN
    assert cells[4].startswith("-0.020")
    assert cells[7] == "2.10"


def test_bold_is_what_excludes_zero(task: Compared) -> None:
    sure = [result("SAM", seed, 0.80 + 0.01 * seed, 21.0) for seed in range(3)]
    rows = [row for row in task.rows if row["method"] != "SAM"] + sure
    sure[0]["test_accuracy"] += 0.001
    cell = page.shown(Compared("", "SGD", {}, rows), "SAM", "SGD", "accuracy")
    assert cell.startswith("**+10.03")


def test_words_say_what_the_intervals_say(task: Compared) -> None:
    text = page.verdicts([task])
    assert text.startswith(
        "- **SAM**, A task: at the same epochs it shows no difference in accuracy, test loss, calibration error and "
        "accuracy on corrupted images. SGD has fitted its training examples (100.0 % right).\n"
    )
    assert "at the same seconds" not in text
    for row in task.rows:
        if row["method"] == "SAM":
            row["test_loss"] = 0.1 - 0.011 * row["settings"]["seed"]
            row["test_accuracy"] = 0.5 + 0.011 * row["settings"]["seed"]
        row["train_accuracy"] = 0.9
    text = page.verdicts([task])
    assert "at the same epochs it is better in test loss, is worse in accuracy, and shows no difference in" in text
    assert "has not fitted them all (90.0 % right)" in text


def test_runs_that_have_learnt_nothing_are_counted_and_named(task: Compared) -> None:
    assert "learnt nothing" not in page.verdicts([task])
    lost = next(row for row in task.rows if row["method"] == "SAM")
    lost["train_accuracy"] = 0.105
    assert "1 of the 3 runs of SAM has learnt nothing" in page.verdicts([task])
    lost["train_accuracy"] = 0.52
    assert "learnt nothing" not in page.verdicts([task])
    assert "1 of the 3 runs" in page.verdicts([replace(task, classes=2)])


def test_one_sentence_counts_the_comparisons_at_the_same_seconds(task: Compared) -> None:
    assert page.counted([task]) == ""  # no base of the same seconds
    matched = [{**row, "method": "SGD, longer"} for row in task.rows if row["method"] == "SGD"]
    both = Compared("A task", "SGD", {"SAM": "SGD, longer"}, [*task.rows, *matched])
    for row in both.rows:
        if row["method"] == "SAM":
            row["test_loss"] = 0.1 - 0.011 * row["settings"]["seed"]
    assert page.counted([both, task, both]) == (
        "Of 2 comparisons with a base that trained for the same seconds, the method's accuracy shows no difference "
        "in 2; test loss is better in 2; calibration error shows no difference in 2."
    )


def test_without_seeds_nothing_is_said() -> None:
    empty = Compared("A task", "SGD", {"SAM": ""}, [result("SGD", 0, 0.7, 1.0), result("SAM", 0, 0.8, 2.0)])
    assert page.gains([empty]) == f"{page.NOTHING}\n"
    assert figure.gains([empty])[0] == []


def test_a_run_that_diverged_is_no_result(task: Compared) -> None:
    lost = result("SAM", 3, math.nan, 5.0, status="diverged")
    rows = [*task.rows, lost]
    assert difference(rows, "SAM", "SGD", MEASURES["accuracy"]).n == 3
    table = page.means([dataclasses.replace(task, rows=rows)])
    assert "| SAM | 3, 1 diverged |" in re.sub(" +", " ", table)
    alone = page.means([dataclasses.replace(task, rows=[*task.rows[:4], lost])])
    assert "| SAM | 0, 1 diverged | – |" in re.sub(" +", " ", alone)


def test_tasks_without_corrupted_images_show_none(task: Compared) -> None:
    for row in task.rows:
        row.pop("corruptions")
    assert page.shown(task, "SAM", "SGD", "corrupted") == page.NONE
    assert "nan" not in page.means([task])


def test_tries_and_curves_show_each_loss_and_the_choice(tmp_path: Path) -> None:
    key = "fashion-5k"
    task, rows = TASKS[key], Rows(tmp_path)
    assert "No run" in page.tries(rows)
    for index, point in enumerate(task.methods["SAM"].points):
        unit = plan.unit(key, task, "SAM", plan.CHOOSING, point)
        rows.add(key, _choosing(unit, 0.5 - 0.1 * index))
    text = page.tries(rows)
    assert (
        "0.05, 0.1: 50.00, 0.500; 0.05, 0.3: 60.00, 0.400; 0.1, 0.1: 70.00, 0.300; **0.1, 0.3: 80.00, 0.200**" in text
    )
    assert f"| {task.title} | SAM | 0.1 | 0.03: open; 0.1: 70.00, 0.300; 0.3: 80.00, 0.200; 1: open |" in page.curves(
        rows
    )
    assert figure.radii(rows) == {}
    rows.add(key, _choosing(plan.unit(key, task, "SAM", plan.RADIUS, (0.1, 1.0)), 2.0))
    (curves,) = figure.radii(rows).values()
    assert curves["SAM"] == [(0.1, pytest.approx(0.3)), (0.3, pytest.approx(0.2)), (1.0, 2.0)]
    assert "<svg" in figure.svg(
        "radii", "dark", list(plan.CURVES), lambda canvas: figure.draw_radii(canvas, figure.radii(rows)), "words"
    )


def _choosing(unit: plan.Unit, loss: float) -> Row:
    return {
        "task": unit.task, "method": unit.method, "purpose": unit.purpose, "status": "finished",
        "settings": unit.settings, "test_loss": loss, "test_accuracy": 1 - loss, "process_seconds": 1.0,
        "gradient_evaluations": 10,
    }  # fmt: skip


def test_the_picture_has_a_row_a_method_and_is_the_same_each_time(task: Compared) -> None:
    lines, draw = figure.gains([task])
    assert [label for label, _ in lines] == ["A task", "SAM"]
    assert set(lines[1][1]) == {(measure, figure.EPOCHS) for measure in figure.PANELS}
    pictures = {figure.svg("gains", "light", [figure.EPOCHS, figure.SECONDS], draw, page.ALT_GAINS) for _ in range(2)}
    (picture,) = pictures
    assert "A task" in picture
    assert page.ALT_GAINS.split(",")[0] in picture
    panels = draw(Canvas(figure.INKS["light"], [figure.EPOCHS, figure.SECONDS])).axes
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["SAM"]
    assert [axes.get_xlabel() for axes in panels] == list(figure.PANELS.values())
    for axes, measure in zip(panels, figure.PANELS, strict=True):
        # An interval and a mean: those of the measure that the axis is named after.
        it = lines[1][1][measure, figure.EPOCHS]
        assert [list(line.get_xdata()) for line in axes.lines] == [[it.low, it.high], [it.mean]]
