"""DESIGN section 5: imports point downwards, without circles; `import fenland` needs torch alone; budgets of size."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

from source_tree import Import, SourceTree, functions, parse

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "fenland"
TREE = SourceTree(SOURCE)
FILES = TREE.files
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# lab -> integrations, diagnostics, theory -> optimizer -> rules -> algebra; a layer imports itself and what is lower.
RANK = {
    "algebra": 0,
    "arguments": 0,  # the standard library alone
    "markdown": 0,  # the standard library alone
    "words": 0,  # the standard library alone
    "rules": 1,
    "step": 2,
    "optimizer": 4,
    "presets": 5,
    "together": 5,
    "diagnostics": 6,
    "theory": 6,
    "integrations": 6,
    "lab": 7,
    "testing": 8,  # it compares with the lab's replicas
}
SIDEWAYS = {("diagnostics", "theory"), ("theory", "diagnostics")}
LIBRARIES = {
    "fenland.lab",
    "lightning",
    "datasets",
    "pandas",
    "scipy",
    "sklearn",
    "matplotlib",
    "kornia",
    "ray",
    "jinja2",
}
FILE_LIMIT, TEST_LIMIT, FUNCTION_LIMIT = 400, 500, 60
FILE_MEDIAN, FUNCTION_P90 = 180, 30
STANDARD = frozenset(sys.stdlib_module_names)


def layer(path: Path) -> str:
    """The first name below fenland: a folder or a module; "" for fenland/__init__.py."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def offenders(paths, wrong) -> list[str]:
    """Where and what, for every import that is wrong."""
    return [
        f"{name(path)}:{each.line} imports {each.name}"
        for path in paths
        for each in TREE.imports(path)
        if wrong(path, each)
    ]


def loaded(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_scan_sees_the_package():
    assert len(FILES) > 10
    assert {layer(p) for p in FILES} <= {"", "lab", *RANK, "__main__"}, "a new layer needs a rank"


def test_imports_point_downwards():
    def wrong(path: Path, each: Import) -> bool:
        parts = each.name.split(".")
        if parts[0] != "fenland" or len(parts) < 2 or parts[1] not in RANK:
            return False
        own, other = layer(path), parts[1]
        sideways = RANK[other] == RANK[own] and other != own and (own, other) not in SIDEWAYS
        return RANK[other] > RANK[own] or sideways

    inside = [path for path in FILES if layer(path) not in ("", "__main__")]  # those two are the front door
    assert not offenders(inside, wrong)


def test_no_module_imports_itself_by_a_detour():
    found = TREE.circles()
    assert not found, "\n".join(" <-> ".join(circle) for circle in found)


def test_the_scan_finds_circles_however_they_are_hidden(tmp_path):
    """Three modules in a ring, each by another kind of import, beside a chain and a package that re-exports."""
    house = tmp_path / "house"
    (house / "inner").mkdir(parents=True)
    for module, text in {
        "__init__": "from house.inner import thing",
        "a": "import house.b",
        "b": "def later():\n    from house.inner.c import thing",
        "inner/__init__": "from house.inner.c import thing",
        "inner/c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .. import a\nthing = 1",
        "first": "from house import second",
        "second": "from house.first_of_all import x",
        "first_of_all": "x = 1",
        "pair": "from . import of",
        "of": "def f():\n    def g():\n        import house.pair",
        "alone": "def f():\n    import house.alone",
    }.items():
        (house / f"{module}.py").write_text(text)
    assert SourceTree(house).circles() == [
        ["house.a", "house.b", "house.inner.c"],
        ["house.alone"],
        ["house.of", "house.pair"],
    ]


def test_the_core_imports_torch_alone():
    """On import: the standard library, torch, fenland. Others belong to the lab and to one integration each."""
    allowed = STANDARD | {"torch", "fenland"}
    core = [path for path in FILES if layer(path) not in ("lab", "integrations")]
    assert not offenders(core, lambda _, each: each.on_import and each.name.split(".")[0] not in allowed)


def test_each_integration_has_one_third_party_library():
    for path in FILES:
        if layer(path) == "integrations":
            others = {each.name.split(".")[0] for each in TREE.imports(path)} - STANDARD - {"torch", "fenland"}
            assert len(others) <= 1, (name(path), others)


def test_importing_fenland_loads_nothing_until_a_name_is_used():
    code = (
        "import sys, fenland\n"
        "print(sorted({n.split('.')[0] for n in sys.modules} - set(sys.stdlib_module_names) - set(before)))"
    )
    assert loaded(f"import sys; before = {{n.split('.')[0] for n in sys.modules}}\n{code}") == "['fenland']"


def test_using_fenland_loads_no_other_library_and_adds_nothing_to_what_torch_loads():
    code = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "import fenland\n"
        "fenland.SSAM\n"
        "top = {n.split('.')[0] for n in set(sys.modules) - before}\n"
        f"wanted = {sorted(LIBRARIES)!r}\n"
        "print([m for m in wanted if any(n == m or n.startswith(m + '.') for n in sys.modules)])\n"
        "print(sorted(top - set(sys.stdlib_module_names) - {'torch', 'fenland'}))"
    )
    assert loaded(code).split() == ["[]", "[]"]


def test_importing_and_using_fenland_changes_nothing_outside():
    """No random number drawn, no default changed, no thread, no environment variable, no hook on other modules."""
    code = (
        "import os, threading, torch\n"
        "from torch.nn.modules import module as m\n"
        "def world():\n"
        "    hooks = [len(v) for n, v in vars(m).items() if n.startswith('_global_') and hasattr(v, '__len__')]\n"
        "    return (torch.get_rng_state().tolist(), torch.get_default_dtype(), torch.get_num_threads(),\n"
        "            threading.active_count(), dict(os.environ), hooks, torch.optim.SGD.step)\n"
        "before = world()\n"
        "import fenland\n"
        "fenland.SSAM\n"
        "assert world() == before\n"
    )
    loaded(code)


def test_no_file_is_too_long():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in [*FILES, *TESTS]}
    limits = {**dict.fromkeys(FILES, FILE_LIMIT), **dict.fromkeys(TESTS, TEST_LIMIT)}
    assert not [f"{name(path)} has {n} lines" for path, n in lines.items() if n > limits[path]]


def test_no_function_is_too_long():
    long = [(path, each) for path in FILES for each in functions(path) if each.length > FUNCTION_LIMIT]
    assert not [f"{name(path)}:{each.line} {each.name} has {each.length} lines" for path, each in long]


def test_files_and_functions_are_short_on_the_whole():
    lengths = sorted(each.length for path in FILES for each in functions(path))
    assert statistics.median(len(p.read_text(encoding="utf-8").splitlines()) for p in FILES) <= FILE_MEDIAN
    assert lengths[int(0.9 * len(lengths))] <= FUNCTION_P90


def test_the_core_prints_nothing():
    assert not [
        f"{name(path)}:{node.lineno}"
        for path in FILES
        if layer(path) != "lab"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]


def test_weights_change_their_storage_in_one_file_only():
    """`p.data =` lives behind the guards of the perturbation (DESIGN section 4); a buffer is no weight.

    The benchmark's stand-ins write other people's loops as those people write them.
    """
    users = {
        path.name
        for path in FILES
        if path.parent.name != "bench"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute) and target.attr == "data" and ast.unparse(target.value) != "buffer"
    }
    assert users <= {"perturbation.py"}, users
