"""New memory for whole models, in large pages where the system has them.

What a step allocates it writes once and frees. On a CPU the C library gives such memory back to the system, so that
the next step's first write meets a page fault every 4 KiB, which costs several times the writing itself. One block for
all tensors and one advice to Linux make that a fault every 2 MiB (docs/decisions/0013).
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

LARGE = 8 << 20  # bytes: a block of four large pages; below, faults cost little
_LINE = 64  # bytes: what torch aligns its own allocations to


def fresh_like(xs: Sequence[Tensor]) -> list[Tensor]:
    """Uninitialised tensors of the shapes, dtypes, strides and devices of `xs`; on a CPU they may share one block."""
    if not _fit_one_block(xs):
        return [torch.empty_like(x) for x in xs]
    line = _LINE // xs[0].itemsize
    ends = list(accumulate(-(-x.numel() // line) * line for x in xs))
    block = torch.empty(ends[-1], dtype=xs[0].dtype)
    _advise(block)
    return [block.as_strided(x.shape, x.stride(), at) for x, at in zip(xs, [0, *ends], strict=False)]


def clones(xs: Sequence[Tensor]) -> list[Tensor]:
    """Copies of `xs`, in fresh memory."""
    new = fresh_like(xs)
    torch._foreach_copy_(new, list(xs))
    return new


def _fit_one_block(xs: Sequence[Tensor]) -> bool:
    """Whether advice helps: Linux, much memory, and tensors that fill theirs without holes."""
    return (
        _madvise is not None
        and sum(x.nbytes for x in xs) >= LARGE
        and all(x.is_cpu and x.dtype == xs[0].dtype and _is_dense(x) for x in xs)
    )


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))


def _advise(block: Tensor) -> None:
    """Ask for large pages under the block; where the system has none nothing changes."""
    begin = -(-block.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (block.data_ptr() + block.nbytes - begin) // mmap.PAGESIZE * mmap.PAGESIZE
    _madvise(begin, length, mmap.MADV_HUGEPAGE)  # type: ignore[misc]


def _find_madvise() -> Callable[[int, int, int], int] | None:
    if not sys.platform.startswith("linux") or not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    try:
        found = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    found.restype = ctypes.c_int
    return found


_madvise = _find_madvise()
