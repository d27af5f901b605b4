"""Run a study: measure what is not stored, judge it, draw it, and write its folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland import __version__
from fenland.lab.store import environment, locks
from fenland.lab.store.files import write_json
from fenland.lab.study import kept
from fenland.lab.study.grid import Grid
from fenland.lab.study.identity import code_of, names_in, roots_of
from fenland.lab.study.laboratory import Laboratory, training_code
from fenland.lab.study.parts import Tables, Verdict
from fenland.lab.study.settings import configure, plain, restore
from fenland.lab.study.study import Study

if TYPE_CHECKING:
    from rich.console import Console

    from fenland.lab.sweep.cluster import Cluster

_WAIT_SECONDS = 0.2


@dataclass(frozen=True)
class Done:
    """What a study left."""

    name: str  # of the study
    folder: Path  # where everything is
    verdicts: tuple[Verdict, ...]  # all of them, in the study's order
    report: Path  # the page
    # that computing took: of each process in its pieces, and of training in its runs, whenever they were made; so a
    # study that was killed and taken up again tells the whole
    seconds: float
    reused: bool  # whether the stored tables were taken


def run_study(
    study: Study,
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
    Processes that run a study in the same folder share its training, and write ``out/NAME`` one after the other.

    Args:
        study: what to run.
        preset: one of its presets.
        overrides: fields set to other values, as text.
        out: output folder, shared by studies: trained runs and pieces are found again by any of them.
        console: where progress goes; None for stderr.
        workers: processes that share the runs of a sweep.
        data_root: folder of folders of parquet files (``mnist/``, ``cifar10/``, ...); None for the hub.
        ray: a Ray cluster, its address, or "local".
        trackers: names of ``fenland.lab.sweep.trackers.TRACKERS`` that are told of every training run.

    Raises:
        BadInput: unknown preset or field, or a wrong value.
    """
    if console is None:
        from rich.console import Console

        console = Console(stderr=True)
    config = configure(study, preset, overrides)
    identity = identity_of(study, config, data_root)
    folder = out / study.name
    with _alone(folder):
        if _stored(folder, identity, console):
            console.print(f"{study.name}: measured before, in {folder}", highlight=False, soft_wrap=True)
            return judge(study, config, folder, reused=True)
    lab = Laboratory(out, study, console, workers, data_root, ray, trackers)
    begun = time.process_time()
    tables = study.runs(config, lab)
    seconds = sum(lab.seconds.values()) + time.process_time() - begun - lab.apart
    about = {
        "study": study.name, "preset": preset, "set": dict(overrides or {}), "config": plain(config),
        "identity": identity, "source": str(study.source), "published": config == study.presets["paper"],
        "file": str(study.file or ""), "fenland": __version__, "seconds": round(seconds, 2),
        "workers": workers, "runs": sorted(lab.trained), "tables": sorted(tables),
        "command": _command(study, preset, overrides or {}, out, workers, data_root),
    }  # fmt: skip
    with _alone(folder):
        _store(folder, tables, about)
        return judge(study, config, folder, reused=False)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else writes a study's folder meanwhile: tables of one run must not be judged beside those of another."""
    while (claim := locks.claim(folder / ".live")) is None:
        time.sleep(_WAIT_SECONDS)
    try:
        yield
    finally:
        claim.release(done=True)


def judge(study: Study, config: Any, folder: Path, reused: bool = True) -> Done:
    """Verdicts, figures and the page of what is stored in a folder, written anew."""
    from fenland.lab.study.page import write_page

    about = kept.read_study(folder, kept.CONFIG)
    tables = kept.read_tables(folder, tuple(about["tables"]))
    verdicts = tuple(study.judge(config, tables))
    drawn = study.draw(config, tables)
    report = write_page(study, config, tables, verdicts, drawn, folder)
    listed = {
        "study": study.name,
        "title": study.title,
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "figures": [{"name": each.name, "title": each.title, "description": each.description} for each in drawn],
    }
    write_json(folder / kept.VERDICTS, listed)
    kept.seal_study(folder, tuple(about["tables"]))
    (folder / kept.FAILURE).unlink(missing_ok=True)
    return Done(study.name, folder, verdicts, report, float(about["seconds"]), reused)


def judge_again(folder: Path, find: Callable[[str], Study]) -> Done:
    """Write the verdicts, figures and page of a stored study anew, without measuring."""
    kept.read_study(folder, kept.CONFIG)  # a folder without a study stays as it is
    with _alone(folder):
        about = kept.read_study(folder, kept.CONFIG)
        study = find(about["file"] or about["study"])
        return judge(study, restore(study, about["config"]), folder)


def write_failure(out: Path, name: str, error: str, trace: str) -> None:
    """Leave word of a study that failed, for the index page; what an earlier run left stays."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / kept.FAILURE, {"study": name, "error": error, "trace": trace})


def _stored(folder: Path, identity: str, console: Console) -> bool:
    """Whether the tables of this configuration and code are in a folder; a damaged folder is named."""
    if not (folder / kept.CONFIG).is_file():
        return False
    wrong = kept.flaw_of(folder)
    if wrong:
        words = f"{folder} is damaged ({wrong}); it is measured again, from what is stored of its parts"
        console.print(words, highlight=False, soft_wrap=True)
        return False
    return bool(kept.read_study(folder, kept.CONFIG)["identity"] == identity)


def _store(folder: Path, tables: Tables, about: Mapping[str, Any]) -> None:
    """Tables first and the checksums last: a kill in between leaves no folder that looks whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (kept.CONFIG, kept.VERDICTS):
        (folder / name).unlink(missing_ok=True)
    for name in ("tables", "figures"):  # figures of another configuration may have other names
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "tables").mkdir()
    for name, table in tables.items():
        kept.write_table(table, folder / "tables" / f"{name}.parquet")
    write_json(folder / kept.ENVIRONMENT, environment.describe(_threads()))
    write_json(folder / kept.CONFIG, about)
    kept.seal_study(folder, tuple(tables))


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def identity_of(study: Study, config: Any, data_root: Path | None = None) -> str:
    """What fixes a study's tables: its configuration, the code that measures and trains, and the data it trains on."""
    roots: tuple[Any, ...] = (type(config), *roots_of(study.runs))
    plan: list[Any] = []
    if isinstance(study.runs, Grid):
        plan = [[name, str(values)] for name, values in study.runs.axes.items()] + [study.runs.diverged]
        roots += tuple(each for each in (study.runs.case, study.runs.after) if each is not None)
    trained = training_code() if names_in("train", *roots) else ""  # as in lab.train
    text = json.dumps([study.name, plain(config), plan, code_of(*roots), trained, *_data(study, config, data_root)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _data(study: Study, config: Any, data_root: Path | None) -> list[str]:
    """Identities of the data sets that the networks are trained on, but for the embedded one, which is always here."""
    from fenland.lab.study.images import identified
    from fenland.lab.study.plan import Folders

    where: Any = Folders(data_root)
    runs = identified(study.trained(config, where))
    return sorted({run.data_id for run in runs if run.data != "digits"})


def _command(
    study: Study, preset: str, overrides: Mapping[str, str], out: Path, workers: int, data_root: Path | None
) -> str:
    """The command that repeats this one study, also where it was one of many."""
    words = ["fenland", "study", str(study.file or study.name), "--preset", preset]
    for name, value in overrides.items():
        words += ["--set", f"{name}={value}"]
    words += ["--workers", str(workers)] if workers > 1 else []
    words += ["--data-root", str(data_root)] if data_root is not None else []
    return shlex.join([*words, "--out", str(out)])
