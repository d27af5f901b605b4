"""A study's page: verdicts first, then figures, readings, and how to repeat it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fenland.lab.figures import inline_svg, save_files
from fenland.lab.figures.catalog import Drawn
from fenland.lab.report.setup import machines
from fenland.lab.report.templating import fill
from fenland.lab.store.files import write_text
from fenland.lab.study.parts import Tables, Verdict
from fenland.lab.study.study import Study
from fenland.lab.study.tally import figure_of, tally
from fenland.lab.sweep.progress import duration


def write_page(
    study: Study, config: Any, tables: Tables, verdicts: Sequence[Verdict], figures: Sequence[Drawn], folder: Path
) -> Path:
    """Write ``figures/*.png``, ``figures/*.pdf`` and ``report.html``; the page needs no other file and no network."""
    for drawn in figures:
        save_files(drawn, list(drawn.labels), folder / "figures")
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = [drawn.name for drawn in figures]
    context = {
        "study": study,
        "title": study.title,
        "headline": tally(verdicts),
        "scale": _scale(study, config, about),
        "verdicts": [(verdict, figure_of(verdict.figure, names)) for verdict in verdicts],
        "figures": [(drawn, Markup(inline_svg(drawn, list(drawn.labels)))) for drawn in figures],
        "sheets": study.list(config, tables),
        "command": about["command"],
        "took": f"{duration(about['seconds'])} of computing, all processes and restarts together.",
        "configuration": _configuration(study, config, about),
        "environment": machines(_environments(folder, about)),
        "tables": sorted(tables),
    }
    path = folder / "report.html"
    write_text(path, fill("study.html.j2", context))
    return path


def _scale(study: Study, config: Any, about: dict[str, Any]) -> str:
    """A warning where something is smaller than published."""
    paper = study.presets["paper"]
    if paper == config:
        return ""
    differing = [f.name for f in dataclasses.fields(config) if getattr(paper, f.name) != getattr(config, f.name)]
    changed = ", ".join(f"{name}={value}" for name, value in about["set"].items())
    return (
        f"Preset {about['preset']}{f' with {changed}' if changed else ''}: not the published scale. It differs in "
        f"{', '.join(differing)}; the values are below."
    )


def _configuration(study: Study, config: Any, about: dict[str, Any]) -> list[tuple[str, str]]:
    """Every field, with the paper preset's value where that is another; the names are those of ``--set``."""
    paper = study.presets["paper"]
    pairs = [("preset", str(about["preset"]))]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        published = getattr(paper, field.name)
        pairs.append((field.name, _text(value) + ("" if published == value else f" (paper: {_text(published)})")))
    if about["runs"]:
        pairs.append(("trained runs", str(len(about["runs"]))))
    return pairs


def _text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "none"
    return f"{value:,.10g}" if isinstance(value, (int, float)) else str(value)


def _environments(folder: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Where the study ran, and where its trained runs did (another machine, where they were found stored)."""
    paths = [folder / "environment.json"]
    paths += [folder.parent / "runs" / name / "environment.json" for name in about["runs"]]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
