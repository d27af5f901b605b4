"""What the site makes of tables: columns of sentences have room, and a wide table has the place of the contents."""

import re
import sys
from types import SimpleNamespace

import pytest
from blocks import DOCS

sys.path.insert(0, str(DOCS))
pytest.importorskip("latex2mathml")
import hooks


def table(*rows: tuple[str, ...]) -> str:
    lines = ["".join(f"<{'td' if number else 'th'}>{cell}</{'td' if number else 'th'}>" for cell in row)
             for number, row in enumerate(rows)]  # fmt: skip
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def roomy(page: str) -> list[str]:
    return re.findall(r'<th class="fenland-room"[^>]*>(.*?)</th>', page)


def test_columns_of_sentences_have_room_in_a_table_of_many_columns():
    sentence = "a sentence of more than forty letters, in a narrow cell"
    page = hooks.on_page_content(table(("no", "claim", "measured", "holds"), ("1", sentence, "0.5", "yes")))
    assert roomy(page) == ["claim"]
    assert hooks.TAG.sub("", page) == f"noclaimmeasuredholds1{sentence}0.5yes"
    assert roomy(hooks.on_page_content(table(("no", "claim"), ("1", sentence)))) == [], "two columns share the page"


def test_tags_and_entities_of_a_cell_do_not_count():
    linked = '<a href="a-very-long-address-of-more-than-forty-letters.html">short</a>'
    assert roomy(hooks.on_page_content(table(("a", "b", "c", "d"), (linked, "&lt;" * 20, "1", "2")))) == []


def test_a_head_keeps_what_it_says_of_itself():
    right = table(("a", "b", "c", "d"), ("x" * 50, "1", "2", "3")).replace("<th>a", '<th style="text-align: right;">a')
    assert '<th class="fenland-room" style="text-align: right;">a</th>' in hooks.on_page_content(right)


@pytest.mark.parametrize(("columns", "own", "hidden"), [(5, {}, None), (6, {}, ["toc"]), (7, {"hide": []}, [])])
def test_a_wide_table_has_the_place_of_the_contents(columns, own, hidden):
    text = f"words\n\n|{' a |' * columns}\n|{'---:|' * columns}\n|{' 1 |' * columns}\n"
    page = SimpleNamespace(meta=own)
    assert hooks.on_page_markdown(text, page=page) == text
    assert page.meta.get("hide") == hidden


@pytest.mark.parametrize(("columns", "wordy", "hidden"), [(5, 2, None), (5, 3, ["toc"]), (4, 4, None)])
def test_so_has_a_table_of_many_sentences(columns, wordy, hidden):
    cells = ["a \\| sentence of more than forty letters, in a cell"] * wordy + ["short"] * (columns - wordy)
    text = f"|{' a |' * columns}\n|{'---|' * columns}\n| {' | '.join(cells)} |"
    page = SimpleNamespace(meta={})
    hooks.on_page_markdown(text, page=page)
    assert page.meta.get("hide") == hidden
