"""SharpnessAware: any first-order `torch.optim` optimizer, stepped with gradients from an ascent point."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NoReturn

import torch
from torch import nn
from torch._compile import _disable_dynamo

from fenland.algebra.shards import local
from fenland.arguments import check_among, check_count, check_instance, check_positive
from fenland.rules import L2, Always, Ball, Combine, Method, Radius, Source, When, chosen
from fenland.step.checkpoints import pack, unpack
from fenland.step.drivers import two_calls
from fenland.step.drivers.closure import run_closure, run_micro_batches
from fenland.step.drivers.evaluation import NO_CLOSURE, Closure, refuse_caller
from fenland.step.gradients import Scaled
from fenland.step.perturbation import STRATEGIES
from fenland.step.record import StepRecord
from fenland.step.refusals.bases import check_base, check_groups, listed
from fenland.step.runner import Runner
from fenland.step.state import Memory, Radii, Rules

NONFINITE = ("skip", "base_step", "raise")
_FIXED = {"base", "model", "replay_rng", "sync", "rules", "ball", "source", "combine", "when", "method", "max_norm"}
_FIXED |= {"nonfinite", "perturb", "record_every"}


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
        method: the program of a step, instead of source and combine: fenland.Renormalize(), fenland.Reuse(), your own.
        model: the module whose buffers are guarded, so that they see one forward a step, at w.
        replay_rng: run pass 2 with the random numbers of pass 1 (equal dropout masks): torch's, Python's and NumPy's
            global generators, and those that `model` holds.
        max_norm: upper bound on ||d||_2, applied once, as `torch.nn.utils.clip_grad_norm_` would to d.
        nonfinite: what an infinite or NaN gradient does: "skip" the step, "base_step" (step with g where g is finite),
            or "raise" a FloatingPointError. Weights, buffers and generators are as before a skipped step.
        sync: "global" or "local" ascent under data parallelism.
        perturb: how weights get to w + e: "auto", "swap" (exchange storage), "inplace" (w saved beside), "offload" (in
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

    # GradScaler.step(opt) would hand over scaled gradients: with this flag it announces itself first (`grad_scale`).
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
        method: Method | None = None,
        model: nn.Module | None = None,
        replay_rng: bool = True,
        max_norm: float | None = None,
        nonfinite: Literal["skip", "base_step", "raise"] = "skip",
        sync: Literal["global", "local"] = "global",
        perturb: Literal["auto", "swap", "inplace", "offload"] = "auto",
        record_every: int | None = None,
    ) -> None:
        check_base(base, SharpnessAware)
        check_groups(base, base.param_groups)
        check_among("nonfinite", nonfinite, NONFINITE)
        check_among("sync", sync, ("global", "local"))
        check_among("perturb", perturb, STRATEGIES)
        check_positive("max_norm", max_norm, "no bound")
        check_count("record_every", record_every, "never")
        ball, when = ball or L2(), when or Always()
        check_instance("ball", ball, Ball, "fenland.L2()")
        check_instance("when", when, When, "fenland.Always()")
        if model is not None:
            check_instance("model", model, nn.Module, "the module that you train")
        self.base, self.model, self.replay_rng, self.sync = base, model, replay_rng, sync
        self.rules = Rules(ball, chosen(method, source, combine), when, max_norm, nonfinite, perturb, record_every)
        self._memory = Memory(numbers={**when.starts, **self.rules.method.numbers})
        self._radii = Radii(base, rho)
        self._begin()
        self._radii.write(base)  # nothing of the base has changed until here
        super().__init__(base.param_groups, getattr(base, "defaults", {}))

    def _begin(self) -> None:
        """The machinery of steps: new objects, copies and unpickled ones build their own."""
        self._me = weakref.ref(self)
        self._runner = Runner(self.base, self.rules, self._memory, self._radii, self.model, self.replay_rng, self.sync)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and "_runner" in self.__dict__:
            raise AttributeError(f"{name} is fixed when the optimizer is built: build another one over the same base")
        if "defaults" in self.__dict__ and not name.startswith("_") and self._is_of_the_base(name):
            setattr(self.base, name, value)  # what is read from the base is set there, or it would have no effect
        else:
            super().__setattr__(name, value)

    def _is_of_the_base(self, name: str) -> bool:
        return name not in self.__dict__ and not hasattr(type(self), name) and hasattr(self.base, name)

    @property
    def last(self) -> StepRecord:
        """The record of the last step (device tensors: reading one synchronises)."""
        return self._runner.record

    @property
    def rho(self) -> Any:
        """The radius of all groups, or a list of theirs where they differ; setting it sets every group's."""
        radii = [group["rho"] for group in self.param_groups]
        return radii[0] if radii.count(radii[0]) == len(radii) else radii

    @rho.setter
    def rho(self, rho: Radius) -> None:
        self._radii.set_all(self.param_groups, rho, self._memory.count)

    def __getattr__(self, name: str) -> Any:
        """What the base has and this class does not define is the base's (`train`, `eval`, options of its own)."""
        if name == "base_optimizer":
            raise AttributeError("SharpnessAware calls the optimizer that it wraps `base`, not base_optimizer")
        if name.startswith("__") or "base" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name in ("train", "eval"):  # a schedule-free base's move the weights
            self._runner.refuse(name, busy=True)
        try:
            return getattr(self.base, name)
        except AttributeError:
            message = f"neither SharpnessAware nor its base {type(self.base).__name__} has an attribute {name!r}"
            raise AttributeError(message) from None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """The base's own."""
        self.base.zero_grad(set_to_none)

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
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise TypeError(f"param_group = {param_group!r}: must be a dict with 'params'")
        if any(param_group is group for group in self.base.param_groups):
            return  # Optimizer.__init__ adds the groups that the base has already
        self._runner.refuse("add_param_group", busy=True)
        added = {**self.defaults, **param_group, "params": listed(param_group)}
        check_groups(self.base, [added])
        self._radii.check(len(self.base.param_groups), added, self._memory.count)
        self.base.add_param_group(param_group)
        self._radii.add(self.base.param_groups[-1], self._memory.count)
        self._begin()

    # Hooks of a step that were registered here; those of the base and torch's global ones fire in the base's own step.

    def _before_step(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        for hook in self._optimizer_step_pre_hooks.values():
            changed = hook(self, args, kwargs)
            if changed is not None:
                args, kwargs = changed
        return args, kwargs

    def _after_step(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for hook in self._optimizer_step_post_hooks.values():
            hook(self, args, kwargs)

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
        args: tuple[Any, ...] = (self, closure)
        kwargs: dict[str, Any] = {"scaler": scaler} if scaler is not None else {}
        if self._optimizer_step_pre_hooks:
            args, kwargs = self._before_step(args, kwargs)
        before = torch.is_grad_enabled()
        try:
            torch._C._set_grad_enabled(False)  # a `with` would cost a small model's step more
            value = self._step(*args[1:], **kwargs)
        finally:
            torch._C._set_grad_enabled(before)
        if self._optimizer_step_post_hooks:
            self._after_step(args, kwargs)
        return value

    def _step(self, closure: Closure | Sequence[Closure] | None = None, scaler: Any = None) -> Any:
        if closure is None:
            return self._step_without_closure()
        refuse_caller(closure)
        scaling = None if scaler is None else self._scaling(scaler)
        if callable(closure):
            return run_closure([self._runner], closure, [scaling])
        if not isinstance(closure, Sequence) or not closure or [c for c in closure if not callable(c)]:
            raise TypeError(f"closure = {closure!r}: must be a callable or a non-empty list of callables")
        return run_micro_batches(self._runner, closure, scaling)

    step.hooked = True  # type: ignore[attr-defined]  # torch must not wrap it: the base's own step fires the hooks

    def _step_without_closure(self) -> None:
        """`torch.distributed.checkpoint` makes a fresh optimizer's state so: lr 0, gradients 0. Nobody else may."""
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        still = all(float(group.get("lr", 1)) == 0 for group in self.param_groups)
        if not still or self.state or any(bool(g.any()) for g in grads):
            raise RuntimeError(NO_CLOSURE)
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            for name in self.rules.method.keeps:  # what a loaded vector is put into; the first step learns its own
                self._memory.kept.setdefault(p, {}).setdefault(name, torch.zeros_like(local(p.grad)))
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
        return two_calls.ascend(self._runner, self._scaling(scaler))

    @_disable_dynamo
    @torch.no_grad()
    def descend(self, *, scaler: Any = None) -> None:
        """Second half: bring the weights back to w and step the base with d."""
        # Trainers' wrappers imitate this class and call its methods with themselves as self: hooks are the real one's.
        real = self._me() or self
        hooked = real._optimizer_step_pre_hooks or real._optimizer_step_post_hooks
        hooks = (real._before_step, real._after_step, real) if hooked else None
        two_calls.descend(self._runner, self._scaling(scaler), hooks)
        vars(real)["_opt_called"] = True  # what torch's schedulers look at; `step` sets it in the other form

    @_disable_dynamo
    @torch.no_grad()
    def restore(self) -> None:
        """Give up the ascent: weights, buffers and generators are as before the step, every `p.grad` is None."""
        two_calls.restore(self._runner)

    @contextlib.contextmanager
    def ascent(self, *, scaler: Any = None) -> Iterator[None]:
        """`with opt.ascent(): loss_fn(model(x), y).backward()` ascends, then descends, or restores on an exception."""
        try:
            self.ascend(scaler=scaler)
            yield
            self.descend(scaler=scaler)
        except BaseException:
            if self._runner.pending is not None:
                self.restore()
            raise

    def first_step(self, zero_grad: bool = False) -> None:
        """`ascend()`, for people who come from davda54/sam. Gradients are None afterwards in any case."""
        self.ascend()

    def second_step(self, zero_grad: bool = False) -> None:
        """`descend()`, for people who come from davda54/sam."""
        self.descend()
        if zero_grad:
            self.zero_grad()

    # A GradScaler that steps this object itself would apply scaled gradients after one backward.

    def _refuse_scaler(self, value: Any = None) -> NoReturn:
        raise RuntimeError(
            "scaler.step(opt) steps with one gradient, and a sharpness-aware step needs two: call "
            "opt.step(closure, scaler=scaler), the closure running scaler.scale(loss).backward(), then scaler.update()"
        )

    def _no_scale(self) -> NoReturn:
        raise AttributeError("a sharpness-aware optimizer is handed to no GradScaler: see opt.step(closure, scaler=)")

    found_inf = property(_no_scale, _refuse_scaler)
    grad_scale = property(_no_scale, _refuse_scaler)

    def _scaling(self, scaler: Any) -> Scaled | None:
        return Scaled(scaler, self._claim) if scaler is not None and scaler.is_enabled() else None

    def _claim(self, scaler: Any) -> None:
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
        self._runner.refuse("state_dict", busy=True)
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        packed = pack(self.base, self._memory)
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, packed)
            packed = packed if changed is None else changed
        return packed

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, here or of a plain base (then each group keeps its rho).

        Raises:
            ValueError: it is no optimizer's state, or does not fit; nothing has changed then.
        """
        self._runner.refuse("load_state_dict", busy=True)
        state_dict = dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        starts = {**self.rules.when.starts, **self.rules.method.numbers}
        loaded = unpack(state_dict, self.base, starts, self._runner.names)
        self.base.load_state_dict(loaded.base_part)
        self._radii.relink(self.param_groups)
        self._memory.count, self._memory.numbers, self._memory.kept = loaded.count, loaded.numbers, loaded.kept
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __getstate__(self) -> dict[str, Any]:
        self._runner.refuse("copy or pickle", busy=True)
        names = ("base", "rules", "model", "replay_rng", "sync", "defaults", "_radii", "_memory")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._begin()

    def __repr__(self) -> str:
        ball, method, when = self.rules
        return f"{type(self).__name__}({ball}, {method}, {when}, base={self.base!r})"
