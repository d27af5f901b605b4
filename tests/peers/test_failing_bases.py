"""A step that fails in the base leaves the base as it would have left itself, and everything of fenland's as before."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fenland
from peer_loops import (
    FORMS,
    TWO_CALLS,
    WHOLE_LOSS,
    assert_fenland_state,
    assert_same,
    build,
    closure_for,
    counted,
    fenland_state,
    loss_of,
    net,
)

POINT = 9
ERRORS = [torch.OutOfMemoryError, KeyboardInterrupt, SystemExit, ValueError]


class Fragile(torch.optim.SGD):
    """SGD that fails where it is told to: "begin", "middle" (half of the parameters are updated) or "end"."""

    fails: str | None = None
    error: type[BaseException] = ValueError

    def step(self, closure: Any = None) -> Any:
        self.entered = getattr(self, "entered", 0) + 1
        if self.fails == "begin":
            raise self.error("injected")
        if self.fails == "middle":
            whole = self.param_groups[0]["params"]
            self.param_groups[0]["params"] = whole[: len(whole) // 2]
            try:
                super().step()
            finally:
                self.param_groups[0]["params"] = whole
            raise self.error("injected")
        value = super().step(closure)
        if self.fails == "end":
            raise self.error("injected")
        return value


def fragile(model: nn.Module) -> Fragile:
    return Fragile(model.parameters(), lr=0.1, momentum=0.9)


def breaks(error: type[BaseException]) -> Callable[..., None]:
    def hook(*args: Any) -> None:
        raise error("injected")

    return hook


def inject(where: str, opt: Any, error: type[BaseException]) -> Callable[[], None]:
    """Make the next hand-over fail at `where`; returns what repairs it."""
    if where in ("begin", "middle", "end"):
        opt.base.fails, opt.base.error = where, error

        def repair() -> None:
            opt.base.fails = None

        return repair
    register = {
        "base's pre-hook": opt.base.register_step_pre_hook,
        "base's post-hook": opt.base.register_step_post_hook,
        "own pre-hook": opt.register_step_pre_hook,
    }[where]
    return register(breaks(error)).remove


WHERE = ["begin", "middle", "end", "base's pre-hook", "base's post-hook", "own pre-hook"]


def begin(preset: str, **options: Any) -> tuple[nn.Module, Any]:
    """After two good steps, so that every kept vector is there."""
    model = net()
    opt = build(preset, fragile(model), rho=0.1, model=model, **options)
    torch.manual_seed(8)
    for t in range(2):
        opt.step(closure_for(opt, lambda t=t: loss_of(model, t)))
    opt.zero_grad()
    return model, opt


def buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: b.clone() for name, b in model.named_buffers()}


@pytest.mark.parametrize("preset", WHOLE_LOSS)
@pytest.mark.parametrize("where", ["begin", "end", "base's pre-hook"])
def test_what_is_fenland_s_is_as_before_the_step(preset, where):
    """Buffers, generators, count and rule state, in the closure form, which sees the whole step."""
    model, opt = begin(preset)
    before, state, rng = buffers(model), fenland_state(opt), torch.get_rng_state()
    radii = [g["rho"] for g in opt.param_groups]
    inject(where, opt, ValueError)
    with pytest.raises(ValueError, match="injected"):
        opt.step(closure_for(opt, lambda: loss_of(model, 2)))
    assert_same(buffers(model), before)
    assert_fenland_state(opt, state)
    assert [g["rho"] for g in opt.param_groups] == radii
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize("preset", ["SAM", "SSAM", "VaSSO", "LookSAM", "FriendlySAM", "AESAM", "WSAM"])
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("form", ["two calls", "block"])
def test_the_two_call_form_too(preset, where, form):
    """descend() fails: buffers and generators are as before the first forward of the step."""
    model, opt = begin(preset)
    before, state, rng = buffers(model), fenland_state(opt), torch.get_rng_state()
    inject(where, opt, ValueError)
    with pytest.raises(ValueError, match="injected"):
        FORMS[form](opt, lambda: loss_of(model, 2))
    assert_same(buffers(model), before)
    assert_fenland_state(opt, state)
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize("preset", ["SAM", "SSAM", "GSAM", "VaSSO", "WSAM"])
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("form", FORMS)
def test_weights_and_base_state_are_as_the_plain_base_leaves_them(preset, where, form):
    """The same base, with the same d and the same failure, without fenland around it."""
    model, opt = begin(preset)
    other = copy.deepcopy(model)
    alone = fragile(other)
    alone.load_state_dict(copy.deepcopy(opt.base.state_dict()))
    handed: list[Any] = []
    if where != "own pre-hook":
        # Registered before the injected hook, so that it sees d first.
        opt.base.register_step_pre_hook(lambda *a: handed.append([p.grad.clone() for p in model.parameters()]))
    inject(where, opt, ValueError)
    with pytest.raises(ValueError, match="injected"):
        FORMS[form](opt, lambda: loss_of(model, 2))
    if handed:
        for p, d in zip(other.parameters(), handed[0], strict=True):
            p.grad = d
        if where in ("begin", "middle", "end"):
            alone.fails = where
        elif where == "base's pre-hook":
            alone.register_step_pre_hook(breaks(ValueError))
        else:
            alone.register_step_post_hook(breaks(ValueError))
        with pytest.raises(ValueError, match="injected"):
            alone.step()
    for (name, got), want in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(got, want), name
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(opt.state[p]["momentum_buffer"], alone.state[q]["momentum_buffer"])


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", ["begin", "base's pre-hook", "own pre-hook"])
def test_the_step_can_be_taken_again(error, form, where):
    """Nothing was updated yet: after the repair, the run is the one that never failed."""
    results = []
    for fails in (False, True):
        model, opt = begin("VaSSO")
        if fails:
            repair, rng = inject(where, opt, error), torch.get_rng_state()
            with pytest.raises(error):
                FORMS[form](opt, lambda m=model: loss_of(m, 2))
            repair()
            opt.zero_grad()
            if where == "own pre-hook" and form == "closure":
                torch.set_rng_state(rng)
        for t in (2, 3):
            FORMS[form](opt, lambda t=t, m=model: loss_of(m, t))
        results.append({**model.state_dict(), "rng": torch.get_rng_state()})
    assert_same(results[1], results[0])


@pytest.mark.parametrize("form", FORMS)
def test_callables_of_the_step_see_the_same_step_again(form):
    """The count is fenland's: a radius that depends on it is asked for the same number after a failure."""
    model = net()
    asked: list[int] = []
    opt = fenland.SAM(fragile(model), rho=lambda t: asked.append(t) or 0.1, model=model)
    FORMS[form](opt, lambda: loss_of(model))
    repair = inject("begin", opt, ValueError)
    asked.clear()
    with pytest.raises(ValueError, match="injected"):
        FORMS[form](opt, lambda: loss_of(model))
    failed = set(asked)
    repair()
    asked.clear()
    opt.zero_grad()
    FORMS[form](opt, lambda: loss_of(model))
    assert set(asked) == failed == {1}


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("where", WHERE)
def test_m_sam_and_other_generators_too(many, where):
    """numpy's and Python's generators, which closures use for augmentation, are brought back with torch's."""
    model, opt = begin("VaSSO")

    def loss() -> torch.Tensor:
        np.random.rand()  # noqa: NPY002
        random.random()
        return loss_of(model, 2)

    before = [buffers(model), torch.get_rng_state(), np.random.get_state()[2], random.getstate()]  # noqa: NPY002
    state = fenland_state(opt)
    inject(where, opt, ValueError)
    closure = closure_for(opt, loss)
    with pytest.raises(ValueError, match="injected"):
        opt.step([closure, closure] if many else closure)
    assert_same(buffers(model), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    assert np.random.get_state()[2] == before[2]  # noqa: NPY002
    assert random.getstate() == before[3]
    assert_fenland_state(opt, state)


# Ctrl-C comes anywhere


class Interrupt:
    """Raises KeyboardInterrupt at the n-th line that runs in fenland's engine; n = None only counts."""

    def __init__(self, n: int | None) -> None:
        self.n, self.lines = n, 0
        self.home = str(Path(fenland.__file__).parent)

    def __call__(self, frame: Any, event: str, arg: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(self.home):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.n:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self

    def run(self, act: Callable[[], None]) -> None:
        sys.settrace(self)
        try:
            act()
        finally:
            sys.settrace(None)


@pytest.mark.parametrize("preset", ["SSAM", "VaSSO", "GSAM"])
@pytest.mark.parametrize("form", ["closure", "block"])
def test_an_interrupt_at_any_line_leaves_a_step_undone_or_done(preset, form):
    """Before the base is entered all is as before the step; after it returned, a step was taken or rolled back."""
    model, opt = begin(preset)
    start = copy.deepcopy((model.state_dict(), opt.state_dict()))
    rng = torch.get_rng_state()
    whole = Interrupt(None)

    phase: list[str] = []

    def once() -> None:
        if form == "closure":
            opt.step(closure_for(opt, lambda: loss_of(model, 2)))
            return
        phase.append("the loop's own pass 1")
        loss_of(model, 2).backward()
        phase.append("the step")
        with opt.ascent():
            loss_of(model, 2).backward()

    whole.run(once)
    done = {**model.state_dict(), "rng": torch.get_rng_state()}
    done = {k: v.clone() for k, v in done.items()}
    counts = fenland_state(opt)
    assert whole.lines > 50
    chosen = sorted(random.Random(1).sample(range(1, whole.lines + 1), 60))
    for n in chosen:
        model.load_state_dict(start[0])
        opt.load_state_dict(copy.deepcopy(start[1]))
        opt.zero_grad()
        torch.set_rng_state(rng)
        opt.base.entered = 0
        before = {k: v.clone() for k, v in {**model.state_dict(), "rng": rng}.items()}
        state = fenland_state(opt)
        with pytest.raises(KeyboardInterrupt):
            Interrupt(n).run(once)
        now = {**model.state_dict(), "rng": torch.get_rng_state()}
        if phase[-1:] == ["the loop's own pass 1"]:  # its forward has counted and drawn, and no step was begun
            now.update({k: before[k] for k in (*buffers(model), "rng")})
        if form == "block" and torch.equal(now["rng"], done["rng"]):  # no step was begun either: all as after pass 1
            before.update({k: done[k] for k in (*buffers(model), "rng")})
        if not opt.base.entered:
            assert_same(now, before)
            assert_fenland_state(opt, state)
            continue
        weights = {k: v for k, v in now.items() if k in dict(model.named_parameters())}
        steady = {k: v for k, v in now.items() if k not in weights}
        assert_same(weights, {k: done[k] for k in weights})
        undone = all(torch.equal(v, before[k]) for k, v in steady.items())
        assert_fenland_state(opt, state if undone and fenland_state(opt).get("group 0 fenland.count") == 2 else counts)
        assert undone or all(torch.equal(v, done[k]) for k, v in steady.items()), f"line {n}: half of a step"
    opt.zero_grad()
    once()


@pytest.mark.parametrize("preset", TWO_CALLS)
def test_a_failure_leaves_no_ascent_behind(preset):
    model, opt = begin(preset)
    repair = inject("begin", opt, KeyboardInterrupt)
    loss_of(model).backward()
    opt.ascend()
    loss_of(model).backward()
    with pytest.raises(KeyboardInterrupt):
        opt.descend()
    repair()
    with pytest.raises(RuntimeError, match=r"ascend\(\)"):
        opt.descend()
    opt.state_dict()
    seen = counted(model)
    opt.step(closure_for(opt, lambda: loss_of(model, 2)))
    assert counted(model) == seen + 1
