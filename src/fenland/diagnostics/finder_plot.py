"""The picture of a range test for rho."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland.diagnostics.spectra import need

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fenland.diagnostics.finder import Mean, RhoRange

RISE, TURN, LENGTH, QUIET = "#0072b2", "#d55e00", "#009e73", "#767676"  # told apart with every kind of sight


def draw(found: RhoRange, path: str | Path | None) -> Figure:
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
