"""A public name has an entry in the reference, an example that runs, and a test."""

import importlib
import re
import sys

import blocks
import pytest
from blocks import DOCS, ROOT

import fenland
from fenland import theory

REFERENCE = "\n".join(p.read_text(encoding="utf-8") for p in (DOCS / "api").glob("*.md"))
ENTRIES = re.findall(r"^::: ([\w.]+)", REFERENCE, re.M)
SHOWN = "\n".join(b.code for p in blocks.pages() for b in blocks.blocks(p) if b.language in ("python", "pycon"))
TESTS = "\n".join(
    p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("*.py") if p.parent.name != "docs"
)  # fmt: skip
TABLED = set(fenland.PRESETS)  # test_twins, test_variants and the contract run over the whole table


@pytest.mark.parametrize("name", sorted(fenland.__all__))
def test_a_public_name_has_an_entry_an_example_and_a_test(name):
    assert f"fenland.{name}" in ENTRIES, f"docs/api: write `::: fenland.{name}`"
    assert re.search(rf"\bfenland\.{name}\b", SHOWN), f"docs: show fenland.{name} in a block that runs"
    assert name in TABLED or re.search(rf"\b{name}\b", TESTS), f"tests: {name}"


@pytest.mark.parametrize("name", theory.__all__)
def test_a_closed_form_has_an_entry_an_example_and_a_test(name):
    thing = getattr(theory, name)
    if name != "METHODS":
        assert f"{thing.__module__}.{name}" in ENTRIES, f"docs/api/theory.md: {name}"
    assert re.search(rf"\btheory\.{name}\b", SHOWN)
    assert re.search(rf"\b{name}\b", TESTS)


PUBLIC_MODULES = (
    "fenland.diagnostics.curvature",
    "fenland.diagnostics.landscape",
    "fenland.diagnostics.sharpness",
    "fenland.diagnostics.monitor",
    "fenland.diagnostics.live",
    "fenland.integrations.accelerate",
)


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_functions_of_public_modules_have_entries(module):
    found = vars(importlib.import_module(module))
    own = {n for n, x in found.items() if getattr(x, "__module__", "") == module and not n.startswith("_")}
    own = {n for n in own if callable(found[n])} - {"of"}  # curvature.of: a seam between modules
    entries = {e.rsplit(".", 1)[1] for e in ENTRIES}
    assert own <= entries, own - entries


@pytest.mark.parametrize("entry", sorted(set(ENTRIES)))
def test_an_entry_is_a_thing_that_exists_and_is_documented(entry):
    module, _, name = entry.rpartition(".")
    thing = getattr(importlib.import_module(module), name)
    if not callable(thing):
        return
    text = thing.__doc__ or ""
    assert len(text) > 20
    assert ENTRIES.count(entry) == 1


class TestDocstrings:
    """docs/docstrings.py keeps the signs that Markdown would take for its own."""

    @pytest.fixture
    def readable(self, monkeypatch):
        pytest.importorskip("griffe")
        monkeypatch.syspath_prepend(str(DOCS))
        yield importlib.import_module("docstrings").readable
        sys.modules.pop("docstrings")

    def test_brackets_and_stars_in_text(self, readable):
        assert readable("rho*m of <a, e> and `x*y <b>`") == "rho\\*m of &lt;a, e> and `x*y <b>`"

    def test_equations_stay(self, readable):
        text = "A step.\n\n    e = argmax <a, e>*rho\n\nMore."
        assert readable(text) == text

    def test_examples_become_a_section(self, readable):
        assert readable("Text.\n\nExample:\n    >>> f(a*b)") == "Text.\n\nExamples:\n    >>> f(a*b)"
        assert "Examples:\n    >>> f(a*b)\n    1" in readable("Text.\n\n>>> f(a*b)\n1\n\nMore a*b.")
        assert readable("T.\n\n>>> f()\n\nMore a*b.").endswith("More a\\*b.")

    def test_arguments_are_text(self, readable):
        assert "lr*m" not in readable("T.\n\nArgs:\n    x: of lr*m.")
