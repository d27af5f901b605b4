"""The pictures of the five choices, made by the engine itself: python docs/figures.py [FOLDER].

Every arrow is a difference of weights that a closure saw: at w, at w + e, and after the step. Nothing is drawn from a
formula. Each picture is written twice, for light and for dark pages.
"""

from __future__ import annotations

import io
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import fenland
from fenland.lab.figures.style import DARK, PAPER, RC, Canvas, Ink, blank, head, name_x
from fenland.lab.replicas import Beale

HERE = Path(__file__).parent
INKS = {"light": PAPER, "dark": Ink("#e6e9ed", "#a9b3bd", "#3a434d", "#1e2129", DARK)}
Loss = Callable[[Tensor], Tensor]
Seen = list[tuple[float, float]]


def valley(w: Tensor) -> Tensor:
    """A curved valley: its gradient turns between w and w + e."""
    x, y = w
    return 0.5 * (y - 0.4 * x * x) ** 2 * 3 + 0.15 * (x - 1.5) ** 2


def beale(w: Tensor) -> Tensor:
    """Beale's function, as the lab has it."""
    return Beale().value([w[0].reshape(1), w[1].reshape(1)])[0]


def seen_by(opt: fenland.SharpnessAware, w: Tensor, loss: Loss) -> Seen:
    """One step; the weights at each call of the closure."""
    seen: Seen = []

    def closure() -> Tensor:
        seen.append(point(w))
        opt.zero_grad()
        value = loss(w)
        value.backward()
        return value

    opt.step(closure)
    return seen


def point(w: Tensor) -> tuple[float, float]:
    """Two numbers."""
    x, y = w.detach().tolist()
    return x, y


def weights(x: float, y: float) -> torch.nn.Parameter:
    """A point that trains."""
    return torch.nn.Parameter(torch.tensor([x, y], dtype=torch.float64))


def still(w: torch.nn.Parameter, momentum: float = 0.0) -> torch.optim.SGD:
    """A base that stays where it is."""
    return torch.optim.SGD([w], lr=0.0, momentum=momentum)


def sources(canvas: Canvas) -> Figure:
    """Twelve noisy gradients at one point, and where each source climbs to on the last."""
    kinds: dict[str, fenland.Method] = {
        "gradient": fenland.Ascend(),
        "momentum of the base": fenland.BaseMomentum(),
        "moving average": fenland.Ascend(fenland.ExponentialAverage(theta=0.2)),
        "gradient minus average": fenland.Ascend(fenland.Friendly()),
        "random": fenland.AtRandomPoint(seed=3),
        "three inner steps": fenland.InnerSteps(3),
    }
    figure, axes = _plane(canvas, tuple(kinds))
    noise = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for label, method in kinds.items():
        w = weights(-0.6, 1.0)
        opt = fenland.SharpnessAware(still(w, momentum=0.9), rho=0.35, method=method)
        for step in noise:
            seen = seen_by(opt, w, lambda w, step=step: valley(w) + 0.8 * (step @ w))
        _arrow(axes, canvas, label, (-0.6, 1.0), seen[-1])
    _contours(axes, canvas, valley, (-1.25, 0.05), (0.45, 1.5))
    return figure


def balls(canvas: Canvas) -> Figure:
    """The perturbations for gradients of every direction trace the ball; an arrow shows one gradient's."""
    kinds = {
        "L2 (SAM)": (fenland.L2(), 1.0),
        "Lp, p = 4": (fenland.Lp(4.0), 1.0),
        "Lp, p = 1.25": (fenland.Lp(1.25), 1.0),
        "adaptive (ASAM), w = (1.5, 0.4)": (fenland.Adaptive(eta=0.01), 1.0),
    }
    figure, axes = _plane(canvas, tuple(kinds))
    for label, (ball, rho) in kinds.items():
        turn = [perturbation(ball, rho, 2 * math.pi * k / 240) for k in range(241)]
        axes.plot(*zip(*turn, strict=True), linewidth=1.6, **canvas.look(label))
        _arrow(axes, canvas, label, (0, 0), perturbation(ball, rho, 0.9))
    axes.plot([0, 0.55 * math.cos(0.9)], [0, 0.55 * math.sin(0.9)], color=canvas.ink.text, linewidth=3, alpha=0.35)
    axes.set_xlim(-1.65, 1.65)
    axes.set_ylim(-1.15, 1.15)
    return figure


def perturbation(ball: fenland.Ball, rho: float, angle: float) -> tuple[float, float]:
    """e for a gradient of this direction, at w = (1.5, 0.4)."""
    w = weights(1.5, 0.4)
    slope = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    here, there = seen_by(fenland.SharpnessAware(still(w), rho=rho, ball=ball), w, lambda w: slope @ w)
    return there[0] - here[0], there[1] - here[1]


def combines(canvas: Canvas) -> Figure:
    """What the base gets: minus the step that SGD with learning rate 1 makes."""
    kinds: dict[str, fenland.Method] = {
        "h (SAM)": fenland.Ascend(),
        "renormalised (SSAM)": fenland.Renormalize(),
        "surrogate gap (GSAM)": fenland.Ascend(combine=fenland.SurrogateGap(alpha=0.6)),
        "penalty (GNP)": fenland.Ascend(combine=fenland.Penalty(alpha=0.5)),
        "weighted (WSAM, coupled)": fenland.Ascend(combine=fenland.Weighted(gamma=0.6)),
        "g (no ascent)": fenland.Ascend(),
    }
    figure, axes = _plane(canvas, tuple(kinds))
    for label, method in kinds.items():
        w = weights(-0.75, 0.4)
        rho = 0.0 if label.startswith("g ") else 0.45
        base = torch.optim.SGD([w], lr=1.0)
        (before, *_), after = seen_by(fenland.SharpnessAware(base, rho=rho, method=method), w, valley), point(w)
        _arrow(axes, canvas, label, (0, 0), (before[0] - after[0], before[1] - after[1]))
    axes.margins(0.18)
    return figure


