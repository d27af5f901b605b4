"""Arguments of a preset from words: ``eta=0.1`` becomes a float, ``include_bias=off`` a switch."""

from __future__ import annotations

import contextlib
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal, Union

from fenland.lab.config import words
from fenland.lab.errors import BadInput, one_of
from fenland.optimizer import SharpnessAware

# Given by the lab itself, or fields of the run.
_TAKEN = ("base", "rho", "model", "return")


def read_options(optimizer: str, builds: Sequence[Callable[..., Any]], texts: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments, typed as the signatures say.

    Args:
        optimizer: the name that errors show.
        builds: functions or classes that take the arguments. A function that takes ``**options`` hands them on to
            ``SharpnessAware``, whose arguments count too.
        texts: ``name=value`` each.

    Raises:
        BadInput: there is no such argument, or the value has another type.
    """
    known = {name: kinds for build in builds for name, kinds in arguments(build).items()}
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known:
            raise BadInput("options", f"{optimizer}:{text}", _cure(optimizer, name, sorted(known)))
        found[name] = _read(value, known[name], f"{optimizer}:{text}", name)
    return found


def _cure(optimizer: str, name: str, known: list[str]) -> str:
    if not known:
        return f"{optimizer} takes no options"
    return f"{optimizer} has no argument {name} that a word can give; {one_of(known, name)}"


def arguments(build: Callable[..., Any]) -> dict[str, tuple[Any, ...]]:
    """From the names of arguments that a word can give to the types they take."""
    hints = _hints(build)
    if "options" in build.__annotations__:
        hints = {**_hints(SharpnessAware.__init__), **hints}
    allowed = {name: _plain(hint) for name, hint in hints.items() if name not in _TAKEN}
    return {name: kinds for name, kinds in allowed.items() if set(kinds) - {type(None)}}


def _hints(build: Callable[..., Any]) -> dict[str, Any]:
    """The types of arguments; one that is imported for type checkers only is nothing that a word can give."""
    if isinstance(build, type):
        return typing.get_type_hints(build)
    found: dict[str, Any] = {}
    for name, hint in build.__annotations__.items():
        alone = types.SimpleNamespace(__annotations__={name: hint})
        with contextlib.suppress(NameError):
            found |= typing.get_type_hints(alone, inspect.unwrap(build).__globals__)
    return found


def _plain(hint: Any) -> tuple[Any, ...]:
    """The members of a type that a word can express."""
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return tuple(kind for member in typing.get_args(hint) for kind in _plain(member))
    return (hint,) if hint in (bool, int, float, str, type(None)) or origin is Literal else ()


def _read(text: str, kinds: tuple[Any, ...], shown: str, name: str) -> Any:
    for kind in kinds:
        with contextlib.suppress(ValueError):
            return words.value(text, kind)
    raise BadInput("options", shown, f"{name} takes {' or '.join(_describe(kind) for kind in kinds)}")


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    return {bool: "on or off", int: "a whole number", float: "a number", type(None): "none"}.get(kind, "a word")
