"""Curvature against exact Hessians and matrices with known eigenvalues."""

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fenland.diagnostics import curvature
from fenland.diagnostics.hessian import Hessian
from fenland.diagnostics.objective import Objective
from fenland.diagnostics.spectra import matrix

CLOSE = 1e-4
SPREAD = [*torch.linspace(-1.0, 2.0, 58).tolist(), -3.0, 5.0]


def conv():
    torch.manual_seed(0)
    return nets.Conv()


def tied():
    torch.manual_seed(0)
    return nets.Tied()


def flat():
    return nets.images(shape=(5,))


CASES = {
    "conv-eval": (conv, nets.images, "eval", None),
    "conv-norm-only": (conv, nets.images, "eval", ["norm.weight", "norm.bias", "unused"]),
    "tied-frozen": (tied, flat, "eval", None),
    "tied-train": (tied, flat, "train", None),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [None, torch.float64], ids=["float32", "float64"])
def test_equal_to_the_exact_hessian(case, dtype):
    make, data, mode, names = CASES[case]
    model, batches = make(), data()
    full, loss = nets.exact(model, nets.cross_entropy, batches, names, training=mode == "train")
    with Objective(model, nets.cross_entropy, batches, mode=mode, parameters=names, dtype=dtype) as objective:
        hessian = Hessian(objective)
        torch.testing.assert_close(matrix(hessian), full, atol=CLOSE, rtol=CLOSE)
        assert hessian.loss == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("which", ["both", "largest", "smallest"])
def test_extreme_eigenvalues_are_those_of_the_exact_hessian(k, which):
    model, batches = conv(), nets.images()
    full, _ = nets.exact(model, nets.cross_entropy, batches)
    want = torch.linalg.eigvalsh(full)
    found = curvature.extreme_eigenvalues(model, nets.cross_entropy, batches, k=k, which=which, tol=1e-4)
    assert found.converged
    got = [pair.value for pair in found.largest], [pair.value for pair in found.smallest]
    if which != "smallest":
        assert got[0] == pytest.approx(want.flip(0)[:k].tolist(), abs=CLOSE)
    if which != "largest":
        assert got[1] == pytest.approx(want[:k].tolist(), abs=CLOSE)
    assert len(got[0]) == (0 if which == "smallest" else k)
    assert all(pair.residual <= 1e-4 * float(want.abs().max()) * 1.01 for pair in found.largest + found.smallest)


def test_dropout_in_train_mode_is_one_fixed_mask():
    model, batches = conv(), nets.images()
    torch.manual_seed(5)
    with Objective(model, nets.cross_entropy, batches, mode="train") as objective:
        hessian = Hessian(objective)
        full = matrix(hessian)
        again = matrix(hessian)
    torch.testing.assert_close(full, again, atol=0, rtol=0)
    off, _ = nets.exact(model, nets.cross_entropy, batches, training=False)
    assert not torch.allclose(full, off, atol=1e-2)


def test_eigenvectors_come_by_name_and_satisfy_their_equation():
    model, batches = conv(), nets.images()
    found = curvature.extreme_eigenvalues(model, nets.cross_entropy, batches, vectors=True, tol=1e-4)
    vector = found.largest[0].vector
    assert list(vector) == [n for n, _ in model.named_parameters()]
    assert all(vector[n].shape == p.shape for n, p in model.named_parameters())
    assert float(vector["unused"].abs().max()) < 1e-6
    v = torch.cat([x.reshape(-1) for x in vector.values()]).double()
    full, _ = nets.exact(model, nets.cross_entropy, batches)
    assert float((full @ v - found.largest[0].value * v).norm()) == pytest.approx(found.largest[0].residual, abs=1e-5)
    assert curvature.extreme_eigenvalues(model, nets.cross_entropy, batches).largest[0].vector is None


@pytest.mark.parametrize(
    "eigenvalues",
    [SPREAD, [-x for x in SPREAD], [0.0] * 59 + [1.0], [0.0] * 60, [2.0] * 60, [1e-6 * x for x in SPREAD], [-7.0] * 60],
    ids=["spread", "flipped", "rank-one", "zero", "constant", "tiny", "negative"],
)
def test_signs_zeros_and_scales(eigenvalues):
    """Algebraic ends, also where ARPACK's own criterion would never be met (an eigenvalue of 0)."""
    model = nets.Linear(nets.symmetric(eigenvalues))
    found = curvature.extreme_eigenvalues(model, nets.value, [torch.ones(1)], tol=1e-5)
    size = max(abs(x) for x in eigenvalues) or 1.0
    assert found.converged
    assert found.largest[0].value == pytest.approx(max(eigenvalues), abs=1e-6 * size)
    assert found.smallest[0].value == pytest.approx(min(eigenvalues), abs=1e-6 * size)
    assert found.largest[0].residual <= 1.01e-5 * size


