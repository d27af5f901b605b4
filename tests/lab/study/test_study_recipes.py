"""What figures of studies draw and say of single seeds and of runs that diverged."""

import io
import math
from dataclasses import dataclass

import pandas as pd
import pytest
from rich.console import Console
from toy import STUDY

from fenland.lab.figures.intervals import draw_intervals
from fenland.lab.figures.plots import plain_number
from fenland.lab.figures.style import PAPER, Canvas
from fenland.lab.study import Grid, Measured, Quantity, Seeds, curves
from fenland.lab.study.grid import C, Training
from fenland.lab.study.laboratory import Laboratory
from fenland.lab.study.quantities import gap, paired
from fenland.lab.study.recipes import line_of
from fenland.lab.study.words import guessed, in_percent, left_out, percent, share

ACCURACY = Quantity("test_accuracy", "Test accuracy, %", unit="points", scale=100)


@dataclass(frozen=True)
class Config(Training):
    model: str = "mlp"
    optimizer: str = "sgd"
    schedule: str = "constant"
    epochs: int = 2
    limit: int = 128
    seeds: tuple[int, ...] = (0, 1)


def case(config, lab, kind, seed):
    """Seed 1 of "wild" has a learning rate that no run stands."""
    return {"seed": seed, "lr": 1e30 if (kind, seed) == ("wild", 1) else 0.05}


def trained(folder, diverged):
    lab = Laboratory(folder, STUDY, Console(file=io.StringIO()))
    return Measured(Config(), Grid(case, diverged=diverged, kind=("tame", "wild"), seed=C.seeds)(Config(), lab))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("grid")


def test_a_diverged_run_is_left_out_as_its_caption_says(folder):
    measured = trained(folder, "out")
    runs = measured["runs"]
    lost = runs[runs["status"] == "diverged"]
    assert left_out(runs) == "1 of 3 runs diverged and are left out."  # two cases share one
    assert len(lost) == 1
    ends = ["test_accuracy", "test_loss", "train_accuracy", "train_loss"]
    assert lost[ends].isna().all(axis=None)
    wild = float(runs[(runs["kind"] == "wild") & (runs["seed"] == 0)]["test_accuracy"].iloc[0])
    assert f"wild: {100 * wild:.4g}" in Seeds("final", ACCURACY, "kind")(measured).description
    assert paired(ACCURACY, "kind", "wild", "tame").measure(measured)[""].n == 1


def test_a_guess_stands_for_a_diverged_run_and_no_other_number_does(folder):
    runs = trained(folder, "guess")["runs"]
    lost = runs[runs["status"] == "diverged"]
    assert lost["test_accuracy"].tolist() == [0.1]
    assert lost[["test_loss", "train_accuracy"]].isna().all(axis=None)


@pytest.mark.parametrize("diverged", ["out", "guess"])
def test_curves_leave_diverged_runs_out_and_say_so(diverged, folder):
    measured = trained(folder, diverged)
    plot = curves("curves", "kind", [ACCURACY.by_epoch], title="Accuracy")
    assert plot(measured).caption.endswith("Runs that diverged are not drawn.")
    epochs = measured["epochs"]
    whole = epochs[(epochs["kind"] == "wild") & (epochs["seed"] == 0)]
    (panel,) = plot.panels(measured)
    assert list(panel.lines[1].y) == pytest.approx((100 * whole["test_accuracy"]).tolist())
    tame = Measured(Config(), {"epochs": epochs[epochs["kind"] == "tame"]})
    assert plot(tame).caption == "Means over seeds, bands are 95 % intervals."


def test_one_seed_has_no_band():
    rows = pd.DataFrame({"epoch": [1, 2], "test_accuracy": [0.5, 0.9], "value": [50.0, 90.0]})
    line = line_of("one", rows, "epoch")
    assert all(map(math.isnan, [*line.low, *line.high]))
    two = line_of("two", pd.concat([rows, rows.assign(test_accuracy=[0.6, 0.98], value=[60.0, 98.0])]), "epoch")
    assert (two.low[0], two.high[1]) == (0.0, 100.0)


@pytest.mark.parametrize("words", [left_out, guessed])
def test_a_run_of_several_cases_counts_once(words):
    runs = pd.DataFrame({"run": ["a", "a", "b"], "status": ["diverged", "diverged", "finished"]})
    assert words(runs).startswith("1 of 2 runs diverged")


@pytest.mark.parametrize(
    ("value", "written"), [(9.9996e-5, "10⁻⁴"), (9.99e-5, "9.99·10⁻⁵"), (-2e-7, "−2·10⁻⁷"), (3e8, "3·10⁸")]
)
def test_a_number_that_rounds_up_to_the_next_power(value, written):
    assert plain_number(value) == written


def test_a_seed_without_one_of_its_numbers_is_no_pair():
    rows = pd.DataFrame({
        "kind": ["a", "a", "b", "b"] * 3, "seed": [0] * 4 + [1] * 4 + [2] * 4,
        "value": [3.0, 1.0, 1.0, 0.0, 4.0, 1.0, 1.0, 0.0, 9.0, math.nan, 1.0, 0.0],
    })  # fmt: skip
    found = gap(rows, "kind", "a", "b")
    assert (found.mean, found.n) == (1.75, 2)


@pytest.mark.parametrize(("numbers", "zero", "written"), [
    ([0.0012, 0.0014], "", "one  0.0013"), ([-0.0012, -0.0014], "SGD", "one  -0.0013"),
    ([97.5, 98.0], "", "one  97.75"), ([0.0, 0.0], "SGD", "one  +0.00"),
])  # fmt: skip
def test_small_means_keep_their_digits(numbers, zero, written):
    figure = draw_intervals("t", "x", Canvas(PAPER, ["one"]), {"one": numbers}, zero)
    assert written in [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize(
    ("of", "written"),
    [(0.0, "0.0"), (1.0, "100.0"), (0.99973, "99.97"), (0.0004, "0.04"), (0.25, "25.0"), (1e-7, "1e-05")],
)
def test_a_share_that_is_not_all_does_not_round_to_all(of, written):
    assert in_percent(of) == written
    assert percent(share(9997, 10000)).startswith("99.97 % [")
    assert in_percent(0.998, 0) == "99.8"
