"""The same sweep on a Ray cluster: a task a run, with the resources it asks for; the driver stores what tasks return.

So the store is the driver's alone and the nodes need no common file system: each result is stored exactly once,
however often Ray had to run its task. Nodes that do see the store (one machine, or a shared file system) keep the runs'
checkpoints there, so that a lost run goes on; elsewhere it starts over. Every node needs fenland in the driver's
version, and the data: at the same absolute path, or by download.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import sys
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland import __version__
from fenland.arguments import installing
from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.store import environment
from fenland.lab.store.files import write_text
from fenland.lab.store.locks import Claim
from fenland.lab.store.runs import Store
from fenland.lab.sweep import runner
from fenland.lab.sweep.runner import Outcome

if TYPE_CHECKING:
    from fenland.lab.sweep.watcher import Watcher
    from fenland.lab.training.metrics import EpochRecord

LOCAL = "local"
_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
# Results are a few kilobytes, weights go to the disk when they do not fit.
_LOCAL_STORE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Cluster:
    """Where runs go, and what each of them gets."""

    # ``local`` starts a cluster of this machine's own, which ends with the sweep; ``auto`` finds the one that this
    # machine belongs to; ``HOST:PORT`` and ``ray://HOST:PORT`` (Ray Client) are others
    address: str
    cpus: float = 1.0  # cores a run, fractions too
    gpus: float = 0.0  # GPUs a run, fractions too
    retries: int = 3  # how often a run whose worker or node was lost is tried again
    slots: int = 1  # of a ``local`` cluster, how many runs at once

    @contextlib.contextmanager
    def connected(self) -> Iterator[Connection]:
        """Connect, and disconnect afterwards; a connection that was there before is used and left alone."""
        try:
            ray = _ray()
        except ModuleNotFoundError:
            raise BadInput("ray", self.address, f"needs the package ray: {installing('cluster')}") from None
        # Ray prints what it has to say of lost nodes, some of it when it shuts down; it is no part of a result.
        with contextlib.redirect_stdout(sys.stderr):
            mine = not ray.is_initialized()
            if mine:
                self._connect(ray)
            try:
                self._check(ray)
                yield Connection(self)
            finally:
                if mine:
                    ray.shutdown()

    def _connect(self, ray: Any) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self.address == LOCAL:
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                # A run without GPUs must not see them: that is Ray's rule to come, and no warning today.
                os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
                cores = max(1, round(self.slots * self.cpus))
                ray.init(num_cpus=cores, include_dashboard=False, object_store_memory=_LOCAL_STORE_BYTES, **quiet)
            else:
                ray.init(address=self.address, **quiet)
        # Ray raises what it likes: ConnectionError, RuntimeError for other versions, ValueError for a bad address.
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BadInput("ray", self.address, self._cure(reason)) from error

    def _cure(self, reason: str) -> str:
        if self.address == LOCAL:
            return (
                f"the cluster did not start ({reason}); Ray gives it 30 s: when the machine is less busy try again, "
                "or leave --ray out, --workers does the same here"
            )
        return f"cannot connect ({reason}); give local, auto, or the HOST:PORT that ray start printed"

    def _check(self, ray: Any) -> None:
        """A local cluster does not grow, so what it lacks now it lacks for ever."""
        if self.address == LOCAL and not self.fits(ray.nodes()):
            has = ray.cluster_resources()
            raise BadInput("gpus-per-run", self.gpus, f"this machine has {has.get('GPU', 0):g} GPUs")

    def fits(self, nodes: Sequence[dict[str, Any]]) -> bool:
        """Whether some node that is alive has what one run needs."""
        resources = [node["Resources"] for node in nodes if node["Alive"]]
        return any(has.get("CPU", 0) >= self.cpus and has.get("GPU", 0) >= self.gpus for has in resources)

    def room(self, resources: dict[str, float]) -> int:
        """How many runs to have with the cluster: twice what fits, so that it never waits and can see it should grow.

        The driver claims these runs and leaves the others to whoever else works on the store.
        """
        counts = [resources.get(name, 0) // each for name, each in (("CPU", self.cpus), ("GPU", self.gpus)) if each]
        return max(2, 2 * int(min(counts, default=1)))


def _ray() -> Any:
    """The library, imported where a cluster is asked for."""
    import ray

    return ray


class Connection:
    """A sweep's connection to its cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def run(self, configs: Sequence[RunConfig], store: Store, watcher: Watcher) -> Iterator[Outcome]:
        """Run them; the outcomes as they come, their results stored."""
        ray = _ray()
        if configs and not self._cluster.fits(ray.nodes()):
            need = f"{self._cluster.cpus:g} CPUs and {self._cluster.gpus:g} GPUs"
            watcher.note(f"no node of the cluster has {need}: waiting for one")
        flight = _Flight(self._cluster, store, watcher, configs)
        try:
            yield from flight.outcomes()
        finally:
            flight.end()


