"""The result of a range test for rho: numbers, text and picture."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland.diagnostics.spectra import need

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RISE, TURN, LENGTH, QUIET = "#0072b2", "#d55e00", "#009e73", "#767676"  # told apart with every kind of sight


@dataclass(frozen=True)
class Mean:
    """A mean over batches with its interval (NaN with one batch)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RhoPoint:
    """What the ascent does at one radius; means over batches, each with its own gradient as in training.

    Attributes:
        rho: radius in the ball's norm.
        rise: L(w + e) - L(w) (unit: loss).
        slope: <g, e>, the rise that the gradient alone predicts.
        cosine: of g at w and h at w + e.
        gamma: |g| / |h|.
        finite: share of batches whose loss and gradient at w + e are finite; the means are over these.
    """

    rho: float
    rise: Mean
    slope: float
    cosine: Mean
    gamma: Mean
    finite: float


@dataclass(frozen=True)
class RhoRange:
    """The result of a range test. `print` it, or `plot` it.

    Attributes:
        points: one a radius, ascending.
        proposal: a radius to start from; None where no radius qualifies.
        low: below it the ascent hardly changes the gradient.
        high: above it h points elsewhere than g.
        reason: of the proposal.
        ball: the ball, as text.
        batches: how many were used.
        level: of the intervals.
    """

    points: tuple[RhoPoint, ...]
    proposal: float | None
    low: float | None
    high: float | None
    reason: str
    ball: str
    batches: int
    level: float

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.ball}, {self.batches} batch{'es' * (self.batches != 1)}"]
        lines.append(f"{'rho':>10} {'loss rise':>11} {'predicted':>11} {'cosine':>8} {'gamma':>8}")
        for p in self.points:
            row = f"{p.rho:10.3g} {p.rise.value:11.4g} {p.slope:11.4g} {p.cosine.value:8.4f} {p.gamma.value:8.4g}"
            lines.append(row if p.finite == 1 else f"{row}  ({p.finite:.0%} of the batches finite)")
        given = "none" if self.proposal is None else f"{self.proposal:.2g}"
        return "\n".join([*lines, f"proposal: rho = {given}. {self.reason}"])

    def plot(self, path: str | Path | None = None) -> Figure:
        """The curves against rho, with the proposal; written to `path` where one is given.

        Raises:
            ImportError: matplotlib is missing.
        """
        return _draw(self, path)


def _draw(found: RhoRange, path: str | Path | None) -> Figure:
    """Loss rise above, cosine and gamma below, against rho; bands are confidence intervals over batches."""
    need("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.0, 1.2))
    rhos = [p.rho for p in found.points]
    _curve(upper, rhos, [p.rise for p in found.points], RISE, "measured", "-")
    upper.plot(rhos, [p.slope for p in found.points], color=QUIET, linestyle="--", label="predicted by the gradient")
    upper.set_yscale("log")
    upper.set_ylabel("loss rise  L(w + e) - L(w)")
    _curve(lower, rhos, [p.cosine for p in found.points], TURN, "cosine(g, h)", "-")
    _curve(lower, rhos, [p.gamma for p in found.points], LENGTH, "gamma = |g| / |h|", "-.")
    lower.set_ylabel("no unit")
    lower.set_xlabel(f"rho in the ball {found.ball}")
    lower.set_xscale("log")
    for axes in (upper, lower):
        _mark(axes, found, rhos)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="best")
    count = f"{found.batches} batch{'es' * (found.batches != 1)}"
    title = "no proposal" if found.proposal is None else f"proposal: rho = {found.proposal:.2g}"
    figure.suptitle(f"{title}  ({count}; bands: {found.level:.0%} intervals)", fontsize=11)
    if path is not None:
        figure.savefig(Path(path), dpi=150)
    return figure


def _curve(axes: Any, rhos: list[float], means: list[Mean], color: str, label: str, style: str) -> None:
    axes.plot(rhos, [m.value for m in means], color=color, label=label, linestyle=style, marker=".", markersize=4)
    known = [(rho, m) for rho, m in zip(rhos, means, strict=True) if math.isfinite(m.low)]
    if known:
        ends = [m.low for _, m in known], [m.high for _, m in known]
        axes.fill_between([rho for rho, _ in known], *ends, color=color, alpha=0.15, linewidth=0)


def _mark(axes: Any, found: RhoRange, rhos: list[float]) -> None:
    """The range shaded, the proposal a line."""
    if found.proposal is not None:
        axes.axvspan(found.low or rhos[0], found.high or rhos[-1], color=QUIET, alpha=0.1, linewidth=0)
        axes.axvline(found.proposal, color="black", linewidth=1)
