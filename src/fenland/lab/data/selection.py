"""The train set that a configuration asks for: a part of it, noisy labels, one example replaced.

Each choice is a function of ``data_seed`` and nothing else: the run's seed leaves the data as they are.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeVar

import numpy as np

from fenland.lab.data.images import Images, Labels, stratified
from fenland.lab.data.tokens import Tokens
from fenland.lab.errors import BadInput

Examples = TypeVar("Examples", Images, Tokens)
# Names of the independent random streams of one data_seed.
_NOISE, _REPLACE, _VALIDATE = 1, 2, 3


def select(
    images: Examples,
    *,
    validate: int = 0,
    limit: int | None = None,
    label_noise: float = 0.0,
    data_seed: int = 0,
    replace: int | None = None,
) -> Examples:
    """Apply ``validate``, ``limit``, ``label_noise`` and ``replace``, in this order.

    Args:
        images: the whole set, of images or of texts.
        validate: so many train examples, stratified over the classes, are held out and stand in the place of the test
            set, which nobody sees: what is chosen by them (a learning rate, a radius) is not chosen by the test set. 0
            for the test set itself.
        limit: keep this many train examples, stratified over the classes; None for all.
        label_noise: share of the train labels to replace by another class, see ``with_noise``.
        data_seed: fixes every choice.
        replace: number k of a neighbour S' of the train set S = ``select(..., replace=None)``: one example of S, drawn
            from (data_seed, k), becomes another one of the same distribution, as in the definition of uniform
            stability (Hardt, Recht and Singer 2016, arXiv:1509.01240, definition 2.1). The newcomer is a train example
            that ``limit`` left out. Where ``limit`` leaves none out it is a test example, which the test set keeps: it
            is common to S and all S', and one of its examples is then seen in training. The newcomer's label is noisy
            with probability ``label_noise``. Both sets are normalised by the statistics of S.

    Raises:
        BadInput: a share outside [0, 1], or no example to replace one by.
    """
    images = _held_out(images, validate, data_seed)
    kept = np.arange(len(images.train))
    if limit is not None and limit < len(kept):
        kept = stratified(images.train_labels, limit, seed=data_seed)
    base = dataclasses.replace(images, train=images.train[kept], train_labels=images.train_labels[kept])
    base = with_noise(base, label_noise, data_seed)
    if replace is None:
        return base
    if len(kept) < len(images.train):
        spare = np.setdiff1d(np.arange(len(images.train)), kept)
        return _replaced(base, images.train, images.train_labels, spare, label_noise, (data_seed, _REPLACE, replace))
    spare = np.arange(len(images.test))
    return _replaced(base, images.test, images.test_labels, spare, label_noise, (data_seed, _REPLACE, replace))


def _held_out(images: Examples, count: int, data_seed: int) -> Examples:
    """The set with a part of its train set in the place of the test set."""
    if not count:
        return images
    if count >= len(images.train):
        raise BadInput("validate", count, f"give less than {len(images.train)}, the size of the train set")
    chosen = stratified(images.train_labels, count, seed=(data_seed, _VALIDATE))
    rest = np.setdiff1d(np.arange(len(images.train)), chosen)
    return dataclasses.replace(
        images,
        train=images.train[rest],
        train_labels=images.train_labels[rest],
        test=images.train[chosen],
        test_labels=images.train_labels[chosen],
    )


def with_noise(images: Examples, share: float, data_seed: int) -> Examples:
    """Symmetric label noise (as in Foret et al. 2021, arXiv:2010.01412, section 3.3).

    Exactly ``round(share * n)`` of the n train labels become another class, each of the others equally likely. The
    number is kept as ``noisy_labels``.
    """
    if not (math.isfinite(share) and 0 <= share <= 1):
        raise BadInput("label_noise", share, "give a share from 0 to 1, such as 0.2")
    count = round(share * len(images.train))
    if count == 0:
        return images
    generator = np.random.default_rng((data_seed, _NOISE))
    hit = generator.choice(len(images.train), count, replace=False)
    labels = images.train_labels.copy()
    labels[hit] = _others(labels[hit], len(images.classes), generator)
    return dataclasses.replace(images, train_labels=labels, noisy_labels=count)


def _others(labels: Labels, classes: int, generator: np.random.Generator) -> Labels:
    """Another class for each label, uniformly."""
    return (labels + generator.integers(1, classes, len(labels))) % classes


def _replaced(
    base: Examples, pool: Any, labels: Labels, spare: Labels, share: float, key: tuple[int, int, int]
) -> Examples:
    generator = np.random.default_rng(key)
    position = int(generator.integers(len(base.train)))
    for index in generator.permutation(spare):
        label = labels[index : index + 1]
        if generator.random() < share:
            label = _others(label, len(base.classes), generator)
        # Data sets hold duplicates: one of them would leave the set as it is.
        if label[0] != base.train_labels[position] or (pool[index] != base.train[position]).any():
            break
    else:
        raise BadInput("replace", key[-1], "no example is left to replace one by; lower --limit")
    train, train_labels = base.train.copy(), base.train_labels.copy()
    train[position], train_labels[position] = pool[index], label[0]
    return dataclasses.replace(base, train=train, train_labels=train_labels).normalised_as(base)
