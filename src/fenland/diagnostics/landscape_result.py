"""A measured landscape: its file, whole or half done, and its figure."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fenland.arguments import installing

FORMAT = 1
BN_NAMES = {
    "eval": "BN: running statistics",
    "batch": "BN: statistics of each batch",
    "recalibrate": "BN: recalibrated at each point",
    "none": "",
}
# The tones of the lab's figures (Okabe and Ito): text, soft text, grid, line, trajectory.
TEXT, SOFT, GRID, BLUE, ORANGE = "#1d2329", "#56606b", "#d5dae0", "#0072b2", "#d55e00"
STEEP = 20.0  # ratio of largest to smallest loss beyond which a figure's scale is logarithmic


@dataclass(frozen=True, eq=False)
class Landscape:
    """Losses on a line or a plane through weight space.

    Attributes:
        axes: coordinates along each direction, float64, (n,) or (n1,), (n2,), in units of the direction.
        losses: float64, (n,) or (n1, n2); inf or nan where the loss was not finite.
        center: L at the model's own weights; for `between` at the first checkpoint, for `trajectory` at the last.
        kind: "random", "along", "between" or "trajectory".
        labels: of the axes.
        bn: what BN used: "eval", "batch", "recalibrate", or "none" for a model without.
        engine: "vmap" or "loop".
        examples: that each loss is the mean of (with `size`, the sum of the weights).
        path: for a trajectory, coordinates (m, 2) of its checkpoints, else None.
        explained: for a trajectory, the share of its variance along each direction, else None.
    """

    axes: tuple[Tensor, ...]
    losses: Tensor
    center: float
    kind: str
    labels: tuple[str, ...]
    bn: str
    engine: str
    examples: float
    path: Tensor | None = None
    explained: Tensor | None = None

    def save(self, file: str | Path, mark: dict[str, Any] | None = None) -> None:
        """Write it as one file for `torch.load(weights_only=True)`, whole and then renamed.

        Args:
            file: its path.
            mark: what a later call must agree with to take the file as its own.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        write_whole({"format": FORMAT, "mark": mark, **values}, Path(file))

    @classmethod
    def load(cls, file: str | Path) -> Landscape:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is something else, or of a later version.
        """
        values = read(Path(file))
        values.pop("mark", None)
        if "axes" not in values:
            raise ValueError(f"{file}: a landscape that is half done; call the function that began it again")
        return cls(**values)

    def plot(self, path: str | Path | None = None, *, axes: Any = None, title: str | None = None) -> Any:
        """Draw it: a curve, or a map with level lines and the trajectory. Losses that are not finite are gaps.

        Args:
            path: of the figure's file (.png, .pdf, .svg), written whole and then renamed; None writes none.
            axes: matplotlib axes to draw into; None makes a figure.
            title: above the figure; None says what was measured.

        Returns:
            The matplotlib axes.

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            import matplotlib.figure as mpl
        except ImportError as error:
            raise ImportError(f"Landscape.plot() needs matplotlib: {installing('lab')}") from error
        if axes is None:
            axes = mpl.Figure(figsize=(4.6, 3.6 if len(self.axes) == 2 else 3.0), layout="constrained").add_subplot()
        _calm(axes)
        (_plane if len(self.axes) == 2 else _line)(self, axes)
        axes.set_title(self._says() if title is None else title, loc="left", fontsize=10, color=TEXT)
        if path is not None:
            _save_figure(axes.figure, Path(path))
        return axes

    def _says(self) -> str:
        what = {
            "random": "Loss around the weights, random directions",
            "along": "Loss around the weights",
            "between": "Loss between two checkpoints",
            "trajectory": "Loss in the plane of the trajectory",
        }[self.kind]
        gaps = int((~torch.isfinite(self.losses)).sum())
        blank = f"{gaps} of {self.losses.numel()} losses not finite: left blank" if gaps else ""
        return "\n".join(filter(None, (what, BN_NAMES[self.bn], blank)))


