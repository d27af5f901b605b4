"""What the site needs beside the pages: decisions listed, pictures by theme, typeset equations, tables that scroll.

Equations are MathML, which every current browser shows and screen readers read, without a script and without a font
to load.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

HERE = Path(__file__).parent
MARK = "<!-- decisions -->"
LIGHT = re.compile(r"^(!\[[^\]]*\]\([\w/-]+)-light(\.svg|\.png)\)$", re.M)
MATH = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.S)
BARS = re.compile(r"<mo([^>]*)>(&#x0007C;|\|)</mo>")  # of norms: an operator would have space around it
TABLE = re.compile(r"<table>.*?</table>", re.S)
WRITTEN = re.compile(r"(?:^\|.*\|$\n?)+", re.M)  # a table as Markdown
BETWEEN = re.compile(r"(?<!\\)\|")  # its cells
TAG, HEAD = re.compile(r"<[^>]+>"), re.compile(r"<th( [^>]*)?>")
CELL = re.compile(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", re.S)
MANY, SENTENCE = 4, 40  # columns of a table, and letters of a cell, from which on the cell needs room
# A table with as many columns, or with one less of which as many are of sentences, does not fit beside the contents.
WIDE, WORDY = 6, 3
KINDS = {".svg": "fenland-figure", ".png": "fenland-screen"}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the list of decisions where the mark is, and write pictures and tables as this Markdown reads them.

    A page with a wide table gets the place of the table of contents, too: beside it the last columns would be hidden.
    """
    markdown = markdown.replace(MARK, decisions()) if MARK in markdown else markdown
    if any(_is_wide(found[0]) for found in WRITTEN.finditer(markdown)):
        page.meta.setdefault("hide", ["toc"])
    markdown = LIGHT.sub(_by_theme, markdown)
    return "\n".join(_bars(line) if line.startswith("|") else line for line in markdown.split("\n"))


def _is_wide(table: str) -> bool:
    rows = [BETWEEN.split(line.strip())[1:-1] for line in table.splitlines()]
    columns = list(zip(*rows, strict=False))
    wordy = sum(any(len(cell.strip()) > SENTENCE for cell in column) for column in columns)
    return len(columns) >= WIDE or (len(columns) == WIDE - 1 and wordy >= WORDY)


def on_page_content(html: str, **_: Any) -> str:
    """Equations as MathML, and tables in a frame that scrolls, is reached by the keyboard and says so."""
    return TABLE.sub(_framed, MATH.sub(_mathml, html))


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found[1] == "div" else "inline"
    written = convert(html.unescape(found[2]).strip()[2:-2], display=display)
    return BARS.sub(r'<mo\1 lspace="0" rspace="0">\2</mo>', written)


def _framed(found: re.Match[str]) -> str:
    frame = '<div class="fenland-table" tabindex="0" role="region" aria-label="Table">'
    return f"{frame}{_with_room(found[0])}</div>"


def _with_room(table: str) -> str:
    """Marks the heads of columns with sentences in a table of many columns; the style gives these a least width."""
    rows = [[TAG.sub("", cell) for cell in CELL.findall(row)] for row in table.split("</tr>")]
    columns = list(zip(*(row for row in rows if row), strict=True))
    if len(columns) < MANY:
        return table
    heads = iter(any(len(html.unescape(cell)) > SENTENCE for cell in column) for column in columns)
    return HEAD.sub(lambda found: f'<th class="fenland-room"{found[1] or ""}>' if next(heads) else found[0], table)


def _by_theme(found: re.Match[str]) -> str:
    """The picture of a light page and that of a dark one; pages name the first alone, so that GitHub shows one."""
    start, end = found.groups()
    return "\n".join(f"{start}-{theme}{end}#only-{theme}){{ .{KINDS[end]} }}" for theme in ("light", "dark"))


def _bars(row: str) -> str:
    r"""GitHub wants `\|` for a bar in a table's code; Python-Markdown knows code and would show the backslash."""
    parts = row.split("`")
    parts[1::2] = [code.replace("\\|", "|") for code in parts[1::2]]
    return "`".join(parts)


def decisions() -> str:
    """One line a decision: number and title, as a link."""
    rows = []
    for path in sorted((HERE / "decisions").glob("0*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        rows.append(f"- [{title}]({path.name})")
    return "\n".join(rows)
