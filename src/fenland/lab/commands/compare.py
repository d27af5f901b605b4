"""``fenland compare``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from fenland.lab.commands import output, shared
from fenland.lab.errors import BadInput

if TYPE_CHECKING:
    from fenland.lab.compare.comparison import Comparison
    from fenland.lab.sweep.planning import Request

_Word = Annotated[str, arg(metavar="NAME")]
_Words = Annotated[tuple[str, ...], arg(metavar="NAME ...")]
_Radii = Annotated[tuple[str, ...], arg(metavar="R|NAME=R ...")]
_Number = Annotated[str, arg(metavar="NUMBER")]
_Options = Annotated[tuple[str, ...], arg(metavar="NAME:OPTION=VALUE ...")]
_Folder = Annotated[str, arg(metavar="DIR")]


@dataclass(frozen=True)
class Compare:
    """Train several optimizers with several seeds and compare them.

    Prints a table and writes OUT/report.html. Runs that are stored under OUT are not repeated: stop it and start it
    again as you like. 'auto' takes the data set's default.

    Example: fenland compare --data digits --optimizers sgd sam ssam --out out/demo

    Exit codes: 0 all runs are stored, 1 some failed, 2 wrong arguments, 130 interrupted.
    """

    data: _Word = "digits"
    """digits, mnist, cifar10, cifar100, a hub name owner/name, or local (with --data-dir)."""
    data_dir: _Folder = ""
    """Local parquet files in the hub's schema, instead of a download."""
    model: _Word = "auto"
    """mlp, lenet, resnet20, resnet56 (with -identity: the paper's shortcut), wrn16-10, wrn28-10 or any wrnD-K,
    pyramidnet20-a48, pyramidnet110-a48, resnext29-32x4d, vgg11, vgg16 (with -plain: no batch norm), vit."""
    optimizers: _Words = ("sgd", "sam", "ssam")
    """sgd, sam, usam, ssam, ssam-u (the paper's SSAM, on the unnormalised ascent), or a method of fenland variants in
    small letters."""
    rho: _Radii = ()
    """Radius of the ascent: one for all, or one each as in: sam=0.05 usam=0.2. Default 0.05."""
    options: _Options = ()
    """Arguments of an optimizer's preset, as in: asam:eta=0.1 gsam:alpha=0.4 (see fenland variants)."""
    base: _Word = "sgd"
    """sgd or adamw: what takes the step. The baseline optimizer has the same name."""
    lr: _Number = "auto"
    """Learning rate of the base, the highest one of the schedule (auto for adamw: 0.001)."""
    momentum: _Number = "0.9"
    """Momentum of SGD, first beta of AdamW."""
    weight_decay: _Number = "5e-4"
    """Weight decay of the base."""
    batch_size: _Number = "auto"
    """Examples per step."""
    epochs: _Number = "auto"
    """Passes over the train set."""
    schedule: _Word = "cosine"
    """constant, cosine, or step (20 %, 4 %, 0.8 % of the learning rate at 30, 60, 80 % of the epochs)."""
    warmup: _Number = "0"
    """Epochs over which the learning rate rises linearly from 0, step by step."""
    label_smoothing: _Number = "0"
    """Share of the target that is spread over all classes, in the training loss only."""
    seeds: _Number = "5"
    """How many seeds; intervals need at least 2."""
    limit: _Number = "all"
    """Train on this many examples only."""
    augment: _Word = "auto"
    """Random crop and flip: on, off, auto (on for CIFAR)."""
    cutout: _Number = "0"
    """Side of the square blanked in each training image, in pixels; 0 for none."""
    label_noise: _Number = "0"
    """Share of the train labels that are replaced by another class."""
    data_seed: _Number = "0"
    """Fixes which examples --limit takes and which labels are noisy."""
    device: _Word = "auto"
    """cpu, cuda, mps."""
    precision: _Word = "32-true"
    """32-true, bf16-mixed, 64-true; 16-mixed on cuda."""
    strategy: _Word = "auto"
    """How one run uses several devices: ddp (replicated) or fsdp (sharded); auto is one device."""
    devices: _Number = "1"
    """Processes of one run, with --strategy; they share the batch."""
    curvature: _Number = "0"
    """Measure the Hessian's extreme eigenvalues every so many epochs; 0 for never."""
    weights: bool = False
    """Keep the final weights of every run."""
    workers: _Number = "1"
    """Processes that share the runs: the best use of several cores."""
    ray: Annotated[str, arg(metavar="ADDRESS")] = ""
    """Run on a Ray cluster: HOST:PORT, auto, or local (see fenland sweep --help)."""
    cpus_per_run: _Number = "1"
    """Cores that each run gets on the cluster; fractions too."""
    gpus_per_run: _Number = "0"
    """GPUs that each run gets on the cluster; fractions too. Then it trains on cuda."""
    threads: _Number = "1"
    """Threads of one run on the CPU; more help large models only."""
    logger: _Words = ()
    """Also tell tensorboard, mlflow or wandb (several allowed), in OUT/trackers."""
    out: _Folder = ""
    """Output directory. Default: out/compare-DATA."""
    json: bool = False
    """Print one JSON document instead of the table; progress goes to stderr."""

    def run(self, arguments: list[str]) -> int:
        """Compare, print, and say what went wrong."""
        from fenland.lab.compare.comparison import compare
        from fenland.lab.sweep.planning import whole_number

        for name in ("rho", "options", "logger"):
            if f"--{name}" in arguments and not getattr(self, name):
                raise BadInput(name, "(nothing)", "give a value, or leave it out")
        workers = whole_number("workers", self.workers)
        ray = shared.cluster(self.ray, self.cpus_per_run, self.gpus_per_run, workers)
        out = Path(self.out or f"out/compare-{self.data.replace('/', '-')}")
        console = output.console(stderr=self.json)
        try:
            done = compare(self._request(), out, console, workers, arguments, ray, self.logger)
        except KeyboardInterrupt:
            return shared.interrupted(out)
        self._show(done)
        return shared.ending(done)

    def _request(self) -> Request:
        from fenland.lab.sweep.planning import Request

        if self.data_dir == "" and self.data == "local":
            raise BadInput("data", self.data, "needs --data-dir DIR with train and test parquet files")
        return Request(
            data=self.data,
            data_dir=self.data_dir or None,
            model=self.model,
            optimizers=self.optimizers,
            rho=self.rho,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            epochs=self.epochs,
            schedule=self.schedule,
            seeds=self.seeds,
            limit=self.limit,
            augment=self.augment,
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            base=self.base,
            options=self.options,
            warmup=self.warmup,
            label_smoothing=self.label_smoothing,
            label_noise=self.label_noise,
            cutout=self.cutout,
            data_seed=self.data_seed,
            curvature=self.curvature,
            strategy=self.strategy,
            devices=self.devices,
            weights=self.weights,
        )

    def _show(self, done: Comparison) -> None:
        from fenland.lab.commands import tables

        if self.json:
            rows = [] if done.table is None else done.table.to_dict("records")
            output.print_json({**shared.counts(done), "optimizers": rows})
        elif done.table is not None:
            output.console().print(tables.comparison(done.table))
            print(*[line for line in (done.headline, done.report) if line], sep="\n")