def whens(canvas: Canvas) -> Figure:
    """Which of 40 steps call the closure twice."""
    kinds = {
        "Always()": fenland.Always(),
        "EveryK(5)": fenland.EveryK(5),
        "WithProbability(0.5)": fenland.WithProbability(0.5),
        "Window(10, 20)": fenland.Window(10, 20),
        "AdaptiveToNorm(40)": fenland.AdaptiveToNorm(40),
    }
    figure, axes = blank(canvas, 165)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40, 2, dtype=torch.float64, generator=generator)
    for row, (label, when) in enumerate(kinds.items()):
        w = weights(-0.6, 1.0)
        opt = fenland.SharpnessAware(torch.optim.SGD([w], lr=0.02), rho=0.05, when=when)
        calls = [len(seen_by(opt, w, lambda w, step=step: valley(w) + 0.5 * (step @ w))) for step in noise]
        once, twice = ([k for k, n in enumerate(calls) if n == wanted] for wanted in (1, 2))
        axes.plot(once, [row] * len(once), ".", markersize=2.5, color=canvas.ink.soft)
        axes.plot(twice, [row] * len(twice), "o", markersize=4.5, color=canvas.look(label)["color"])
    axes.set_yticks(range(len(kinds)), list(kinds))
    axes.set_ylim(len(kinds) - 0.5, -0.5)
    axes.grid(visible=False)
    name_x(axes, canvas, "step")
    return figure


def bases(canvas: Canvas) -> Figure:
    """One method, three bases, on Beale's function."""
    kinds: dict[str, Callable[[torch.nn.Parameter], torch.optim.Optimizer]] = {
        "SGD": lambda w: torch.optim.SGD([w], lr=0.01),
        "SGD, momentum 0.6": lambda w: torch.optim.SGD([w], lr=0.004, momentum=0.6),
        "Adam": lambda w: torch.optim.Adam([w], lr=0.05),
    }
    figure, axes = _plane(canvas, tuple(kinds), equal=False)
    for label, base in kinds.items():
        w = weights(1.0, 1.6)
        opt = fenland.SSAM(base(w), rho=0.05)
        way = [seen_by(opt, w, beale)[0] for _ in range(300)]
        axes.plot(*zip(*way, strict=True), linewidth=1.5, **canvas.look(label))
    axes.plot(1.0, 1.6, "o", color=canvas.ink.text, markersize=4)
    axes.plot(3.0, 0.5, "*", color=canvas.ink.text, markersize=9)
    _contours(axes, canvas, beale, (-0.2, 3.6), (-0.6, 1.8))
    return figure


def _plane(canvas: Canvas, labels: tuple[str, ...], equal: bool = True) -> tuple[Figure, Axes]:
    canvas = Canvas(canvas.ink, labels)
    figure, axes = blank(canvas, 250)
    axes.grid(visible=False)
    if equal:
        axes.set_aspect("equal", adjustable="box")
    head(axes, canvas, "", labels)
    return figure, axes


def _arrow(axes: Axes, canvas: Canvas, label: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    look = canvas.look(label)
    shape = {"arrowstyle": "-|>", "linewidth": 1.7, "shrinkA": 0, "shrinkB": 0, **look}
    axes.annotate("", xy=end, xytext=start, arrowprops=shape)
    axes.plot(*zip(start, end, strict=True), alpha=0)  # for the limits


def _contours(axes: Axes, canvas: Canvas, loss: Loss, xs: tuple[float, float], ys: tuple[float, float]) -> None:
    x, y = torch.linspace(*xs, 90, dtype=torch.float64), torch.linspace(*ys, 90, dtype=torch.float64)
    values = torch.stack([torch.stack([loss(torch.stack([a, b])) for a in x]) for b in y])
    levels = torch.linspace(float(values.log1p().min()), float(values.log1p().max()), 14)
    axes.contour(x, y, values.log1p(), levels=levels.tolist(), colors=canvas.ink.line, linewidths=0.8, zorder=0)
    axes.set_xlim(*xs)
    axes.set_ylim(*ys)


LABELS = {
    "sources": ("gradient", "momentum of the base", "moving average", "gradient minus average", "random",
                "three inner steps"),
    "balls": ("L2 (SAM)", "Lp, p = 4", "Lp, p = 1.25", "adaptive (ASAM), w = (1.5, 0.4)"),
    "combines": ("h (SAM)", "renormalised (SSAM)", "surrogate gap (GSAM)", "penalty (GNP)",
                 "weighted (WSAM, coupled)", "g (no ascent)"),
    "whens": ("Always()", "EveryK(5)", "WithProbability(0.5)", "Window(10, 20)", "AdaptiveToNorm(40)"),
    "bases": ("SGD", "SGD, momentum 0.6", "Adam"),
}  # fmt: skip
FIGURES = {"sources": sources, "balls": balls, "combines": combines, "whens": whens, "bases": bases}


def draw(name: str, theme: str) -> str:
    """One picture as SVG, the same text each time."""
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}):
        figure = FIGURES[name](Canvas(INKS[theme], LABELS[name]))
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return re.sub(r"[ \t]+$", "", text.getvalue(), flags=re.M)


def main(folder: Path) -> None:
    """Write all of them, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        for theme in INKS:
            path = folder / f"{name}-{theme}.svg"
            partial = path.with_name(f".{path.name}.partial")
            partial.write_text(draw(name, theme), encoding="utf-8")
            partial.replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "images" / "choices")
