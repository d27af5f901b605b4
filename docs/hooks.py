"""What the site needs beside the pages: the list of decisions, pictures by theme, and bars in the code of tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARK = "<!-- decisions -->"
LIGHT = re.compile(r"^(!\[[^\]]*\]\([\w/-]+)-light(\.svg|\.png)\)$", re.M)
KINDS = {".svg": "fenland-figure", ".png": "fenland-screen"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the list of decisions where the mark is, and write pictures and tables as this Markdown reads them."""
    markdown = markdown.replace(MARK, decisions()) if MARK in markdown else markdown
    markdown = LIGHT.sub(_by_theme, markdown)
    return "\n".join(_bars(line) if line.startswith("|") else line for line in markdown.split("\n"))


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
