"""The trained half of the study `momentum-batch`: SAM's accuracy over momentum, batch size and radius."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import Panel
from fenland.lab.figures.style import title_of
from fenland.lab.store.statistics import Interval, finished, interval
from fenland.lab.study import C, Claim, Contrast, Finding, Grid, Lab, Measured, Plot, Quantity, Source, Tables
from fenland.lab.study.published import next_draw
from fenland.lab.study.quantities import gap, statement, undecided
from fenland.lab.study.recipes import lines_of
from fenland.lab.study.words import above, below, shown, together

PAPER = Source("Stability Analysis of SAM, arXiv 2301.06308")
MITIGATE = PAPER.at("as a reading of 'mitigate'")
TABLE = PAPER.at("Table 1")
READINGS = SAME, EFFECTIVE = "same lr", "same lr/(1 - momentum)"
accuracy = Quantity("test_accuracy", table="trained", scale=100, form=".2f")
ENOUGH = 100  # epochs, from which on a run speaks about a published accuracy
# What the paper says of ResNet-18 without batch norm and augmentation; Table 1 has both.
STUCK_LOSS, STUCK_ACCURACY, GAIN = 1.0, 60.0, 20.0
CELLS = {(0.1, 0.95): 95.08, (0.5, 0.0): 86.20}  # per cent, by (rho, momentum)
SPREAD = 5.79  # points between the largest and the least over momentum, at rho 0.5
FULL: dict[str, Any] = {
    "data": "cifar10", "model": "resnet18-plain", "trained": ("sgd", "sam"), "train_rhos": (0.1, 0.5), "train_lr": 0.01,
    "train_batches": (128, 512), "readings": (SAME,), "epochs": 200, "seeds": (0, 1, 2), "device": "cuda",
    "table_model": "resnet18", "table_lr": 0.1,
}  # fmt: skip
# The same grid on a network of two cores.
SMALL: dict[str, Any] = {
    "data": "cifar10", "model": "lenet", "trained": ("sgd", "sam"), "train_rhos": (0.1, 0.5),
    "train_batches": (128, 512), "readings": (SAME,), "epochs": 10, "seeds": (0, 1, 2),
}  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """How networks are trained."""

    data: str = "digits"  # that the network is trained on
    model: str = "mlp"  # the network
    trained: tuple[str, ...] = ("sgd", "sam", "ssam")  # optimizers
    train_rhos: tuple[float, ...] = (0.05,)  # radii of those with an ascent
    train_lr: float = 0.02  # learning rate in training, constant; in the other reading that of the largest momentum
    train_momenta: tuple[float, ...] = (0.0, 0.9)  # of the trained grid
    train_batches: tuple[int, ...] = (16, 128)  # of the trained grid
    readings: tuple[str, ...] = READINGS  # of momentum in training
    epochs: int = 10  # of training
    seeds: tuple[int, ...] = (0, 1, 2)  # of training
    device: str = "cpu"  # cpu, cuda or mps
    precision: str = "32-true"  # of training
    table_model: str = ""  # the network of Table 1, trained with augmentation; empty for none
    table_momenta: tuple[float, ...] = (0.0, 0.5, 0.9, 0.95)  # of that
    table_lr: float = 0.05  # of that, cosine

    def grids(self) -> Iterator[Grid]:
        """What is trained."""
        yield GRID
        if self.table_model:
            yield WITH_NORM

    def why(self) -> str:
        """Why a claim about the published scale stays open; empty at that scale."""
        if self.data == "cifar10" and self.model == FULL["model"] and self.epochs >= ENOUGH:
            return ""
        return (
            f"Not decided: {self.epochs} epochs of {self.model} on {self.data} are not the paper's ResNet-18 without "
            "batch norm on CIFAR-10."
        )


def case(config: Any, lab: Lab, reading: str, momentum: float) -> Mapping[str, Any]:
    """What is trained in one reading; the largest momentum is the same in both."""
    top = max(config.train_momenta)
    longer = 1.0 if reading == SAME else round((1 - momentum) / (1 - top), 9)
    return {"lr": config.train_lr * longer, "momentum": momentum, "weight_decay": 0.0, "schedule": "constant"}


def with_norm(config: Any, lab: Lab) -> Mapping[str, Any]:
    """The network of Table 1 and how it is trained."""
    return {"model": config.table_model, "lr": config.table_lr, "augment": True}


GRID = Grid(
    case, reading=C.readings, optimizer=C.trained, momentum=C.train_momenta, batch_size=C.train_batches,
    rho=C.train_rhos, seed=C.seeds,
)  # fmt: skip
WITH_NORM = Grid(
    with_norm, optimizer=("sam",), momentum=C.table_momenta, batch_size=(128,), rho=C.train_rhos, seed=C.seeds
)


def train(config: Trained, lab: Lab) -> Tables:
    """One row a case in "trained" (SGD has no radius), and in "normed" for the network with batch norm, if any."""
    found = GRID(config, lab)
    runs = found["runs"].drop_duplicates(["run", "reading"], ignore_index=True)
    normed = {"normed": WITH_NORM(config, lab)["runs"]} if config.table_model else {}
    return {"trained": runs, "data": found["data"], **normed}


def of_training(measured: Measured) -> Iterator[Claim]:
    """What momentum and batch do to accuracy, in each reading; then the numbers that the paper has."""
    table = measured["trained"]
    top, bottom = (f(table["momentum"]) for f in (max, min))
    small, large = (f(table["batch_size"]) for f in (min, max))
    failed = table[table["status"] != "finished"].groupby("reading").size().to_dict()
    lost = {each: f"{failed[each]} runs diverged and are left out." if each in failed else "" for each in READINGS}
    scale = f"Paired over {table['seed'].nunique()} seeds, mean over the rest of the grid."
    longer = "Momentum also multiplies the step, which a short training rewards: see the other reading."
    axes = (
        ("momentum", "momentum", top, bottom, f"momentum {top:g} than with {bottom:g}", ""),
        ("small batches", "batch_size", small, large, f"B = {small} than with B = {large}",
         "Equal epochs: small batches take more steps."),
    )  # fmt: skip
    for words, axis, ours, theirs, than, also in axes:
        for reading in table["reading"].unique():
            yield Claim(
                f"A network trained by SAM generalises better with {words} ({reading}).", PAPER,
                better(reading, axis, ours, theirs), "accuracy", expected=f"test accuracy higher with {than}",
                notes=(scale, *([also] if also else []), lost[reading], longer if reading == SAME else ""),
            )  # fmt: skip
    yield Claim(
        "Momentum helps SAM's accuracy more than SGD's.", MITIGATE,
        Contrast(lambda m: _more(m, top, bottom), "{value} points more", ".2f") > 0, "accuracy",
        expected="the gain by momentum is larger for SAM", notes=(scale, lost[SAME]),
    )  # fmt: skip
    if len(measured.config.train_rhos) > 1:
        at = f"rho = {max(measured.config.train_rhos):g}, B = {large}"
        yield Claim(
            f"Without momentum SAM does not get anywhere at a large radius and batch ({at}).", PAPER, stuck, "accuracy",
            "paper", notes=lost[SAME],
        )  # fmt: skip
        yield Claim(
            f"Momentum {top:g} gains SAM {GAIN:g} points and more there, where it gains SGD about 5 ({at}).", PAPER,
            gains, "accuracy", "paper", notes=("Paired over seeds.", lost[SAME]),
        )  # fmt: skip
    if "normed" in measured.tables:
        yield Claim("The published accuracies with batch norm and augmentation, %, come out again.", TABLE, comes_out,
                    "accuracy", "paper", notes="Each lies where one more seed would, at 95 %.")  # fmt: skip
        yield Claim(f"There, too, SAM's accuracy depends on momentum: {SPREAD} points at rho = 0.5.", TABLE, spread,
                    "accuracy", "paper")  # fmt: skip


def done(measured: Measured, reading: str) -> pd.DataFrame:
    """The trained runs of a reading that finished."""
    return finished(accuracy.at(reading=reading).rows(measured))


@statement
def better(measured: Measured, reading: str, axis: str, ours: float, theirs: float) -> Finding:
    """Accuracy of SAM at one value of an axis less that at another; the others stand beside."""
    rows = done(measured, reading)
    names = ["sam", *(name for name in ("sgd", "ssam") if name in set(measured["trained"]["optimizer"]))]
    gaps = {name.upper(): gap(rows[rows["optimizer"] == name], axis, ours, theirs) for name in names}
    of_sam = Contrast(lambda _: {"SAM": gaps["SAM"]}, "{key}: {value} points", ".2f")
    return replace((of_sam > 0)(measured), measured=of_sam.said(gaps))


def _more(measured: Measured, top: float, bottom: float) -> dict[str, Interval]:
    wide = done(measured, SAME).pivot_table(index="seed", columns=["optimizer", "momentum"], values="value")
    gain = {name: wide[(name, top)] - wide[(name, bottom)] for name in ("sam", "sgd")}
    return {"": interval(gain["sam"] - gain["sgd"])}


def _corner(measured: Measured, optimizer: str) -> pd.DataFrame:
    """The runs of the largest batch, and radius where there is one."""
    rows = done(measured, SAME)
    rows = rows[(rows["optimizer"] == optimizer) & (rows["batch_size"] == rows["batch_size"].max())]
    largest: pd.DataFrame = rows if optimizer == "sgd" else rows[rows["rho"] == max(measured.config.train_rhos)]
    return largest


def stuck(measured: Measured) -> Finding:
    """Train loss and test accuracy without momentum."""
    rows = _corner(measured, "sam")
    rows = rows[rows["momentum"] == rows["momentum"].min()]
    loss, points = interval(rows["train_loss"]), interval(rows["value"])
    return Finding(
        f"a train loss above {STUCK_LOSS:g}, a test accuracy below {STUCK_ACCURACY:g} %",
        f"{shown(loss, '.3g', sign=False)}; {shown(points, '.2f', sign=False)} %",
        together([above(loss, STUCK_LOSS), below(points, STUCK_ACCURACY)]), open=undecided(),
    )  # fmt: skip


def gains(measured: Measured) -> Finding:
    """What momentum adds to both."""
    found = {}
    for name in ("sam", "sgd"):
        rows = _corner(measured, name)
        found[name] = gap(rows, "momentum", rows["momentum"].max(), rows["momentum"].min())
    words = "; ".join(f"{title_of(name)} {shown(each, '.2f')} points" for name, each in found.items())
    return Finding(f"SAM {GAIN:g} points and more, SGD about 5", words, above(found["sam"], GAIN), open=undecided())


def comes_out(measured: Measured) -> Finding:
    """The published cells against where one more seed would lie."""
    rows, words, answers = accuracy.at().rows(Measured(None, {"trained": measured["normed"]})), [], []
    for (rho, momentum), published in CELLS.items():
        cell = rows[(rows["rho"] == rho) & (rows["momentum"] == momentum)]["value"]
        low, high = next_draw(cell.to_numpy(), len(CELLS))
        words.append(f"{shown(interval(cell), '.2f', sign=False)} at rho {rho:g}, momentum {momentum:g}")
        answers.append(None if low != low else low <= published <= high)
    said = "; ".join(f"{value:.2f} at rho {rho:g}, momentum {m:g}" for (rho, m), value in CELLS.items())
    return Finding(said, "; ".join(words), together(answers), open=undecided())


def spread(measured: Measured) -> Finding:
    """The largest accuracy less the least over momentum, each seed by itself."""
    rows = measured["normed"]
    wide = rows[rows["rho"] == max(CELLS)[0]].pivot_table(index="seed", columns="momentum", values="test_accuracy")
    found = interval(100 * (wide.max(axis=1) - wide.min(axis=1)))
    return Finding("more than half of that", f"{shown(found, '.2f', sign=False)} points", above(found, SPREAD / 2),
                   open=undecided())  # fmt: skip


def accuracies(measured: Measured) -> Drawn:
    """By momentum, a panel a batch size and reading, a line an optimizer and radius."""
    rows = pd.concat([done(measured, reading) for reading in measured["trained"]["reading"].unique()])
    several = len(measured.config.train_rhos) > 1
    names = [
        f"{name}, rho = {rho:g}" if several and rho == rho else name
        for name, rho in zip(rows["optimizer"], rows.get("rho", pd.Series(float("nan"), rows.index)), strict=True)
    ]
    panels = [
        Panel(lines_of(part, "line", "momentum", kind="joined"), "momentum", f"B = {batch}, {reading}")
        for (reading, batch), part in rows.assign(line=names).groupby(["reading", "batch_size"], sort=False)
    ]
    caption = "Means over seeds at the last epoch, bands are 95 % intervals. Equal epochs, constant learning rate."
    return Plot("accuracy", "Test accuracy, %, by momentum and batch size", lambda _: panels, caption,
                tuple(dict.fromkeys(names)))(measured)  # fmt: skip
