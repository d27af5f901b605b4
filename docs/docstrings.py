"""Docstrings for the site: presets get the text of their table row, and signs that Markdown would eat are kept.

Docstrings are written to be read in a terminal: `<a, e>`, `rho*m`. Markdown takes the first for HTML and the second for
emphasis. Equations, which are indented, become mathematics where they can be read as such; examples stay as they are.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

from fenland.lab.report.equations import markdown

SECTION = re.compile(r"^(Args|Arguments|Attributes|Returns|Raises|Yields|Warns|Examples):\s*$")
BLOCK = re.compile(r"(\A|\n\n)((?: {4}\S[^\n]*\n?)+)(?=\n|\Z)")
SIGNS = ((re.compile(r"<(?=[A-Za-z/!])"), "&lt;"), (re.compile(r"(?<=[\w)\]|])\*(?=[\w(\[|])"), r"\\*"))


def readable(text: str) -> str:
    """The docstring with its examples as a section, and with signs that Markdown would take for its own escaped."""
    lines, section, before = [], "", ""
    for line in _with_examples(text.splitlines()):
        if line and not line.startswith(" "):
            found = SECTION.match(line)
            section = found[1] if found else ""
        if section == "Raises" and line.startswith("    As "):  # "As `other`.": the parser wants a name first
            line = f"    Exception: as {line[7:]}"
        equation = not section and line.startswith("    ") and (not before.strip() or before.startswith("    "))
        lines.append(line if equation or section == "Examples" else _escaped(line))
        before = line
    return _typeset("\n".join(lines))


def _typeset(text: str) -> str:
    """Indented blocks before the first section as mathematics, unless one of their lines is no equation."""
    head, opened, sections = re.match(r"(.*?)(?:^(\w+:)$(.*))?\Z", text, re.S | re.M).groups("")  # type: ignore[union-attr]
    return BLOCK.sub(_block, head) + opened + sections


def _block(found: re.Match[str]) -> str:
    lines = [line.strip() for line in found[2].strip().split("\n")]
    try:
        written = [f"{markdown(line)}\n{{: .fenland-equation }}" for line in lines]
    except ValueError:
        return found[0]
    mathematics = all("=" in line or "$" in line for line in written)
    return found[1] + "\n\n".join(written) + "\n" if mathematics else found[0]


def _with_examples(lines: list[str]) -> list[str]:
    """`Example:` is `Examples:` to the parser; a bare `>>>` at the margin opens such a section."""
    result: list[str] = []
    inside = False
    for line in lines:
        if line == "Example:":
            line = "Examples:"
        if line.startswith(">>> ") and not inside:
            result += ["", "Examples:"] if result else ["Examples:"]
            inside = True
        elif inside and not line.strip():
            inside = False
        result.append(f"    {line}" if inside else line)
    return result


def _escaped(line: str) -> str:
    parts = line.split("`")
    for sign, kept in SIGNS:
        parts[::2] = [sign.sub(kept, part) for part in parts[::2]]
    return "`".join(parts)


class Docstrings(griffe.Extension):
    """Rewrites each docstring of the package once, after it was read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Make one docstring readable."""
        if obj.docstring is None:
            return
        row = _row(obj)
        obj.docstring.value = readable(row if row is not None else obj.docstring.value)


def _row(obj: griffe.Object) -> str | None:
    """The text of a method's row in the table of presets, or of the fields of a run, which Python puts there."""
    if obj.path == "fenland.lab.config.run_config.RunConfig":
        from fenland.lab.config import RunConfig

        return RunConfig.__doc__
    if not (obj.is_function and obj.path.startswith("fenland.presets.") and obj.parent and obj.parent.is_module):
        return None
    from fenland.presets import PRESETS

    return PRESETS[obj.name].text if obj.name in PRESETS else None
