"""Sweeps on a real Ray cluster: two nodes on this machine, a driver and a node of which are killed in mid-sweep."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fenland.lab import cli
from fenland.lab.errors import BadInput
from fenland.lab.store.runs import Store
from fenland.lab.sweep.cluster import Cluster

pytest.importorskip("ray", reason="needs fenland[cluster]")
COMMAND = [sys.executable, "-m", "fenland.lab.cli", "sweep", "compare"]
# No figures sent anywhere, no check of the machine's memory that would kill a test's run.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


def processes_with(word: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if word in command:
                found.append(command)
    return found


def wait_for(holds: Callable[[], bool], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head and another node, one core each; nothing of it is left at the end."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster as Nodes

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    nodes = Nodes(initialize_head=True, head_node_args=node)
    session = nodes.head_node.get_session_dir_path()
    try:
        nodes.second = nodes.add_node(**node)
        yield nodes
    finally:
        nodes.shutdown()
        wait_for(lambda: not processes_with(session), 30)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_driver_and_node_are_killed_and_every_result_is_there_once(two_nodes: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = "--set data=digits --set model=mlp --set optimizer=sgd,sam --set seed=0..2 --set epochs=40 --json"
    command = [*COMMAND, *words.split(), "--ray", two_nodes.address, "--out", str(out)]

    def stored() -> dict[str, int]:
        return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("runs/[!.]*/result.json")}

    with (tmp_path / "first").open("w") as heard:
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=heard)
        wait_for(lambda: len(stored()) >= 1)
        driver.kill()
        driver.wait()
    first = stored()
    assert len(first) < 6, "the driver was to be killed before the end"
    log = out / "log.txt"
    said_before = len(log.read_text())
    lost = two_nodes.second.node_id

    def begun(node: str) -> list[str]:
        """The runs that the second driver has heard to begin on a node, in order."""
        return re.findall(rf"\((\w{{12}})\) runs on node \S+ {node}", log.read_text()[said_before:])

    with (tmp_path / "second").open("w") as heard, (tmp_path / "json").open("w") as said:
        driver = subprocess.Popen(command, stdout=said, stderr=heard)
        wait_for(lambda: any(run not in stored() for run in begun(lost)))
        in_flight = next(run for run in reversed(begun(lost)) if run not in stored())
        two_nodes.remove_node(two_nodes.second, allow_graceful=False)
        gone = time.time_ns()
        assert driver.wait(200) == 0
    content = json.loads((tmp_path / "json").read_text())
    last = stored()
    assert content["failed"] == []
    assert (content["ran"], content["stored_before"]) == (6 - len(first), len(first))
    assert len(last) == 6
    assert first.items() <= last.items(), "a stored run is not computed again"
    runs = Store(out).runs()
    assert {(run.config.optimizer, run.config.seed) for run in runs} == {
        (name, seed) for name in ("sgd", "sam") for seed in range(3)
    }
    # Both nodes have worked, and what was with the lost one has ended on the other.
    head = two_nodes.head_node.node_id
    nodes = {run.config.hash: run.environment["node"].split()[-1] for run in runs}
    assert set(nodes.values()) <= {lost, head}
    assert nodes[in_flight] == head or last[in_flight] < gone, "it began on the lost node, and was not in time"
    # Progress comes to the driver, and nothing else is left in the store.
    assert "[1/" in (tmp_path / "second").read_text()
    assert not list((out / "runs").glob(".*"))


def test_what_fits_and_how_much() -> None:
    node = {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}}
    assert Cluster("local", cpus=4).fits([node])
    assert not Cluster("local", cpus=5).fits([node, {**node, "Alive": False}])
    assert not Cluster("local", gpus=2).fits([node, node])
    resources = {"CPU": 8.0, "GPU": 2.0}
    assert Cluster("local").room(resources) == 16
    assert Cluster("local", cpus=2, gpus=0.5).room(resources) == 8
    assert Cluster("local", gpus=4).room(resources) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    {
        "--gpus-per-run 1": "--gpus-per-run=1: is for a cluster; add --ray local or --ray ADDRESS",
        "--ray local --cpus-per-run 0": "--cpus-per-run=0: give a number > 0",
        "--ray local --gpus-per-run 1.5": "--gpus-per-run=1.5: give a whole number, or a fraction below 1",
        "--ray local --gpus-per-run many": "--gpus-per-run=many: give a whole number, or a fraction below 1",
    }.items(),
)
def test_resources_are_checked(words: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["sweep", "compare", "--set", "seed=0", *words.split(), "--out", str(tmp_path / "out")]
    assert cli.main(command) == 2
    assert capsys.readouterr().err == f"fenland: {said}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("address", "cure"),
    [
        (
            "local",
            "the cluster did not start (the node timed out); Ray gives it 30 s: when the machine is less busy try",
        ),
        ("auto", "cannot connect (the node timed out); give local, auto, or the HOST:PORT that ray start printed"),
    ],
)
def test_a_cluster_that_does_not_answer_is_no_trace(address: str, cure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dead:
        @staticmethod
        def is_initialized() -> bool:
            return False

        @staticmethod
        def init(**options: Any) -> None:
            raise Exception("the node timed out\nwith more lines")

    monkeypatch.setattr("fenland.lab.sweep.cluster._ray", Dead)
    with pytest.raises(BadInput, match=re.escape(f"ray={address}: {cure}")), Cluster(address).connected():
        pass
