"""Batches: a function of (seed, epoch, number), wherever the images live and however many processes share them."""

import numpy as np
import pytest
import torch

from fenland.lab.data import Batches, digits
from fenland.lab.data.batches import generator, room
from fenland.lab.errors import BadInput

CPU = torch.device("cpu")
Batch = tuple[torch.Tensor, torch.Tensor]


def batches(seed: int = 0, batch_size: int = 100, augment: bool = False, **options: int) -> Batches:
    return Batches(digits.load(), CPU, batch_size, seed, augment, **options)


def same(some: list[Batch], other: list[Batch]) -> bool:
    return len(some) == len(other) and all(
        torch.equal(*pair) for mine, theirs in zip(some, other, strict=True) for pair in zip(mine, theirs, strict=True)
    )


def test_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    first, again = ([labels for _, labels in batches().epoch(3)] for _ in range(2))
    assert all(map(torch.equal, first, again))
    for other in (batches().epoch(4), batches(seed=1).epoch(3)):
        assert not all(torch.equal(mine, labels) for mine, (_, labels) in zip(first, other, strict=True))


def test_an_epoch_shows_every_example_at_most_once() -> None:
    seen = torch.cat([images for images, _ in batches().epoch(1)]).flatten(1)
    assert seen.shape == (1400, 64)
    # A few of scikit-learn's digits are equal to each other; an epoch shows nothing that the train set lacks.
    whole = torch.cat([images for images, _ in batches().evaluation("train")]).flatten(1)
    assert len(torch.unique(seen, dim=0)) >= len(torch.unique(whole, dim=0)) - 37


def test_images_and_labels_stay_together() -> None:
    source = digits.load()
    labels = {image.tobytes(): label for image, label in zip(source.train, source.train_labels, strict=True)}
    (mean,), (deviation,) = source.statistics()
    for images, found in batches().epoch(2):
        pixels = (images * deviation + mean).round().to(torch.uint8).numpy()
        assert [labels[image.tobytes()] for image in pixels] == found.tolist()


@pytest.mark.parametrize("start", [0, 1, 9, 13, 14])
def test_an_epoch_goes_on_from_any_batch(start: int) -> None:
    whole = list(batches(augment=True, cutout=3).epoch(5))
    assert len(whole) == 14
    assert same(list(batches(augment=True, cutout=3).epoch(5, start=start)), whole[start:])


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    first = list(batches(augment=True, cutout=3).epoch(1))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert same(list(batches(augment=True, cutout=3).epoch(1)), first)
    generator(1, 2)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("world", [2, 4, 5])
def test_ranks_share_every_batch_equally(world: int) -> None:
    parts = [list(batches(augment=True, cutout=3, rank=rank, world=world).epoch(2)) for rank in range(world)]
    joined = [
        tuple(torch.cat([part[number][which] for part in parts]) for which in (0, 1)) for number in range(len(parts[0]))
    ]
    assert same(joined, list(batches(augment=True, cutout=3).epoch(2)))
    assert {len(labels) for part in parts for _, labels in part} == {100 // world}


def test_every_rank_evaluates_everything() -> None:
    alone, shared = (list(batches(**options).evaluation("test")) for options in ({}, {"rank": 1, "world": 2}))
    assert same(alone, shared)
    assert sum(len(labels) for _, labels in alone) == 360


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^batch_size=100: give a multiple of 3, the number of processes$"):
        batches(world=3)


def test_training_images_are_normalised() -> None:
    whole = torch.cat([images for images, _ in batches().evaluation("train")])
    assert float(whole.mean()) == pytest.approx(0, abs=1e-5)
    assert float(whole.std()) == pytest.approx(1, abs=1e-3)


def test_evaluation_keeps_the_order() -> None:
    images, labels = (torch.cat(parts) for parts in zip(*batches().evaluation("test", size=50), strict=True))
    np.testing.assert_array_equal(labels, digits.load().test_labels)
    assert images.shape == (360, 1, 8, 8)


def test_evaluation_on_a_part_is_stratified_and_fixed() -> None:
    parts = [torch.cat([labels for _, labels in batches(seed).evaluation("train", 100)]) for seed in (0, 1)]
    assert torch.equal(*parts)
    assert set(torch.bincount(parts[0]).tolist()) <= {9, 10, 11}


def test_a_batch_larger_than_the_train_set_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^batch_size=1438: give at most 1437"):
        batches(batch_size=1438)


def test_images_live_on_the_device_only_where_they_fit() -> None:
    """The meta device stands for an accelerator: it holds no values, but knows where it is."""
    images, meta = digits.load(), torch.device("meta")
    size = images.train.nbytes + images.test.nbytes
    for limit, home in ((size, "meta"), (size - 1, "cpu")):
        placed = Batches(images, meta, 100, 0, limit=limit)
        assert placed.home.type == home
        for batch, labels in (*placed.epoch(1), *placed.evaluation("test", size=50)):
            assert batch.device.type == labels.device.type == "meta"
            assert batch.shape == (len(labels), 1, 8, 8)
            assert batch.dtype == torch.float32


def test_the_host_and_apples_gpu_have_room_for_what_they_hold_already() -> None:
    assert room(CPU) is None
    assert room(torch.device("mps")) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_equal_on_the_device_from_the_host_and_on_the_cpu() -> None:
    device = torch.device("cuda")
    assert 0 < (room(device) or 0) < torch.cuda.get_device_properties(device).total_memory
    expected = list(batches(augment=True, cutout=3).epoch(1))
    for limit in (None, 1):
        placed = Batches(digits.load(), device, 100, 0, augment=True, cutout=3, limit=limit)
        found = [(images.cpu(), labels.cpu()) for images, labels in placed.epoch(1)]
        for (images, labels), (mine, wanted) in zip(found, expected, strict=True):
            torch.testing.assert_close(images, mine, rtol=1e-6, atol=1e-6)
            assert torch.equal(labels, wanted)
