"""Replicas of few coordinates run on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread in here.

    A block of replicas is 16,384 numbers long. Two threads gain nothing on it, and where another process wants the
    cores they wait for each other at every operation: 250 s instead of 10 s for the quick quartic.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
