"""What commands that run a sweep share: the cluster's options, and how they end."""

from __future__ import annotations

import math
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland.lab.commands import output
from fenland.lab.config.words import number
from fenland.lab.errors import BadInput

if TYPE_CHECKING:
    from fenland.lab.compare.comparison import Comparison
    from fenland.lab.sweep.cluster import Cluster


def cluster(address: str, cpus: str, gpus: str, workers: int) -> Cluster | None:
    """The Ray cluster of the options ``--ray``, ``--cpus-per-run`` and ``--gpus-per-run``; None without the first."""
    for name, text, default in (("cpus-per-run", cpus, "1"), ("gpus-per-run", gpus, "0")):
        if not address and text != default:
            raise BadInput(name, text, "is for a cluster; add --ray local or --ray ADDRESS")
    if not address:
        return None
    from fenland.lab.sweep.cluster import Cluster

    return Cluster(address, cpus=_resource("cpus-per-run", cpus), gpus=_resource("gpus-per-run", gpus), slots=workers)


def _resource(name: str, text: str) -> float:
    value = number(text)
    if not (math.isfinite(value) and value >= 0) or (value > 1 and value != int(value)):
        raise BadInput(name, text, "give a whole number, or a fraction below 1")
    if name == "cpus-per-run" and value == 0:
        raise BadInput(name, text, "give a number > 0")
    return value


def alone(command: Any, switch: str, *keeps: str) -> None:
    """Refuse options that mean nothing beside one of the same command.

    Args:
        command: the command with its options.
        switch: the field of the one.
        keeps: the fields that keep their meaning.

    Raises:
        BadInput: naming the first option that is set.
    """
    for field in fields(command):
        value = getattr(command, field.name)
        if field.name in (switch, *keeps) or value == field.default or field.default is MISSING:
            continue
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else "on" if value is True else value
        raise BadInput(field.name, shown, f"means nothing with --{switch}; leave one of them out")


def data_name(data: str) -> str:
    """A word for what ``--data`` names: a folder's own name, or that of the set."""
    path = Path(data).expanduser()
    return path.resolve().name if path.is_dir() else data.strip("/").replace("/", "-")


def data_root(text: str) -> Path | None:
    """The folder of the option ``--data-root``; None without it."""
    if text and not Path(text).is_dir():
        raise BadInput("data-root", text, "no such directory; give the folder that holds mnist/, ...")
    return Path(text) if text else None


def interrupted(out: Path) -> int:
    """Say what Ctrl-C leaves; the exit code."""
    said = f"fenland: interrupted; finished runs are in {out}, the same command goes on from there"
    print(said, file=sys.stderr)
    return output.INTERRUPTED


def ending(done: Comparison) -> int:
    """Say what went wrong; the exit code."""
    failed = done.swept.failed
    if failed:
        total = len(done.swept.outcomes) + len(done.swept.skipped)
        first = failed[0]
        reason = f"{len(failed)} of {total} runs failed, the first ({first.run}) with: {first.error}"
        print(f"fenland: {reason}; the same command tries them again", file=sys.stderr)
        print(f"fenland: their tracebacks are in {done.out / 'log.txt'}", file=sys.stderr)
    if done.trouble:
        print(f"fenland: the report could not be written: {done.trouble}; the runs are stored", file=sys.stderr)
    return output.FAILED if failed or done.trouble else output.OK


def counts(done: Comparison) -> dict[str, object]:
    """What a program wants to know of a sweep."""
    return {
        "out": done.out,
        "report": done.report,
        "headline": done.headline,
        "ran": len(done.swept.outcomes),
        "stored_before": len(done.swept.skipped),
        "failed": [{"run": each.run, "error": each.error} for each in done.swept.failed],
    }
