"""How much code a step runs: our calls, how many go from file to file, how many files, and operations on tensors.

A step is read by people and its calls are paid for by small models, so these numbers may fall but not grow. They are
those of one closure step with four tensors and `model=`, after the first steps, without the closure and without the
base's own step.
"""

import gc
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import fenland
from module_hooks import any_global_hook

# The most that a step may cost, as measured. Where one falls, write the new number; where one must grow, say why.
MOST = {
    "SAM": {"calls": 107, "across": 71, "files": 16, "depth": 12, "operations": 23},
    "SSAM": {"calls": 118, "across": 77, "files": 17, "depth": 13, "operations": 28},
    "GSAM": {"calls": 172, "across": 84, "files": 18, "depth": 16, "operations": 62},
}
OURS = str(Path(fenland.__file__).parent)
OLDER_TORCH = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13)
COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>")  # from Python 3.12 on they are no calls


@dataclass
class Calls:
    """A profiler that counts calls of functions of ours, wherever they are called from."""

    calls: int = 0
    across: int = 0
    depth: int = 0
    files: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)

    def __call__(self, frame, event, _):
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(OURS) or code.co_name in COMPREHENSIONS:
            return
        callers = list(_our_callers(frame))
        self.calls += 1
        self.across += bool(callers) and callers[0] != code.co_filename
        self.depth = max(self.depth, len(callers) + 1)
        self.files.add(code.co_filename)
        self.told.append(f"{'  ' * len(callers)}{Path(code.co_filename).stem}.{code.co_name}")


def _our_callers(frame):
    """The files of our functions that are running, the innermost first."""
    frame = frame.f_back
    while frame is not None:
        if frame.f_code.co_filename.startswith(OURS) and frame.f_code.co_name not in COMPREHENSIONS:
            yield frame.f_code.co_filename
        frame = frame.f_back


class Operations(TorchDispatchMode):
    """Counts operations on tensors, except where `quiet`."""

    def __init__(self):
        super().__init__()
        self.quiet, self.told = False, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not self.quiet and func.namespace == "aten":
            self.told.append(str(func))
        return func(*args, **(kwargs or {}))


def setting(build):
    """An optimizer that has taken three steps, and its closure."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    x, y = torch.randn(16, 6), torch.randint(3, (16,))
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    opt = build(base, rho=0.05, model=model)

    def closure():
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    for _ in range(3):
        opt.step(closure)
    return opt, closure


def calls_of(build):
    """Of this optimizer alone: what other tests left is collected before, and nothing of it may be hooked in."""
    opt, closure = setting(build)
    counted, before = Calls(), sys.getprofile()
    gc.collect()
    assert not any_global_hook(), "somebody else's hooks would be counted"
    gc.disable()  # a finalizer is no part of a step
    sys.setprofile(counted)
    try:
        opt.step(closure)
    finally:
        sys.setprofile(before)
        gc.enable()
    return counted


def operations_of(build):
    opt, closure = setting(build)
    counted = Operations()

    def quiet(*_):
        counted.quiet = True

    def loud(*_):
        counted.quiet = False

    def unheard():
        quiet()
        loss = closure()
        loud()
        return loss

    opt.base.register_step_pre_hook(quiet)
    opt.base.register_step_post_hook(loud)
    with counted:
        opt.step(unheard)
    return counted


@pytest.mark.parametrize("name", MOST)
def test_a_step_costs_no_more_than_it_did(name):
    build = getattr(fenland, name)
    calls, operations = calls_of(build), operations_of(build)
    found = {
        "calls": calls.calls,
        "across": calls.across,
        "files": len(calls.files),
        "depth": calls.depth,
        "operations": len(operations.told),
    }
    if OLDER_TORCH:  # its dispatcher reports detaching, too
        del found["operations"]
    more = {what: f"{n}, was {MOST[name][what]}" for what, n in found.items() if n > MOST[name][what]}
    assert not more, "\n".join([f"a step of {name} costs more: {more}", *calls.told, *operations.told])


def test_calls_files_and_operations_are_counted():
    """The counters see what they say: a ball of three more calls and two more operations costs so much more."""

    class Slower(fenland.L2):
        def steepest(self, a, s):
            found = super().steepest(a, s)
            for _ in range(3):
                found.norm  # noqa: B018 - a property of one term: its length is known by now
            return found * torch.ones(()).mul(1.0)

    def slow(base, **options):
        return fenland.SharpnessAware(base, ball=Slower(), **options)

    assert calls_of(slow).calls - calls_of(fenland.SAM).calls >= 3
    assert len(operations_of(slow).told) - len(operations_of(fenland.SAM).told) >= 2
