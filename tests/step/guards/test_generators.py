"""Whatever a closure draws from Python's or NumPy's global generator, pass 2 draws again, and the next step goes on."""

import itertools
import random
import sys

import numpy as np
import pytest
import torch

import fenland
from fenland.step.guards import generators

legacy = np.random.mtrand._rand  # NumPy's global generator itself: its functions are people's `numpy.random.*`
DRAWS = {
    "nothing": lambda: None,
    "one word": lambda: legacy.randint(2**31),
    "one number": lambda: legacy.random_sample(),
    "all words once": lambda: [int(legacy.randint(2**31)) for _ in range(624)],
    "all words twice": lambda: [int(legacy.randint(2**31)) for _ in range(1248)],
    "many": lambda: legacy.random_sample(5000).tolist(),
    "a normal, the other one kept": lambda: legacy.standard_normal(),
    "two normals": lambda: legacy.standard_normal(2).tolist(),
    "three normals": lambda: legacy.standard_normal(3).tolist(),
    "a seed": lambda: (legacy.seed(int(legacy.randint(1000))), legacy.random_sample()),
    "another state, words alike": lambda: _other_normal(),
    "python's number": random.random,
    "python's words, all": lambda: random.getrandbits(32 * 624),
    "python's words, many": lambda: [random.random() for _ in range(2000)],
    "python's normal": lambda: random.gauss(0, 1),
    "python's three normals": lambda: [random.gauss(0, 1) for _ in range(3)],
    "torch's number": lambda: float(torch.rand(())),
    "torch's words, all once": lambda: torch.rand(624).tolist(),
    "torch's words, all twice": lambda: torch.rand(1248).tolist(),
    "torch's normal": lambda: float(torch.randn(())),
    "torch's three normals": lambda: [float(torch.randn(())) for _ in range(3)],
    "torch's normals in double": lambda: [float(torch.randn((), dtype=torch.float64)) for _ in range(3)],
    "torch's many normals": lambda: torch.randn(100).tolist(),
    "torch's seed": lambda: (torch.manual_seed(int(torch.randint(1000, ()))).initial_seed(), float(torch.rand(()))),
    "torch's order": lambda: torch.randperm(7).tolist(),
    "python's seed": lambda: (random.seed(random.getrandbits(8)), random.random()),
    "both": lambda: (random.gauss(0, 1), legacy.standard_normal()),
}
BEFORE = {
    "fresh": lambda: None,
    "a normal is kept": lambda: (legacy.standard_normal(), random.gauss(0, 1)),
    "at a block's end": lambda: [legacy.randint(2**31) for _ in range(624)],
}


def _other_normal():
    """Words and position stay as they are; only the normal number that is kept becomes another."""
    first = legacy.standard_normal()
    kind, words, position, kept, normal = legacy.get_state()
    legacy.set_state((kind, words, position, 1, normal + 1.0))
    return first, kept


def state():
    kind, words, *rest = legacy.get_state()
    return random.getstate(), kind, words.tolist(), rest, torch.get_rng_state().tolist()


@pytest.fixture(autouse=True)
def left_alone():
    python, numpy, ours = random.getstate(), legacy.get_state(), torch.get_rng_state()
    random.seed(1)
    legacy.seed(1)
    torch.manual_seed(1)
    yield
    torch.set_rng_state(ours)
    random.setstate(python)
    legacy.set_state(numpy)


@pytest.fixture(params=["in memory", "by its functions"])
def read(request, monkeypatch):
    """Both ways of reading; the second serves other interpreters and bit generators."""
    if request.param == "by its functions":
        monkeypatch.setattr(generators, "_python", None)
        monkeypatch.setattr(generators._NumPy, "look", lambda self, generator, bits: None)
        monkeypatch.setattr(generators, "_numpy", generators._NumPy())
        monkeypatch.setattr(generators._torch, "marks", None)
    else:
        assert generators._torch.marks is not None
        assert generators._python is not None
        assert isinstance(generators._read()["numpy"], tuple)


def optimizer(**options):
    p = torch.nn.Parameter(torch.ones(3))
    return p, fenland.SSAM(torch.optim.SGD([p], lr=0.1), rho=0.1, **options)


