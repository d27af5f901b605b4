"""The core of each sentence of the step contract (DESIGN section 3) over every preset; per-sample closures included.

The whole contract, with all its crosses of bases, models and precisions, runs over a representative set in
tests/contract/; here every preset runs one case of each sentence.
"""

import copy
import io
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fenland
from cases import make_problem
from harness import BASES, Session, assert_same, buffers, one_forward, plain, snapshot

LINEAR = (nn.Linear,)


def _one() -> float:
    return 1.0


# What a row's `needs` stand for on an ordinary model, and options that make the row differ from SAM.
NEEDS = {"full_norm": {"full_norm": _one}, "total_steps": {"total_steps": 20}, "model": {"layers": LINEAR}}
OPTIONS = {
    "LpSAM": {"p": 4.0},
    "WindowSAM": {"start": 1, "stop": 4},
    "IntervalSAM": {"k": 2},
    "LookSAM": {"k": 2},
    "SpectralSAM": {},
}
ROWS = list(fenland.PRESETS.values())
every_preset = pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
MODEL = "conv_bn_dropout"


def options_of(row) -> dict:
    found = dict(OPTIONS.get(row.name, {}))
    for need in row.needs:
        found |= NEEDS[need]
    return found


class PerSample(Session):
    """A session whose closure leaves one loss a sample, and backward, to the engine."""

    def closure(self):
        def run():
            self.opt.zero_grad()
            return self.problem.loss()

        return run

    def step(self, t: int = 0):
        self.problem.start(t)
        return self.opt.step(self.closure())


def make(row, case=MODEL, base="sgd_momentum", *, lr=None, rho=0.1, dtype=torch.float64, **options):
    problem = make_problem(case, dtype)
    made = BASES[base](problem.parameters(), **({} if lr is None else {"lr": lr}))
    torch.manual_seed(7)
    opt = row.build(made, rho=rho, model=problem.model, **options_of(row), **options)
    if row.per_sample:
        problem.criterion = lambda out, y: F.cross_entropy(out, y, reduction="none")
        return PerSample(problem, opt)
    return Session(problem, opt)


def calls_of(session, t):
    session.step(t)
    return session.problem.pass_index


@every_preset
def test_1_lr_zero_is_bit_identical_with_every_perturbation(row):
    for perturb in ("swap", "inplace"):
        session = make(row, lr=0.0, perturb=perturb, rho=5.0)
        before = session.weights
        for t in range(4):
            if not row.per_sample:
                expected = one_forward(session, t)
            session.step(t)
            if not row.per_sample and row.closure_calls > 1:  # 3: buffers and generators as after one forward at w
                assert_same((buffers(session.problem.model), torch.get_rng_state()), expected)
        assert_same(session.weights, before)


@every_preset
@pytest.mark.parametrize("bad_pass", [1, 2])
@pytest.mark.parametrize("fault", ["error", "nan"])
def test_2_a_failed_step_leaves_everything_as_before(row, bad_pass, fault):
    """Also what rules keep between steps; and training goes on as if nothing had happened."""
    session, reference = make(row), make(row)
    for s in (session, reference):
        torch.manual_seed(0)
        s.run(3)
    if bad_pass > _passes(row, 3):
        pytest.skip("no such pass on this step")
    torch.manual_seed(1)
    before = snapshot(session)
    loss = session.problem.loss

    def faulty():
        if session.problem.pass_index + 1 != bad_pass:
            return loss()
        if fault == "error":
            loss()
            raise RuntimeError("boom")
        return loss() * float("nan")

    session.problem.loss = faulty
    if fault == "error":
        with pytest.raises(RuntimeError, match="boom"):
            session.step(3)
    else:
        session.step(3)
        assert bool(session.opt.last.skipped)
    session.problem.loss = loss
    assert_same(snapshot(session), before)
    torch.manual_seed(2)
    after = session.run(3, start=3).weights
    torch.manual_seed(2)
    assert_same(after, reference.run(3, start=3).weights)


def _passes(row, t) -> int:
    """Closure calls on step t of a fresh run."""
    session = make(row)
    return [calls_of(session, i) for i in range(t + 1)][-1]


