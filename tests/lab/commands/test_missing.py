"""A machine with the core alone: what is missing, in one line."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from fenland.lab.commands import missing

CORE_ALONE = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {gone!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Nothing())
from fenland.lab.cli import main
sys.exit(main({arguments!r}))
"""
LAB = (
    *(
        "lightning",
        "datasets",
        "sklearn",
        "pandas",
        "matplotlib",
        "jinja2",
        "tyro",
        "rich",
        "joblib",
        "scipy",
        "kornia",
    ),
    *("hessian_eigenthings", "numpy", "PIL", "pyarrow"),
)


@pytest.mark.parametrize("arguments", [["--help"], [], ["doctor", "--help"], ["doctor", "x:y"], ["compare"]], ids=str)
def test_every_command_says_it_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    program = CORE_ALONE.format(gone=LAB, arguments=arguments)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("fenland: tyro")
    assert done.stderr.endswith("installed; run: pip install 'fenland[lab]', or pip install '.[lab]' in a clone\n")
    assert done.stderr.count("\n") == 1


def test_the_version_needs_the_core_alone() -> None:
    program = CORE_ALONE.format(gone=LAB, arguments=["--version"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("fenland ")


def test_all_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["torch>=2.4", "tyro>=0.9; extra == 'lab'", "rich>=13; extra == 'lab'", "scikit-learn>=1.4; extra == 'lab'",
             "ray>=2; extra == 'cluster'", "pytest; extra == \"dev\""]  # fmt: skip
    here = {"rich"}

    def version(name: str) -> str:
        if name not in here:
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(metadata, "requires", lambda name: needs)
    monkeypatch.setattr(metadata, "version", version)
    assert (
        missing.said("tyro")
        == "tyro, scikit-learn are not installed; run: pip install 'fenland[lab]', or pip install '.[lab]' in a clone"
    )
    assert (
        missing.said("sklearn.datasets")
        == "scikit-learn, tyro are not installed; run: pip install 'fenland[lab]', or pip install '.[lab]' in a clone"
    )
    assert (
        missing.said("ray.util")
        == "ray is not installed; run: pip install 'fenland[cluster]', or pip install '.[cluster]' in a clone"
    )
    assert missing.said("unheard_of").endswith("run: pip install 'fenland[lab]', or pip install '.[lab]' in a clone")
    monkeypatch.setattr(metadata, "requires", lambda name: None)
    assert (
        missing.said("tyro")
        == "tyro is not installed; run: pip install 'fenland[lab]', or pip install '.[lab]' in a clone"
    )
