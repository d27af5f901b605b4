"""Several steps fused into one loop over replicas."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import TypeAlias

import torch
from torch import Tensor

from fenland.algebra import Vector
from fenland.lab.replicas.step import Given, Program, State

# Steps a call. With 4 of them all intermediates stay in registers: 8 were slower to run and much slower to compile.
CHUNK = 4

Steps: TypeAlias = Callable[[State, Given, "list[list[Vector]]", Tensor], State]


def compiled_steps(program: Program, threads: int) -> Steps:
    """(state, given, noise, steps taken) -> the state after CHUNK more steps, by compiled code."""
    try:
        return _compiled(program, threads)
    except TypeError:  # a problem with tensors in it cannot be a key
        return _compile(program, threads)


def _compile(program: Program, threads: int) -> Steps:
    def steps(state: State, given: Given, noise: list[list[Vector]], taken: Tensor) -> State:
        for k in range(CHUNK):
            # Any number but 0, which is the first step's: rules that read it do not come here.
            state = program.step(state, given, noise[k], 1 + k, taken + (k + 1))
        return state

    # A code object of its own: dynamo counts recompilations by code object and gives up after a few.
    own = FunctionType(steps.__code__.replace(), steps.__globals__, "steps", None, steps.__closure__)
    fused: Steps = torch.compile(own, fullgraph=True, dynamic=False, options={"cpp.threads": threads})
    return fused


_compiled = lru_cache(maxsize=64)(_compile)