REPEATED = {
    "largest": [5.0, 5.0, 5.0, *torch.linspace(0.1, 3, 57).tolist()],
    "null space": [*[0.0] * 55, 1.0, 2.0, 3.0, 4.0, 5.0],
    "both ends": [-3.0, -3.0, *torch.linspace(-1, 1, 96).tolist(), 3.0, 3.0],
    "constant": [2.0] * 60,
    "zero": [0.0] * 60,
    "rank-one": [*[0.0] * 59, 1.0],
    "all but": [5.0, 5.0, 4.999, *torch.linspace(0.1, 3, 57).tolist()],
}


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("case", REPEATED)
def test_an_eigenvalue_of_several_eigenvectors_counts_as_often_as_it_has(case, k):
    """One Krylov space sees one vector of each, so that 5, 5, 3 would be 5, 3, 2.9, converged."""
    model, ordered = nets.Linear(nets.symmetric(REPEATED[case])), sorted(REPEATED[case])
    for which in ("both", "largest", "smallest"):
        found = curvature.extreme_eigenvalues(
            model, nets.value, [torch.ones(1)], k=k, which=which, tol=1e-4, vectors=True
        )
        assert found.converged
        got = [[pair.value for pair in pairs] for pairs in (found.largest, found.smallest)]
        assert got[0] == pytest.approx([] if which == "smallest" else ordered[: -k - 1 : -1], abs=1e-5)
        assert got[1] == pytest.approx([] if which == "largest" else ordered[:k], abs=1e-5)
        for pairs in filter(None, (found.largest, found.smallest)):
            vectors = torch.stack([pair.vector["w"] for pair in pairs])
            torch.testing.assert_close(vectors @ vectors.T, torch.eye(k).to(vectors), atol=1e-5, rtol=0)


def test_it_says_when_it_stops_early():
    model = nets.Linear(nets.symmetric(torch.linspace(0, 1, 300).tolist()))
    with pytest.warns(UserWarning, match="raise max_products"):
        found = curvature.extreme_eigenvalues(model, nets.value, [torch.ones(1)], tol=1e-9, max_products=25)
    assert not found.converged
    assert abs(found.largest[0].value - 1.0) < 0.1
    assert found.largest[0].residual > 1e-9
    assert found.products < 150


@pytest.mark.parametrize("gap", [1e-3, -1e-3])
def test_what_lanczos_does_not_settle_is_restarted(gap):
    """Both ends of a dense spectrum, whose extremes stand off by little; in double precision to 1e-6."""
    eigenvalues = [*torch.linspace(-1, 1, 400).tolist(), 1 + gap, -1 - gap]
    model = nets.Linear(nets.symmetric(eigenvalues))
    found = curvature.extreme_eigenvalues(model, nets.value, [torch.ones(1)], tol=1e-4, k=2)
    assert found.converged
    assert found.products > 70
    ordered = sorted(eigenvalues)
    assert [pair.value for pair in found.largest] == pytest.approx(ordered[:-3:-1], abs=1e-6)
    assert [pair.value for pair in found.smallest] == pytest.approx(ordered[:2], abs=1e-6)


def test_a_small_negative_end_is_found_beside_a_large_positive_one():
    eigenvalues = [100.0, *torch.linspace(0, 0.5, 200).tolist(), -0.3]
    model = nets.Linear(nets.symmetric(eigenvalues))
    found = curvature.extreme_eigenvalues(model, nets.value, [torch.ones(1)], tol=1e-3)
    assert found.smallest[0].value == pytest.approx(-0.3, abs=1e-3)


def test_an_eigenvalue_lies_within_the_residual():
    eigenvalues = torch.linspace(0, 1, 300)
    model = nets.Linear(nets.symmetric(eigenvalues.tolist()))
    found = curvature.extreme_eigenvalues(model, nets.value, [torch.ones(1)], tol=0.05, k=2)
    for pair in found.largest + found.smallest:
        assert float((eigenvalues - pair.value).abs().min()) <= pair.residual + 1e-9


