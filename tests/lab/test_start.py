"""What needs no torch loads none: help, version and wrong arguments answer at once."""

import os
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


SLEEPY = """
import time
from fenland.lab import logs
with logs.waiting("a moment"):
    pass
with logs.waiting("the sand"):
    time.sleep(1.2)
"""


def test_a_terminal_is_told_what_is_waited_for_and_no_longer_than_that():
    leader, follower = os.openpty()
    subprocess.run([sys.executable, "-c", SLEEPY], stderr=follower, check=True)
    assert os.read(leader, 200) == b"\r\x1b[Kwaiting for the sand\r\x1b[K"
    os.close(follower)
    os.close(leader)


def test_a_pipe_is_told_nothing():
    done = subprocess.run([sys.executable, "-c", SLEEPY], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize("words", [["variants", "--json"]], ids=" ".join)
def test_what_needs_it_loads_it(words):
    """Else the test above would prove nothing."""
    done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("0 torch"), done.stderr
