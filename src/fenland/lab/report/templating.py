"""The templates of all pages, and what each of them gets."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fenland import __version__
from fenland.lab.figures.style import DARK, LIGHT


def fill(template: str, context: dict[str, Any]) -> str:
    """A page as text."""
    environment = Environment(
        loader=PackageLoader("fenland.lab.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_unbroken,
    )  # fmt: skip
    common = {"light": LIGHT, "dark": DARK, "version": __version__}
    return environment.get_template(template).render(**common, **context)


def _unbroken(value: Any) -> Any:
    """Keep a number and its per cent sign on one line."""
    return value.replace(" %", "\u00a0%") if isinstance(value, str) else value
