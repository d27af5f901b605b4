"""What cannot work is one clear error that names the argument and comes at the right moment."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import fenland
from peer_loops import FORMS, WHOLE_LOSS, assert_same, batch, build, closure_for, loss_of, net, sgd, ssam

POINT = 14
BAD = (TypeError, ValueError)


# Parameters that a rule or the engine cannot move


@pytest.mark.parametrize("preset", ["LpSAM", "ZSharp", "InfNormSAM", "SparseSAM", "SpectralSAM"])
def test_complex_parameters_under_rules_for_real_ones(preset):
    """At construction or at the first step, by name; or the step is right: |e| = rho and w comes back."""
    z = nn.Parameter(torch.tensor([1.0 + 2.0j, -0.5 + 0.1j, 0.2j, 0.7], dtype=torch.complex128))
    before = z.detach().clone()

    def run() -> Any:
        opt = build(preset, torch.optim.SGD([z], lr=0.0), rho=0.1)
        opt.step(closure_for(opt, lambda: (z - 1).abs().square().sum()))
        return opt

    try:
        opt = run()
    except BAD as error:
        assert "complex" in str(error)  # noqa: PT017 - one of two right answers
    else:
        assert bool(opt.last.radius.isfinite())
    assert torch.equal(z, before)


@pytest.mark.parametrize("form", FORMS)
def test_parameters_on_meta(form):
    with torch.device("meta"):
        layer = nn.Linear(3, 2)

    def run() -> None:
        opt = fenland.SAM(torch.optim.SGD(layer.parameters(), lr=0.1))
        FORMS[form](opt, lambda: layer(torch.zeros(4, 3, device="meta")).sum())

    with pytest.raises((*BAD, RuntimeError), match="meta"):
        run()


@pytest.mark.parametrize("form", FORMS)
def test_expanded_parameters(form):
    """Elements that share memory cannot each have their own perturbation."""
    w = nn.Parameter(torch.ones(1, 3).expand(4, 3))

    def run() -> None:
        opt = fenland.SAM(torch.optim.SGD([w], lr=0.1))
        FORMS[form](opt, lambda: (w**2).sum())

    with pytest.raises(BAD, match=r"expand|overlap|share"):
        run()
    assert torch.equal(w.detach(), torch.ones(4, 3))


@pytest.mark.parametrize("kind", ["sparse", "integers"])
def test_parameters_without_dense_real_values(kind):
    if kind == "sparse":
        layer = nn.Embedding(5, 3, sparse=True)
        opt = fenland.SAM(torch.optim.SGD(layer.parameters(), lr=0.1))
        with pytest.raises(BAD, match="sparse"):
            opt.step(closure_for(opt, lambda: layer(torch.tensor([1, 2])).sum()))
        return
    frozen = nn.Parameter(torch.arange(3), requires_grad=False)
    w = nn.Parameter(torch.ones(3))
    opt = fenland.SAM(torch.optim.SGD([frozen, w], lr=0.1))
    opt.step(closure_for(opt, lambda: (w**2).sum()))
    assert torch.equal(frozen, torch.arange(3))


# Radii


@pytest.mark.parametrize("where", ["argument", "group", "callable", "added group"])
@pytest.mark.parametrize(
    "rho", [10**400, float("inf"), float("nan"), -1.0, "0.1", 1j, [0.1], True], ids=lambda x: repr(x)[:8]
)
def test_a_radius_that_is_none(rho, where):
    model = net()
    base = sgd(model)

    def run() -> None:
        if where == "argument":
            fenland.SAM(base, rho=rho, model=model)
        elif where == "group":
            base.param_groups[0]["rho"] = rho
            fenland.SAM(base, rho=0.1, model=model)
        elif where == "callable":
            fenland.SAM(base, rho=lambda t: rho, model=model)
        else:
            opt = fenland.SAM(base, rho=0.1, model=model)
            opt.add_param_group({"params": [nn.Parameter(torch.ones(2, dtype=torch.float64))], "rho": rho})

    with pytest.raises(BAD, match="rho"):
        run()


@pytest.mark.parametrize("preset", ["ASAM", "SAM", "USAM", "FisherSAM", "LpSAM"])
def test_a_radius_beyond_the_dtype(preset):
    """float32 holds no 1e300: refused with its value, dtype and cure."""
    model = net(torch.float32)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"rho = 1e\+300: the parameters are float32.*wider dtype"):
        build(preset, sgd(model), rho=1e300, model=model)
    assert_same(dict(model.state_dict()), before)


@pytest.mark.parametrize("preset", ["ASAM", "SAM", "USAM", "FisherSAM", "LpSAM"])
def test_a_radius_that_leads_out_of_any_landscape(preset):
    """float64 holds 1e300: the step is taken with finite weights, or it is skipped and all is as before."""
    model = net(torch.float64)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    opt = build(preset, sgd(model), rho=1e300, model=model)
    opt.step(closure_for(opt, lambda: loss_of(model)))
    if bool(opt.last.skipped):
        assert_same(dict(model.state_dict()), before)
    assert all(p.isfinite().all() for p in model.parameters())


# Groups


@pytest.mark.parametrize("group", [None, 3, [nn.Parameter(torch.ones(1))], "params", {}], ids=repr)
def test_add_param_group_of_something_else(group):
    opt = ssam(net())
    before = [dict(g) for g in opt.param_groups]
    with pytest.raises(BAD, match=r"param_group|params"):
        opt.add_param_group(group)
    assert [dict(g) for g in opt.param_groups] == before


@pytest.mark.parametrize("form", ["list", "generator", "tensor", "tuple", "names", "generator of names"])
def test_add_param_group_of_whatever_torch_takes(form):
    """A generator is not used up before torch sees it: the group has the parameters that it has in a bare optimizer."""
    model, layer = net(), nn.Linear(3, 2)
    named = "names" in form
    first = list(model.named_parameters()) if named else list(model.parameters())
    groups = {
        "list": lambda: list(layer.parameters()),
        "generator": layer.parameters,
        "tensor": lambda: layer.weight,
        "tuple": lambda: tuple(layer.parameters()),
        "names": lambda: list(layer.named_parameters()),
        "generator of names": layer.named_parameters,
    }
    bare = torch.optim.SGD(first, lr=0.1, momentum=0.9)
    opt = fenland.SAM(torch.optim.SGD(first, lr=0.1, momentum=0.9), rho=0.2)
    given = {"params": groups[form](), "lr": 0.3}
    bare.add_param_group({"params": groups[form](), "lr": 0.3})
    opt.add_param_group(given)
    assert opt.param_groups[-1] is given, "the dict itself becomes the group, as in torch"
    assert given["rho"] == 0.2
    want = {k: v for k, v in bare.param_groups[-1].items() if k != "params"}
    assert {k: v for k, v in given.items() if k in want} == want
    assert len(given["params"]) == len(bare.param_groups[-1]["params"]) > 0
    assert all(a is b for a, b in zip(given["params"], bare.param_groups[-1]["params"], strict=True))


def test_a_parameter_twice():
    model = net()
    opt = ssam(model)
    with pytest.raises(ValueError, match="more than one parameter group"):
        opt.add_param_group({"params": list(model.head.parameters()), "rho": 0.1})
    assert len(opt.param_groups) == 1


# A gradient buffer of the user's own


def flat_gradients(model: nn.Module) -> torch.Tensor:
    params = list(model.parameters())
    flat = torch.zeros(sum(p.numel() for p in params), dtype=params[0].dtype)
    start = 0
    for p in params:
        p.grad = flat[start : start + p.numel()].view_as(p)
        start += p.numel()
    return flat


@pytest.mark.parametrize("form", ["closure", "two calls"])
@pytest.mark.parametrize("preset", ["SAM", "SSAM", "GSAM", "RandomSAM"])
def test_a_flat_gradient_buffer_stays_one_or_is_refused(form, preset):
    """The user zeroes and clips the flat buffer; what the base gets must be what the buffer holds."""
    results = []
    for flat in (False, True):
        model = net()
        opt = build(preset, sgd(model), rho=0.2, model=model)
        buffer = flat_gradients(model) if flat else None
        torch.manual_seed(5)

        def run(t: int, model: nn.Module = model, opt: Any = opt, buffer: Any = buffer) -> torch.Tensor:
            buffer.zero_() if buffer is not None else opt.zero_grad()
            loss = loss_of(model, t)
            loss.backward()
            grads = [buffer] if buffer is not None else [p.grad for p in model.parameters()]
            norm = torch.sqrt(sum((g**2).sum() for g in grads))
            for g in grads:
                g.mul_(0.5 / norm.clamp_min(0.5))
            return loss

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                for t in range(3):
                    if form == "closure":
                        opt.step(lambda t=t, run=run: run(t))
                    else:
                        run(t)
                        opt.ascend()
                        run(t)
                        opt.descend()
        except (RuntimeError, ValueError, UserWarning) as error:
            assert flat
            assert any(word in str(error) for word in ("view", "buffer", "zero")), error  # noqa: PT017
            return
        results.append(dict(model.state_dict()))
        if buffer is not None:
            assert all(
                p.grad.untyped_storage().data_ptr() == buffer.untyped_storage().data_ptr() for p in model.parameters()
            )
    assert_same(results[1], results[0], 1e-9)


# Views of w that somebody still holds


@pytest.mark.parametrize("form", ["closure", "block"])
@pytest.mark.parametrize("perturb", ["swap", "auto", "inplace", "offload"])
def test_an_exception_that_is_kept_holds_views_of_the_weights(form, perturb):
    """The traceback's frames hold p.view(-1): the next step copes, or names what holds the weights."""
    model, want = net(), net()
    opt, reference = ssam(model, perturb=perturb), ssam(want, perturb=perturb)
    passes = []

    def breaks() -> torch.Tensor:
        views = [p.view(-1) for p in model.parameters()]
        passes.append(views[0].shape)
        if len(passes) == 2:
            raise KeyError("data")
        return loss_of(model)

    torch.manual_seed(5)
    rng, buffers = torch.get_rng_state(), copy.deepcopy(dict(model.named_buffers()))
    kept_error = None
    try:
        FORMS[form](opt, breaks)
    except KeyError as error:
        kept_error = error
    assert kept_error is not None
    torch.set_rng_state(rng)
    for name, b in model.named_buffers():
        b.copy_(buffers[name])
    try:
        FORMS[form](opt, lambda: loss_of(model))
    except (RuntimeError, ValueError) as error:
        assert perturb == "swap"
        assert "view" in str(error) or "shares" in str(error) or "storage" in str(error), error  # noqa: PT017
        assert "exception" in str(error) or "inplace" in str(error) or "auto" in str(error), error  # noqa: PT017
        return
    torch.set_rng_state(rng)
    FORMS[form](reference, lambda: loss_of(want))
    assert_same(dict(model.state_dict()), dict(want.state_dict()))


# What a step without gradients says


@pytest.mark.parametrize("preset", WHOLE_LOSS)
def test_a_backward_on_another_model_is_one_warning(preset):
    model, other = net(), net()
    opt = build(preset, sgd(model), rho=0.1, model=model)

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = loss_of(other)
        loss.backward()
        return loss

    with pytest.warns(UserWarning, match="no parameter of the optimizer has a gradient"):
        opt.step(closure)
    opt.step(closure)  # and no second warning
    assert_same(dict(model.named_parameters()), dict(net().named_parameters()))


def test_a_loss_that_is_no_scalar_is_torch_s_own_error_and_everything_is_as_before():
    model = net()
    opt = ssam(model)
    before = copy.deepcopy(dict(model.state_dict()))
    with pytest.raises(RuntimeError, match="scalar"):
        opt.step(closure_for(opt, lambda: model(batch(0)[0])))
    assert_same(dict(model.state_dict()), before)
