"""What training costs from end to end: a SAM step against plain SGD's, and the lab's trainer against a bare loop.

    python benchmarks/end_to_end.py [--rounds 30] [--steps 2] [--model resnet20] [--device cpu] [--out FILE.json]

ResNet-20 on images of CIFAR's size (random bytes: the time does not depend on them), batch 128. Bare loops have
zero_grad, forward, loss, backward and step, on the very batches that the trainer takes; the trainer adds its records,
schedule, checks and checkpoints. All contenders take turns, a few steps each, so that whatever else the machine does
meets them alike; a figure is the median over the rounds of the ratio inside a round, with its quartiles. Seconds are
those of the wall and, on one CPU thread, of the process (`cpu`), which do not count what others take.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import fenland
from fenland.lab.config import RunConfig
from fenland.lab.data.images import Images
from fenland.lab.models import build_model
from fenland.lab.store import environment
from fenland.lab.training.engine import Engine
from fenland.lab.training.loop import Loop
from fenland.lab.training.world import World, make_fabric

Seconds = tuple[float, float]


def random_images(steps: int, batch: int) -> Images:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (steps * batch, 3, 32, 32), dtype=np.uint8)
    labels = draw.integers(0, 10, steps * batch)
    return Images("random", images, labels, images[:batch], labels[:batch], tuple("0123456789"))


def timed(work: Callable[[], None], device: str) -> Seconds:
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wait()
    return time.perf_counter() - wall, time.process_time() - cpu


class Trainer:
    """An epoch of the lab's loop, checkpoints on, at every call."""

    def __init__(self, config: RunConfig, images: Images, folder: Path) -> None:
        with mock.patch("fenland.lab.data.load", return_value=images):
            self.engine = Engine(config, make_fabric(config, World()), World())
        self.loop = Loop(self.engine, None, folder / f"{config.optimizer}.pt")

    def run(self) -> None:
        """One turn."""
        self.loop.at.step, self.loop.at.spent = 0, 0.0
        self.loop._steps()
        self.loop._table()
        self.loop.means = type(self.loop.means)(self.engine.device)


class Bare:
    """An epoch of a loop without the lab, on the same batches, at every call."""

    def __init__(self, config: RunConfig, engine: Engine) -> None:
        torch.manual_seed(0)
        self.batches = engine.batches
        self.model = build_model(config.model, (3, 32, 32), 10).to(config.device)
        base = torch.optim.SGD(
            self.model.parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        sam = config.optimizer == "sam"
        self.optimizer = fenland.SAM(base, rho=0.05, model=self.model) if sam else base

    def run(self) -> None:
        """One turn."""
        for images, labels in self.batches.epoch(1):

            def closure(images: torch.Tensor = images, labels: torch.Tensor = labels) -> torch.Tensor:
                self.optimizer.zero_grad()
                loss = cross_entropy(self.model(images), labels)
                loss.backward()
                return loss

            self.optimizer.step(closure)


def measure(given: argparse.Namespace) -> dict[str, list[Seconds]]:
    images = random_images(given.steps, given.batch)
    contenders: dict[str, Callable[[], None]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("sgd", "sam"):
            config = RunConfig("digits", given.model, name, lr=1e-3, batch_size=given.batch, device=given.device)
            trainer = Trainer(config, images, Path(folder))
            contenders[f"{name} in the trainer"] = trainer.run
            contenders[f"{name} bare"] = Bare(config, trainer.engine).run
        found: dict[str, list[Seconds]] = {name: [] for name in contenders}
        for number in range(given.rounds + 2):
            order = list(contenders)
            for name in order[number % len(order) :] + order[: number % len(order)]:
                spent = timed(contenders[name], given.device)
                if number >= 2:  # the first rounds pay for lazy starts
                    found[name].append(spent)
    return found


def ratio(found: dict[str, list[Seconds]], over: str, under: str, kind: int) -> dict[str, float]:
    values = sorted(a[kind] / b[kind] for a, b in zip(found[over], found[under], strict=True))
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "low": low, "high": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = measure(given)
    pairs = {
        "SAM step / SGD step, bare": ("sam bare", "sgd bare", 2.03),
        "trainer / bare loop, SGD": ("sgd in the trainer", "sgd bare", 1.03),
        "trainer / bare loop, SAM": ("sam in the trainer", "sam bare", 1.03),
    }
    kinds = {"wall": 0} | ({"cpu": 1} if given.device == "cpu" and given.threads == 1 else {})
    figures = {}
    for title, (over, under, target) in pairs.items():
        figures[title] = {"target": target, **{kind: ratio(found, over, under, k) for kind, k in kinds.items()}}
        for kind in kinds:
            it = figures[title][kind]
            print(f"{title:28} {kind:4} {it['median']:.4f} ({it['low']:.4f} to {it['high']:.4f}), target {target}")
    steps = {n: statistics.median(s[0] for s in each) / given.steps * 1e3 for n, each in found.items()}
    print(", ".join(f"{name} {ms:.1f} ms a step" for name, ms in steps.items()))
    if given.out is not None:
        options = {name: value for name, value in vars(given).items() if name != "out"}
        content = {"options": options, "figures": figures, "ms_a_step": steps}
        content["environment"] = environment.describe(given.threads)
        given.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
