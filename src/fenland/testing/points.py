"""The points of the step contract, each over fresh trials of one case; the docstring's first line is the sentence."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import torch
from torch import Tensor

from fenland.testing.replicas import replicas
from fenland.testing.trial import Broken, Case, DoesNotApply, Trial, buffers, near, same


def restored(case: Case) -> None:
    """With lr = 0 every weight is bit-identical after a step, however it moved."""
    for perturb in ("swap", "inplace"):
        trial = case.trial(lr=0.0, rho=5.0, perturb=perturb)
        before = trial.weights()
        same(trial.run(4).weights(), before, f'weights with perturb="{perturb}"')


def model_state(case: Case) -> None:
    """Buffers and random numbers are after a step as after one forward at w."""
    trial = case.trial()
    _needs_clean(trial)
    for t in range(4):
        expected = trial.one_forward(t)
        trial.step(t)
        same((buffers(trial.model), torch.get_rng_state()), expected, "(buffers, generator)")


def exceptions(case: Case) -> None:
    """An error in any pass leaves everything as before the step, and training continues as if it had not happened."""

    def boom(loss: Tensor) -> Tensor:
        raise _Boom

    _fail_in_each_pass(case, boom)


def nonfinite(case: Case) -> None:
    """A NaN in any pass skips the step: everything is as before it, and training continues."""
    _fail_in_each_pass(case, lambda loss: loss * float("nan"))


class _Boom(Exception):
    pass


def _fail_in_each_pass(case: Case, fault: Callable[[Tensor], Tensor]) -> None:
    goes_on = case.trial().run(3)
    rng = torch.get_rng_state()
    goes_on.step(3)
    passes = goes_on.passes
    expected = goes_on.run(2, start=4).weights()
    for bad in range(1, passes + 1):
        trial = case.trial().run(3)
        before = trial.everything()
        trial.fault = lambda k, loss, bad=bad: fault(loss) if k == bad else loss
        try:
            trial.step(3)
            if not bool(trial.opt.last.skipped):
                raise Broken(f"pass {bad}: a loss of NaN did not skip the step")
        except _Boom:
            pass
        same(trial.everything(), before, f"after a fault in pass {bad}")
        trial.fault = None
        torch.set_rng_state(rng)
        same(trial.run(3, start=3).weights(), expected, f"weights three steps after a fault in pass {bad}")


def rho_zero(case: Case) -> None:
    """With rho = 0 a step is the base's, bit for bit, at one pass."""
    trial, base = case.trial(rho=0.0), case.trial(plain=True)
    if trial.per_sample:
        raise DoesNotApply("the method chooses its samples at w, too")
    for t in range(4):
        torch.manual_seed(t)
        trial.step(t)
        if trial.passes != 1:
            raise Broken(f"{trial.passes} passes; ask s.due(g) before you ascend")
        torch.manual_seed(t)
        base.step(t)
    same(trial.weights(), base.weights(), "weights")


def zero_gradient(case: Case) -> None:
    """Where the gradient is zero the weights stay, and nothing is divided by zero."""
    trial = case.trial(momentum=0.0)
    trial.fault = lambda _, loss: loss * 0.0
    before = trial.weights()
    for t in range(3):
        trial.step(t)
        if bool(trial.opt.last.skipped):
            raise Broken("the step is skipped, as one that is not finite: divide with fenland.algebra.inverse or ratio")
    same(trial.weights(), before, "weights")


def evaluations(case: Case) -> None:
    """A step that ascends evaluates as many gradients as the method declares, every other one."""
    trial = case.trial()
    if trial.method.searches:
        raise DoesNotApply("the method evaluates losses, too")
    declared, found = trial.method.evaluations, []
    for t in range(6):
        trial.step(t)
        found.append(trial.passes)
    if (max(found) > 1 and max(found) != declared) or not set(found) <= {1, declared}:
        raise Broken(f"passes of six steps: {found}; the method declares evaluations = {declared}")


def memory(case: Case) -> None:
    """What is kept between steps is what is declared: `keeps` one vector a parameter, `numbers` one number each."""
    trial = case.trial().run(6)
    saved, declared = trial.opt.state_dict(), set(trial.method.keeps)
    own = [{str(n): x for n, x in s.items() if str(n).startswith("fenland.")} for s in saved["state"].values()]
    found = {n.removeprefix("fenland.") for vectors in own for n in vectors}
    if found != declared:
        raise Broken(f"vectors kept: {sorted(found)}; declared in keeps: {sorted(declared)}")
    starts = {**trial.opt.rules.when.starts, **trial.method.numbers}
    numbers = {str(n).removeprefix("fenland.") for n in saved["param_groups"][0] if str(n).startswith("fenland.")}
    if numbers - {"count"} != set(starts):
        raise Broken(f"numbers kept: {sorted(numbers - {'count'})}; declared in numbers: {sorted(starts)}")


