"""What a row says that it costs: host synchronisations as they would be on an accelerator with a fused base."""

import pytest
import torch
import torch.nn.functional as F
from test_contract import MODEL, ROWS, make
from torch.utils._python_dispatch import TorchDispatchMode

import fenland

SYNCS = ("aten._local_scalar_dense", "aten.equal", "aten.nonzero", "aten.is_nonzero")


class Counting(TorchDispatchMode):
    """Counts the calls that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += str(func.overloadpacket) in SYNCS
        return func(*args, **(kwargs or {}))


def syncs(row, steps: int = 3, **options) -> int:
    """The most of one step, after the first: the CPU plays a device, so the host must not look at numbers."""
    session = make(row, "mlp", "adamw_fused", dtype=torch.float32, **options)
    session.step(0)
    session.opt._runner.on_host = False
    found = []
    for t in range(1, steps + 1):
        with Counting() as counting:
            session.step(t)
        found.append(counting.count)
    return max(found)


@pytest.fixture(autouse=True)
def norms_without_a_look(monkeypatch):
    """On a CPU the algebra looks at norms (float32's range, no length); on a device it does not."""
    from fenland.algebra.base import Algebra

    monkeypatch.setattr(Algebra, "looks", False)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_host_synchronisations_are_those_of_the_row(row):
    assert syncs(row, 6) == row.syncs


@pytest.mark.parametrize("row", [r for r in ROWS if r.kept or r.closure_calls == 1], ids=lambda r: r.name)
def test_between_steps_only_what_the_row_keeps(row):
    """No parameter-sized tensor is left over in the optimizer's own hands."""
    session = make(row, MODEL).run(4)
    size = sum(p.numel() for p in session.problem.model.parameters())
    held = sum(x.numel() for row_ in session.opt._memory.kept.values() for x in row_.values())
    assert held == row.kept * size


def test_a_per_sample_closure_that_takes_the_indices_computes_only_those():
    """K-SAM's saving: pass 2 gets the chosen samples; the step is the same as without."""
    row = fenland.PRESETS["KSAM"]
    whole, part = make(row, "mlp"), make(row, "mlp")
    seen = []

    def closure(keep=None):
        part.opt.zero_grad()
        x, y = part.problem.x[part.problem.batch], part.problem.y[part.problem.batch]
        if keep is not None:
            x, y = x[keep], y[keep]
        seen.append(len(y))
        return F.cross_entropy(part.problem.model(x), y, reduction="none")

    for t in range(3):
        whole.step(t)
        part.problem.start(t)
        part.opt.step(closure)
    for a, b in zip(whole.weights, part.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    assert seen == [8, 4] * 3


@pytest.mark.parametrize("name", ["KSAM", "ESAM"])
def test_a_closure_that_is_not_per_sample_is_refused(name):
    session = make(fenland.PRESETS[name], "mlp")
    with pytest.raises(ValueError, match=r"losses, shape \(B,\)"):
        session.opt.step(lambda: session.problem.loss().mean())
