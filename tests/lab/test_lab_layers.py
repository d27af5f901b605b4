"""Inside the lab imports point downwards, deferred and typing-only ones counted (DESIGN section 5).

That no imports run in a circle is checked for the whole package: tests/test_layers.py.
"""

from functools import cache
from pathlib import Path

from source_tree import SourceTree

LAB = "fenland.lab."
TREE = SourceTree(Path(__file__).parents[2] / "src" / "fenland")

# From the bottom up: a folder or file imports itself and what stands before it. Those in one row do not import each
# other. Config is below data and models: what loads data reads a run's configuration, never the other way round.
RANKS = (
    ("errors", "logs", "huggingface"),
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
    ("explore", "bench", "recipes"),
    ("commands",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
AT_THE_ROOT = 5

MODULES = {name.removeprefix(LAB): path for name, path in TREE.modules.items() if name.startswith(LAB)}


def rank(module: str) -> int:
    """Of the longest prefix of its name that has one."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in RANK:
            return RANK[".".join(parts[:length])]
    raise AssertionError(f"{module}: a new folder needs a rank")


@cache
def graph() -> dict[str, list[tuple[str, int]]]:
    """What each module of the lab imports of it, and in which line; read when a test asks, not by every worker."""
    return {
        name: [(each.name.removeprefix(LAB), each.line) for each in TREE.imports(path) if each.name.startswith(LAB)]
        for name, path in MODULES.items()
    }


def test_the_scan_sees_the_lab() -> None:
    assert len(MODULES) > 100
    assert sum(map(len, graph().values())) > 300
    assert all(name.split(".")[0] in {each.split(".")[0] for each in RANK} for name in MODULES)


def test_imports_point_downwards() -> None:
    wrong = [
        f"{MODULES[name].relative_to(TREE.folder)}:{line} imports {other}"
        for name, others in graph().items()
        for other, line in others
        if rank(other) > rank(name) or (rank(other) == rank(name) and other.split(".")[0] != name.split(".")[0])
    ]
    assert not wrong, wrong


def test_few_files_stand_at_the_root() -> None:
    assert len([name for name in MODULES if "." not in name and MODULES[name].name != "__init__.py"]) < AT_THE_ROOT
