"""New memory in one block, with the advice to use large pages: equal tensors, and the advice reaches the system."""

import mmap
import sys

import pytest
import torch

from fenland.algebra import fresh

linux = pytest.mark.skipif(fresh._madvise is None, reason="no madvise on this system")


@pytest.fixture
def advised(monkeypatch):
    """Every buffer counts as large; (address, bytes, advice) of each call."""
    calls = []
    real = fresh._madvise
    monkeypatch.setattr(fresh, "LARGE", 1)
    monkeypatch.setattr(fresh, "_madvise", lambda *given: calls.append((*given, real(*given))))
    return calls


def some(dtype=torch.float32):
    square = torch.randn(8, 3, 5, 5).to(dtype)
    return [torch.randn(7).to(dtype), square, square.to(memory_format=torch.channels_last), torch.zeros(0, dtype=dtype)]


@linux
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_tensors_of_one_block_are_as_those_they_stand_for(advised, dtype):
    xs = some(dtype)
    new = fresh.clones(xs)
    assert len(advised) == 1
    for x, y in zip(xs, new, strict=True):
        assert torch.equal(x, y)
        assert (x.dtype, x.stride(), x.requires_grad) == (y.dtype, y.stride(), False)
        assert y.data_ptr() % 64 == 0
    new[0].fill_(3)
    assert all(torch.equal(x, y) for x, y in zip(xs[1:], new[1:], strict=True)), "they do not overlap"


@linux
def test_the_advice_is_of_whole_pages_inside_the_block_and_is_taken(advised):
    (x,) = fresh.fresh_like([torch.zeros(3 << 20)])
    ((begin, length, advice, answer),) = advised
    assert begin % mmap.PAGESIZE == length % mmap.PAGESIZE == 0
    assert x.data_ptr() <= begin
    assert begin + length <= x.data_ptr() + x.nbytes
    assert length > x.nbytes - 2 * mmap.PAGESIZE
    assert advice == mmap.MADV_HUGEPAGE
    assert answer == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux keeps the account")
def test_large_pages_are_used_where_the_system_has_them():
    with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
        if "[never]" in file.read():
            pytest.skip("large pages are turned off")

    def in_large_pages():
        with open("/proc/self/smaps_rollup") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("AnonHugePages"))

    before = in_large_pages()
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, 64 << 20, flags=private) as plain:  # another way to the same memory
        plain.madvise(mmap.MADV_HUGEPAGE)
        plain.write(bytes(64 << 20))
        if in_large_pages() - before <= 32 << 10:
            pytest.skip("the system has no large pages left")
    before = in_large_pages()
    (x,) = fresh.fresh_like([torch.zeros(16 << 20)])
    x.fill_(1.0)
    assert in_large_pages() - before > 32 << 10, "most of 64 MiB"


def test_what_does_not_fit_one_block_is_allocated_one_by_one(advised):
    holes = torch.randn(6, 6)[:, ::2]
    for xs in ([holes], [torch.zeros(3), torch.zeros(3, dtype=torch.float64)], [torch.zeros(2, device="meta")], []):
        new = fresh.fresh_like(xs)
        assert [(x.shape, x.dtype, x.device) for x in new] == [(x.shape, x.dtype, x.device) for x in xs]
        assert all(x.untyped_storage().nbytes() == x.nbytes for x in new)
    assert not advised


def test_little_memory_is_not_asked_for_in_one_block():
    (x,) = fresh.fresh_like([torch.zeros(100)])
    assert x.untyped_storage().nbytes() == x.nbytes
