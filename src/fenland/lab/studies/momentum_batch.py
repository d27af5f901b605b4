"""Momentum and batch size: escape time from a saddle, and test accuracy of a small network, over one grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, cast

import pandas as pd

from fenland.lab.errors import BadInput
from fenland.lab.figures.plots import Line, Panel
from fenland.lab.replicas.escapes import escapes, median, predicted
from fenland.lab.store.statistics import Interval, interval
from fenland.lab.study import C, Claim, Contrast, Grid, Plot, Quantity, Study
from fenland.lab.study.grid import at_least_two
from fenland.lab.study.parts import OURS, Finding, Lab, Measured, Piece, Source, Statement, Tables, ours
from fenland.lab.study.quantities import gap, statement
from fenland.lab.study.recipes import lines_of

PAPER = Source("Stability Analysis of SAM, arXiv 2301.06308")
MITIGATE = PAPER.at("as a reading of 'mitigate'")
# Methods as they are written.
NAMES = {"SGD": "SGD", "USAM": "SAM (unnormalised)", "SSAM-U": "SSAM (unnormalised)", "SAM": "SAM (normalised)",
         "SSAM": "SSAM (normalised)"}  # fmt: skip
TRAINED = ("sgd", "sam", "ssam")
READINGS = SAME, EFFECTIVE = "same lr", "same lr/(1 - momentum)"
CLOSE = 0.10  # a median within this share of the theory agrees with it: the first visit is a little earlier
accuracy = Quantity("test_accuracy", table="trained", scale=100, form=".2f")


@dataclass(frozen=True)
class Config:
    """What is run."""

    strength: float = 1.0  # m of the saddle, eigenvalues +m and -m (loss / w^2)
    std: float = 1.0  # of one sample's gradient noise (loss / w)
    lr: float = 0.02  # of the steps at the saddle
    rho: float = 0.5  # of the unnormalised ascent, rho * strength < 1
    radius: float = 0.1  # of the normalised ascent
    out: float = 1.0  # |w| along the descending direction that counts as escaped
    paths: int = 200  # from the saddle, a cell of the grid
    steps: int = 800  # after which a path counts as not escaped
    momenta: tuple[float, ...] = (0.0, 0.5, 0.9)  # of both parts
    batches: tuple[int, ...] = (1, 4, 16, 64)  # at the saddle
    data: str = "digits"  # that the network is trained on
    model: str = "mlp"  # the network
    train_rho: float = 0.05  # radius of SAM and SSAM in training
    train_lr: float = 0.02  # learning rate in training, constant; in the other reading that of the largest momentum
    train_momenta: tuple[float, ...] = (0.0, 0.9)  # of the trained grid
    train_batches: tuple[int, ...] = (16, 128)  # of the trained grid
    epochs: int = 10  # of training
    seeds: tuple[int, ...] = (0, 1, 2)  # of training
    seed: int = 0  # of the noise at the saddle

    def __post_init__(self) -> None:
        if not 0 < self.rho * self.strength < 1:
            raise BadInput("rho", self.rho, "give 0 < rho * strength < 1: beyond, the saddle holds SAM at any momentum")
        for name in ("momenta", "train_momenta", "batches", "train_batches"):
            at_least_two(name, getattr(self, name))


def settings(config: Config, method: str, reading: str, momentum: float) -> dict[str, Any]:
    """Of the paths of a method from the saddle."""
    rho = 0.0 if method == "SGD" else config.rho if method in ("USAM", "SSAM-U") else config.radius
    lr = config.lr * (1.0 if reading == SAME else 1 - momentum)
    return {
        "rho": rho, "lr": lr, "momentum": momentum, "strength": config.strength, "std": config.std,
        "radius": config.out, "paths": config.paths, "steps": config.steps, "seed": config.seed,
    }  # fmt: skip


def case(config: Config, lab: Lab, reading: str, optimizer: str, momentum: float) -> Mapping[str, Any]:
    """What is trained in one reading; the largest momentum is the same in both."""
    top = max(config.train_momenta)
    longer = 1.0 if reading == SAME else round((1 - momentum) / (1 - top), 9)
    return {
        "optimizer": optimizer, "rho": config.train_rho, "lr": config.train_lr * longer, "momentum": momentum,
        "weight_decay": 0.0, "schedule": "constant",
    }  # fmt: skip


GRID = Grid(
    case, reading=READINGS, optimizer=TRAINED, momentum=C.train_momenta, batch_size=C.train_batches, seed=C.seeds
)


def measure(config: Config, lab: Lab) -> Tables:
    """Escape times of every path, their medians beside theory, and one row a trained run."""
    jobs = list(product(NAMES, READINGS, config.momenta))
    plans = [{"method": job[0], "batches": config.batches, **settings(config, *job)} for job in jobs]
    pieces = [Piece("escapes", plan, partial(escapes, **plan)) for plan in plans]
    parts = [
        part.assign(method=method, reading=reading, momentum=momentum)
        for (method, reading, momentum), part in zip(jobs, lab.keep_all(pieces, "escapes"), strict=True)
    ]
    steps = pd.concat(parts, ignore_index=True)
    return {"escapes": steps, "medians": medians(steps, config), "trained": GRID(config, lab)["runs"]}


def medians(steps: pd.DataFrame, config: Config) -> pd.DataFrame:
    """One row a cell: ``method, reading, momentum, batch, median, low, high, escaped, theory``."""
    rows, cell = [], ["method", "reading", "momentum", "batch"]
    for key, part in steps.groupby(cell, sort=False):
        method, reading, momentum, batch = cast("tuple[str, str, float, int]", key)
        s = settings(config, method, reading, momentum)
        theory = predicted(method, s["rho"], s["lr"], momentum, batch, config.strength, config.std, config.out)
        rows.append([*key, *median(part["step"]), part["step"].notna().mean(), theory])
    return pd.DataFrame(rows, columns=[*cell, "median", "low", "high", "escaped", "theory"])


def cells(measured: Measured, method: str, reading: str = SAME) -> pd.DataFrame:
    """The medians of a method, by momentum and batch."""
    rows = measured["medians"]
    rows = rows[(rows["method"] == method) & (rows["reading"] == reading)]
    return rows.set_index(["momentum", "batch"]).sort_index()


def claims(measured: Measured) -> Iterator[Claim]:
    """Of the saddle first, then of the trained network."""
    whose = {"USAM": PAPER, "SAM": PAPER, "SSAM-U": OURS}
    for method, source in whose.items():
        note = "Median steps at the same lr, intervals by order statistics."
        sentence = f"Momentum speeds the escape of {NAMES[method]} from a saddle."
        yield Claim(sentence, source, faster(method, "momentum"), "escape", notes=(note,))
    yield Claim(
        "Momentum speeds the escape beyond what its larger effective step lr/(1 - momentum) does.",
        Source("ours, to weigh the claim above", ours=True), effective, "effective", notes=(
            "Methods SGD, SAM (both ascents) and SSAM. A ratio of about 1 or more says that the gain is the step's "
            "length.",
        ),
    )  # fmt: skip
    for method, source in whose.items():
        note = "Steps, not samples: a step of the larger batch also costs more."
        sentence = f"Small batches speed the escape of {NAMES[method]} from a saddle."
        yield Claim(sentence, source, faster(method, "batch"), "escape", notes=(note,))
    yield Claim(
        "SGD escapes first, then SSAM, then SAM, whatever momentum and batch size are.",
        Source(f"SSAM's place: ours; SAM after SGD: {PAPER}"), order, "escape",
        notes=("The normalised ascent of one radius: small batches drown it in noise, and it comes near SGD.",),
    )  # fmt: skip
    for method in ("USAM", "SAM"):
        note = "Per batch size. With much momentum inertia bounds the growth, and holds back the faster one, SGD, more."
        yield Claim(
            f"Momentum closes the gap between {NAMES[method]} and SGD at a saddle: it mitigates SAM's own instability.",
            MITIGATE, closes(method), "escape", notes=(note,),
        )  # fmt: skip
    yield Claim(
        "The closed form with momentum predicts the median escape time of SGD and unnormalised SAM.",
        ours("fenland.theory.diffusion.displacement"), theory, "escape", notes=(
            "Half of the paths lie beyond the radius when 0.674 standard deviations reach it; single steps count at "
            "high momentum.",
        ),
    )  # fmt: skip
    yield from _of_training(measured)


def _of_training(measured: Measured) -> Iterator[Claim]:
    table = measured["trained"]
    top, bottom = (f(table["momentum"]) for f in (max, min))
    small, large = (f(table["batch_size"]) for f in (min, max))
    failed = table[table["status"] != "finished"].groupby("reading").size().to_dict()
    lost = {each: f"{failed[each]} runs diverged and are left out." if each in failed else "" for each in READINGS}
    scale = f"Paired over {table['seed'].nunique()} seeds, mean over the rest of the grid."
    longer = "Momentum also multiplies the step, which a short training rewards: see the other reading."
    for reading in READINGS:
        notes = (scale, lost[reading], longer if reading == SAME else "")
        yield Claim(
            f"A network trained by SAM generalises better with momentum ({reading}).", PAPER,
            better(reading, "momentum", top, bottom), "accuracy",
            expected=f"test accuracy higher with momentum {top:g} than with {bottom:g}", notes=notes,
        )  # fmt: skip
    for reading in READINGS:
        also = (scale, lost[reading], "Equal epochs: small batches take more steps.", longer if reading == SAME else "")
        yield Claim(
            f"A network trained by SAM generalises better with small batches ({reading}).", PAPER,
            better(reading, "batch_size", small, large), "accuracy",
            expected=f"test accuracy higher with B = {small} than with B = {large}", notes=also,
        )  # fmt: skip

    def more(measured: Measured) -> dict[str, Interval]:
        wide = done(measured, SAME).pivot_table(index="seed", columns=["optimizer", "momentum"], values="value")
        gain = {name: wide[(name, top)] - wide[(name, bottom)] for name in ("sam", "sgd")}
        return {"": interval(gain["sam"] - gain["sgd"])}

    yield Claim(
        "Momentum helps SAM's accuracy more than SGD's.", MITIGATE,
        Contrast(more, "{value} points more", ".2f") > 0, "accuracy",
        expected="the gain by momentum is larger for SAM", notes=(scale, lost[SAME]),
    )  # fmt: skip


def _steps(row: pd.Series) -> str:
    return f"{row['median']:.0f} [{row['low']:.0f}, {row['high']:.0f}]"


@statement
def faster(measured: Measured, method: str, axis: str) -> Finding:
    """The largest momentum against the least at each batch size, or the smallest batch against the largest."""
    table = cells(measured, method)
    momenta, batches = (sorted(table.index.get_level_values(k).unique()) for k in (0, 1))
    if axis == "momentum":
        pairs = {f"B = {b}": (table.loc[(momenta[-1], b)], table.loc[(momenta[0], b)]) for b in batches}
        words = "; ".join(f"{at}: {_steps(slow)} to {_steps(fast)}" for at, (fast, slow) in pairs.items())
        said = f"fewer steps with momentum {momenta[-1]:g} than with {momenta[0]:g}, at every batch size"
    else:
        pairs = {f"momentum {m:g}": (table.loc[(m, batches[0])], table.loc[(m, batches[-1])]) for m in momenta}
        words = "; ".join(f"{at}: {_steps(fast)} against {_steps(slow)}" for at, (fast, slow) in pairs.items())
        said = f"fewer steps with B = {batches[0]} than with B = {batches[-1]}, at every momentum"
    return Finding(said, words, all(fast["high"] < slow["low"] for fast, slow in pairs.values()))


def effective(measured: Measured) -> Finding:
    """The largest momentum against none at the same lr/(1 - momentum)."""
    ratios, gains = [], []
    for method in ("SGD", "USAM", "SAM", "SSAM-U"):
        table = cells(measured, method, EFFECTIVE)
        momenta, batches = (sorted(table.index.get_level_values(k).unique()) for k in (0, 1))
        for batch in batches:
            without, with_it = table.loc[(momenta[0], batch)], table.loc[(momenta[-1], batch)]
            ratios.append(with_it["median"] / without["median"])
            gains.append(with_it["high"] < without["low"])
    return Finding(
        "fewer steps with momentum at the same lr/(1 - momentum)",
        f"{min(ratios):.2f} to {max(ratios):.2f} times as many steps with the largest momentum as without", all(gains),
    )  # fmt: skip


def order(measured: Measured) -> Finding:
    """SGD, SSAM, SAM in every cell, for both ascents."""
    found = {method: cells(measured, method)["median"] for method in NAMES}
    ratios = {m: (found[m] / found["SGD"]).agg(["min", "max"]) for m in NAMES if m != "SGD"}
    shown = ("USAM", "SSAM-U", "SAM", "SSAM")
    holds = all(
        (found["SGD"] <= found[ssam]).all() and (found[ssam] <= found[sam]).all()
        for ssam, sam in (("SSAM-U", "USAM"), ("SSAM", "SAM"))
    )
    words = "; ".join(f"{NAMES[m]}: {ratios[m]['min']:.2f} to {ratios[m]['max']:.2f} times SGD's" for m in shown)
    return Finding("medians in this order in every cell, for both ascents", words, holds)


@statement
def closes(measured: Measured, method: str) -> Finding:
    """Steps relative to SGD's with and without momentum."""
    ratio = cells(measured, method)["median"] / cells(measured, "SGD")["median"]
    momenta = ratio.index.get_level_values(0)
    without, with_it = ratio.loc[momenta.min()], ratio.loc[momenta.max()]
    return Finding(
        f"steps relative to SGD's at least a tenth fewer with momentum {momenta.max():g}, at every batch size",
        f"{without.min():.2f} to {without.max():.2f} times SGD's without, {with_it.min():.2f} to "
        f"{with_it.max():.2f} with",
        bool((with_it <= 0.9 * without).all()),
    )


