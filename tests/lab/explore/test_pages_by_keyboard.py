"""The other pages of the lab in the same browser: a comparison's report, a study's page, the index of both."""

import shutil
from pathlib import Path

import pytest
from browser import CHROMIUM
from chrome import Chrome

from fenland.lab.study.index import write_index

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")

LOOK = Path(__file__).with_name("look.js").read_text()
PAGES = ["digits/report.html", "studies/toy/report.html", "index.html"]


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    browser = Chrome(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def out(tmp_path_factory, studies, invented_report):
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(invented_report.parent, folder / "digits")
    (folder / "digits/compare.json").write_text("{}")
    shutil.copytree(studies, folder / "studies")
    write_index(folder)
    return folder


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "dark"), [(375, True), (1280, False), (1280, True), (375, False)])
def test_a_page_can_be_read_at_any_width_in_either_scheme(chrome, out, name, width, dark):
    chrome.open(out / name, width=width, dark=dark)
    seen = chrome.run(f"({LOOK})(window, document)")
    assert chrome.errors == []
    assert [each for each in chrome.requests if not each.startswith("data:")] in ([], [(out / name).as_uri()])
    assert seen["inner"] == width >= seen["width"]
    assert seen["weakest"][0] >= 4.5, seen["weakest"]
    assert (seen["background"] < 0.05) is dark
    assert seen["smallest"][0] >= 11.5, seen["smallest"]
    for each in ("repeated", "dangling", "unnamed", "unlabelled", "images", "outside", "thin"):
        assert seen[each] == [], each


@pytest.mark.parametrize("name", PAGES)
def test_everything_to_follow_or_scroll_is_reached_by_tab(chrome, out, name):
    chrome.open(out / name)
    chrome.wait("!document.getElementById('closer') || !!document.querySelector('#curves svg')")
    stops = "document.querySelectorAll('a[href], button, select, input, [tabindex=\"0\"]')"
    can = "e.checkVisibility() && !e.disabled"
    wanted = chrome.run(f"[...{stops}].filter(e => {can}).map((e, i) => e.dataset.n = i)")
    assert wanted
    reached = []
    for _ in wanted:
        chrome.press("Tab")
        reached.append(chrome.run("Number(document.activeElement.dataset.n)"))
        outline = chrome.run("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", chrome.run("document.activeElement.outerHTML.slice(0, 80)")
    assert reached == wanted, "the order of the page"
