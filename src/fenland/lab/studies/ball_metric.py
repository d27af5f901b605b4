"""The norm of SAM's ball: Fig. 3 of "Investigations on SAM", and what it leaves out, equal lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fenland.lab.studies.investigations import (
    SHORT,
    WHICH,
    Investigation,
    about,
    accuracy,
    ends_and_curves,
    investigation,
    loss,
    setting,
)  # fmt: skip
from fenland.lab.study import C, Claim, Contrast, Grid, Quantity, both, paired, ratio
from fenland.lab.study.grid import above_zero, failed
from fenland.lab.study.images import about_data
from fenland.lab.study.parts import OURS, Lab, Measured, Tables, ours

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig

EUCLID, SIGN, STRETCHED, MATCHED = "L2", "L-inf, sign", "L-inf, stretched", "L-inf, matched"
KINDS = (EUCLID, SIGN, STRETCHED, MATCHED)
WORDS = {
    STRETCHED: "the gradient over its largest element, as in the report's code",
    SIGN: "rho along the gradient's sign",
}
# The report's figure is what its code does; its formula is another ball, and a claim of ours.
WHOSE = {STRETCHED: SHORT.at("section III-B and Fig. 3"), SIGN: ours("the report's formula, which its code is not")}
length = Quantity("length", "Euclidean length of the perturbation", table="epochs", form=".4g")


@dataclass(frozen=True)
class Config(Investigation):
    """What is run: one network, and a radius in the norm of each ball."""

    model: str = "wrn10-1"
    rho: float = 0.05

    def __post_init__(self) -> None:
        above_zero(self, "rho")


def ball(config: Config, lab: Lab, kind: str) -> Mapping[str, Any]:
    """The optimizer of a kind of ball."""
    matched = config.rho / math.sqrt(count_weights(config, lab))
    kinds: Mapping[str, Mapping[str, Any]] = {
        EUCLID: {"optimizer": "sam"},
        SIGN: {"optimizer": "lpsam", "options": ("p=inf",)},
        STRETCHED: {"optimizer": "infnormsam"},
        MATCHED: {"optimizer": "lpsam", "options": ("p=inf",), "rho": matched},
    }  # fmt: skip
    return kinds[kind]


def lengths(config: Config, lab: Lab, tables: Tables, runs: Mapping[str, RunConfig]) -> Tables:
    """The Euclidean length of each epoch's perturbation: that of a sign step is rho * sqrt(n)."""
    epochs = tables["epochs"]
    stretched = epochs["rho"] * math.sqrt(count_weights(config, lab))
    signs = epochs["kind"].isin((SIGN, MATCHED))
    return tables | {"epochs": epochs.assign(length=epochs["radius"].where(~signs, stretched))}


def count_weights(config: Config, lab: Lab) -> int:
    """How many numbers of the network are trained, on images of this data set."""
    import torch

    from fenland.lab.config import RunConfig
    from fenland.lab.models import build_model

    shape, classes, _ = about_data(RunConfig(config.data, config.model, "sgd", data_dir=lab.data_dir(config.data)))
    with torch.random.fork_rng(), torch.device("meta"):
        model = build_model(config.model, shape, classes)
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def failures(kind: str) -> Callable[[Measured], str]:
    """A note on the runs of a kind that learned nothing."""

    def note(measured: Measured) -> str:
        runs = measured["runs"][measured["runs"]["kind"] == kind]
        count = int(failed(runs).sum())
        return f"{count} of {len(runs)} runs ({kind}) end no better than guessing." if count else ""

    return note


def times_longer(kind: str) -> Contrast:
    """The length of a perturbation in the first epoch over that of the L2 one; seeds may agree exactly."""
    lengths = ratio(length.at(epoch=1), "kind", kind, EUCLID, template=f"{kind}: {{value}} times")
    return replace(lengths, exact=True)


STUDY = investigation(
    "section III and Fig. 3", {"model": "wrn16-8"}, (
        "The report's text says that only the norm in the denominator of davda54/sam was exchanged. That stretches the "
        "gradient until its largest element is rho (InfNormSAM), and its figure shows this. Its formula is another "
        "one: it moves each weight by rho along the gradient's sign, the maximiser over the box (LpSAM, p = inf). Both "
        "are run.",
        "We add what the report does not have: the sign step at the Euclidean length of the L2 step, rho / sqrt(n) for "
        "n weights. For the stretched gradient that would be SAM itself.",
        "A Euclidean length is the mean over the steps of the first epoch. That of the sign step is rho * sqrt(n) as "
        "long as no element of the gradient is zero.",
        WHICH,
    ),
    name="ball-metric",
    title="The norm of SAM's ball",
    question="Is SAM worse in an L-infinity ball than in the L2 ball, and is that the ball's shape or the length of "
    "the perturbation?",
    config=Config,
    runs=Grid(ball, after=lengths, diverged="guess", kind=KINDS, seed=C.seeds),
    claims=[
        *(
            Claim(
                f"At the same rho, the L-infinity ball ({WORDS[kind]}) gives a lower test accuracy than the L2 ball.",
                source, paired(accuracy, "kind", kind, EUCLID) < 0, "final", "paper",
                notes=("Paired over seeds.", failures(kind)),
            )
            for kind, source in WHOSE.items()
        ),
        Claim(
            "At the same rho both L-infinity perturbations are far longer than the L2 one, in the Euclidean norm.",
            ours("sqrt(n) for the sign, the ratio of the gradient's norms for the other"),
            both(*(times_longer(kind) > 2 for kind in WORDS)),
            "curves", expected="more than 2 times",
            notes=(about, "In the first epoch; one number where the seeds agree exactly."),
        ),
        Claim(
            "At the same Euclidean length, too, the L-infinity ball gives a lower test accuracy than the L2 ball.",
            ours("what the report's explanation, that signs tell less of the landscape, would mean"),
            paired(accuracy, "kind", MATCHED, EUCLID) < 0, "final",
            notes=(about, "The report did not run it. Paired over seeds.", failures(MATCHED)),
        ),
        Claim(
            "The sign step gains test accuracy when it is shortened to the L2 step's length.", OURS,
            paired(accuracy, "kind", MATCHED, SIGN) > 0, "final",
            notes=(about, "Paired over seeds.", failures(SIGN)),
        ),
    ],
    figures=ends_and_curves(
        "kind", [accuracy.by_epoch, loss.by_epoch, length], "Accuracy, loss and length by epoch",
        ("test_loss", "length"), lambda m: f"{setting(m)}, rho = {m.config.rho:g}; matched: rho / √n.",
    ),
)  # fmt: skip
