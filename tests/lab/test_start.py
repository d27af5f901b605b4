"""What needs no torch loads none: help, version and wrong arguments answer at once."""

import subprocess
import sys

import pytest

from fenland.lab.commands import COMMANDS

CODE = """
import sys
from fenland.lab import cli
code = cli.main(sys.argv[1:])
print(code, *[name for name in ("torch", "numpy", "pandas", "lightning") if name in sys.modules], file=sys.stderr)
"""
HELP = [[], ["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)]
WRONG = [
    ["compre"],
    ["compare", "--frobnicate"],
    ["compare", "--lr", "fast"],
    ["compare", "--augment", "maybe"],
    ["study", "nosuch"],
    ["doctor"],
    ["completion", "csh"],
]


@pytest.mark.parametrize(
    ("words", "code"),
    [*((w, 0) for w in HELP), *((w, 2) for w in WRONG)],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_torch_is_not_loaded(words, code):
    done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == str(code), done.stderr
    assert bool(done.stdout) == (code == 0)


@pytest.mark.parametrize("words", [["variants", "--json"]], ids=" ".join)
def test_what_needs_it_loads_it(words):
    """Else the test above would prove nothing."""
    done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("0 torch"), done.stderr
