"""Test images with noise, blurred, and with little contrast, on the fly (kinds of Hendrycks and Dietterich 2019)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from fenland.lab.data.images import Bytes

# Of the full range of a pixel; pixels; share of the contrast that is left.
NOISE, BLUR, CONTRAST = 0.1, 1.0, 0.4
_PART = 1000


def noise(images: Bytes) -> Bytes:
    """x + z, z normal with a deviation of ``NOISE`` of the range; the same draws at every call."""
    source = np.random.default_rng(0)
    return _bytes(images + source.standard_normal(images.shape, dtype=np.float32) * np.float32(255 * NOISE))


def blur(images: Bytes) -> Bytes:
    """A Gaussian of ``BLUR`` pixels."""
    from kornia.filters import gaussian_blur2d

    parts = [
        gaussian_blur2d(torch.from_numpy(images[start : start + _PART]).float(), (7, 7), (BLUR, BLUR)).numpy()
        for start in range(0, len(images), _PART)
    ]
    return _bytes(np.concatenate(parts))


def contrast(images: Bytes) -> Bytes:
    """m + ``CONTRAST`` (x - m), m the mean of the image."""
    mean = images.mean((1, 2, 3), keepdims=True, dtype=np.float32)
    return _bytes(mean + np.float32(CONTRAST) * (images - mean))


def _bytes(values: np.ndarray) -> Bytes:
    pixels: Bytes = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels


CORRUPTIONS: dict[str, Callable[[Bytes], Bytes]] = {"noise": noise, "blur": blur, "contrast": contrast}
