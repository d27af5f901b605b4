"""One step of several optimizers of one model, with one ascent over all their parameters, or with one each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

from fenland.algebra import Leaf
from fenland.arguments import check_among, check_instance
from fenland.optimizer import SharpnessAware
from fenland.rules import ParameterNames
from fenland.step.drivers.closure import run_closure
from fenland.step.drivers.evaluation import Closure, refuse_caller
from fenland.step.gradients import Gradient, Scaled
from fenland.step.guards.snapshots import Guard
from fenland.step.perturbation import StorageCache
from fenland.step.refusals.unguarded import watch_of_unguarded
from fenland.step.runner import Runner
from fenland.step.state import Memory, Rules
from fenland.step.step import Step


def step_together(
    optimizers: Sequence[SharpnessAware],
    closure: Closure,
    *,
    scaler: Any = None,
    norm: Literal["joint", "each"] = "joint",
) -> Any:
    """One step of several optimizers of one model (Muon for matrices, AdamW for the rest), with one ascent.

    The closure is called once at w and once at w + e for all of them; it zeroes all gradients.

    Args:
        optimizers: with parameters of their own each.
        closure: as for `step`.
        scaler: likewise.
        norm: "joint": one ascent over all parameters, whose e has the length rho of all, as one optimizer over all of
            them would take; needs equal rules. "each": each optimizer climbs by its own norm and its own rules.

    Returns:
        What the closure returned at w.

    Raises:
        ValueError: fewer than two optimizers, a parameter that two of them have, rules or options (max_norm,
            nonfinite, perturb, record_every) that differ under "joint", or methods that choose samples and differ.
        TypeError: one of them is no SharpnessAware.
    """
    check_among("norm", norm, ("joint", "each"))
    if not isinstance(optimizers, Sequence):
        raise TypeError(f"optimizers = {type(optimizers).__name__}: must be a list of sharpness-aware optimizers")
    if not callable(closure):
        raise TypeError(f"closure = {closure!r}: must be a callable")
    for opt in optimizers:
        check_instance("optimizers", opt, SharpnessAware, "fenland.SAM(base)")
    hooked = []
    for opt in optimizers:  # each hook may replace the closure, as in `step`
        hooked.append(opt._before_step((opt, closure), {} if scaler is None else {"scaler": scaler}))
        closure, scaler = _handed(*hooked[-1][0][1:], **hooked[-1][1])
    refuse_caller(closure)
    with torch.no_grad():
        scalings = [opt._scaling(scaler) for opt in optimizers]
        value = _run([opt._runner for opt in optimizers], closure, scalings, joint=norm == "joint")
    for opt, (args, kwargs) in zip(optimizers, hooked, strict=True):
        opt._after_step(args, kwargs)
        vars(opt)["_opt_called"] = True  # what torch's schedulers look at
    return value


def _handed(closure: Any = None, scaler: Any = None) -> tuple[Any, Any]:
    """Closure and scaler among the arguments of a step."""
    return closure, scaler


def _run(runners: Sequence[Runner], closure: Closure, scalings: Sequence[Scaled | None], joint: bool) -> Any:
    if len(runners) < 2:
        raise ValueError(f"optimizers: {len(runners)} given; a step together needs at least two")
    params = [p for runner in runners for group in runner.base.param_groups for p in group["params"]]
    if len(set(params)) < len(params):
        raise ValueError("optimizers: two of them have a parameter in common, which would be updated twice")
    methods = [runner.rules.method for runner in runners]
    if any(runner.per_sample for runner in runners) and any(method != methods[0] for method in methods):
        chooses = next(method for method in methods if method.per_sample)
        raise ValueError(
            f"optimizers: {chooses} chooses the samples of each pass, and the passes are shared by all; "
            "give all of them the same method"
        )
    if not joint:
        return run_closure(runners, closure, scalings)
    joined = _JointRunner(runners)
    return run_closure([joined], closure, [joined.scaling(scalings)])


class _JointRunner(Runner):
    """Runs a step over the groups of several optimizers; each then steps its own base with its part of d.

    Raises:
        ValueError: the optimizers have different rules, steps or reductions.
    """

    def __init__(self, runners: Sequence[Runner]) -> None:
        first = runners[0]
        for k, runner in enumerate(runners):
            _check_options(k, runner.rules, first.rules)
            same = tuple(runner.rules) == tuple(first.rules) and runner.memory.numbers == first.memory.numbers
            if not same or runner.memory.count != first.memory.count:
                raise ValueError(
                    f'norm = "joint": optimizer {k} has other rules or steps than the first; use norm="each"'
                )
            runner.refuse("step", busy=True)
            if runner.reduction.ranks_differ:
                raise ValueError('norm = "joint": sync="local" averages the d of one optimizer; use sync="global"')
        self.runners, self.rules, self.storage = runners, first.rules, StorageCache()
        self.per_sample, self.stale, self.advanced = first.per_sample, first.stale, None
        self.loss_scale = first.loss_scale
        self.bases = [runner.base for runner in runners]
        groups = [group for base in self.bases for group in base.param_groups]
        state: dict[Tensor, Any] = {p: x for runner in runners for p, x in runner.base.state.items()}
        self.base: Any = SimpleNamespace(param_groups=groups, state=state, _optimizer_step_pre_hooks={})
        kept = {p: x for runner in runners for p, x in runner.memory.kept.items()}
        self.memory = Memory(first.memory.count, dict(first.memory.numbers), kept)
        self.radii = SimpleNamespace(
            now=lambda _, count: [r for x in runners for r in x.radii.now(x.base.param_groups, count)]
        )
        self.guard: Guard = _JointGuard([runner.guard for runner in runners])
        self.names: Any = _Names([runner.names for runner in runners])
        self.reduction, self.on_host = first.reduction, all(runner.on_host for runner in runners)
        self.watch = self.pending = self.before = self.after_first = None
        self.watches = [watch for runner in runners for watch in runner.watches]
        self.unguarded = None
        if any(runner.unguarded for runner in runners):  # asked first: a joint runner is made at every step
            params = [p for group in groups for p in group["params"]]
            self.unguarded = watch_of_unguarded(params, [watch.model for watch in self.watches])
        self._warned_of_nothing = first._warned_of_nothing

    def scaling(self, scalings: Sequence[Scaled | None]) -> Scaled | None:
        """The scaling of all."""
        known = [one for one in scalings if one is not None]  # of all or of none: there is one scaler
        return _JointScaling(known, self.bases) if known else None

    def _warn_of_nothing(self, what: str) -> None:
        super()._warn_of_nothing(what)
        self.runners[0]._warned_of_nothing = True

    def warn_of_unguarded(self, two_calls: bool) -> None:
        super().warn_of_unguarded(two_calls)
        for runner in self.runners:
            runner.unguarded = None

    def skip(self, step: Step, before: Any) -> None:
        for k, runner in enumerate(self.runners):
            runner.skip(self._part(step, k), before[k])

    def take(self, step: Step, ok: bool | Tensor, before: Any, hooks: Any = None) -> None:
        for k, runner in enumerate(self.runners):
            runner.take(self._part(step, k), ok, before[k])

    @torch.no_grad()  # an interrupt may come where the closure's gradient mode is still on
    def roll_back(self, steps: Sequence[Step], before: Any) -> None:
        for step in steps:
            step.close()
        if self.unguarded is not None:
            self.unguarded.stop()
        for k, runner in enumerate(self.runners):
            runner.roll_back([], None if before is None else before[k])

    def _part(self, step: Step, k: int) -> Any:
        """What the k-th optimizer's runner needs of the step."""
        mine = {p for group in self.runners[k].base.param_groups for p in group["params"]}
        vectors = {name: {p: x for p, x in values.items() if p in mine} for name, values in step.vectors.items()}
        after = [x for x in step.settled.after if any(x[2] is group for group in self.runners[k].base.param_groups)]
        given = replace(step.settled, after=after)
        scaling = step.scaling if step.scaling is None else step.scaling.of(k)
        return SimpleNamespace(
            record=step.record, scaling=scaling, settled=given, numbers=dict(step.numbers), vectors=vectors
        )


