"""The fast tier has every pair of a matrix's values; a list of cases is never thinned, and nothing is lost."""

from itertools import combinations, product
from types import SimpleNamespace

import pytest

from selection import covering, pytest_mark_what_pairs_do_not_need


class Item:
    """As much of a pytest item as the selection reads."""

    def __init__(self, name: str, marks: list[pytest.Mark], params: dict[str, object]) -> None:
        self.nodeid = f"tests/test_x.py::{name}[{params}]"
        self.callspec = SimpleNamespace(params=params)
        self.marks, self.slow = marks, False

    def iter_markers(self, name: str) -> list[pytest.Mark]:
        return [mark for mark in self.marks if mark.name == name]

    def get_closest_marker(self, name: str) -> bool | None:
        return (self.slow or None) if name == "slow" else None

    def add_marker(self, mark: pytest.MarkDecorator) -> None:
        assert mark.name == "slow"
        self.slow = True


def matrix(*lists: tuple[str, list], **fixtures: list) -> list[Item]:
    """All items of a test with these `parametrize` marks and fixtures with parameters."""
    marks = [pytest.mark.parametrize(names, values).mark for names, values in lists]
    items = []
    for chosen in product(*(values for _, values in lists), *fixtures.values()):
        params = dict(zip(fixtures, chosen[len(lists) :], strict=True))
        for (names, _), value in zip(lists, chosen, strict=False):
            many = names.split(",")
            params |= dict(zip(map(str.strip, many), value if len(many) > 1 else [value], strict=True))
        items.append(Item("test_it", marks, params))
    return items


def test_every_pair_comes_together_once_and_few_cases_are_kept():
    cases = list(product(range(7), range(8), range(2), range(2), range(3)))
    kept = [cases[index] for index in covering(cases)]
    pairs = lambda some: {pair for case in some for pair in combinations(enumerate(case), 2)}  # noqa: E731
    assert pairs(kept) == pairs(cases)
    assert 7 * 8 <= len(kept) <= 60


def test_a_matrix_of_three_lists_waits_in_part_and_one_of_two_does_not():
    items = matrix(("a", list("xyz")), ("b", list("uvw")), ("c", [0.5, float("nan")]))
    pytest_mark_what_pairs_do_not_need(items)
    fast = [item.callspec.params for item in items if not item.slow]
    assert len(fast) == 9 < len(items)
    assert len({(p["a"], p["b"]) for p in fast}) == 9
    assert len({(p["a"], repr(p["c"])) for p in fast}) == len({(p["b"], repr(p["c"])) for p in fast}) == 6
    two = matrix(("a", list("xyz")), ("b", list("uvw")))
    pytest_mark_what_pairs_do_not_need(two)
    assert not any(item.slow for item in two)


def test_a_list_of_cases_with_several_names_is_one_list_and_is_kept_whole():
    items = matrix(("a, b, c, d", [(1, 2, 3, 4), (1, 2, 3, 5), (2, 2, 3, 4)]))
    pytest_mark_what_pairs_do_not_need(items)
    assert not any(item.slow for item in items)


def test_parameters_of_fixtures_are_lists_too():
    items = matrix(("a", [1, 2]), ("b", [1, 2]), f=["s", "t"])
    pytest_mark_what_pairs_do_not_need(items)
    assert sum(item.slow for item in items) == 4


def test_what_is_slow_already_covers_nothing():
    items = matrix(("a", [1, 2]), ("b", [1, 2]), ("c", [1, 2]))
    for item in items[:4]:
        item.slow = True
    pytest_mark_what_pairs_do_not_need(items)
    assert {item.callspec.params["a"] for item in items if not item.slow} == {2}
