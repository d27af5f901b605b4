"""A recipe: what it is for, its settings, the code, and the run behind it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fenland.lab.recipes.measured import Measured, measured


@dataclass(frozen=True)
class Recipe:
    """Settings for a kind of task.

    The learning rate and the radius are those that the method chose on held-out examples of its task, where that was
    run; else ``start``, from which you search.

    Args:
        name: on the command line.
        use: the kind of task.
        advice: a sentence or two: when it helps, when not.
        task: key of the task in the records behind it.
        method: name of the method there.
        preset: its class in ``fenland``.
        start: learning rate and radius where no run has chosen yet, and where they are from.
        cost: gradients a step, for people.
        when: on which steps it ascends, for people.
        schedule: of the learning rate, for people.
        fields: options of `fenland compare` that train such a task, as texts.
        code: what a user pastes; ``{lr}`` and ``{rho}`` are filled in.
    """

    name: str
    use: str
    advice: str
    task: str
    method: str
    preset: str
    start: tuple[float, float, str]
    cost: str
    when: str
    schedule: str
    code: str
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def measured(self) -> Measured | None:
        """What the runs of its task say; None while they are missing."""
        return measured(self.task, self.method)

    @property
    def lr(self) -> float:
        """Learning rate of the base, the highest one of the schedule."""
        found = self.measured
        return self.start[0] if found is None else found.lr

    @property
    def rho(self) -> float:
        """Radius of the ascent."""
        found = self.measured
        return self.start[1] if found is None else found.rho

    @property
    def source(self) -> str:
        """Where learning rate and radius are from."""
        found = self.measured
        if found is None:
            return self.start[2]
        return f"chosen on held-out examples of {self.task} ({found.tries} tries)"

    @property
    def gain(self) -> str:
        """What it brought over the base; says so where it was not measured."""
        found = self.measured
        return (found.gain if found is not None else "") or "not measured yet"

    @property
    def pasted(self) -> str:
        """The code with its numbers."""
        return self.code.replace("{lr}", f"{self.lr:g}").replace("{rho}", f"{self.rho:g}").strip() + "\n"

    @property
    def command(self) -> str:
        """The command that trains its task with the base and with the method."""
        base = self.fields.get("base", "sgd")
        words = ["fenland", "compare", "--optimizers", base, self.preset.lower(), "--rho", f"{self.rho:g}"]
        for name, text in {**self.fields, "lr": f"{self.lr:g}"}.items():
            words += [f"--{name.replace('_', '-')}", text]
        return shlex.join(words)

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold of it."""
        names = ("name", "use", "advice", "method", "lr", "rho", "source", "schedule", "when", "cost", "gain", "task")
        return {name: getattr(self, name) for name in (*names, "command")} | {"code": self.pasted}
