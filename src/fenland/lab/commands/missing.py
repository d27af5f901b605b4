"""What is not installed that a command needs, in one line."""

from __future__ import annotations

import re
from importlib import metadata

from fenland.arguments import installing

_NEEDED = re.compile(r"""(?P<name>[\w.-]+).*extra\s*==\s*['"](?P<extra>\w+)['"]""")
# Packages whose module has another name.
_MODULES = {"sklearn": "scikit-learn", "PIL": "pillow", "hessian_eigenthings": "hessian-eigenthings"}


def said(module: str) -> str:
    """The line for a module that could not be imported."""
    package = _MODULES.get(module.split(".")[0], module.split(".")[0])
    extra = next((extra for name, extra in _listed() if name == package), "lab")
    gone = [name for name, own in _listed() if own == extra and not _installed(name)]
    names = ", ".join(dict.fromkeys([package, *gone]))
    return f"{names} {'is' if names == package else 'are'} not installed; run: {installing(extra)}"


def _listed() -> list[tuple[str, str]]:
    """Every package that an extra of fenland asks for, with that extra."""
    try:
        lines = metadata.requires("fenland") or []
    except metadata.PackageNotFoundError:  # run from its source
        return []
    matches = [match for line in lines if (match := _NEEDED.match(line))]
    return [(match["name"], match["extra"]) for match in matches]


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
