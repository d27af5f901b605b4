"""``fenland study --plan``: what studies would train, and what that takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland.lab.commands import output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fenland.lab.study.plan import Part
    from fenland.lab.study.study import Study

HEADS = ("data", "network", "optimizer", "batch", "runs", "gradient evaluations", "s each", "memory, GiB", "hours")
NOTE = (
    "Gradient evaluations are at most, where an optimizer skips ascents. Seconds and hours are of this machine{where}, "
    "one thread, one run after the other, without evaluations on the test set and what is measured at the end; * is a "
    "step on a few images, scaled up. Memory: weights, what the optimizer keeps, what backward needs, and the train "
    "images as bytes."
)


def show(
    studies: Sequence[Study], preset: str, given: Sequence[dict[str, str]], data_root: Path | None, as_json: bool
) -> int:
    """Print the plan of each study, as a table or as one JSON document."""
    from fenland.lab.study.plan import Folders, measure
    from fenland.lab.study.settings import configure

    folders: Any = Folders(data_root)
    found: list[dict[str, Any]] = []
    for study, values in zip(studies, given, strict=True):
        config = configure(study, preset, values)
        parts = list(measure(study.trained(config, folders)))
        found.append({"study": study.name, "preset": preset, "set": values, **_totals(parts), "parts": _rows(parts)})
        if not as_json:
            _print(study, preset, getattr(config, "device", "cpu"), parts)
    if as_json:
        output.print_json({"plans": found})
    return output.OK


def _totals(parts: Sequence[Part]) -> dict[str, Any]:
    return {
        "runs": sum(part.runs for part in parts),
        "gradient_evaluations": sum(part.evaluations for part in parts),
        "flop": sum(part.evaluations * part.flop for part in parts),
        "memory_bytes": max((part.memory for part in parts), default=0.0),
        "hours_here": sum(part.hours for part in parts),
    }


def _rows(parts: Sequence[Part]) -> list[dict[str, Any]]:
    return [
        {"data": part.run.data, "model": part.run.model, "optimizer": part.run.optimizer}
        | {"options": list(part.run.options), "batch_size": part.run.batch_size, "device": part.run.device}
        | {key: value for key, value in dataclasses.asdict(part).items() if key != "run"} | {"hours_here": part.hours}
        for part in parts
    ]  # fmt: skip


def _print(study: Study, preset: str, device: str, parts: Sequence[Part]) -> None:
    from fenland.lab.study.images import device_is_here

    console = output.console()
    if not parts:
        console.print(f"{study.name}, preset {preset}: trains no network.", markup=False, highlight=False)
        return
    table = output.table(HEADS, title=f"{study.name}, preset {preset}, device {device}")
    for part in parts:
        run, scaled = part.run, "" if part.timed == part.run.batch_size else "*"
        table.add_row(
            run.data, run.model, " ".join((run.optimizer, *run.options)), str(run.batch_size), f"{part.runs:,}",
            f"{part.evaluations:,}", f"{part.seconds:.3g}{scaled}", f"{part.memory / 2**30:.3f}", f"{part.hours:,.2f}",
        )  # fmt: skip
    console.print(table)
    all_of = _totals(parts)
    console.print(
        f"{all_of['runs']:,} runs, {all_of['gradient_evaluations']:,} gradient evaluations, "
        f"{all_of['flop'] / 1e15:,.3g} PFLOP, at most {all_of['memory_bytes'] / 2**30:.2f} GiB, "
        f"{all_of['hours_here']:,.1f} hours here.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    where = "" if device_is_here(device) else f"'s CPU, for torch sees no {device} here"
    console.print(NOTE.format(where=where), markup=False, highlight=False, soft_wrap=True)
