import dataclasses

import numpy as np
import pytest

from fenland.lab.data import digits
from fenland.lab.data.images import stratified


def test_digits_are_split_once_and_for_all() -> None:
    images = digits.load()
    assert images.train.shape == (1437, 1, 8, 8)
    assert images.test.shape == (360, 1, 8, 8)
    assert set(np.bincount(images.test_labels)) <= {35, 36, 37}
    assert images.classes == tuple("0123456789")
    np.testing.assert_array_equal(images.train, digits.load().train)


def test_statistics_equal_a_direct_computation() -> None:
    images = digits.load()
    mean, deviation = images.statistics()
    assert mean == pytest.approx([images.train.mean()])
    assert deviation == pytest.approx([images.train.std()])


def test_a_set_that_carries_its_normalisation_gives_that() -> None:
    images = dataclasses.replace(digits.load(), normalisation=([1.5], [2.5]))
    assert images.statistics() == ([1.5], [2.5])


def test_stratified_depends_on_the_seed_alone() -> None:
    labels = np.arange(100) % 3
    np.testing.assert_array_equal(stratified(labels, 10, 1), stratified(labels, 10, 1))
    assert (stratified(labels, 10, 1) != stratified(labels, 10, 2)).any()