def _check_options(k: int, rules: Rules, first: Rules) -> None:
    """Raise a ValueError where the k-th optimizer has another option than the first: one step has one of each."""
    for name in ("max_norm", "nonfinite", "perturb", "record_every"):
        mine, theirs = getattr(rules, name), getattr(first, name)
        if mine != theirs:
            raise ValueError(
                f'norm = "joint": optimizer {k} has {name} = {mine!r}, and the first {theirs!r}; '
                'give all the same, or use norm="each"'
            )


class _JointGuard(Guard):
    """The guards of all; a snapshot is a list of theirs."""

    def __init__(self, guards: Sequence[Guard]) -> None:
        self.guards = guards
        self.replay_rng = all(guard.replay_rng for guard in guards)

    def take(self) -> Any:
        return [guard.take() for guard in self.guards]

    def bring_back(self, then: Any, now: Any = None) -> None:
        for guard, snapshot, known in zip(self.guards, then, now or [None] * len(then), strict=True):
            guard.bring_back(snapshot, known)

    def undo_where(self, undo: Tensor, then: Any) -> None:
        for guard, snapshot in zip(self.guards, then, strict=True):
            guard.undo_where(undo, snapshot)


class _JointScaling(Scaled):
    """One loss scale, several bases that the scaler unscales."""

    def __init__(self, scalings: Sequence[Scaled], bases: Sequence[Any]) -> None:
        super().__init__(scalings[0].scaler, scalings[0].claim)
        self.scalings, self.bases = scalings, bases

    def unscale(self, base: Any, d: Gradient, others: Sequence[Leaf]) -> None:
        scaled = d.factor
        for scaling, one in zip(self.scalings, self.bases, strict=True):
            d.factor = scaled
            scaling.unscale(one, d, others)

    def of(self, k: int) -> Scaled:
        """The k-th optimizer's."""
        return self.scalings[k]


class _Names:
    """The names and owners that any of several knows."""

    def __init__(self, names: Sequence[ParameterNames]) -> None:
        self._of = {p: one for one in names for p in one.params}

    def name(self, p: Tensor) -> str:
        return self._of[p].name(p)

    def owner(self, p: Tensor) -> Any:
        return self._of[p].owner(p)
