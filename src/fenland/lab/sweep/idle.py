"""Fields that are set and change nothing, because of what another field is: the user is told, and nothing is trained.

They stand here and not in ``RunConfig``: runs that were stored with one are still read.
"""

from __future__ import annotations

from collections.abc import Sequence

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.models import pretrained


def idle(run: RunConfig) -> dict[str, str]:
    """From the name of each such field of a run to the cure."""
    found = {}
    if run.cutout_share != 1 and not run.cutout:
        found["cutout_share"] = "is the share of images that cutout blanks a square in; give cutout too"
    if run.data_seed and not (run.limit or run.label_noise or run.validate or run.replace is not None):
        found["data_seed"] = "fixes what limit, label_noise, validate and replace choose; give one of them"
    if run.strategy != "auto" and run.devices == 1:
        found["strategy"] = "is for several devices; give devices too"
    cures = {name: f"{cure}, or leave it out" for name, cure in found.items()}
    if pretrained.named(run.model):
        of_images = ("augment", "cutout", "channels_last")
        given = [name for name in of_images if getattr(run, name)]
        cures |= dict.fromkeys(given, "is for images, and this model reads texts; leave it out")
    return cures


def refuse(runs: Sequence[RunConfig]) -> None:
    """Refuse a field that changes nothing in any of these runs.

    Raises:
        BadInput: naming the field, its value and what would give it a meaning.
    """
    for name, cure in idle(runs[0]).items():
        if all(name in idle(run) for run in runs):
            value = getattr(runs[0], name)
            raise BadInput(name, "on" if value is True else value, cure)
