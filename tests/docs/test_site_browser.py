"""Every page of the site in a real browser, opened from its folder, with real keys: read, reached, searched."""

import sys
from pathlib import Path

import pytest
from blocks import DOCS, ROOT

sys.path.insert(0, str(ROOT / "tests" / "lab"))
from browser import CHROMIUM
from chrome import Chrome

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")]

LOOK = (ROOT / "tests" / "lab" / "explore" / "look.js").read_text()
# What the theme's pages need beside that. Tables and code scroll by themselves.
MORE = """(() => {
  const shown = e => e.checkVisibility({visibilityProperty: true, opacityProperty: true});
  const article = document.querySelector("article"), images = [...article.querySelectorAll("img")].filter(shown);
  const scrolls = "pre, .md-typeset__scrollwrap, .fenland-table, .fenland-equation";
  const box = e => e.getBoundingClientRect(), inside = e => e.closest(scrolls);
  return {
    outside: [...article.querySelectorAll("*")].filter(e => shown(e) && !inside(e) && box(e).right > innerWidth + 1)
      .map(e => e.outerHTML.slice(0, 80)),
    blank: images.filter(e => !e.naturalWidth).map(e => e.src), headings: document.querySelectorAll("h1").length,
  };
})()"""
# Of a set of tabs the chosen one is a stop, and arrows go to the others.
STOPS = """article a[href]:not([tabindex='-1']), article button:not([tabindex='-1']), article summary,
  article input:checked, article [tabindex='0']"""
FOCUS = """(() => {
  const e = document.activeElement, tabs = e.matches(".tabbed-set > input") && e.parentElement;
  const label = tabs ? tabs.querySelector(".tabbed-labels") : e.matches(".md-option") && e.nextElementSibling;
  const box = e.getBoundingClientRect();
  return {
    name: e.className, number: e.dataset.n === undefined ? null : Number(e.dataset.n), code: e.outerHTML.slice(0, 90),
    article: !!e.closest("article"), scrolls: e.dataset.n === undefined && e.scrollWidth > e.clientWidth,
    outline: [e, ...(label ? [label] : [])].some(each => getComputedStyle(each).outlineStyle !== "none"),
    opacity: Number(getComputedStyle(e).opacity), inside: box.top >= 0 && box.left >= 0 && box.right <= innerWidth + 1,
  };
})()"""


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    browser = Chrome(tmp_path_factory.mktemp("profile"))
    # Each page as on a first visit: the theme would remember the scheme of an earlier one.
    forget = 'if (location.protocol === "file:") localStorage.clear()'
    browser.call("Page.addScriptToEvaluateOnNewDocument", source=forget)
    yield browser
    browser.close()


def pages() -> list[str]:
    return sorted(p.relative_to(DOCS).with_suffix(".html").as_posix() for p in DOCS.rglob("*.md"))


def complaints(chrome: Chrome, site: Path, name: str, width: int, dark: bool) -> list[str]:
    """All that is wrong with one page."""
    chrome.open(site / name, width=width, dark=dark)
    seen = {**chrome.run(f"({LOOK})(window, document)"), **chrome.run(MORE)}
    own = [site.as_uri(), "data:"]
    wrong = {
        "errors": chrome.errors,
        "requests": [each for each in chrome.requests if not each.startswith(tuple(own))],
        "contrast": [seen["weakest"]] if seen["weakest"][0] < 4.5 else [],
        "type": [seen["smallest"]] if seen["smallest"][0] < 10.5 else [],
        "width": [seen["width"]] if seen["width"] > width else [],
        "scheme": [seen["background"]] if (seen["background"] < 0.05) is not dark else [],
        "headings": [seen["headings"]] if seen["headings"] != 1 else [],
        **{each: seen[each] for each in ("repeated", "dangling", "unlabelled", "images", "outside", "blank")},
    }
    return [f"{name}: {what}: {found}" for what, found in wrong.items() if found]


@pytest.mark.parametrize(("width", "dark"), [(375, True), (1280, False)])
def test_every_page_can_be_read(chrome, site, width, dark):
    found = [each for name in pages() for each in complaints(chrome, site, name, width, dark)]
    assert not found, "\n".join(found)


def test_these_eyes_see_what_is_wrong(chrome, site):
    harm = """<p style="color:#999;background:#aaa">faint</p><p style="font-size:6px">small</p><h1>two</h1>
        <div style="width:3000px" id="wide">wide</div><i id="wide"></i><label for="nothing">none</label><input>
        <img src="http://elsewhere.invalid/x.png"><script>nothing.at.all</script>"""
    page = site / "harmed.html"
    page.write_text((site / "lab.html").read_text().replace("</article>", harm + "</article>"))
    try:
        found = complaints(chrome, site, "harmed.html", 1280, dark=True)
    finally:
        page.unlink()
    kinds = {each.split(": ")[1] for each in found}
    assert kinds == {"errors", "requests", "contrast", "type", "width", "headings", "repeated", "dangling",
                     "unlabelled", "images", "outside", "blank"}  # fmt: skip
    assert "scheme: [" in "".join(_in_the_wrong_scheme(chrome, site))


def _in_the_wrong_scheme(chrome: Chrome, site: Path) -> list[str]:
    page = site / "harmed.html"
    page.write_text((site / "lab.html").read_text().replace("prefers-color-scheme: dark", "prefers-color-scheme: x"))
    try:
        return complaints(chrome, site, "harmed.html", 1280, dark=True)
    finally:
        page.unlink()


