"""The Hessian of the loss over a data set: extreme eigenvalues, trace, density, layer by layer.

Every number comes with its uncertainty: an eigenvalue with its residual, a trace with its standard error. The call
style is that of training, `loss_fn(model, batch)`; model, buffers, gradients and random generators are as before.

>>> found = curvature.extreme_eigenvalues(model, lambda m, b: F.cross_entropy(m(b[0]), b[1]), batches)
>>> found.largest[0].value, found.smallest[0].value
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fenland.arguments import check_among, check_number, check_positive, check_seed, check_whole
from fenland.diagnostics import lanczos, spectra
from fenland.diagnostics.chosen import Chosen
from fenland.diagnostics.flat import length
from fenland.diagnostics.hessian import Hessian, Hvp
from fenland.diagnostics.objective import LossFn, Mode, Objective

ROUNDING = 10  # rounding errors of the largest eigenvalue that a residual may have beside `tol`
Which = Literal["both", "largest", "smallest"]


@dataclass(frozen=True)
class Eigenpair:
    """One eigenvalue of the Hessian.

    Attributes:
        value: l = <v, Hv> (unit: loss / w^2), with its sign.
        residual: ||Hv - l*v||; an eigenvalue lies within it of `value`.
        error: how far the products themselves are off, with hvp="difference" (unit of value); None where exact.
        vector: v with |v| = 1, one tensor a parameter by name; None unless asked for.
    """

    value: float
    residual: float
    error: float | None = None
    vector: dict[str, Tensor] | None = field(default=None, repr=False)

    @property
    def off(self) -> float:
        """The residual, and what the products may add to it."""
        return self.residual + (self.error or 0.0)

    def as_dict(self) -> dict[str, Any]:
        """The numbers, without the vector."""
        return {"value": self.value, "residual": self.residual, "error": self.error}


@dataclass(frozen=True)
class Extremes:
    """The ends of the spectrum.

    Attributes:
        largest: the algebraically largest eigenvalues, the largest first.
        smallest: the algebraically smallest, the smallest first.
        converged: whether each residual, with hvp="difference" plus the error of the products, met `tol`; False where
            the exact products were seen to be cut, since these are pairs of another operator.
        products: Hessian-vector products that it took.
        loss: L at these weights, where the products computed it.
    """

    largest: tuple[Eigenpair, ...]
    smallest: tuple[Eigenpair, ...]
    converged: bool
    products: int
    loss: float | None

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {
            "largest": [pair.as_dict() for pair in self.largest],
            "smallest": [pair.as_dict() for pair in self.smallest],
            "converged": self.converged,
            "products": self.products,
            "loss": self.loss,
        }


@dataclass(frozen=True)
class Trace:
    """The trace of the Hessian.

    Attributes:
        value: sum of all eigenvalues (unit: loss / w^2).
        standard_error: of the estimate, over its random draws.
        parameters: number of eigenvalues, so that value / parameters is their mean.
        products: Hessian-vector products that it took.
    """

    value: float
    standard_error: float
    parameters: int
    products: int


@dataclass(frozen=True)
class Density:
    """The density of the eigenvalues, as quadrature nodes and weights.

    Attributes:
        nodes: one tensor of eigenvalue estimates a draw (unit: loss / w^2).
        weights: their shares, which sum to 1 in each draw.
        products: Hessian-vector products that it took.
    """

    nodes: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    products: int

    def on(self, grid: Tensor, width: float | None = None) -> tuple[Tensor, Tensor]:
        """Density on `grid`, each node a Gaussian of standard deviation `width`, and its standard error over the draws.

        Args:
            grid: shape (G,), unit loss / w^2.
            width: None takes 1 % of the range of the nodes.

        Returns:
            Two tensors of shape (G,), unit w^2 / loss; the error is NaN with a single draw.
        """
        check_positive("width", width, "1 % of the range of the nodes")
        every = torch.cat(self.nodes)
        width = width or max(0.01 * float(every.max() - every.min()), 1e-12)
        rows = []
        for nodes, weights in zip(self.nodes, self.weights, strict=True):
            bumps = torch.exp(-0.5 * ((grid.double()[:, None] - nodes) / width) ** 2) / (width * (2 * torch.pi) ** 0.5)
            rows.append(bumps @ weights)
        stacked = torch.stack(rows)
        error = stacked.std(0) / len(rows) ** 0.5 if len(rows) > 1 else torch.full_like(stacked[0], torch.nan)
        return stacked.mean(0), error

    def share_below(self, value: float) -> float:
        """Share of eigenvalues below `value`, from 0 to 1."""
        below = [float(w[x < value].sum()) for x, w in zip(self.nodes, self.weights, strict=True)]
        return sum(below) / len(below)


def extreme_eigenvalues(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    *,
    k: int = 1,
    which: Which = "both",
    tol: float = 1e-3,
    max_products: int = 1000,
    vectors: bool = False,
    mode: Mode = "eval",
    parameters: Chosen = None,
    dtype: torch.dtype | None = None,
    hvp: Hvp = "autograd",
    step: float | None = None,
    size: Callable[[Any], float] | None = None,
    seed: int = 0,
) -> Extremes:
    """The k algebraically largest and smallest eigenvalues of the Hessian, each with its residual.

    Lanczos with full reorthogonalisation on products with the Hessian of the mean loss over all batches; what has not
    converged after 64 steps goes to SciPy's implicitly restarted Lanczos (`eigsh`). It holds up to 64 + 4*k vectors as
    long as the parameters, fewer where they would take over 2 GiB (never below 20 + 4*k), and the graph of one batch.

    Args:
        model: see `Objective`.
        loss_fn: see `Objective`.
        batches: see `Objective`.
        k: eigenvalues at each end; one of several eigenvectors counts as often as it has. With k > 1 further products
            look for those, until `max_products`.
        which: "both", "largest" or "smallest".
        tol: bound on the residual as a share of the eigenvalue (of 1 % of the largest |eigenvalue| where it is smaller
            than that). The eigenvalue's own error is far smaller, about residual^2 over the gap to the next. Much below
            1e-4 float32 products do not reach; use dtype.
        max_products: Hessian-vector products after which it stops, within a restart; the result then says so.
        vectors: keep the eigenvectors.
        mode: "eval", "train" or "keep"; in "train" dropout masks are the same in every pass.
        parameters: see `Objective`.
        dtype: `torch.float64` computes on a copy of the model in double precision.
        hvp: "autograd" (exact) or "difference" for models that cannot be differentiated twice.
        step: of "difference", see `Hessian`.
        size: see `Objective`.
        seed: of the starting vector.

    Raises:
        TypeError: an argument of the wrong kind, such as a one-shot generator of batches.
        ValueError: an argument out of range, no batch, or a loss that is not finite.
        RuntimeError: the model cannot be differentiated twice.
        ImportError: SciPy is missing.
    """
    check_whole("k", k, 1)
    check_among("which", which, ("both", "largest", "smallest"))
    check_number("tol", tol, low=0.0)
    check_whole("max_products", max_products, 1)
    check_seed(seed)
    with Objective(model, loss_fn, batches, mode=mode, parameters=parameters, dtype=dtype, size=size) as objective:
        return of(Hessian(objective, hvp, step), k, which, tol, max_products, vectors, seed)


def of(
    hessian: Hessian,
    k: int = 1,
    which: Which = "both",
    tol: float = 1e-3,
    max_products: int = 1000,
    vectors: bool = False,
    seed: int = 0,
) -> Extremes:
    """`extreme_eigenvalues` of a Hessian whose objective is entered already; arguments as there.

    Raises:
        ValueError: k is too large for the number of parameters.
    """
    if k > hessian.size:
        raise ValueError(f"k = {k}: the chosen parameters have {hessian.size} numbers, so no more eigenvalues")
    low, high = (0 if which == "largest" else k), (0 if which == "smallest" else k)
    # Products that are off themselves get their half of what is allowed.
    own = tol if hessian.hvp == "autograd" else tol / 2
    ends = lanczos.ends(hessian, low, high, own, max_products, seed)
    found = [*ends.low, *ends.high]
    blocks = [found[i : i + spectra.BLOCK] for i in range(0, len(found), spectra.BLOCK)]
    products = [x for block in blocks for x in hessian.matvecs(block)]
    pairs = [_pair(hessian, v, x, vectors) for v, x in zip(found, products, strict=True)]
    rounding = ROUNDING * torch.finfo(hessian.dtype).eps * ends.scale
    short = [pair for pair in pairs if pair.off > ends.bound(pair.value, tol) + rounding]
    if short:
        worst = max(short, key=lambda pair: pair.off)
        said = f"eigenvalues did not reach tol = {tol:g}: {worst.value:.4g} is exact to {worst.off:.2g} only"
        warnings.warn(f"{said}; {_more(hessian, max_products)}", UserWarning, stacklevel=3)
    smallest = tuple(sorted(pairs[:low], key=lambda pair: pair.value))
    largest = tuple(sorted(pairs[low:], key=lambda pair: -pair.value))
    return Extremes(largest, smallest, not short and not hessian.cut, hessian.products, hessian.loss)


def _more(hessian: Hessian, limit: int) -> str:
    """What to do about eigenvalues that are not exact enough."""
    if hessian.cut:
        return 'pass hvp="difference", since the exact products are none'
    if hessian.products >= limit:
        return "raise max_products, or tol"
    if hessian.dtype == torch.float64:
        return "its products are not exact enough for less: raise tol"
    return "its products are too coarse for more: pass dtype=torch.float64, or raise tol"


def _pair(hessian: Hessian, v: Tensor, product: Tensor, keep: bool) -> Eigenpair:
    v, product = v / length(v), product / length(v)
    value = float(v @ product)
    residual = length(product - value * v)
    return Eigenpair(value, residual, hessian.difference_error(v, product), hessian.flat.named(v) if keep else None)


def trace(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    *,
    draws: int = 32,
    method: Literal["hutchinson", "hutch++"] = "hutchinson",
    seed: int = 0,
    hvp: Hvp = "autograd",
    step: float | None = None,
    **options: Any,
) -> Trace:
    """The trace of the Hessian from random vectors, with its standard error.

    Args:
        model: see `Objective`.
        loss_fn: see `Objective`.
        batches: see `Objective`.
        draws: products with the Hessian (>= 2); the standard error falls with its square root.
        method: "hutchinson" (Hutchinson 1990), or "hutch++" (arXiv 2010.09649), better where few eigenvalues carry the
            trace; it holds draws / 3 vectors as long as the parameters.
        seed: of the draws.
        hvp: see `extreme_eigenvalues`.
        step: of "difference", see `Hessian`.
        options: mode, parameters, dtype and size, as for `Objective`.

    Raises:
        As `extreme_eigenvalues`.
    """
    check_whole("draws", draws, 2)
    check_among("method", method, ("hutchinson", "hutch++"))
    check_seed(seed)
    estimate = spectra.hutchinson if method == "hutchinson" else spectra.hutch_plus_plus
    with Objective(model, loss_fn, batches, **options) as objective:
        hessian = Hessian(objective, hvp, step)
        return Trace(*estimate(hessian, draws, seed), hessian.size, hessian.products)


def density(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    *,
    draws: int = 3,
    steps: int = 60,
    seed: int = 0,
    hvp: Hvp = "autograd",
    step: float | None = None,
    **options: Any,
) -> Density:
    """The density of the eigenvalues by stochastic Lanczos quadrature.

    The iteration is that of hessian-eigenthings, with full reorthogonalisation: it holds `steps` vectors as long as the
    parameters. Source: Ubaru, Chen, Saad 2017, SIAM J. Matrix Anal. Appl. 38(4); for networks Ghorbani, Krishnan, Xiao
    2019, arXiv 1901.10159.

    Args:
        model: see `Objective`.
        loss_fn: see `Objective`.
        batches: see `Objective`.
        draws: random vectors; the more, the surer small shares are.
        steps: Lanczos steps for each, which set the resolution.
        seed: of the draws.
        hvp: see `extreme_eigenvalues`.
        step: of "difference", see `Hessian`.
        options: mode, parameters, dtype and size, as for `Objective`.

    Raises:
        As `extreme_eigenvalues`.
    """
    check_whole("draws", draws, 1)
    check_whole("steps", steps, 1)
    check_seed(seed)
    with Objective(model, loss_fn, batches, **options) as objective:
        hessian = Hessian(objective, hvp, step)
        found = [spectra.quadrature(hessian, steps, seed + i) for i in range(draws)]
        return Density(tuple(x for x, _ in found), tuple(w for _, w in found), hessian.products)


def per_layer(
    model: nn.Module, loss_fn: LossFn, batches: Iterable[Any], *, parameters: Chosen = None, **options: Any
) -> dict[str, Extremes]:
    """Extreme eigenvalues of each layer's diagonal block: curvature when only that module's parameters move.

    Args:
        model: see `Objective`.
        loss_fn: see `Objective`.
        batches: see `Objective`.
        parameters: see `Objective`; layers without a chosen parameter are left out.
        options: as for `extreme_eigenvalues`.

    Returns:
        By the module's name, in the model's order; "" is the model itself.

    Raises:
        As `extreme_eigenvalues`.
    """
    names = Objective(model, loss_fn, batches, parameters=parameters).names
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    return {
        layer: extreme_eigenvalues(model, loss_fn, batches, parameters=own, **options) for layer, own in layers.items()
    }
