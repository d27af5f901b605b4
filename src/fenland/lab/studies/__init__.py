"""The studies: every figure and table of the papers as one command each, one file a study."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fenland.lab.errors import BadInput, one_of

if TYPE_CHECKING:
    from fenland.lab.study.study import Study

__all__ = ["STUDIES", "find"]

_NAMES = (
    "saddle-escape", "quartic", "quadratic", "matrix-sensing", "gamma", "uniform-stability", "spectrum",
    "classification", "radius", "ball-metric", "architectures", "landscapes", "attractor", "diffusion",
    "momentum-batch", "own-settings", "single-neuron", "edge-of-stability", "hallucinated", "late-sam",
)  # fmt: skip
# Name on the command line -> module. A study is imported when it is asked for: half of them need torch only.
STUDIES = {name: f"{__name__}.{name.replace('-', '_')}" for name in _NAMES}


def is_file(word: str) -> bool:
    """Whether a word names a file and not one of fenland's studies."""
    return word.endswith(".py") or "/" in word or "\\" in word


def find(name: str) -> Study:
    """The study of this name, or of the Python file of this path.

    Raises:
        BadInput: there is none; the names that exist are listed.
    """
    if is_file(name):
        from fenland.lab.study.load import load

        return load(name, STUDIES)
    if name not in STUDIES:
        raise BadInput("NAME", name, one_of(STUDIES, name))
    study: Study = import_module(STUDIES[name]).STUDY
    return study
