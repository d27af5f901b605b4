"""A monitor for running training: gamma, cosine, sharpness, and now and then the ends of the Hessian's spectrum.

>>> live = Live(opt, model, loss_fn, probe=[batch], every=50, on_record=lambda r: tracker.log(r, step=r["step"]))
>>> for x, y in loader:
...     opt.step(closure)
...     live.update()
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from fenland.arguments import check_among, check_between, check_number, check_whole
from fenland.diagnostics import curvature
from fenland.diagnostics.hessian import HVPS, Hvp
from fenland.diagnostics.monitor import Monitor
from fenland.diagnostics.objective import LossFn, Mode, Objective
from fenland.diagnostics.preserve import MODES
from fenland.diagnostics.recipe import edge_of, read
from fenland.optimizer import SharpnessAware

Record = dict[str, float]
FIELDS = ("loss", "loss_ascent", "grad_norm", "gamma", "cosine", "radius", "realised_radius")
PASSES = 2.0  # guess, before the first measurement: a product with the Hessian costs as much as so many steps


class Live:
    """Watches an optimizer's steps, and makes one record of plain numbers every `every` steps.

    A record has:

    - "step": how many steps it has seen.
    - loss, loss_ascent, "sharpness" (loss_ascent - loss), grad_norm, gamma and radius: means since the last record. If
      the optimizer samples them (`record_every=`), also cosine and realised_radius.
    - "monitor_share": the share of the time since the first update that this object has taken.
    - "largest_eigenvalue" and "smallest_eigenvalue" with "..._residual", if there is a probe and the budget allows it.
    - "edge", beside the eigenvalues and over SGD: the edge of stability at the learning rate and the means of radius,
      grad_norm and gamma (`theory.edge_curvature`). Training near the edge has its largest eigenvalue there. For
      mini-batches, whose gradients are longer than their mean, it is too high. "edge_sgd" is the edge without the
      ascent, 2 / lr for plain SGD.

    Reading the numbers waits for the device, once a record.

    The budget bounds the share of time that this object takes. The first eigenvalues wait until a guess of their cost
    (2 steps a product) fits into it, and later ones until their last measured cost does. So the share exceeds the
    budget only if a measurement took longer than foreseen, and then falls back below it.

    Args:
        optimizer: a fenland optimizer.
        model: what `loss_fn` gets; needed with a probe.
        loss_fn: as in training, loss_fn(model, batch); needed with a probe.
        probe: a few fixed batches for the eigenvalues, see `Objective`; None measures none.
        every: steps between two records.
        budget: largest share of the time, in (0, 1].
        products: the most Hessian-vector products for one measurement; the residuals say how exact it is.
        tol: largest relative residual of the eigenvalues, see `curvature.extreme_eigenvalues`.
        mode: see `Objective`.
        hvp: see `curvature.extreme_eigenvalues`.
        on_record: called with each record, for a tracker.
        clock: a function that returns seconds, for tests.

    Attributes:
        records: all records so far.

    Raises:
        As `Objective`, for a probe that it cannot measure.
    """

    def __init__(
        self,
        optimizer: SharpnessAware,
        model: nn.Module | None = None,
        loss_fn: LossFn | None = None,
        probe: Iterable[Any] | None = None,
        *,
        every: int = 100,
        budget: float = 0.05,
        products: int = 40,
        tol: float = 0.01,
        mode: Mode = "eval",
        hvp: Hvp = "autograd",
        on_record: Callable[[Record], object] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check_whole("every", every, 1)
        check_between("budget", budget, 0.0, 1.0)
        check_whole("products", products, 4)
        check_number("tol", tol, low=0.0)
        if budget == 0:
            raise ValueError("budget = 0: must be > 0, the share of the time that may be used")
        if probe is not None and (model is None or loss_fn is None):
            raise ValueError("probe: needs model and loss_fn too, to compute the loss on it")
        check_among("mode", mode, MODES)
        check_among("hvp", hvp, HVPS)
        if model is not None and loss_fn is not None and probe is not None:
            Objective(model, loss_fn, probe, mode=mode)  # refuses what it does now, not in the midst of training
        self.records: list[Record] = []
        self._monitor = Monitor(optimizer, batch=every)
        self._model, self._loss_fn, self._probe = model, loss_fn, probe
        self._every, self._budget = every, budget
        self._options: dict[str, Any] = {"max_products": products, "tol": tol, "mode": mode, "hvp": hvp}
        self._on_record, self._clock = on_record, clock
        self._start: float | None = None
        self._own, self._cost, self._steps, self._read = 0.0, 0.0, 0, 0

    def update(self) -> Record | None:
        """Take the record of the step that has just been made; the new record where one is due."""
        begin = self._clock()
        if self._start is None:
            self._start = begin
        self._steps += 1
        self._monitor.update()
        record = self._record(begin) if self._steps % self._every == 0 else None
        self._own += self._clock() - begin
        if record is not None:
            record["monitor_share"] = self.share
            self.records.append(record)
            if self._on_record is not None:
                self._on_record(record)
        return record

    @property
    def share(self) -> float:
        """The share of the time since the first update that was spent here."""
        elapsed = self._clock() - self._start if self._start is not None else 0.0
        return self._own / elapsed if elapsed > 0 else 0.0

    def _record(self, now: float) -> Record:
        rows = self._monitor.read()
        new, self._read = rows[self._read :], len(rows)
        columns = {name: [row[name] for row in new if name in row and row[name] == row[name]] for name in FIELDS}
        record: Record = {"step": float(self._steps)}
        record |= {name: sum(column) / len(column) for name, column in columns.items() if column}
        if "loss" in record and "loss_ascent" in record:
            record["sharpness"] = record["loss_ascent"] - record["loss"]
        if self._probe is not None and self._fits(now):
            record |= self._eigenvalues() | self._edges(record)
        return record

    def _edges(self, record: Record) -> Record:
        """The largest eigenvalue that the present learning rate allows, with the ascent and without."""
        recipe, norm = read(self._monitor.optimizer), record.get("grad_norm", 0.0)
        effective = record.get("radius", 0.0) / norm if norm > 0 else None
        found = {
            "edge": edge_of(recipe, recipe.method, effective, record.get("gamma")),
            "edge_sgd": edge_of(recipe, "SGD", None, None),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _fits(self, now: float) -> bool:
        """Whether one more measurement keeps within the budget."""
        elapsed = now - (self._start or now)
        spent = self._own + self._clock() - now
        cost = self._cost or PASSES * self._options["max_products"] * (elapsed - self._own) / max(1, self._steps - 1)
        return spent + cost <= self._budget * (elapsed + cost)

    def _eigenvalues(self) -> Record:
        assert self._model is not None
        assert self._loss_fn is not None
        assert self._probe is not None
        begin = self._clock()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="eigenvalues did not reach tol")  # the residual says so
            found = curvature.extreme_eigenvalues(self._model, self._loss_fn, self._probe, **self._options)
        self._cost = self._clock() - begin
        low, high = found.smallest[0], found.largest[0]
        return {
            "largest_eigenvalue": high.value,
            "largest_residual": high.residual,
            "smallest_eigenvalue": low.value,
            "smallest_residual": low.residual,
        }
