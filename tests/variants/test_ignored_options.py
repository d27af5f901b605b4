"""No option is ignored without a word: where another one leaves it without a meaning, it is refused or it acts."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import fenland
from fenland.rules import AdaptiveToNorm, Both, EveryK, InnerSteps, Window


def trained(build: Any, steps: int, base: Any = torch.optim.SGD, **options: Any) -> tuple[list[int], Any]:
    """How often each step called the closure, and the optimizer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    opt, x, calls = build(base(model.parameters(), lr=0.1), model=model, **options), torch.randn(8, 3).double(), []

    def closure() -> torch.Tensor:
        calls[-1] += 1
        opt.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        return loss

    for _ in range(steps):
        calls.append(0)
        opt.step(closure)
    return calls, opt


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("NStepSAM", {"step": 0.3}, 'step_size = 0.3 .*convention="project"'),
    ("NStepSAM", {"step": 0.3, "convention": "full"}, 'step_size = 0.3 .*convention="project"'),
    ("XSAM", {"rho_max": 0.5}, "rho_max = 0.5: belongs to the search"),
    ("XSAM", {"every": 7}, "every = 7: belongs to the search"),
    ("SSAM", {"normalize": False, "ball": fenland.L2()}, "normalize = False and ball"),
    ("WindowSAM", {"start": 10, "stop": 5}, "stop = 5: must be >= start = 10"),
    ("FriendlySAM", {"decay": 0.0, "average": "new"}, "decay = 0"),
]


@pytest.mark.parametrize(("name", "options", "text"), REFUSED)
def test_an_option_without_a_meaning_is_refused(name, options, text):
    with pytest.raises(ValueError, match=text):
        trained(getattr(fenland, name), 0, **options)


def test_where_it_has_a_meaning_it_is_taken():
    assert InnerSteps(2, "project", 0.3).step_size == 0.3
    assert Window(3, 3).stop == 3
    trained(fenland.NStepSAM, 1, step=0.3, convention="project")
    trained(fenland.XSAM, 1, rho_max=0.5, every=7, grid=(0.0, 1.0))
    trained(fenland.SSAM, 1, ball=fenland.Unnormalized())
    trained(fenland.FriendlySAM, 1, decay=0.0, average="new", sigma=0.5)


def test_the_offset_is_the_first_step_that_ascends():
    """EveryK(5, offset=7) ascended on step 2, which is 7 modulo 5."""
    assert trained(fenland.SAM, 13, when=EveryK(5, 7))[0] == [1] * 7 + [2] + [1] * 4 + [2]


def test_two_rules_that_would_share_their_moments_are_refused():
    with pytest.raises(ValueError, match="norm_mean, norm_var"):
        Both(AdaptiveToNorm(10), AdaptiveToNorm(10, delta=0.5))
    with pytest.raises(ValueError, match="norm_mean, norm_var"):
        Both(Both(EveryK(2), AdaptiveToNorm(10)), AdaptiveToNorm(10, delta=0.5))
    Both(EveryK(2), AdaptiveToNorm(10))


def test_a_search_comes_with_the_first_ascent_after_its_time():
    """With an offset that no multiple of `every` meets, the grid was never searched."""
    calls, opt = trained(fenland.XSAM, 12, grid=(0.0, 1.0, 3.0), every=4, when=EveryK(2, 1))
    assert calls == [1, 5, 1, 2] * 3
    assert opt.state_dict()["param_groups"][0]["fenland.searched"] == 9


def test_a_search_goes_on_in_time_after_a_checkpoint():
    _, opt = trained(fenland.XSAM, 3, grid=(0.0, 1.0), every=2)
    _, other = trained(fenland.XSAM, 0, grid=(0.0, 1.0), every=2)
    other.load_state_dict(opt.state_dict())
    want = trained(fenland.XSAM, 6, grid=(0.0, 1.0), every=2)[0]
    assert want == [4, 2] * 3
    assert other.state_dict()["param_groups"][0]["fenland.searched"] == 2


@pytest.mark.parametrize("base", [torch.optim.Adagrad, torch.optim.Rprop, torch.optim.ASGD])
def test_msam_over_a_base_that_keeps_no_momentum_says_so_once(base):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained(fenland.MSAM, 4, base)
    assert [base.__name__ in str(w.message) for w in caught if "keeps none" in str(w.message)] == [True]


@pytest.mark.parametrize("base", [torch.optim.Adam, torch.optim.Adamax])
def test_msam_over_a_base_with_a_first_moment_is_silent(base):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, opt = trained(fenland.MSAM, 4, base)
    assert float(opt.last.radius) == pytest.approx(0.3)


@pytest.mark.parametrize("zeroes", [False, True])
def test_a_full_norm_that_writes_to_the_gradients_is_refused(zeroes):
    """Its backward was added to the batch's gradient, and the ascent climbed along the sum."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1).double()
    x = torch.randn(8, 3).double()

    def full() -> float:
        if zeroes:
            opt.zero_grad(set_to_none=False)
        model(x).square().mean().backward()
        return 1.0

    opt = fenland.DNSAM(torch.optim.SGD(model.parameters(), lr=0.1), full_norm=full, model=model)
    before = model.weight.detach().clone()

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = model(x[:4]).square().sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="full_norm wrote to"):
        opt.step(closure)
    assert torch.equal(model.weight, before)


def test_fisher_s_ball_refuses_complex_parameters():
    """F = 1 + eta * g^2 of a complex g is no metric; its square root turned the ascent without a word."""
    w = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    with pytest.raises(ValueError, match="complex"):
        fenland.FisherSAM(torch.optim.SGD([w], lr=0.1))


@pytest.mark.parametrize("scope", ["all", "layer"])
def test_a_tensor_without_elements_is_no_layer_of_zsharp(scope):
    got = []
    for empty in ([], [nn.Parameter(torch.ones(0, 5))]):
        w = nn.Parameter(torch.arange(1.0, 31.0))
        opt = fenland.ZSharp(torch.optim.SGD([w, *empty], lr=0.01), scope=scope)

        def closure(w: nn.Parameter = w, empty: list[Any] = empty, opt: Any = opt) -> torch.Tensor:
            opt.zero_grad()
            loss = w.square().sum() + sum(x.sum() for x in empty)
            loss.backward()
            return loss

        opt.step(closure)
        got.append(w.detach().clone())
    assert torch.equal(*got)
