"""The trainers under DDP (2 gloo ranks), with accumulation: pass 2 synchronises at its last micro-batch only."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["lightning", "accelerate", "transformers"])
def test_two_ranks_equal_one_process(trainer):
    if importlib.util.find_spec(trainer) is None:
        pytest.skip(f"needs {trainer}")
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launch, str(HERE / "distributed_run.py"), trainer]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **offline}, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("equal") == 2
