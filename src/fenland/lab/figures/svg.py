"""A figure as SVG that lives inside a page: colours from CSS variables, ids of its own, words for screen readers."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import matplotlib

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.style import FALLBACK, MARKED, RC, VARIABLES, Canvas

SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"


def inline_svg(drawn: Drawn, labels: list[str]) -> str:
    """Draw a figure and return its ``<svg>`` element, the same text for the same records.

    Args:
        drawn: the figure.
        labels: the labels of its lines, in the order of colours.
    """
    with matplotlib.rc_context(RC):
        text = io.StringIO()
        drawn.draw(Canvas(MARKED, labels)).savefig(text, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(text.getvalue())
    _strip(root)
    _rename(root, drawn.name)
    _announce(root, drawn)
    return _coloured(ElementTree.tostring(root, encoding="unicode"))


def _strip(root: ElementTree.Element) -> None:
    """Take out what a page does not need: metadata, the size in points, and a style sheet that would reach the page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)


def _rename(root: ElementTree.Element, prefix: str) -> None:
    """Keep the ids that something refers to, under this figure's prefix; and refer to them without xlink."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    for element in root.iter():
        identity = element.attrib.pop("id", None)
        if identity in used:
            element.set("id", f"{prefix}-{identity}")
        if XLINK in element.attrib:
            target = element.attrib.pop(XLINK)
            # A heat map's pixels are data in place; everything else is an id of the same figure.
            element.set("href", target if target.startswith("data:") else f"#{prefix}-{target.lstrip('#')}")
        for name, value in element.attrib.items():
            element.set(name, value.replace("url(#", f"url(#{prefix}-"))
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")  # HTML knows svg elements by their bare names
    root.set("xmlns", SVG)


def _announce(root: ElementTree.Element, drawn: Drawn) -> None:
    root.set("role", "img")
    root.set("aria-labelledby", f"{drawn.name}-title {drawn.name}-desc")
    for place, (tag, words) in enumerate((("title", drawn.title), ("desc", drawn.description))):
        element = ElementTree.Element(tag, {"id": f"{drawn.name}-{tag}"})
        element.text = words
        root.insert(place, element)


def _coloured(text: str) -> str:
    for mark, variable in VARIABLES.items():
        text = text.replace(mark, f"var({variable}, {FALLBACK[mark]})")
    return text
