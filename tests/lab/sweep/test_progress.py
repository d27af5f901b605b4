"""The bars on a terminal: a row is one line, and on a narrow one the words are cut, never the time left."""

import io
import math

import pytest
from rich.console import Console

from fenland.lab.config import RunConfig
from fenland.lab.sweep.progress import describe, names, watch


def rows(width: int) -> list[str]:
    runs = [RunConfig("digits", "lenet", "sam", seed=seed, epochs=30) for seed in range(12)]
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    record = {"epoch": 2, "train_loss": 2.2956, "test_accuracy": 0.2889, "images_per_second": 2271.0}
    with watch(runs, console) as watcher:
        watcher.epoch(runs[0], record)
        shown = Console(width=width, file=io.StringIO(), color_system=None)
        shown.print(watcher._bars.get_renderable())
    return shown.file.getvalue().rstrip("\n").split("\n")


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_row_is_a_line_and_the_time_left_is_whole(width):
    found = rows(width)
    assert len(found) == 2
    assert all(len(row) <= width for row in found)
    assert all("-:--:--" in row for row in found)
    assert "run 1/12" in found[0]
    whole = "epoch 2/30, loss 2.2956, test 28.89%, 2,271 images/s"
    shown = found[1].partition("epoch")[2].rstrip().removesuffix("…")
    assert whole.removeprefix("epoch").startswith(shown)
    assert (shown == whole.removeprefix("epoch")) is (width == 140)


def test_runs_are_told_apart_by_a_field_that_only_one_of_them_has_set() -> None:
    plain = RunConfig("digits", "mlp", "sgd", cutout=4)
    half = RunConfig("digits", "mlp", "sgd", cutout=4, cutout_share=0.5)
    for runs in ((plain, half), (half, plain)):
        found = names(runs)
        assert found[plain.hash] == "sgd cutout_share=1.0 seed 0"
        assert found[half.hash] == "sgd cutout_share=0.5 seed 0"


def test_an_epoch_that_was_not_evaluated_tells_no_accuracy() -> None:
    record = {"train_loss": 1.0, "test_accuracy": 0.5, "images_per_second": 1000.0}
    assert describe(record) == "loss 1.0000, test 50.00%, 1,000 images/s"
    assert describe({**record, "test_accuracy": math.nan}) == "loss 1.0000, 1,000 images/s"
