"""Faults that the engine has today: `open_faults.txt` lists the tests that show them, one node id a line."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    listed = HERE / "open_faults.txt"
    if not listed.exists():
        return
    known = set(listed.read_text().splitlines())
    for item in items:
        if item.path.parent == HERE and item.nodeid.split("peers/")[-1] in known:
            item.add_marker(pytest.mark.xfail(reason=f"engine: issue 15 point {item.module.POINT}", strict=True))
