"""How an option of a command stands in the help."""

from __future__ import annotations

from typing import Any

from tyro.conf import arg

_NOTHING = ("", "''", "None")


def option(**given: Any) -> Any:
    """tyro's ``arg``, but an option that has no value by default does not show one.

    Args:
        given: of ``arg``, such as ``metavar``.
    """
    return arg(help_behavior_hint=_default, **given)


def _default(label: str) -> str:
    return "" if label in _NOTHING else f"(default: {label})"