def theory(measured: Measured) -> Finding:
    """Medians against the closed form."""
    rows = measured["medians"]
    rows = rows[rows["theory"].notna() & rows["median"].map(math.isfinite)]
    away = (rows["median"] / rows["theory"] - 1).abs()
    return Finding(
        f"within {CLOSE:.0%} at every momentum, batch size and reading",
        f"at most {away.max():.1%} away in {len(rows)} cells" if len(rows) else "no cell",
        bool((away <= CLOSE).all()) if len(rows) else None,
    )


def done(measured: Measured, reading: str) -> pd.DataFrame:
    """The trained runs of a reading that finished."""
    rows = accuracy.at(reading=reading).rows(measured)
    return rows[rows["status"] == "finished"]


def better(reading: str, axis: str, ours: float, theirs: float) -> Statement:
    """Accuracy of SAM at one value of an axis less that at another; the others stand beside."""

    def measure(measured: Measured, names: Sequence[str]) -> dict[str, Interval]:
        rows = done(measured, reading)
        return {name.upper(): gap(rows[rows["optimizer"] == name], axis, ours, theirs) for name in names}

    def judge(measured: Measured) -> Finding:
        words = Contrast(lambda m: measure(m, ("sam", "sgd", "ssam")), "{key}: {value} points", ".2f")
        found = (Contrast(lambda m: measure(m, ("sam",))) > 0)(measured)
        return Finding(found.expected, words.said(words.measure(measured)), found.holds, open=found.open)

    return judge


