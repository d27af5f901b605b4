"""The study `spectrum`: eigenvalues of a trained network's Hessian, and verdicts that follow their tables."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from fenland.lab import data
from fenland.lab.errors import BadInput
from fenland.lab.figures import inline_svg
from fenland.lab.models.mlp import MLP
from fenland.lab.studies import find
from fenland.lab.studies.spectrum import Config
from fenland.lab.study.run import run_study

STUDY = find("spectrum")
OPTIMIZERS = ("sgd", "sam", "ssam")
SMALL = {"models": "mlp", "epochs": "1", "lengths": "1,2", "seeds": "0", "optimizers": "sgd,sam", "examples": "100",
         "count": "2", "draws": "16", "limit": "500", "rhos": "0.05,0.1", "paths": "1", "steps": "20",
         "lr": "0.2"}  # fmt: skip


def dense(weights, images):
    """The Hessian by autograd of the whole matrix: no Lanczos, no product."""
    names = list(weights)
    sizes = [weights[name].numel() for name in names]
    batch = data.Batches(images, torch.device("cpu"), 64, 0, dtype=torch.float64)
    ((x, labels),) = list(batch.evaluation("train", 100))
    model = MLP(images.shape, 10, hidden=(4, 4)).double()

    def loss(flat):
        parts = {n: p.view(weights[n].shape) for n, p in zip(names, flat.split(sizes), strict=True)}
        return cross_entropy(torch.func.functional_call(model, parts, (x,)), labels)

    flat = torch.cat([weights[name].double().flatten() for name in names])
    return torch.autograd.functional.hessian(loss, flat)


def test_a_small_run_has_the_eigenvalues_of_its_dense_hessian(tmp_path, monkeypatch):
    from fenland.lab import models

    monkeypatch.setitem(models.MODELS, "mlp", lambda shape, classes: MLP(shape, classes, hidden=(4, 4)))
    done = run_study(STUDY, "quick", SMALL, tmp_path)
    tables = {path.stem: pd.read_parquet(path) for path in (tmp_path / "spectrum/tables").iterdir()}
    runs, spectrum = tables["runs"], tables["spectrum"]
    assert len(runs) == 6, "two lengths; SGD has no radius"
    assert set(spectrum["run"]) == set(runs["run"])
    reference = runs.loc[runs["reference"], ["optimizer", "epochs", "rho"]].fillna(0.05)
    assert reference.to_numpy().tolist() == [["sgd", 1, 0.05], ["sam", 1, 0.05]]
    for name, compared in zip(runs["run"], runs["reference"], strict=True):
        weights = torch.load(tmp_path / "runs" / name / "weights.pt", weights_only=True)
        full = torch.linalg.eigvalsh(dense(weights, _digits()))
        own = spectrum[spectrum["run"] == name]
        largest = own[own["kind"] == "largest"].sort_values("rank")
        count = 2 if compared else 1
        assert largest["value"].tolist() == pytest.approx(full.flip(0)[:count].tolist(), rel=1e-3)
        assert (own[own["kind"] != "trace"]["error"] < 1e-3 * float(full.max())).all()
        if not compared:
            assert set(own["kind"]) == {"largest"}
            assert name not in set(tables["density"]["run"])
            continue
        trace = own[own["kind"] == "trace"].iloc[0]
        assert abs(trace["value"] - float(full.sum())) < 5 * trace["error"]
        nodes = tables["density"][tables["density"]["run"] == name]
        assert nodes["weight"].sum() == pytest.approx(1.0)
        assert nodes["node"].max() == pytest.approx(float(full.max()), rel=1e-2)
    residuals = [v for v in done.verdicts if "residual" in v.claim]
    assert [v.holds for v in residuals] == [True]
    assert run_study(STUDY, "quick", SMALL, tmp_path).reused


def _digits():
    from fenland.lab.config import RunConfig

    return data.load(RunConfig("digits", "mlp", "sgd", limit=500))


RHOS, LENGTHS = (0.05, 0.2), (20, 40, 80, 160)
SCALE = {
    "data": "cifar10",
    "limit": None,
    "epochs": 200,
    "lengths": (20, 200),
}  # at which the paper's claims are decided


def tables(sizes=(3.0, 2.0, 1.0), traces=(30.0, 20.0, 10.0), spread=0.01, residual=1e-4, fit=(1.0, 1.0, 1.0)):
    """Eigenvalues and traces by optimizer, four seeds around them; the loss falls with the length, and is times fit."""
    rows, runs, nodes = [], [], []
    for model in ("mlp", "lenet"):
        for name, size, trace, scale in zip(OPTIMIZERS, sizes, traces, fit, strict=True):
            for rho in RHOS if name != "sgd" else (np.nan,):
                for length in LENGTHS:
                    for seed in range(4):
                        about = {"run": f"{model}{name}{rho}{length}{seed}", "model": model, "optimizer": name,
                                 "rho": rho, "epochs": length, "seed": seed, "train_loss": scale * 0.4 / length,
                                 "reference": (rho != rho or rho == 0.05) and length == 40}  # fmt: skip
                        away = np.exp(spread * (seed - 1.5)) * 40 / length
                        runs.append({**about, "status": "finished"})
                        for rank in (1, 2) if about["reference"] else (1,):
                            x = size * away / rank
                            rows.append({**about, "kind": "largest", "rank": rank, "value": x, "error": residual * x})
                        if about["reference"]:
                            rows.append({**about, "kind": "trace", "rank": 0, "value": trace * away, "error": 0.1})
                            nodes += [{**about, "path": 0, "node": at, "weight": 0.5} for at in (0.0, size)]
    found = {"runs": runs, "spectrum": rows, "density": nodes, "data": [{"data": "digits", "stored": ""}]}
    return {name: pd.DataFrame(part) for name, part in found.items()}


def judged(found, **scale):
    """Answers of SAM against SGD, SSAM against SGD, SSAM against SAM."""
    verdicts = STUDY.judge(Config(optimizers=OPTIMIZERS, **(scale or SCALE)), found)
    answers = {word: [v.holds for v in verdicts if word in v.claim] for word in ("flatter", "equal", "residual")}
    assert [len(each) for each in answers.values()] == [3, 3, 1]
    assert len(verdicts) == 7
    return answers


def test_flatter_minima_hold():
    assert all(set(answers) == {True} for answers in judged(tables()).values())


def test_a_small_network_decides_nothing_about_the_papers():
    answers = judged(tables(), data="digits")
    assert answers["flatter"] == [True, None, None], "SAM against SGD is ours"
    assert answers["equal"] == [True, True, True]


def test_doctored_tables_turn_their_verdicts():
    assert judged(tables(sizes=(1.0, 2.0, 3.0)))["flatter"] == [False, False, False]
    assert judged(tables(traces=(1.0, 2.0, 3.0)))["flatter"] == [False, False, False]
    order = judged(tables(sizes=(3.0, 1.0, 2.0), traces=(30.0, 10.0, 20.0)))
    assert order["flatter"] == order["equal"] == [True, True, False]
    further = judged(tables(sizes=(3.0, 2.0, 2.2), fit=(1.0, 1.0, 0.9)))
    assert (further["flatter"][2], further["equal"][2]) == (False, False), "sharper by more than its loss is lower"
    behind = judged(tables(sizes=(3.0, 2.0, 2.2), fit=(1.0, 1.0, 1.5)))
    assert (behind["flatter"][2], behind["equal"][2]) == (False, True), "flatter where it has fitted as far"
    assert judged(tables(fit=(1.0, 1.0, 1e-4)))["equal"] == [True, None, None], "no common loss"
    assert judged(tables(residual=0.1))["residual"] == [False]


def test_lines_that_overlap_have_points_of_equal_loss():
    found = tables()
    kept = {"sam": (40, 80), "ssam": (20, 160), "sgd": LENGTHS}  # no loss of SSAM's lies between two of SAM's
    rows = found["spectrum"]
    found["spectrum"] = rows[
        [length in kept[name] for name, length in zip(rows["optimizer"], rows["epochs"], strict=True)]
    ]
    verdicts = STUDY.judge(Config(optimizers=OPTIMIZERS, **SCALE), found)
    (verdict,) = (v for v in verdicts if v.claim.startswith("At equal train loss SSAM") and "than SAM" in v.claim)
    assert verdict.holds is True
    assert "mlp, rho = 0.2: 0.5 [0.5, 0.5] times as large (8 points of equal loss)" in verdict.measured


def test_seeds_that_disagree_decide_nothing():
    found = tables()
    noise = np.where(found["spectrum"]["optimizer"] == "sam", found["spectrum"]["seed"] - 1.0, 0.0)
    found["spectrum"]["value"] *= np.exp(noise)
    assert judged(found)["flatter"][0] is None


def test_no_finished_run_is_no_verdict():
    found = {name: part.iloc[:0] for name, part in tables().items()}
    assert {v.holds for v in STUDY.judge(Config(), found)} == {None}
    assert STUDY.draw(Config(), found) == []


def test_its_figures_show_all_optimizers():
    drawn = STUDY.draw(Config(optimizers=OPTIMIZERS), tables())
    assert [each.name for each in drawn] == ["largest", "density", "equal_loss", "trace_mlp", "trace_lenet"]
    for each in drawn:
        svg = inline_svg(each, list(each.labels))
        assert all(name in svg for name in ("SGD", "SAM", "SSAM"))


def test_one_optimizer_is_no_comparison():
    with pytest.raises(BadInput, match="optimizers"):
        Config(optimizers=("sam",))
    with pytest.raises(BadInput, match="rhos"):
        Config(rho=0.3)
    with pytest.raises(BadInput, match="lengths"):
        Config(epochs=30)
    with pytest.raises(BadInput, match="lengths"):
        Config(lengths=(40,))
