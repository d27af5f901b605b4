"""Closed forms: what stability, saddles and noise do to sharpness-aware steps, to be set beside measurements."""

from fenland.theory.diffusion import (
    diffusion,
    displacement,
    displacement_gap,
    drift,
    gap_series,
    noise_power,
    stationary_displacement,
)
from fenland.theory.edge import edge_curvature, neuron_end
from fenland.theory.gamma import gamma_bounds, gamma_normalized, gamma_smooth
from fenland.theory.hallucination import Fates, cosine_fates, cosine_stall
from fenland.theory.momentum import METHODS, companion, drive, growth, reach, roots
from fenland.theory.published import (
    attracts,
    momentum_ratio,
    published_displacement,
    published_gap,
    published_momentum,
)
from fenland.theory.quadratic import (
    Limit,
    best_lr,
    convergence,
    cycle_amplitude,
    factor,
    spectrum_limit,
    stable_lr,
)
from fenland.theory.saddle import (
    capture_band,
    capture_radius,
    captures,
    capturing_gradient,
    escape_growth,
    escape_steps,
    held_beside,
)
from fenland.theory.uniform_stability import Smoothness, distance_bound, expansivity, spill, stability_bound

__all__ = [
    "METHODS",
    "Fates",
    "Limit",
    "Smoothness",
    "attracts",
    "best_lr",
    "capture_band",
    "capture_radius",
    "captures",
    "capturing_gradient",
    "companion",
    "convergence",
    "cosine_fates",
    "cosine_stall",
    "cycle_amplitude",
    "diffusion",
    "displacement",
    "displacement_gap",
    "distance_bound",
    "drift",
    "drive",
    "edge_curvature",
    "escape_growth",
    "escape_steps",
    "expansivity",
    "factor",
    "gamma_bounds",
    "gamma_normalized",
    "gamma_smooth",
    "gap_series",
    "growth",
    "held_beside",
    "momentum_ratio",
    "neuron_end",
    "noise_power",
    "published_displacement",
    "published_gap",
    "published_momentum",
    "reach",
    "roots",
    "spectrum_limit",
    "spill",
    "stability_bound",
    "stable_lr",
    "stationary_displacement",
]
