"""What the explorer measures: real steps, shares that mean something, limits where theory has them."""

import math

import pytest
import torch
from explored import BY_NAME, SMALL
from stepping import stepped

from fenland.lab.explore import cells as kept
from fenland.lab.explore import predicted
from fenland.lab.explore.cells import cells
from fenland.lab.explore.landscapes import LANDSCAPES, MOMENTA
from fenland.lab.explore.measure import METHODS, SHOWN, STARTS, trajectories

SADDLE, QUADRATIC = SMALL


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("landscape", "lr", "momentum", "start"), [(SADDLE, 1, 1, 0), (QUADRATIC, 0, 0, 3)])
def test_a_trajectory_is_the_optimizers_own(measured, landscape, method, lr, momentum, start):
    found = measured[landscape.name, method]
    for r, rho in enumerate(landscape.radii if method != "SGD" else (0.0,)):
        path, ascent = stepped(
            landscape.name, method, landscape.starts[start], rho, landscape.rates[lr], MOMENTA[momentum], SHOWN + 1
        )
        # Far outside of what the page stores, rounding grows with everything else.
        gone = next((t for t, (x, y) in enumerate(path) if not x * x + y * y < 100), SHOWN + 1)
        assert gone > 5
        whole = torch.tensor([path, ascent], dtype=torch.float64)[:, :gone]
        torch.testing.assert_close(found.path[r, lr, momentum, start, :gone], whole[0], rtol=1e-6, atol=1e-6)
        if method == "SGD":
            assert found.ascent is None
        else:
            torch.testing.assert_close(found.ascent[r, lr, momentum, start, :gone], whole[1], rtol=1e-6, atol=1e-6)


def test_the_normalised_ascent_is_rho_away_and_the_other_comes_closer():
    for method, equal in (("SAM", True), ("USAM", False)):
        path, ascent = trajectories(SADDLE, method, SADDLE.radii)
        away = torch.linalg.vector_norm(ascent - path, dim=-1)[:, 0, 0, 0]
        assert bool((away[1] - 0.6).abs().max() < 1e-12) is equal


def test_shares_and_distances_are_those_of_the_optimizer(measured):
    """A quadratic past its limit loses every start; below it SGD brings each to rest."""
    found = measured["quadratic", "SGD"]
    assert STARTS >= 500
    assert found.success[0, :, 0].tolist()[-1] == 0.0
    assert found.distance[0, -1, 0] > 100
    # After 60 steps at 0.19 the slow mode is at 0.81^60 of its start, the steep one at 0.9^60.
    assert found.success[0, 1, 0] == 1.0
    assert 0 < found.distance[0, 1, 0] < 0.9**60 * 1.5


def test_simulated_limits_on_a_quadratic_are_the_predicted_ones(measured):
    for method in METHODS:
        simulated = measured["quadratic", method].limit
        theory = torch.tensor(predicted.limits(QUADRATIC, method), dtype=torch.float64)
        assert simulated.shape == theory.shape == (1 if method == "SGD" else 2, 3)
        assert ((simulated / theory - 1).abs() < 0.025).all(), (method, simulated, theory)
    usam = predicted.limits(QUADRATIC, "USAM")
    assert usam[1][0] == pytest.approx(2 / (10 * (1 + 0.3 * 10)))
    assert usam[1][2] == pytest.approx(2 * 1.9 / (10 * (1 + 0.3 * 10)))


def test_sam_ends_at_the_amplitude_of_its_cycle(measured):
    amplitude = predicted.amplitudes(QUADRATIC)
    assert amplitude[1][1][0] == pytest.approx(0.19 * 10 * 0.3 / (2 - 1.9))
    assert math.isnan(amplitude[1][2][0])
    ends = measured["quadratic", "SAM"].distance
    assert ends[0, 0, 0] == pytest.approx(amplitude[0][0][0], rel=0.1)
    assert measured["quadratic", "SSAM"].distance[0, 1, 0] < 0.01 < ends[0, 1, 0]


def test_the_saddle_holds_the_unnormalised_ascent_past_rho_m_1(measured):
    assert predicted.saddle_strength(SADDLE) == pytest.approx(2)
    for method in ("USAM", "SSAM-U"):
        assert predicted.capture(SADDLE, method) == [False, True]
        assert measured["saddle", method].held[:, 0, 0].tolist() == [0.0, 1.0]
    assert predicted.capture(SADDLE, "SGD") == [False]
    assert measured["saddle", "SGD"].held[0, 0, 0] == 0.0
    assert predicted.capture(SADDLE, "SAM") == [True, True]
    assert (measured["saddle", "SAM"].held[:, 0, 0] > 0.9).all()
    assert measured["quadratic", "USAM"].held is None


def test_every_landscape_has_its_minima_where_it_says_and_starts_in_its_window():
    for each in LANDSCAPES:
        for point in each.minima + ((each.saddle,) if each.saddle else ()):
            slope = each.problem.gradient(each.problem.pack(torch.tensor([point], dtype=torch.float64)))
            assert torch.cat(slope).abs().max() < 1e-12, each.name
        assert all(each.curvatures(point)[0] > 0 for point in each.minima)
        assert each.saddle is None or each.curvatures(each.saddle)[0] < 0 < each.curvatures(each.saddle)[1]
        x0, x1, y0, y1 = each.window
        assert all(x0 < x < x1 and y0 < y < y1 for x, y in each.starts)
    assert BY_NAME["quartic"].curvatures((1.0, 1.0))[1] == pytest.approx(2 + math.sqrt(2))


def test_a_cell_is_measured_once_and_again_where_it_is_broken(measured, cache, monkeypatch):
    def never(*arguments):
        raise AssertionError("measured twice")

    monkeypatch.setattr(kept, "measure", never)
    told = []
    again = cells(SMALL, lambda *words: told.append(words))
    assert torch.equal(again["saddle", "SAM"].path, measured["saddle", "SAM"].path)
    assert again["quadratic", "SGD"].held is None
    assert told[0][1] == 0
    assert told[-1][1] == told[-1][2]
    (path,) = cache.glob("explorer-saddle-USAM-*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AssertionError, match="measured twice"):
        cells(SMALL, lambda *words: None)
    monkeypatch.undo()
    torch.testing.assert_close(
        cells(SMALL, lambda *words: None)["saddle", "USAM"].limit, measured["saddle", "USAM"].limit, rtol=0, atol=0
    )
    assert kept._read(path) is not None
