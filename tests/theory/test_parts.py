"""The parts of the closed forms: SGD's step as a matrix, its roots, and how far one example reaches."""

import itertools
import math

import numpy as np
import pytest
import torch

from fenland import theory

BASES = [*itertools.product((0.0, 0.5, 0.9), (False, True), (0.0,)), (0.5, False, 0.3)]


@pytest.mark.parametrize(("momentum", "nesterov", "dampening"), [b for b in BASES if not (b[1] and b[0] == 0)])
def test_the_companion_is_torch_s_step(momentum, nesterov, dampening):
    a, lr = 0.4, 0.3
    matrix = np.array(theory.companion(a, lr, momentum, nesterov, dampening))
    w = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    opt = torch.optim.SGD([w], lr=lr, momentum=momentum, nesterov=nesterov, dampening=dampening)
    way = [w.item()]
    for _ in range(12):
        opt.zero_grad()
        (0.5 * a * w * w).backward()
        opt.step()
        way.append(w.item())
    # Two steps fix the state (w, v); torch's first step takes no dampening, so the recursion is compared from there on.
    trace, determinant = np.trace(matrix), np.linalg.det(matrix)
    for before, now, after in zip(way[1:], way[2:], way[3:], strict=False):
        assert after == pytest.approx(trace * now - determinant * before, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("a", [0.1, 0.4, 3.0])
def test_the_roots_are_the_companion_s_eigenvalues(a):
    matrix = np.array(theory.companion(a, 0.3, 0.9, True))
    wanted = np.sort_complex(np.linalg.eigvals(matrix))
    found = np.sort_complex(np.array(theory.roots(a, 0.3, 0.9, True)))
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_one_example_reaches_further_through_the_ascent():
    """On L_i = |A_i w - b_i|^2 / 2, the change of d by one example against that of g: at most `spill` times."""
    generator = torch.Generator().manual_seed(0)
    known = theory.Smoothness(lipschitz=1.0, smoothness=4.0)
    assert theory.spill(0.1, "SGD", known, batch=8) == 1
    assert theory.spill(0.0, "USAM", known, batch=8) == 1
    assert theory.spill(0.1, "USAM", known, batch=8) == pytest.approx(1.4)
    assert theory.spill(100.0, "USAM", known, batch=8) == 8, "never more than the whole batch"
    worst = 0.0
    for _ in range(200):
        hessian = torch.diag(4 * torch.rand(3, generator=generator, dtype=torch.float64))  # beta = 4
        g, other = torch.randn(2, 3, generator=generator, dtype=torch.float64)
        d, moved = (x + 0.1 * hessian @ x for x in (g, other))
        worst = max(worst, float((d - moved).norm() / (g - other).norm()))
    assert 1.2 < worst <= theory.spill(0.1, "USAM", known, batch=8)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: theory.gamma_bounds([1.0, math.nan], 0.1), "eigenvalues = nan"),
        (lambda: theory.gamma_normalized(0.0, 0.0), "distance = 0 with rho = 0"),
        (lambda: theory.gamma_normalized(-1.0, 0.1), r"distance = -1\.0"),
        (lambda: theory.best_lr([1.0, math.nan]), "eigenvalues = nan"),
        (lambda: theory.cycle_amplitude(1.0, 0.1, -1.0), r"rho = -1\.0"),
        (lambda: theory.capture_band(1.0, 0.1, -1.0), r"rho = -1\.0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
