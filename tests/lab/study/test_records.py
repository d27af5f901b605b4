"""The table of claims: from stored studies to records to Markdown."""

import io
import json
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console
from toy import STUDY

from fenland.lab.cli import main
from fenland.lab.errors import BadInput
from fenland.lab.study.records import collect, markdown, plain
from fenland.lab.study.run import run_study


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
    page = markdown(collect(out))
    assert [line for line in page.splitlines() if line.startswith("# ")] == ["# toy"]
    rows = [line for line in page.splitlines() if line.startswith("| 2. ")]
    assert rows == ["| 2. No roll is above the last side | **no** | never | once | ours |"]
    assert "Data: none, computed. Scale: quick, with sides=8. Machine: A." in page
    assert "- **2**: An invented failure." in page
    assert "- **A**: " in page
    assert (
        "Claims of papers: 0 of 1 hold, 1 cannot be decided at this scale. Claims of our own: 1 of 2 holds, 1 does not."
        in page
    )


def test_what_a_row_repeats_and_what_is_long_leaves_the_table_but_not_the_page(out):
    (record,) = collect(out)
    expected = "an expectation that takes more than a few words"
    many = "0.5; " + "; ".join(f"{index} at side {index}" for index in range(20))
    verdicts = [replace(record.verdicts[0], source="ours", expected=expected, measured=many) for _ in range(2)]
    page = markdown([replace(record, verdicts=tuple(verdicts))])
    first, second = (line for line in page.splitlines() if line.startswith(("| 1. ", "| 2. ")))
    assert first.endswith(f"| yes | {expected} | 0.5; more in the notes | ours |")
    assert second.endswith("| yes | as above | 0.5; more in the notes | ours |"), "a short text is no shorter as words"
    assert page.count("19 at side 19") == 1, "both claims have it, so it is said once"
    assert "- **1, 2**: Also measured: 0 at side 0; " in page


def test_a_page_has_the_question_and_how_the_source_was_read(out):
    (record,) = collect(out)
    study = replace(STUDY, question="Is the die *fair*?", choices=("The die is lost.", "Its sides are ours."))
    page = markdown([replace(record, title="What a die shows?")], known={"toy": study})
    assert "\n**What a die shows?** Is the die \\*fair\\*?\n" in page
    assert "- The die is lost.\n- Its sides are ours.\n" in page
    assert page.index("## Preset") < page.index("how it is read here") < page.rindex("Machines:")
    assert "how it is read here" not in markdown([record])


def test_a_claim_in_other_words_counts_once(out):
    (record,) = collect(out)
    old = replace(record, date="2020-01-01", published=True, verdicts=(
        replace(record.verdicts[0], holds=False), replace(record.verdicts[1], claim="No roll is below 1"),
    ))  # fmt: skip
    text = markdown([record, old])
    # The old record is of the published scale, so its answer counts; its other claim is no claim of today.
    assert "Claims of our own: 0 of 2 hold, 2 do not." in text


def test_a_study_of_somebody_elses_file_is_repeated_by_that_file(tmp_path, capsys):
    """No sentence on fenland's own studies, which they have not run, and no path of their machine."""
    other = tmp_path / "other"
    run_study(
        replace(STUDY, file=tmp_path / "mine.py"), "quick", {"sides": "8"}, other, console=Console(file=io.StringIO())
    )
    (record,) = collect(other)
    assert record.file == "mine.py"
    assert "`fenland study mine.py --preset quick --set sides=8`" in markdown([record])
    assert main(["study", "--table", str(other)]) == 0
    said = capsys.readouterr().out
    assert "Not in these records" not in said
    assert str(tmp_path) not in said


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
