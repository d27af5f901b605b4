"""The explorer in a real browser, with real keys: everything is reached, everything moves, nothing leaves the page."""

import json
from pathlib import Path

import numpy
import pytest
from browser import CHROMIUM
from chrome import Chrome
from explored import SMALL
from stepping import stepped

from fenland.lab.explore.landscapes import MOMENTA
from fenland.lab.explore.measure import METHODS, SHOWN
from fenland.lab.explore.pack import FULL

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")

LOOK = Path(__file__).with_name("look.js").read_text()
DRAWN = "['trail','climb','future','other-line'].map(id => document.getElementById(id).getAttribute('d')).join('|')"
FOCUS = "document.activeElement.id || document.activeElement.name || document.activeElement.tagName"
CONTROLS = {"theme", "play", "step", "landscape", "method", "rho", "lr", "momentum", "start", "beside", "share"}


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    browser = Chrome(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def opened(chrome, page):
    def opener(fragment="", **how):
        chrome.open(page, fragment=fragment, **how)
        chrome.run("explorer.ready")
        return chrome

    yield opener
    assert chrome.errors == []
    assert [each for each in chrome.requests if not each.startswith("data:")] in ([], [page.as_uri()])


def point(landscape, method, rho, lr, momentum, start, step=12):
    """The address of a view, by values."""
    return (
        f"#landscape={landscape.name}&method={method}&rho={landscape.radii[rho]}&lr={landscape.rates[lr]}"
        f"&momentum={MOMENTA[momentum]:g}&start={'ABCDE'[start]}&step={step}"
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("landscape", "cell"), [(SMALL[0], (1, 1, 1, 3)), (SMALL[1], (0, 1, 2, 4))])
def test_the_drawn_trajectory_is_the_optimizers_own(opened, method, landscape, cell):
    rho, lr, momentum, start = cell
    browser = opened(point(landscape, method, *cell))
    found = browser.run("explorer.trajectory(explorer.state.method)")
    given = landscape.starts[start], landscape.radii[rho], landscape.rates[lr], MOMENTA[momentum]
    path, ascent = stepped(landscape.name, method, *given, SHOWN + 1)
    middle, half = landscape.spread
    step = numpy.array(half) / FULL * 0.51
    pairs = [(found["w"], path)] + ([(found["ascent"], ascent)] if method != "SGD" else [])
    for shown, real in pairs:
        assert len(shown) == SHOWN + 1
        known = 0
        for drawn, true in zip(shown, real, strict=True):
            if (numpy.abs(numpy.subtract(true, middle)) > half).any():
                assert drawn is None
                break  # what is lost does not come back
            assert (numpy.abs(numpy.subtract(drawn, true)) <= step).all()
            known += 1
        assert known > 10
    if method == "SGD":
        assert found["ascent"] == []


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read_at_any_width_in_either_scheme(opened, width, dark):
    browser = opened(width=width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    seen = browser.run(f"({LOOK})(window, document)")
    assert seen["inner"] == width
    assert seen["width"] <= width
    assert seen["weakest"][0] >= 4.5, seen["weakest"]
    assert seen["faintest"][0] >= 3.0, seen["faintest"]  # WCAG 1.4.11: edges of controls, lines that mean something
    assert (seen["background"] < 0.05) is dark
    assert seen["smallest"][0] >= 11.5, seen["smallest"]
    for name in ("repeated", "dangling", "unnamed", "unlabelled", "images", "outside", "thin"):
        assert seen[name] == [], name
    assert seen["picture"][0] >= 280
    assert seen["picture"][1] >= 210


def test_the_toggle_overrides_the_systems_scheme(opened):
    browser = opened()
    look = f"({LOOK})(window, document)"
    for key, dark in (("ArrowDown", False), ("ArrowDown", True)):  # as the system, light, dark
        browser.run("document.getElementById('theme').focus()")
        browser.press(key)
        seen = browser.run(look)
        assert (seen["background"] < 0.05) is dark
        assert seen["weakest"][0] >= 4.5, seen["weakest"]
    opened()
    assert browser.run(look)["background"] < 0.05, "it is not remembered"
    browser.run("localStorage.clear()")


def test_every_control_is_reached_by_tab_and_shows_its_focus(opened):
    browser = opened(point(SMALL[0], "SSAM", 0, 0, 0, 0))
    reached, stops = [], 0
    while stops < 60:
        browser.press("Tab")
        stops += 1
        name = browser.run(FOCUS)
        if name == "BODY":
            break
        reached.append(name)
        outline = browser.run(
            "(() => { const e = document.activeElement, s = e.matches('.chips input') ? e.nextElementSibling : e;"
            " return getComputedStyle(s).outlineStyle; })()"
        )
        assert outline == "solid", name
    assert set(reached) >= CONTROLS
    assert reached.index("step") < reached.index("landscape"), "the order on the page"
    assert {"SUMMARY", "A", "DIV"} <= set(reached)  # verdicts, links, the table that scrolls


def test_arrow_keys_scrub_and_the_words_follow(opened):
    browser = opened(point(SMALL[0], "SAM", 0, 0, 0, 0, step=5))
    browser.run("document.getElementById('step').focus()")
    before = browser.run(DRAWN)
    browser.press("ArrowRight", 3)
    assert browser.run("explorer.state.step") == 8
    assert browser.run(DRAWN) != before
    assert "step 8 of 80" in browser.run("document.getElementById('summary').textContent")
    assert "The ascent point is 0.1 away" in browser.run("document.getElementById('summary').textContent")
    assert browser.run("location.hash").endswith("step=8")
    browser.wait("document.getElementById('said').textContent.includes('step 8 of 80')")
    browser.press("End")
    assert browser.run("explorer.state.step") == SHOWN
    assert browser.run("document.getElementById('view-text').textContent.includes('step 80')")


@pytest.mark.parametrize(
    ("control", "key", "field"),
    [
        ("#landscape", "ArrowDown", "landscape"),
        ("#method input:checked", "ArrowRight", "method"),
        ("#rho", "ArrowRight", "rho"),
        ("#lr", "ArrowRight", "lr"),
        ("#momentum input:checked", "ArrowRight", "momentum"),
        ("#start input:checked", "ArrowRight", "start"),
        ("#beside", "ArrowDown", "beside"),
    ],
)
def test_each_control_changes_the_picture_and_the_address(opened, control, key, field):
    browser = opened(point(SMALL[0], "SSAM", 0, 0, 0, 0))
    look = f"[explorer.state.{field}, {DRAWN}, location.hash]"
    before = browser.run(look)
    browser.run(f"document.querySelector({json.dumps(control)}).focus()")
    browser.press(key)
    browser.wait(f"location.hash !== {json.dumps(before[2])}")
    after = browser.run(look)
    assert after[0] == before[0] + 1
    assert after[1] != before[1]
    table = browser.run("document.querySelectorAll('.map td[aria-current]').length")
    assert table == 1


def test_a_link_opens_the_same_view_and_nonsense_does_no_harm(opened):
    view = point(SMALL[1], "USAM", 1, 2, 1, 2, step=33)
    browser = opened(view)
    assert browser.run("location.hash").replace("%20", " ") == view
    drawn = browser.run(DRAWN)
    opened("#landscape=moon&method=LION&rho=x&lr=&step=1e9&start=Z&beside=SAM")
    assert browser.run("explorer.state.step") == SHOWN
    browser.run(f"location.hash = {json.dumps(view)}")
    browser.wait(f"{DRAWN} === {json.dumps(drawn)}")


def test_numbers_are_those_measured(opened, measured):
    landscape = SMALL[1]
    browser = opened(point(landscape, "USAM", 1, 0, 0, 0))
    text = "(id => document.getElementById(id).textContent)"
    assert float(browser.run(f"{text}('predicted')")) == pytest.approx(2 / (10 * (1 + 0.3 * 10)))
    limit = float(measured["quadratic", "USAM"].limit[1, 0])
    assert float(browser.run(f"{text}('simulated')")) == pytest.approx(limit, rel=0.01)
    assert browser.run(f"{text}('success')") == "0 %"
    assert "beyond the predicted limit" in browser.run(f"{text}('limit-text')")
    browser = opened(point(SMALL[0], "USAM", 1, 0, 0, 0))
    assert browser.run(f"[{text}('captured'), {text}('held')]") == ["held", "100 % held"]
    assert "rho·m = 1.2 > 1" in browser.run(f"{text}('held-text')")


def test_play_moves_and_with_less_motion_it_jumps(opened):
    browser = opened(point(SMALL[0], "SAM", 0, 0, 0, 0, step=76))
    browser.run("document.getElementById('play').focus()")
    browser.press(" ")
    assert browser.run("document.getElementById('play').getAttribute('aria-pressed')") == "true"
    browser.wait("explorer.state.step === 80 && document.getElementById('play').textContent === 'Play'")
    browser = opened(point(SMALL[0], "SAM", 0, 0, 0, 0, step=3), still=True)
    assert browser.run("document.getElementById('play').textContent") == "To the end"
    browser.run("document.getElementById('play').focus()")
    browser.press("Enter")
    assert browser.run("explorer.state.step") == SHOWN


def test_these_eyes_see_an_error_a_request_and_a_weak_contrast(chrome, page):
    harm = '<p style="color:#999;background:#aaa">faint</p><img src="http://elsewhere.invalid/x.png"><script>nothing.at.all</script>'
    harmed = page.with_name("harmed.html")
    harmed.write_text(
        page.read_text().replace("Content-Security-Policy", "x-none").replace("</main>", harm + "</main>")
    )
    chrome.open(harmed)
    seen = chrome.run(f"({LOOK})(window, document)")
    assert seen["weakest"] == [pytest.approx(1.22, abs=0.05), "faint"]
    assert len(seen["images"]) == 1
    assert any("nothing is not defined" in each for each in chrome.errors)
    assert "http://elsewhere.invalid/x.png" in chrome.requests
