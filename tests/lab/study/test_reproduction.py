"""The table of claims: from stored studies to records to Markdown, and the committed page is what the records give."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from toy import STUDY

from fenland.lab.cli import main
from fenland.lab.errors import BadInput
from fenland.lab.studies import STUDIES
from fenland.lab.study.reproduction import collect, markdown, plain
from fenland.lab.study.run import run_study

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def out(tmp_path):
    run_study(STUDY, "quick", {"sides": "8"}, tmp_path, console=Console(file=io.StringIO()))
    return tmp_path


def test_a_record_holds_what_a_row_needs(out):
    (record,) = collect(out)
    assert (record.study, record.preset, record.changed, record.published) == ("toy", "quick", {"sides": "8"}, False)
    assert [verdict.holds for verdict in record.verdicts] == [True, False, None]
    assert record.machines[0]["torch"]
    assert record.seconds >= 0
    assert str(out) not in json.dumps(plain([record]))


def test_the_table_says_published_measured_holds_and_where(out):
    text = markdown(collect(out))
    rows = [line for line in text.splitlines() if line.startswith("| 2 |")]
    assert rows == [
        "| 2 | No roll is above the last side | ours | never | once | none, computed; quick, with sides=8; A | **no** |"
    ]
    assert (
        "Claims of papers: 0 of 1 hold, 1 cannot be decided at this scale. Claims of our own: 1 of 2 holds, 1 does not."
        in text
    )
    assert "- **2** An invented failure." in text
    assert "- **A**: " in text


def test_records_survive_the_trip_through_a_file(out, tmp_path):
    records = collect(out)
    folder = tmp_path / "records"
    folder.mkdir()
    (folder / "one.json").write_text(json.dumps(plain(records)))
    assert collect(folder) == records
    assert markdown(collect(folder)) == markdown(records)


def test_lossy_images_and_other_machines_show(out):
    (record,) = collect(out)
    pd.DataFrame([{"data": "cifar10", "stored": "JPEG"}, {"data": "mnist", "stored": ""}]).to_parquet(
        out / "toy" / "tables" / "data.parquet"
    )
    (jpeg,) = collect(out)
    assert jpeg.data == ("cifar10 (JPEG)", "mnist")
    other = replace(jpeg, machines=({**record.machines[0], "gpu": "a | GPU"},), published=True)
    text = markdown([record, other])
    assert "cifar10 (JPEG), mnist; quick, as published, with sides=8; B" in text
    assert "- **B**: a \\| GPU, " in text


def test_what_is_no_store_is_refused(tmp_path, capsys):
    with pytest.raises(BadInput, match="holds neither studies nor records"):
        collect(tmp_path)
    (tmp_path / "broken.json").write_text("[]")
    with pytest.raises(BadInput, match=r"broken\.json"):
        collect(tmp_path)
    assert main(["study", "--table", str(tmp_path / "absent")]) == 2
    assert "no such directory" in capsys.readouterr().err


def test_the_committed_page_is_what_the_committed_records_give(capsys):
    assert main(["study", "--table", str(DOCS / "records")]) == 0
    assert capsys.readouterr().out == (DOCS / "reproduction.md").read_text(encoding="utf-8")


def test_every_study_is_in_the_committed_records_or_named_as_missing():
    found = {record.study: record for record in collect(DOCS / "records")}
    assert set(found) <= set(STUDIES)
    assert all(record.verdicts for record in found.values())
    page = (DOCS / "reproduction.md").read_text(encoding="utf-8")
    missing = ", ".join(name for name in STUDIES if name not in found)
    assert (f"Not in these records: {missing}." in page) is bool(missing)
    lossy = [name for name, record in found.items() if any("JPEG" in data for data in record.data)]
    for name in lossy:
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        rows = [line for line in section.splitlines() if line.startswith("| ") and line[2].isdigit()]
        assert rows
        assert all("(JPEG)" in row for row in rows)
