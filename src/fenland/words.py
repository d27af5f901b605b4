"""How sentences are written, for messages, pages and reports."""

from __future__ import annotations

from collections.abc import Sequence


def capital(text: str) -> str:
    """The text with a capital first letter; the others stay as they are, so that SAM stays SAM."""
    return text[:1].upper() + text[1:]


def listed(parts: Sequence[str], last: str = " and ") -> str:
    """The parts with commas between them, and `last` before the last one."""
    return last.join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
