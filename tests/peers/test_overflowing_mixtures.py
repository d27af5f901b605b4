"""Finite gradients near the largest number of their dtype: weights stay finite, whatever a rule makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from peer_loops import WHOLE_LOSS, assert_same, build, fenland_state

POINT = 10
# From well inside the range to its very end.
SCALES = {
    torch.float16: [1e2, 1e4],
    torch.bfloat16: [1e21, 1e37],
    torch.float32: [1e18, 1e21, 1e30, 1e37],
    torch.float64: [1e150, 1e307],
}
CASES = [(dtype, scale) for dtype, scales in SCALES.items() for scale in scales]
cases = pytest.mark.parametrize(("dtype", "scale"), CASES, ids=[f"{str(d)[6:]} {s:.0e}" for d, s in CASES])


class Slopes(nn.Module):
    """L(w) = scale * sum(a w + sin(3 w)), whose gradient is of the size of `scale` at all weights."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(3)
        self.layer, self.norm = nn.Linear(3, 4), nn.LayerNorm(4)  # some methods move norm layers alone
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.rand(p.shape, generator=g))
        self.to(dtype)

    def fill(self, scale: float) -> None:
        """Every gradient by hand, so that the loss and its backward have no part in any overflow."""
        for p in self.parameters():
            slope = (
                0.5 + torch.arange(p.numel(), dtype=torch.float64).view_as(p) % 3 + 3 * (3 * p.detach().double()).cos()
            )
            p.grad = (slope * scale).to(p.dtype)
            assert p.grad.isfinite().all()


def take(
    preset: str, dtype: torch.dtype, scales: list[float], lr: float, **options: Any
) -> tuple[Slopes, Any, list[Any]]:
    model = Slopes(dtype)
    base = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.1)
    opt = build(preset, base, rho=0.05, model=model, **options)
    records = []
    for scale in scales:

        def closure(scale: float = scale) -> Tensor:
            opt.zero_grad()
            model.fill(scale)
            return torch.zeros(())

        opt.step(closure)
        records.append(opt.last)
    return model, opt, records


@pytest.mark.filterwarnings("ignore:.*(rounding|precision|bfloat16|float16).*:UserWarning")
@cases
@pytest.mark.parametrize("preset", WHOLE_LOSS)
def test_weights_stay_finite_and_a_skipped_step_changes_nothing(preset, dtype, scale):
    """g and h are finite. The step is taken with a finite d, or skipped as a whole; rule state stays finite too."""
    lr = 0.1 / scale
    model, opt, (first, second) = take(preset, dtype, [scale, scale], lr)
    start = Slopes(dtype)
    for p, q in zip(model.parameters(), start.parameters(), strict=True):
        assert p.isfinite().all()
        if bool(first.skipped) and bool(second.skipped):
            assert torch.equal(p, q)
    for name, value in fenland_state(opt).items():
        assert torch.as_tensor(value, dtype=torch.float64).isfinite().all(), name


@pytest.mark.filterwarnings("ignore:.*(rounding|precision|bfloat16|float16).*:UserWarning")
@pytest.mark.parametrize("preset", ["SAM", "SSAM", "GSAM", "GNP", "WSAM", "USAM", "LookSAM", "VaSSO", "FriendlySAM"])
@pytest.mark.parametrize("scale", [1e18, 1e21, 1e27, 1e30, 1e36])
def test_what_the_dtype_can_hold_is_not_skipped(preset, scale):
    """Where |alpha| |g| + |beta| |h| is below the largest float32, d equals that of float64, and no step is lost."""
    results = {}
    options = {"rho": 0.05} if preset != "USAM" else {"rho": 0.05 / scale}
    for dtype in (torch.float32, torch.float64):
        model = Slopes(dtype)
        opt = build(preset, torch.optim.SGD(model.parameters(), lr=0.1 / scale), model=model, **options)

        def closure(model: nn.Module = model, opt: Any = opt) -> Tensor:
            opt.zero_grad()
            model.fill(scale)
            return torch.zeros(())

        opt.step(closure)
        assert not bool(opt.last.skipped), dtype
        results[dtype] = {name: p.detach().double() for name, p in model.named_parameters()}
    assert_same(results[torch.float32], results[torch.float64], 1e-5)


@pytest.mark.parametrize("preset", ["GSAM", "GNP", "WSAM", "LookSAM", "VaSSO", "FriendlySAM", "SSAM", "ControlSAM"])
def test_training_goes_on_after_an_overflow(preset):
    """A step at the end of float32's range, then ordinary ones: nothing of the first poisons the others."""
    model, _, records = take(preset, torch.float32, [3e37, 1.0, 1.0], 1e-3)
    assert all(p.isfinite().all() for p in model.parameters())
    assert not any(bool(r.skipped) for r in records[1:])


@pytest.mark.parametrize("preset", WHOLE_LOSS)
def test_clipping_at_the_end_of_the_range(preset):
    """max_norm= is applied to a finite d of any size, without an infinite intermediate."""
    max_norm = 1.0
    model, _, (record,) = take(preset, torch.float32, [1e36], 1.0, max_norm=max_norm)
    pairs = zip(model.parameters(), Slopes(torch.float32).parameters(), strict=True)
    moved = torch.cat([(p - q).detach().flatten().double() for p, q in pairs])
    assert moved.isfinite().all()
    bound = 10 * max_norm if preset == "WSAM" else 1.001 * max_norm + 1e-6
    assert bool(record.skipped) or preset == "WSAM" or float(moved.norm()) <= bound
