"""Every example runs from the command line, as its first line says, and learns."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "examples"
HELPERS = {"digits", "seldom_sam"}  # the second is a study: tests/lab/study runs it
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
NUMBER = r"(-?\d+\.\d+)"

# name, library it needs, options, what starts it
RUNS = [
    ("plain_loop", "sklearn", [], ()),
    ("amp_fp16", "sklearn", [], ()),
    ("accumulation", "sklearn", [], ()),
    ("accumulation", "sklearn", ["--micro"], ()),
    ("ddp", "sklearn", [], TORCHRUN),
    ("ddp", "sklearn", ["--rank-local"], TORCHRUN),
    ("fsdp2", "sklearn", [], TORCHRUN),
    ("gan", "sklearn", [], ()),
    ("lightning_trainer", "lightning", [], ()),
    ("hf_trainer", "transformers", [], ()),
]
FAST = {"plain_loop"}  # the plainest; each is a process that imports torch anew


def run(name: str, options: list[str], start: tuple[str, ...]) -> str:
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *start, str(FOLDER / f"{name}.py"), "--quick", *options]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **offline}, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("name", "library", "options", "start"),
    [
        pytest.param(*r, marks=[] if r[0] in FAST and not r[2] else [pytest.mark.slow], id=" ".join([r[0], *r[2]]))
        for r in RUNS
    ],
)
def test_an_example_runs_and_learns(name, library, options, start):
    if importlib.util.find_spec(library) is None:  # importing it here would change the environment
        pytest.skip(f"needs {library}")
    if name == "fsdp2" and not hasattr(torch.cpu.Stream, "record_event"):
        pytest.skip("the fully_shard of torch 2.6 trains on no CPU")
    out = run(name, options, start)
    if name == "gan":
        critic, generator, distance = map(float, re.findall(NUMBER, out.splitlines()[-1]))
        assert 0.5 < critic < 2.5, "neither network has won"
        assert 0.2 < generator < 4
        assert distance < 0.15, out  # an untrained generator is at 0.3
        return
    loss, accuracy = map(float, re.search(rf"loss {NUMBER} accuracy {NUMBER}", out).groups())
    assert 0 < loss < 0.8, out
    assert 0.85 < accuracy <= 1, out


def test_every_example_is_run_short_and_says_how():
    files = {p.stem: p for p in FOLDER.glob("*.py")}
    assert files.keys() - HELPERS == {name for name, *_ in RUNS}
    for name, path in files.items():
        text = path.read_text()
        assert len(text.splitlines()) < 80, name
        if name not in HELPERS:
            assert f"examples/{name}.py" in text.split('"""')[1], name
