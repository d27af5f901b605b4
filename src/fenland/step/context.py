"""What a method, a ball or a source may ask of a step of an optimizer (`s` in the rules)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fenland.algebra import Lazy, Leaf, Lists, Scalar, Vector, inverse
from fenland.algebra.base import accumulator_dtype
from fenland.algebra.fresh import clones
from fenland.algebra.lazy import times
from fenland.algebra.shards import layouts, local
from fenland.rules import Context
from fenland.rules.requests import Climb, Grad
from fenland.step.gradients import Gradient, drop
from fenland.step.perturbation import Perturbation
from fenland.step.record import LOW, StepRecord, measure_precision, warn_of_no_vector, warn_of_rounding
from fenland.step.reduction import mean_over_ranks


class StepContext(Context):
    """The state of a step, and the answers to its rules.

    Args:
        run: the optimizer's `Runner`.
        scaling: `Scaled`, or None.
        radii: rho of each group at this step.
    """

    def __init__(self, run: Any, scaling: Any, radii: list[float]) -> None:
        super().__init__(run.memory.count, max(radii, default=0.0))
        self.base_optimizer, self.rules, self.memory = run.base, run.rules, run.memory
        self.groups, self.parameter_names = run.base.param_groups, run.names
        self.reduction, self.host, self.scaling, self.radii = run.reduction, run.on_host, scaling, radii
        self.all_move = all(radii)
        self.perturbation, self.storage = Perturbation(run.rules.perturb, run.storage), run.storage
        self.record = StepRecord()
        self.numbers = dict(run.memory.numbers)
        self.vectors: dict[str, dict[Tensor, Tensor]] = {}  # put in this step, not yet kept
        self.alive: list[Gradient] = []  # answers whose memory is still theirs
        self.at_hand: Gradient | None = None  # the one that `p.grad` holds now
        self.views_lost = False  # every p.grad was a view of a buffer when it was given up
        self.g: Gradient | None = None
        self.h: Gradient | None = None
        self.last: Grad | None = None
        self.request: Any = None
        self.program: Any = None
        every = run.rules.record_every  # cosine and realised radius; 16-bit parameters are looked at once, unasked
        self.sampled = self.count % every == 0 if every else self.count == 0 and self.has_low_precision()
        self.keeps_g = self.sampled or run.rules.nonfinite == "base_step"
        self.settled: Any = None  # the Handover, once d is formed

    def has_low_precision(self) -> bool:
        """Whether a parameter has 16 bits."""
        return any(p.dtype in LOW for group in self.groups for p in group["params"])

    # What methods ask.

    def due(self, g: Leaf | None = None) -> bool:
        norm = torch.zeros(()) if g is None else g.norm
        if g is not None and self.host and not self.reduction.ranks_differ and not math.isfinite(norm.item()):
            return False  # nothing to climb along: the step will be skipped, and pass 2 is spared
        moves = any(self.radii) if g is None else bool(g.params) and (self.all_move or self.moving(g) != [])
        return moves and self.rules.when.ascends(self.count, norm, self.numbers)

    def steepest(self, a: Lazy) -> Lazy:
        unit: Lazy = self.rules.ball.steepest(a.only(self.moving(a)), self)
        return unit

    def reach(self, e: Lazy) -> Lazy:
        if self.radii.count(self.rho) == len(self.radii):
            return Lazy([(c * self.rho, x) for c, x in e.terms], e.length)
        of = {p: rho for group, rho in zip(self.groups, self.radii, strict=True) for p in group["params"]}
        c, x = e.terms[0] if len(e.terms) == 1 else (1.0, e.form())  # one factor a tensor goes with one leaf only
        return Lazy([([times(c, of[p]) for p in x.params or ()], x)], e.length)

    def get(self, name: str, default: Any = None) -> Any:
        if name in self.numbers:
            return self.numbers[name]
        known = {p: vectors[name] for p, vectors in self.memory.kept.items() if name in vectors}
        known.update(self.vectors.get(name, {}))
        if default is None:
            params = [p for p in self._all() if p in known]
            return self._leaf(params, [known[p] for p in params]) if params else None
        if not known:
            return default
        default = default.form()
        pairs = zip(default.params, default.tensors, strict=True)
        return self._leaf(default.params, [known.get(p, x) for p, x in pairs])

    def put(self, name: str, value: Any) -> Any:
        if not isinstance(value, Lazy):
            self.numbers[name] = float(value)
            return value
        formed = value.form()
        tensors = clones(formed.tensors) if formed is value or len(value.terms) == 1 else formed.tensors
        self.vectors[name] = dict(zip(formed.params or (), tensors, strict=True))
        return self._leaf(list(formed.params or ()), tensors)

    def fresh(self, name: str, g: Leaf) -> list[bool]:
        staged = self.vectors.get(name, {})
        return [p not in staged and name not in self.memory.kept.get(p, {}) for p in g.params or ()]

    def base(self, *names: str) -> Leaf | None:
        found: dict[Tensor, Tensor] = {}
        for p in self._all():
            known = self.base_optimizer.state.get(p, {})
            vectors = [known[name] for name in names if known.get(name) is not None]
            if vectors and p.requires_grad:
                found[p] = local(vectors[0])
        if not found and self.count == 1:
            warn_of_no_vector(names, self.base_optimizer, self.groups, self.rules.method)
        return self._leaf(list(found), list(found.values())) if found else None

    def parameters(self) -> Sequence[Tensor]:
        return [p for p in self._all() if p.requires_grad]

    def vector(self, tensors: Vector) -> Leaf:
        return Leaf(tensors, Lists(layouts(self.parameters())), list(self.parameters()), [True] * len(tensors))

    # What balls ask.

    def weights(self, a: Lazy) -> Vector:
        return [local(p.detach()) for p in a.terms[0][1].params or ()]

    def names(self, a: Lazy) -> Sequence[str]:
        return [self.parameter_names.name(p) for p in a.terms[0][1].params or ()]

    def modules(self, a: Lazy) -> Sequence[nn.Module | None]:
        return [self.parameter_names.owner(p) for p in a.terms[0][1].params or ()]

    # What the step itself asks.

    def perturb(self, at: Climb | Lazy, kept: set[Leaf]) -> None:
        """Form w + e, in the memory of a gradient that nobody needs where there is one."""
        owned = {}
        for leaf in kept if not self.sampled or self.g is None else kept | {self.g}:
            owned[leaf], leaf.owned = leaf.owned, None
        e = self.displacement(at)
        if self.rules.ball.geometry is not None:
            self.retract(e)
        else:
            c, x = e.terms[0] if len(e.terms) == 1 else (1.0, e.form())
            mine = not self.sampled and x.owned is not None
            raw = x.raw if x.raw is not None else x.tensors
            steps: Any = c
            if x.factor is not None or not isinstance(c, Tensor):
                steps = [as_step(k, x) for k in c] if isinstance(c, list) else as_step(c, x)
            flags = x.owned if mine and x.owned is not None else [False] * len(raw)
            self.perturbation.apply(x.params or (), raw, steps, flags, whole=isinstance(x, Gradient))
            if self.sampled:
                self.measure(raw, steps, x.V)
        for leaf, before in owned.items():
            leaf.owned = before

    def moving(self, a: Lazy) -> list[int] | None:
        """Positions of the parameters whose group has a radius; None for all."""
        if all(self.radii):
            return None
        still = {p for group, rho in zip(self.groups, self.radii, strict=True) if rho == 0 for p in group["params"]}
        return [i for i, p in enumerate(a.terms[0][1].params or ()) if p not in still]

    def displacement(self, at: Climb | Lazy) -> Lazy:
        """e = rho * ..., not formed; its length is noted."""
        if isinstance(at, Lazy):
            self.record.radius_factors = _length(at)
            return at
        a = at.a if self.all_move else at.a.only(self.moving(at.a))
        leaves = (a,) if isinstance(a, Leaf) else [x for _, x in a.terms]
        self.spend = isinstance(a, Leaf) and a.owned is not None and False not in a.owned
        unit = self.rules.ball.steepest(a, self)
        self.spend = False
        e = self.reach(unit if at.share == 1.0 else unit * at.share)
        if unit.terms[0][1] in leaves:
            self.record.radius_factors = _length(e)
        else:
            one = torch.ones_like(a.norm) if unit.length is None else unit.length
            self.record.radius_factors = (one, self.rho * at.share)
        return e

    def to_tangent(self, found: Gradient) -> None:
        """On a manifold the gradient is its tangent part at w, transported there from w + e."""
        geometry: Any = self.rules.ball.geometry
        away = dict(zip(self.perturbation.params, self.perturbation.origins(), strict=True))
        for i, p in enumerate(found.params):
            x, here = found.wholes[i], p.detach()
            flat = geometry.transport(x, here, away[p], p) if p in away else geometry.tangent(x, here, p)
            if flat is not x:
                found.replace(i, flat)

    def retract(self, e: Lazy) -> None:
        """Go to the retraction of e."""
        c, x = e.terms[0] if len(e.terms) == 1 else (1.0, e.form())
        geometry: Any = self.rules.ball.geometry
        params = list(x.params or ())
        steps = c if isinstance(c, list) else [c] * len(params)
        each = zip(params, x.tensors, steps, strict=True)  # one tensor of e at a time
        self.perturbation.arrive(params, [geometry.retract(local(p.detach()), u * k, p) for p, u, k in each])
        if self.sampled:
            self.measure(None, None, x.V)

    def measure(self, direction: Any, steps: Any, V: Any) -> None:
        """What the parameters' precision holds of e."""
        params = self.perturbation.params
        wanted = None if direction is None else (direction, steps)
        there = [local(p.detach()) for p in params]
        measure_precision(self.record, there, self.perturbation.origins(), wanted, V.layouts)
        warn_of_rounding(self.record, params, self.base_optimizer)

    def drop(self) -> None:
        """Set every `p.grad` to None."""
        drop(self.groups)
        self.at_hand = None

    def fill_record(self) -> None:
        """Norms of the step, and the cosine where g is there; without an ascent h = g and e = 0."""
        g, h, record = self.g, self.h, self.record
        record.grad_norm = None if g is None else g.norm
        record.ascent_grad_norm = h.norm if h is not None else record.grad_norm
        if h is None and g is not None:
            record.radius_factors = (torch.zeros_like(g.norm),)
        if g is not None and h is not None and g.raw is not None and h.params:
            record.cosine = (g * inverse(g.norm)).dot(h) * inverse(h.norm)

    def loss_of_all(self, loss: Tensor | None) -> float:
        """The closure's loss, added up over the ranks."""
        if loss is None:
            raise ValueError("the closure must return the loss: the search compares it between points")
        return mean_over_ranks(loss)

    def _all(self) -> list[Tensor]:
        return [p for group in self.groups for p in group["params"]]

    def _leaf(self, params: Sequence[Tensor], tensors: Vector) -> Leaf:
        """A vector of kept tensors, whose memory is nobody's to write to."""
        return Leaf(tensors, Lists(layouts(params)), params)


def as_step(c: Any, x: Leaf) -> Scalar:
    """The factor of a direction as a scalar, a loss scale in it."""
    if not isinstance(c, Tensor):
        c = torch.tensor(float(c), dtype=accumulator_dtype(x.raw or ()))
    step: Tensor = c if x.factor is None else c * x.factor
    return step


def _length(e: Lazy) -> tuple[Scalar, ...]:
    """||e||_2 as factors, up to a sign, also where each tensor has a factor of its own (`reach`)."""
    c, x = e.terms[0]
    if isinstance(c, list):
        V: Any = x.V
        parts = zip(V.per_tensor_norms(x.tensors), c, strict=True)
        return (V.whole_norm([norm * abs(k) for norm, k in parts]),)
    return (c, x.norm) if len(e.terms) == 1 else (e.norm,)
