"""Augmentation against loops over single pixels and images."""

import pytest
import torch

from fenland.lab.data import Batches, digits
from fenland.lab.data.augment import PADDING, Augmentation, Draws
from fenland.lab.data.batches import generator
from fenland.lab.errors import BadInput

SHAPES = [(3, 8, 10), (1, 28, 28), (3, 17, 23)]


def augmentation(shape: tuple[int, int, int], way: str, monkeypatch: pytest.MonkeyPatch) -> Augmentation:
    """One that crops as it does on ``way``, a kind of device."""
    made = Augmentation(shape)
    crop = made._crop
    monkeypatch.setattr(made, "_crop", lambda _: crop(torch.device(way)))
    return made


@pytest.mark.parametrize("way", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_crop_and_flip_equal_a_loop(
    shape: tuple[int, int, int], dtype: torch.dtype, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, height, width = shape
    images = torch.randn(82, *shape, dtype=dtype)
    # Every offset, the ends among them.
    shifts = torch.cartesian_prod(torch.arange(2 * PADDING + 1), torch.arange(2 * PADDING + 1))
    shifts = torch.cat([shifts, shifts[:1]])
    flips = torch.arange(82) % 2 == 0
    got = augmentation(shape, way, monkeypatch)(images, Draws(shifts, flips, None))
    assert got.dtype == dtype
    for index in range(82):
        framed = torch.nn.functional.pad(images[index], (PADDING,) * 4)
        top, left = shifts[index].tolist()
        cut = framed[:, top : top + height, left : left + width]
        assert torch.equal(got[index], cut.flip(2) if flips[index] else cut)


@pytest.mark.parametrize("side", [1, 4, 5, 8])
def test_cutout_blanks_one_square_and_what_is_inside_of_it(side: int) -> None:
    images = torch.randn(80, 3, 8, 10)
    centres = torch.cartesian_prod(torch.arange(8), torch.arange(10))
    got = Augmentation((3, 8, 10), cutout=side)(images, Draws(None, None, centres))
    for index, (row, column) in enumerate(centres.tolist()):
        expected = images[index].clone()
        top, left = row - side // 2, column - side // 2
        expected[:, max(top, 0) : top + side, max(left, 0) : left + side] = 0
        assert torch.equal(got[index], expected)


def test_cutout_spares_the_share_that_it_is_not_given() -> None:
    images = torch.ones(4000, 1, 8, 8)
    half, whole = (Augmentation((1, 8, 8), crop_and_flip=False, cutout=4, share=share) for share in (0.5, 1.0))
    drawn, every = half.draw(4000, generator(0)), whole.draw(4000, generator(0))
    assert torch.equal(drawn.centres, every.centres)
    assert every.cut is None
    touched = (half(images, drawn) == 0).flatten(1).any(1)
    assert torch.equal(touched, drawn.cut)
    assert abs(int(touched.sum()) - 2000) < 6 * 1000**0.5
    assert torch.equal(half(images, drawn)[touched], whole(images, every)[touched])
    assert torch.equal(drawn.part(10, 20).cut, drawn.cut[10:20])


def test_draws_are_uniform_and_in_range() -> None:
    draws = Augmentation((3, 8, 10), cutout=4).draw(90_000, generator(0))
    for drawn, sides in ((draws.shifts, (9, 9)), (draws.centres, (8, 10))):
        assert drawn is not None
        for column, side in zip(drawn.unbind(1), sides, strict=True):
            counts = torch.bincount(column)
            assert len(counts) == side
            # Six standard deviations of a binomial count.
            assert (counts - 90_000 / side).abs().max() < 6 * (90_000 / side) ** 0.5
    assert draws.flips is not None
    assert abs(int(draws.flips.sum()) - 45_000) < 6 * 150


def test_what_is_off_does_nothing() -> None:
    images = torch.randn(4, 3, 8, 8)
    off = Augmentation((3, 8, 8), crop_and_flip=False)
    assert torch.equal(off(images, off.draw(4, generator(0))), images)


def test_augmented_epochs_repeat_and_differ() -> None:
    def first(epoch: int, **options: object) -> torch.Tensor:
        return next(Batches(digits.load(), torch.device("cpu"), 100, 0, **options).epoch(epoch))[0]

    one, again, other = (first(epoch, augment=True) for epoch in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    plain = first(1)
    assert one.shape == plain.shape
    assert not torch.equal(one, plain)


def test_cutout_alone_blanks_with_the_mean() -> None:
    def first(cutout: int) -> torch.Tensor:
        return next(Batches(digits.load(), torch.device("cpu"), 100, 0, cutout=cutout).epoch(1))[0]

    plain, cut = first(0), first(4)
    changed = plain != cut
    assert cut[changed].abs().max() == 0
    sizes = changed.flatten(1).sum(1)
    # A corner of the square at least, all of it at most; the digits have no pixel of the mean value.
    assert int(sizes.min()) >= 4
    assert int(sizes.max()) == 16


@pytest.mark.parametrize("cutout", [-1, 9])
def test_a_square_that_does_not_fit_is_refused(cutout: int) -> None:
    with pytest.raises(BadInput, match=rf"^cutout={cutout}: give 0 to 8 pixels, the smaller side of the images$"):
        Batches(digits.load(), torch.device("cpu"), 100, 0, cutout=cutout)
