"""The spectrum of the Hessian at the minima that SGD, SAM and SSAM find."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from fenland.lab.errors import BadInput
from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import Line, Panel
from fenland.lab.figures.style import title_of
from fenland.lab.studies.spectrum_claims import claims, sizes, value
from fenland.lab.study import C, Grid, Plot, Quantity, Seeds, Study, Training
from fenland.lab.study.grid import at_least_two
from fenland.lab.study.network import density, eigenvalues, quadrature
from fenland.lab.study.parts import Lab, Measured, Piece, Source, Tables
from fenland.lab.study.recipes import colours, lines_of
from fenland.lab.study.words import by

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig

FLOOR = 1e-6  # of a density's peak: below, the logarithmic axis would show quadrature noise only
POINTS = 200
ENOUGH = 100  # epochs, from which on a run speaks about the published 200


@dataclass(frozen=True)
class Config(Training):
    """What is run."""

    models: tuple[str, ...] = ("mlp",)  # the networks
    optimizers: tuple[str, ...] = ("sgd", "usam", "ssam-u", "sam", "ssam")  # compared with the first
    rho: float = 0.05  # radius at which their ends are compared; one of rhos
    rhos: tuple[float, ...] = (0.05, 0.2)  # at each of which they are compared at equal train loss
    epochs: int = 40  # after which their ends are compared; one of lengths
    lengths: tuple[int, ...] = (10, 20, 40)  # epochs of runs of their own, along which the train loss falls
    lr: float = 0.05
    schedule: str = "cosine"
    limit: int | None = 720
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    examples: int | None = 500  # train images whose mean loss the Hessian is of; None for all
    count: int = 3  # largest eigenvalues
    tol: float = 1e-3  # bound on a residual as a share of its eigenvalue
    products: int = 1000  # Hessian-vector products after which the eigenvalues stop
    draws: int = 40  # random vectors for the trace
    paths: int = 3  # random vectors for the density
    steps: int = 40  # Lanczos steps of each

    def __post_init__(self) -> None:
        at_least_two("optimizers", self.optimizers)
        at_least_two("lengths", self.lengths)
        for name, own, several in (("rho", self.rho, "rhos"), ("epochs", self.epochs, "lengths")):
            if own not in getattr(self, several):
                raise BadInput(name, own, f"give one of {several}: {getattr(self, several)}")

    def why(self) -> str:
        """Why a claim about the published scale stays open; empty at that scale."""
        if self.data == "cifar10" and self.limit is None and self.epochs >= ENOUGH:
            return ""
        return f"Not decided: {self.here()} say nothing certain about the paper's networks, trained to their end."


def measured_ends(config: Config, lab: Lab, tables: Tables, runs: Mapping[str, RunConfig]) -> Tables:
    """Eigenvalues of each finished run, and density and trace of those whose ends are compared.

    A kill loses the one that was being measured.
    """
    rows = tables["runs"].drop_duplicates("run", ignore_index=True)  # SGD has no radius
    rows = rows.assign(reference=(rows["rho"].isna() | (rows["rho"] == config.rho)) & (rows["epochs"] == config.epochs))
    by_epoch = tables["epochs"].drop_duplicates(["run", "epoch"], ignore_index=True)
    done = rows[rows["status"] == "finished"]
    ends = {name: getattr(config, name) for name in ("examples", "count", "tol", "products", "draws")}
    nodes = {name: getattr(config, name) for name in ("examples", "paths", "steps")}
    pieces = []
    for run, reference in zip(done["run"], done["reference"], strict=True):
        # Beside the compared ends the largest eigenvalue is all that is asked for.
        key = ends if reference else ends | {"count": 1, "draws": 0}
        jobs: list[Any] = [("spectrum", eigenvalues, key), *([("density", density, nodes)] if reference else [])]
        where = runs[run], lab.weights_file(runs[run])
        pieces += [Piece(name, {"run": run, **given}, partial(job, *where, **given)) for name, job, given in jobs]
    found: dict[str, list[pd.DataFrame]] = {
        name: [pd.DataFrame({"run": []}, dtype=str)] for name in ("spectrum", "density")
    }
    for piece, part in zip(pieces, lab.keep_all(pieces, "spectra"), strict=True):
        found[piece.name].append(part.assign(run=piece.key["run"]))
    about = rows[["run", "model", "optimizer", "rho", "epochs", "seed", "reference", "train_loss"]]
    joined = {name: pd.concat(parts, ignore_index=True).merge(about, on="run") for name, parts in found.items()}
    return tables | {"runs": rows, "epochs": by_epoch} | joined


def largest(measured: Measured) -> list[Panel]:
    """Eigenvalues by rank, a panel a network."""
    rows = value.at(kind="largest", reference=True).rows(measured)
    return [
        Panel(lines_of(part, "optimizer", "rank", title_of, "joined"), "rank", str(model), log_y=True, whole=True)
        for model, part in by(rows, "model")
    ]


def equal_loss(measured: Measured) -> list[Panel]:
    """The largest eigenvalue against the train loss, a point a length of training, a panel a network and radius."""
    panels = []
    for model, part in by(sizes(measured, "largest"), "model"):
        for rho in measured.config.rhos:
            lines = []
            for name, own in by(part[part["rho"].isna() | (part["rho"] == rho)], "optimizer"):
                logs = own[["train_loss", "value"]].map(math.log).groupby(own["epochs"]).mean()
                means = logs.sort_values("train_loss").map(math.exp)
                lines.append(Line(title_of(name), means["train_loss"], means["value"], kind="joined"))
            panels.append(Panel(lines, "train loss", f"{model}, rho = {rho:g}", log_x=True, log_y=True))
    return panels


def densities(measured: Measured) -> list[Panel]:
    """Mean density over seeds, each node a Gaussian as wide as 1 % of the range."""
    panels = []
    nodes = measured["density"]
    for model, part in by(nodes[nodes["reference"]], "model"):
        low, high = float(part["node"].min()), float(part["node"].max())
        width = 0.01 * (high - low) or 1e-12
        grid = torch.linspace(low - 3 * width, high + 3 * width, POINTS, dtype=torch.float64)
        lines = []
        for name, own in by(part, "optimizer"):
            every = torch.stack([quadrature(run).on(grid, width)[0] for _, run in own.groupby("run")])
            lines.append(Line(title_of(name), grid.numpy(), every.mean(0).numpy()))
        peak = max(float(line.y.max()) for line in lines)
        panels.append(Panel(lines, "eigenvalue", str(model), log_y=True, y_limits=(FLOOR * peak, 2 * peak)))
    return panels


def draw(measured: Measured) -> list[Drawn]:
    """Largest eigenvalues, density, and the trace by network; nothing where no run finished."""
    rows = measured["spectrum"]
    labels = tuple(name for name in measured.config.optimizers if (rows["optimizer"] == name).any())
    if not labels:
        return []
    plots: list[Any] = [
        Plot(
            "largest", "Largest eigenvalues of the Hessian", largest,
            "Means over seeds with 95 % intervals, logarithmic axis. Each eigenvalue lies within its residual, which "
            "is smaller than a point here.", colours(labels),
        ),
        Plot(
            "density", "Density of the Hessian's eigenvalues", densities,
            "Stochastic Lanczos quadrature, mean over seeds; each node is a Gaussian as wide as 1 % of the range "
            "shown. Logarithmic axis: nearly all eigenvalues lie at zero, and the ends are few.", colours(labels),
        ),
        Plot(
            "equal_loss", "Largest eigenvalue against the train loss", equal_loss,
            "Geometric means over seeds; the points of a line are runs of "
            f"{', '.join(map(str, measured.config.lengths))} epochs.", colours(labels),
        ),
    ]  # fmt: skip
    traces = Quantity("value", "trace", "spectrum", where={"kind": "trace", "reference": True})
    for model, part in by(traces.rows(measured), "model"):
        error = float((part["error"] / part["value"].abs()).max())
        note = f"A single trace has a standard error of at most {error:.1%} of it, from its random vectors."
        title = f"Trace of the Hessian, {model}"
        plots.append(Seeds(f"trace_{model}", traces.at(model=model), "optimizer", note, title_of, title))
    return [plot(measured) for plot in plots]


STUDY = Study(
    name="spectrum",
    title="The Hessian at the minima that SGD, SAM and SSAM find",
    source=Source("Stable SAM, Tan, Zhang, Liu, Wang, Hao 2025 (JMLR 26), arXiv 2401.07250, abstract"),
    question="Do SAM and SSAM end in flatter minima than SGD, by the eigenvalues of the Hessian?",
    config=Config,
    paper={
        "data": "cifar10", "models": ("resnet20",), "epochs": 200, "batch_size": 128, "augment": True,
        "examples": 10_000, "count": 5, "steps": 80, "device": "cuda", "rhos": (0.01, 0.05, 0.1, 0.2),
        "lengths": (100, 200), "limit": None,
    },
    runs=Grid(
        lambda config, lab: {"weights": True}, after=measured_ends, model=C.models, optimizer=C.optimizers,
        rho=C.rhos, epochs=C.lengths, seed=C.seeds,
    ),
    claims=claims,
    figures=[draw],
    choices=(
        "The summary that we had says that SSAM finds flatter minima, as Hessian analyses show. It has no networks, "
        "data, radii or numbers.",
        "The Hessian is that of the mean cross-entropy over train images without augmentation, in evaluation mode and "
        "without the weight decay, at the last weights.",
        "The paper's plain SAM has the unnormalised ascent (USAM and SSAM-U here). Foret's ascent, of length rho, is "
        "run beside it.",
        "Cross-entropy is flat wherever it is small, so a method that fits the data better has smaller eigenvalues for "
        "that reason alone. So every verdict has the train losses beside it, and eigenvalues are also compared at "
        "equal loss: each method is trained for several lengths, and each length is a run with its own schedule.",
        "Preset paper trains ResNet-20 on CIFAR-10, 200 epochs, batches of 128, lr 0.05, momentum 0.9, weight decay "
        "5e-4, cosine, augmented; the Hessian is over 10,000 images. Preset quick trains an MLP on 720 of "
        "scikit-learn's digits; the Hessian is over 500 of them.",
    ),
)  # fmt: skip