def escape_by_batch(reading: str) -> Any:
    """Median steps by batch size, a panel a momentum; points on the closed form where there is one."""

    def panels(measured: Measured) -> list[Panel]:
        rows, found = measured["medians"], []
        for momentum, part in rows[rows["reading"] == reading].groupby("momentum"):
            lines = []
            for method, row in part.groupby("method", sort=False):
                label, known = NAMES[str(method)], row["theory"].notna().all()
                lines += [Line(label, row["batch"], row["theory"], kind="theory")] if known else []
                kind: Any = "dots" if known else "joined"
                lines.append(Line(label, row["batch"], row["median"], row["low"], row["high"], kind))
            found.append(Panel(lines, "batch size B", f"momentum {momentum:g}", log_x=True))
        return found

    return panels


def accuracies(measured: Measured) -> list[Panel]:
    """By momentum, a panel a batch size and reading."""
    rows = pd.concat([done(measured, reading) for reading in READINGS])
    return [
        Panel(lines_of(part, "optimizer", "momentum", kind="joined"), "momentum", f"B = {batch}, {reading}")
        for (reading, batch), part in rows.groupby(["reading", "batch_size"], sort=False)
    ]


ESCAPE_WORDS = (
    "Points are medians over paths with 95 % intervals; the thin lines of SGD and unnormalised SAM are the closed form "
    "with momentum. Every path starts on the saddle."
)
STUDY = Study(
    name="momentum-batch",
    title="Momentum and batch size against SAM's slow escape",
    source=Source("Stability Analysis of Sharpness-Aware Minimization, 2023, arXiv 2301.06308"),
    question="Do momentum and small batches speed SAM's escape from a saddle, and does a small network trained with "
    "them generalise better?",
    config=Config,
    paper={
        "paths": 2000, "steps": 10_000, "momenta": (0.0, 0.3, 0.6, 0.9, 0.95), "batches": (1, 4, 16, 64, 256),
        "epochs": 40, "train_momenta": (0.0, 0.5, 0.9), "train_batches": (16, 64, 256), "seeds": tuple(range(10)),
    },
    runs=measure,
    claims=claims,
    figures=[
        Plot("escape", "Median steps to escape, same lr", escape_by_batch(SAME), ESCAPE_WORDS, tuple(NAMES.values())),
        Plot(
            "effective", "Median steps to escape, same lr / (1 − momentum)", escape_by_batch(EFFECTIVE), ESCAPE_WORDS,
            tuple(NAMES.values()),
        ),
        Plot(
            "accuracy", "Test accuracy, %, by momentum and batch size", accuracies, "Means over seeds at the last "
            "epoch, bands are 95 % intervals. Equal epochs, constant learning rate.", TRAINED,
        ),
    ],
    choices=(
        "At the saddle every path starts on it, exactly; noise is normal with standard "
        "deviation std / sqrt(B), one draw in both passes; escape is |y| >= out.",
        "Momentum at the same lr also multiplies the step by 1/(1 - momentum). The other reading, the same "
        "lr/(1 - momentum), is run beside it, at the saddle and in training.",
        "Training: an MLP on scikit-learn's digits, constant learning rate, no weight decay, equal epochs: small "
        "batches take more steps. It says what these settings do on a small task, not on the paper's benchmarks.",
    ),
    beside=(),
)  # fmt: skip
