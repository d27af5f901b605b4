"""Verdict and advice from the doctor's numbers, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fenland.diagnostics.curvature import Extremes
from fenland.diagnostics.diagnosis import FAR, Advice, Ascent, Saddle
from fenland.diagnostics.recipe import Allowed, Recipe, largest_rho
from fenland.words import capital

LEAST_FIDELITY = 0.95
TURNED = 0.5  # cosine(g, h) below which e has left the region where the gradient says anything


@dataclass(frozen=True)
class Findings:
    """All that verdict and advice are made from."""

    recipe: Recipe
    extremes: Extremes
    gradient_norm: float
    ascent: Ascent | None
    limits: tuple[Allowed, ...]
    saddle: Saddle | None
    strayed: float | None = None

    @property
    def own(self) -> Allowed:
        """The limits of the method in use."""
        return next(each for each in self.limits if each.method == self.recipe.method)

    @property
    def widest(self) -> Allowed:
        """The other method that allows most."""
        return max(self.limits, key=lambda each: each.lr)


def verdict(f: Findings) -> tuple[str, str]:
    """The verdict on the learning rate and its reason; a saddle or an ascent point that holds the step is added."""
    said, because = _judged(f)
    held = f.saddle is not None and f.saddle.near and f.saddle.captured and f.saddle.held is not False
    stalled = f.ascent is not None and f.ascent.stalled
    if held and not (stalled and f.recipe.normalized):  # held by a saddle, the normalised ascent has |h| >> |g|
        return said, f"{because} A saddle holds it."
    if stalled:
        return said, f"{because} The gradient at w + e all but vanishes, yet this is no critical point of L."
    return said, because


def _judged(f: Findings) -> tuple[str, str]:
    recipe, own = f.recipe, f.own
    if recipe.lr is None:
        return "unknown", "There is no learning rate to judge: pass the optimizer."
    if not recipe.steps_by_sgd:
        return "unknown", f"{capital(recipe.doubts[0])}."
    over = f"{recipe.method} {_at(f)} is stable below {own.lr:.4g}"
    if recipe.lr > own.high:
        return "unstable", f"{_title(f)} is over its limit {own.lr:.4g}{_others(f)}."
    if recipe.lr >= own.low and math.isfinite(own.lr):
        return "edge", f"{over}, known to lie between {own.low:.4g} and {own.high:.4g}."
    if own.now is not None and recipe.lr > own.now and f.ascent is not None:
        return "circling", (
            f"At gradient norm {f.gradient_norm:.3g} the normalised ascent acts like rho / |g| = "
            f"{f.ascent.effective:.3g} of an unnormalised one, for which steps shrink the steepest mode below lr "
            f"{own.now:.4g} only: SAM stays bounded and circles the minimum{_others(f)}."
        )
    if f.strayed is not None and f.strayed > FAR:
        return "edge", (
            f"{over}, but the next steps go farther than that holds: over lr / (1 - momentum) * |g| the loss strays "
            f"from the quadratic model by {f.strayed:.1f} of the decrease that the gradient alone predicts."
        )
    if not math.isfinite(own.lr):
        return "stable", "No positive curvature bounds the learning rate here."
    return "stable", f"{over}; lr is {recipe.lr / own.lr:.0%} of that."


def _at(f: Findings) -> str:
    return f"at rho {f.recipe.rho:g}" if f.recipe.rho and f.recipe.method == "USAM" else "here"


def _title(f: Findings) -> str:
    return f"{f.recipe.method} at lr {f.recipe.lr:g}" + (f", rho {f.recipe.rho:g}," if f.recipe.rho else "")


def _others(f: Findings) -> str:
    """What the method that allows most would allow, where that helps."""
    best, lr = next((each for each in reversed(f.limits) if each.lr == f.widest.lr), f.widest), f.recipe.lr or 0.0
    helps = best.method != f.recipe.method and best.lr > lr
    return f"; {best.method} allows {best.lr:.4g}" if helps else ""


def advice(f: Findings) -> tuple[Advice, ...]:
    """What to do, the most urgent first."""
    found = [*_of_rate(f), *_of_saddle(f), *_of_ascent(f), *_of_precision(f)]
    if f.strayed is not None and f.strayed > FAR:
        why = "the curvature will have changed before these limits can tell; there it may be larger"
        found.append(Advice("lower lr, or warm it up, and diagnose again after some steps", why))
    if not f.extremes.converged:
        worst = max(pair.off for pair in f.extremes.largest + f.extremes.smallest)
        cure = "raise max_products or pass dtype=torch.float64, or take the eigenvalues as rough"
        found.append(Advice(cure, f"one is exact to {worst:.2g} only"))
    found += [
        Advice("read the limits as a comparison, not as this optimizer's own", doubt) for doubt in f.recipe.doubts
    ]
    return tuple(found)


def _of_rate(f: Findings) -> list[Advice]:
    said, _ = verdict(f)
    if said not in ("unstable", "circling"):
        return []
    recipe, own, curvature = f.recipe, f.own, f.extremes.largest[0].value
    limit = own.lr if said == "unstable" else own.now or own.lr
    why = f"at {recipe.lr:g} a step lengthens the steepest mode, l = {curvature:.4g}"
    found = [Advice(f"lower lr below {limit:.4g}", why)]
    rho = largest_rho(recipe, curvature) if recipe.method == "USAM" else 0.0
    if rho > 0:
        why = f"the limit falls as 1 / (1 + rho * l) from SGD's {f.limits[0].lr:.4g}"
        found.append(Advice(f"or lower rho below {rho:.3g}", why))
    stable = f.limits[-1]
    if recipe.method in ("USAM", "SAM") and stable.lr > (recipe.lr or 0.0):
        why = f"its step has the length of the clean gradient, so it keeps SGD's limit {stable.lr:.4g}"
        found.append(Advice(f"or use {'SSAM(normalize=False)' if stable.method == 'SSAM-U' else 'SSAM'}", why))
    return found


def _of_saddle(f: Findings) -> list[Advice]:
    saddle, recipe = f.saddle, f.recipe
    if saddle is None or not saddle.near:
        return []
    m, pull = f"m = {saddle.strength:.3g}", recipe.rho * saddle.strength
    if not saddle.captured:
        why = f"a saddle is near ({m}, |g| / m = {saddle.distance:.2g}) and does not hold this step"
        return [Advice("give it time", why)]
    if not recipe.normalized:
        why = f"the saddle holds the unnormalised ascent: rho * m = {pull:.3g} > 1"
        return [Advice(f"lower rho below {1 / saddle.strength:.3g}", why)]
    if saddle.held is False:
        why = f"|g| < rho * m ({m}), but the steepest direction keeps |g| too large at this lr for SAM to be held"
        return [Advice("watch the smallest eigenvalue", why)]
    why = f"the saddle holds the normalised ascent: |g| = {f.gradient_norm:.3g} < rho * m = {pull:.3g}"
    return [Advice(f"lower rho below {saddle.distance:.2g} until it is left, or step with plain SGD", why)]


def _of_ascent(f: Findings) -> list[Advice]:
    ascent = f.ascent
    if ascent is None:
        return []
    if ascent.wanted == 0:
        return [Advice("diagnose where there is a gradient", "it is zero here, so there is nothing to climb along")]
    if not ascent.active:
        return [
            Advice(
                "raise rho (fenland.find_rho proposes one), or drop the second pass",
                f"g at w and h at w + e are the same (|e| = {ascent.wanted:.2g}): the ascent does nothing",
            )
        ]
    if ascent.stalled:
        why = (
            f"|h| = {f.gradient_norm / ascent.gamma:.2g} at w + e, |g| = {f.gradient_norm:.2g} at w: steps along h "
            "come to rest where the loss still falls, as at a hallucinated minimiser"
        )
        return [Advice("step without the ascent first (when=fenland.Window(start)), or lower rho", why)]
    if ascent.cosine < TURNED:
        return [
            Advice(
                "lower rho (fenland.find_rho proposes one)",
                f"h points elsewhere than g (cosine {ascent.cosine:.2f}): w + e is outside the region that g describes",
            )
        ]
    return []


def _of_precision(f: Findings) -> list[Advice]:
    ascent = f.ascent
    if ascent is None or ascent.wanted == 0:
        return []
    if ascent.fidelity < LEAST_FIDELITY:
        why = f"their precision holds e with a cosine of {ascent.fidelity:.2f} only"
        return [Advice("keep the parameters in float32 and run under torch.autocast", why)]
    if ascent.fidelity_bf16 < LEAST_FIDELITY:
        why = f"bfloat16 parameters would hold e with a cosine of {ascent.fidelity_bf16:.2f} only"
        return [Advice("do not cast the parameters to bfloat16; use torch.autocast", why)]
    return []
