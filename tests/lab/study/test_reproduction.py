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
from fenland.lab.studies.papers import ITEMS
from fenland.lab.study.papers import Item
from fenland.lab.study.reproduction import collect, pages, plain
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


def test_the_pages_say_published_measured_holds_and_where(out):
    found = pages(collect(out))
    assert set(found) == {"reproduction.md", "reproduction/toy.md"}
    page = found["reproduction/toy.md"]
    rows = [line for line in page.splitlines() if line.startswith("| 2 |")]
    assert rows == ["| 2 | No roll is above the last side | ours | never | once | **no** |"]
    assert "Data: none, computed. Scale: quick, with sides=8. Machine: A." in page
    assert "- **2** An invented failure." in page
    assert "- **A**: " in page
    assert (
        "Claims of papers: 0 of 1 hold, 1 cannot be decided at this scale. Claims of our own: 1 of 2 holds, 1 does not."
        in found["reproduction.md"]
    )


def test_what_a_row_repeats_and_what_is_long_leaves_the_table_but_not_the_page(out):
    (record,) = collect(out)
    expected = "an expectation that takes more than a few words"
    many = "0.5; " + "; ".join(f"{index} at side {index}" for index in range(20))
    verdicts = [replace(record.verdicts[0], source="ours", expected=expected, measured=many) for _ in range(2)]
    page = pages([replace(record, verdicts=tuple(verdicts))])["reproduction/toy.md"]
    first, second = (line for line in page.splitlines() if line.startswith(("| 1 |", "| 2 |")))
    assert first.endswith(f"| ours | {expected} | 0.5 | yes |")
    assert second.endswith("| ours | as above | 0.5 | yes |"), "a short text is no shorter as two words"
    assert page.count("19 at side 19") == 2
    assert "- **1** Measured: 0 at side 0; " in page


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


def test_a_claim_in_other_words_counts_once(out):
    (record,) = collect(out)
    old = replace(record, date="2020-01-01", published=True, verdicts=(
        replace(record.verdicts[0], holds=False), replace(record.verdicts[1], claim="No roll is below 1"),
    ))  # fmt: skip
    text = pages([record, old])["reproduction.md"]
    # The old record is of the published scale, so its answer counts; its other claim is no claim of today.
    assert "Claims of our own: 0 of 2 hold, 2 do not." in text


def test_pages_are_written_into_a_folder(out, tmp_path, capsys):
    assert main(["study", "--table", str(out), "--pages", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "reproduction.md")
    assert "](reproduction/toy.md)" in (tmp_path / "reproduction.md").read_text()
    assert "](../reproduction.md)" in (tmp_path / "reproduction/toy.md").read_text()
    assert main(["study", "--table", str(out), "--pages", str(tmp_path / "absent")]) == 2
    assert main(["study", "--pages", str(tmp_path)]) == 2
    first, second = capsys.readouterr().err.strip().split("\n")
    assert "absent" in first
    assert "--table DIR" in second


def test_records_survive_the_trip_through_a_file(out, tmp_path):
    records = collect(out)
    folder = tmp_path / "records"
    folder.mkdir()
    (folder / "one.json").write_text(json.dumps(plain(records)))
    assert collect(folder) == records
    assert pages(collect(folder)) == pages(records)


def test_lossy_images_and_other_machines_show(out):
    (record,) = collect(out)
    pd.DataFrame([{"data": "cifar10", "stored": "JPEG"}, {"data": "mnist", "stored": ""}]).to_parquet(
        out / "toy" / "tables" / "data.parquet"
    )
    (jpeg,) = collect(out)
    assert jpeg.data == ("cifar10 (JPEG)", "mnist")
    other = replace(jpeg, machines=({**record.machines[0], "gpu": "a | GPU"},), published=True)
    text = pages([record, other])["reproduction/toy.md"]
    assert "Data: cifar10 (JPEG), mnist. Scale: quick, as published, with sides=8. Machine: B." in text
    assert "- **B**: a \\| GPU, " in text


def test_what_is_no_store_is_refused(tmp_path, capsys):
    with pytest.raises(BadInput, match="holds neither studies nor records"):
        collect(tmp_path)
    (tmp_path / "broken.json").write_text("[]")
    with pytest.raises(BadInput, match=r"broken\.json"):
        collect(tmp_path)
    assert main(["study", "--table", str(tmp_path / "absent")]) == 2
    assert "no such directory" in capsys.readouterr().err


def test_the_committed_pages_are_what_the_committed_records_give():
    found = pages(collect(DOCS / "records", list(STUDIES)), list(STUDIES), ITEMS)
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
