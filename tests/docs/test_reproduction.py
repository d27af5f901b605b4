"""docs/reproduction.py: which items of the papers were repeated, and the committed pages are what the records give."""

import io
import sys
from dataclasses import replace

import pytest
from blocks import DOCS
from rich.console import Console
from toy import STUDY

from fenland.lab.studies import STUDIES
from fenland.lab.study.records import collect
from fenland.lab.study.run import run_study

sys.path.insert(0, str(DOCS))
import reproduction
from papers import ITEMS, Item

pages = reproduction.pages


@pytest.fixture
def out(tmp_path):
    run_study(STUDY, "quick", {"sides": "8"}, tmp_path, console=Console(file=io.StringIO()))
    return tmp_path


def test_the_first_table_says_what_was_run_and_whether_that_is_faithful(out):
    (record,) = collect(out)
    items = [
        Item("Pacioli 1494", "Fig. 1", "toy", "a die"),
        Item("Pacioli 1494", "Fig. 2", "toy", "a fair die", "its die is lost"),
        Item("Cardano 1663", "chapter 9", "other", "two dice"),
        Item("Cardano 1663", "chapter 10", "toy", "no die", anyway="no: nothing was thrown"),
        Item("Cardano 1663", "chapter 11", "other", "no die", anyway="no: nothing was thrown"),
    ]

    def table(*records):
        text = pages(records, items=items)["reproduction.md"]
        return [line.split(" | ")[3:] for line in text.splitlines() if line.startswith(("| Pacioli", "| Cardano"))]

    small = "quick, with sides=8"
    assert table(record) == [
        ["a die", small, "no: at a smaller scale |"],
        ["a fair die", small, "no: at a smaller scale, and its die is lost |"],
        ["two dice", "nothing yet", "no: not run |"],
        ["no die", small, "no: nothing was thrown |"],
        ["no die", "nothing yet", "no: not run |"],
    ]
    paper = replace(record, preset="paper", changed={}, published=True)
    assert table(record, paper)[:2] == [
        ["a die", f"{small}; paper", "yes |"],
        ["a fair die", f"{small}; paper", "in part: its die is lost |"],
    ]
    assert table(record, paper)[3] == ["no die", f"{small}; paper", "no: nothing was thrown |"]


def test_every_item_names_a_study_and_every_study_is_that_of_an_item():
    assert {item.study for item in ITEMS} == set(STUDIES)
    assert len({(item.paper, item.item) for item in ITEMS}) == len(ITEMS)


def test_pages_are_written_into_a_folder(out, tmp_path):
    reproduction.write(pages(collect(out)), tmp_path)
    assert "](reproduction/toy.md)" in (tmp_path / "reproduction.md").read_text()
    assert "](../reproduction.md)" in (tmp_path / "reproduction/toy.md").read_text()


def test_the_committed_pages_are_what_the_committed_records_give():
    found = reproduction.found()
    assert {f"reproduction/{path.name}" for path in (DOCS / "reproduction").iterdir()} == set(found) - {
        "reproduction.md"
    }
    for name, text in found.items():
        assert (DOCS / name).read_text(encoding="utf-8") == text


def test_every_study_is_in_the_committed_records_or_named_as_missing():
    records = collect(DOCS / "records")
    assert {record.study for record in records} <= set(STUDIES)
    assert all(record.verdicts for record in records)
    page = (DOCS / "reproduction.md").read_text(encoding="utf-8")
    missing = ", ".join(name for name in STUDIES if name not in {record.study for record in records})
    assert (f"Not in these records: {missing}." in page) is bool(missing)
    for record in records:
        own = (DOCS / f"reproduction/{record.study}.md").read_text(encoding="utf-8")
        assert all(data in own for data in record.data if "JPEG" in data)
