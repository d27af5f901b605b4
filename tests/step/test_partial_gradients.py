"""Passes that reach different parameters (stochastic depth, mixtures): d is that of gradients filled up with zeros."""

import pytest
import torch

import fenland
from fenland.algebra import Leaf, Lists
from harness import Recorder

# One shape for all: where an order is mixed up, nothing but the numbers says so.
REACHED = {
    "the same": ("abc", "abc"),
    "fewer at w + e": ("abc", "b"),
    "fewer at w": ("b", "abc"),
    "the last at w": ("cb", "abc"),
    "some each": ("ab", "ca"),
    "others": ("b", "ac"),
}
COMBINES = [
    fenland.AtAscentPoint(),
    fenland.Penalty(),
    fenland.Penalty(0.5, True),
    fenland.SurrogateGap(),
    fenland.SurrogateGap(0.4, False),
    fenland.Weighted(0.8),
    fenland.Spherical(0.7),
    fenland.Control(),
    fenland.Control("h", "g"),
]
NAMES = "abcd"  # no pass reaches d


def fields():
    draw = torch.Generator().manual_seed(0)
    return [{name: torch.randn(3, generator=draw, dtype=torch.float64) for name in NAMES} for _ in range(2)]


def stepped(reached, **options):
    """(what the base was handed, weights before and after, the optimizer) of one step with these two gradients."""
    params = {name: torch.nn.Parameter(torch.zeros(3, dtype=torch.float64)) for name in NAMES}
    base, calls = Recorder(params.values(), lr=0.1), []
    opt = fenland.SharpnessAware(base, 0.3, **options)

    def closure():
        opt.zero_grad()
        for name in reached[len(calls)]:
            params[name].grad = fields()[len(calls)][name].clone()
        calls.append(1)
        return torch.zeros(())

    opt.step(closure)
    return base.handed[0], params, opt


def filled(reached):
    """Both gradients over a, b, c, zero where a pass did not reach."""
    none = torch.zeros(3, dtype=torch.float64)
    passes = zip(fields(), reached, strict=True)
    return [Leaf([field[n] if n in names else none for n in "abc"], Lists()) for field, names in passes]


def close(handed, wanted):
    for name, x, y in zip("abc", handed, wanted, strict=False):
        if x is None:  # no pass of those that d is made of reached it
            assert not y.any()
        else:
            torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14, msg=lambda m, n=name: f"{n}: {m}")
    assert handed[3] is None


@pytest.mark.parametrize("reached", REACHED.values(), ids=REACHED)
@pytest.mark.parametrize("combine", COMBINES, ids=repr)
@pytest.mark.parametrize("stable", [False, True])
def test_what_a_pass_did_not_reach_is_zero_in_it(reached, combine, stable):
    method = fenland.Ascend(combine=combine)
    handed, _, _ = stepped(reached, method=fenland.Renormalize(method) if stable else method)
    g, h = filled(reached)
    d = combine(g, h)
    close(handed, (d * (g.norm / d.norm)).tensors if stable else d.tensors)


@pytest.mark.parametrize("reached", REACHED.values(), ids=REACHED)
def test_a_correction_too(reached):
    handed, params, _ = stepped(reached, method=fenland.WeightedDecoupled(0.8))
    g, h = filled(reached)
    close(handed, g.tensors)
    for name, x, y in zip("abc", g.tensors, h.tensors, strict=True):
        torch.testing.assert_close(params[name].detach(), -0.1 * x - 0.1 * 4 * (y - x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reached", REACHED.values(), ids=REACHED)
def test_what_is_kept_too(reached):
    """LookSAM's v over all that either pass reached."""
    _, params, opt = stepped(reached, method=fenland.Reuse())
    g, h = filled(reached)
    for name, x in zip("abc", (h - g * (h.dot(g) / g.norm**2)).tensors, strict=True):
        kept = opt._memory.kept.get(params[name], {})
        if kept:
            (found,) = kept.values()
            torch.testing.assert_close(found, x, rtol=1e-12, atol=1e-14)
        else:
            assert not x.any()
