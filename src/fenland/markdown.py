"""A table in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], nothing: str = "") -> str:
    """Head and rows as lines, a head that ends in ">" standing right; ``nothing``, if given, where there is no row."""
    lines = [_row(row) for row in rows]
    if nothing and not lines:
        return f"{nothing}\n"
    rule = "".join("---:|" if head.endswith(">") else "---|" for head in heads)
    head = _row([head.removesuffix(">") for head in heads]).replace("|  |", "| |")
    return "\n".join([head, f"|{rule}", *lines, ""])


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
