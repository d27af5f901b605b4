"""The ratio gamma of the gradient norms through training: Fig. 3 of the SSAM paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from fenland.lab.errors import BadInput
from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import Mark, Panel
from fenland.lab.store.statistics import Interval, finished, interval
from fenland.lab.study import C, Claim, Contrast, Grid, Plot, Quantity, Study, Training, last_epoch, paired
from fenland.lab.study.grid import above_zero, at_least_two
from fenland.lab.study.parts import Measured, Source, Statement, ours
from fenland.lab.study.quantities import gap
from fenland.lab.study.recipes import lines_of
from fenland.lab.study.words import by, left_out, lossy

READING = "ours, as a reading of SSAM paper, Fig. 3"
NAMES = {"usam": "unnormalised ascent, as in the paper", "sam": "normalised ascent"}
gamma = Quantity("gamma", "gamma", table="epochs")


@dataclass(frozen=True)
class Config(Training):
    """What is run: "sam" climbs a length rho, "usam" rho times the gradient, the paper's own."""

    models: tuple[str, ...] = ("mlp", "wrn10-1")
    optimizers: tuple[str, ...] = ("usam", "sam")
    rhos: tuple[float, ...] = (0.01, 0.05, 0.2)
    epochs: int = 10
    lr: float = 0.05
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        for name in set(self.optimizers) - {"sam", "usam"}:
            raise BadInput("optimizers", name, "the figure is about SAM: sam, usam or both")
        at_least_two("rhos", self.rhos)
        above_zero(self, "rhos")
        if self.epochs < 3:
            raise BadInput("epochs", self.epochs, "give at least 3: the first third is set against the last")


def done(rows: pd.DataFrame) -> pd.DataFrame:
    """Of runs that reached their end, with network and radius in words."""
    rows = finished(rows)
    return rows.assign(case=[f"{m}, rho = {r:g}" for m, r in zip(rows["model"], rows["rho"], strict=True)])


def of_cases(measure: Callable[[pd.DataFrame], Interval], optimizer: str) -> Contrast:
    """A number of each network and radius."""

    def found(measured: Measured) -> dict[str, Interval]:
        rows = done(gamma.at(optimizer=optimizer).rows(measured))
        return {case: measure(part) for case, part in by(rows, "case")}

    return Contrast(found, "{key}: {value}")


def highest(optimizer: str) -> Statement:
    """The epoch at which gamma is largest decides."""

    def measure(measured: Measured) -> dict[str, Interval]:
        found = {}
        for case, part in by(done(gamma.at(optimizer=optimizer).rows(measured)), "case"):
            epochs = {str(epoch): interval(rows["value"]) for epoch, rows in part.groupby("epoch")}
            most = max(epochs, key=lambda epoch: epochs[epoch].mean)
            found[f"{case}: at most {{value}} (epoch {most!s})"] = epochs[most]
        return found

    return Contrast(measure, "{key}", ".4f", sign=False) < 1


def shrinks(optimizer: str) -> Statement:
    """From each radius to the next larger one, the mean over the epochs."""

    def measure(measured: Measured) -> dict[str, Interval]:
        found = {}
        for model, part in by(done(gamma.at(optimizer=optimizer).rows(measured)), "model"):
            means = part.groupby(["seed", "rho"])["value"].mean().reset_index()
            for small, large in pairwise(sorted(means["rho"].unique())):
                found[f"{model}, {small:g} to {large:g}"] = gap(means, "rho", large, small)
        return found

    return Contrast(measure, "{key}: {value}") < 0


