import numpy as np
import pytest
import torch

from fenland.lab.data import Batches, digits
from fenland.lab.data.batches import PADDING, crop_and_flip, generator
from fenland.lab.data.images import stratified
from fenland.lab.errors import BadInput


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


def test_limited_keeps_the_shares_of_the_classes() -> None:
    images = digits.load().limited(200)
    assert len(images.train) == len(images.train_labels) == 200
    assert set(np.bincount(images.train_labels)) <= {18, 19, 20, 21, 22}
    assert len(images.test) == 360
    assert len(images.limited(10_000).train) == 200


def test_stratified_depends_on_the_seed_alone() -> None:
    labels = np.arange(100) % 3
    np.testing.assert_array_equal(stratified(labels, 10, 1), stratified(labels, 10, 1))
    assert (stratified(labels, 10, 1) != stratified(labels, 10, 2)).any()


def batches(seed: int = 0, batch_size: int = 100, augment: bool = False) -> Batches:
    return Batches(digits.load(), torch.device("cpu"), batch_size, seed, augment)


def test_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    first, again = ([labels for _, labels in batches().epoch(3)] for _ in range(2))
    assert all(map(torch.equal, first, again))
    for other in (batches().epoch(4), batches(seed=1).epoch(3)):
        assert not all(torch.equal(mine, labels) for mine, (_, labels) in zip(first, other, strict=True))


def test_an_epoch_visits_no_example_twice_and_drops_the_rest() -> None:
    seen = torch.cat([images for images, _ in batches().epoch(1)]).flatten(1)
    assert seen.shape == (1400, 64)
    # A few of scikit-learn's digits are equal to each other; an epoch shows nothing that the train set lacks.
    whole = torch.cat([images for images, _ in batches().evaluation("train")]).flatten(1)
    assert len(torch.unique(seen, dim=0)) >= len(torch.unique(whole, dim=0)) - 37


def test_training_images_are_normalised() -> None:
    whole = torch.cat([images for images, _ in batches().evaluation("train")])
    assert float(whole.mean()) == pytest.approx(0, abs=1e-5)
    assert float(whole.std()) == pytest.approx(1, abs=1e-3)


def test_evaluation_on_a_part_is_stratified_and_fixed() -> None:
    parts = [torch.cat([labels for _, labels in batches(seed).evaluation("train", 100)]) for seed in (0, 1)]
    assert torch.equal(*parts)
    assert set(torch.bincount(parts[0]).tolist()) <= {9, 10, 11}


def test_a_batch_larger_than_the_train_set_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^batch_size=1438: give at most 1437"):
        batches(batch_size=1438)


def test_crop_and_flip_equals_a_loop() -> None:
    images = torch.randn(6, 3, 8, 10)
    shifts = torch.randint(0, 2 * PADDING + 1, (6, 2))
    flips = torch.tensor([True, False] * 3)
    got = crop_and_flip(images, shifts, flips)
    for index in range(6):
        framed = torch.nn.functional.pad(images[index], (PADDING,) * 4)
        top, left = shifts[index].tolist()
        cut = framed[:, top : top + 8, left : left + 10]
        assert torch.equal(got[index], cut.flip(2) if flips[index] else cut)


def test_augmented_epochs_repeat_and_differ() -> None:
    first, again, other = (next(iter(batches(augment=True).epoch(epoch)))[0] for epoch in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    plain = next(iter(batches().epoch(1)))[0]
    assert first.shape == plain.shape
    assert not torch.equal(first, plain)


def test_generator_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    generator(1, 2)
    assert torch.equal(before, torch.get_rng_state())
