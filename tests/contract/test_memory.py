"""DESIGN section 4: w + e lives in g's buffer, nothing is left between steps. By the allocator's own account."""

from pathlib import Path

import pytest
import torch

import fenland
from fenland.lab.bench.memory import Account, of_preset, page_row

ROOT = Path(__file__).parents[2]
ROWS = list(fenland.PRESETS.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_the_table_of_memory_is_what_is_measured(row):
    """docs/memory.md, row by row; what the preset declares between steps is there, no more."""
    found = of_preset(row.name)
    assert f"| {' | '.join(page_row(row.name, found))} |" in (ROOT / "docs" / "memory.md").read_text()
    assert found.kept == pytest.approx(row.kept, abs=0.01)
    rules = rules_of(row)
    climbs_along_g = type(getattr(rules.method, "source", fenland.Gradient())) is fenland.Gradient
    climbs_along_g = climbs_along_g and not isinstance(rules.method, fenland.AtRandomPoint | fenland.BaseMomentum)
    plain = climbs_along_g and not isinstance(rules.ball, HUNGRY) and not row.kept
    if plain and found.ascent is not None:
        assert found.ascent <= row.in_step + 0.3  # scratch of a rule, tensor by tensor
        assert found.peak <= row.in_step + 1.3


HUNGRY = (fenland.Lp, fenland.Sparse, fenland.ZScore, fenland.Riemannian, fenland.Spectral)


def rules_of(row):
    base = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1, momentum=0.9)
    given = {"full_norm": lambda: 1.0, "total_steps": 10}
    if row.name == "SAMON":
        return fenland.SAM(base).rules
    return row.build(base, **{need: given[need] for need in row.needs}).rules


@pytest.mark.parametrize("name", ["SAM", "USAM", "SSAM", "SSAM-U"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_an_ascent_in_l2_allocates_nothing(name, clip):
    found = of_preset(name, max_norm=clip)
    assert found.ascent < 0.01
    assert found.peak < 1.01


@pytest.mark.parametrize("name", ["GSAM", "GNP", "ControlSAM"])
def test_a_combine_that_keeps_g_holds_one_more_buffer(name):
    found = of_preset(name)
    assert found.ascent == pytest.approx(1, abs=0.02)
    assert found.peak == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("perturb", ["inplace", "offload"])
def test_a_saved_copy_costs_as_much_as_a_move(perturb):
    """Nothing is scratch beside the copy: g's buffer is used up for e. (On a CPU the host's memory is the same one.)"""
    found = of_preset("SAM", perturb=perturb)
    assert found.ascent == pytest.approx(1, abs=0.02)
    assert found.peak == pytest.approx(1, abs=0.02)


def test_the_account_counts():
    with Account() as account:
        with torch.profiler.record_function("all of it"):
            x = torch.ones(1000)
            del x
            y = torch.ones(500)
        with torch.profiler.record_function("a little"):
            z = torch.ones(10)
    assert account.peak("all of it") >= 4000
    assert account.peak("all of it") < 6000
    assert 40 <= account.peak("a little") < 400
    assert account.peak("nothing") == 0
    assert y.numel() + z.numel() == 510
