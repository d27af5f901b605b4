"""DESIGN section 5: imports point downwards, `import fenland` needs torch alone; style.md section 4: budgets."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "fenland"
FILES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# lab -> integrations, diagnostics, theory -> optimizer -> rules -> algebra; a layer imports itself and what is lower.
RANK = {
    "algebra": 0,
    "arguments": 0,  # the standard library alone
    "rules": 1,
    "step": 2,
    "optimizer": 4,
    "presets": 5,
    "diagnostics": 6,
    "theory": 6,
    "integrations": 6,
    "lab": 7,
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


def layer(path: Path) -> str:
    """The first name below fenland: a folder or a module; "" for fenland/__init__.py."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imports(path: Path) -> list[tuple[str, int, bool]]:
    """(absolute dotted name, line, whether it runs on import) of every import in the file."""
    tree = ast.parse(path.read_text())
    package = ["fenland", *path.relative_to(SOURCE).parent.parts]
    lazy = set()
    for node in ast.walk(tree):
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or typing_only:
            lazy.update(id(child) for child in ast.walk(node))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, id(node) not in lazy) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names] if module in ("fenland", "") else [module]
            found += [(name, node.lineno, id(node) not in lazy) for name in names]
    return found


def functions(path: Path) -> list[tuple[str, int, int]]:
    """(name, line, length without its docstring) of every function in the file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            docstring = isinstance(first, ast.Expr) and isinstance(getattr(first, "value", None), ast.Constant)
            doc = first.end_lineno - first.lineno + 1 if docstring else 0
            found.append((node.name, node.lineno, node.end_lineno - node.lineno + 1 - doc))
    return found


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_scan_sees_the_package():
    assert len(FILES) > 10
    assert {layer(p) for p in FILES} <= {"", "lab", *RANK, "__main__"}, "a new layer needs a rank"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_point_downwards(path):
    own = layer(path)
    if own in ("", "__main__"):
        pytest.skip("the package's own front door")
    wrong = []
    for module, line, _ in imports(path):
        parts = module.split(".")
        if parts[0] != "fenland" or len(parts) < 2 or parts[1] not in RANK:
            continue
        other = parts[1]
        sideways = RANK[other] == RANK[own] and other != own and (own, other) not in SIDEWAYS
        if RANK[other] > RANK[own] or sideways:
            wrong.append(f"{name(path)}:{line} ({own}) imports {module}")
    assert not wrong, wrong


@pytest.mark.parametrize("path", FILES, ids=name)
def test_the_core_imports_torch_alone(path):
    """On import: the standard library, torch, fenland. Others belong to the lab and to one integration each."""
    if layer(path) in ("lab", "integrations"):
        pytest.skip("may need its extra")
    allowed = set(sys.stdlib_module_names) | {"torch", "fenland"}
    wrong = [
        f"{name(path)}:{line} imports {module}"
        for module, line, now in imports(path)
        if now and module.split(".")[0] not in allowed
    ]
    assert not wrong, wrong


def test_each_integration_has_one_third_party_library():
    for path in FILES:
        if layer(path) == "integrations":
            own = set(sys.stdlib_module_names) | {"torch", "fenland"}
            others = {module.split(".")[0] for module, _, _ in imports(path)} - own
            assert len(others) <= 1, (name(path), others)


def test_importing_fenland_loads_no_other_library():
    code = (
        "import sys, fenland\n"
        f"wanted = {sorted(LIBRARIES)!r}\n"
        "print([m for m in wanted if any(n == m or n.startswith(m + '.') for n in sys.modules)])"
    )
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_importing_fenland_adds_nothing_to_what_torch_loads():
    code = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "import fenland\n"
        "top = {n.split('.')[0] for n in set(sys.modules) - before}\n"
        "print(sorted(top - set(sys.stdlib_module_names) - {'torch', 'fenland'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_importing_fenland_changes_nothing_outside():
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
        "assert world() == before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", [*FILES, *TESTS], ids=name)
def test_no_file_is_too_long(path):
    limit = FILE_LIMIT if path in FILES else TEST_LIMIT
    assert len(path.read_text().splitlines()) <= limit


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_function_is_too_long(path):
    long = [f"{name(path)}:{line} {fn} has {n} lines" for fn, line, n in functions(path) if n > FUNCTION_LIMIT]
    assert not long, long


def test_files_and_functions_are_short_on_the_whole():
    lengths = sorted(n for path in FILES for _, _, n in functions(path))
    assert statistics.median(len(p.read_text().splitlines()) for p in FILES) <= FILE_MEDIAN
    assert lengths[int(0.9 * len(lengths))] <= FUNCTION_P90


def test_the_core_prints_nothing():
    wrong = []
    for path in FILES:
        if layer(path) == "lab":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            printed = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
            if printed:
                wrong.append(f"{name(path)}:{node.lineno}")
    assert not wrong, wrong


def test_weights_change_their_storage_in_one_file_only():
    """`p.data =` lives behind the guards of the travel strategies (DESIGN section 4); a buffer is no weight.

    The benchmark's stand-ins write other people's loops as those people write them.
    """
    users = {
        path.name
        for path in FILES
        if path.parent.name != "bench"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute) and target.attr == "data" and ast.unparse(target.value) != "buffer"
    }
    assert users <= {"travel.py"}, users
