"""A table in Markdown: what stands right, what stands in place of no rows."""

from fenland.markdown import table


def test_a_head_with_its_mark_stands_right() -> None:
    text = table(("task", "seeds>", ""), [("digits", 5, ""), ("mnist", 10, "x")])
    assert text == "| task | seeds | |\n|---|---:|---|\n| digits | 5 |  |\n| mnist | 10 | x |\n"


def test_without_rows_it_says_so_or_is_its_head() -> None:
    assert table(("a",), [], "Nothing is done yet.") == "Nothing is done yet.\n"
    assert table(("a", "b>"), []) == "| a | b |\n|---|---:|\n"
