"""What a joint step is told is used or refused: options, hooks, samples, a search, and a scaler without gradients."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fenland

FORMS = ["joint", "each"]


def model_of() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def parts(model: nn.Sequential, one: Any = fenland.SAM, two: Any = fenland.SAM, **of: Any) -> list[Any]:
    return [
        build(torch.optim.SGD(model[i].parameters(), lr=0.1), rho=0.1, model=model, **of.get(name, {}))
        for name, build, i in (("first", one, 0), ("second", two, 2))
    ]


def closure_of(model: nn.Module, opts: list[Any], scaler: Any = None, factor: float = 1.0) -> Any:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)).double()

    def closure() -> Tensor:
        for opt in opts:
            opt.zero_grad()
        loss = factor * model(x).square().sum()
        (loss if scaler is None else scaler.scale(loss)).backward()
        return loss.detach()

    return closure


@pytest.mark.parametrize(
    ("name", "value"), [("max_norm", 0.01), ("nonfinite", "raise"), ("perturb", "inplace"), ("record_every", 2)]
)
@pytest.mark.parametrize("which", ["first", "second"])
def test_an_option_of_one_of_them_is_refused_under_one_norm_and_kept_under_each(name, value, which):
    model = model_of()
    opts = parts(model, **{which: {name: value}})
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=rf"{name} = .*norm=\"each\""):
        fenland.step_together(opts, closure_of(model, opts))
    assert all(torch.equal(x, before[key]) for key, x in model.state_dict().items())
    fenland.step_together(opts, closure_of(model, opts), norm="each")


def test_an_option_of_all_is_used():
    model = model_of()
    opts = parts(model, first={"max_norm": 0.01}, second={"max_norm": 0.01})
    before = [p.detach().clone() for p in model.parameters()]
    fenland.step_together(opts, closure_of(model, opts))
    moved = [(p.detach() - w).square().sum() for p, w in zip(model.parameters(), before, strict=True)]
    assert float(sum(moved).sqrt()) == pytest.approx(0.1 * 0.01, rel=1e-4)


@pytest.mark.parametrize("norm", FORMS)
def test_a_pre_hook_may_replace_the_closure_and_post_hooks_see_it(norm):
    model = model_of()
    opts = parts(model)
    plain, replaced, seen = closure_of(model, opts), [], []

    def other() -> Tensor:
        replaced.append(1)
        return plain()

    opts[0].register_step_pre_hook(lambda opt, args, kwargs: ((args[0], other), kwargs))
    opts[1].register_step_post_hook(lambda opt, args, kwargs: seen.append(args[1]))
    fenland.step_together(opts, plain, norm=norm)
    assert len(replaced) == 2
    assert seen == [other]


@pytest.mark.parametrize("norm", FORMS)
def test_a_scheduler_on_one_of_them_has_seen_its_step(norm):
    model = model_of()
    opts = parts(model)
    scheduler = torch.optim.lr_scheduler.StepLR(opts[0], 1, gamma=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fenland.step_together(opts, closure_of(model, opts), norm=norm)
        scheduler.step()
    assert opts[0].param_groups[0]["lr"] == 0.05


def test_a_step_without_any_gradient_is_said_once():
    model = model_of()
    opts = parts(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            fenland.step_together(opts, lambda: None)
    assert [str(w.message)[:22] for w in caught] == ["no parameter of the op"]


@pytest.mark.parametrize("norm", FORMS)
@pytest.mark.parametrize("overflows", [False, True])
def test_a_scaler_and_an_optimizer_that_is_frozen_for_now(norm, overflows):
    """GradScaler.step asserts where it has seen no gradient: the first base had stepped by then, the second not."""
    model, want = model_of(), model_of()
    for net in (model, want):
        net[2].requires_grad_(False)
    opts, plain = parts(model), parts(want)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    factor = float("inf") if overflows else 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fenland.step_together(opts, closure_of(model, opts, scaler, factor), scaler=scaler, norm=norm)
        fenland.step_together(plain, closure_of(want, plain, factor=factor), norm=norm)
    scaler.update()
    assert scaler.get_scale() == (2.0 if overflows else 4.0)
    for p, q in zip(model.parameters(), want.parameters(), strict=True):
        assert torch.equal(p, q)
    assert [opt.state_dict()["param_groups"][0]["fenland.count"] for opt in opts] == [int(not overflows)] * 2


@pytest.mark.parametrize("pair", [("KSAM", "SAM"), ("SAM", "KSAM"), ("KSAM", "ESAM")])
def test_methods_that_choose_samples_are_the_same_or_refused(pair):
    """The passes are shared, so the samples of one would be everybody's."""
    model = model_of()
    opts = parts(model, *(getattr(fenland, name) for name in pair))
    with pytest.raises(ValueError, match="chooses the samples"):
        fenland.step_together(opts, lambda: model(torch.ones(4, 3).double()).square().sum(1), norm="each")


def test_other_shares_of_samples_are_refused_too():
    model = model_of()
    opts = parts(model, fenland.KSAM, fenland.KSAM, first={"descent": 0.2}, second={"descent": 0.9})
    with pytest.raises(ValueError, match="chooses the samples"):
        fenland.step_together(opts, lambda: model(torch.ones(4, 3).double()).square().sum(1), norm="each")


@pytest.mark.parametrize("other", ["SAM", "SSAM", "NStepSAM"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("to_none", [True, False])
def test_a_search_of_one_leaves_the_gradients_of_the_other(other, turned, to_none):
    """Each look of XSAM's search runs backward over all: the other's d was the gradient of the last look."""
    got = []
    for grid in ((), (0.0, 0.7, 2.0)):
        model = model_of()
        opts = parts(model, fenland.XSAM, getattr(fenland, other), first={"grid": grid})
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)).double()

        def closure(model: Any = model, opts: Any = opts, x: Tensor = x) -> Tensor:
            for opt in opts:
                opt.zero_grad(to_none)
            loss = model(x).square().sum()
            loss.backward()
            return loss.detach()

        fenland.step_together(opts[::-1] if turned else opts, closure, norm="each")
        got.append([p.detach().clone() for p in model[2].parameters()])
    for p, q in zip(*got, strict=True):
        assert torch.equal(p, q)
