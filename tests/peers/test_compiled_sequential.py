"""Compiled models under both forms: the compiled code runs in every pass, and nothing breaks its graph."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from peer_loops import CLASSES, FORMS, SIZE, assert_same, batch, build, net, sgd

POINT = 15
STEPS = 3


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def sequential() -> nn.Module:
    return nn.Sequential(nn.Linear(SIZE, 8), nn.Tanh(), nn.Linear(8, CLASSES)).double()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "sequential": sequential,
    "net with buffers and dropout": net,
    "module list": lambda: Listed(),
}


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(SIZE, 8), nn.Linear(8, CLASSES)]).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            x = torch.tanh(part(x))
        return x


class Counting:
    """A backend that runs the graph as it is and counts how many were made and how often they ran."""

    def __init__(self) -> None:
        self.graphs = self.runs = 0

    def __call__(self, graph: Any, example: Any) -> Callable[..., Any]:
        self.graphs += 1

        def run(*args: Any) -> Any:
            self.runs += 1
            return graph.forward(*args)

        return run


def train(model: nn.Module, called: nn.Module, form: str, steps: int = STEPS) -> None:
    opt = build("SSAM", sgd(model), rho=0.1, model=model)
    torch.manual_seed(6)
    for t in range(steps):
        x, y = batch(t)
        FORMS[form](opt, lambda x=x, y=y: nn.functional.cross_entropy(called(x), y))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", ["closure", "two calls"])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("way", ["torch.compile(model)", "model.compile()"])
def test_every_pass_runs_compiled_code(form, kind, way):
    """One graph (or one more for a hook that leaves), run in both passes of every step; results as uncompiled."""
    model = MODELS[kind]()
    want = copy.deepcopy(model)
    backend = Counting()
    if way == "torch.compile(model)":
        called = torch.compile(model, backend=backend)
    else:
        called = model
        model.compile(backend=backend)
    torch._dynamo.utils.counters.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(model, called, form)
    broken = dict(torch._dynamo.utils.counters["graph_break"])
    assert not broken
    assert backend.runs == 2 * STEPS, "each pass is one graph"
    said = [w for w in caught if "opt.step(closure)" in str(w.message)]
    if form == "two calls" and said:  # it cannot see compiled forwards, and says so once
        assert len(said) == 1
        return
    train(want, want, form)
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-9)


@pytest.mark.parametrize("form", ["closure", "two calls"])
def test_no_recompilation_after_the_first_step(form):
    model = sequential()
    backend = Counting()
    called = torch.compile(model, backend=backend)
    opt = build("SSAM", sgd(model), rho=0.1, model=model)
    x, y = batch(0)
    graphs = []
    for _ in range(4):
        FORMS[form](opt, lambda: nn.functional.cross_entropy(called(x), y))
        graphs.append(backend.graphs)
    assert graphs[1:] == graphs[1:2] * 3


@pytest.mark.parametrize("form", ["closure", "two calls"])
def test_fullgraph_is_kept(form):
    model = sequential()
    called = torch.compile(model, backend=Counting(), fullgraph=True)
    train(model, called, form)
