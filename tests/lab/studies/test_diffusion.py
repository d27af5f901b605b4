"""The study `diffusion`: paths against the closed form, exponents of known curves, and verdicts that can fail."""

import numpy as np
import pandas as pd
import pytest
import torch
from bare import Lab

from fenland.lab.errors import BadInput
from fenland.lab.replicas.walks import GROUPS, Walk, data, optimizer, replicas
from fenland.lab.store.statistics import interval
from fenland.lab.studies import find
from fenland.lab.studies.diffusion import Config
from fenland.lab.study.fits import exponent, fits, gap
from fenland.theory.diffusion import displacement

SMALL = Config(steps=40, lr=0.025, paths=2000, rhos=(0.2,), batches=(4,), samples=256)


@pytest.fixture(scope="module")
def study():
    return find("diffusion")


@pytest.fixture(scope="module")
def tables(study):
    return study.runs(SMALL, Lab())


def _verdict(study, tables, words, config=SMALL):
    (found,) = (v for v in study.judge(config, tables) if words in v.claim)
    return found


def test_the_data_have_the_curvature_and_noise_they_say():
    for inputs in ("signs", "normal"):
        a, b = data(inputs, 2.0, 500, seed=3)
        assert a.square().mean() == pytest.approx(2.0)
        assert (a * b).mean() == pytest.approx(0.0, abs=1e-12)
        assert (a * b).square().mean() == pytest.approx(2.0)
    assert torch.unique(data("signs", 2.0, 500, 3)[0].abs()).numel() == 1


def test_the_optimizer_on_mini_batches_follows_the_closed_form_of_shared_noise():
    walk = Walk(2.0, 0.01, 40, 40, 20_000)
    curve = optimizer(walk, "signs", 0.2, 8, 512)
    for curvature in (2.0, -2.0):
        found = interval(curve[(curve["curvature"] == curvature) & (curve["step"] == 40)]["msd"])
        exact = displacement(curvature, 0.01, 0.2, (2.0 / 8) ** 0.5, 40, "shared")
        assert found.mean == pytest.approx(exact, rel=0.04)
        assert abs(displacement(curvature, 0.01, 0.2, (2.0 / 8) ** 0.5, 40, "descent") / exact - 1) > 0.3  # told apart


def test_rho_zero_is_the_same_path_as_sgd_in_both_engines():
    walk = Walk(1.0, 0.05, 10, 5, 100)
    pd.testing.assert_frame_equal(
        replicas(walk, "SGD", "shared", 0.0, 4), replicas(walk, "USAM", "shared", 0.0, 4), check_exact=False
    )


def _invented(power, drift, rho=0.2, m=1.0):
    """Exact curves of noise (1 + rho*l)^power and drift l*(1 + rho*l)^drift, some noise between groups."""
    t, rows = np.arange(0, 41) * 0.025, []
    for method, r in (("SGD", 0.0), ("USAM", rho)):
        stretch = 1 - r * m
        a, c = -m * stretch**drift, 0.01 * stretch**power
        for group in range(GROUPS):
            msd = c * (1 + 0.01 * group) * -np.expm1(-2 * a * t) / (2 * a)
            rows.append(pd.DataFrame({"step": range(41), "msd": msd, "group": group, "method": method, "rho": r}))
    return pd.concat(rows).assign(source="optimizer signs", batch=4, curvature=-m)


@pytest.mark.parametrize(("power", "drift"), [(2, 1), (1, 1), (0, 1)])
def test_the_fit_finds_the_powers_of_known_curves(power, drift):
    fitted = fits(_invented(power, drift), 0.025)
    args = (fitted, "optimizer signs", 0.2, 4, -1.0)
    assert exponent(*args, "linear").mean == pytest.approx(power, abs=1e-6)
    assert exponent(*args, "drift").mean == pytest.approx(drift, abs=1e-6)
    assert exponent(*args, "quadratic").mean == pytest.approx(power + drift, abs=1e-6)
    scale = interval(1 + 0.01 * np.arange(GROUPS)).mean * 0.01
    assert gap(*args, 0.025).mean == pytest.approx(scale * (1 - 0.8 ** (power + drift)) * 4 / (0.025 * 0.2), rel=1e-6)


def test_a_small_run_tells_the_models_apart(study, tables):
    assert _verdict(study, tables, "shared noise model").holds
    assert _verdict(study, tables, "closed form").holds
    assert not _verdict(study, tables, "2*eta*t^2").holds
    assert not _verdict(study, tables, "One of the three").holds
    assert all(v.holds for v in study.judge(SMALL, tables) if "smaller than SGD" in v.claim)


def test_doctored_tables_flip_the_verdicts(study, tables):
    fitted = fits(_invented(1, 1), 0.025)  # what the published factor would need
    noisy = fitted.assign(quadratic=fitted["quadratic"] * (1 + 1e-3 * np.sin(np.arange(len(fitted)))))
    rest = tables["fits"][tables["fits"]["source"] != "optimizer signs"]
    doctored = tables | {"fits": pd.concat([rest, noisy])}
    assert _verdict(study, doctored, "2*eta*t^2").holds
    assert not _verdict(study, doctored, "shared noise model").holds
    last = tables["last"]
    faster = last.assign(msd=last["msd"].where(last["method"] == "SGD", 3 * last["msd"] + 1))
    assert not any(v.holds for v in study.judge(SMALL, tables | {"last": faster}) if "smaller than SGD" in v.claim)
    assert not _verdict(study, tables | {"last": faster}, "SSAM diffuses").holds
    means = tables["means"]
    assert not _verdict(study, tables | {"means": means.assign(mean=1.2 * means["mean"])}, "closed form").holds


@pytest.mark.parametrize("files", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_draws(study, tables, tmp_path, files):
    from fenland.lab.figures import inline_svg, save_files

    for drawn in study.draw(SMALL, tables):
        if files:
            assert all(path.stat().st_size > 5000 for path in save_files(drawn, list(drawn.labels), tmp_path))
        assert "nan" not in drawn.description
        assert inline_svg(drawn, list(drawn.labels)).startswith("<svg")


def test_bad_settings_are_named():
    with pytest.raises(BadInput, match="paths"):
        Config(paths=30)
    with pytest.raises(BadInput, match="rhos"):
        Config(rhos=(1.5,))
