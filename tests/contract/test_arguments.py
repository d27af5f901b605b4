"""Bad arguments are refused at once with their name, their value and what is allowed."""

import math
import re

import pytest
import torch
from torch.optim import LBFGS, SGD

import fenland
from harness import BASES, every_variant, make


def params():
    return [torch.nn.Parameter(torch.ones(3, dtype=torch.float64))]


def build(**options):
    return fenland.SharpnessAware(SGD(params(), lr=0.1), **options)


BAD_VALUES = [
    ("rho", -0.1),
    ("rho", math.nan),
    ("rho", math.inf),
    ("max_norm", 0.0),
    ("max_norm", -1.0),
    ("max_norm", math.nan),
    ("nonfinite", "ignore"),
    ("sync", "everywhere"),
    ("perturb", "fly"),
    ("record_every", 0),
    ("record_every", -3),
]
BAD_TYPES = [
    ("rho", "0.05"),
    ("rho", None),
    ("ball", "l2"),
    ("source", "gradient"),
    ("combine", "sam"),
    ("when", 3),
    ("model", "net"),
    ("max_norm", "1"),
    ("record_every", 1.5),
]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_bad_values_name_the_argument_and_the_value(name, value):
    with pytest.raises(ValueError, match=name) as caught:
        build(**{name: value})
    assert str(value) in str(caught.value) or repr(value) in str(caught.value)


@pytest.mark.parametrize(("name", "value"), BAD_TYPES)
def test_bad_types_name_the_argument_and_the_value(name, value):
    with pytest.raises((TypeError, ValueError), match=name) as caught:
        build(**{name: value})
    assert repr(value) in str(caught.value) or type(value).__name__ in str(caught.value)


@pytest.mark.parametrize("value", ["ignore", "SKIP", ""])
def test_the_allowed_choices_are_listed(value):
    with pytest.raises(ValueError, match="nonfinite") as caught:
        build(nonfinite=value)
    for allowed in ("skip", "base_step", "raise"):
        assert allowed in str(caught.value)


@pytest.mark.parametrize("rho", [-1.0, math.nan, "big"])
def test_a_bad_rho_in_a_group_is_refused(rho):
    with pytest.raises((ValueError, TypeError), match="rho"):
        fenland.SharpnessAware(SGD([{"params": params(), "rho": rho}], lr=0.1))
    opt = build()
    with pytest.raises((ValueError, TypeError), match="rho"):
        opt.add_param_group({"params": params(), "rho": rho})
    assert len(opt.param_groups) == len(opt.base.param_groups) == 1


@pytest.mark.parametrize("value", [-0.5, math.nan])
def test_a_schedule_that_turns_bad_is_refused_with_its_value(value):
    opt = build(rho=lambda step: value if step else 0.1)
    (w,) = opt.param_groups[0]["params"]

    def closure():
        opt.zero_grad()
        loss = (w**2).sum()
        loss.backward()
        return loss

    opt.step(closure)
    before = w.detach().clone()
    with pytest.raises(ValueError, match="rho"):
        opt.step(closure)
    assert torch.equal(w, before)
    with pytest.raises(ValueError, match="rho"):
        build(rho=lambda step: value)


@every_variant
def test_lbfgs_is_refused(variant):
    """It calls its closure itself and searches along a line: two gradients a step have no meaning there."""
    with pytest.raises((TypeError, ValueError), match="LBFGS"):
        variant.build(LBFGS(params()))


@every_variant
def test_nesting_is_refused(variant):
    inner = variant.build(SGD(params(), lr=0.1))
    with pytest.raises((TypeError, ValueError), match=r"(?i)nest|SharpnessAware"):
        variant.build(inner)


@every_variant
@pytest.mark.parametrize("base", [None, "sgd", SGD, [1, 2]], ids=str)
def test_a_base_that_is_no_optimizer_is_refused(variant, base):
    with pytest.raises(TypeError, match=r"(?i)optimizer"):
        variant.build(base)


@every_variant
def test_parameters_instead_of_a_base_are_refused_with_the_cure(variant):
    """davda54's SAM takes (params, base_class); people will try it."""
    with pytest.raises(TypeError, match=r"(?i)optimizer"):
        variant.build(params())


@every_variant
def test_unknown_options_are_refused(variant):
    with pytest.raises(TypeError, match="radius"):
        variant.build(SGD(params(), lr=0.1), radius=0.1)


@pytest.mark.parametrize("cap", [0.0, -1.0, math.nan])
def test_a_bad_cap_is_refused(cap):
    with pytest.raises(ValueError, match="cap"):
        fenland.SSAM(SGD(params(), lr=0.1), cap=cap)


@pytest.mark.parametrize("rho", [0, 0.0, 1, 0.05, 10.0])
def test_good_radii_are_taken(rho):
    assert float(build(rho=rho).param_groups[0]["rho"]) == rho


def test_rho_has_foret_s_default():
    assert build().param_groups[0]["rho"] == 0.05


@every_variant
def test_rho_may_be_changed_between_steps(variant):
    session = make(variant, "mlp", rho=0.0).run(1)
    session.opt.param_groups[0]["rho"] = 0.2
    session.step(1)
    assert session.problem.pass_index == variant.passes


@every_variant
def test_the_representation_shows_the_choices_and_the_base(variant):
    text = repr(make(variant, "mlp").opt)
    assert re.search(r"rho", text)
    assert "SGD" in text


@pytest.mark.parametrize("base", list(BASES))
def test_defaults_of_the_base_are_kept(base):
    """OneCycleLR and others look for momentum or betas in `defaults`."""
    made = BASES[base](params())
    opt = fenland.SharpnessAware(made)
    for key, value in made.defaults.items():
        if key in ("momentum", "betas", "lr", "weight_decay"):
            assert opt.defaults[key] == value


def test_a_sparse_gradient_is_supported_or_named():
    table = torch.nn.Embedding(5, 3, sparse=True).double()
    opt = fenland.SAM(SGD(table.parameters(), lr=0.1), rho=0.1)
    before = table.weight.detach().clone()

    def closure():
        opt.zero_grad()
        loss = (table(torch.tensor([0, 2])) ** 2).sum()
        loss.backward()
        return loss

    try:
        opt.step(closure)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        assert "sparse" in str(error)  # noqa: PT017 - a clear refusal is one of two right answers
        assert torch.equal(table.weight, before)
        return
    rows = before[[0, 2]]
    want = before.clone()
    want[[0, 2]] -= 0.1 * 2 * (rows + 0.1 * rows / rows.norm())
    torch.testing.assert_close(table.weight.detach(), want, rtol=1e-12, atol=1e-14)
    assert not math.isnan(float(table.weight.sum()))


def test_a_complex_parameter_is_supported_or_named():
    w = torch.nn.Parameter(torch.tensor([1.0 + 2.0j, 0.5 - 1.0j], dtype=torch.complex128))
    before = w.detach().clone()
    try:
        opt = fenland.SAM(SGD([w], lr=0.1), rho=0.1)

        def closure():
            opt.zero_grad()
            loss = (w.abs() ** 4).sum()
            loss.backward()
            return loss

        opt.step(closure)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        assert "complex" in str(error)  # noqa: PT017 - a clear refusal is one of two right answers
        assert torch.equal(w.detach(), before)
        return

    def gradient(z):
        return 4 * z.abs() ** 2 * z

    g = gradient(before)
    length = (g.abs() ** 2).sum().sqrt()
    torch.testing.assert_close(w.detach(), before - 0.1 * gradient(before + 0.1 * g / length), rtol=1e-12, atol=1e-14)