def steps(draw, p, opt, n=2):
    """What each pass drew, step by step."""
    seen = []

    def closure():
        opt.zero_grad()
        seen.append(draw())
        loss = p.square().sum()
        loss.backward()
        return loss

    for _ in range(n):
        opt.step(closure)
    return [seen[i : i + 2] for i in range(0, len(seen), 2)]


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("kind", DRAWS)
def test_pass_2_draws_what_pass_1_drew_and_the_step_leaves_one_draw(kind, before, read):
    BEFORE[before]()
    start = random.getstate(), legacy.get_state(), torch.get_rng_state()
    expected, states = [], []
    for _ in range(2):
        expected.append(DRAWS[kind]())
        states.append(state())
    random.setstate(start[0])
    legacy.set_state(start[1])
    torch.set_rng_state(start[2])
    p, opt = optimizer()
    for (first, second), alone in zip(steps(DRAWS[kind], p, opt), expected, strict=True):
        assert first == second == alone
    assert state() == states[-1]


def test_without_replay_pass_2_draws_anew():
    p, opt = optimizer(replay_rng=False)
    for first, second in steps(random.random, p, opt):
        assert first != second


def test_a_step_that_fails_leaves_the_generators(read):
    legacy.standard_normal()
    before = state()
    _, opt = optimizer()

    def closure():
        random.gauss(0, 1), legacy.standard_normal()
        raise KeyError("in the closure")

    with pytest.raises(KeyError):
        opt.step(closure)
    assert state() == before


def test_another_bit_generator_is_replayed_too(recwarn):
    """Its state is none of the Mersenne Twister's; nothing is told of that."""
    before = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(3))
    try:
        p, opt = optimizer()
        (first, second), (third, fourth) = steps(lambda: legacy.standard_normal(3).tolist(), p, opt)
        assert first == second != third == fourth
    finally:
        np.random.set_bit_generator(before)
    (first, second), _ = steps(lambda: legacy.standard_normal(3).tolist(), p, opt)
    assert first == second
    assert not recwarn


def test_generators_that_a_module_holds_are_replayed():
    held = torch.nn.Linear(3, 1)
    held.python, held.old, held.new = random.Random(1), np.random.RandomState(1), np.random.default_rng(1)
    held.torch = torch.Generator().manual_seed(1)
    opt = fenland.SAM(torch.optim.SGD(held.parameters(), lr=0.1), rho=0.1, model=held)
    seen = []

    def closure():
        opt.zero_grad()
        ours = held.python.gauss(0, 1), held.old.standard_normal(), held.new.standard_normal()
        seen.append((*ours, float(torch.rand((), generator=held.torch))))
        loss = held(torch.ones(1, 3)).square().sum()
        loss.backward()
        return loss

    opt.step(closure)
    opt.step(closure)
    assert seen[0] == seen[1] != seen[2] == seen[3]


class _Interrupt:
    """Raises at the n-th line that generators.py begins."""

    def __init__(self, n):
        self.left = n

    def __call__(self, frame, event, arg):
        if frame.f_code.co_filename != generators.__file__:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def test_an_interrupt_while_they_are_read_leaves_no_stale_copy(recwarn):
    """At each line, with a NumPy generator that has been looked at and with one that has not."""
    for n in itertools.count(1):
        for fresh in (False, True):
            generators.states_of([], [])
            torch.rand(3), random.random(), legacy.random_sample()
            if fresh:
                generators._numpy.seen = None, None
            sys.settrace(_Interrupt(n))
            try:
                generators.states_of([], [])
            except KeyboardInterrupt:
                interrupted = True
            else:
                interrupted = False
            finally:
                sys.settrace(None)
            before = torch.get_rng_state(), random.getstate(), str(legacy.get_state(legacy=False))
            state = generators.states_of([], [])
            torch.rand(700), random.getrandbits(32 * 700), legacy.random_sample(700)
            generators.set_states(state, {})
            after = torch.get_rng_state(), random.getstate(), str(legacy.get_state(legacy=False))
            assert torch.equal(before[0], after[0]), f"line {n}: torch"
            assert before[1:] == after[1:], f"line {n}: Python or NumPy"
        if not interrupted:
            break
    assert n > 20


def test_a_default_device_of_another_kind_does_not_hide_where_the_state_lies():
    """The probes draw on the CPU, wherever new tensors go (`torch.set_default_device`)."""
    known = generators._torch.marks is not None
    with torch.device("meta"):
        assert (generators._Torch().marks is not None) == known
