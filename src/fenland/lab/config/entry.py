"""What the table of fields says of each: what it may hold, with the cure, its help and how it enters the name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fenland.lab.errors import one_of

REQUIRED = dataclasses.MISSING
AUTO = "auto"
# Whether a field is part of a run's hash. Fields that came later are where they are set: other runs keep their names.
ALWAYS, WHERE_SET, NEVER = "always", "where set", "never"
_KEY = "fenland"


@dataclass(frozen=True)
class Allowed:
    """What a field may hold."""

    holds: Callable[[Any], bool]  # the condition
    cure: str  # what to do where it fails
    metavar: str = "NUMBER"  # what stands for the value in the help


@dataclass(frozen=True)
class Entry:
    """A row of the table, beside the name, the type and the default."""

    allowed: Allowed  # see there; for a field whose type allows None, that is allowed too
    help: str  # in ``--help`` and in the reference
    # ``auto`` may be written for it, which is also the command line's default: see ``fenland.lab.sweep.auto``
    auto: bool = False
    hashed: str = ALWAYS  # ``ALWAYS``, ``WHERE_SET`` or ``NEVER``
    # an option of `fenland compare` of its own; without it the command has another one for it, or none
    option: bool = True


def entry(default: Any, allowed: Allowed, help: str, **more: Any) -> Any:
    """A dataclass's field with its row of the table; see ``Entry`` for what else may be given."""
    return dataclasses.field(default=default, metadata={_KEY: Entry(allowed, help, **more)})


def entries(kind: type) -> dict[str, Entry]:
    """The table, in the order of the fields."""
    return {field.name: field.metadata[_KEY] for field in dataclasses.fields(kind)}


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def at_least(least: int) -> Allowed:
    """Whole numbers from one on."""
    return Allowed(lambda value: _whole(value) and value >= least, f"give a whole number >= {least}")


def among(names: tuple[str, ...]) -> Allowed:
    """Some words."""
    return Allowed(lambda value: value in names, one_of(names), "NAME")


POSITIVE = Allowed(lambda value: _number(value) and value > 0, "give a number > 0")
NOT_NEGATIVE = Allowed(lambda value: _number(value) and value >= 0, "give a number >= 0")
BELOW_ONE = Allowed(lambda value: _number(value) and 0 <= value < 1, "give a number in [0, 1)")
SHARE = Allowed(lambda value: _number(value) and 0 <= value <= 1, "give a share in [0, 1]")
SWITCH = Allowed(lambda value: isinstance(value, bool), "give on or off", "on|off")
# Looked up elsewhere: the name of a model, of an optimizer, of data.
NAME = Allowed(lambda value: isinstance(value, str), "give a name", "NAME")
FOLDER = Allowed(lambda value: isinstance(value, str) and value != "", "give a folder", "DIR")
