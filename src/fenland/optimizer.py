"""SharpnessAware: any first-order `torch.optim` optimizer, stepped with gradients from an ascent point."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from fenland.arguments import check_among, check_count, check_instance, check_positive
from fenland.callers import NO_CLOSURE, refuse_caller
from fenland.rules import L2, Always, AtAscentPoint, Ball, Combine, Gradient, Radius, Source, When, current_radius
from fenland.step import checkpoint
from fenland.step.ascent import begin_state
from fenland.step.checkpoint import fitted, saved
from fenland.step.closures import Closure
from fenland.step.conduct import Conductor
from fenland.step.gradients import collect
from fenland.step.memory import Choices, Memory
from fenland.step.record import StepRecord
from fenland.step.travel import TRAVELS

NONFINITE = ("skip", "base_step", "raise")


class SharpnessAware(torch.optim.Optimizer):
    r"""Turn `base` into a sharpness-aware optimizer, composed of five choices.

    One step at weights w with gradient g = grad L(w):

        a = source(g), e = argmax <a, e> over ball(e) <= rho, h = grad L(w + e), d = combine(g, h), base.step(d) at w

    Source: Foret, Kleiner, Mobahi, Neyshabur 2021, arXiv 2010.01412 (SAM); the relatives are named in `presets`.

    Args:
        base: any first-order optimizer; it keeps its state and its groups, which this object shares.
        rho: radius of the ball, a number or a callable of the step (from 0). A group's own "rho" comes first.
            Unit: that of w for normalised balls.
        ball: the norm that bounds e.
        source: the vector that is climbed along.
        combine: what the base gets from g and h.
        when: on which steps the ascent runs.
        model: the module whose buffers are guarded, so that they see one forward a step, at w.
        replay_rng: run pass 2 with the random numbers of pass 1 (equal dropout masks).
        max_norm: upper bound on ||d||_2, applied once, as `torch.nn.utils.clip_grad_norm_` would to d.
        nonfinite: what an infinite or NaN gradient does: "skip" the step, "base_step" (step with g where g is finite),
            or "raise" a FloatingPointError. Weights, buffers and generators are as before a skipped step.
        sync: "global" or "local" ascent under data parallelism.
        travel: how weights move: "auto", "move" (exchange storage), "copy" (in place, w saved beside) or "offload" (in
            place, w saved in the host's memory: the least that a step can need of an accelerator's).
        record_every: sample `cosine` and `realised_radius` on every such step, at one more pass over the weights.

    Raises:
        TypeError: `base` is not an optimizer, or one that evaluates its closure itself (LBFGS), or a SharpnessAware.
        ValueError: an argument is out of range; the message names it.

    Example:
        >>> opt = fenland.SSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05, model=model)
        >>> def closure():
        ...     opt.zero_grad()
        ...     loss = loss_fn(model(x), y)
        ...     loss.backward()
        ...     return loss
        >>> loss = opt.step(closure)
    """

    # GradScaler.step(opt) would hand over scaled gradients: with this flag it announces itself first (`found_inf`).
    _step_supports_amp_scaling = True
    _hides_groups = False

    def __init__(
        self,
        base: torch.optim.Optimizer,
        rho: Radius = 0.05,
        *,
        ball: Ball | None = None,
        source: Source | None = None,
        combine: Combine | None = None,
        when: When | None = None,
        model: nn.Module | None = None,
        replay_rng: bool = True,
        max_norm: float | None = None,
        nonfinite: Literal["skip", "base_step", "raise"] = "skip",
        sync: Literal["global", "local"] = "global",
        travel: Literal["auto", "move", "copy", "offload"] = "auto",
        record_every: int | None = None,
    ) -> None:
        _check_base(base)
        _check_groups(base, base.param_groups)
        check_among("nonfinite", nonfinite, NONFINITE)
        check_among("sync", sync, ("global", "local"))
        check_among("travel", travel, TRAVELS)
        check_positive("max_norm", max_norm, "no bound")
        check_count("record_every", record_every, "never")
        ball, source, combine, when = ball or L2(), source or Gradient(), combine or AtAscentPoint(), when or Always()
        check_instance("ball", ball, Ball, "fenland.L2()")
        check_instance("source", source, Source, "fenland.Gradient()")
        check_instance("combine", combine, Combine, "fenland.AtAscentPoint()")
        check_instance("when", when, When, "fenland.Always()")
        if model is not None:
            check_instance("model", model, nn.Module, "the module that you train")
        self.base = base
        self.choices = Choices(ball, source, combine, when, max_norm, nonfinite, travel, record_every)
        self.model = model
        self.replay_rng = replay_rng
        self.sync = sync
        self._rho = rho
        self._radii: dict[int, Radius] = {}
        self._memory = Memory(scalars={**when.starts, **combine.starts})
        self._set_radii()
        super().__init__(base.param_groups, base.defaults)
        self._begin()

    def _begin(self) -> None:
        """The machinery of steps: new objects, copies and unpickled ones build their own."""
        self._me = weakref.ref(self)
        self._conductor = Conductor(
            self.base,
            self.choices,
            self._memory,
            self._current_radii,
            self.model,
            self.replay_rng,
            self.sync,
            self._claim_scaler,
        )

    @property
    def last(self) -> StepRecord:
        """The record of the last step (device tensors: reading one synchronises)."""
        return self._conductor.record

    # The groups and the state are the base's, always: no copy can get out of step.

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The base's groups, the very same list."""
        return [] if self._hides_groups else self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        if groups:  # Optimizer.__init__ starts with an empty list
            self.base.param_groups = groups

    @property
    def state(self) -> Any:
        """The base's state, the very same mapping; fenland's own is kept apart and meets it in `state_dict`."""
        return self.base.state

    @state.setter
    def state(self, state: Any) -> None:
        if state:
            self.base.state = state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base, with this optimizer's rho unless it brings its own."""
        if any(param_group is group for group in self.base.param_groups):
            return  # Optimizer.__init__ adds the groups that the base has already
        self._conductor.refuse("add_param_group", busy=True)
        _check_groups(self.base, [param_group])
        own = param_group.get("rho", self._rho)
        current_radius(
            own,
            self._memory.count,
            f"rho of group {len(self.base.param_groups)}",
            {**self.defaults, **param_group}.get("lr"),
        )
        self.base.add_param_group(param_group)
        self._set_radii()

    def _set_radii(self) -> None:
        """Give every group a numeric "rho"; remember callables by the group's position.

        The base notes which values fenland gave, so that wrapping it again with another rho is not silently ignored.
        """
        given: dict[int, float] = self.base.__dict__.setdefault("_fenland_rho", {})
        for k, group in enumerate(self.param_groups):
            if k in given and k not in self._radii and group.get("rho") == given[k] and not hasattr(self, "_conductor"):
                del group["rho"]
            owned = "rho" in group
            own = group["rho"] if owned else self._radii.get(k, self._rho)
            if callable(own):
                self._radii[k] = own
            name = f"rho of group {k}" if owned else "rho"
            group["rho"] = current_radius(own, self._memory.count, name, group.get("lr"))
            if not owned or callable(own):
                given[k] = group["rho"]

    def _current_radii(self) -> list[float]:
        radii = []
        for k, group in enumerate(self.param_groups):
            if k in self._radii:
                group["rho"] = current_radius(self._radii[k], self._memory.count, lr=group.get("lr"))
            elif "rho" not in group:
                group["rho"] = current_radius(self._rho, self._memory.count, lr=group.get("lr"))
            radii.append(current_radius(group["rho"], self._memory.count, f"rho of group {k}"))
        return radii

    # The step. torch.compile must not trace it: it would lose the weights' way to w + e and back, and say nothing. What
    # the closure calls may be compiled.

    @_disable_dynamo
    def step(self, closure: Closure | Sequence[Closure] | None = None, *, scaler: Any = None) -> Any:
        """One step; the closure zeroes the gradients, runs forward and backward and returns the loss.

        Args:
            closure: called at w, and again at w + e where an ascent is due. It may return a tensor, a number, a
                sequence (first item) or a mapping ("loss"). A list of closures, one a micro-batch, is m-SAM: each has
                its own ascent, and d is the mean of theirs (Andriushchenko and Flammarion 2022, arXiv 2206.06232).
            scaler: the `torch.amp.GradScaler` that the closure scales its loss with. `scaler.update()` stays yours.

        Returns:
            What the closure returned at w (a list for m-SAM).

        Raises:
            RuntimeError: no closure, an ascent is under way, or the closure reuses an old graph.
            FloatingPointError: a gradient is not finite and nonfinite="raise".
        """
        with torch.no_grad():
            if closure is None:
                return self._step_without_closure()
            refuse_caller(closure)
            many = isinstance(closure, Sequence)
            closures = list(closure) if isinstance(closure, Sequence) else [closure]
            if not closures or not all(callable(c) for c in closures):
                raise TypeError(f"closure = {closure!r}: must be a callable or a non-empty list of callables")
            return self._conductor.run(closures, scaler, many)

    def _step_without_closure(self) -> None:
        """`torch.distributed.checkpoint` makes a fresh optimizer's state so: lr 0, gradients 0. Nobody else may."""
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        still = all(float(group.get("lr", 1)) == 0 for group in self.param_groups)
        if not still or self.state or any(bool(g.any()) for g in grads):
            raise RuntimeError(NO_CLOSURE)
        found = collect(self.param_groups)
        begin_state(self._conductor.setting(), found)
        if self.choices.combine.keeps:  # what a loaded v is put into; the first step learns its own
            for p, x in zip(found.params, found.tensors, strict=True):
                self._memory.kept.setdefault(p, {}).setdefault("v", torch.zeros_like(x))
        self.base.step()

    @_disable_dynamo
    @torch.no_grad()
    def ascend(self, *, scaler: Any = None) -> bool:
        """First half of the two-call form: after backward at w, bring the weights to w + e.

        Every `p.grad` is None afterwards; run forward and backward again, then `descend()`. With model=, buffers and
        generators of pass 2 start from where they were at the first forward (with gradients) after the last step: a
        forward that no step follows therefore counts as its beginning. The closure form has no such ambiguity. Under
        DDP with sync="local", pass 1 needs your own `model.no_sync()` around it.

        Returns:
            Whether the weights moved (False with rho = 0 or on a step without ascent: d will be g).
        """
        return self._conductor.ascend(scaler)

    @_disable_dynamo
    @torch.no_grad()
    def descend(self, *, scaler: Any = None) -> None:
        """Second half: bring the weights back to w and step the base with d."""
        self._conductor.descend(scaler)
        # What torch's schedulers look at; `step` sets it in the other form. It belongs on the real object: trainers'
        # wrappers imitate this class and call its methods with themselves as self.
        real = self._me()
        if real is not None:
            vars(real)["_opt_called"] = True

    @_disable_dynamo
    @torch.no_grad()
    def restore(self) -> None:
        """Give up the ascent: weights, buffers and generators are as before the step, every `p.grad` is None."""
        self._conductor.restore()

    @contextlib.contextmanager
    def ascent(self, *, scaler: Any = None) -> Iterator[None]:
        """`with opt.ascent(): loss_fn(model(x), y).backward()` — the second half of a step as a block.

        It ascends on entry and descends on exit; on any exception inside it restores.
        """
        self.ascend(scaler=scaler)
        try:
            yield
        except BaseException:
            self.restore()
            raise
        self.descend(scaler=scaler)

    def first_step(self, zero_grad: bool = False) -> None:
        """`ascend()`, for people who come from davda54/sam. Gradients are None afterwards in any case."""
        self.ascend()

    def second_step(self, zero_grad: bool = False) -> None:
        """`descend()`, for people who come from davda54/sam."""
        self.descend()
        if zero_grad:
            self.zero_grad()

    # A GradScaler that steps this object itself would apply scaled gradients after one backward.

    @property
    def found_inf(self) -> Tensor:
        """Not for this optimizer: see the setter."""
        raise AttributeError("found_inf")

    @found_inf.setter
    def found_inf(self, value: Tensor) -> None:
        raise RuntimeError(
            "scaler.step(opt) steps with one gradient, and a sharpness-aware step needs two: call "
            "opt.step(closure, scaler=scaler), the closure running scaler.scale(loss).backward(), then scaler.update()"
        )

    def _claim_scaler(self, scaler: Any) -> None:
        """Note with the scaler that this object is unscaled; it touches nothing, but fails where the user did it."""
        self._hides_groups = True
        try:
            scaler.unscale_(self)
        finally:
            self._hides_groups = False

    # State

    def state_dict(self) -> dict[str, Any]:
        """The base's state with fenland's own beside it, under `fenland.*` keys. Callables are not saved.

        Raises:
            RuntimeError: the weights are at the ascent point.
        """
        self._conductor.refuse("state_dict", busy=True)
        index = {p: i for i, p in enumerate(p for group in self.param_groups for p in group["params"])}
        kept = {
            index[p]: {name: saved(x, p) for name, x in vectors.items()}
            for p, vectors in self._memory.kept.items()
            if p in index
        }
        scalars = {"count": self._memory.count, **self._memory.scalars}
        return checkpoint.pack(self.base.state_dict(), kept, scalars)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, here or of a plain base (then each group keeps its rho)."""
        self._conductor.refuse("load_state_dict", busy=True)
        base_part, kept, scalars = checkpoint.unpack(state_dict)
        radii = [group["rho"] for group in self.param_groups]
        self.base.load_state_dict(base_part)
        for group, rho in zip(self.param_groups, radii, strict=True):
            group.setdefault("rho", rho)
        ids = [i for group in base_part["param_groups"] for i in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        self._memory.count = int(scalars.pop("count", 0))
        self._memory.scalars = {**self.choices.when.starts, **self.choices.combine.starts, **scalars}
        self._memory.kept = {
            p: {name: fitted(x, p) for name, x in kept[i].items()}
            for i, p in zip(ids, params, strict=True)
            if i in kept
        }

    def __getstate__(self) -> dict[str, Any]:
        self._conductor.refuse("copy or pickle", busy=True)
        names = ("base", "choices", "model", "replay_rng", "sync", "defaults", "_rho", "_radii", "_memory")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._begin()

    def __repr__(self) -> str:
        c = self.choices
        return f"{type(self).__name__}({c.ball}, {c.source}, {c.combine}, {c.when}, base={self.base!r})"


def _check_base(base: object) -> None:
    if isinstance(base, SharpnessAware):
        raise TypeError("base is a SharpnessAware already: nest choices (ball, source, combine, when), not optimizers")
    if not isinstance(base, torch.optim.Optimizer):
        raise TypeError(
            f"base = {base!r}: must be a torch.optim.Optimizer instance, "
            "such as torch.optim.SGD(model.parameters(), lr=0.1)"
        )
    if isinstance(base, torch.optim.LBFGS):
        raise TypeError(
            "base is LBFGS, which evaluates its closure itself, many times a step: use a first-order optimizer"
        )


def _check_groups(base: torch.optim.Optimizer, groups: Sequence[dict[str, Any]]) -> None:
    name = type(base).__name__
    if "rho" in base.defaults:
        raise ValueError(f"base = {name}: its own option is called rho, which is the radius here; use another base")
    if any(group.get("maximize") for group in groups):
        raise ValueError(f"base = {name}(maximize=True): the ascent would run downhill; minimise the negated objective")
