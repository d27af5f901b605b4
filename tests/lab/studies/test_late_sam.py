"""The study `late-sam`: runs switch where they should, lines and steps are exact, and verdicts follow the tables."""

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch.nn.functional import cross_entropy

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.models import build_model
from fenland.lab.studies import find
from fenland.lab.studies.late_sam import Config
from fenland.lab.study.ends import after, barrier, end, line
from fenland.lab.study.network import trained
from fenland.lab.study.run import run_study

STUDY = find("late-sam")
NOWHERE = SimpleNamespace(data_dir=lambda data: None)
RUN = RunConfig("digits", "mlp", "sgd", lr=0.05, momentum=0.0, weight_decay=0.0, batch_size=64, epochs=2)
STARTS = (0.0, 0.5, 1.0)


def test_runs_switch_at_their_share_of_the_steps():
    config = STUDY.presets["quick"]
    runs = dict(
        zip((case["start"] for case in STUDY.runs.cases(config)), STUDY.runs.runs(config, NOWHERE), strict=False)
    )
    steps = config.epochs * (1437 // config.batch_size)
    assert runs[0.0].options == ("start=0",)
    assert runs[0.5].options == (f"start={round(steps / 2)}",)
    assert runs[1.0].options == (f"start={steps}",)
    assert {run.rho for run in runs.values()} == {config.rho}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights of two networks."""
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        path = tmp_path_factory.mktemp("weights") / f"{seed}.pt"
        torch.save(build_model("mlp", (1, 8, 8), 10).state_dict(), path)
        found.append(path)
    return found


def loss_at(weights):
    model, batches = trained(RUN, weights)
    ((x, y),) = list(batches.evaluation("train", 100))
    return model, x, y, cross_entropy(model(x), y).item()


def test_the_line_between_two_ends(files):
    rows = line(RUN, *files, points=3, examples=100)
    assert rows["at"].tolist() == [0.0, 0.5, 1.0]
    (model, x, y, first), (other, _, _, second) = (loss_at(path) for path in files)
    assert rows["loss"].iloc[[0, 2]].tolist() == pytest.approx([first, second], rel=1e-5)
    with torch.no_grad():
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            p.copy_((p + q) / 2)
    assert rows["loss"].iloc[1] == pytest.approx(cross_entropy(model(x), y).item(), rel=1e-5)


def test_a_barrier_is_over_the_chord():
    assert barrier([1.0, 2.0, 3.0]) == 0.0
    assert barrier([1.0, 5.0, 3.0]) == 3.0
    assert barrier([1.0, 0.0, 1.0]) == 0.0


def test_steps_after_an_end_are_the_optimizers(files):
    """Plain SGD of two steps, by hand, on the batches of the epoch that follows the run."""
    rows = after(RUN, files[0], "GD", rho=0.1, steps=2, every=1, examples=100, tol=0.01)
    model, x, y, first = loss_at(files[0])
    origin = [p.detach().clone() for p in model.parameters()]
    _, batches = trained(RUN, files[0])
    for images, labels in list(batches.epoch(3))[:2]:
        gradients = torch.autograd.grad(cross_entropy(model(images), labels), list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients, strict=True):
                p.sub_(0.05 * g)
    apart = [p.detach() - at for p, at in zip(model.parameters(), origin, strict=True)]
    moved = sum(float(x.square().sum()) for x in apart) ** 0.5
    assert rows["step"].tolist() == [0, 1, 2]
    assert rows["loss"].iloc[0] == pytest.approx(first, rel=1e-5)
    assert rows["loss"].iloc[2] == pytest.approx(cross_entropy(model(x), y).item(), rel=1e-4)
    assert rows["distance"].tolist()[::2] == pytest.approx([0.0, moved], rel=1e-4)
    assert rows["eigenvalue"].iloc[0] == pytest.approx(
        end(RUN, files[0], examples=100, tol=0.01)["eigenvalue"][0], rel=0.02
    )
    other = after(RUN, files[0], "SAM", rho=0.1, steps=2, every=1, examples=100, tol=0.01)
    assert other["loss"].iloc[2] != rows["loss"].iloc[2]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Run for real on digits."""
    overrides = {
        "seeds": "0,1", "epochs": "2", "limit": "256", "starts": "0,0.5,1", "examples": "64", "points": "3",
        "after": "8", "every": "2",
    }  # fmt: skip
    done = run_study(STUDY, "quick", overrides, tmp_path_factory.mktemp("late"), console=Console(file=io.StringIO()))
    return done, {path.stem: pd.read_parquet(path) for path in (done.folder / "tables").glob("*.parquet")}


def test_every_run_is_measured(small):
    _, tables = small
    assert sorted(tables["runs"]["start"].unique()) == list(STARTS)
    assert tables["runs"]["eigenvalue"].notna().all()
    assert len(tables["lines"]) == 2 * 2 * 3
    assert sorted(tables["after"]["method"].unique()) == ["GD", "SAM"]
    # Of one seed all begin alike: with half of the steps plain, the first half is SGD's.
    assert tables["lines"][tables["lines"]["at"] == 0].groupby("seed")["loss"].nunique().tolist() == [1, 1]


def test_verdicts_follow_the_tables():
    config = Config(starts=STARTS, data="cifar10", epochs=200)
    runs = pd.DataFrame([
        {"start": start, "seed": seed, "eigenvalue": value * (1 + 0.01 * seed), "test_accuracy": 0.9,
         "status": "finished", "run": f"{start}{seed}", "options": f"start={round(880 * start)}"}
        for start, value in zip(STARTS, (1.0, 2.0, 10.0), strict=True) for seed in (0, 1, 2)
    ])  # fmt: skip
    lines = pd.DataFrame([
        {"start": start, "seed": seed, "at": at, "loss": 1.0}
        for start in STARTS[:2] for seed in (0, 1, 2) for at in (0.0, 0.5, 1.0)
    ])  # fmt: skip
    steps = np.arange(0, 601, 30)
    late = np.where(steps < 300, 10.0 + steps / 10, 1.0)  # uphill first, then flatter
    after_rows = pd.concat([
        pd.DataFrame({"step": steps, "loss": 1.0 + (steps == 60), "distance": steps * (1.0 if gd else 2.0 + 0.1 * seed),
                      "eigenvalue": 10.0 if gd else late + 0.01 * seed, "method": "GD" if gd else "SAM", "seed": seed})
        for gd in (True, False) for seed in (0, 1, 2)
    ])  # fmt: skip
    tables = {"runs": runs, "lines": lines, "after": after_rows}

    def holds(words, **changed):
        (found,) = [each.holds for each in STUDY.judge(config, {**tables, **changed}) if words in each.claim]
        return found

    assert holds("ends flatter") is True
    assert holds("nearer to that of SAM") is True
    assert holds("nearer to that", runs=runs.assign(eigenvalue=runs["eigenvalue"].replace(2.0, 8.0).where(
        runs["start"] != 0.5, 8.0))) is False  # fmt: skip
    assert holds("leaves the end") is True
    assert holds("leads uphill") is True
    assert holds("leads uphill", after=after_rows.assign(loss=1.0 + 0.01 * after_rows["seed"])) is False
    assert holds("flatter place than SGD, trained") is True
    assert holds("no barrier") is True
    assert holds("no barrier", lines=lines.assign(loss=1.0 + (lines["at"] == 0.5))) is False
    swapped = after_rows.replace({"method": {"GD": "SAM", "SAM": "GD"}})
    assert holds("leaves the end", after=swapped) is False
    assert holds("flatter place than SGD, trained", after=swapped) is False
    assert holds("from 90 %") is None, "no run starts there"
    config = Config(starts=STARTS)
    small = {each.claim: each.holds for each in STUDY.judge(config, tables)}
    of_ends = ("from 90 %", "ends flatter", "nearer to that of SAM")
    assert {holds for claim, holds in small.items() if any(words in claim for words in of_ends)} == {None}, (
        "what a small network ends with decides nothing about the paper's"
    )
    assert {holds for claim, holds in small.items() if not any(words in claim for words in of_ends)} == {True}


def test_bad_input():
    with pytest.raises(BadInput, match="after"):
        Config(after=30)
    with pytest.raises(BadInput, match="points"):
        Config(points=2)
