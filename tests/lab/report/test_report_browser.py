"""The report in a real browser: nothing fails, nothing is hidden or cut off, nothing leaves the page."""

from pathlib import Path

import pytest
from browser import CHROMIUM, visit

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")

MEASURE = (Path(__file__).parents[1] / "measure.js").read_text()


@pytest.fixture(scope="module", params=["light", "dark"])
def seen(request, invented_report, tmp_path_factory):
    return visit(invented_report, MEASURE, dark=request.param == "dark", scratch=tmp_path_factory.mktemp(request.param))


def test_the_console_is_silent_and_no_request_leaves_the_page(seen):
    assert seen.console == []
    assert seen.requests == []
    assert [each["resources"] for each in seen.measured.values()] == [[], []]


def test_nothing_is_wider_than_the_window(seen):
    for width, each in seen.measured.items():
        assert each["inner"] == width
        assert each["width"] <= width
    for each in seen.measured.values():
        assert each["table"] == {"scrolls": False, "focusable": True, "name": "results"}


def test_a_phone_shows_accuracy_and_gain_of_each_optimizer_first(seen):
    first = seen.measured[390]["first"]
    assert [name for name, *_ in first] == ["SGD", "SAM", "USAM", "SSAM"]
    for name, place, cells in first:
        (_, above), (_, beside), *rest = cells
        assert above == beside > place, name
        assert all(below > above for _, below in rest), name
        assert cells[0][0] == max(size for size, _ in cells), name


def test_every_figure_is_visible_and_large_enough_to_read(seen):
    for width, each in seen.measured.items():
        assert len(each["figures"]) == 10
        for name, wide, high, right in each["figures"]:
            assert wide >= 300, name
            assert high >= 180, name
            assert right <= width, name
        assert each["smallest"] >= 9.5


def test_no_label_is_cut_off_or_lies_on_another(seen):
    for each in seen.measured.values():
        assert each["outside"] == []
        assert each["overlapping"] == []


def test_text_stands_out_and_the_scheme_is_followed(seen, request):
    dark = "dark" in request.node.name
    for each in seen.measured.values():
        assert each["weakest"][0] >= 4.5, each["weakest"]  # WCAG 1.4.3
        assert (each["background"] < 0.05) is dark


def test_names_and_ids_hold_for_readers_of_every_kind(seen):
    for each in seen.measured.values():
        assert each["repeated"] == []
        assert each["dangling"] == []
        assert each["unnamed"] == 0
        hidden, height = each["button"]
        assert not hidden
        assert height >= 44


def test_these_eyes_see_a_request_and_an_error(invented_report, tmp_path):
    page = tmp_path / "report.html"
    text = invented_report.read_text()
    harm = '<img src="http://elsewhere.invalid/x.png" alt=""><script>nothing.at.all</script></main>'
    page.write_text(text.replace("Content-Security-Policy", "x-none").replace("</main>", harm))
    found = visit(page, MEASURE, widths=(390,))
    assert found.requests == ["http://elsewhere.invalid/x.png"]
    assert any("nothing is not defined" in line for line in found.console)


def test_the_page_forbids_itself_to_load_anything(invented_report, tmp_path):
    page = tmp_path / "report.html"
    page.write_text(
        invented_report.read_text().replace("</main>", '<img src="http://elsewhere.invalid/x.png" alt=""></main>')
    )
    found = visit(page, MEASURE, widths=(390,))
    assert found.requests == []
    assert any("Content Security Policy" in line for line in found.console)
