"""The doctor's report: numbers with their uncertainty, a verdict, and advice with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fenland.diagnostics.curvature import Eigenpair
from fenland.diagnostics.recipe import Allowed

VERDICTS = ("stable", "edge", "circling", "unstable", "unknown")
FAR = 0.5  # `strayed` from which on the limits, which are those of a quadratic, are not relied on
STALLED = 0.1  # |h| / |g| below which the ascent point counts as critical and w does not


@dataclass(frozen=True)
class Saddle:
    """A direction of negative curvature.

    Attributes:
        strength: m = -(smallest eigenvalue) > 0 (unit: loss / w^2).
        distance: |g| / m, at most how far the stationary point lies along it (unit of w).
        near: whether that is within the reach that was asked about.
        captured: whether the ascent turns this direction into an attracting one: rho*m > 1 for the unnormalised ascent,
            |g| < rho*m for the normalised one.
        held: whether it stays captured beside the steepest direction at this learning rate (normalised SAM only).
    """

    strength: float
    distance: float
    near: bool
    captured: bool
    held: bool | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Ascent:
    """What the perturbation does here.

    Attributes:
        rho: radius, in the ball's norm.
        wanted: |e|_2 that the rule asks for (unit of w).
        realised: |e|_2 as the parameters' precision holds it.
        fidelity: cosine between the wanted and the realised e.
        fidelity_bf16: the same, were the parameters bfloat16.
        effective: |e| / |g|, the radius of an unnormalised ascent of the same length (unit: w per gradient).
        gamma: |g| / |h|, the factor by which SSAM shortens SAM's step.
        cosine: of g at w and h at w + e.
        rise: L(w + e) - L(w) (unit: loss).
        slope: <g, e>, the rise that the gradient alone predicts.
        active: whether h differs from g at all.
        stalled: whether |h| is below a tenth of |g|: w + e is all but a critical point of L, and w is not. Where that
            draws the steps in, w is a hallucinated minimiser (Park et al. 2025, arXiv 2509.21818).
    """

    rho: float
    wanted: float
    realised: float
    fidelity: float
    fidelity_bf16: float
    effective: float | None
    gamma: float
    cosine: float
    rise: float
    slope: float
    active: bool
    stalled: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Advice:
    """One thing to do.

    Attributes:
        what: what to do.
        why: the reason, with its numbers.
    """

    what: str
    why: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {"what": self.what, "why": self.why}


@dataclass(frozen=True)
class Diagnosis:
    """What `fenland.diagnose` found. `print` it for the short report.

    Attributes:
        optimizer: for people, such as "SSAM(SGD)".
        method: theory's name of it.
        lr: learning rate in use; None without an optimizer.
        loss: L(w), mean over the examples.
        gradient_norm: |g|_2 of that mean.
        largest: the algebraically largest eigenvalue of the Hessian.
        smallest: the algebraically smallest.
        converged: whether the eigenvalues met their tolerance.
        ascent: what the perturbation does; None without one.
        limits: the learning rates that SGD, SAM and SSAM allow.
        saddle: a direction of negative curvature; None where there is none beyond the residual.
        strayed: |L(w - r*g) - L(w) - quadratic model| / (r*|g|^2) with r = lr / (1 - momentum), what the next steps
            may cover, less what the loss's rounding may make of it: near 0 the limits will still hold there, from 0.5
            on the curvature will be another. None without a learning rate of SGD.
        verdict: "stable", "edge" (lr lies within the uncertainty of the limit, or `strayed` is over 0.5), "circling"
            (normalised SAM below SGD's limit that does not settle at this gradient norm), "unstable", or "unknown".
        because: the verdict's reason.
        advice: what to do.
        mode: mode the model ran in.
        batches: number of batches.
        examples: number of examples in them.
        products: Hessian-vector products that it took.
        seconds: that it took.
    """

    optimizer: str
    method: str
    lr: float | None
    loss: float
    gradient_norm: float
    largest: Eigenpair
    smallest: Eigenpair
    converged: bool
    ascent: Ascent | None
    limits: tuple[Allowed, ...]
    saddle: Saddle | None
    strayed: float | None
    verdict: str
    because: str
    advice: tuple[Advice, ...]
    mode: str
    batches: int
    examples: float
    products: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """All numbers and sentences, for JSON."""
        plain = {name: value for name, value in vars(self).items() if isinstance(value, (str, int, float))}
        return {
            **plain,
            "lr": self.lr,
            "strayed": self.strayed,
            "largest": self.largest.as_dict(),
            "smallest": self.smallest.as_dict(),
            "ascent": self.ascent.as_dict() if self.ascent else None,
            "limits": [each.as_dict() for each in self.limits],
            "saddle": self.saddle.as_dict() if self.saddle else None,
            "advice": [each.as_dict() for each in self.advice],
        }

    def __str__(self) -> str:
        lines = [self._head(), *self._numbers(), *self._limits(), f"verdict: {self.verdict}. {self.because}"]
        lines += [f"- {each.what} ({each.why})" for each in self.advice]
        return "\n".join(lines)

    def _head(self) -> str:
        setup = [self.optimizer]
        setup += [f"lr {self.lr:g}"] if self.lr is not None else []
        setup += [f"rho {self.ascent.rho:g}"] if self.ascent else []
        data = (
            f"{self.examples:g} example{'s' * (self.examples != 1)} in {self.batches} batch{'es' * (self.batches != 1)}"
        )
        return f"{', '.join(setup)}; {data}, mode {self.mode}"

    def _numbers(self) -> list[str]:
        rows = [
            ("loss", f"{self.loss:.6g}"),
            ("gradient norm", f"{self.gradient_norm:.4g}"),
            ("largest eigenvalue", _pair(self.largest)),
            ("smallest eigenvalue", _pair(self.smallest)),
        ]
        if self.ascent is not None:
            a = self.ascent
            held = f"realised {a.realised:.4g}, cosine {a.fidelity:.3f}; {a.fidelity_bf16:.3f} in bfloat16"
            rows += [
                ("gamma = |g| / |h|", f"{a.gamma:.4g}, cosine(g, h) {a.cosine:.4f}"),
                ("|e|", f"{a.wanted:.4g} ({held})"),
                ("loss rise at w + e", f"{a.rise:.4g} (the gradient alone predicts {a.slope:.4g})"),
            ]
        return [f"  {name:20} {text}" for name, text in rows]

    def _limits(self) -> list[str]:
        if not self.limits:
            return []
        rows = ["largest stable learning rate"]
        for each in self.limits:
            text = f"{each.lr:.4g}" if math.isfinite(each.lr) else "no limit from these eigenvalues"
            if math.isfinite(each.lr) and each.high - each.low > 0.005 * each.lr:
                text += f" ({each.low:.4g} to {each.high:.4g})"
            if each.now is not None and each.now < 0.99 * each.lr:
                text += f"; settles at this gradient norm below {each.now:.4g}"
            if each.edge is not None:
                text += f"; at lr {self.lr:g} the edge of stability is l = {each.edge:.4g}"
            mark = " <- in use" if each.method == self.method and self.verdict != "unknown" else ""
            rows.append(f"  {each.method:20} {text}{mark}")
        return rows


def _pair(pair: Eigenpair) -> str:
    error = f", products off by {pair.error:.2g}" if pair.error is not None else ""
    return f"{pair.value:.5g} (residual {pair.residual:.1g}{error})"
