"""Limit, label noise and the replaced example: what changes, how often, and what stays."""

import dataclasses

import numpy as np
import pytest

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.data import digits
from fenland.lab.data.images import Images
from fenland.lab.data.selection import select
from fenland.lab.errors import BadInput

DIGITS = digits.load()


def numbered(train: int, test: int = 20, classes: int = 4) -> Images:
    """Images that all differ: each says its own number in its pixels."""

    def split(start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.arange(start, start + count, dtype=np.int64)
        pixels = np.stack([numbers >> 8, numbers & 255] * 2, 1).astype(np.uint8).reshape(count, 1, 2, 2)
        return pixels, numbers % classes

    return Images("numbered", *split(0, train), *split(train, test), tuple("abcdefghij"[:classes]))


def numbers(images: np.ndarray) -> list[int]:
    return [int(image[0, 0, 0]) * 256 + int(image[0, 0, 1]) for image in images]


def differences(some: Images, other: Images) -> list[int]:
    changed = (some.train != other.train).any((1, 2, 3)) | (some.train_labels != other.train_labels)
    return np.flatnonzero(changed).tolist()


def equal(some: Images, other: Images) -> bool:
    return (
        not differences(some, other)
        and np.array_equal(some.test, other.test)
        and np.array_equal(some.test_labels, other.test_labels)
    )


def test_limit_keeps_the_shares_of_the_classes() -> None:
    images = select(DIGITS, limit=200)
    assert len(images.train) == len(images.train_labels) == 200
    assert set(np.bincount(images.train_labels)) <= {18, 19, 20, 21, 22}
    assert len(images.test) == 360
    assert len(select(images, limit=10_000).train) == 200


def test_limit_follows_the_data_seed() -> None:
    zero, again, one = (select(numbered(400), limit=40, data_seed=seed) for seed in (0, 0, 1))
    assert equal(zero, again)
    assert set(numbers(zero.train)) != set(numbers(one.train))
    # The choice of the first release: stored comparisons rely on it.
    assert numbers(zero.train)[:6] == [11, 20, 22, 58, 64, 71]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.333, 0.8, 1.0])
def test_noise_changes_an_exact_number_of_labels_to_another_class(share: float) -> None:
    noisy = select(DIGITS, label_noise=share)
    changed = int((noisy.train_labels != DIGITS.train_labels).sum())
    assert changed == noisy.noisy_labels == round(share * 1437)
    np.testing.assert_array_equal(noisy.train, DIGITS.train)
    np.testing.assert_array_equal(noisy.test_labels, DIGITS.test_labels)
    assert noisy.train_labels.min() >= 0
    assert noisy.train_labels.max() <= 9


def test_noise_is_symmetric_over_classes_and_positions() -> None:
    clean = numbered(40_000)
    noisy = select(clean, label_noise=0.3)
    changed = noisy.train_labels != clean.train_labels
    # From each class to each other one: 40,000 * 0.3 / 12 = 1000 times, within six standard deviations.
    moves = np.bincount(4 * clean.train_labels[changed] + noisy.train_labels[changed], minlength=16).reshape(4, 4)
    assert (np.diag(moves) == 0).all()
    assert abs(moves[~np.eye(4, dtype=bool)] - 1000).max() < 6 * 1000**0.5
    halves = changed[:20_000].sum(), changed[20_000:].sum()
    assert abs(halves[0] - halves[1]) < 6 * (40_000 * 0.3 * 0.7) ** 0.5


def test_noise_follows_the_data_seed_alone() -> None:
    zero, again, one = (select(DIGITS, label_noise=0.2, data_seed=seed) for seed in (0, 0, 1))
    assert equal(zero, again)
    assert differences(zero, one)


def test_noise_comes_after_limit() -> None:
    limited = select(DIGITS, limit=100)
    noisy = select(DIGITS, limit=100, label_noise=0.25)
    np.testing.assert_array_equal(noisy.train, limited.train)
    assert int((noisy.train_labels != limited.train_labels).sum()) == noisy.noisy_labels == 25


