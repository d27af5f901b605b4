"""Which code made a table: the definitions that a function reaches, in whatever modules they stand.

A stored table is taken again only where its settings and this code are the same. The code is read, not run: from the
function that computes it, every name is followed to its definition within fenland (or the file of a study that is no
part of it), through imports, also those inside functions and those of a package's ``__init__``. A method counts where
something that is reached has its name. What does not compute stays out: docstrings, comments, annotations, layout,
and in a study's file its claims, figures and prose.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module, util
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Libraries whose numbers are ours too.
LIBRARIES = ("torch", "numpy")
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def code_of(*roots: Any) -> str:
    """Sixteen hex digits of all code that functions and classes reach.

    Args:
        roots: functions or classes of modules; of a `functools.partial` the function and the classes of its arguments.
    """
    return _reached(*roots).digits


def names_in(name: str, *roots: Any) -> bool:
    """Whether functions and classes reach something that is called so: a method or an attribute."""
    return name in _reached(*roots).names


@functools.lru_cache(maxsize=512)
def _reached(*roots: Any) -> _Reach:
    reach = _Reach({module for module, _ in map(_place, roots)})
    for module, name in map(_place, roots):
        reach.visit(module, name)
    return reach


def roots_of(function: Callable[..., Any]) -> tuple[Any, ...]:
    """What a callable is made of: the function, and the classes of the arguments that it is bound to."""
    found: list[Any] = []
    while isinstance(function, functools.partial):
        found += [type(each) for each in (*function.args, *function.keywords.values())]
        function = function.func
    found.append(function if hasattr(function, "__qualname__") else type(function))
    return tuple(dict.fromkeys(each for each in found if each.__module__ != "builtins"))


def _place(root: Any) -> tuple[str, str]:
    return root.__module__, root.__qualname__.split(".")[0]


@dataclass(frozen=True)
class _Module:
    """A module's statements by what they bind."""

    bound: dict[str, list[ast.stmt]]
    imported: dict[str, tuple[str, str]]
    loose: list[ast.stmt]


