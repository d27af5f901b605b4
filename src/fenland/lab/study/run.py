"""Run a study: measure what is not stored, judge it, draw it, and write its folder."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland import __version__
from fenland.lab.store import environment
from fenland.lab.studies import find
from fenland.lab.study.base import Study, Tables, Verdict
from fenland.lab.study.laboratory import Laboratory
from fenland.lab.study.pieces import write_table
from fenland.lab.study.settings import configure, plain, restore

if TYPE_CHECKING:
    from rich.console import Console

    from fenland.lab.sweep.cluster import Cluster


@dataclass(frozen=True)
class Done:
    """What a study left.

    Args:
        name: of the study.
        folder: where everything is.
        verdicts: all of them, in the study's order.
        report: the page.
        seconds: that measuring took, when it was measured.
        reused: whether the stored tables were taken.
    """

    name: str
    folder: Path
    verdicts: tuple[Verdict, ...]
    report: Path
    seconds: float
    reused: bool


def run_study(
    name: str | Study[Any],
    preset: str = "quick",
    overrides: Mapping[str, str] | None = None,
    out: Path = Path("out/studies"),
    *,
    console: Console | None = None,
    workers: int = 1,
    data_root: Path | None = None,
    ray: Cluster | str | None = None,
    trackers: Sequence[str] = (),
) -> Done:
    """Run a study and write ``out/NAME``: config, environment, tables, verdicts, figures and the page.

    The same configuration of the same code is not measured twice: its tables are read, and judged and drawn again.

    Args:
        name: of the study, or the study itself.
        preset: one of its presets.
        overrides: fields set to other values, as text.
        out: output folder, shared by studies: trained runs and pieces are found again by any of them.
        console: where progress goes; None for stderr.
        workers: processes that share the runs of a sweep.
        data_root: folder of folders of parquet files (``mnist/``, ``cifar10/``, ...); None for the hub.
        ray: a Ray cluster, its address, or "local".
        trackers: names of ``fenland.lab.sweep.trackers.TRACKERS`` that are told of every training run.

    Raises:
        BadInput: unknown study, preset or field, or a wrong value.
    """
    if console is None:
        from rich.console import Console

        console = Console(stderr=True)
    study = find(name) if isinstance(name, str) else name
    config = configure(study, preset, overrides)
    identity = _identity(study, config)
    folder = out / study.name
    stored = read_tables(folder, identity)
    if stored is None:
        lab = Laboratory(out, study, console, workers, data_root, ray, trackers)
        begun = time.monotonic()
        tables = study.run(config, lab)
        seconds = time.monotonic() - begun
        about = {
            "study": study.name, "preset": preset, "set": dict(overrides or {}), "config": plain(config),
            "identity": identity, "version": study.version, "fenland": __version__, "seconds": round(seconds, 2),
            "workers": workers, "runs": sorted(lab.trained), "tables": sorted(tables),
            "command": _command(study, preset, overrides or {}, out, workers, data_root),
        }  # fmt: skip
        _store(folder, tables, about)
    else:
        console.print(f"{study.name}: measured before, in {folder}", highlight=False, soft_wrap=True)
    return judge(study, config, folder, reused=stored is not None)


def judge(study: Study[Any], config: Any, folder: Path, reused: bool = True) -> Done:
    """Verdicts, figures and the page of what is stored in a folder, written anew."""
    from fenland.lab.study.page import write_page

    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tables = _read_tables(folder, about)
    verdicts = tuple(study.verdicts(config, tables))
    drawn = study.figures(config, tables)
    report = write_page(study, config, tables, verdicts, drawn, folder)
    listed = {
        "study": study.name,
        "title": study.title,
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "figures": [{"name": each.name, "title": each.title, "description": each.description} for each in drawn],
    }
    write_json(folder / "verdicts.json", listed)
    (folder / "error.json").unlink(missing_ok=True)
    return Done(study.name, folder, verdicts, report, float(about["seconds"]), reused)


def judge_again(folder: Path) -> Done:
    """Write the verdicts, figures and page of a stored study anew, without measuring.

    Raises:
        FileNotFoundError: no study is stored there.
        BadInput: this version knows no study of that name, or not its fields.
    """
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    study = find(about["study"])
    return judge(study, restore(study, about["config"]), folder)


def write_failure(out: Path, name: str, error: str, trace: str) -> None:
    """Leave word of a study that failed, for the index page; what an earlier run left stays."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "error.json", {"study": name, "error": error, "trace": trace})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole, then rename it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_tables(folder: Path, identity: str) -> Tables | None:
    """The stored tables of a folder; None where they are of another configuration or code, or not whole."""
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return _read_tables(folder, about) if about["identity"] == identity else None
    except (OSError, ValueError, KeyError):  # pyarrow's errors derive from these
        return None


def _read_tables(folder: Path, about: Mapping[str, Any]) -> Tables:
    import pandas

    return {name: pandas.read_parquet(folder / "tables" / f"{name}.parquet") for name in about["tables"]}


def _store(folder: Path, tables: Tables, about: Mapping[str, Any]) -> None:
    """Tables first and the configuration last: a kill in between leaves no folder that looks whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "tables", ignore_errors=True)
    (folder / "tables").mkdir()
    for name, table in tables.items():
        write_table(table, folder / "tables" / f"{name}.parquet")
    write_json(folder / "environment.json", environment.describe(_threads()))
    write_json(folder / "config.json", about)


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _identity(study: Study[Any], config: Any) -> str:
    """What fixes a study's tables: its configuration, and the code of its files, so that an edited study runs anew."""
    file = Path(inspect.getfile(type(study)))
    # A study that outgrew its file has modules beside it that carry its name: quartic.py, quartic_figures.py.
    source = "".join(path.read_text(encoding="utf-8") for path in sorted(file.parent.glob(f"{file.stem}*.py")))
    text = json.dumps([study.name, study.version, plain(config), __version__, source])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _command(
    study: Study[Any], preset: str, overrides: Mapping[str, str], out: Path, workers: int, data_root: Path | None
) -> str:
    """The command that repeats this one study, also where it was one of many."""
    words = ["fenland", "study", study.name, "--preset", preset]
    for name, value in overrides.items():
        words += ["--set", f"{name}={value}"]
    words += ["--workers", str(workers)] if workers > 1 else []
    words += ["--data-root", str(data_root)] if data_root is not None else []
    return shlex.join([*words, "--out", str(out)])