def _calm(axes: Any) -> None:
    """A baseline, a light grid, ticks without marks."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)
    axes.tick_params(which="both", length=0, labelcolor=SOFT, labelsize=9)
    axes.set_axisbelow(True)


def _line(seen: Landscape, axes: Any) -> None:
    """Loss over one coordinate; matplotlib leaves gaps at nan."""
    x = seen.axes[0].tolist()
    y = [v if math.isfinite(v) else math.nan for v in seen.losses.tolist()]
    few = {"marker": "o", "markersize": 3.0} if len(x) <= 41 else {}
    axes.plot(x, y, color=BLUE, linewidth=1.8, **few)
    axes.set_xlim(x[0] - 0.02 * (x[-1] - x[0]), x[-1] + 0.02 * (x[-1] - x[0]))  # gaps at the ends show too
    finite = [v for v in y if math.isfinite(v)]
    if finite and min(finite) > 0 and max(finite) / min(finite) > STEEP:
        axes.set_yscale("log")
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_xlabel(seen.labels[0], fontsize=9, color=SOFT)
    axes.set_ylabel("loss", fontsize=9, color=SOFT)


def _plane(seen: Landscape, axes: Any) -> None:
    """Filled levels, their lines, the centre, and the trajectory where there is one."""
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize

    grid = np.ma.masked_invalid(np.array(seen.losses.tolist()).T)
    axes.set_facecolor("#f1f3f5")  # what is left bare by gaps
    axes.set_xlabel(seen.labels[0], fontsize=9, color=SOFT)
    axes.set_ylabel(seen.labels[1], fontsize=9, color=SOFT)
    if grid.count():
        low, high = float(grid.min()), float(grid.max())
        steep = low > 0 and high / low > STEEP
        levels = np.geomspace(low, high, 16) if steep else np.linspace(low, high, 16)
        if high > low:
            x, y = (np.array(a.tolist()) for a in seen.axes)
            norm = LogNorm(low, high) if steep else Normalize(low, high)
            drawn = axes.contourf(x, y, grid, levels=levels, cmap="viridis", norm=norm)
            axes.contour(x, y, grid, levels=levels, colors="white", linewidths=0.4, alpha=0.6)
            bar = axes.figure.colorbar(drawn, ax=axes, format="%.3g", ticks=levels[::3])
            bar.minorticks_off()
            bar.outline.set_visible(False)
            bar.ax.tick_params(length=0, labelcolor=SOFT, labelsize=9)
            bar.set_label("loss", fontsize=9, color=SOFT)
    if seen.path is not None:
        axes.plot(*zip(*seen.path.tolist(), strict=True), color=ORANGE, linewidth=1.6, marker="o", markersize=3.5)
    axes.plot([0], [0], marker="x", color=ORANGE, markersize=7, markeredgewidth=2, linestyle="none")
    axes.set_xlim(float(seen.axes[0].min()), float(seen.axes[0].max()))
    axes.set_ylim(float(seen.axes[1].min()), float(seen.axes[1].max()))


def _save_figure(figure: Any, path: Path) -> None:
    part = path.with_name(f".{path.name}.part{path.suffix}")
    figure.savefig(part, dpi=200)
    os.replace(part, path)


def write_whole(values: dict[str, Any], file: Path) -> None:
    """torch.save, the same bytes for the same values, written whole and then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    held = io.BytesIO()  # a path's name would go into the file
    torch.save(values, held)
    part = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    part.write_bytes(held.getvalue())
    os.replace(part, file)


def read(file: Path) -> dict[str, Any]:
    """What `write_whole` wrote for a Landscape, without its format.

    Raises:
        FileNotFoundError: no such file.
        ValueError: something else.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file")
    try:
        values = torch.load(file, weights_only=True)
    except Exception as error:
        raise ValueError(f"{file}: not a file of a landscape ({type(error).__name__})") from error
    if not isinstance(values, dict) or "losses" not in values:
        raise ValueError(f"{file}: not a file of a landscape")
    if values.pop("format", None) != FORMAT:
        raise ValueError(f"{file}: written by another version of fenland, or not a landscape")
    return values
