"""Inside the lab imports point downwards and in no circle, deferred and typing-only ones counted (DESIGN section 5)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LAB = Path(__file__).parents[2] / "src" / "fenland" / "lab"

# From the bottom up: a folder or file imports itself and what stands before it. Those in one row do not import each
# other. Config is below data and models: what loads data reads a run's configuration, never the other way round.
RANKS = (
    ("errors", "logs"),
    ("store.files",),
    ("config",),
    ("data", "models"),
    ("training", "replicas"),
    ("store",),
    ("sweep",),
    ("figures",),
    ("report",),
    ("compare",),
    ("study",),
    ("studies",),
    ("explore", "bench"),
    ("commands",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
AT_THE_ROOT = 5

MODULES = {
    ".".join(path.relative_to(LAB).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(LAB.rglob("*.py"))
    if path != LAB / "__init__.py"
}


def imported(name: str, path: Path) -> Iterator[tuple[str, int]]:
    """The lab's modules that a file imports, wherever in it, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: a relative import"
            for alias in node.names:
                full, module = (f"{node.module}.{alias.name}".split("lab.", 1)[-1], node.module or "")
                if module == "fenland.lab" or module.startswith("fenland.lab."):
                    yield full if full in MODULES else module.removeprefix("fenland.lab").lstrip("."), node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("fenland.lab."):
                    yield alias.name.removeprefix("fenland.lab."), node.lineno


def rank(module: str) -> int:
    """Of the longest prefix of its name that has one."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in RANK:
            return RANK[".".join(parts[:length])]
    raise AssertionError(f"{module}: a new folder needs a rank")


GRAPH = {name: list(imported(name, path)) for name, path in MODULES.items()}


def circles(graph: dict[str, list[str]]) -> list[list[str]]:
    """The sets of files that reach each other (Tarjan 1972), and files that import themselves."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(part) > 1 or node in graph.get(node, ()):
                found.append(sorted(part))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def test_the_scan_sees_the_lab() -> None:
    assert len(MODULES) > 100
    assert sum(map(len, GRAPH.values())) > 300
    assert all(name.split(".")[0] in {each.split(".")[0] for each in RANK} for name in MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_downwards(name: str) -> None:
    own = name.split(".")[0]
    wrong = [
        f"{MODULES[name].relative_to(LAB)}:{line} imports {other}"
        for other, line in GRAPH[name]
        if other and (rank(other) > rank(name) or (rank(other) == rank(name) and other.split(".")[0] != own))
    ]
    assert not wrong, wrong


def test_no_imports_run_in_a_circle() -> None:
    found = circles({name: [other for other, _ in others] for name, others in GRAPH.items()})
    assert not found, "\n".join(" <-> ".join(part) for part in found)


def test_circles_are_found() -> None:
    """The finder itself: two files, three files, one that imports itself; a diamond is none."""
    graph = {"a": ["b"], "b": ["a"], "c": ["d"], "d": ["e"], "e": ["c"], "f": ["f"], "g": ["h", "i"], "h": ["i"]}
    assert sorted(circles(graph)) == [["a", "b"], ["c", "d", "e"], ["f"]]


def test_few_files_stand_at_the_root() -> None:
    assert len(list(LAB.glob("*.py"))) <= AT_THE_ROOT
