"""scikit-learn's handwritten digits: 1,797 images of 8x8 grey values 0 to 16, the data set that needs no download."""

from __future__ import annotations

import numpy as np

from fenland.lab.data.images import Images, stratified

# A fifth is held out; scikit-learn ships no split of its own.
TEST = 360


def load() -> Images:
    """The digits with a fixed stratified split: 1,437 to train on, 360 to test on."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    test = stratified(labels, TEST, seed=0)
    train = np.setdiff1d(np.arange(len(labels)), test)
    return Images("digits", images[train], labels[train], images[test], labels[test], tuple("0123456789"))
