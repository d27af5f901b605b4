"""Text for terminals and pipes that cannot show every character: nothing that is printed may end a command."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

# What the tables, pages and messages of the lab use, in ASCII.
_ASCII = {
    "±": "+-", "×": "x", "–": "-", "−": "-", "—": "-", "…": "...", "•": "*", "→": "->", "←": "<-", "≤": "<=", "≥": ">=",
    "’": "'", "‘": "'", "“": '"', "”": '"', "─": "-", "━": "-", "│": "|", "║": "|", "·": ".", "⁄": "/",
}  # fmt: skip
_NAME = "fenland.plain"


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that an encoding does not have; a question mark where nothing comes near."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_near, error.object[error.start : error.end])), error.end


def _near(letter: str) -> str:
    """The letter without its accents, or what is written for it."""
    if letter in _ASCII:
        return _ASCII[letter]
    parts = [part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part)]
    return "".join(part if part.isascii() else _ASCII.get(part, "?") for part in parts) or "?"


def forgive() -> None:
    """Let stdout and stderr write what their encoding lacks in plain letters, as under a C locale."""
    codecs.register_error(_NAME, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NAME)
