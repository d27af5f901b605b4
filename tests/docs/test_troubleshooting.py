"""docs/troubleshooting.md quotes messages: each is in the code, word for word."""

import ast
import re

import pytest
from blocks import DOCS, ROOT

PAGE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^\| `([^`]+)` \|", PAGE, re.M)
SHELL = {"command not found"}  # the shell's own words
GAP = "\N{BULLET}"


def _text(node: ast.AST) -> str:
    """A string or an f-string, with a gap for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value) if isinstance(node.value, str) else ""
    return "".join(_text(part) if isinstance(part, ast.Constant) else GAP for part in getattr(node, "values", []))


@pytest.fixture(scope="module")
def code() -> str:
    """All strings of the package, one a line."""
    found = []
    for path in (ROOT / "src" / "fenland").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [_text(node) for node in ast.walk(tree) if isinstance(node, (ast.Constant, ast.JoinedStr))]
    return "\n".join(found)


def said(message: str, code: str) -> bool:
    """Whether one string has all pieces of a message in order; `...` stands for what is filled in."""
    pieces = [re.escape(piece.strip()) for piece in message.split("...") if piece.strip()]
    return bool(re.search(r"[^\n]*".join(pieces), code))


def test_there_are_messages():
    assert len(MESSAGES) > 25


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_in_the_code(message, code):
    if message in SHELL:
        return
    assert said(message, code), f"no message of the code reads {message!r}"


def test_a_message_that_nobody_says_is_found_out(code):
    assert not said("the weights have gone for a walk", code)
    assert not said("step() while ... have gone for a walk", code)