@every_preset
def test_4_rho_zero_is_the_base(row):
    reference = plain(MODEL)
    full = {"ascent": 1.0, "descent": 1.0} if row.name == "KSAM" else {}
    for t in range(5):
        reference.problem.start(t)
        reference.problem.closure(reference.opt)()
        reference.opt.step()
    session = make(row, rho=0.0, **full)
    assert [calls_of(session, t) for t in range(5)] == [1] * 5
    if row.per_sample:
        for a, b in zip(session.weights, reference.weights, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    else:
        assert_same(session.weights, reference.weights)
        assert_same(buffers(session.problem.model), buffers(reference.problem.model))


@every_preset
@pytest.mark.parametrize("base", ["sgd_momentum", "adamw_fused"])
def test_5_resume_is_bit_exact(row, base):
    """Through a file read with weights_only=True; the state is the base's, and what the row says that it keeps."""
    whole = make(row, base=base).run(8)
    half = make(row, base=base).run(3)
    file = io.BytesIO()
    torch.save({"model": half.problem.model.state_dict(), "opt": half.opt.state_dict()}, file)
    file.seek(0)
    saved, rng = torch.load(file, weights_only=True), torch.get_rng_state()
    rest = make(row, base=base)
    rest.problem.model.load_state_dict(saved["model"])
    rest.opt.load_state_dict(saved["opt"])
    torch.set_rng_state(rng)
    assert_same(rest.run(5, start=3).weights, whole.weights)
    size = sum(p.numel() for p in half.problem.model.parameters())
    kept = [x for s in half.opt.state_dict()["state"].values() for n, x in s.items() if str(n).startswith("fenland.")]
    assert sum(x.numel() for x in kept) == row.kept * size


@every_preset
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_5_copies_train_on_alike(row, how):
    session = make(row, "mlp").run(3)
    bundle = session.problem, session.opt
    if row.per_sample:
        session.problem.criterion = _each
    problem, opt = copy.deepcopy(bundle) if how == "deepcopy" else pickle.loads(pickle.dumps(bundle))
    other = type(session)(problem, opt)
    assert_same(other.run(3, start=3).weights, session.run(3, start=3).weights)


def _each(out, y):
    return F.cross_entropy(out, y, reduction="none")


@every_preset
def test_6_a_power_of_two_loss_scale_changes_nothing(row):
    """The scale leaves before any rule looks at the size of a gradient."""
    reference = make(row, "mlp", dtype=torch.float32).run(5)
    session = make(row, "mlp", dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=10**6)

    def closure():
        session.opt.zero_grad()
        loss = session.problem.loss()
        if not row.per_sample:
            scaler.scale(loss).backward()
        return loss

    for t in range(5):
        session.problem.start(t)
        session.opt.step(closure, scaler=scaler)
        scaler.update()
    for a, b in zip(session.weights, reference.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-6)


@every_preset
def test_9_closure_calls_are_those_of_the_row(row):
    session = make(row)
    calls = [calls_of(session, t) for t in range(8)]
    assert set(calls) <= {1, row.closure_calls}
    assert max(calls) == row.closure_calls
    if row.always:
        assert calls == [row.closure_calls] * 8
    else:
        assert 1 in calls


@every_preset
def test_every_step_descends_and_stays_finite(row):
    session = make(row, "mlp", rho=0.01 if row.name in ("SpectralSAM", "InfNormSAM") else 0.05)
    losses = [float(session.step(0).detach()) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    assert all(w.isfinite().all() for w in session.weights)
    assert not bool(session.opt.last.skipped)


@pytest.mark.filterwarnings("ignore:method = BaseMomentum")  # without momentum nothing moves the weights here
@every_preset
def test_a_zero_gradient_is_a_plain_step(row):
    session = make(row, "mlp", "sgd")
    session.problem.criterion = (
        (lambda out, y: out.sum(1) * 0.0) if row.per_sample else (lambda out, y: out.sum() * 0.0)
    )
    before = session.weights
    session.run(3)
    assert_same(session.weights, before)


@every_preset
def test_two_calls_where_the_row_has_two_passes(row):
    if row.per_sample or row.closure_calls > 2:
        session = make(row, "mlp")
        _mean(session.problem.loss()).backward()
        with pytest.raises(RuntimeError, match=r"step\(closure\)"):
            session.opt.ascend()
        return
    closure = make(row).run(5)
    two = make(row)
    for t in range(5):
        two.problem.start(t)
        two.form = "two_call"
        if row.closure_calls == 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _one_pass_in_two_calls(two)
        else:
            two.step(t)
    assert_same(two.weights, closure.weights)


def _one_pass_in_two_calls(session):
    """A source that needs no gradient at w: ascend at once, then the only backward."""
    session.opt.zero_grad()
    session.opt.ascend()
    session.problem.loss().backward()
    session.opt.descend()


def _mean(loss):
    return loss.mean()


@every_preset
def test_m_sam_with_the_whole_batch_is_the_step(row):
    one, many = make(row, "mlp").run(4), make(row, "mlp")
    if row.name == "WSAM":
        with pytest.raises(ValueError, match="one closure"):
            many.opt.step([many.problem.closure(many.opt)])
        return
    for t in range(4):
        many.problem.start(t)
        closure = many.closure() if row.per_sample else many.problem.closure(many.opt)
        many.opt.step([closure])
    for a, b in zip(many.weights, one.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
