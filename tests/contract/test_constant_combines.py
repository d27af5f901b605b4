"""A combine whose coefficients are plain numbers: they reach the base in every path that can carry them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import fenland
from fenland import Combine


@dataclass(frozen=True)
class Half(Combine):
    """d = h / 2."""

    reads = frozenset()

    def __call__(self, g, h):
        return h * 0.5


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("max_norm", [None, 0.1])
def test_half_of_h_reaches_the_base(fused, many, max_norm):
    w, reference = (torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    options = {"rho": 0.1, "max_norm": max_norm}
    one = fenland.SharpnessAware(torch.optim.SGD([w], lr=0.2, fused=fused), combine=Half(), **options)
    two = fenland.SAM(torch.optim.SGD([reference], lr=0.1 if max_norm is None else 0.2), **options)

    def closure(p):
        def run():
            p.grad = p.detach() ** 3
            return torch.zeros(())

        return run

    for _ in range(3):
        one.step([closure(w)] if many else closure(w))
        two.step(closure(reference))
    torch.testing.assert_close(w, reference, rtol=1e-5, atol=1e-6)
