"""The measurement: all take turns in changing order, so that a noisy machine disturbs all alike."""

from __future__ import annotations

import gc
import os
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fenland.lab.bench.contenders import BASES, STATE, Contender, Gradients, build, plain, primitives, variants
from fenland.lab.bench.shapes import SETS, count
from fenland.lab.errors import BadInput, one_of

Row: TypeAlias = dict[str, float]
_FLOOR = {"norm": 2, "axpy": 1}
_FEWER = ((1_000_000, 60, 3), (50_000_000, 15, 2))  # parameters up to which, rounds, warm-up rounds
_LEAST = (6, 1)
_USABLE = 0.7  # of the free memory


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        sets: names of parameter sets.
        bases: names of base optimizers.
        names: variants and peers; empty for all.
        rounds: measurements of each, at least 3; None for fewer the larger the set is.
        seed: of the order in which they take turns.
        clock: "wall", or "cpu" for this thread's own time.
    """

    sets: Sequence[str]
    bases: Sequence[str]
    names: Sequence[str] = ()
    rounds: int | None = None
    seed: int = 0
    clock: str = "wall"

    def rounds_of(self, size: int) -> tuple[int, int]:
        """Rounds and warm-up rounds on a set of that many parameters."""
        rounds, warm_up = next(((r, w) for limit, r, w in _FEWER if size <= limit), _LEAST)
        return (rounds if self.rounds is None else self.rounds), warm_up

    def parts(self) -> Iterator[tuple[str, str]]:
        """(set, base) in order."""
        for name in self.sets:
            for base in self.bases:
                yield name, base


def measure(
    shapes: list[tuple[int, ...]], base: str, plan: Plan, tick: Callable[[], None] = lambda: None
) -> dict[str, Row]:
    """Medians and spreads on one parameter set and base.

    Args:
        shapes: of the parameters.
        base: name of the base optimizer.
        plan: names, rounds, seed.
        tick: called after each round of each group of contenders.

    Returns:
        By name: `ms` (median), `spread_ms` (half of the interquartile range), `extra_ms` beyond the base, `floors`
        (extra in multiples of the L2 floor), `own` (in multiples of its own floor), `own_ms`.
    """
    draw = torch.Generator().manual_seed(0)
    params: list[Tensor] = [torch.nn.Parameter(torch.randn(s, generator=draw) * 0.02) for s in shapes]
    gradients = Gradients(params, clock=plan.clock)
    names = [n for n in variants(count(shapes)) if not plan.names or n in plan.names]
    rows: dict[str, Row] = {}
    for part in _parts(names, count(shapes), base):
        found = _measure_together(params, gradients, base, part, plan, tick)
        gc.collect()  # optimizers refer to themselves: their buffers would stay beside those of the next group
        for name, row in found.items():
            rows.setdefault(name, row)
    return rows


def groups_of(names: Sequence[str], size: int, base: str) -> int:
    """How many groups the contenders are measured in, so that each fits into memory."""
    return len(_parts(names, size, base))


def _parts(names: Sequence[str], size: int, base: str) -> list[Sequence[str]]:
    """The contenders in groups that fit into memory; each group has the floor and the base among it."""
    each = 4 * size * (STATE[base.split("-")[0]] + 1)
    shared = (
        4 * size * 10
    )  # w, the gradients' source, g, h, w + e, the floor's three, what a rule makes, the plain base
    room = _USABLE * free_memory() - shared
    if room < each:
        raise BadInput(
            "sets",
            f"{size / 1e6:.0f} M parameters",
            f"{(shared + each) / _USABLE / 2**30:.1f} GiB of free memory are needed and "
            f"{free_memory() / 2**30:.1f} are there; choose a smaller set",
        )
    many = max(1, int(room // each))
    return [names[i : i + many] for i in range(0, len(names), many)] or [()]


def free_memory() -> float:
    """Bytes that can be had."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable"):
                    return float(line.split()[1]) * 1024
    except OSError:
        pass
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / 2


def _measure_together(
    params: list[Tensor],
    gradients: Gradients,
    base: str,
    names: Sequence[str],
    plan: Plan,
    tick: Callable[[], None],
) -> dict[str, Row]:
    made = [build(name, params, base) for name in names]
    turns = [*primitives(params), plain(params, base), *(c for c in made if c is not None)]
    rounds, warm_up = plan.rounds_of(sum(p.numel() for p in params))
    for contender in turns:  # allocator, optimizer state, code paths
        for _ in range(warm_up):
            contender.round(gradients)
        contender.seconds.clear()
    order = random.Random(plan.seed)
    for _ in range(rounds):
        for contender in order.sample(turns, len(turns)):
            contender.round(gradients)
        tick()
    return _rows(turns)


def _rows(turns: Sequence[Contender]) -> dict[str, Row]:
    median = {c.name: statistics.median(c.seconds) * 1e3 for c in turns}
    rows: dict[str, Row] = {}
    for contender in turns:
        low, _, high = statistics.quantiles(contender.seconds, n=4)
        row = {"ms": median[contender.name], "spread_ms": (high - low) / 2 * 1e3}
        if contender.name not in ("floor", "base", "norm", "axpy", "dot", "scale"):
            own = median["floor"] + sum(
                (times - _FLOOR.get(name, 0)) * median[name] for name, times in contender.passes.items()
            )
            extra = row["ms"] - median["base"]
            row |= {"extra_ms": extra, "floors": extra / median["floor"], "own": extra / own, "own_ms": own}
        rows[contender.name] = row
    return rows


def known(sets: Sequence[str], bases: Sequence[str], names: Sequence[str]) -> None:
    """Raise a `BadInput` that names what there is where one of these is unknown."""
    every = variants(0)
    for argument, given, allowed in (("sets", sets, SETS), ("bases", bases, BASES), ("names", names, every)):
        for name in given:
            if name not in allowed:
                raise BadInput(argument, name, one_of(allowed, name))


def report(
    plan: Plan, tick: Callable[[], None] = lambda: None, keep: Callable[[dict[str, Any]], None] = lambda record: None
) -> dict[str, Any]:
    """The whole record: machine, plan, rows by set and base.

    Args:
        plan: what is measured.
        tick: as in `measure`.
        keep: gets the record so far after every set and base, so that a kill loses one of them at most.
    """
    from fenland.lab.store.environment import describe

    sets: dict[str, dict[str, dict[str, Row]]] = {}
    machine = describe(torch.get_num_threads())
    record = {"machine": machine, "rounds": plan.rounds, "clock": plan.clock, "sets": sets}
    for name, base in plan.parts():
        sets.setdefault(name, {})[base] = measure(SETS[name](), base, plan, tick)
        keep(record)
    return record
