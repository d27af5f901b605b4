"""The study `ball-metric`: lengths are what the readings say, and verdicts follow the tables."""

import io
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fenland.lab.errors import BadInput
from fenland.lab.figures import inline_svg
from fenland.lab.studies import find
from fenland.lab.studies.ball_metric import EUCLID, KINDS, MATCHED, SIGN, STRETCHED, Config, count_weights
from fenland.lab.study.run import run_study

STUDY = find("ball-metric")
PAPER = STUDY.presets["paper"]
NOWHERE = SimpleNamespace(data_dir=lambda data: None)
BETTER = {EUCLID: 0.97, SIGN: 0.5, STRETCHED: 0.9, MATCHED: 0.96}


def test_weights_are_counted_without_drawing_them():
    assert count_weights(Config(model="mlp"), NOWHERE) == 85_002


def test_the_matched_radius_has_the_euclidean_length_of_the_other():
    config = replace(PAPER, data="digits", device="cpu", model="mlp")
    plan = list(zip(STUDY.runs.cases(config), STUDY.runs.runs(config, NOWHERE), strict=True))
    radii = {kind: {run.rho for case, run in plan if case["kind"] == kind} for kind in KINDS}
    assert radii == {EUCLID: {0.05}, SIGN: {0.05}, STRETCHED: {0.05}, MATCHED: {0.05 / math.sqrt(85_002)}}
    assert len({run.hash for _, run in plan}) == 4 * 3
    assert {case["kind"]: run.optimizer for case, run in plan} == {
        EUCLID: "sam", SIGN: "lpsam", STRETCHED: "infnormsam", MATCHED: "lpsam",
    }  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Run for real on digits."""
    overrides = {"model": "mlp", "seeds": "0,1", "epochs": "2", "limit": "256"}
    out = tmp_path_factory.mktemp("ball")
    done = run_study(STUDY, "quick", overrides, out, console=Console(file=io.StringIO()))
    return done, {path.stem: pd.read_parquet(path) for path in (done.folder / "tables").glob("*.parquet")}


def test_lengths_are_euclidean(small):
    _, tables = small
    first = tables["epochs"][tables["epochs"]["epoch"] == 1].groupby("kind")["length"].mean()
    assert first[EUCLID] == pytest.approx(0.05, rel=1e-4)
    assert first[MATCHED] == pytest.approx(0.05, rel=1e-6)
    assert first[SIGN] == pytest.approx(0.05 * math.sqrt(85_002), rel=1e-6)
    assert 0.05 * 2 < first[STRETCHED] < first[SIGN]


def test_at_a_small_scale_only_our_own_claims_are_decided(small):
    done, _ = small
    assert [verdict.holds for verdict in done.verdicts[:2]] == [None, None]
    assert done.verdicts[2].holds is True
    assert "Not decided" in done.verdicts[0].note


def made(accuracy=BETTER, longer=10.0, noise=0.001, stored=""):
    """Tables with these accuracies and lengths."""
    rng = np.random.default_rng(0)
    rows, epochs = [], []
    for kind in KINDS:
        for seed in PAPER.seeds:
            score = accuracy[kind] + noise * rng.standard_normal()
            rows.append([f"{kind}{seed}", kind, seed, "finished", score, 0.1])
            length = 0.05 * (longer if kind in (SIGN, STRETCHED) else 1.0)
            epochs += [[f"{kind}{seed}", kind, seed, epoch, score, 0.1, length] for epoch in (1, 2)]
    return {
        "runs": pd.DataFrame(rows, columns=["run", "kind", "seed", "status", "test_accuracy", "chance"]),
        "epochs": pd.DataFrame(
            epochs, columns=["run", "kind", "seed", "epoch", "test_accuracy", "test_loss", "length"]
        ),
        "data": pd.DataFrame([{"data": "cifar10", "stored": stored}]),
    }


def test_doctored_tables_flip_the_verdicts():
    def answers(config=PAPER, **changes):
        return [verdict.holds for verdict in STUDY.judge(config, made(**changes))]

    assert answers() == [True] * 5
    assert answers(accuracy={**BETTER, SIGN: 0.99}) == [True, False, True, True, False]
    assert answers(accuracy={**BETTER, STRETCHED: 0.98, MATCHED: 0.98}) == [False, True, True, False, True]
    assert answers(longer=1.5)[2] is False
    assert answers(noise=3.0) == [None, None, True, None, None]
    assert answers(config=replace(PAPER, limit=100)) == [None, None, True, True, True]


def test_notes_name_failed_runs_and_lossy_images():
    found = STUDY.judge(PAPER, made(accuracy={**BETTER, SIGN: 0.1}, stored="JPEG"))
    assert "3 of 3 runs (L-inf, sign) end no better than guessing" in found[1].note
    assert "JPEG" in found[0].note


def test_it_draws():
    for drawn in STUDY.draw(PAPER, made()):
        assert inline_svg(drawn, list(drawn.labels)).startswith("<svg")


def test_bad_settings_are_named():
    with pytest.raises(BadInput, match="rho"):
        Config(rho=0.0)
