"""One run on two gloo processes: the numbers of one process, checkpoints that go on exactly, one writer."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from repeats import TIMES

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.store.records import read_records
from fenland.lab.training import processes
from fenland.lab.training.metrics import EpochRecord
from fenland.lab.training.trainer import train
from fenland.lab.training.world import World

pytestmark = pytest.mark.slow

CONFIG = RunConfig(
    "digits", "mlp", "ssam", lr=0.05, batch_size=64, epochs=2, limit=640, precision="64-true", augment=True,
    label_smoothing=0.1, warmup=0.5, weights=True,
)  # fmt: skip

# What a user's own script under torchrun is: every process calls the same.
SCRIPT = """
import dataclasses, sys
from pathlib import Path
import torch
import torch.distributed as dist
from fenland.lab.config import RunConfig
from fenland.lab.training.trainer import train
from fenland.lab.training import checkpoint, loop

loop.CHECKPOINT_SECONDS, loop.LOOK_EVERY, loop.WRITING = 0.0, 3, float("inf")

class Stop(Exception):
    pass

def stop_before(number):
    step = loop.Loop._step
    def stopping(self, images, labels):
        if self.at.epoch == 2 and self.at.step == number:
            raise Stop
        return step(self, images, labels)
    return step, stopping

def plain(result):
    return {"records": [r.as_dict() for r in result.records], "weights": result.weights}

base = RunConfig.from_dict(eval(sys.argv[1]))
out = Path(sys.argv[2])
found = {}
for strategy, optimizer, precision in eval(sys.argv[3]):
    config = dataclasses.replace(base, strategy=strategy, devices=2, optimizer=optimizer, precision=precision)
    name = f"{strategy} {optimizer} {precision}"
    found[name] = plain(train(config))
    path = out / f"{name}.pt"
    step, stopping = stop_before(5)
    loop.Loop._step = stopping
    try:
        train(config, checkpoint=path)
    except Stop:
        pass
    loop.Loop._step = step
    dist.barrier()
    found[name + " at"] = checkpoint.read(path, config)["at"]["step"]
    dist.barrier()  # the first process goes on to write there
    found[name + " again"] = plain(train(config, checkpoint=path))
if dist.get_rank() == 0:
    torch.save(found, out / "found.pt")
dist.destroy_process_group()
"""
CASES = [
    ("ddp", "ssam", "64-true"),
    ("ddp", "vasso", "32-true"),
    ("fsdp", "ssam", "64-true"),
    ("fsdp", "gsam", "32-true"),
]


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(command, capture_output=True, text=True, timeout=170, env=environment)


def numbers(records: list[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [record[name] for record in records] for name in records[0] if name not in TIMES}


def test_two_processes_of_torchrun_are_one_and_go_on_exactly(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = torchrun(str(script), repr(CONFIG.as_dict()), str(tmp_path), repr(CASES))
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    for strategy, optimizer, precision in CASES:
        name = f"{strategy} {optimizer} {precision}"
        one = train(dataclasses.replace(CONFIG, optimizer=optimizer, precision=precision))
        tolerance = 1e-12 if precision == "64-true" else 2e-6
        assert one.weights is not None
        for key, weight in one.weights.items():
            torch.testing.assert_close(found[name]["weights"][key], weight, rtol=tolerance, atol=tolerance)
        two = numbers(found[name]["records"])
        for key, values in numbers([record.as_dict() for record in one.records]).items():
            assert two[key] == pytest.approx(values, rel=10 * tolerance, abs=tolerance, nan_ok=True), (name, key)
        # Stopped before step 5 of epoch 2: the last look was at step 3.
        assert found[f"{name} at"] == 3
        again = found[f"{name} again"]
        assert repr(numbers(again["records"])) == repr(two)
        assert all(torch.equal(again["weights"][key], weight) for key, weight in found[name]["weights"].items())


def test_processes_of_our_own() -> None:
    config = dataclasses.replace(CONFIG, strategy="ddp", devices=2, epochs=1)
    seen: list[EpochRecord] = []
    two = train(config, seen.append)
    one = train(dataclasses.replace(CONFIG, epochs=1))
    assert repr(tuple(seen)) == repr(two.records)
    assert one.weights is not None
    assert two.weights is not None
    for key, weight in one.weights.items():
        torch.testing.assert_close(two.weights[key], weight, rtol=1e-12, atol=1e-12)
    # An error of the others comes back as what it is.
    with pytest.raises(BadInput, match=r"^batch_size=2000: give at most 640"):
        train(dataclasses.replace(config, batch_size=2000))


def test_a_comparison_under_torchrun_is_written_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["compare", "--model", "mlp", "--optimizers", "sgd", "asam", "--strategy", "ddp", "--devices", "2"]
    words += ["--seeds", "1", "--epochs", "1", "--limit", "128"]
    done = torchrun("-m", "fenland", *words, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[1/2]") == 1
    assert done.stdout.count("report.html") == 1
    records = read_records(out)
    assert sorted(records.results["optimizer"]) == ["asam", "sgd"]
    assert (
        list(records.results["result_status" if "result_status" in records.results else "status"]) == ["finished"] * 2
    )


@pytest.mark.parametrize(("count", "size"), [(1000, 2), (7, 3), (1, 2), (2, 2)])
def test_an_evaluation_counts_every_example_once(count: int, size: int) -> None:
    counted = []
    for rank in range(size):
        part, counts = World(rank, size).part(count)
        assert len(range(count)[part]) > 0
        counted += list(range(count)[part]) if counts else []
    assert counted == list(range(count))


def test_another_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(BadInput, match=r"^devices=2: torchrun started 4 processes; give devices=4 and strategy=ddp"):
        processes.are_needed(dataclasses.replace(CONFIG, strategy="ddp", devices=2))


def test_workers_of_a_sweep_cannot_use_the_processes_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("FENLAND_LEADER", "1")
    with pytest.raises(BadInput, match=r"^workers=more than 1: the processes of torchrun share each run"):
        train(dataclasses.replace(CONFIG, strategy="ddp", devices=2))
