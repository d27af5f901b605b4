"""Which cases of a matrix wait for the slow tier, and `--one-case`, for a second torch.

A test that crosses three or more lists of cases (method x base x pass x form ...) runs whole in the slow tier. In the
fast tier it runs so many of its cases that every pair of values from two lists comes together in one of them: what
breaks one value, or two together, shows there, at a fraction of the cost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import pytest

Case = tuple[Any, ...]  # one value from each list


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--one-case", action="store_true", help="run the first case of every test function only")


@pytest.hookimpl(specname="pytest_collection_modifyitems")  # before -m; after a folder's own conftest
def pytest_mark_what_pairs_do_not_need(items: list[pytest.Item]) -> None:
    matrices = defaultdict(list)
    for item in items:
        if item.get_closest_marker("slow") is None and len(case := _case(item)) > 2:
            matrices[item.nodeid.partition("[")[0]].append((item, case))
    for matrix in matrices.values():
        kept = covering([case for _, case in matrix])
        for index, (item, _) in enumerate(matrix):
            if index not in kept:
                item.add_marker(pytest.mark.slow)


def covering(cases: Sequence[Case]) -> set[int]:
    """Indices of cases that have every pair of values that is in any; each time the first that adds the most."""
    pairs = [set(combinations(enumerate(case), 2)) for case in cases]
    kept: set[int] = set()
    left = set().union(*pairs)
    while left:
        best = max(range(len(cases)), key=lambda index: len(pairs[index] & left))
        left -= pairs[best]
        kept.add(best)
    return kept


def _case(item: pytest.Item) -> Case:
    """By list, which values an item has of it; a list is one `parametrize`, or the parameters of one fixture."""
    params: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    lists = [_names(mark.args[0]) for mark in item.iter_markers("parametrize")]
    single = set(params).difference(*lists)
    return tuple(tuple(id(params[name]) for name in names) for names in (*lists, *([name] for name in sorted(single))))


def _names(given: str | Iterable[str]) -> list[str]:
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)


@pytest.hookimpl(specname="pytest_collection_modifyitems", trylast=True)  # the first of those that -k and -m left
def pytest_keep_one_case(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--one-case"):
        return
    first: dict[str, pytest.Item] = {}
    for item in items:
        first.setdefault(item.nodeid.partition("[")[0], item)
    kept = set(first.values())
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]
