"""The site builds without a warning, asks nothing of the network, and reads well in a browser, narrow and wide."""

import re
import sys
from pathlib import Path

import pytest
from blocks import DOCS, ROOT

sys.path.insert(0, str(ROOT / "tests" / "lab"))
from browser import CHROMIUM, visit

MEASURE = """(w, d) => ({
  over: d.documentElement.scrollWidth - d.documentElement.clientWidth,
  text: d.querySelector("article").innerText.length,
  blank: [...d.querySelectorAll("article img")]
    .filter(i => getComputedStyle(i).display !== "none" && !i.naturalWidth).length,
  images: [...d.querySelectorAll("article img")].filter(i => getComputedStyle(i).display !== "none").length,
  nameless: [...d.querySelectorAll("article img")].filter(i => !i.alt).length,
  h1: d.querySelectorAll("h1").length,
  dark: getComputedStyle(d.body).backgroundColor,
})"""


def html(site: Path) -> dict[str, str]:
    return {p.relative_to(site).as_posix(): p.read_text(encoding="utf-8") for p in site.rglob("*.html")}


@pytest.mark.slow
def test_every_page_is_there_and_no_script(site):
    pages = html(site)
    wanted = {p.relative_to(DOCS).with_suffix(".html").as_posix() for p in DOCS.rglob("*.md")}
    assert wanted <= pages.keys()
    assert not list(site.rglob("*.py"))


@pytest.mark.slow
def test_nothing_comes_from_the_network(site):
    for name, text in html(site).items():
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]*rel="(?:stylesheet|icon|preload|preconnect)"[^>]*href="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]*href="([^"]+)"[^>]*rel="(?:stylesheet|icon|preload|preconnect)"', text)
        assert loaded, name
        assert not [x for x in loaded if x.startswith(("http:", "https:", "//"))], name


@pytest.mark.slow
def test_docstrings_arrive_whole(site):
    pages = html(site)
    plain = {name: re.sub(r"<[^>]+>", "", text) for name, text in pages.items()}
    assert "<mo>argmax</mo>" in pages["api/optimizer.html"] or "argmax" in plain["api/optimizer.html"]
    assert re.search(r"<msup><mi>T</mi><mrow><mn>2</mn></mrow></msup>", pages["methods/balls.html"]), "ASAM's row"
    assert "Kwon, Kim, Park, Choi 2021" in plain["methods/balls.html"]
    assert "rho*m" in plain["api/theory.html"]


def _at_the_root(site: Path, page: str) -> Path:
    """The page, or a copy of one in a folder whose links begin at the root, which is what the server serves."""
    if "/" not in page:
        return site / f"{page}.html"
    copy = site / f"{page.replace('/', '-')}.html"
    text = (site / f"{page}.html").read_text(encoding="utf-8")
    copy.write_text(text.replace('="../', '="').replace('"base": ".."', '"base": "."'), encoding="utf-8")
    return copy


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("page", ["index", "choices", "methods", "methods/balls"])
def test_a_page_in_a_browser(site, page, dark, tmp_path):
    seen = visit(_at_the_root(site, page), MEASURE, dark=dark, scratch=tmp_path)
    assert not seen.console
    assert sorted(seen.measured) == [390, 1280]
    for width, found in seen.measured.items():
        assert found["over"] <= 0, f"{width}: wider than the screen"
        assert found["text"] > 500
        assert found["blank"] == found["nameless"] == 0
        assert found["h1"] == 1
        light = sum(map(int, re.findall(r"\d+", found["dark"])[:3])) > 380
        assert light != dark
    if page == "choices":
        assert seen.measured[390]["images"] == 5, "one picture a choice, of the theme in use"