def resume(case: Case) -> None:
    """A run that is resumed from a file gives bit-identical weights."""
    whole = case.trial().run(7).weights()
    half, file = case.trial().run(3), io.BytesIO()
    torch.save({"model": half.model.state_dict(), "opt": half.opt.state_dict()}, file)
    file.seek(0)
    saved, rng = torch.load(file, weights_only=True), torch.get_rng_state()
    rest = case.trial()
    rest.model.load_state_dict(saved["model"])
    rest.opt.load_state_dict(saved["opt"])
    torch.set_rng_state(rng)
    same(rest.run(4, start=3).weights(), whole, "weights: keep with s.put what a step remembers; they")


def deep_copies(case: Case) -> None:
    """A deep copy gives the same weights, and it shares nothing with the original."""
    _copies_train_on(case, copy.deepcopy)


def pickles(case: Case) -> None:
    """An optimizer that is pickled and read again gives the same weights. Rules are classes of a module."""
    _copies_train_on(case, lambda trial: pickle.loads(pickle.dumps(trial)))


def _copies_train_on(case: Case, copied: Callable[[Trial], Trial]) -> None:
    trial = case.trial().run(3)
    other, rng = copied(trial), torch.get_rng_state()
    expected = trial.run(3, start=3).weights()
    torch.set_rng_state(rng)
    same(other.run(3, start=3).weights(), expected, "weights of the copy")


def two_calls(case: Case) -> None:
    """`ascend()` and `descend()` do what `step(closure)` does, bit for bit."""
    expected = case.trial().run(4).weights()
    two = case.trial()
    method = two.method
    if method.evaluations > 2 or method.per_sample or method.searches:
        try:
            two.start(0)
            two.loss().mean().backward()  # type: ignore[no-untyped-call]
            two.opt.ascend()
        except RuntimeError:
            raise DoesNotApply("the method needs more than two calls, and ascend() says so") from None
        raise Broken("ascend() runs a method that needs more than two calls")
    for t in range(4):
        two.start(t)
        two.opt.zero_grad()
        if method.clean_gradient:
            two.loss().backward()  # type: ignore[no-untyped-call]
        two.opt.ascend()
        two.loss().backward()  # type: ignore[no-untyped-call]
        two.opt.descend()
    same(two.weights(), expected, "weights")


def loss_scale(case: Case) -> None:
    """A step with a `GradScaler` equals the one without: no rule sees the scale."""
    plain = case.trial(noisy=False, dtype=torch.float32).run(4)
    trial = case.trial(noisy=False, dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=10**6)
    trial.scale = scaler.scale
    for t in range(4):
        trial.step(t, scaler=scaler)
        scaler.update()
    near(trial.weights(), plain.weights(), 2e-5, 2e-6, "weights: ask a gradient for .tensors, not .raw; they")


def accumulation(case: Case) -> None:
    """Micro-batches that are added up inside the closure are one batch."""
    whole, parts = case.trial(noisy=False), case.trial(noisy=False)
    if whole.per_sample:
        raise DoesNotApply("the method chooses from the whole batch")
    for t in range(4):
        parts.start(t)
        parts.opt.step(lambda: parts.closure(2))
    near(parts.weights(), whole.run(4).weights(), 1e-6, 1e-9, "weights")


def micro_batches(case: Case) -> None:
    """`step([closure])`, m-SAM with one micro-batch, is `step(closure)`."""
    one, many = case.trial(noisy=False), case.trial(noisy=False)
    if many.method.corrects:
        raise DoesNotApply("a method that corrects w after the base's step takes one closure")
    for t in range(4):
        many.start(t)
        many.opt.step([many.closure])
    near(many.weights(), one.run(4).weights(), 1e-12, 1e-14, "weights")


def held_gradients(case: Case) -> None:
    """A gradient to which your program holds a reference stays as backward left it."""
    trial = case.trial()
    if trial.per_sample:
        raise DoesNotApply("backward is the engine's")
    held: list[tuple[Tensor, Tensor]] = []

    def hold() -> None:
        held.extend((p.grad, p.grad.clone()) for p in trial.model.parameters() if p.grad is not None)

    trial.seen = hold
    trial.run(3)
    same([now for now, _ in held], [then for _, then in held], "gradients")


def groups(case: Case) -> None:
    """A group with rho = 0 stays at w during the ascent and is stepped like the others."""
    trial = case.trial(groups=[{"rho": 0.1}, {"rho": 0.0}])
    still = trial.opt.param_groups[1]["params"]

    def look() -> None:
        same([p.detach() for p in still], before, f"weights of a group with rho = 0 in pass {trial.passes}")

    trial.seen = look
    for t in range(4):
        before = [p.detach().clone() for p in still]
        trial.step(t)
        if all(torch.equal(p, b) for p, b in zip(still, before, strict=True)):
            raise Broken("a group with rho = 0 is not updated")


def _needs_clean(trial: Trial) -> None:
    if trial.per_sample:
        raise DoesNotApply("the method chooses samples")
    if not trial.method.clean_gradient:
        raise DoesNotApply("the method has no pass at w")


POINTS: tuple[Callable[[Case], None], ...] = (
    restored,
    model_state,
    exceptions,
    nonfinite,
    rho_zero,
    zero_gradient,
    evaluations,
    memory,
    resume,
    deep_copies,
    pickles,
    two_calls,
    loss_scale,
    accumulation,
    micro_batches,
    held_gradients,
    groups,
    replicas,
)