@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
def test_the_trace_lies_within_its_error(method):
    model = nets.Linear(nets.symmetric(SPREAD))
    hits = []
    for seed in range(40):
        found = curvature.trace(model, nets.value, [torch.ones(1)], draws=30, method=method, seed=seed)
        assert found.standard_error > 0
        hits.append(abs(found.value - sum(SPREAD)) <= 2.1 * found.standard_error)
    assert 33 <= sum(hits) <= 40  # 95 % of 40 is 38, ten draws having wider tails than a Gaussian


def test_the_trace_over_batches_is_that_of_the_mean_over_examples():
    model, batches = conv(), nets.images()
    full, _ = nets.exact(model, nets.cross_entropy, batches)
    found = curvature.trace(model, nets.cross_entropy, batches, draws=200)
    assert abs(found.value - float(full.trace())) < 4 * found.standard_error
    assert found.parameters == len(full)


def test_the_density_has_the_mass_and_the_moments_of_the_spectrum():
    pytest.importorskip("hessian_eigenthings")
    model = nets.Linear(nets.symmetric(SPREAD))
    found = curvature.density(model, nets.value, [torch.ones(1)], draws=40, steps=30)
    grid = torch.linspace(-5, 7, 2000)
    height, error = found.on(grid, width=0.05)
    step = float(grid[1] - grid[0])
    assert float(height.sum()) * step == pytest.approx(1.0, abs=1e-3)
    mean = float((height * grid).sum()) * step
    assert mean == pytest.approx(sum(SPREAD) / 60, abs=0.1)
    assert torch.isfinite(error).all()
    assert found.share_below(-2.0) == pytest.approx(1 / 60, abs=0.01)
    assert found.share_below(6.0) == pytest.approx(1.0)
    _, unknown = curvature.density(model, nets.value, [torch.ones(1)], draws=1, steps=5).on(grid)
    assert unknown.isnan().all()
    with pytest.raises(ValueError, match=r"width = -1\.0"):
        found.on(grid, width=-1.0)


def test_layers_are_diagonal_blocks():
    model, batches = conv(), nets.images()
    full, _ = nets.exact(model, nets.cross_entropy, batches)
    found = curvature.per_layer(model, nets.cross_entropy, batches, tol=1e-4)
    assert list(found) == ["", "conv", "norm", "head"]
    assert found[""].largest[0].value == 0.0  # the unused parameter alone
    # named_parameters() lists the model's own first: unused (3), conv (27 + 3), norm (3 + 3), head (192 + 4)
    for layer, (low, high) in {"conv": (3, 33), "norm": (33, 39), "head": (39, 235)}.items():
        want = torch.linalg.eigvalsh(full[low:high, low:high])
        assert found[layer].largest[0].value == pytest.approx(float(want[-1]), abs=CLOSE)
        assert found[layer].smallest[0].value == pytest.approx(float(want[0]), abs=CLOSE)


def test_any_batch_structure():
    model = nn.Linear(3, 2)
    x, y = torch.randn(8, 3), torch.randint(0, 2, (8,))

    def loss_fn(model, batch):
        return F.cross_entropy(model(batch["inputs"]["x"]), batch["labels"][0])

    nested = [{"inputs": {"x": x[i : i + 4]}, "labels": [y[i : i + 4]], "note": "text"} for i in (0, 4)]
    found = curvature.extreme_eigenvalues(model, loss_fn, nested, dtype=torch.float64)
    plain = curvature.extreme_eigenvalues(model, nets.cross_entropy, [(x, y)], dtype=torch.float64)
    assert found.largest[0].value == pytest.approx(plain.largest[0].value, rel=1e-9)


def test_differences_agree_and_their_error_is_stated():
    model, batches = conv(), nets.images()
    exact = curvature.extreme_eigenvalues(model, nets.cross_entropy, batches, tol=1e-3)
    close = curvature.extreme_eigenvalues(model, nets.cross_entropy, batches, tol=1e-3, hvp="difference")
    pair = close.largest[0]
    assert exact.largest[0].error is None
    assert 0 < pair.error < 0.01 * pair.value
    assert abs(pair.value - exact.largest[0].value) <= 2 * pair.error + pair.residual
    with pytest.warns(UserWarning, match=r"did not reach tol = 0.001: .* is exact to .* only; its products are too"):
        wide = curvature.extreme_eigenvalues(model, nets.cross_entropy, batches, tol=1e-3, hvp="difference", step=0.3)
    assert close.converged
    assert not wide.converged
    assert wide.largest[0].error > 10 * pair.error
    trace = curvature.trace(model, nets.cross_entropy, batches, draws=4, hvp="difference")
    assert trace.value == pytest.approx(curvature.trace(model, nets.cross_entropy, batches, draws=4).value, rel=0.01)
