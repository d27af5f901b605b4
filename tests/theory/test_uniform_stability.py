"""Bounds of uniform stability against pairs of real runs on neighbouring data sets: ridge regression and logistic."""

import math

import pytest
import torch

import fenland
from fenland import theory
from fenland.lab.replicas import FromFunction, Quadratic, grid, run

SAMPLES, SIZE, STEPS, PAIRS = 40, 4, 40, 2
RIDGE = 0.1  # mu
METHODS = ("SGD", "USAM", "SAM", "SSAM-U", "SSAM")
SETTINGS = ((0.05, 0.02), (0.3, 0.3), (1.0, 0.1))  # (lr, rho)


def data(seed=0):
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(SAMPLES + 1, SIZE, generator=draws, dtype=torch.float64)
    x = x / x.norm(dim=1, keepdim=True)
    y = torch.sign(x @ torch.ones(SIZE, dtype=torch.float64) + 0.3 * torch.randn(SAMPLES + 1, generator=draws))
    return x, y


def squared(w, x, y):
    return ((x @ w - y) ** 2).mean() / 2 + RIDGE * (w * w).sum() / 2


def logistic(w, x, y):
    return torch.nn.functional.softplus(-y * (x @ w)).mean() + RIDGE * (w * w).sum() / 2


def steepest(loss, w, x, y):
    """The largest gradient norm of one example; the loss of one is a function of x_i w."""
    out = x @ w
    slope = out - y if loss is squared else -y * torch.sigmoid(-y * out)
    return (slope[:, None] * x + RIDGE * w).norm(dim=1).max().item()


def optimizer(w, lr, rho, method):
    sgd = torch.optim.SGD([w], lr=lr)
    if method == "SGD":
        return sgd
    if method.startswith("SSAM"):
        return fenland.SSAM(sgd, rho=rho, normalize=method == "SSAM")
    return {"USAM": fenland.USAM, "SAM": fenland.SAM}[method](sgd, rho=rho)


def trained(loss, x, y, batches, lr, rho, method, seen):
    """w at the end; every gradient norm that was met, of single examples at all points of evaluation, goes to seen."""
    w = torch.nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))
    opt = optimizer(w, lr, rho, method)
    for batch in batches:

        def closure(batch=batch):
            opt.zero_grad()
            value = loss(w, x[batch], y[batch])
            value.backward()
            seen["each"].append(steepest(loss, w.detach(), x, y))
            seen["batch"].append(w.grad.norm().item())
            return value

        opt.step(closure)
    return w.detach()


def pair(loss, lr, rho, method, size):
    """(mean distance, mean largest change of a loss, L, least ||g||) of runs that differ in one example."""
    x, y = data()
    other_x, other_y = x.clone(), y.clone()
    other_x[0], other_y[0] = -x[SAMPLES], y[SAMPLES]
    seen = {"each": [], "batch": []}
    distances, changes = [], []
    for k in range(PAIRS):
        draws = torch.Generator().manual_seed(k)
        batches = [torch.randperm(SAMPLES, generator=draws)[:size] for _ in range(STEPS)]
        one = trained(loss, x[:SAMPLES], y[:SAMPLES], batches, lr, rho, method, seen)
        two = trained(loss, other_x[:SAMPLES], other_y[:SAMPLES], batches, lr, rho, method, seen)
        distances.append((one - two).norm().item())
        gaps = [loss(one, x[i : i + 1], y[i : i + 1]) - loss(two, x[i : i + 1], y[i : i + 1]) for i in range(SAMPLES)]
        changes.append(max(abs(gap.item()) for gap in gaps))
    return sum(distances) / PAIRS, sum(changes) / PAIRS, max(seen["each"]), min(seen["batch"])


@pytest.mark.parametrize("size", [8, SAMPLES])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("loss", "beta", "hessian"),
    [(squared, 1 + RIDGE, 0.0), (logistic, 0.25 + RIDGE, 1 / (6 * math.sqrt(3)))],
    ids=["ridge", "logistic"],
)
def test_the_bound_lies_above_pairs_of_runs(loss, beta, hessian, method, size):
    """|x| = 1, so the Hessians s*x x^T + mu have s = 1, or s <= 1/4 with slope |s'| <= 1/(6*sqrt(3))."""
    ratios = []
    for lr, rho in SETTINGS:
        if method == "SSAM" and hessian:  # no bound, whatever the runs do
            known = theory.Smoothness(1.0, beta, RIDGE, hessian, gradient_floor=0.1)
            with pytest.raises(ValueError, match="quadratics"):
                theory.distance_bound(lr, STEPS, SAMPLES, rho, method, known, size)
            continue
        distance, change, lipschitz, floor = pair(loss, lr, rho, method, size)
        known = theory.Smoothness(lipschitz, beta, RIDGE, hessian, gradient_floor=floor)
        bound = theory.distance_bound(lr, STEPS, SAMPLES, rho, method, known, size)
        assert 0 < distance <= bound
        assert change <= theory.stability_bound(lr, STEPS, SAMPLES, rho, method, known, size)
        ratios.append(bound / distance)
    if ratios:
        assert ratios[0] < 8, ratios
    if loss is logistic and method in ("SGD", "USAM", "SSAM-U"):
        assert max(ratios) < 12, ratios  # not vacuous


