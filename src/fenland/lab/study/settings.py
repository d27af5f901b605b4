"""A study's configuration from the command line: a preset, and fields set to other values."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fenland.lab.config.grid import scalar
from fenland.lab.errors import BadInput, one_of
from fenland.lab.study.base import Study

_SWITCH = {"true": True, "false": False, "on": True, "off": False}


def split(settings: Iterable[str]) -> dict[str, str]:
    """``field=value`` words as a dictionary.

    Raises:
        BadInput: a word has no ``=``, or a field is set twice.
    """
    found: dict[str, str] = {}
    for word in settings:
        name, equals, value = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise BadInput("set", word, "write field=value, as in rho=0.1 or seeds=0,1,2")
        if name in found:
            raise BadInput("set", word, f"{name} is set twice")
        found[name] = value.strip()
    return found


def configure(study: Study[Any], preset: str = "quick", overrides: Mapping[str, str] | None = None) -> Any:
    """The configuration of a preset with some fields set to other values, given as text.

    Numbers, words, on/off, and for tuples values between commas; ``0..9`` stands for the whole numbers 0 to 9.

    Raises:
        BadInput: an unknown preset or field, or a value of the wrong kind; what is allowed is named.
    """
    if preset not in study.presets:
        raise BadInput("preset", preset, f"{study.name}: {one_of(study.presets)}")
    config = study.presets[preset]
    if not overrides:
        return config
    hints = get_type_hints(type(config))
    values = {}
    for name, text in overrides.items():
        if name not in hints:
            raise BadInput("set", f"{name}={text}", f"{study.name} has no such field; {one_of(hints)}")
        try:
            values[name] = _read(text, hints[name])
        except ValueError as error:
            raise BadInput("set", f"{name}={text}", f"{study.name}: {error}") from None
    try:
        return dataclasses.replace(config, **values)
    except BadInput:
        raise
    except (ValueError, TypeError) as error:
        shown = ", ".join(f"{name}={text}" for name, text in overrides.items())
        raise BadInput("set", shown, f"{study.name}: {error}") from None


def fields(study: Study[Any]) -> list[dict[str, Any]]:
    """Every field with its value in each preset."""
    first = next(iter(study.presets.values()))
    return [
        {"field": field.name} | {name: getattr(config, field.name) for name, config in study.presets.items()}
        for field in dataclasses.fields(first)
    ]


def plain(config: Any) -> dict[str, Any]:
    """A configuration as plain values in the order of its fields, tuples as lists: the same after a trip to JSON."""
    return {
        field.name: list(value) if isinstance(value := getattr(config, field.name), tuple) else value
        for field in dataclasses.fields(config)
    }


def restore(study: Study[Any], values: Mapping[str, Any]) -> Any:
    """The configuration of which `plain` made these values.

    Raises:
        BadInput: a field is unknown to this version.
    """
    config = next(iter(study.presets.values()))
    known = {field.name for field in dataclasses.fields(config)}
    for name in values:
        if name not in known:
            raise BadInput("DIR", f"{study.name}: {name}", "stored by another version; run the study again")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return dataclasses.replace(config, **given)


def _read(text: str, kind: Any) -> Any:
    """A value of the kind that a field declares."""
    origin = get_origin(kind)
    if origin is tuple:
        return tuple(each for part in text.split(",") for each in _several(part.strip(), get_args(kind)[0]))
    if origin in (Union, types.UnionType):
        if text in ("none", "None"):
            return None
        return _read(text, next(each for each in get_args(kind) if each is not type(None)))
    if origin is Literal:
        if text not in get_args(kind):
            raise ValueError(one_of(map(str, get_args(kind))))
        return text
    return scalar(text, kind, _SWITCH)


def _several(part: str, kind: Any) -> list[Any]:
    first, dots, last = part.partition("..")
    if dots and kind is int and first.isdigit() and last.isdigit() and int(first) <= int(last):
        return list(range(int(first), int(last) + 1))
    return [_read(part, kind)]
