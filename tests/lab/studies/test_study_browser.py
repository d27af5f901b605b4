"""Studies and their index in a real browser: nothing fails, nothing is hidden or cut off, nothing leaves the page."""

from pathlib import Path

import pytest
from browser import CHROMIUM, visit

from fenland.lab.study.index import write_index

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")

# The index has no figure and no command of its own: what the measurement asks of those is asked of studies only.
MEASURE = (Path(__file__).parents[1] / "measure.js").read_text()
TABLES = MEASURE.replace("table: {", "verdicts: all('.holds').length, table: {")
INDEX = TABLES.replace(
    'button: [document.getElementById("copy").hidden, box(document.getElementById("copy")).height]', "button: null"
)
STUDIES = ["quartic", "quadratic", "saddle-escape", "matrix-sensing"]


def check(found, verdicts, dark=False):
    assert found.console == []
    assert found.requests == []
    for width, each in found.measured.items():
        assert each["resources"] == []
        assert each["inner"] == width >= each["width"]
        assert each["verdicts"] == verdicts
        assert each["weakest"][0] >= 4.5, each["weakest"]
        assert (each["background"] < 0.05) is dark
        assert each["repeated"] == []
        assert each["dangling"] == []


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_can_be_read_at_any_width(tiny_study, tmp_path, name):
    study, config, tables, done = tiny_study(name)
    dark = name in STUDIES[::2]
    found = visit(done.report, TABLES, dark=dark, scratch=tmp_path)
    check(found, len(done.verdicts), dark)
    figures = study.draw(config, tables)
    for width, each in found.measured.items():
        assert [figure[0] for figure in each["figures"]] == [f"figure-{figure.name}" for figure in figures]
        for figure, wide, high, right in each["figures"]:
            assert wide >= 300, figure
            assert high >= 140, figure
            assert right <= width, figure
        assert each["smallest"] >= 9.0
        assert each["outside"] == []
        assert each["overlapping"] == []
        assert each["unnamed"] == 0
        assert each["table"]["focusable"]
        assert not each["table"]["scrolls"]
        assert not each["button"][0]


def test_the_index_can_be_read_at_any_width(tiny_study, tiny_out, tmp_path):
    count = sum(len(tiny_study(name)[3].verdicts) for name in STUDIES)
    page = write_index(tiny_out)
    found = visit(page, INDEX, scratch=tmp_path)
    check(found, count)
