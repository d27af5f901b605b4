"""A public name has an entry in the reference, an example that runs, and a test."""

import importlib
import inspect
import re
import sys

import blocks
import pytest
from blocks import DOCS, ROOT

import fenland
from fenland import testing, theory
from fenland.lab.commands import COMMANDS

REFERENCE = "\n".join(
    p.read_text(encoding="utf-8") for folder in ("api", "methods") for p in (DOCS / folder).glob("*.md")
)
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


@pytest.mark.parametrize("name", sorted(set(testing.__all__) - {"POINTS"}))
def test_what_runs_the_contract_has_an_entry_and_an_example(name):
    assert f"fenland.testing.{name}" in ENTRIES
    assert name in TESTS


def test_the_reference_says_every_point_of_the_contract():
    page = (DOCS / "api" / "testing.md").read_text(encoding="utf-8")
    said = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.M))
    assert list(said) == [point.__name__ for point in testing.POINTS]
    for point in testing.POINTS:
        assert said[point.__name__].startswith(point.__doc__[:24]), point.__name__


def _listed_in_the_lab() -> list[tuple[str, str]]:
    """(module, name) of all that the lab's modules list in ``__all__``."""
    found = []
    for path in sorted((ROOT / "src" / "fenland" / "lab").rglob("*.py")):
        if re.search("^__all__", path.read_text(encoding="utf-8"), re.M):
            parts = path.relative_to(ROOT / "src").with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found += [(module, name) for name in importlib.import_module(module).__all__]
    return found


LAB_PAGES = [
    DOCS / "api" / f"{name}.md" for name in ("lab", "data", "stores", "reports", "replicas", "studies", "study-parts")
]
LAB_PAGE = "\n".join(p.read_text(encoding="utf-8") for p in LAB_PAGES)
LAB_TEXT = re.sub(r"^:::.*$", "", LAB_PAGE, flags=re.M)
LAB = _listed_in_the_lab()


def _thing(dotted: str) -> object:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_an_entry_is_not_a_module_of_the_same_name():
    """The site reads files: of a function in a module of its own name, `package.name` is the module to it."""
    found = [
        ROOT / "src" / (entry.replace(".", "/") + ending) for entry in ENTRIES for ending in (".py", "/__init__.py")
    ]
    assert not [path for path in found if path.exists()]


@pytest.mark.parametrize(("module", "name"), LAB, ids=[".".join(each) for each in LAB])
def test_a_name_that_the_lab_lists_is_in_its_reference(module, name):
    thing = getattr(importlib.import_module(module), name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        entries = [e for e in ENTRIES if e.startswith("fenland.lab.") and e.rpartition(".")[2] == name]
        assert any(_thing(e) is thing for e in entries), f"docs/api/lab.md: write `::: {module}.{name}`"
    else:  # constants and types of arguments have no docstring
        assert re.search(rf"\b{name}\b", LAB_TEXT), f"docs/api/lab.md: say what {module}.{name} is"


def test_what_the_page_of_the_lab_imports_is_used_and_explained():
    lines = re.findall(r"^from (fenland\.lab[\w.]*) import (.+)$", LAB_PAGE, re.M)
    imported = [(module, name) for module, names in lines for name in names.split(", ")]
    assert len(imported) > 10
    entries = [_thing(e) for e in ENTRIES if e.startswith("fenland.lab.")]
    for module, name in imported:
        uses = re.findall(
            rf"^(?!from ).*\b{name}\b", "\n".join(b.code for p in LAB_PAGES for b in blocks.blocks(p)), re.M
        )
        assert uses, f"{name} is imported and not used"
        thing = getattr(importlib.import_module(module), name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert any(thing is e for e in entries), f"{module}.{name}"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_on_the_page_of_the_lab_and_in_a_line_to_type(command):
    text = "\n".join((DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("lab", "sweeps"))
    assert re.search(rf"\bfenland {command}\b", text), f"docs/lab.md or docs/sweeps.md: {command}"
    typed = [
        line for p in blocks.pages() for b in blocks.blocks(p) if b.language == "sh" for line in b.code.splitlines()
    ]
    assert any(line.startswith(f"fenland {command}") for line in typed), f"docs: a `sh` block with fenland {command}"


def test_the_commands_are_those_of_the_parser(capsys):
    from fenland.lab.commands.parsing import parse

    with pytest.raises(SystemExit):
        parse(["--help"])
    offered = re.search(r"\{([\w,]+)\}", capsys.readouterr().out)
    assert offered
    assert set(offered[1].split(",")) == set(COMMANDS)


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

    def test_equations_are_typeset(self, readable):
        text = readable("A step.\n\n    e = argmax <a, e>*rho\n\nMore.")
        assert text.startswith("A step.\n\n$e = \\operatorname{argmax} \\langle a,")
        assert text.endswith("$\n{: .fenland-equation }\n\nMore.")

    def test_indented_text_that_is_no_equation_stays(self, readable):
        text = "A step.\n\n    split: x = (1,\n        2)\n\nMore."
        assert readable(text) == text

    def test_examples_become_a_section(self, readable):
        assert readable("Text.\n\nExample:\n    >>> f(a*b)") == "Text.\n\nExamples:\n    >>> f(a*b)"
        assert "Examples:\n    >>> f(a*b)\n    1" in readable("Text.\n\n>>> f(a*b)\n1\n\nMore a*b.")
        assert readable("T.\n\n>>> f()\n\nMore a*b.").endswith("More a\\*b.")

    def test_arguments_are_text(self, readable):
        assert "lr*m" not in readable("T.\n\nArgs:\n    x: of lr*m.")
