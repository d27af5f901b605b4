"""fenland.testing: every preset passes the whole contract, and each broken point is found and named."""

import random
import threading
from dataclasses import dataclass, field

import pytest
import torch

import fenland
from fenland.algebra import inverse
from fenland.testing import POINTS, Point, Report, check, examine

OPTIONS = {"LpSAM": {"p": 4.0}, "WindowSAM": {"start": 1}, "IntervalSAM": {"k": 2}, "LookSAM": {"k": 2}}
# Replicas draw their own points, and the norm of the full gradient is that of their problem.
OWN_REPLICAS = {"RandomSAM": ("replicas",), "DNSAM": ("replicas",)}
ROWS = list(fenland.PRESETS.values())


def _one() -> float:
    return 1.0


NEEDS = {"full_norm": {"full_norm": _one}, "total_steps": {"total_steps": 20}, "model": {"layers": (torch.nn.Linear,)}}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_preset_passes(row):
    options = dict(OPTIONS.get(row.name, {}))
    for need in row.needs:
        options |= NEEDS[need]
    skip = [*OWN_REPLICAS.get(row.name, ())]
    report = check(row.build, skip=skip, **options)
    applies = {point.name for point in report.points if point.state == "holds"}
    assert {"restored", "exceptions", "nonfinite", "resume", "deep_copies", "memory", "loss_scale"} <= applies
    assert len(report.points) == len(POINTS) - len(skip)
    if not row.per_sample and row.closure_calls == 2:
        assert {"two_calls", "held_gradients", "accumulation", "rho_zero", "model_state"} <= applies


@dataclass(frozen=True)
class Plain(fenland.Method):
    """SAM, to be broken in one place."""

    def step(self, s):
        g = yield fenland.Grad()
        if not s.due(g):
            yield fenland.Update(g)
            return
        self.between(g, s)
        h = yield fenland.Grad(at=s.climb(g), final=True)
        yield fenland.Update(h)

    def between(self, g, s):
        """What the broken ones do."""


@dataclass(frozen=True)
class MovesWeights(Plain):
    def between(self, g, s):
        s.weights(g)[0].add_(1.0)


@dataclass(frozen=True)
class DrawsFromYourGenerator(Plain):
    def between(self, g, s):
        torch.rand(1)


@dataclass(frozen=True)
class RemembersByItself(fenland.Method):
    """It counts its steps in the rule."""

    memory: list = field(default_factory=list)

    def step(self, s):
        g = yield fenland.Grad()
        if not s.due(g):
            yield fenland.Update(g)
            return
        self.memory.append(float(g.norm))
        h = yield fenland.Grad(at=s.climb(g))
        yield fenland.Update(h * (1.0 + len(self.memory)))


SHARED: list = []


@dataclass(frozen=True)
class RemembersForAll(Plain):
    def step(self, s):
        g = yield fenland.Grad()
        h = yield fenland.Grad(at=s.climb(g) if s.due(g) else None)
        SHARED.append(None)
        yield fenland.Update(h * (1.0 + 0.1 * len(SHARED)))


@dataclass(frozen=True)
class ForgetsToAsk(fenland.Method):
    """It ascends with rho = 0, too."""

    def step(self, s):
        g = yield fenland.Grad()
        yield fenland.Update((yield fenland.Grad(at=s.climb(g))))


@dataclass(frozen=True)
class DividesByZero(fenland.Ball):
    def steepest(self, a, s):
        return a * (1.0 / a.norm)


@dataclass(frozen=True)
class SumsOverReplicas(fenland.Ball):
    def steepest(self, a, s):
        return a * inverse(torch.stack([x.square().sum() for x in a.tensors]).sum().sqrt())


@dataclass(frozen=True)
class DeclaresTooFew(fenland.Method):
    def step(self, s):
        g = yield fenland.Grad()
        for _ in range(2 if s.due(g) else 0):
            g = yield fenland.Grad(at=s.climb(g))
        yield fenland.Update(g)


@dataclass(frozen=True)
class KeepsUndeclared(Plain):
    def between(self, g, s):
        s.put("secret", g)


@dataclass(frozen=True)
class DeclaresInVain(Plain):
    keeps = ("never",)