@pytest.mark.parametrize("share", [-0.1, 1.01, float("nan")])
def test_a_wrong_share_is_refused(share: float) -> None:
    with pytest.raises(BadInput, match=r"^label_noise=.*: give a share from 0 to 1"):
        select(DIGITS, label_noise=share)


def test_a_neighbour_differs_in_one_example_that_limit_left_out() -> None:
    whole = numbered(400)
    base = select(whole, limit=60)
    left_out = set(range(400)) - set(numbers(base.train))
    places, newcomers = set(), set()
    for k in range(25):
        neighbour = select(whole, limit=60, replace=k)
        (place,) = differences(base, neighbour)
        (newcomer,) = numbers(neighbour.train[place : place + 1])
        assert newcomer in left_out
        assert neighbour.train_labels[place] == newcomer % 4
        np.testing.assert_array_equal(neighbour.test, base.test)
        places.add(place)
        newcomers.add(newcomer)
    # Drawn anew for each k: 25 draws of 60 places meet, but not all the time.
    assert len(places) > 12
    assert len(newcomers) > 20


def test_without_spare_train_examples_the_newcomer_is_a_test_example() -> None:
    base = numbered(100)
    for k in range(5):
        neighbour = select(base, replace=k)
        (place,) = differences(base, neighbour)
        assert numbers(neighbour.train[place : place + 1])[0] in range(100, 120)
        np.testing.assert_array_equal(neighbour.test, base.test)
    assert equal(select(base, limit=100, replace=4), neighbour)


def test_a_neighbour_follows_the_data_seed_and_its_number() -> None:
    some = [select(DIGITS, data_seed=seed, replace=k) for seed, k in ((0, 1), (0, 1), (1, 1), (0, 2))]
    assert equal(some[0], some[1])
    assert differences(some[0], some[2])
    assert differences(some[0], some[3])


def test_both_sets_of_a_pair_are_normalised_alike() -> None:
    """Else every input of the second would differ a little, and not one example."""
    base, neighbour = (select(DIGITS, limit=20, replace=k) for k in (None, 3))
    assert neighbour.statistics() == base.statistics()
    assert dataclasses.replace(neighbour, normalisation=None).statistics() != base.statistics()


@pytest.mark.parametrize("k", range(8))
def test_a_pair_has_the_same_noise_and_the_newcomer_its_own(k: int) -> None:
    base = select(numbered(400), limit=60, label_noise=1.0)
    neighbour = select(numbered(400), limit=60, label_noise=1.0, replace=k)
    (place,) = differences(base, neighbour)
    (newcomer,) = numbers(neighbour.train[place : place + 1])
    assert neighbour.train_labels[place] != newcomer % 4


def test_a_duplicate_is_no_replacement() -> None:
    """Here all spare examples but one equal the whole train set."""
    pixels = np.zeros((2, 1, 2, 2), np.uint8)
    same = Images(
        "same", pixels, np.zeros(2, np.int64), np.zeros((9, 1, 2, 2), np.uint8), np.zeros(9, np.int64), ("a",)
    )
    with pytest.raises(BadInput, match=r"^replace=0: no example is left to replace one by"):
        select(same, replace=0)
    test = same.test.copy()
    test[5] = 7
    for k in range(5):
        neighbour = select(dataclasses.replace(same, test=test), replace=k)
        assert neighbour.train.max() == 7
        assert len(differences(same, neighbour)) == 1


def test_load_applies_all_three() -> None:
    config = RunConfig("digits", "mlp", "sgd", limit=100, label_noise=0.1, data_seed=3, replace=2)
    expected = select(DIGITS, limit=100, label_noise=0.1, data_seed=3, replace=2)
    found = data.load(config)
    assert equal(found, expected)
    assert found.noisy_labels == 10
    assert differences(found, data.load(dataclasses.replace(config, replace=None))) != []
    assert equal(data.load(RunConfig("digits", "mlp", "sgd")), DIGITS)
