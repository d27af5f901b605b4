"""The study `attractor`: its functions, the capture thresholds, and verdicts that can fail."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from bare import Lab

from fenland.lab.errors import BadInput
from fenland.lab.replicas.capture import ENDS, basins, classify, regions, stages, thresholds
from fenland.lab.replicas.plane import Himmelblau, field, flow, gradient, hessian
from fenland.lab.studies import find
from fenland.lab.studies.attractor import Config, radii, strongest
from fenland.lab.study.words import share

SCENES = stages(1.0, 0.25)
SADDLE, MINIMUM = ENDS.index("saddle"), ENDS.index("minimum")


def _points(seed=0, count=50):
    return 4 * torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 2


def test_himmelblau_has_its_gradient_and_its_nine_critical_points():
    problem, points = Himmelblau(), _points().requires_grad_()
    (exact,) = torch.autograd.grad(problem.value(list(points.unbind(1))).sum(), points)
    torch.testing.assert_close(gradient(problem, points.detach()), exact)
    stage = SCENES["himmelblau"]
    assert len(stage.minima) == 4
    assert len(stage.saddles) == 4
    assert (stage.minima[0].x, stage.minima[0].y) == pytest.approx((3.0, 2.0), abs=1e-9)


@pytest.mark.parametrize("name", SCENES)
def test_critical_points_have_no_gradient_and_the_eigenvalues_they_say(name):
    for p in SCENES[name].critical:
        at = torch.tensor([[p.x, p.y]], dtype=torch.float64)
        assert gradient(SCENES[name].problem, at).norm() < 1e-8
        down = torch.tensor(p.down, dtype=torch.float64)
        assert (hessian(SCENES[name].problem, at)[0] @ down - p.least * down).norm() < 1e-4
    if name == "beale":
        assert SCENES[name].saddles[0].least == pytest.approx(-27.75, abs=1e-6)


def test_the_field_is_minus_the_optimizers_direction():
    problem, points = SCENES["beale"].problem, _points()
    torch.testing.assert_close(field(problem, "SGD", points, 0.0), -gradient(problem, points))
    g = gradient(problem, points)
    torch.testing.assert_close(field(problem, "USAM", points, 0.01), -gradient(problem, points + 0.01 * g))
    unit = g / g.norm(dim=1, keepdim=True)
    torch.testing.assert_close(field(problem, "SAM", points, 0.1), -gradient(problem, points + 0.1 * unit))
    length = field(problem, "SSAM", points, 0.1).norm(dim=1)
    torch.testing.assert_close(length, g.norm(dim=1))


def test_the_flow_of_a_quadratic_saddle_is_exponential():
    stage = stages(1.0, 1e-12)["saddle"]
    path = flow(stage.problem, "USAM", torch.tensor([[0.3, 1e-3]], dtype=torch.float64), 0.2, 0.05, 20)
    x, y = path[-1][0].tolist()
    assert x == pytest.approx(0.3 * torch.tensor(-2 * 1.4).exp().item(), rel=1e-4)  # l*(1 + rho*l), l = 2
    assert y == pytest.approx(1e-3 * torch.tensor(2 * 0.6).exp().item(), rel=1e-5)


@pytest.mark.parametrize("how", ["flow", "steps"])
def test_capture_turns_at_the_threshold(how):
    for method in ("USAM", "SSAM-U"):
        found = thresholds(SCENES["beale"], method, (0.9, 1.1), 5, how, 0)
        assert found["captured"].tolist() == [0, 5]
    rows = regions(SCENES["beale"], "SAM", (0.9, 1.1), 5, how, 0)
    assert rows[rows["where"] == "descending"]["captured"].tolist() == [2, 0]
    assert rows[(rows["where"] == "around") & (rows["ratio"] < 1)]["captured"].tolist() == [5]


def test_ends_are_told_apart():
    stage = SCENES["himmelblau"]
    saddle, minimum = stage.saddles[0], stage.minima[0]
    points = torch.tensor([[saddle.x, saddle.y], [minimum.x, minimum.y], [0.0, 0.0]], dtype=torch.float64)
    assert [ENDS[i] for i in classify(stage, points)] == ["saddle", "minimum", "elsewhere"]
    found = basins(SCENES["saddle"], "USAM", [0.25, 0.8], 6)
    assert (found[found["rho"] == 0.25]["end"] == MINIMUM).all()
    assert (found[found["rho"] == 0.8]["end"] == SADDLE).any()


def _near(inside=100, outside=0):
    rows = []
    for method in ("USAM", "SSAM-U", "SAM", "SSAM"):
        for how in ("flow", "steps"):
            for where in ("around", "descending"):
                for ratio, captured in ((0.9, outside), (1.1, inside)):
                    held = captured if method in ("USAM", "SSAM-U") else 100 - captured
                    rows.append([method, how, where, ratio, held])
    table = pd.DataFrame(rows, columns=["method", "how", "where", "ratio", "captured"])
    return table.assign(saddle=0, starts=100, function="beale", strength=27.75, rho=0.1)


def _ends(saddle_below=False, lost=False, config=None):
    rows = []
    config = config or Config()
    for name, stage in SCENES.items():
        for method in ("SGD", "USAM", "SSAM-U", "SAM", "SSAM"):
            for rho in radii(config, stage, method):
                past = rho * strongest(stage) > 1 if method.endswith("U") or method == "USAM" else rho > 0.02 * 10
                for i in range(40):
                    held = method != "SGD" and (past or saddle_below) and i < 20 and not lost
                    rows.append([name, method, rho, float(i), 0.0, SADDLE if held else MINIMUM])
    return pd.DataFrame(rows, columns=["function", "method", "rho", "x", "y", "end"])


def _verdicts(near, ends, config):
    split = near["method"].isin(["USAM", "SSAM-U"])
    return find("attractor").judge(config, {"thresholds": near[split], "regions": near[~split], "basins": ends})


def _judged(near, ends):
    return {v.claim: v.holds for v in _verdicts(near, ends, Config())}


def test_doctored_tables_flip_the_verdicts():
    good = _judged(_near(), _ends())
    held = {claim for claim, holds in good.items() if holds}
    assert len(held) == 10  # the whole region too: nothing is held beyond it in these tables
    assert not any(_judged(_near(outside=5), _ends())[c] for c in held if "only if" in c or "With" in c)
    assert not any(_judged(_near(inside=50), _ends())[c] for c in held if "only if" in c or "g||" in c)
    below = _judged(_near(), _ends(saddle_below=True))
    assert not any(below[c] for c in held if "whole box" in c)
    lost = _judged(_near(), _ends(lost=True))
    assert not any(lost[c] for c in held if "Beale" in c or "whole box" in c or "no threshold" in c)


def test_a_box_is_judged_up_to_where_runs_are_long_enough():
    """Just below the threshold a run ends before it has left the saddle: that is told, and decides nothing."""
    config = replace(Config(), ratios=(0.5, 0.95, 1.2, 2.0))
    ends = _ends(config=config)
    ratio = ends["rho"] * ends["function"].map({name: strongest(stage) for name, stage in SCENES.items()})
    slow = ends["method"].isin(["USAM", "SSAM-U"]) & (ends["x"] < 5) & ratio.between(0.91, 0.99)
    assert slow.any()
    ends.loc[slow, "end"] = SADDLE
    (box,) = (v for v in _verdicts(_near(), ends, config) if "whole box" in v.claim)
    assert box.holds
    assert "between it and the threshold at most 12.5 %" in box.measured


def test_shares_have_wilsons_interval():
    found = share(0, 100)
    assert found.low == 0
    assert found.high == pytest.approx(0.0370, abs=1e-4)
    half = share(50, 100)
    assert (half.low, half.high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    with pytest.raises(ValueError, match="hits"):
        share(3, 2)


@pytest.mark.parametrize("files", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_study_runs_and_draws(tmp_path, files):
    from fenland.lab.figures import inline_svg, save_files

    study = find("attractor")
    config = Config(functions=("saddle",), count=8, ratios=(0.9, 2.0), radii=(0.1,), near=(0.9, 1.1), circle=4)
    tables = study.runs(config, Lab())
    holds = {v.claim: v.holds for v in study.judge(config, tables)}
    assert all(v for c, v in holds.items() if "only if" in c or "whole box" in c)
    for drawn in study.draw(config, tables):
        if files:
            assert all(path.stat().st_size > 5000 for path in save_files(drawn, list(drawn.labels), tmp_path))
        assert inline_svg(drawn, list(drawn.labels)).startswith("<svg")


def test_bad_settings_are_named():
    with pytest.raises(BadInput, match="ratios"):
        Config(ratios=(0.5, 0.9))
    with pytest.raises(BadInput, match=r"ratios.*up to 0\.9"):
        Config(ratios=(0.95, 2.0))
    with pytest.raises(BadInput, match="m, k"):
        Config(k=0.0)
    with pytest.raises(BadInput, match="functions"):
        Config(functions=("ackley",))
