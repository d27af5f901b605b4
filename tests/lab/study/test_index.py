"""The index over a folder, the commands that write it, and what they say when something is wrong."""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console
from synthetic_store import write_store
from toy import COUNTS, STUDY

from fenland.lab.cli import main
from fenland.lab.figures import files
from fenland.lab.report import write_report
from fenland.lab.studies import STUDIES
from fenland.lab.study.index import write_index
from fenland.lab.study.run import run_study, write_failure


def fail(config, lab):
    raise ZeroDivisionError("the die is gone")


def stop(config, lab):
    raise KeyboardInterrupt


# It fails where a study may: while it measures.
BROKEN = replace(STUDY, name="broken", runs=fail)


@pytest.fixture
def toys(monkeypatch):
    real = dict(STUDIES)  # monkeypatch would bring them back in another order, which pages follow
    STUDIES.clear()
    monkeypatch.setattr(
        "fenland.lab.studies.import_module",
        {"broken": SimpleNamespace(STUDY=BROKEN), "toy": SimpleNamespace(STUDY=STUDY)}.get,
    )
    STUDIES.update(broken="broken", toy="toy")
    yield
    STUDIES.clear()
    STUDIES.update(real)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    out = tmp_path_factory.mktemp("filled")
    with open("/dev/null", "w") as sink:
        run_study(STUDY, out=out, console=Console(file=sink))
    with pytest.MonkeyPatch.context() as patch:  # its files are not looked at
        patch.setattr(files, "METADATA", {})
        write_report(write_store(out / "digits", ("sgd", "ssam")))
    (out / "digits/compare.json").write_text("{}")
    return out


def links(page):
    return [link for link in re.findall(r'href="([^"]+)"', page.read_text()) if not link.startswith("data:")]


def test_the_index_links_every_verdict_to_its_figure_and_every_comparison_to_its_page(filled):
    page = write_index(filled)
    text = page.read_text()
    papers = "Claims of papers: 0 of 1 hold, 1 cannot be decided at this scale."
    assert f"1 study. {papers} Claims of our own: 1 of 2 holds, 1 does not. 1 comparison." in text
    assert links(page).count("toy/report.html#figure-rolls") == 3
    assert "digits/report.html" in links(page)
    for link in links(page):
        target, _, place = link.partition("#")
        assert not target.startswith(("/", "http")), link
        content = (filled / target).read_text()
        assert not place or f'id="{place}"' in content, link


def test_a_folder_that_moved_keeps_its_links(filled, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(filled, moved)
    page = write_index(moved)
    assert all((moved / link.partition("#")[0]).is_file() for link in links(page))


def test_an_index_above_several_folders_tells_equal_studies_apart(filled, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(filled / "toy", tmp_path / name / "toy")
    page = write_index(tmp_path)
    assert {"one/toy/report.html", "two/toy/report.html"} <= set(links(page))
    ids = re.findall(r'id="(study-[^"]+)"', page.read_text())
    assert len(set(ids)) == len(ids) == 2


def test_nothing_stored_is_no_index(tmp_path):
    with pytest.raises(FileNotFoundError, match="no study"):
        write_index(tmp_path)


def test_a_failure_is_shown_beside_what_was_there(filled, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(filled / "toy", out / "toy")
    write_failure(out, "toy", "ValueError: <no>", "trace")
    write_failure(out, "never", "OSError: full", "trace")
    text = write_index(out).read_text()
    assert "The last run failed: ValueError: &lt;no&gt;" in text
    assert "The last run failed: OSError: full" in text
    assert "The mean is in the middle" in text


@pytest.mark.usefixtures("toys")
def test_studies_run_one_after_the_other_and_a_failure_stops_none(tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["study", "all", "--set", "seeds=0..1", "--out", out]) == 1
    said = capsys.readouterr()
    assert "fenland: broken failed: ZeroDivisionError: the die is gone" in said.err
    assert "DOES NOT HOLD  No roll is above the last side" in said.out
    assert said.out.strip().endswith(f"{out}/index.html")
    assert "the die is gone" in (tmp_path / "out/index.html").read_text()
    assert json.loads((tmp_path / "out/broken/error.json").read_text())["trace"].startswith("Traceback")


@pytest.mark.usefixtures("toys")
def test_a_verdict_that_does_not_hold_is_no_failure_and_json_says_all(tmp_path, capsys):
    assert main(["study", "toy", "--json", "--out", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["failed"] == {}
    assert [verdict["holds"] for verdict in found["studies"][0]["verdicts"]] == [True, False, None]
    assert found["index"] == str(tmp_path / "index.html")


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dice"], "NAME=dice: choose one of broken, toy"),
        ([], "NAME=nothing: choose one of all, broken, toy"),
        (["toy", "--preset", "huge"], "--preset=huge: toy: choose one of quick, paper"),
        (["toy", "--set", "sides=x"], "--set=sides=x: toy: write a whole number"),
        (["toy", "--set", "side=1"], "--set=side=1: toy has no such field"),
        (["toy", "broken", "--set", "side=1"], "none of these studies has such a field"),
        (["toy", "--workers", "0"], "--workers=0"),
        (["toy", "--data-root", "/nowhere"], "--data-root=/nowhere: no such directory"),
    ],
)
def test_wrong_words_are_answered_before_anything_is_written(tmp_path, capsys, words, said):
    assert main(["study", *words, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("toys")
def test_an_interrupt_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "fenland.lab.studies.import_module", lambda name: SimpleNamespace(STUDY=replace(STUDY, runs=stop))
    )
    assert main(["study", "toy", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == (
        f"fenland: interrupted; finished runs are in {tmp_path}, the same command goes on from there\n"
    )
    assert not list(tmp_path.rglob("config.json"))


@pytest.mark.usefixtures("toys")
def test_the_list_names_studies_and_their_fields(capsys):
    assert main(["study", "--list"]) == 0
    assert "Dice, rolled" in capsys.readouterr().out
    assert main(["study", "toy", "--list"]) == 0
    assert "sides" in capsys.readouterr().out
    assert main(["study", "toy", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["fields"][0] == {"field": "sides", "quick": 6, "paper": 20}


@pytest.mark.usefixtures("toys")
def test_report_writes_pages_and_index_again_without_measuring(filled, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(filled, out)
    for page in (out / "toy/report.html", out / "index.html"):
        page.unlink(missing_ok=True)
    before = COUNTS["runs"]
    assert main(["report", str(out)]) == 0
    assert COUNTS["runs"] == before
    assert (out / "toy/report.html").is_file()
    assert (out / "index.html").is_file()
    shutil.rmtree(out / "toy/tables")
    assert main(["report", str(out)]) == 1
    assert "run the study again" in capsys.readouterr().err


def test_report_of_nothing_says_what_to_give(tmp_path, capsys):
    assert main(["report", str(tmp_path / "no")]) == 2
    assert "no such directory" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "no stored run" in capsys.readouterr().err
