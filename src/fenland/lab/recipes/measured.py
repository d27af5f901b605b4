"""What the runs behind the recipes say, from the file that comes with the package.

``measured.json`` is made from the records by ``python docs/measured_recipes.py``, since an installed package has no
records; a test compares the two.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Measured:
    """A method on a task, beside the base.

    Args:
        lr: chosen on held-out examples.
        rho: likewise.
        tries: points that it chose from.
        gain: what it brought on the test set, with intervals, for people; empty while seeds are missing.
    """

    lr: float
    rho: float
    tries: int
    gain: str


@cache
def _table() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def measured(task: str, method: str) -> Measured | None:
    """What is known of a method on a task; None where it has not chosen its point yet."""
    found = _table().get(f"{task} / {method}")
    return None if found is None else Measured(**found)
