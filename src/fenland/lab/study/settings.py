"""A study's configuration from the command line: a preset, and fields set to other values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fenland.lab.config import words
from fenland.lab.errors import BadInput, one_of
from fenland.lab.study.study import Study


def configure(study: Study, preset: str = "quick", overrides: Mapping[str, str] | None = None) -> Any:
    """The configuration of a preset with some fields set to other values, given as text.

    In which dialect: see ``fenland.lab.config.words``.
    """
    if preset not in study.presets:
        raise BadInput("preset", preset, f"{study.name}: {one_of(study.presets, preset)}")
    config = study.presets[preset]
    if not overrides:
        return config
    hints = words.hints(type(config))
    values = {}
    for name, text in overrides.items():
        if name not in hints:
            raise BadInput("set", f"{name}={text}", f"{study.name} has no such field; {one_of(hints, name)}")
        try:
            values[name] = words.value(text, hints[name])
        except ValueError as error:
            raise BadInput("set", f"{name}={text}", f"{study.name}: {error}") from None
    try:
        return dataclasses.replace(config, **values)
    except BadInput as error:
        shown = f"{error.argument}={overrides.get(error.argument, error.value)}"
        raise BadInput("set", shown, f"{study.name}: {error.cure}") from None
    except (ValueError, TypeError) as error:
        shown = ", ".join(f"{name}={text}" for name, text in overrides.items())
        raise BadInput("set", shown, f"{study.name}: {error}") from None


def fields(study: Study) -> list[dict[str, Any]]:
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


def restore(study: Study, values: Mapping[str, Any]) -> Any:
    """The configuration of which `plain` made these values."""
    config = next(iter(study.presets.values()))
    known = {field.name for field in dataclasses.fields(config)}
    for name in values:
        if name not in known:
            raise BadInput("DIR", f"{study.name}: {name}", "stored by another version; run the study again")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return dataclasses.replace(config, **given)
