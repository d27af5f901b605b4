"""Two landscapes with few cells."""

import dataclasses

from fenland.lab.explore.landscapes import LANDSCAPES

BY_NAME = {each.name: each for each in LANDSCAPES}
SMALL = (
    dataclasses.replace(BY_NAME["saddle"], radii=(0.1, 0.6), rates=(0.05, 0.2), steps=60),
    dataclasses.replace(BY_NAME["quadratic"], radii=(0.05, 0.3), rates=(0.08, 0.19, 0.45), steps=60),
)
