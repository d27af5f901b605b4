"""What the site is made of beside the pages: the list of decisions, and the change log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARK = "<!-- decisions -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the list of decisions where the mark is."""
    return markdown.replace(MARK, decisions()) if MARK in markdown else markdown


def decisions() -> str:
    """One line a decision: number and title, as a link."""
    rows = []
    for path in sorted((HERE / "decisions").glob("0*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        rows.append(f"- [{title}]({path.name})")
    return "\n".join(rows)
