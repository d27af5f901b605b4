"""The study `gamma`: what it measures is the ratio of two norms, and its verdicts follow their tables."""

import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.figures import inline_svg
from fenland.lab.models import build_model
from fenland.lab.studies import find
from fenland.lab.studies.gamma import Config
from fenland.lab.study.run import run_study

STUDY = find("gamma")
EPOCHS = 9


def table(gamma=lambda optimizer, rho, epoch: 1 - rho * (epoch if optimizer == "sam" else 1), spread=0.001):
    """Gamma by a formula, three seeds around it."""
    rows = [
        {
            "run": f"{optimizer}{model}{rho}{seed}", "optimizer": optimizer, "model": model, "rho": rho, "seed": seed,
            "epoch": epoch, "gamma": gamma(optimizer, rho, epoch) + (seed - 1) * spread, "status": "finished",
        }
        for optimizer in ("usam", "sam")
        for model in ("mlp", "lenet")
        for rho in (0.01, 0.05)
        for seed in range(3)
        for epoch in range(1, EPOCHS + 1)
    ]  # fmt: skip
    return {"epochs": pd.DataFrame(rows), "data": pd.DataFrame([{"data": "digits", "stored": ""}])}


def judged(tables):
    found = STUDY.judge(Config(rhos=(0.01, 0.05)), tables)
    words = ("below 1 throughout", "smaller the larger", "falls through", "nearer to 1")
    assert len(found) == 6
    return {word: {v.holds for v in found if word in v.claim} for word in words}


def test_what_the_theory_says_holds():
    assert all(answers == {True} for answers in judged(table()).values())


@pytest.mark.parametrize(
    ("wrong", "gamma"),
    [
        ("below 1 throughout", lambda o, rho, e: 1.05 - rho * (e if o == "sam" else 1)),
        ("smaller the larger", lambda o, rho, e: 0.5 + rho - 0.01 * (e if o == "sam" else 1)),
        ("falls through", lambda o, rho, e: 0.6 - rho + (0.01 * e if o == "sam" else 0.2)),
        ("nearer to 1", lambda o, rho, e: 1 - rho * (e if o == "sam" else 12)),
    ],
)
def test_a_doctored_table_turns_its_verdict(wrong, gamma):
    found = judged(table(gamma))
    assert found[wrong] == {False}
    assert all(answers == {True} for word, answers in found.items() if word != wrong)


def test_seeds_that_disagree_decide_nothing():
    found = judged(table(spread=0.5))
    assert found["below 1 throughout"] == {None}


def test_runs_that_diverged_are_left_out_and_counted():
    tables = table()
    tables["epochs"].loc[tables["epochs"]["run"] == "sammlp0.050", ["status", "gamma"]] = ["diverged", 7.0]
    verdicts = STUDY.judge(Config(rhos=(0.01, 0.05)), tables)
    assert all(v.holds for v in verdicts)
    assert all("1 of 24 runs diverged" in v.note for v in verdicts)


def by_hand(optimizer, rho):
    """gamma of the first full-batch step, by autograd alone."""
    run = RunConfig("digits", "mlp", optimizer, seed=3)
    images = data.load(run)
    torch.manual_seed(run.seed)
    model = build_model("mlp", images.shape, len(images.classes)).double()
    batch, labels = next(data.Batches(images, torch.device("cpu"), len(images.train), 3, dtype=torch.float64).epoch(1))

    def gradient():
        return torch.autograd.grad(cross_entropy(model(batch), labels), list(model.parameters()))

    g = gradient()
    norm = torch.cat([x.flatten() for x in g]).norm()
    with torch.no_grad():
        for weight, x in zip(model.parameters(), g, strict=True):
            weight += rho * x / (norm if optimizer == "sam" else 1)
    return float(norm / torch.cat([x.flatten() for x in gradient()]).norm())


def test_a_small_run_measures_the_ratio_of_the_norms(tmp_path):
    settings = {"models": "mlp", "rhos": "0.05,0.5", "epochs": "3", "seeds": "3", "batch_size": "1437"}
    done = run_study(STUDY, "quick", settings, tmp_path)
    assert done.report.is_file()
    found = pd.read_parquet(tmp_path / "gamma/tables/epochs.parquet")
    assert len(found) == 2 * 2 * 3
    first = found[found["epoch"] == 1].set_index(["optimizer", "rho"])["gamma"]
    for (optimizer, rho), gamma in first.items():
        assert gamma == pytest.approx(by_hand(optimizer, rho), rel=1e-4)
    assert all(v.holds is None for v in done.verdicts), "one seed has no interval"
    assert run_study(STUDY, "quick", settings, tmp_path).reused


def test_its_figures_show_a_line_a_radius():
    for drawn in STUDY.draw(Config(rhos=(0.01, 0.05)), table()):
        svg = inline_svg(drawn, list(drawn.labels))
        assert all(text in svg for text in ("rho = 0.01", "rho = 0.05", "mlp", "lenet"))


@pytest.mark.parametrize(
    ("field", "value"), [("optimizers", ("sgd",)), ("rhos", (0.1,)), ("rhos", (0.0, 0.1)), ("epochs", 2)]
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(BadInput, match=field):
        Config(**{field: value})


def test_a_device_that_is_not_here_is_refused(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("cuda is here")
    with pytest.raises(BadInput, match="device=cuda"):
        run_study(STUDY, "quick", {"device": "cuda"}, tmp_path)
