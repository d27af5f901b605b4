"""The spectrum of the Hessian at the minima that SGD, SAM and SSAM find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fenland.diagnostics import curvature
from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import Line, Panel
from fenland.lab.figures.style import title_of
from fenland.lab.store.statistics import Interval, interval
from fenland.lab.study import C, Claim, Contrast, Grid, Plot, Quantity, Seeds, Study, Training
from fenland.lab.study.grid import at_least_two
from fenland.lab.study.parts import Finding, Lab, Measured, Piece, Source, Statement, Tables, ours
from fenland.lab.study.quantities import gap, logarithms, ratio_of
from fenland.lab.study.recipes import colours, lines_of
from fenland.lab.study.words import by

if TYPE_CHECKING:
    from pathlib import Path

    from fenland.lab.config import RunConfig

# (what, whose where no paper says it) by the table's rows.
SIZES = {
    "largest": "largest eigenvalue of the Hessian",
    "trace": "trace of the Hessian",
    "per loss": "largest eigenvalue for its train loss",
}
PAPER = Source("SSAM paper, abstract: flatter minima by Hessian analyses")
GOAL = ours("what sharpness-aware training is for (Foret et al. 2021)")
PER_LOSS = Source(
    "ours, added after the first results: near a fit the Hessian of cross-entropy shrinks with the loss, "
    "whatever minimised it", ours=True,
)  # fmt: skip
STABLE = (("ssam", "sam"), ("ssam-u", "usam"))
FLOOR = 1e-6  # of a density's peak: below, the logarithmic axis would show quadrature noise only
POINTS = 200
value = Quantity("value", table="spectrum")


@dataclass(frozen=True)
class Config(Training):
    """What is run."""

    models: tuple[str, ...] = ("mlp", "lenet")  # the networks
    optimizers: tuple[str, ...] = ("sgd", "sam", "ssam")  # compared with the first
    rho: float = 0.05  # radius of those with an ascent
    epochs: int = 40
    lr: float = 0.05
    schedule: str = "cosine"
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


def measured_ends(config: Config, lab: Lab, tables: Tables, runs: Mapping[str, RunConfig]) -> Tables:
    """Eigenvalues and density of each finished run: a kill loses the one that was being measured."""
    rows = tables["runs"]
    done = list(rows.loc[rows["status"] == "finished", "run"])
    ends = {name: getattr(config, name) for name in ("examples", "count", "tol", "products", "draws")}
    nodes = {name: getattr(config, name) for name in ("examples", "paths", "steps")}
    jobs: dict[str, Any] = {"spectrum": (eigenvalues, ends), "density": (density, nodes)}
    pieces = [
        Piece(name, {"run": run, **key}, partial(compute, runs[run], lab.weights_file(runs[run]), **key))
        for run in done
        for name, (compute, key) in jobs.items()
    ]
    found: dict[str, list[pd.DataFrame]] = {name: [pd.DataFrame({"run": []}, dtype=str)] for name in jobs}
    for piece, part in zip(pieces, lab.keep_all(pieces, "spectra"), strict=True):
        found[piece.name].append(part.assign(run=piece.key["run"]))
    about = rows[["run", "model", "optimizer", "seed"]]
    return tables | {name: pd.concat(parts, ignore_index=True).merge(about, on="run") for name, parts in found.items()}


def eigenvalues(
    run: RunConfig, weights: Path, *, examples: int | None, count: int, tol: float, products: int, draws: int
) -> pd.DataFrame:
    """``kind, rank, value, error``: "largest" with their residuals, "trace" with its standard error."""
    from fenland.lab.study.network import trained

    model, batches = trained(run, weights)
    data = list(batches.evaluation("train", examples))
    found = curvature.extreme_eigenvalues(
        model, _loss, data, k=count, which="largest", tol=tol, max_products=products
    )  # fmt: skip
    trace = curvature.trace(model, _loss, data, draws=draws)
    rows = [("largest", rank, pair.value, pair.residual) for rank, pair in enumerate(found.largest, 1)]
    rows.append(("trace", 0, trace.value, trace.standard_error))
    return pd.DataFrame(rows, columns=["kind", "rank", "value", "error"])


def density(run: RunConfig, weights: Path, *, examples: int | None, paths: int, steps: int) -> pd.DataFrame:
    """``path, node, weight`` of the quadrature; the weights of a path sum to 1."""
    from fenland.lab.study.network import trained

    model, batches = trained(run, weights)
    found = curvature.density(model, _loss, list(batches.evaluation("train", examples)), draws=paths, steps=steps)
    rows = [
        (path, float(node), float(weight))
        for path, (nodes, weights_of) in enumerate(zip(found.nodes, found.weights, strict=True))
        for node, weight in zip(nodes, weights_of, strict=True)
    ]
    return pd.DataFrame(rows, columns=["path", "node", "weight"])


def _loss(model: nn.Module, batch: Any) -> Tensor:
    images, labels = batch
    return cross_entropy(model(images), labels)


def sizes(measured: Measured, what: str) -> pd.DataFrame:
    """One row a run: its largest eigenvalue, its trace, or the first for its train loss."""
    rows = value.at(kind="trace" if what == "trace" else "largest").rows(measured)
    rows = rows[rows["rank"] <= 1]
    if what == "per loss":
        rows = rows.merge(measured["runs"][["run", "train_loss"]], on="run")
        rows = rows.assign(value=rows["value"] / rows["train_loss"])
    return rows


def smaller(what: str, mine: str, theirs: str) -> Statement:
    """The ratio of two positive numbers, by its logarithm, for each network."""

    def measure(measured: Measured) -> dict[str, Interval]:
        found = {}
        for model, part in by(sizes(measured, what), "model"):
            means = " against ".join(_mean(part, name) for name in (mine, theirs))
            found[f"{model}: {{value}} times as much ({means})"] = ratio_of(
                gap(logarithms(part), "optimizer", mine, theirs)
            )
        return found

    return Contrast(measure, "{key}", sign=False) < 1


def _mean(part: pd.DataFrame, optimizer: str) -> str:
    found = interval(part[part["optimizer"] == optimizer]["value"])
    return f"{found.mean:.3g}" if found.n else "not measured"


def claims(measured: Measured) -> Iterator[Claim]:
    """Everyone against the first, and renormalised methods against what they renormalise."""
    optimizers = measured.config.optimizers
    pairs = [(name, optimizers[0]) for name in optimizers[1:]]
    pairs += [pair for pair in STABLE if set(pair) <= set(optimizers) and pair[1] != optimizers[0]]
    for what, words in SIZES.items():
        for mine, theirs in pairs:
            models = sizes(measured, what)["model"]
            yield Claim(
                f"{title_of(mine)} ends with a smaller {words} than {title_of(theirs)}.",
                PER_LOSS if what == "per loss" else PAPER if mine.startswith("ssam") else GOAL,
                smaller(what, mine, theirs),
                "largest" if what != "trace" else f"trace_{models.iloc[0]}" if len(models) else "",
                expected="a ratio below 1, for each network", notes=("Paired over seeds, by logarithms.", losses),
            )  # fmt: skip
    yield Claim(
        "Every eigenvalue is one: its residual |Hv − lv| is small against it.",
        Source("ours, a check of the measurement", ours=True), residuals, "largest",
    )  # fmt: skip


def losses(measured: Measured) -> str:
    """How far each method fitted the data: what curvature of the cross-entropy depends on by itself."""
    done = measured["runs"][measured["runs"]["status"] == "finished"]
    parts = []
    for model, runs in by(done, "model"):
        means = runs.groupby("optimizer", sort=False)["train_loss"].mean()
        parts.append(f"{model} " + ", ".join(f"{title_of(str(name))} {mean:.2g}" for name, mean in means.items()))
    return f"Train losses: {'; '.join(parts)}." if parts else ""


def residuals(measured: Measured) -> Finding:
    """As `curvature.extreme_eigenvalues` promises them: of 1 % of the largest where an eigenvalue is smaller."""
    rows, tol, share = value.at(kind="largest").rows(measured), measured.config.tol, 0.0
    for _, part in rows.groupby("run"):
        size = part["value"].abs()
        share = max(share, float((part["error"] / np.maximum(size, 0.01 * size.max())).max()))
    worst = float(rows["error"].max()) if len(rows) else float("nan")
    return Finding(
        f"residuals of at most {tol:g} of the eigenvalue (of 1 % of the largest, for smaller ones)",
        f"at most {share:.2g} of it, in {len(rows)} eigenpairs; {worst:.2g} in absolute terms",
        bool(share <= tol) if len(rows) else None, open="Not decided: no run finished.",
    )  # fmt: skip


def largest(measured: Measured) -> list[Panel]:
    """Eigenvalues by rank, a panel a network."""
    rows = value.at(kind="largest").rows(measured)
    return [
        Panel(lines_of(part, "optimizer", "rank", title_of, "joined"), "rank", str(model), log_y=True, whole=True)
        for model, part in by(rows, "model")
    ]


def densities(measured: Measured) -> list[Panel]:
    """Mean density over seeds, each node a Gaussian as wide as 1 % of the range."""
    panels = []
    for model, part in by(measured["density"], "model"):
        low, high = float(part["node"].min()), float(part["node"].max())
        width = 0.01 * (high - low) or 1e-12
        grid = torch.linspace(low - 3 * width, high + 3 * width, POINTS, dtype=torch.float64)
        lines = []
        for name, own in by(part, "optimizer"):
            every = torch.stack([_quadrature(run).on(grid, width)[0] for _, run in own.groupby("run")])
            lines.append(Line(title_of(name), grid.numpy(), every.mean(0).numpy()))
        peak = max(float(line.y.max()) for line in lines)
        panels.append(Panel(lines, "eigenvalue", str(model), log_y=True, y_limits=(FLOOR * peak, 2 * peak)))
    return panels


def _quadrature(rows: pd.DataFrame) -> curvature.Density:
    paths = [part for _, part in rows.groupby("path")]
    nodes, weights = (tuple(torch.tensor(p[name].to_numpy()) for p in paths) for name in ("node", "weight"))
    return curvature.Density(nodes, weights, 0)


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
    ]  # fmt: skip
    traces = rows[rows["kind"] == "trace"]
    for model, part in by(traces, "model"):
        error = float((part["error"] / part["value"].abs()).max())
        note = f"A single trace has a standard error of at most {error:.1%} of it, from its random vectors."
        trace = Quantity("value", "trace", "spectrum", where={"kind": "trace", "model": model})
        plots.append(Seeds(f"trace_{model}", trace, "optimizer", note, title_of, f"Trace of the Hessian, {model}"))
    return [plot(measured) for plot in plots]


STUDY = Study(
    name="spectrum",
    title="The Hessian at the minima that SGD, SAM and SSAM find",
    source=Source("Stable SAM, Tan, Zhang, Liu, Wang, Hao 2025 (JMLR 26), arXiv 2401.07250, abstract"),
    question="Do SAM and SSAM end in flatter minima than SGD, by the eigenvalues of the Hessian?",
    config=Config,
    paper={
        "data": "cifar10", "models": ("resnet20",), "epochs": 200, "batch_size": 128, "augment": True,
        "examples": 10_000, "count": 5, "steps": 80, "device": "cuda",
    },
    runs=Grid(
        lambda config, lab: {"weights": True}, after=measured_ends, model=C.models, optimizer=C.optimizers,
        seed=C.seeds,
    ),
    claims=claims,
    figures=[draw],
    choices=(
        "The summary at hand says that SSAM finds flatter minima, as Hessian analyses show; networks, data, radii and "
        "numbers are not in it.",
        "The Hessian is that of the mean cross-entropy over train images without augmentation, in evaluation mode and "
        "without the weight decay, at the last weights.",
        "The ascent is normalised, of length rho; --set optimizers=sgd,usam,ssam-u is the paper's own.",
        "Cross-entropy is flat wherever it is small: a method that fits the data further has smaller eigenvalues for "
        "that alone. So the train losses stand beside every verdict, and eigenvalues are also compared for their loss.",
        "Preset paper: ResNet-20 on CIFAR-10, 200 epochs, batches of 128, lr 0.05, momentum 0.9, weight decay 5e-4, "
        "cosine, augmented; the Hessian over 10,000 images. Preset quick: an MLP and a LeNet on scikit-learn's "
        "digits, 500 of them.",
    ),
)  # fmt: skip
