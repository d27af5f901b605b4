"""What the layer tests read in a package's source: imports, import circles, and the lengths of functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One import: the absolute dotted name, its line, and when it runs."""

    name: str
    line: int
    on_import: bool  # neither in a function nor for type checkers alone


@dataclass(frozen=True)
class Function:
    """One function and its length without its docstring."""

    name: str
    line: int
    length: int


class SourceTree:
    """The modules of the package in `folder`, whose name is the folder's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = sorted(folder.rglob("*.py"))
        self._imports: dict[Path, list[Import]] = {}

    def module(self, path: Path) -> str:
        parts = [self.folder.name, *path.relative_to(self.folder).with_suffix("").parts]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def modules(self) -> dict[str, Path]:
        return {self.module(path): path for path in self.files}

    def imports(self, path: Path) -> list[Import]:
        if path not in self._imports:
            self._imports[path] = self._read(path)
        return self._imports[path]

    def _read(self, path: Path) -> list[Import]:
        tree = parse(path)
        package = self.module(path).split(".")
        if path.name != "__init__.py":
            package = package[:-1]
        later = {id(node) for part in _deferred(tree) for node in ast.walk(part)}
        return [
            Import(name, node.lineno, id(node) not in later)
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in self._names(node, package)
        ]

    def _names(self, node: ast.Import | ast.ImportFrom, package: list[str]) -> list[str]:
        """Modules where the names are modules of the tree, else what they are taken from."""
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        base = package[: len(package) - node.level + 1] if node.level else []
        source = ".".join([*base, *([node.module] if node.module else [])])
        full = [f"{source}.{alias.name}" for alias in node.names]
        return [name if name in self.modules else source for name in full]

    def circles(self) -> list[list[str]]:
        """Modules that import each other or themselves, directly or not; deferred and typing-only imports count.

        That a package is imported with its modules does not: every `__init__.py` that re-exports would be a circle.
        """
        known = self.modules
        return _circles(
            {module: {each.name for each in self.imports(path) if each.name in known} for module, path in known.items()}
        )


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> list[Function]:
    found = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            docstring = isinstance(first, ast.Expr) and isinstance(getattr(first, "value", None), ast.Constant)
            doc = first.end_lineno - first.lineno + 1 if docstring else 0
            found.append(Function(node.name, node.lineno, node.end_lineno - node.lineno + 1 - doc))
    return found


def _deferred(tree: ast.Module) -> Iterator[ast.AST]:
    """The parts of a module that do not run when it is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from node.body


def _circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules that reach each other (Warshall's closure on what is left once leaves and roots are gone)."""
    left = dict(graph)
    while outer := [m for m in left if not left[m] & left.keys() or not any(m in left[n] for n in left)]:
        left = {m: left[m] for m in left if m not in outer}
    reach = {m: left[m] & left.keys() for m in left}
    for middle in left:
        for m in left:
            if middle in reach[m]:
                reach[m] = reach[m] | reach[middle]
    joined = {frozenset(n for n in reach[m] if m in reach[n]) for m in left if m in reach[m]}
    return sorted(sorted(each) for each in joined)