def late(rows: pd.DataFrame) -> Interval:
    """The last third of the epochs less the first."""
    third, last = max(1, int(rows["epoch"].max()) // 3), int(rows["epoch"].max())
    return interval(
        part[part["epoch"] > last - third]["value"].mean() - part[part["epoch"] <= third]["value"].mean()
        for _, part in rows.groupby("seed")
    )


def claims(measured: Measured) -> Iterator[Claim]:
    """Of the ascents of which a run ended."""
    found = seen(measured)
    for name in found:
        yield Claim(
            f"Gamma is below 1 throughout training, so SSAM's steps are shorter than SAM's ({NAMES[name]}).",
            Source(f"{READING}: its caption states no value", ours=True), highest(name), f"gamma_{name}",
            expected="every epoch's mean below 1, for each network and radius",
            notes="The epoch with the largest mean is shown; its interval decides.",
        )  # fmt: skip
        yield Claim(
            f"Gamma is the smaller the larger the radius is ({NAMES[name]}).",
            Source(f"{READING}; on quadratics fenland.theory.gamma_bounds", ours=True),
            shrinks(name), f"gamma_{name}", expected="mean over the epochs falls from each radius to the next",
            notes="Differences paired over seeds.",
        )  # fmt: skip
    if "sam" in found:
        yield Claim(
            "With the normalised ascent gamma falls through training, as the gradient gets short against the radius.",
            Source("ours, from gamma = |w|/(|w| + rho) at a minimum (fenland.theory.gamma_normalized)", ours=True),
            of_cases(late, "sam") < 0, "gamma_sam",
            expected="mean of the last third of the epochs below that of the first third",
            notes="A network is no single mode, and its curvature changes on the way: the theory may fail here.",
        )  # fmt: skip
    if len(found) == 2:
        yield Claim(
            "At the same rho the unnormalised ascent leaves gamma nearer to 1 at the end than the normalised one.",
            ours("its ascent shrinks with the gradient (fenland.theory.gamma_smooth)"),
            paired(gamma.at(epoch=last_epoch), "optimizer", "usam", "sam", each="case", of=done) > 0, "gamma_usam",
            expected="a larger gamma at the last epoch",
            notes="Differences paired over seeds. The two radii have different units: weight, and weight squared per "
            "loss.",
        )  # fmt: skip


def seen(measured: Measured) -> list[str]:
    """The ascents of which a run ended."""
    return [x for x in measured.config.optimizers if len(done(gamma.at(optimizer=x).rows(measured)))]


def draw(measured: Measured) -> list[Drawn]:
    """Gamma by epoch, one figure an ascent: a panel a network, a line a radius."""

    def panels(name: str) -> Callable[[Measured], list[Panel]]:
        rows = done(gamma.at(optimizer=name).rows(measured))
        return lambda _: [
            Panel(lines_of(part, "rho", "epoch", lambda rho: f"rho = {rho:g}"), "epoch", str(model),
                  marks=[Mark(1.0, across="y")], whole=True)
            for model, part in by(rows, "model")
        ]  # fmt: skip

    caption = (
        "Mean over the steps of an epoch, then over seeds; bands are 95 % intervals over seeds. The dotted line is 1, "
        "where SSAM would step like SAM."
    )
    labels = tuple(f"rho = {rho:g}" for rho in sorted(measured.config.rhos))
    titles = {name: f"Gamma by epoch, {NAMES[name].split(',')[0]}" for name in seen(measured)}
    return [Plot(f"gamma_{name}", title, panels(name), caption, labels)(measured) for name, title in titles.items()]


STUDY = Study(
    name="gamma",
    title="Gamma through training",
    source=Source("Stable SAM, Tan, Zhang, Liu, Wang, Hao 2025 (JMLR 26), arXiv 2401.07250, Fig. 3"),
    question="How does gamma, the norm of the gradient at w over that at the ascent point, move while SAM trains two "
    "networks, and how does it depend on the radius?",
    config=Config,
    paper={
        "data": "cifar10", "models": ("resnet20", "resnet56"), "epochs": 200, "batch_size": 128, "augment": True,
        "device": "cuda",
    },
    two_cores={"data": "cifar10", "models": ("lenet",), "epochs": 30, "batch_size": 128},
    runs=Grid(model=C.models, optimizer=C.optimizers, rho=C.rhos, seed=C.seeds),
    claims=claims,
    figures=[draw],
    choices=(
        "We had the caption of the figure only. It defines gamma and names SAM, two networks, 200 epochs and the radii "
        "0.01, 0.05 and 0.2. It gives no network, no data and no value, so the claims are our reading, and are marked "
        "as ours.",
        "The paper's SAM climbs by rho times the gradient. Foret's, which most people use, climbs a distance rho along "
        "the gradient. Both are run, and their radii are not comparable.",
        "A point of a curve is the mean of gamma over the steps of an epoch and then over seeds, with its 95 % "
        "interval.",
        "Preset paper trains ResNet-20 and ResNet-56 on CIFAR-10, batches of 128, lr 0.05 (the authors' code), "
        "momentum 0.9, weight decay 5e-4, cosine. Preset quick trains an MLP and a residual network of 10 layers on "
        "digits. Preset two-cores trains a LeNet on CIFAR-10.",
    ),
    beside=(lossy, lambda measured: left_out(measured["epochs"])),
)  # fmt: skip
