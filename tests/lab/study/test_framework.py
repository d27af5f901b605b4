"""A study is measured once, judged and drawn from its tables, and leaves whole files only."""

import json
from dataclasses import dataclass

import pandas as pd
import pytest
from rich.console import Console
from toy import COUNTS, STUDY, Config

from fenland.lab.config import RunConfig, words
from fenland.lab.errors import BadInput
from fenland.lab.studies import STUDIES, find
from fenland.lab.study import Lab, Piece, Study
from fenland.lab.study.kept import seal_study
from fenland.lab.study.laboratory import Laboratory
from fenland.lab.study.run import judge_again, run_study, write_failure
from fenland.lab.study.settings import configure, fields, plain, restore


@pytest.fixture
def quiet():
    with open("/dev/null", "w") as sink:
        yield Console(file=sink)


@pytest.mark.usefixtures("whole_pictures")
def test_a_study_leaves_everything_and_nothing_half(tmp_path, quiet):
    done = run_study(STUDY, out=tmp_path, console=quiet)
    folder = tmp_path / "toy"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "checksums.json", "config.json", "environment.json", "verdicts.json", "report.html", "tables/rolls.parquet",
        "figures/rolls.png", "figures/rolls.pdf",
    }  # fmt: skip
    assert [verdict.holds for verdict in done.verdicts] == [True, False, None]
    assert json.loads((folder / "verdicts.json").read_text())["verdicts"][0]["figure"] == "rolls"
    page = done.report.read_text()
    for said in ("does not hold", "not decided", "Dice, rolled &lt;twice&gt; &amp; counted", "50 rolls cannot tell",
                  "our own: 1 of 2 holds, 1 does not.",
                 "seeds</dt><dd>0, 1 (paper: 0, 1, 2", "pips on the outside"):  # fmt: skip
        assert said in page, said


def test_what_is_measured_is_not_measured_again(tmp_path, quiet):
    before = COUNTS["runs"], COUNTS["computed"]
    first = run_study(STUDY, out=tmp_path, console=quiet)
    again = run_study(STUDY, out=tmp_path, console=quiet)
    assert (COUNTS["runs"] - before[0], COUNTS["computed"] - before[1]) == (1, 2)
    assert (first.reused, again.reused) == (False, True)
    assert again.verdicts == first.verdicts


def test_pieces_outlive_another_configuration_but_not_another_key(tmp_path, quiet):
    run_study(STUDY, out=tmp_path, console=quiet)
    before = COUNTS["computed"]
    more = run_study(STUDY, overrides={"seeds": "0..2"}, out=tmp_path, console=quiet)
    assert not more.reused
    assert COUNTS["computed"] - before == 1
    assert len(pd.read_parquet(tmp_path / "toy/tables/rolls.parquet")) == 150
    run_study(STUDY, overrides={"sides": "4"}, out=tmp_path, console=quiet)
    assert COUNTS["computed"] - before == 3


def test_a_study_killed_between_its_tables_is_measured_again(tmp_path, quiet):
    run_study(STUDY, out=tmp_path, console=quiet)
    (tmp_path / "toy/tables/rolls.parquet").unlink()
    before = COUNTS["runs"]
    assert not run_study(STUDY, out=tmp_path, console=quiet).reused
    assert COUNTS["runs"] == before + 1


def test_judging_again_reads_the_tables_as_they_are(tmp_path, quiet):
    run_study(STUDY, out=tmp_path, console=quiet)
    path = tmp_path / "toy/tables/rolls.parquet"
    pd.read_parquet(path).assign(value=6).to_parquet(path)
    seal_study(tmp_path / "toy", ("rolls",))
    assert judge_again(tmp_path / "toy", {"toy": STUDY}.get).verdicts[0].holds is False


def test_success_takes_the_word_of_a_failure_away(tmp_path, quiet):
    write_failure(tmp_path, "toy", "ValueError: no", "trace")
    run_study(STUDY, out=tmp_path, console=quiet)
    assert not (tmp_path / "toy/error.json").exists()


