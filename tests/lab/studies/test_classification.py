"""The study `classification`: its table is that of its runs, and its verdicts follow it at a scale that decides."""

import dataclasses
import io
import json

import numpy as np
import pandas as pd
import pytest
from image_files import write_split
from PIL import Image

from fenland.lab.errors import BadInput
from fenland.lab.figures import inline_svg
from fenland.lab.store.statistics import interval
from fenland.lab.studies import find
from fenland.lab.studies.classification import Config
from fenland.lab.study.run import run_study

STUDY = find("classification")
OPTIMIZERS = ("sgd", "usam", "ssam-u", "sam", "ssam", "asam", "stable-asam")
ORDERED = {"sgd": 0.90, "usam": 0.91, "ssam-u": 0.935, "sam": 0.92, "ssam": 0.94, "asam": 0.93, "stable-asam": 0.95}
LARGE = Config(epochs=200, limit=None)


def tables(accuracy=ORDERED, spread=0.001, seconds=None, evaluations=None, stored=""):
    rows = [
        {
            "run": f"{model}{name}{seed}", "data": "cifar10", "model": model, "optimizer": name, "seed": seed,
            "status": "finished", "test_accuracy": accuracy[name] + spread * (seed - 1),
            "cost": (seconds or {}).get(name, 10.0) * (1 + 0.001 * seed),
            "gradient_evaluations": (evaluations or {}).get(name, 2000 if name != "sgd" else 1000),
        }
        for model in LARGE.models
        for name in OPTIMIZERS
        for seed in range(3)
    ]  # fmt: skip
    return {"runs": pd.DataFrame(rows), "data": pd.DataFrame([{"data": "cifar10", "stored": stored}])}


def judged(found, config=LARGE):
    verdicts = STUDY.judge(config, found)
    short = {"cifar10: ": "", " has a higher test accuracy than ": " > ", " costs about what ": " ~ ", " does.": ""}
    found = {}
    for verdict in verdicts:
        name = verdict.claim
        for words, sign in short.items():
            name = name.replace(words, sign)
        found[name.rstrip(".")] = verdict.holds
    return found


def test_ordered_accuracies_hold():
    found = judged(tables())
    assert len(found) == 11
    assert set(found.values()) == {True}


@pytest.mark.parametrize(
    ("wrong", "change"),
    [
        ({"SSAM > SAM"}, {"ssam": 0.91}),
        ({"SAM > SGD"}, {"sam": 0.89}),
        ({"Stable ASAM > ASAM"}, {"stable-asam": 0.92}),
        ({"ASAM > SGD"}, {"asam": 0.80}),
        ({"SSAM > SGD", "SSAM > SAM"}, {"ssam": 0.85}),
    ],
)
def test_doctored_accuracies_turn_their_verdicts(wrong, change):
    found = judged(tables({**ORDERED, **change}))
    assert {name for name, holds in found.items() if holds is False} == wrong


def test_one_network_that_disagrees_is_not_consistent():
    found = tables()
    lenet = (found["runs"]["model"] == "lenet") & (found["runs"]["optimizer"] == "ssam")
    found["runs"].loc[lenet, "test_accuracy"] -= 0.1
    assert judged(found)["SSAM > SAM"] is False


def test_a_cost_that_is_not_shared_is_told():
    assert judged(tables(seconds={"ssam": 15.0}))["SSAM ~ SAM"] is False
    assert judged(tables(evaluations={"ssam": 3000}))["SSAM ~ SAM"] is False


def test_a_small_scale_decides_no_accuracy_and_says_why():
    for config in (Config(), dataclasses.replace(LARGE, epochs=99)):
        found = judged(tables(), config)
        assert {holds for name, holds in found.items() if ">" in name} == {None}
    note = STUDY.judge(Config(), tables())[0].note
    assert "3 epochs on 3000 images" in note


def test_runs_that_diverged_stand_in_the_table():
    found = tables()
    found["runs"].loc[found["runs"]["run"] == "mlpsam1", "status"] = "diverged"
    (sheet,) = STUDY.list(LARGE, found)
    assert sheet.rows[0][4].endswith("; 1 diverged")
    found["runs"].loc[found["runs"]["optimizer"] == "sam", "status"] = "diverged"
    assert STUDY.list(LARGE, found)[0].rows[0][4] == "none; 3 diverged"


def test_lossy_files_are_told_beside_everything():
    found = tables(stored="JPEG")
    words = "JPEG-recompressed"
    assert all(words in v.note for v in STUDY.judge(LARGE, found) if "accuracy" in v.claim)
    assert words in STUDY.list(LARGE, found)[0].caption
    assert words in STUDY.draw(LARGE, found)[0].caption


def test_the_figure_has_every_network_and_optimizer():
    (drawn,) = STUDY.draw(LARGE, tables())
    svg = inline_svg(drawn, list(drawn.labels))
    assert all(name in svg for name in ("mlp", "lenet", "SGD", "SSAM", "Stable ASAM"))


def _jpeg(index):
    target = io.BytesIO()
    noise = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(target, "JPEG")
    return {"bytes": target.getvalue(), "path": None}


@pytest.mark.parametrize("lossy", [True, False])
def test_the_whole_study_on_local_files(tmp_path, monkeypatch, lossy):
    monkeypatch.setenv("FENLAND_CACHE", str(tmp_path / "cache"))
    for split, count in (("train", 40), ("test", 20)):
        cells = [_jpeg(index) for index in range(count)] if lossy else None
        write_split(tmp_path / f"root/cifar10/{split}.parquet", count, (32, 32, 3), ("img", "label"), cells)
    settings = {"models": "mlp", "epochs": "1", "limit": "32", "batch_size": "16", "seeds": "0,1"}
    done = run_study(STUDY, "quick", settings, tmp_path / "out", data_root=tmp_path / "root")
    runs = pd.read_parquet(tmp_path / "out/classification/tables/runs.parquet")
    assert len(runs) == 7 * 2
    for run, cost in zip(runs["run"], runs["cost"], strict=True):
        assert cost == json.loads((tmp_path / "out/runs" / run / "result.json").read_text())["process_seconds"]
    page = done.report.read_text().replace("\xa0", " ")
    assert "Test accuracy on cifar10, %" in page
    for name, part in runs.groupby("optimizer"):
        mean = interval(100 * part["test_accuracy"]).mean
        assert f"<td>{mean:.2f} ±" in page, name
    assert ("JPEG-recompressed" in page) == lossy
    assert {v.holds for v in done.verdicts if "accuracy" in v.claim} == {None}


def test_data_that_are_not_here_name_the_way_to_them(tmp_path, monkeypatch):
    import datasets

    def offline(*args, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    monkeypatch.setenv("FENLAND_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BadInput, match=r"no network.*--data-root DIR with cifar10 as DIR/cifar10"):
        run_study(STUDY, "quick", {}, tmp_path)


@pytest.mark.parametrize(("field", "value"), [("factors", (1.0, 2.0)), ("radii", (0.1,)), ("optimizers", ("sgd",))])
def test_bad_settings_are_named(field, value):
    with pytest.raises(BadInput, match=field):
        Config(**{field: value})
