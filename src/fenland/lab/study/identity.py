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
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from typing import Any

from fenland.lab.study import statements
from fenland.lab.study.statements import FUNCTION, Module

# Libraries whose numbers are ours too.
LIBRARIES = ("torch", "numpy")


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


@dataclass
class _Reach:
    """What has been reached, and the methods that wait for their name to be."""

    homes: set[str]
    found: set[str] = field(default_factory=set)
    seen: set[tuple[str, str]] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    waiting: dict[str, list[tuple[str, ast.stmt]]] = field(default_factory=dict)
    texts: dict[str, Module | None] = field(default_factory=dict)

    def _text(self, module: str) -> Module | None:
        """A module's statements; its file is looked at once."""
        if module not in self.texts:
            self.texts[module] = statements.read(module)
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
        elif name not in here.bound and not statements.is_module(f"{module}.{name}"):
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
                if isinstance(each, FUNCTION) and not each.name.startswith("__") and each.name not in self.names:
                    self.waiting.setdefault(each.name, []).append((module, each))
                else:
                    self._take(module, each)
            inherits = [*statement.bases, *(keyword.value for keyword in statement.keywords)]
            for expression in (*inherits, *statement.decorator_list):
                self.found.add(f"{module}: {statement.name} {ast.dump(expression)}")
                self._expression(module, expression)
            return
        bare, text = statements.bare(statement)
        self.found.add(f"{module}: {text}")
        self._expression(module, bare)

    def _expression(self, module: str, node: ast.AST) -> None:
        here, told = self._text(module), statements.told(node)
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
        there = statements.module_of(module, name) if name else module
        for part in chain if there else ():
            inner = statements.module_of(str(there), part)
            if inner is None:
                self.visit(str(there), part)
                return
            there = inner