def test_settings_are_read_by_the_kind_of_their_field():
    given = {"sides": "8", "weights": "0.5,2", "seeds": "0..2,7", "fair": "off", "shape": "coin", "limit": "none"}
    config = configure(STUDY, "quick", given)
    assert config == Config(8, (0.5, 2.0), (0, 1, 2, 7), "dice", False, "coin", None)
    assert restore(STUDY, json.loads(json.dumps(plain(config)))) == config


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("side", "6", "toy has no such field; choose one of sides"),
        ("sides", "six", "whole number"),
        ("weights", "1,b", "a number"),
        ("fair", "maybe", "on or off"),
        ("shape", "ball", "choose one of cube, coin"),
        ("sides", "1", "must be at least 2"),
        ("seeds", "3..1", "empty range"),
    ],
)
def test_wrong_settings_name_the_field_and_the_cure(name, value, words):
    with pytest.raises(BadInput, match=words) as caught:
        configure(STUDY, "quick", {name: value})
    assert f"{name}={value}" in str(caught.value)


def test_what_a_study_refuses_is_said_of_set():
    with pytest.raises(BadInput) as caught:
        configure(find("quartic"), "quick", {"grid": "0", "starts": "5"})
    assert str(caught.value) == "set=grid=0: quartic: give a value > 0"


def test_unknown_names_are_answered_with_those_that_exist():
    with pytest.raises(BadInput, match="choose one of quick, paper"):
        configure(STUDY, "huge")
    with pytest.raises(BadInput, match="quartic"):
        find("quartics")
    for word in ("rho", "=1"):
        with pytest.raises(BadInput, match="field=value"):
            words.pairs([word])
    with pytest.raises(BadInput, match="twice"):
        words.pairs(["a=1", "a=2"])


@pytest.mark.parametrize("name", STUDIES)
def test_every_listed_study_keeps_the_contract(name):
    study = find(name)
    assert isinstance(study, Study)
    assert study.name == name
    assert {"quick", "paper"} <= set(study.presets)
    assert str(study.source)
    assert study.question.endswith("?")
    assert fields(study)
    for config in study.presets.values():
        assert restore(study, json.loads(json.dumps(plain(config)))) == config  # plain values and nothing else


def test_a_key_must_be_plain(tmp_path, quiet):
    lab: Lab = Laboratory(tmp_path, STUDY, quiet)

    @dataclass
    class Thing:
        x: int = 0

    with pytest.raises(TypeError, match="plain value"):
        lab.keep_all([Piece("rolls", {"thing": Thing()}, pd.DataFrame)], "rolls")


def test_data_are_looked_for_below_the_root(tmp_path, quiet):
    (tmp_path / "data/mnist").mkdir(parents=True)
    lab = Laboratory(tmp_path, STUDY, quiet, data_root=tmp_path / "data")
    assert lab.data_dir("mnist") == str(tmp_path / "data/mnist")
    assert lab.data_dir("cifar10") is None
    assert lab.data_dir("digits") is None
    assert Laboratory(tmp_path, STUDY, quiet).data_dir("mnist") is None


def run_of(**values):
    return RunConfig(**{"data": "digits", "model": "mlp", "optimizer": "sgd", "epochs": 1, "limit": 200, **values})


def test_training_goes_through_the_store_and_is_not_repeated(tmp_path, quiet):
    lab = Laboratory(tmp_path, STUDY, quiet)
    runs = [run_of(seed=0, weights=True), run_of(seed=1)]
    records = lab.train(runs)
    assert sorted(records.results["seed"]) == [0, 1]
    assert len(records.metrics) == 2
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/result.json")}
    assert set(lab.trained) == {path.parent.name for path in stamps}
    one = Laboratory(tmp_path, STUDY, quiet).train(runs[:1])  # the store holds more than was asked for
    assert one.results["seed"].tolist() == [0]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert all(tensor.isfinite().all() for tensor in lab.weights(runs[0]).values())
    with pytest.raises(FileNotFoundError, match="weights=True"):
        lab.weights(runs[1])


def test_a_run_that_fails_is_named_and_the_others_are_stored(tmp_path, quiet):
    lab = Laboratory(tmp_path, STUDY, quiet)
    with pytest.raises(RuntimeError, match="1 of 2 runs failed"):
        lab.train([run_of(batch_size=10_000), run_of(seed=2)])
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 1
