"""What moved between two records by more than their spread."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WIDTHS = 2.0  # spreads (half interquartile ranges, both records') that a median must have moved by
LEAST = 0.05  # and by this share


@dataclass(frozen=True)
class Change:
    """One figure that moved.

    Attributes:
        where: set, base and name.
        old: multiples of the floor (ms for the floor and the base themselves) before.
        new: after.
        spread: of both, added, in the same unit.
    """

    where: tuple[str, str, str]
    old: float
    new: float
    spread: float

    @property
    def share(self) -> float:
        """new / old - 1."""
        return self.new / self.old - 1

    def __str__(self) -> str:
        name = " ".join(self.where)
        return f"{name}: {self.old:.2f} -> {self.new:.2f} floors ({self.share:+.0%}, spread {self.spread:.2f})"


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Where the cost in floors of a step moved by more than the spread, worst first.

    Floors, not milliseconds: each record's own floor takes out how fast its machine was at that time. What only one
    record has is left out.
    """
    found = [change for change in _both(old, new) if _moved(change)]
    return sorted(found, key=lambda change: change.new - change.old, reverse=True)


def _both(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    for name, bases in old["sets"].items():
        for base, rows in bases.items():
            others = new["sets"].get(name, {}).get(base, {})
            for who, row in rows.items():
                if "floors" in row and who in others and who != "floor":
                    spreads = [r[who]["spread_ms"] / r["floor"]["ms"] for r in (rows, others)]
                    yield Change((name, base, who), row["floors"], others[who]["floors"], sum(spreads))


def _moved(change: Change) -> bool:
    by = abs(change.new - change.old)
    return by > WIDTHS * change.spread and by > LEAST * abs(change.old)


def read(path: Path) -> dict[str, Any]:
    """A record."""
    from fenland.lab.errors import BadInput

    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput("record", str(path), "a JSON file that `fenland bench --out` wrote") from error
    if not isinstance(found, dict) or "sets" not in found:
        raise BadInput("record", str(path), "a JSON file that `fenland bench --out` wrote")
    return found
