"""The one dialect in which people write values: in a sweep's ``--set``, a study's, an option's and a method's.

==================== ==================================================================================================
a switch             ``on``, ``yes``, ``true``; ``off``, ``no``, ``false``
no value             ``none``, or ``all`` (of a limit)
a list               its elements between commas
whole numbers        ``0..9`` from 0 to 9, ``0..8..2`` every second one of them, also within a list
several lists        between semicolons
==================== ==================================================================================================

Capitals do not matter in the words for switches and for no value.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fenland.lab.errors import BadInput, one_of

SWITCH = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
NONE = ("none", "all")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?")
Axes = dict[str, list[str]]


def value(text: str, kind: Any) -> Any:
    """A text as a value of the type that a field or an argument declares."""
    origin = get_origin(kind)
    if origin in (tuple, list):
        parts = [] if text.strip().lower() in ("", "none") else expand(text)
        return tuple(value(part, get_args(kind)[0]) for part in parts if part)
    if origin in (Union, types.UnionType):
        return _any_of(text, get_args(kind))
    if origin is Literal:
        return _look_up(text, {str(each): each for each in get_args(kind)}, one_of(map(str, get_args(kind))))
    if kind is bool:
        return _look_up(text.lower(), SWITCH, "write on or off")
    if kind is type(None):
        return _look_up(text.lower(), dict.fromkeys(NONE), "write none")
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise ValueError("write a whole number" if kind is int else "write a number") from None
    return text


def _look_up(text: str, known: Mapping[str, Any], cure: str) -> Any:
    if text not in known:
        raise ValueError(cure)
    return known[text]


def _any_of(text: str, kinds: Sequence[Any]) -> Any:
    """The first of several types that takes the text; none before any word."""
    cures = []
    for kind in sorted(kinds, key=lambda kind: kind is not type(None)):
        try:
            return value(text, kind)
        except ValueError as error:
            cures.append(str(error))
    raise ValueError(" or ".join(dict.fromkeys(cures[-1:] if type(None) in kinds else cures)))


def expand(text: str) -> list[str]:
    """The values of a list as texts, ranges written out."""
    values: list[str] = []
    for part in map(str.strip, text.split(",")):
        match = _RANGE.fullmatch(part)
        if match is None:
            values.append(part)
            continue
        first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
        if last < first or step < 1:
            raise ValueError(f"{part} is an empty range; write it as 0..9 or 0..8..2")
        values += map(str, range(first, last + 1, step))
    return values


def whole(name: str, text: str, least: int = 1) -> int:
    """The whole number of an option of the command line."""
    try:
        found = int(text)
    except ValueError:
        found = least - 1
    if found < least:
        raise BadInput(name, text, f"give a whole number >= {least}")
    return found


def hints(kind: Any) -> Mapping[str, Any]:
    """The types of a dataclass's fields."""
    return get_type_hints(kind)


def pairs(words: Iterable[str], known: Sequence[str] = ()) -> dict[str, str]:
    """``field=value`` words as a dictionary; hyphens in a name stand for underscores."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise BadInput("set", word, "write field=value or field=value,value, as in rho=0.05,0.1 or seed=0..9")
        if known and name not in known:
            raise BadInput("set", word, f"no such field; {one_of(known, name)}")
        if name in found:
            raise BadInput("set", word, f"{name} is set twice; list its values as in {name}=a,b")
        found[name] = text.strip()
    return found


def axes(words: Iterable[str], kind: type, refused: Sequence[str] = ()) -> Axes:
    """From ``field=values`` words to the values of each field, as texts, in the order they were given."""
    fields = [field.name for field in dataclasses.fields(kind) if field.name not in refused]
    found: Axes = {}
    for name, text in pairs(words, fields).items():
        a_list = get_origin(hints(kind)[name]) in (tuple, list)
        try:
            many = [each.strip() for each in text.split(";")] if a_list else expand(text)
        except ValueError as error:
            raise BadInput("set", f"{name}={text}", str(error)) from None
        if not (all(many) or a_list):
            raise BadInput("set", f"{name}={text}", "a value is missing")
        found[name] = list(dict.fromkeys(many))
    return found


def combinations(found: Axes) -> list[dict[str, str]]:
    """Every combination of the values; the first field changes slowest."""
    return [dict(zip(found, values, strict=True)) for values in itertools.product(*found.values())]


def read(name: str, text: str, kind: Any) -> Any:
    """The value of one field of a ``--set``."""
    try:
        return value(text, kind)
    except ValueError as error:
        raise BadInput("set", f"{name}={text}", str(error)) from None


def number(text: str) -> float:
    """A text as a number; NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
