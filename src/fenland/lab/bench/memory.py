"""Memory of a step, from the allocator's own account: what each method holds beyond weights, state and a gradient."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from fenland.lab.bench.contenders import PERIOD
from fenland.markdown import table
from fenland.optimizer import SharpnessAware
from fenland.presets import PRESETS

WIDTH, LAYERS, BATCH = 512, 4, 2
_LOUDNESS = "KINETO_LOG_LEVEL"
_NEEDS: dict[str, Any] = {"full_norm": lambda: 1.0, "total_steps": 1000, "model": None}


@dataclass(frozen=True)
class Memory:
    """Bytes in multiples of the parameters' own."""

    # the most that `ascend` holds beyond what it found (weights, state, g); None where there is no such call
    ascent: float | None
    peak: float  # the most in a step, beyond weights, the state between steps and one gradient
    kept: float  # between steps, beyond the base's state


class Problem:
    """A small stack of linear layers on a tiny batch: activations are nothing beside the weights."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        layers = [nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]
        self.model = nn.Sequential(*layers)
        self.x = torch.randn(BATCH, WIDTH)
        self.params: list[Tensor] = list(self.model.parameters())
        self.bytes = sum(p.nbytes for p in self.params)
        self.per_sample = False

    def closure(self) -> Tensor:
        """Gradients from None, a mean loss or one a sample."""
        self.clear()
        with torch.enable_grad():
            losses: Tensor = self.model(self.x).square().mean(1)
            if self.per_sample:
                return losses
            loss = losses.mean()
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def clear(self) -> None:
        """No gradients."""
        for p in self.params:
            p.grad = None


class Account:
    """What the allocator holds during the block, by torch's profiler; `record_function(name)` marks calls."""

    def __enter__(self) -> Account:
        self._spoken = os.environ.get(_LOUDNESS)
        os.environ[_LOUDNESS] = "99"  # else the profiler writes each of its starts to stderr
        self._watched = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._watched.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._watched.stop()
        if self._spoken is None:
            del os.environ[_LOUDNESS]
        else:
            os.environ[_LOUDNESS] = self._spoken

    def peak(self, name: str) -> int:
        """The most bytes held at one moment of any call under that name, beyond those held when it began."""
        events: Any = self._watched.profiler.kineto_results.events()  # type: ignore[union-attr]
        spans = [(e.start_ns(), e.end_ns()) for e in events if e.name() == name]
        changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
        return max((_most(changes, *span) for span in spans), default=0)


def _most(changes: list[tuple[int, int]], start: int, end: int) -> int:
    held = most = 0
    for at, change in changes:
        if start <= at <= end:
            held += change
            most = max(most, held)
    return most


def of_preset(name: str, **options: Any) -> Memory:
    """What a preset holds, on a fused SGD with momentum: it takes a factor, so that d needs no buffer."""
    row = PRESETS[name]
    given = {need: _NEEDS[need] for need in row.needs if need != "model"} | options
    if name == "SAMON":
        given["layers"] = (nn.Linear,)
    with Account() as account:  # from before the first allocation, so that it knows of every release
        problem = Problem()
        base = torch.optim.SGD(problem.params, lr=1e-3, momentum=0.9, fused=True)
        opt = row.build(base, model=problem.model, **given)
        problem.per_sample = row.per_sample
        for _ in range(3):
            opt.step(problem.closure)
        for _ in range(1 if row.always else PERIOD):
            problem.clear()
            with record_function("a step"):
                opt.step(problem.closure)
        two_calls = not row.per_sample and row.closure_calls == 2 and _ascends(opt, problem)
    kept = sum(x.nbytes for vectors in opt._memory.kept.values() for x in vectors.values())
    size = problem.bytes
    ascent = account.peak("the ascent") / size if two_calls else None
    return Memory(ascent, account.peak("a step") / size - 1, kept / size)


def _ascends(opt: SharpnessAware, problem: Problem) -> bool:
    """Whether there is an `ascend` at all (some evaluate more gradients and have `step(closure)` only)."""
    moved = False
    for _ in range(PERIOD):
        problem.closure()
        try:
            with record_function("the ascent"):
                moved = opt.ascend()
        except RuntimeError:
            return False
        problem.closure()
        opt.descend()
        if moved:
            break
    return moved


_HEAD = """# Memory of a step

This page says how much memory a step needs beyond the plain base's, method by method. The unit is the size of the
parameters. torch's profiler counted the memory of real steps, on {layers} linear layers of {width} x {width} with a
fused SGD with momentum. Copies of tensors of up to 4096 elements, which are joined for their norm, are too small to
show.

- **In `ascend`** is the most that the ascent holds beyond the weights, the base's state and the gradient $g$. 0 means
  that $w + e$ is written into the buffer of $g$, and nothing is copied. A dash means that no separate call of `ascend`
  moved the weights in the measured steps.
- **In a step** is the most that is held at one moment beyond the weights, all state and one gradient. 1 is the ascent
  point, in what was the memory of $g$, while the second backward pass fills another gradient.
- **Kept** is what stays between steps, beyond the base's state.

`perturb="inplace"` holds $w$ beside the weights instead of $w + e$ in the memory of $g$, which costs the same. On an
accelerator `perturb="offload"` keeps that copy of $w$ in pinned host memory. The step then needs no more of the
accelerator's memory than the base alone, at the price of one copy to the host and one back
([decision 12](decisions/0012-offload.md)). The command `fenland bench --memory --markdown > docs/memory.md` makes this
page; do not edit it by hand.

"""


def page() -> str:
    """docs/memory.md."""
    rows = [page_row(name, of_preset(name)) for name in PRESETS]
    return _HEAD.format(layers=LAYERS, width=WIDTH) + table(("method", "in `ascend`", "in a step", "kept"), rows)


def page_row(name: str, found: Memory) -> tuple[str, ...]:
    """A row of its table."""
    ascent = "-" if found.ascent is None else _plain(found.ascent)
    return name, ascent, _plain(found.peak), _plain(found.kept)


def _plain(value: float) -> str:
    """To a tenth: below is scratch of the kernels."""
    return f"{round(value, 1) + 0.0:.1f}"
