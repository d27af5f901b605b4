"""The statements of fenland's modules, read and not run: what each of them binds, imports and names."""

from __future__ import annotations

import ast
import functools
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import util
from pathlib import Path

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Module:
    """A module's statements by what they bind."""

    bound: dict[str, list[ast.stmt]]
    imported: dict[str, tuple[str, str]]
    loose: list[ast.stmt]


@dataclass(frozen=True)
class Told:
    """What an expression or a statement names, each thing once, in the order in which it does."""

    imported: dict[str, tuple[str, str]]
    names: tuple[str, ...]
    mentioned: tuple[str, ...]  # attributes, and texts that could be the name of one
    chains: tuple[tuple[str, tuple[str, ...]], ...]  # ``a.b.c`` as ("a", ("b", "c"))


@functools.lru_cache(maxsize=50_000)
def told(node: ast.AST) -> Told:
    """Of an expression or a statement, with all that is in it."""
    imported: dict[str, tuple[str, str]] = {}
    names, mentioned, chains = [], [], []
    for each in ast.walk(node):
        imported.update(_imports(each))
        if isinstance(each, ast.Name):
            names.append(each.id)
        elif isinstance(each, ast.Attribute):
            mentioned.append(each.attr)
            parts, base = [each.attr], each.value
            while isinstance(base, ast.Attribute):
                parts, base = [base.attr, *parts], base.value
            if isinstance(base, ast.Name):
                chains.append((base.id, tuple(parts)))
        elif isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value.isidentifier():
            mentioned.append(each.value)
    return Told(imported, tuple(dict.fromkeys(names)), tuple(dict.fromkeys(mentioned)), tuple(dict.fromkeys(chains)))


def module_of(module: str, name: str) -> str | None:
    """The module that a name of a module stands for; None where it stands for something else, or for nothing."""
    here = read(module)
    if here is None or name in here.bound:
        return None
    of, what = here.imported.get(name, (module, name))
    if (of, what) != (module, name):  # a package may import a module of its own
        return of if not what else module_of(of, what) if of.startswith("fenland") else None
    return f"{module}.{name}" if is_module(f"{module}.{name}") else None


@functools.lru_cache(maxsize=20_000)
def bare(statement: ast.stmt) -> tuple[ast.stmt, str]:
    """Without docstrings and annotations of functions, which compute nothing; and as text."""
    if not any(isinstance(each, FUNCTION) for each in ast.walk(statement)):
        return statement, ast.dump(statement)
    copy = ast.parse(ast.unparse(statement)).body[0]
    for each in ast.walk(copy):
        if isinstance(each, FUNCTION):
            each.returns = None
            if ast.get_docstring(each) is not None:
                each.body = each.body[1:] or [ast.Pass()]
        elif isinstance(each, ast.arg):
            each.annotation = None
    return copy, ast.dump(copy)


@functools.lru_cache(maxsize=1024)
def is_module(module: str) -> bool:
    """Whether there is such a module of fenland."""
    if not module.startswith("fenland."):
        return False
    try:
        return util.find_spec(module) is not None
    except ModuleNotFoundError:  # a part of the name is a module, and no package
        return False


def read(module: str) -> Module | None:
    """The statements of a module by its name; None where it has no source, or is none."""
    loaded = sys.modules.get(module)
    path = getattr(loaded, "__file__", None)
    if path is None and is_module(module):
        found = util.find_spec(module)
        path = None if found is None else found.origin
    return None if path is None or not path.endswith(".py") else _parse(path, os.stat(path).st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _parse(path: str, changed: int) -> Module:
    """The statements of a file that was last changed at this time."""
    return _statements(Path(path).read_text(encoding="utf-8"))


def _statements(source: str) -> Module:
    """The statements of a module by what they bind."""
    here = Module({}, {}, [])
    for statement in _top(ast.parse(source).body):
        brought = dict(_imports(statement))
        here.imported.update(brought)
        names = list(_binds(statement))
        for name in names:
            here.bound.setdefault(name, []).append(statement)
        docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not (names or docstring or isinstance(statement, (ast.Import, ast.ImportFrom))):
            here.loose.append(statement)
    return here


def _top(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, those in an ``if`` or ``try`` one by one, without what is there for type checkers."""
    for statement in body:
        if isinstance(statement, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(statement.test):
                yield from _top([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            yield from _top([*statement.body, *(x for each in statement.handlers for x in each.body)])
        else:
            yield statement


def _binds(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module defines."""
    if isinstance(statement, (*FUNCTION, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
        for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
            yield from (each.id for each in ast.walk(target) if isinstance(each, ast.Name))


def _imports(node: ast.AST) -> Iterator[tuple[str, tuple[str, str]]]:
    """(name, (module, name in it)) of what an import binds; the second is empty for a module."""
    if isinstance(node, ast.Import):
        for each in node.names:
            first = each.name.split(".")[0]
            yield each.asname or first, (each.name if each.asname else first, "")
    elif isinstance(node, ast.ImportFrom) and not node.level:  # fenland's own imports are absolute
        for each in node.names:
            yield each.asname or each.name, (str(node.module), each.name)
