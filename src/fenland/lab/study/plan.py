"""What a study would take: its training runs, gradient evaluations, memory and hours, from steps taken here."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fenland.lab.errors import BadInput
from fenland.lab.study.images import about_data, data_folder, device_is_here

if TYPE_CHECKING:
    from pathlib import Path

    from fenland.lab.config import RunConfig
    from fenland.lab.study.study import Study

# Fields in which runs may differ and still take as long, step by step.
_SAME: dict[str, Any] = {
    "seed": 0, "data_seed": 0, "replace": None, "rho": None, "lr": 0.1, "weight_decay": 0.0, "schedule": "constant",
    "epochs": 1, "limit": None, "weights": False, "data_dir": None, "data_id": "", "momentum": 0.9,
}  # fmt: skip
FEW, MORE = 2, 16  # images of the first timed step, and of the second where the whole batch would take too long
PATIENCE = 3.0  # seconds that a step may take to be timed
COPIES = {True: 6, False: 3}  # of the weights: w, gradient, momentum; with an ascent e, the clean gradient and spare


@dataclass(frozen=True)
class Part:
    """The runs of a plan whose steps take equally long."""

    run: RunConfig  # one of them
    runs: int  # how many there are
    evaluations: int  # of the gradient on a batch, all together; at most, where an optimizer skips ascents
    seconds: float  # a gradient evaluation on this machine
    timed: int  # images of the step that was timed, the rest being proportion
    flop: float  # floating-point operations of an evaluation
    memory: float  # bytes at the peak of a step: weights, their copies, what backward needs, and the images as bytes
    extra: float  # seconds of a step beyond its gradient evaluations
    steps: int  # of all runs together

    @property
    def hours(self) -> float:
        """Of all the runs, one after the other, on this machine."""
        return (self.evaluations * self.seconds + self.steps * self.extra) / 3600


@dataclass(frozen=True)
class Folders:
    """What planning needs of a laboratory: where data lie. It has no folder, and computes nothing."""

    data_root: Path | None = None  # folder of folders of parquet files; None for the hub

    def data_dir(self, data: str) -> str | None:
        """As `fenland.lab.study.parts.Lab` has it."""
        return data_folder(self.data_root, data)


def distinct(runs: Iterable[RunConfig]) -> dict[RunConfig, list[RunConfig]]:
    """The runs by what their steps have in common; each once, also where several cases share it."""
    found: dict[RunConfig, list[RunConfig]] = {}
    for run in {run.hash: run for run in runs}.values():
        found.setdefault(dataclasses.replace(run, **_SAME), []).append(run)
    return found


def evaluations(runs: Iterable[RunConfig]) -> int:
    """Gradient evaluations of all of them."""
    return round(sum(steps_of(run) * passes_of(run) for run in {run.hash: run for run in runs}.values()))


def passes_of(run: RunConfig) -> float:
    """Gradient evaluations a step, mean over the run; of a window of ascents those that fall into the run."""
    from fenland.lab.training.optimizers import check_optimizer

    if run.optimizer != "windowsam":
        return check_optimizer(run.optimizer).passes
    window, steps = dict(option.split("=") for option in run.options), steps_of(run)
    climbs = min(steps, int(window.get("stop", steps))) - int(window.get("start", 0))
    return 1 + max(0, climbs) / max(1, steps)


def steps_of(run: RunConfig) -> int:
    """Of one run."""
    return run.epochs * (about_data(run)[2] // run.batch_size)


def measure(runs: Sequence[RunConfig]) -> Iterator[Part]:
    """Two steps of each distinct run, on its device where that is here, else on the CPU."""
    from fenland.lab.training.optimizers import check_optimizer

    costs: dict[tuple[Any, ...], _Cost] = {}
    for run, same in distinct(runs).items():
        shape, classes, count = about_data(same[0])
        key = (shape, classes, run.model, run.batch_size, run.precision)
        with torch.random.fork_rng():
            costs[key] = cost = costs.get(key) or _cost(run, shape, classes)
            extra = _extra(run, shape, classes, cost)
        row = check_optimizer(run.optimizer)
        steps = sum(map(steps_of, same))
        weights = 4 * cost.parameters * COPIES[row.rho is not None]
        size = count * shape[0] * shape[1] * shape[2]
        yield Part(
            same[0], len(same), evaluations(same), cost.seconds, cost.timed, cost.flop,
            weights + cost.saved + size, extra, steps,
        )  # fmt: skip


@dataclass(frozen=True)
class _Cost:
    """Of one gradient evaluation on a batch, and of one on `FEW` images."""

    seconds: float
    few: float
    timed: int
    flop: float
    saved: float
    parameters: int


def _cost(run: RunConfig, shape: tuple[int, int, int], classes: int) -> _Cost:
    from torch.utils.flop_counter import FlopCounterMode

    model = _model(run, shape, classes)
    share = run.batch_size / FEW
    few = _evaluation(run, model, *_batch(run, FEW, shape, classes))
    with _Saved(model) as saved, FlopCounterMode(display=False) as counter:
        few()
    small = _timed(few, run)
    fits = (size for size in (run.batch_size, MORE) if size >= MORE and small * size / FEW <= PATIENCE)
    timed = next(fits, min(FEW, run.batch_size))
    seconds = _timed(_evaluation(run, model, *_batch(run, timed, shape, classes)), run) * run.batch_size / timed
    count = sum(weight.numel() for weight in model.parameters())
    return _Cost(seconds, small, timed, counter.get_total_flops() * share, saved.bytes * share, count)


def _extra(run: RunConfig, shape: tuple[int, int, int], classes: int, cost: _Cost) -> float:
    """Seconds of a step of the optimizer beyond its gradient evaluations, on a few images."""
    from fenland.lab.training.optimizers import build_optimizer, check_optimizer

    model, row = _model(run, shape, classes), check_optimizer(run.optimizer)
    optimizer: Any = build_optimizer(run, model, 2)
    images, labels = _batch(run, FEW, shape, classes)

    def closure() -> Tensor:
        optimizer.zero_grad()
        with _cast(run):
            losses = cross_entropy(model(images), labels, reduction="none" if row.per_sample else "mean")
        if not row.per_sample:
            losses.backward()  # type: ignore[no-untyped-call]
        return losses

    return max(0.0, _timed(lambda: optimizer.step(closure), run) - row.passes * cost.few)


def _model(run: RunConfig, shape: tuple[int, int, int], classes: int) -> nn.Module:
    from fenland.lab.study.twins import build

    return build(run.model, shape, classes).to(_device(run))


def _batch(run: RunConfig, count: int, shape: tuple[int, int, int], classes: int) -> tuple[Tensor, Tensor]:
    device = _device(run)
    return torch.randn(count, *shape, device=device), torch.arange(count, device=device) % classes


def _evaluation(run: RunConfig, model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    def evaluate() -> None:
        model.zero_grad()
        with _cast(run):
            loss = cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]

    return evaluate


def _timed(work: Callable[[], object], run: RunConfig) -> float:
    """Seconds of the second call."""
    work()
    begun = _clock(run)
    work()
    return _clock(run) - begun


def _clock(run: RunConfig) -> float:
    """On the CPU the seconds of this thread, so that other processes take nothing from the plan."""
    if _device(run) == "cpu":
        return time.thread_time()
    if _device(run) == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _device(run: RunConfig) -> str:
    return run.device if device_is_here(run.device) else "cpu"


def _cast(run: RunConfig) -> AbstractContextManager[object]:
    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    return torch.autocast(_device(run), kinds[run.precision]) if run.precision in kinds else nullcontext()


class _Saved:
    """Counts the bytes that autograd keeps for backward, each storage once and no weight."""

    def __init__(self, model: nn.Module) -> None:
        self._weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        self._sizes: dict[int, int] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._weights:
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def bytes(self) -> int:
        """All of them."""
        return sum(self._sizes.values())

    def __enter__(self) -> _Saved:
        self._hooks.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.__exit__()


def check_here(study: Study, preset: str, config: Any, runs: Sequence[RunConfig]) -> None:
    """Refuse a preset whose device this machine does not have, with what it would take."""
    device = getattr(config, "device", "cpu")
    if device_is_here(device) or not runs:
        return
    count = len({run.hash for run in runs})
    raise BadInput(
        "preset", preset, f"{study.name} trains {count:,} networks ({evaluations(runs):,} gradient evaluations) on "
        f"{device}, and torch sees none here; `fenland study {study.name} --preset {preset} --plan` says what that "
        "takes, --preset quick runs here in minutes, --set device=cpu all the same",
    )  # fmt: skip
