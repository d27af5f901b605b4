"""Figures of a sweep: a map for each optimizer, and curves of the settings that a reader can tell apart."""

import numpy as np
import pytest
from synthetic_store import write_run

from fenland.lab.figures import draw_all
from fenland.lab.figures.measured import BEST, leading
from fenland.lab.figures.style import PAPER, Canvas
from fenland.lab.report.charts import document
from fenland.lab.store.records import read_records
from fenland.lab.store.statistics import summary

RADII, RATES = (0.01, 0.05, 0.1), (0.05, 0.1, 0.2)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """SAM at eight of nine settings, SGD at three rates; the spread sets the settings apart."""
    out = tmp_path_factory.mktemp("swept")
    for lr in RATES:
        for seed in (0, 1):
            write_run(out, "sgd", seed, epochs=3, lr=lr)
            for rho in RADII:
                if (rho, lr) != (0.1, 0.2):
                    write_run(out, "sam", seed, epochs=3, spread=rho * lr, lr=lr, rho=rho)
    return read_records(out)


def test_the_fields_are_those_that_tell_variants_apart(swept):
    assert swept.fields == ["rho", "lr"]


def test_a_map_has_a_cell_a_setting(swept):
    (drawn,) = [each for each in draw_all(swept) if each.name.startswith("heat_")]
    assert drawn.name == "heat_sam"
    cells = drawn.draw(Canvas(PAPER, swept.labels)).axes[0].collections[0].get_array()
    assert cells.shape == (3, 3)
    assert np.isnan(np.ma.filled(cells, np.nan)[2, 2]), "what was not run is blank"
    table = summary(swept).set_index("optimizer")["test_accuracy"]
    assert cells[0, 1] == pytest.approx(100 * table["sam (lr=0.1, rho=0.01)"])
    best = table[table.index.str.startswith("sam")].max()
    assert f"The best is {100 * best:.2f} at" in drawn.description


def test_curves_show_the_best_settings_and_the_baseline(swept):
    shown = leading(swept)
    table = summary(swept).set_index("optimizer")["test_accuracy"].sort_values(ascending=False)
    assert set(shown) == {*table.index[:BEST], swept.baseline}
    curve = next(each for each in draw_all(swept) if each.name == "test_accuracy")
    assert f"{len(swept.labels) - len(shown)} others are left out" in curve.caption
    page = document(swept)
    assert [swept.labels[index] for index in page["shown"]] == shown
    assert len(page["means"]) == len(swept.labels), "the page's chart has all"
    assert [field["values"] for field in page["settings"]["fields"]][1:] == [
        ["none", "0.01", "0.05", "0.1"],
        ["0.05", "0.1", "0.2"],
    ]
