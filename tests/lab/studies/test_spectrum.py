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
SMALL = {"models": "mlp", "epochs": "1", "seeds": "0", "optimizers": "sgd,sam", "examples": "100", "count": "2",
         "draws": "16", "rhos": "0.05,0.1", "paths": "1", "steps": "20", "lr": "0.2"}  # fmt: skip


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
    assert len(runs) == 3, "SGD has no radius"
    for name in runs["run"]:
        weights = torch.load(tmp_path / "runs" / name / "weights.pt", weights_only=True)
        full = torch.linalg.eigvalsh(dense(weights, _digits()))
        own = spectrum[spectrum["run"] == name]
        largest = own[own["kind"] == "largest"].sort_values("rank")
        assert largest["value"].tolist() == pytest.approx(full.flip(0)[:2].tolist(), rel=1e-3)
        assert (own[own["kind"] != "trace"]["error"] < 1e-3 * float(full.max())).all()
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

    return data.load(RunConfig("digits", "mlp", "sgd"))


RHOS = (0.02, 0.05, 0.2)


def tables(sizes=(3.0, 2.0, 1.0), traces=(30.0, 20.0, 10.0), spread=0.01, residual=1e-4, fit=(1.0, 1.0, 1.0)):
    """Eigenvalues and traces by optimizer, four seeds around them; the loss grows with the radius, and is times fit."""
    rows, runs, nodes = [], [], []
    for model in ("mlp", "lenet"):
        for name, size, trace, scale in zip(OPTIMIZERS, sizes, traces, fit, strict=True):
            for rho in RHOS if name != "sgd" else (np.nan,):
                for seed in range(4):
                    reference = rho != rho or rho == 0.05
                    loss = scale * 0.01 * (1.0 if rho != rho else (rho / 0.05) ** 0.5)
                    about = {"run": f"{model}{name}{rho}{seed}", "model": model, "optimizer": name, "rho": rho,
                             "seed": seed, "train_loss": loss}  # fmt: skip
                    away = np.exp(spread * (seed - 1.5)) * (loss / scale / 0.01)
                    runs.append({**about, "status": "finished"})
                    about["reference"] = reference
                    for rank in (1, 2):
                        x = size * away / rank
                        rows.append({**about, "kind": "largest", "rank": rank, "value": x, "error": residual * x})
                    rows.append({**about, "kind": "trace", "rank": 0, "value": trace * away, "error": 0.1})
                    nodes += [{**about, "path": 0, "node": at, "weight": 0.5} for at in (0.0, size)]
    found = {"runs": runs, "spectrum": rows, "density": nodes, "data": [{"data": "digits", "stored": ""}]}
    return {name: pd.DataFrame(part) for name, part in found.items()}


def judged(found):
    verdicts = STUDY.judge(Config(optimizers=OPTIMIZERS), found)
    words = (
        "SAM ends with a smaller largest",
        "SSAM ends with a smaller largest",
        "than SAM",
        "trace",
        "At equal train loss",
        "residual",
    )
    assert len(verdicts) == 10
    return {word: [v.holds for v in verdicts if word in v.claim] for word in words}


def test_flatter_minima_hold():
    assert all(set(answers) == {True} for answers in judged(tables()).values())


def test_doctored_tables_turn_their_verdicts():
    sharper = judged(tables(sizes=(1.0, 2.0, 3.0)))
    assert set(sharper["SSAM ends with a smaller largest"]) == {False}
    assert set(sharper["trace"]) == {True}
    order = judged(tables(sizes=(3.0, 1.0, 2.0), traces=(30.0, 10.0, 20.0)))
    assert order["than SAM"] == [False, False, False]
    assert judged(tables(traces=(1.0, 2.0, 3.0)))["trace"] == [False, False, False]
    further = tables(sizes=(3.0, 2.0, 2.2), fit=(1.0, 1.0, 0.9))
    assert judged(further)["than SAM"] == [False, True, False], "sharper at one radius, by more than its loss is lower"
    behind = judged(tables(sizes=(3.0, 2.0, 2.2), fit=(1.0, 1.0, 1.5)))
    assert behind["than SAM"] == [False, True, True], "sharper at one radius, flatter where it has fitted as far"
    assert judged(tables(fit=(1.0, 1.0, 1e-4)))["At equal train loss"] == [True, None, None], "no common loss"
    assert judged(tables(residual=0.1))["residual"] == [False]


def test_seeds_that_disagree_decide_nothing():
    found = tables()
    noise = np.where(found["spectrum"]["optimizer"] == "sam", found["spectrum"]["seed"] - 1.0, 0.0)
    found["spectrum"]["value"] *= np.exp(noise)
    assert judged(found)["SAM ends with a smaller largest"][0] is None


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
    with pytest.raises(BadInput, match="rho"):
        Config(rho=0.3)
