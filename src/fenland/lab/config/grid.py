"""From ``field=values`` words to every combination of the values, each read as the type of its field."""

from __future__ import annotations

import dataclasses
import itertools
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

from fenland.lab.errors import BadInput, one_of

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?")
_SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
Axes = dict[str, list[str]]


def axes(settings: Iterable[str], kind: type, refused: Sequence[str] = ()) -> Axes:
    """The values of each field, as texts, in the order they were given.

    Values stand between commas; ``0..9`` are the whole numbers from 0 to 9, ``0..8..2`` every second one of them. A
    field that is a list itself has its elements between commas and its values between semicolons.

    Args:
        settings: ``field=values`` each.
        kind: a dataclass, whose fields may be set.
        refused: of these, the ones that may not.

    Raises:
        BadInput: naming the word, and the fields that exist.
    """
    hints = get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind) if field.name not in refused]
    found: Axes = {}
    for word in settings:
        name, equals, text = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise BadInput("set", word, "write field=value or field=value,value, as in rho=0.05,0.1 or seed=0..9")
        if name not in fields:
            raise BadInput("set", word, f"no such field; {one_of(fields)}")
        if name in found:
            raise BadInput("set", word, f"{name} is set twice; list its values as in {name}=a,b")
        many = text.split(";") if _is_list(hints[name]) else _expand(word, text)
        found[name] = list(dict.fromkeys(value.strip() for value in many))
        if not all(found[name]) and not _is_list(hints[name]):
            raise BadInput("set", word, "a value is missing")
    return found


def combinations(found: Axes) -> list[dict[str, str]]:
    """Every combination of the values; the first field changes slowest."""
    return [dict(zip(found, values, strict=True)) for values in itertools.product(*found.values())]


def read(name: str, text: str, kind: Any) -> Any:
    """A text as a value of the type that a field declares.

    Raises:
        BadInput: it is none; the field and the text are named.
    """
    try:
        return _read(text, kind)
    except ValueError as error:
        raise BadInput("set", f"{name}={text}", str(error)) from None


def hints(kind: type) -> Mapping[str, Any]:
    """The types of a dataclass's fields."""
    return get_type_hints(kind)


def _expand(word: str, text: str) -> list[str]:
    values: list[str] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            values.append(part)
            continue
        first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
        if last < first or step < 1:
            raise BadInput("set", word, f"{part.strip()} is an empty range; write it as 0..9 or 0..8..2")
        values += map(str, range(first, last + 1, step))
    return values


def _is_list(kind: Any) -> bool:
    return get_origin(kind) in (tuple, list)


def _read(text: str, kind: Any) -> Any:
    if _is_list(kind):
        inner = get_args(kind)[0]
        return tuple(_read(part.strip(), inner) for part in text.split(",") if part.strip() not in ("", "none"))
    if get_origin(kind) in (Union, types.UnionType):
        if text.lower() in ("none", "all"):
            return None
        return _read(text, next(each for each in get_args(kind) if each is not type(None)))
    return scalar(text, kind, _SWITCH)


def scalar(text: str, kind: Any, switch: Mapping[str, bool]) -> Any:
    """A switch, a number or a word.

    Args:
        text: as it was given.
        kind: bool, int, float, or anything else for a word.
        switch: the words for on and off, in lower case.

    Raises:
        ValueError: it is none of that kind; the message is what to write instead.
    """
    if kind is bool:
        if text.lower() not in switch:
            raise ValueError("write on or off")
        return switch[text.lower()]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise ValueError("write a whole number" if kind is int else "write a number") from None
    return text