@pytest.mark.parametrize("name", ["index.html", "lab.html", "migrating.html", "methods.html"])
def test_tab_reaches_the_skip_link_and_then_everything_in_order(chrome, site, name):
    chrome.open(site / name)
    chrome.press("Tab")
    first = chrome.run(FOCUS)
    assert "md-skip" in first["name"]
    assert first["outline"]
    chrome.wait("getComputedStyle(document.querySelector('.md-skip')).opacity === '1'")  # it fades in
    assert chrome.run(FOCUS)["inside"]
    chrome.press("Enter")
    shown = "e.checkVisibility({visibilityProperty: true})"
    wanted = chrome.run(
        f"[...document.querySelectorAll(`{STOPS}`)].filter(e => {shown}).map((e, i) => e.dataset.n = i)"
    )
    assert len(wanted) > 5
    reached: list[int] = []
    while wanted[-1] not in reached and len(reached) < 2 * len(wanted):
        chrome.press("Tab")
        seen = chrome.run(FOCUS)
        assert seen["outline"], f"no focus is shown: {seen['code']}"
        assert seen["article"], seen["code"]
        if not seen["scrolls"]:  # Chromium stops at code that is wider than its box, too: arrows scroll it there
            reached.append(seen["number"])
    assert reached == wanted


DRAWER = """(() => {
  const e = document.activeElement, side = e.closest(".md-sidebar--primary");
  return {button: e.matches("label[for='__drawer']"), inside: !!side, open: document.getElementById("__drawer").checked,
    told: document.querySelector(".md-header label[for='__drawer']").ariaExpanded, tag: e.outerHTML.slice(0, 80),
    seen: e.checkVisibility({visibilityProperty: true})};
})()"""


def test_the_drawer_of_a_phone_opens_and_closes_by_keyboard(chrome, site):
    chrome.open(site / "getting-started.html", width=375)
    for _ in range(8):
        chrome.press("Tab")
        at = chrome.run(DRAWER)
        assert at["seen"], "the focus is where nobody sees it"
        assert not at["inside"], "a closed drawer takes the focus"
        if at["button"]:
            break
    assert at["button"], at
    assert chrome.run(FOCUS)["outline"]
    assert (at["open"], at["told"]) == (False, "false")
    chrome.press("Enter")
    chrome.wait("document.activeElement.closest('.md-sidebar--primary') !== null")
    at = chrome.run(DRAWER)
    assert (at["open"], at["told"], at["seen"]) == (True, "true", True)
    chrome.press("Tab")
    assert chrome.run(DRAWER)["inside"]
    chrome.press("Escape")
    chrome.wait("!document.getElementById('__drawer').checked")
    at = chrome.run(DRAWER)
    assert (at["button"], at["told"]) == (True, "false")


def test_a_wide_table_scrolls_and_keeps_its_first_column_on_a_phone(chrome, site):
    chrome.open(site / "methods.html", width=375)
    frame = "document.querySelector('.fenland-table')"
    assert chrome.run(f"{frame}.scrollWidth > {frame}.clientWidth + 100")
    first = f"{frame}.querySelector('td').getBoundingClientRect().left"
    before = chrome.run(first)
    chrome.run(f"{frame}.scrollLeft = 150")
    chrome.wait(f"{frame}.scrollLeft > 100")
    assert abs(chrome.run(first) - before) < 2
    assert chrome.run(f"{frame}.tabIndex") == 0


SCREENS = 10
TALL = """document.querySelector("article").getBoundingClientRect().height"""
# Records: as long as what they record.
RECORDS = {"changes.html", "evidence-runs.html", "reproduction.html"}


def test_no_page_is_longer_than_about_ten_screens(chrome, site):
    long = {}
    for name in pages():
        if name in RECORDS or name.startswith(("decisions/", "reproduction/")):
            continue
        chrome.open(site / name, width=1280)
        long[name] = chrome.run(TALL) / 900
    assert not {name: round(n, 1) for name, n in long.items() if n > SCREENS * 1.1}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["index.html", "api/lab.html"])
def test_the_search_works_by_keyboard_in_a_page_from_a_folder(chrome, site, name, dark):
    chrome.open(site / name, dark=dark)
    for _ in range(6):
        chrome.press("Tab")
        assert chrome.run(FOCUS)["outline"], chrome.run(FOCUS)
        if chrome.run("document.activeElement.matches('.md-search__input')"):
            break
    _type(chrome, "saddle")
    chrome.wait("document.querySelectorAll('.md-search-result__link').length > 3")
    links = chrome.run("[...document.querySelectorAll('.md-search-result__link')].map(e => e.href)")
    assert any("api/theory-saddles.html" in each for each in links)
    assert all(each.startswith(site.as_uri()) for each in links)
    chrome.wait("document.querySelector('.md-search__output').getAnimations({subtree: true}).length === 0")
    seen = chrome.run(f"({LOOK})(window, document)")
    assert seen["weakest"][0] >= 4.5, seen["weakest"]
    assert chrome.errors == []
    chrome.press("ArrowDown")
    target = chrome.run("document.activeElement.href")
    assert target == links[0]
    chrome.press("Enter")
    chrome.wait(f"location.href.split('?')[0] === {target.split('?')[0]!r}")


def _type(chrome: Chrome, word: str) -> None:
    for letter in word:
        key = {"key": letter, "windowsVirtualKeyCode": ord(letter.upper())}
        chrome.call("Input.dispatchKeyEvent", type="keyDown", text=letter, **key)
        chrome.call("Input.dispatchKeyEvent", type="keyUp", **key)