@dataclass
class _Reach:
    """What has been reached, and the methods that wait for their name to be."""

    homes: set[str]
    found: set[str] = field(default_factory=set)
    seen: set[tuple[str, str]] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    waiting: dict[str, list[tuple[str, ast.stmt]]] = field(default_factory=dict)
    texts: dict[str, _Module | None] = field(default_factory=dict)

    def _text(self, module: str) -> _Module | None:
        """A module's statements; its file is looked at once."""
        if module not in self.texts:
            self.texts[module] = _read(module)
        return self.texts[module]

    @functools.cached_property
    def digits(self) -> str:
        """Of all that was reached, and of the libraries."""
        text = "\n".join([*sorted(self.found), *(f"{name} {version(name)}" for name in LIBRARIES)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def visit(self, module: str, name: str) -> None:
        """Take up the definition of a name of a module."""
        if (module, name) in self.seen or not self._ours(module):
            return
        self.seen.add((module, name))
        here = self._text(module)
        if here is None:
            return
        for statement in here.bound.get(name, ()):
            self._take(module, statement)
        if name in here.imported:
            self._import(*here.imported[name])
        elif name not in here.bound and not _is_module(f"{module}.{name}"):
            self._at_runtime(module, name)
        if (module, "") not in self.seen:
            self.seen.add((module, ""))
            for statement in here.loose:
                self._take(module, statement)

    def _ours(self, module: str) -> bool:
        return module in self.homes or module.split(".")[0] == "fenland"

    def _import(self, module: str, name: str) -> None:
        """What an import brings: a definition, or a module, of which something counts when it is asked for."""
        if name:
            self.visit(module, name)

    def _at_runtime(self, module: str, name: str) -> None:
        """A name that a module finds when it is asked for, as fenland's own presets are."""
        found = getattr(import_module(module), name, None) if module in sys.modules else None
        if isinstance(found, type) or callable(found):
            self.visit(*_place(found))

    def _take(self, module: str, statement: ast.stmt) -> None:
        """Take up a statement and what it names; of a class those methods alone that something names."""
        if isinstance(statement, ast.ClassDef):
            for each in statement.body:
                if isinstance(each, ast.Expr):  # its docstring
                    continue
                if isinstance(each, _FUNCTION) and not each.name.startswith("__") and each.name not in self.names:
                    self.waiting.setdefault(each.name, []).append((module, each))
                else:
                    self._take(module, each)
            inherits = [*statement.bases, *(keyword.value for keyword in statement.keywords)]
            for expression in (*inherits, *statement.decorator_list):
                self.found.add(f"{module}: {statement.name} {ast.dump(expression)}")
                self._expression(module, expression)
            return
        bare, text = _bare(statement)
        self.found.add(f"{module}: {text}")
        self._expression(module, bare)

    def _expression(self, module: str, node: ast.AST) -> None:
        here, told = self._text(module), _told(node)
        brought = {**(here.imported if here else {}), **told.imported}
        for name in told.names:
            self._import(*brought[name]) if name in brought else self.visit(module, name)
        for name in told.mentioned:
            self._name(name)
        for base, chain in told.chains:
            if base in brought:
                self._attribute(*brought[base], chain)

    def _name(self, name: str) -> None:
        """Something has this name: methods that waited for it are reached."""
        self.names.add(name)
        for module, statement in self.waiting.pop(name, ()):
            self._take(module, statement)

    def _attribute(self, module: str, name: str, chain: tuple[str, ...]) -> None:
        """``data.load`` where data is a module."""
        if not self._ours(module):
            return
        there = _module(module, name) if name else module
        for part in chain if there else ():
            inner = _module(str(there), part)
            if inner is None:
                self.visit(str(there), part)
                return
            there = inner


@dataclass(frozen=True)
class _Told:
    """What an expression or a statement names, each thing once, in the order in which it does."""

    imported: dict[str, tuple[str, str]]
    names: tuple[str, ...]
    mentioned: tuple[str, ...]  # attributes, and texts that could be the name of one
    chains: tuple[tuple[str, tuple[str, ...]], ...]  # ``a.b.c`` as ("a", ("b", "c"))


@functools.lru_cache(maxsize=50_000)
def _told(node: ast.AST) -> _Told:
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
    return _Told(imported, tuple(dict.fromkeys(names)), tuple(dict.fromkeys(mentioned)), tuple(dict.fromkeys(chains)))


def _module(module: str, name: str) -> str | None:
    """The module that a name of a module stands for; None where it stands for something else, or for nothing."""
    here = _read(module)
    if here is None or name in here.bound:
        return None
    of, what = here.imported.get(name, (module, name))
    if (of, what) != (module, name):  # a package may import a module of its own
        return of if not what else _module(of, what) if of.startswith("fenland") else None
    return f"{module}.{name}" if _is_module(f"{module}.{name}") else None


@functools.lru_cache(maxsize=20_000)
def _bare(statement: ast.stmt) -> tuple[ast.stmt, str]:
    """Without docstrings and annotations of functions, which compute nothing; and as text."""
    if not any(isinstance(each, _FUNCTION) for each in ast.walk(statement)):
        return statement, ast.dump(statement)
    copy = ast.parse(ast.unparse(statement)).body[0]
    for each in ast.walk(copy):
        if isinstance(each, _FUNCTION):
            each.returns = None
            if ast.get_docstring(each) is not None:
                each.body = each.body[1:] or [ast.Pass()]
        elif isinstance(each, ast.arg):
            each.annotation = None
    return copy, ast.dump(copy)


@functools.lru_cache(maxsize=1024)
def _is_module(module: str) -> bool:
    """Whether there is such a module of fenland."""
    if not module.startswith("fenland."):
        return False
    try:
        return util.find_spec(module) is not None
    except ModuleNotFoundError:  # a part of the name is a module, and no package
        return False


def _read(module: str) -> _Module | None:
    """Its statements; None where it has no source, or is none."""
    loaded = sys.modules.get(module)
    path = getattr(loaded, "__file__", None)
    if path is None and _is_module(module):
        found = util.find_spec(module)
        path = None if found is None else found.origin
    return None if path is None or not path.endswith(".py") else _parse(path, os.stat(path).st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _parse(path: str, changed: int) -> _Module:
    """The statements of a file that was last changed at this time."""
    return _statements(Path(path).read_text(encoding="utf-8"))


def _statements(source: str) -> _Module:
    """The statements of a module by what they bind."""
    here = _Module({}, {}, [])
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
    if isinstance(statement, (*_FUNCTION, ast.ClassDef)):
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
