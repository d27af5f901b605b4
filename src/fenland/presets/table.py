"""The table of methods: each preset function enters its own row, from which documentation and tests are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from fenland.optimizer import SharpnessAware
from fenland.presets.calls import explained

Build: TypeAlias = Callable[..., SharpnessAware]
F = TypeVar("F", bound=Build)


@dataclass(frozen=True)
class Preset:
    """A row of the table of methods.

    Attributes:
        name: the public name.
        build: base and options -> optimizer.
        title: what it does, in a sentence.
        equation: perturbation and descent gradient.
        source: authors, year, arXiv id.
        choices: the choices that differ from SAM's, by class name.
        closure_calls: closure calls on a step that ascends.
        cost: gradient evaluations a step, in words where that is no constant.
        syncs: host synchronisations a step on an accelerator with a fused base.
        kept: parameter-sized buffers between steps, beyond the base's.
        in_step: parameter-sized buffers during pass 2 beyond w, w + e (which lives where g was) and what is kept.
        defaults: where the default values come from.
        traps: what goes wrong easily, and how paper and code differ.
        needs: arguments that have no default, or "model".
        per_sample: the closure returns one loss a sample and leaves backward to the engine.
        always: every step ascends.
    """

    name: str
    build: Build
    title: str
    equation: str
    source: str
    choices: tuple[str, ...] = ()
    closure_calls: int = 2
    cost: str = ""
    syncs: int = 0
    kept: int = 0
    in_step: int = 0
    defaults: str = ""
    traps: str = ""
    needs: tuple[str, ...] = ()
    per_sample: bool = False
    always: bool = True

    @property
    def evaluations(self) -> str:
        """Gradient evaluations a step."""
        return self.cost or str(self.closure_calls)

    @property
    def text(self) -> str:
        """The row as a docstring."""
        lines = [f"{self.title}", "", f"    {self.equation}", "", f"Source: {self.source}."]
        costs = f"{self.evaluations} gradient evaluations a step; {self.kept} parameter-sized buffers between steps"
        costs += f", {self.in_step} more within one"
        lines += [f"Defaults: {self.defaults}." if self.defaults else "", f"Cost: {costs}."]
        if self.needs:
            lines.append(f"Needs: {', '.join(self.needs)}.")
        if self.per_sample:
            lines.append("The closure returns the losses of its samples, shape (B,), without backward.")
        lines += [self.traps and f"Note: {self.traps}.", "", "`options` are those of `SharpnessAware`."]
        return "\n".join(line for i, line in enumerate(lines) if line or (i and lines[i - 1]))


PRESETS: dict[str, Preset] = {}


def preset(equation: str, source: str, *choices: str, **row: object) -> Callable[[F], F]:
    """Enter the decorated function into the table; its docstring becomes the row's text, its first line the title."""

    def enter(build: F) -> F:
        title = (build.__doc__ or "").strip()
        build = explained(build)
        made = Preset(build.__name__, build, title, equation, source, choices, **row)  # type: ignore[arg-type]
        PRESETS[made.name] = made
        build.__doc__ = made.text
        return build

    return enter
