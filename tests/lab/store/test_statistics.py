"""Intervals against closed forms and another implementation; the summary against numbers worked out by hand."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_store import write_run, write_store

from fenland.lab.config import RunConfig
from fenland.lab.store.files import Damaged
from fenland.lab.store.records import read_records
from fenland.lab.store.runs import Store
from fenland.lab.store.seal import FILES, SEAL, seal
from fenland.lab.store.statistics import Interval, bands, interval, paired, summary
from fenland.lab.training.trainer import train


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_interval_is_scipys_t_interval(n):
    values = np.random.default_rng(n).normal(3.0, 2.0, size=n)
    found = interval(values)
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert found.n == n
    assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), low, high), rel=1e-12)


def test_two_values_by_hand():
    # mean 1, s = sqrt(2), s / sqrt(2) = 1, t(0.975, 1) = 12.7062
    assert interval([0.0, 2.0]) == pytest.approx((1.0, 1 - 12.7062047, 1 + 12.7062047, 2))


def test_the_interval_covers_the_mean_in_95_of_100_draws():
    generator = np.random.default_rng(0)
    found = [interval(generator.normal(size=4)) for _ in range(4000)]
    covered = np.mean([each.low < 0 < each.high for each in found])
    assert covered == pytest.approx(0.95, abs=0.011)  # three standard errors


def test_one_value_has_a_mean_and_no_bounds():
    found = interval([0.5])
    assert (found.mean, found.n) == (0.5, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert not found.excludes_zero


@pytest.mark.parametrize("values", [[], [math.nan], [None, math.inf]])
def test_nothing_measured(values):
    found = interval(values)
    assert found.n == 0
    assert math.isnan(found.mean)


def test_unmeasured_values_are_left_out_and_not_counted():
    assert interval([1.0, math.nan, 3.0, None, math.inf]) == interval([1.0, 3.0])


@pytest.mark.parametrize(
    ("found", "excludes"),
    [
        (Interval(1, 0.5, 1.5, 3), True),
        (Interval(-1, -1.5, -0.5, 3), True),
        (Interval(1, -0.1, 2.1, 3), False),
        (Interval(1, 1, 1, 3), False),  # no spread: the seeds cannot tell how far it would vary
    ],
)
def test_excluding_zero(found, excludes):
    assert found.excludes_zero is excludes


def test_bands_are_the_intervals_of_each_epoch():
    metrics = pd.DataFrame(
        {"label": "a", "epoch": [1, 2, 1, 2, 1], "loss": [1.0, 10.0, 2.0, 20.0, 3.0], "seed": [0, 0, 1, 1, 2]}
    )
    table = bands(metrics, "loss").set_index("epoch")
    for epoch, values in ((1, [1.0, 2.0, 3.0]), (2, [10.0, 20.0])):
        assert tuple(table.loc[epoch, ["mean", "low", "high", "n"]]) == pytest.approx(interval(values))


def test_geometric_bands_stay_positive_and_scale_with_the_unit():
    metrics = pd.DataFrame({"label": "a", "epoch": 1, "loss": [0.01, 1.0]})
    row = bands(metrics, "loss", geometric=True).iloc[0]
    assert row["mean"] == pytest.approx(0.1)
    assert 0 < row["low"] < row["mean"] < row["high"]
    scaled = bands(metrics.assign(loss=7 * metrics["loss"]), "loss", geometric=True).iloc[0]
    assert scaled["low"] == pytest.approx(7 * row["low"])


def test_pairing_takes_out_what_the_seeds_share():
    shared = [0.0, 0.1, 0.2, 0.3]
    results = pd.DataFrame(
        [
            {"label": label, "seed": seed, "status": "finished", "test_accuracy": 0.5 + gain + part}
            for label, gain in (("sgd", 0.0), ("sam", 0.01))
            for seed, part in enumerate(shared)
        ]
    )
    results["test_accuracy"] += [0, 0, 0, 0, 0.001, -0.001, 0.001, -0.001]
    found = paired(results, "sam", "sgd")
    assert found == pytest.approx(interval([0.011, 0.009, 0.011, 0.009]))
    assert found.excludes_zero  # the runs themselves vary ten times as much as the gain


def test_only_shared_finished_seeds_are_paired(tmp_path):
    records = read_records(write_store(tmp_path, seeds=4, diverged=[("sam", 1), ("sgd", 3)]))
    assert paired(records.results, "sam", "sgd").n == 2


def test_summary_has_one_row_an_optimizer_in_the_comparisons_order(tmp_path):
    write_store(tmp_path, optimizers=("ssam", "sgd", "sam"), diverged=[("sam", 0)])
    table = summary(tmp_path)
    assert table["optimizer"].tolist() == ["ssam", "sgd", "sam"]
    assert table["n"].tolist() == [3, 3, 2]
    assert table["diverged"].tolist() == [0, 0, 1]
    assert set(table["baseline"]) == {"ssam"}
    assert table["relative_time"].tolist() == pytest.approx([1.0, 0.5, 1.0], abs=0.05)
    assert table["gradient_evaluations"].tolist() == [480, 240, 480]


def test_summary_means_equal_those_of_the_stored_results(tmp_path):
    write_store(tmp_path)
    results = read_records(tmp_path).results
    table = summary(tmp_path).set_index("optimizer")
    for label, runs in results.groupby("label"):
        for name in ("test_accuracy", "test_loss", "loss_gap", "accuracy_gap", "seconds"):
            assert table.loc[label, name] == pytest.approx(runs[name].mean())
    gain = results.pivot(index="seed", columns="label", values="test_accuracy")
    expected = interval(gain["sam"] - gain["sgd"])
    columns = [f"test_accuracy_difference{end}" for end in ("", "_low", "_high")]
    assert tuple(table.loc["sam", columns]) == pytest.approx(expected[:3])
    assert table.loc["sgd", columns].isna().all()


def test_without_a_comparison_file_sgd_is_the_baseline(tmp_path):
    write_store(tmp_path, optimizers=("sam", "sgd"), command=False)
    assert summary(tmp_path)["optimizer"].tolist() == ["sgd", "sam"]
    assert read_records(tmp_path).baseline == "sgd"


def test_variants_of_one_optimizer_are_told_apart(tmp_path):
    for rho in (0.05, 0.1):
        for seed in range(2):
            write_run(tmp_path, "sam", seed, rho=rho)
    write_run(tmp_path, "sgd", 0)
    assert read_records(tmp_path).labels == ["sgd", "sam (rho=0.05)", "sam (rho=0.1)"]


def test_the_comparison_names_its_runs_and_others_are_left_out(tmp_path):
    write_store(tmp_path, seeds=2)
    write_run(tmp_path, "sgd", 0, lr=0.3)
    path = tmp_path / "compare.json"
    names = sorted(folder.name for folder in (tmp_path / "runs").iterdir() if len(folder.name) <= 8)
    path.write_text(path.read_text().replace("{", '{"runs": ' + str(names).replace("'", '"') + ", ", 1))
    assert read_records(tmp_path).labels == ["sgd", "sam", "ssam"]


def test_unfinished_folders_are_left_alone(tmp_path):
    write_store(tmp_path, seeds=2)
    (tmp_path / "runs" / ".tmp-1").mkdir()
    assert len(read_records(tmp_path).results) == 6


def test_numbers_that_json_left_out_are_not_measured(tmp_path):
    folder = write_run(tmp_path, "sgd", 0)
    path = folder / "result.json"
    path.write_text(path.read_text().replace('"test_loss"', '"other"').replace("{", '{"test_loss": null, ', 1))
    seal(folder)
    write_run(tmp_path, "sgd", 1)
    assert math.isfinite(summary(tmp_path)["test_loss"].iloc[0])
    assert math.isnan(summary(tmp_path)["test_loss_low"].iloc[0])


def test_an_empty_store_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run"):
        read_records(tmp_path)


@pytest.mark.parametrize("name", [*FILES, SEAL])
def test_a_broken_file_is_named_and_its_run_left_out(tmp_path, name, caplog):
    folder = write_run(tmp_path, "sgd", 0)
    write_run(tmp_path, "sgd", 1)
    (folder / name).write_text("[1")
    assert read_records(tmp_path).results["seed"].tolist() == [1]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"left out: the run {folder} is damaged ({name} ")


def test_a_broken_comparison_is_named(tmp_path):
    write_store(tmp_path, seeds=1)
    (tmp_path / "compare.json").write_text("[]")
    with pytest.raises(
        Damaged, match=r"compare\.json: is damaged \(a JSON object was written, this is a list\); start"
    ):
        read_records(tmp_path)


def test_a_field_that_is_stored_where_it_is_set_has_its_default_elsewhere(tmp_path):
    base = RunConfig("digits", "mlp", "sgd", cutout=4, epochs=1, limit=64, batch_size=32)
    for share in (1.0, 0.5):
        config = dataclasses.replace(base, cutout_share=share)
        Store(tmp_path).save(config, train(config), {})
    records = read_records(tmp_path)
    assert sorted(records.labels) == ["sgd (cutout_share=0.5)", "sgd (cutout_share=1.0)"]
    assert sorted(records.results["cutout_share"]) == [0.5, 1.0]
    assert "curvature" not in records.results  # nobody has set it
