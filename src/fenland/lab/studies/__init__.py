"""The studies: every figure and table of the papers as one command each, with verdicts."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fenland.lab.errors import BadInput, one_of
from fenland.lab.study.base import Lab, Study, Tables, Verdict

__all__ = ["STUDIES", "Lab", "Study", "Tables", "Verdict", "find"]

# Name on the command line -> "module:Class". A study is imported when it is asked for: half of them need torch only.
STUDIES: dict[str, str] = {
    "saddle-escape": "fenland.lab.studies.saddle_escape:SaddleEscape",
    "quartic": "fenland.lab.studies.quartic:QuarticBasin",
    "quadratic": "fenland.lab.studies.quadratic:QuadraticModes",
    "matrix-sensing": "fenland.lab.studies.matrix_sensing:MatrixSensingTable",
    "gamma": "fenland.lab.studies.gamma:Gamma",
    "uniform-stability": "fenland.lab.studies.uniform_stability:UniformStability",
    "spectrum": "fenland.lab.studies.spectrum:Spectrum",
    "classification": "fenland.lab.studies.classification:Classification",
    "radius": "fenland.lab.studies.radius:Radius",
    "ball-metric": "fenland.lab.studies.ball_metric:BallMetric",
    "architectures": "fenland.lab.studies.architectures:Architectures",
    "landscapes": "fenland.lab.studies.landscapes:Landscapes",
    "attractor": "fenland.lab.studies.attractor:Attractor",
    "diffusion": "fenland.lab.studies.diffusion:Diffusion",
    "momentum-batch": "fenland.lab.studies.momentum_batch:MomentumBatch",
}


def find(name: str) -> Study[Any]:
    """The study of this name, its module imported now.

    Raises:
        BadInput: there is none; the names that exist are listed.
    """
    if name not in STUDIES:
        raise BadInput("NAME", name, one_of(STUDIES))
    module, _, kind = STUDIES[name].partition(":")
    study: Study[Any] = getattr(import_module(module), kind)()
    return study
