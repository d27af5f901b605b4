"""A sentence begins with a capital, and one function writes it."""

import re
from pathlib import Path

import pytest

from fenland.words import capital, listed

ROOT = Path(__file__).parents[1]
BY_HAND = re.compile(r"\[(0|:1)\]\.upper\(\)")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", ""),
        ("a", "A"),
        ("the SAM of Foret", "The SAM of Foret"),
        ("SAM", "SAM"),
        ("ßa", "SSa"),
        ("2 epochs", "2 epochs"),
    ],
)
def test_the_first_letter_alone_changes(text, written):
    assert capital(text) == written


def test_a_list_reads_as_a_sentence_does():
    assert [listed("abc"[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert listed(["is better in a and b", "is worse in c"], ", and ") == "is better in a and b, and is worse in c"


def test_nobody_writes_it_by_hand():
    places = [
        path for folder in ("src", "docs", "tools", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")
    ]
    found = [path.relative_to(ROOT) for path in places if BY_HAND.search(path.read_text(encoding="utf-8"))]
    assert found == [Path("src/fenland/words.py")]