def test_the_map_expands_no_more_than_stated():
    """Random pairs of points on random quadratics: the worst stretch of one real step stays below q."""
    draws = torch.Generator().manual_seed(4)
    for rho in (0.2, 1.0):
        for lr in (0.1, 0.8, 1.5):
            rows = torch.randn(200, 2, 3, generator=draws, dtype=torch.float64)
            rows[:, 1] = rows[:, 0] + 0.1 * rows[:, 1]  # near each other, where d bends most
            floor = (rows * torch.tensor([1.0, 0.4, 0.2], dtype=torch.float64)).norm(dim=2).min().item()
            known = theory.Smoothness(1.0, 1.0, 0.2, hessian=0.0, gradient_floor=floor)
            for method in METHODS:
                worst = stretch(rows, Quadratic((1.0, 0.4, 0.2)), lr, rho, method)
                assert worst <= theory.expansivity(lr, rho, method, known) + 1e-9, (method, lr, rho)


def close_pairs(base):
    """Pairs a hair apart, in random directions."""
    aside = torch.randn(base.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return torch.stack([base, base + 1e-5 * aside], 1)


@pytest.mark.parametrize("method", ["SSAM-U", "SSAM"])
def test_stable_sam_does_expand_some_pairs_and_no_more_than_stated(method):
    """Gradients of length 1 in all directions of a quadratic of eigenvalues 1, 0.05: 9 % apart a step at lr 0.1."""
    angle = torch.linspace(0, 2 * math.pi, 4001, dtype=torch.float64)
    rows = close_pairs(torch.stack([angle.cos(), angle.sin() / 0.05], 1))
    known = theory.Smoothness(1.0, 1.0, 0.05, hessian=0.0, gradient_floor=0.999)
    worst = stretch(rows, Quadratic((1.0, 0.05)), 0.1, 20.0, method)
    assert 1.08 < worst <= theory.expansivity(0.1, 20.0, method, known) < 1.7


def test_usam_where_curvature_changes_along_the_ascent():
    """f = cos w, Hessian in [-1, 1] with slope 1: neighbours part faster than the curvature at w says."""
    problem = FromFunction(lambda w: torch.cos(w[0]).sum(), ((1,),))
    rows = close_pairs(torch.linspace(0, 2 * math.pi, 4001, dtype=torch.float64)[:, None])
    for rho in (0.2, 2.0):
        known = theory.Smoothness(1.0, 1.0, -1.0, hessian=1.0)
        worst = stretch(rows, problem, 0.1, rho, "USAM")
        assert worst <= theory.expansivity(0.1, rho, "USAM", known) + 1e-6
        assert rho < 1 or worst > 1.15


def stretch(rows, problem, lr, rho, method):
    """max |G(w) - G(w')| / |w - w'| of one step of replicas."""
    after = run(problem, method, grid(problem.pack(rows.flatten(0, 1)), rho=rho, lr=lr), 1).w
    moved = problem.unpack(after).reshape(rows.shape)
    return ((moved[:, 0] - moved[:, 1]).norm(dim=1) / (rows[:, 0] - rows[:, 1]).norm(dim=1)).max().item()


def test_usam_is_sharp_on_quadratics_and_its_range_is_the_narrower():
    known = theory.Smoothness(1.0, 2.0, 0.5, hessian=0.0)
    for lr in (0.1, 0.5, 0.9):
        along = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)
        worst = stretch(along, Quadratic((2.0, 0.5)), lr, 0.3, "USAM")
        assert worst == pytest.approx(theory.expansivity(lr, 0.3, "USAM", known))
    edge = 2 / (2.0 * (1 + 0.3 * 2.0))
    for part, expands in ((0.999, False), (1.001, True)):
        assert (theory.expansivity(part * edge, 0.3, "USAM", known) > 1) == expands
        assert theory.expansivity(part * edge, 0.3, "SGD", known) <= 1


def test_special_cases_are_those_of_hardt_et_al():
    convex = theory.Smoothness(3.0, 2.0)
    assert theory.stability_bound(0.5, 100, 1000, 0.0, "SGD", convex) == pytest.approx(2 * 9 * 0.5 * 100 / 1000)
    decaying = [1 / (t + 1) for t in range(50)]
    assert theory.stability_bound(decaying, 50, 10, 0.0, "SGD", convex) == pytest.approx(2 * 9 * sum(decaying) / 10)
    strong = theory.Smoothness(3.0, 2.0, 0.5)
    late = theory.stability_bound(0.5, 10**4, 1000, 0.0, "SGD", strong)
    assert late == pytest.approx(2 * 9 / (0.5 * 1000))
    unknown = theory.Smoothness(3.0, 2.0, -2.0)
    assert theory.expansivity(0.1, 0.0, "SGD", unknown) == pytest.approx(1 + 0.1 * 2)
    assert theory.expansivity(0.1, 0.3, "USAM", unknown) == pytest.approx(1 + 0.1 * 2 * 1.6)
    # rho = 0 is SGD for all, and without a floor SAM's bound does not fall with n
    assert len({theory.expansivity(0.1, 0.0, m, strong) for m in METHODS}) == 1
    far = [theory.distance_bound(0.1, 20, n, 0.1, "SAM", strong) for n in (10**6, 10**9)]
    assert far[0] == pytest.approx(far[1], rel=1e-3)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="convexity"):
        theory.Smoothness(1.0, 1.0, 2.0)
    with pytest.raises(ValueError, match="lipschitz"):
        theory.Smoothness(0.0, 1.0)
    with pytest.raises(ValueError, match="SSAM"):
        theory.expansivity(0.1, 0.1, "SSAM", theory.Smoothness(1.0, 1.0))
    with pytest.raises(ValueError, match="h may vanish"):
        theory.expansivity(0.1, 2.0, "SSAM-U", theory.Smoothness(1.0, 1.0, -1.0))
    with pytest.raises(ValueError, match="3 learning rates for steps = 4"):
        theory.distance_bound([0.1] * 3, 4, 10, 0.1, "SGD", theory.Smoothness(1.0, 1.0))