@dataclass(frozen=True)
class HoldsALock(Plain):
    lock: object = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class CannotBePickled(Plain):
    f: object = field(default_factory=lambda: lambda: None)


@dataclass(frozen=True)
class SeesTheScale(fenland.Combine):
    def __call__(self, g, h):
        return h * torch.stack([x.abs().amax() for x in h.raw]).amax()


@dataclass(frozen=True)
class WritesToGradients(Plain):
    def between(self, g, s):
        g.tensors[0].mul_(2.0)


@dataclass(frozen=True)
class MovesEverything(fenland.Method):
    """e over all parameters, whatever their group's radius."""

    def step(self, s):
        g = yield fenland.Grad()
        if not s.due(g):
            yield fenland.Update(g)
            return
        yield fenland.Update((yield fenland.Grad(at=g * (0.1 * inverse(g.norm)), final=True)))


@dataclass(frozen=True)
class CountsBackwards(fenland.Combine):
    """A gradient that was added up is written to more than once."""

    def __call__(self, g, h):
        return h * float(1 + h.raw[0]._version)


@dataclass(frozen=True)
class ByChance(fenland.When):
    def ascends(self, step, grad_norm, memory):
        return random.random() < 0.5


BROKEN = {
    "restored": MovesWeights(),
    "model_state": DrawsFromYourGenerator(),
    "exceptions": RemembersByItself(),
    "nonfinite": RemembersByItself(),
    "rho_zero": ForgetsToAsk(),
    "zero_gradient": DividesByZero(),
    "evaluations": DeclaresTooFew(),
    "memory": KeepsUndeclared(),
    "resume": RemembersByItself(),
    "deep_copies": RemembersForAll(),
    "pickles": CannotBePickled(),
    "two_calls": DeclaresTooFew(),
    "loss_scale": SeesTheScale(),
    "accumulation": CountsBackwards(),
    "micro_batches": RemembersForAll(),
    "held_gradients": WritesToGradients(),
    "groups": MovesEverything(),
    "replicas": SumsOverReplicas(),
}


def test_every_point_has_a_broken_rule():
    assert list(BROKEN) == [point.__name__ for point in POINTS]


@pytest.mark.parametrize("point", BROKEN)
def test_a_broken_point_is_found_and_named(point):
    report = examine(BROKEN[point])
    assert point in report.broken, report
    (found,) = [p for p in report.points if p.name == point]
    assert found.why
    assert found.sentence in str(report)
    with pytest.raises(AssertionError, match=f"BROKEN +{point}"):
        check(BROKEN[point], skip=[p.__name__ for p in POINTS if p.__name__ != point])


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        (DeclaresInVain(), {"memory"}),
        (HoldsALock(), {"deep_copies", "pickles"}),
        (CannotBePickled(), {"pickles"}),
        (DividesByZero(), {"zero_gradient"}),
        (SumsOverReplicas(), {"replicas"}),
        (WritesToGradients(), {"held_gradients", "replicas"}),
        (MovesEverything(), {"groups"}),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, set) else "",
)
def test_nothing_else_is_accused(rule, broken):
    assert set(examine(rule).broken) == broken


def test_a_decision_by_chance_is_found():
    random.seed(0)
    assert {"resume", "deep_copies", "two_calls"} & set(examine(ByChance()).broken)


def test_the_report_reads_as_a_page_and_the_callers_random_numbers_are_as_before():
    before = torch.get_rng_state()
    report = examine(fenland.InnerSteps(3), rho=0.05)
    assert torch.equal(torch.get_rng_state(), before)
    text = str(report)
    assert "0 of 18 points broken" in text
    assert "does not apply  two_calls" in text
    assert report.broken == ()
    assert "InnerSteps" in report.rule
    assert isinstance(report, Report)
    assert all(isinstance(point, Point) for point in report.points)


def test_wrong_calls_are_named():
    with pytest.raises(TypeError, match=r"pass an instance, L2\(\.\.\.\)"):
        examine(fenland.L2)
    with pytest.raises(TypeError, match="rule = 3: must be"):
        examine(3)
    with pytest.raises(ValueError, match=r"skip = \['speed'\]: must be among restored"):
        examine(fenland.L2(), skip=["speed"])
    with pytest.raises(ValueError, match="grids"):
        examine(fenland.SAM, nonfinite="grids")
