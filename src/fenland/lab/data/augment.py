"""Random crop, flip and cutout of whole batches on their device, by kornia.

kornia moves the pixels; what it shall do is drawn here, for a whole epoch at once. So every batch of an epoch can be
had alone, torch's global generator is neither read nor moved, and all devices and ranks see the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fenland.lab.errors import BadInput

# Zero padding of the random crop: 4 pixels for 32x32 images, as in He et al. 2016.
PADDING = 4


@dataclass(frozen=True)
class Draws:
    """What happens to each example of an epoch, on the CPU; None for what is off."""

    shifts: Tensor | None  # (examples, 2), row and column in 0 .. 2 * PADDING of the crop in the padded image.
    flips: Tensor | None  # (examples,), true for a mirrored image
    centres: Tensor | None  # (examples, 2), row and column of the blanked square's centre
    cut: Tensor | None = None  # (examples,), true where the square is blanked

    def part(self, start: int, stop: int) -> Draws:
        """The examples from ``start`` to ``stop``."""
        every = (self.shifts, self.flips, self.centres, self.cut)
        return Draws(*(None if drawn is None else drawn[start:stop] for drawn in every))


class Augmentation:
    """Random crop with zero padding and horizontal flip (He et al. 2016), then cutout.

    Cutout blanks one square with the mean colour (DeVries and Taylor 2017, arXiv:1708.04552): its centre is any pixel,
    so that a part of it may lie outside the image.

    Args:
        shape: channels, height and width of an image.
        crop_and_flip: whether to crop and flip.
        cutout: side of the square in pixels; 0 for none.
        share: of the images that are cut, each drawn by itself.

    Raises:
        BadInput: the square is larger than the image.
    """

    def __init__(
        self, shape: tuple[int, int, int], crop_and_flip: bool = True, cutout: int = 0, share: float = 1.0
    ) -> None:
        side = min(shape[1:])
        if not 0 <= cutout <= side:
            raise BadInput("cutout", cutout, f"give 0 to {side} pixels, the smaller side of the images")
        self.shape = shape
        self.crop_and_flip = crop_and_flip
        self.cutout = cutout
        self.share = share
        self._modules: dict[str, Any] = {}

    def draw(self, examples: int, source: torch.Generator) -> Draws:
        """Draw for ``examples`` examples."""
        shifts = flips = centres = cut = None
        if self.crop_and_flip:
            shifts = torch.randint(0, 2 * PADDING + 1, (examples, 2), generator=source)
            flips = torch.rand(examples, generator=source) < 0.5
        if self.cutout:
            centres = torch.stack([torch.randint(0, side, (examples,), generator=source) for side in self.shape[1:]], 1)
            if self.share < 1:
                cut = torch.rand(examples, generator=source) < self.share
        return Draws(shifts, flips, centres, cut)

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Augment normalised images (examples, channels, height, width): zero is the mean colour."""
        if draws.shifts is not None and draws.flips is not None:
            images = self._flipped(self._cropped(images, draws.shifts), draws.flips)
        if draws.centres is not None:
            blanked = self._blanked(images, draws.centres)
            images = blanked if draws.cut is None else torch.where(_each(draws.cut, images), blanked, images)
        return images

    def _cropped(self, images: Tensor, shifts: Tensor) -> Tensor:
        count, (_, height, width) = len(images), self.shape
        corners = torch.tensor([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]])
        framed = (height + 2 * PADDING, width + 2 * PADDING)
        # kornia's coordinates are (x, y).
        parameters = {
            "src": (shifts.flip(1)[:, None] + corners).float(),
            "dst": corners.float().expand(count, 4, 2),
            "input_size": torch.tensor([framed]).expand(count, 2),
            "output_size": torch.tensor([[height, width]]).expand(count, 2),
            "padding_size": torch.full((count, 4), PADDING),
            **self._common(count, *framed),
        }
        cropped: Tensor = self._crop(images.device)(images, params=parameters)
        return cropped

    def _crop(self, device: torch.device) -> Any:
        # Both ways give the same pixels. Slices, one copy an example, are faster on the CPU; the other way is a few
        # kernels a batch, as an accelerator needs.
        way = "slice" if device.type == "cpu" else "resample"
        if way not in self._modules:
            from kornia.augmentation import RandomCrop

            self._modules[way] = RandomCrop(self.shape[1:], padding=PADDING, cropping_mode=way, resample="nearest")
        return self._modules[way]

    def _flipped(self, images: Tensor, flips: Tensor) -> Tensor:
        from kornia.geometry.transform import hflip

        return torch.where(_each(flips, images), hflip(images), images)

    def _blanked(self, images: Tensor, centres: Tensor) -> Tensor:
        if "erase" not in self._modules:
            from kornia.augmentation import RandomErasing

            self._modules["erase"] = RandomErasing(p=1.0)
        count = len(images)
        top, left = (centres - self.cutout // 2).unbind(1)
        side = torch.full((count,), self.cutout)
        parameters = {
            "xs": left,
            "ys": top,
            "widths": side,
            "heights": side,
            "values": torch.zeros(count),
            **self._common(count, *self.shape[1:]),
        }
        blanked: Tensor = self._modules["erase"](images, params=parameters)
        return blanked

    def _common(self, count: int, height: int, width: int) -> dict[str, Tensor]:
        return {
            "batch_prob": torch.ones(count),
            "forward_input_shape": torch.tensor([count, self.shape[0], height, width]),
        }


def _each(chosen: Tensor, images: Tensor) -> Tensor:
    """Which examples, for `torch.where` over images."""
    return chosen.to(images.device, non_blocking=True).view(-1, 1, 1, 1)
