"""The study `landscapes`: designs with the curvature they say, the Riemannian step, and verdicts that can fail."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from bare import Lab

from fenland.lab.errors import BadInput
from fenland.lab.replicas.manifolds import curved_ends, flat_ends, manifold_of, manifold_starts, mean_length
from fenland.lab.replicas.wells import Hyperbola, on_sphere, on_stiefel, valley
from fenland.lab.studies import find
from fenland.lab.studies.landscapes import FLAT, Config, designs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # geoopt's import uses torch.jit
    pytest.importorskip("geoopt")

SMALL = Config(starts=60, steps=40, lr=0.05, anisotropies=(1.0,), lengths=(0.3, 1.1))


@pytest.mark.parametrize("problem", [valley(20, 5, 10), on_sphere(20, 5, 4), on_stiefel(20, 5, 4, 2), Hyperbola()])
def test_gradients_are_those_of_the_values(problem):
    draws = torch.Generator().manual_seed(0)
    w = [torch.randn(7, *shape, generator=draws, dtype=torch.float64).requires_grad_() for shape in problem.shapes]
    exact = torch.autograd.grad(problem.value(w).sum(), w)
    for ours, theirs in zip(problem.gradient([x.detach() for x in w]), exact, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_valleys_have_their_curvatures_and_no_depth():
    problem = valley(20.0, 5.0, 10.0)
    for centre, expected in zip(problem.centres, problem.curvatures, strict=True):
        at = torch.tensor([centre], dtype=torch.float64)
        hessian = torch.autograd.functional.hessian(lambda x: problem.value([x])[0], at).reshape(2, 2)
        torch.testing.assert_close(hessian, torch.tensor(expected, dtype=torch.float64).diag(), rtol=1e-2, atol=0.15)
        assert abs(problem.value([at]).item()) < 0.1


@pytest.mark.parametrize("name", ["sphere", "stiefel"])
def test_the_riemannian_curvature_of_both_wells_is_the_one_that_is_said(name):
    problem = on_sphere(20, 5, 4) if name == "sphere" else on_stiefel(20, 5, 4, 2)
    manifold = manifold_of(name)
    for centre, expected in zip(problem.centres, (20.0, 5.0), strict=True):
        w = torch.tensor(centre, dtype=torch.float64).reshape(1, *problem.shape)
        draws = torch.Generator().manual_seed(1)
        for _ in range(3):
            z = manifold.proju(w, torch.randn(w.shape, generator=draws, dtype=torch.float64))
            z = z / z.norm()
            up, at, down = (problem.value([manifold.retr(w, t * z)]).item() for t in (1e-3, 0.0, -1e-3))
            assert (up - 2 * at + down) / 1e-6 == pytest.approx(expected, rel=1e-2)


def test_gradient_descent_on_the_curve_keeps_its_invariant_and_sam_does_not():
    start = torch.tensor([[2.5, 0.5]], dtype=torch.float64)
    plain = flat_ends(Hyperbola(), "SGD", 0.0, 0.002, 3000, start)[1][0]
    assert (plain[0] ** 2 - plain[1] ** 2).item() == pytest.approx(6.0, abs=0.02)
    flatter = flat_ends(Hyperbola(), "SAM", 0.5, 0.02, 600, start)[1]
    assert Hyperbola().curvature(flatter).item() == pytest.approx(2.0, abs=0.1)


def test_radii_are_matched_in_length():
    problem = designs(SMALL)["valley 1"]
    start = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert mean_length(problem, "SAM", start) == pytest.approx(1.0)
    assert 0 < mean_length(problem, "FisherSAM", start) < 1  # F >= 1 shortens
    assert mean_length(problem, "ASAM", start) != pytest.approx(1.0, rel=0.01)


def test_points_stay_on_the_manifold():
    manifold, problem = manifold_of("stiefel"), on_stiefel(20, 5, 4, 2)
    start = manifold_starts(manifold, (4, 2), 9, 0)
    for method in ("RSAM", "SAM projected", "SAM retracted", "FisherSAM projected"):
        end = curved_ends(manifold, problem, method, 0.4, 0.02, 5, start)
        torch.testing.assert_close(end.mT @ end, torch.eye(2, dtype=torch.float64).expand(9, 2, 2))
        assert (end - start).abs().max() > 1e-3


@pytest.fixture(scope="module")
def tables():
    return find("landscapes").runs(SMALL, Lab())


@pytest.mark.parametrize("files", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_small_run_agrees_with_the_optimizer_and_draws(tables, tmp_path, files):
    from fenland.lab.figures import inline_svg, save_files

    study = find("landscapes")
    assert tables["agreement"]["gap"].max() < 1e-9
    verdicts = study.judge(SMALL, tables)
    assert len(verdicts) == 4 + 4 + 5 + 5 + 2
    assert all(verdict.ours for verdict in verdicts), "the report names the question as future work, and claims nothing"
    for drawn in study.draw(SMALL, tables):
        if files:
            assert all(path.stat().st_size > 5000 for path in save_files(drawn, list(drawn.labels), tmp_path))
        assert inline_svg(drawn, list(drawn.labels)).startswith("<svg")


def _invented(better):
    """Ends in which one method always ends flat and the others half the time."""
    rows, starts = [], np.arange(200)
    for number, method in enumerate(FLAT):
        for length in (0.0,) if method == "SGD" else (0.3, 1.1):
            score = np.ones(200) if method == better else (starts // (number + 1) % 2).astype(float)
            rows.append(pd.DataFrame({"length": length, "start": starts, "score": score, "method": method}))
    return pd.concat(rows).assign(design="valley 1", held=False)


def test_doctored_tables_flip_the_verdicts(tables):
    def holds(ends, words, agreement=tables["agreement"]):
        both = pd.concat([ends, curved]) if len(ends["design"].unique()) == 1 else ends
        (found,) = (
            v.holds for v in find("landscapes").judge(SMALL, {"ends": both, "agreement": agreement}) if words in v.claim
        )
        return found

    curved = tables["ends"][tables["ends"]["design"] == "sphere"]

    assert holds(_invented("FisherSAM"), "Fisher-SAM reaches the flatter minimum more often than SAM") is True
    assert holds(_invented("SAM"), "Fisher-SAM reaches the flatter minimum more often than SAM") is False
    assert holds(_invented("none"), "Fisher-SAM reaches the flatter minimum more often than ASAM") is None
    assert holds(_invented("ASAM"), "ASAM reaches the flatter minimum more often than SAM") is True
    broken = tables["agreement"].assign(gap=1e-3)
    assert holds(_invented("SAM"), "take the steps of fenland.RiemannianSAM")
    assert not holds(_invented("SAM"), "take the steps of fenland.RiemannianSAM", broken)
    ends = tables["ends"]
    freed = ends.assign(held=False)
    stuck = ends.assign(held=ends["method"] == "RSAM")
    assert holds(freed, "leaves the ridge")
    assert not holds(stuck, "leaves the ridge")


def test_without_geoopt_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"fenland\[riemannian\]"):
        find("landscapes").runs(SMALL, Lab())


def test_bad_settings_are_named():
    with pytest.raises(BadInput, match="sharp, flat"):
        Config(sharp=1.0, flat=2.0)
    with pytest.raises(BadInput, match="lr"):
        Config(lr=0.2)