class _Flight:
    """The runs that are with the cluster."""

    def __init__(self, cluster: Cluster, store: Store, watcher: Watcher, configs: Sequence[RunConfig]) -> None:
        ray = self._ray = _ray()
        self._cluster, self._store, self._watcher = cluster, store, watcher
        self._waiting = deque(configs)
        self._known = {config.hash: config for config in configs}
        self._flying: dict[Any, tuple[RunConfig, Claim]] = {}
        self._task = ray.remote(_train).options(
            num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=cluster.retries
        )
        self._mail = ray.remote(_Mailbox).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        self._letters = self._ask()

    def outcomes(self) -> Iterator[Outcome]:
        while self._waiting or self._flying:
            yield from self._launch()
            if self._flying:
                ready, _ = self._ray.wait(list(self._flying), timeout=_POLL_SECONDS)
                self._deliver()
                for reference in ready:
                    yield self._land(reference)

    def _launch(self) -> Iterator[Outcome]:
        """Send off as many as the cluster has room for; at once the outcome of those that need not or cannot go."""
        room = self._cluster.room(self._ray.cluster_resources())
        while self._waiting and len(self._flying) < room:
            config = self._waiting.popleft()
            try:
                claim = self._store.claim(config.hash)
                if claim is None:
                    yield Outcome(config.hash, runner.BUSY)
                    continue
                if self._store.has(config):
                    claim.release(done=True)
                    yield runner.stored(config, self._store)
                    continue
                place = _Place.mark(claim)
            except OSError as error:
                yield runner.failure(config, error)
                continue
            self._flying[self._task.remote(_anywhere(config), self._mail, place)] = config, claim

    def _land(self, reference: Any) -> Outcome:
        """Store what a task returned."""
        config, claim = self._flying.pop(reference)
        try:
            answer = self._ray.get(reference)
            if isinstance(answer, Outcome):
                return answer
            result, where = answer
            self._store.save(config, result, where)
        except self._ray.exceptions.RayError as error:
            lost = f"its worker was lost, {self._cluster.retries} retries too ({type(error).__name__})"
            return dataclasses.replace(runner.failure(config, error), error=lost)
        except Exception as error:
            return runner.failure(config, error)
        finally:
            claim.release(done=self._store.has(config))
        return Outcome(config.hash, result.status, result.summary())

    def _deliver(self) -> None:
        """Tell the watcher of the epochs that have come; a mailbox that moves to another node answers later."""
        ready, _ = self._ray.wait([self._letters], timeout=0)
        if ready:
            with contextlib.suppress(self._ray.exceptions.RayError):
                for name, letter in self._ray.get(self._letters):
                    if isinstance(letter, str):
                        _LOG.info("%s (%s) runs on node %s", self._known[name].label, name, letter)
                    else:
                        self._watcher.epoch(self._known[name], letter)
            self._letters = self._ask()

    def _ask(self) -> Any:
        """Ask for the letters. An answer that is lost is asked for again here, so Ray need not retry and tell of it."""
        return self._mail.empty.options(max_task_retries=0).remote()

    def end(self) -> None:
        """Call back what still flies, and give up the claims."""
        for reference, (_, claim) in self._flying.items():
            self._ray.cancel(reference, force=True)
            claim.release(done=False)
        self._ray.kill(self._mail)


class _Mailbox:
    """An actor that keeps what runs tell until the driver asks: the node that they begin on, and their epochs."""

    def __init__(self) -> None:
        self._letters: list[tuple[str, str | dict[str, Any]]] = []

    def put(self, name: str, letter: str | dict[str, Any]) -> None:
        self._letters.append((name, letter))

    def empty(self) -> list[tuple[str, str | dict[str, Any]]]:
        letters, self._letters = self._letters, []
        return letters


@dataclass(frozen=True)
class _Place:
    """The live folder of a run as the driver sees it, with a mark in it by which a node knows that it sees the same."""

    folder: str
    mark_text: str

    @classmethod
    def mark(cls, claim: Claim) -> _Place:
        text = uuid.uuid4().hex
        folder = claim.folder.absolute()
        write_text(folder / "mark", text)
        return cls(str(folder), text)

    def checkpoint(self) -> Path | None:
        folder = Path(self.folder)
        try:
            same = (folder / "mark").read_text(encoding="utf-8") == self.mark_text
        except OSError:
            return None
        return folder / "checkpoint.pt" if same else None


def _anywhere(config: RunConfig) -> RunConfig:
    """The run with paths to its data and its model that do not depend on the driver's working directory."""
    places = {name: getattr(config, name) for name in ("data_dir", "model_dir")}
    return dataclasses.replace(config, **{name: os.path.abspath(each) for name, each in places.items() if each})


def _node() -> str:
    """Name and Ray id of the node that this task runs on."""
    return f"{socket.gethostname()} {_ray().get_runtime_context().get_node_id()}"


def _train(config: RunConfig, mail: Any, place: _Place, version: str = __version__) -> Any:
    """The task: result and environment, or the outcome of a failure."""
    from fenland.lab.training.trainer import train

    def tell(record: EpochRecord) -> None:
        mail.put.remote(config.hash, record.as_dict())

    try:
        if version != __version__:
            raise RuntimeError(f"this node has fenland {__version__}, the driver {version}; install the same")
        mail.put.remote(config.hash, _node())
        result = train(config, tell, checkpoint=place.checkpoint())
        return result, {**environment.describe(config.threads), "node": _node()}
    # As in `runner.run_one`: what one run raises is its own outcome.
    except Exception as error:
        return runner.failure(config, error)
