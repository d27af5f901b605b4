"""Write a comparison's page, figures and tables."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from fenland.lab.figures import draw_all, inline_svg, save_files
from fenland.lab.report.page import render
from fenland.lab.store.files import write_text, writing
from fenland.lab.store.records import Records, read_records


def write_report(out_dir: Path | str) -> Path:
    """Read the store under ``out_dir``; write ``report.html``, ``figures/`` and the ``results`` and ``metrics`` tables.

    The page needs no other file and no network. The same records give the same bytes.

    Raises:
        FileNotFoundError: no run is stored there.
        Damaged: ``compare.json`` cannot be read.
    """
    records = read_records(out_dir)
    figures = draw_all(records)
    for drawn in figures:
        save_files(drawn, records.labels, records.out / "figures")
    _write_tables(records)
    page = render(records, [(drawn, inline_svg(drawn, records.labels)) for drawn in figures])
    path = records.out / "report.html"
    write_text(path, page)
    return path


def _write_tables(records: Records) -> None:
    for name, table in (("results", records.results), ("metrics", records.metrics)):
        with writing(records.out / f"{name}.parquet") as file:
            _storable(table).to_parquet(file, index=False)


def _storable(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of mixed types (lists, numbers beside words) as JSON text: parquet has one type a column."""
    mixed = [name for name in table if len({type(each) for each in table[name].dropna()}) > 1]
    nested = [name for name in table if any(isinstance(each, (list, dict)) for each in table[name])]
    return table.assign(**{str(name): [json.dumps(each) for each in table[name]] for name in {*mixed, *nested}})
