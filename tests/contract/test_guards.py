"""Contract 3 and 5 for the modules and loops that are easily forgotten."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fenland
from harness import BASES, Session, assert_same, buffers, every_perturb, every_variant, make


class SyncNorm(nn.SyncBatchNorm):
    """SyncBatchNorm's buffers and counting; its own forward runs on GPUs alone."""

    def forward(self, x):
        if self.training:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1)


class Codebook(nn.Module):
    """A vector quantiser's moving averages: float sums and integer counts, changed by indexing."""

    def __init__(self):
        super().__init__()
        self.lift, self.head = nn.Linear(6, 4), nn.Linear(4, 3)
        self.register_buffer("codes", torch.randn(5, 4))
        self.register_buffer("hits", torch.zeros(5, dtype=torch.long))

    def forward(self, x):
        z = self.lift(x)
        nearest = torch.cdist(z, self.codes).argmin(1)
        found = self.codes[nearest].clone()
        self.hits.index_add_(0, nearest, torch.ones_like(nearest))
        self.codes[nearest] = 0.9 * self.codes[nearest] + 0.1 * z.detach()
        return self.head(z + found)


def _lazy():
    model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Tanh(), nn.LazyLinear(3))
    model(torch.randn(4, 6))
    return model


def _eval_norm():
    """A frozen norm in a training model."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    model[1].eval()
    return model


MODELS = {
    "sync batch norm": lambda: nn.Sequential(nn.Linear(6, 8), SyncNorm(8), nn.Linear(8, 3)),
    "codebook": Codebook,
    "lazy": _lazy,
    "norm in eval mode": _eval_norm,
    "old spectral norm": lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(6, 8)), nn.Linear(8, 3)),
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.Linear(8, 3)),
    "attention": lambda: nn.TransformerEncoderLayer(6, 2, 8, dropout=0.2, batch_first=True),
}
models = pytest.mark.parametrize("kind", MODELS)


def loss_of(model, x, y, reduction="mean"):
    out = model(x.unsqueeze(1)).squeeze(1) if isinstance(model, nn.TransformerEncoderLayer) else model(x)
    return F.cross_entropy(out, y, reduction=reduction)


def closure(opt, model, x, y, scaler=None, part=slice(None)):
    reduction = "none" if opt.rules.method.per_sample else "mean"

    def run():
        opt.zero_grad()
        loss = loss_of(model, x[part], y[part], reduction)
        if reduction == "mean":
            (loss if scaler is None else scaler.scale(loss)).backward()
        return loss

    return run


def set_up(kind):
    torch.manual_seed(3)
    return MODELS[kind](), torch.randn(8, 6), torch.randint(3, (8,))


@every_variant
@models
@every_perturb
def test_buffers_are_as_after_one_forward(variant, kind, perturb):
    model, x, y = set_up(kind)
    opt = variant.build(BASES["sgd"](model.parameters(), lr=0.0), model=model, perturb=perturb)
    other = copy.deepcopy(model)
    for seed in range(3):
        torch.manual_seed(seed)
        opt.step(closure(opt, model, x, y))
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        loss_of(other, x, y)
        assert_same(torch.get_rng_state(), state)
    assert_same(buffers(model), buffers(other))
    assert_same([p.detach() for p in model.parameters()], [p.detach() for p in other.parameters()])


@every_variant
@every_perturb
def test_two_optimizers_on_one_model_leave_each_other_s_part_alone(variant, perturb):
    """Disjoint parameters of one module: while one is away, the other's weights are w."""
    model, x, y = set_up("sync batch norm")
    parts = [list(model[0].parameters()), [*model[1].parameters(), *model[2].parameters()]]
    opts = [variant.build(BASES["sgd_momentum"](part), model=model, perturb=perturb) for part in parts]
    for k, opt in enumerate(opts):
        others = [p.detach().clone() for p in parts[1 - k]]
        run, seen = closure(opt, model, x, y), []

        def watched(run=run, seen=seen, k=k):
            seen.append([p.detach().clone() for p in parts[1 - k]])
            return run()

        opt.step(watched)
        for point in seen:
            assert_same(point, others)
        for o in opts:
            o.zero_grad()
    assert int(model[1].num_batches_tracked) == 2


def test_complex_weights_climb_along_their_gradient():
    """|e| = rho over real and imaginary parts; loss |z - c|^2 of two complex numbers, by hand."""
    start, target = np.array([1.0 + 2.0j, -0.5 + 0.1j]), np.array([0.3 - 0.2j, 0.4 + 0.9j])
    z = nn.Parameter(torch.tensor(start))
    opt = fenland.SAM(torch.optim.SGD([z], lr=0.1), rho=0.3, record_every=1)
    points, c = [], torch.tensor(target)

    def run():
        opt.zero_grad()
        points.append(z.detach().numpy().copy())
        loss = (z - c).abs().square().sum()
        loss.backward()
        return loss

    opt.step(run)
    g = 2 * (start - target)
    e = 0.3 * g / np.linalg.norm(g)
    np.testing.assert_allclose(points[1] - points[0], e, rtol=1e-12)
    np.testing.assert_allclose(z.detach().numpy(), start - 0.1 * 2 * (start + e - target), rtol=1e-12)
    assert float(opt.last.cosine) == pytest.approx(1.0)


@every_variant
def test_complex_weights_come_back(variant):
    if variant.build(BASES["sgd"]([nn.Parameter(torch.ones(1))])).rules.method.per_sample:
        pytest.skip("needs the losses of samples")
    z = nn.Parameter(torch.randn(3, dtype=torch.complex64))
    opt = variant.build(BASES["sgd"]([z], lr=0.0))
    before = z.detach().clone()

    def run():
        opt.zero_grad()
        loss = (z.abs() ** 4).sum()
        loss.backward()
        return loss

    opt.step(run)
    assert torch.equal(z, before)


# m-SAM in full dress


@every_variant
def test_micro_batches_under_a_scaler_equal_those_without(variant):
    results = []
    for scale in (None, 2.0**12):
        model, x, y = set_up("lazy")
        model.append(nn.Dropout(0.2))
        opt = variant.build(BASES["sgd_momentum"](model.parameters()), model=model, max_norm=0.5)
        scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
        torch.manual_seed(9)
        for _ in range(3):
            parts = [closure(opt, model, x, y, scaler, slice(i, i + 4)) for i in (0, 4)]
            if opt.rules.method.corrects:  # what cannot be averaged says so
                with pytest.raises(ValueError, match="one closure"):
                    opt.step(parts, scaler=scaler)
                return
            opt.step(parts, scaler=scaler)
            if scaler is not None:
                scaler.update()
        results.append(([p.detach().clone() for p in model.parameters()], buffers(model)))
        assert scaler is None or scaler.get_scale() == scale
    for a, b in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6)
    counted = int(next(v for k, v in results[0][1].items() if k.endswith("num_batches_tracked")))
    assert counted == 1 + 3 * 2  # the dry run, then one forward a micro-batch


@every_variant
@pytest.mark.parametrize("bad", [0, 1])
def test_an_overflow_in_one_micro_batch_skips_and_backs_off_once(variant, bad):
    model, x, y = set_up("sync batch norm")
    opt = variant.build(BASES["adamw_fused"](model.parameters()), model=model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    before = copy.deepcopy(model.state_dict())
    x = x.clone()
    x[4 * bad] = float("inf")
    if opt.rules.method.corrects:
        pytest.skip("takes one closure")
    opt.step([closure(opt, model, x, y, scaler, slice(i, i + 4)) for i in (0, 4)], scaler=scaler)
    scaler.update()
    assert scaler.get_scale() == 2.0**11
    assert_same(dict(model.state_dict()), dict(before))


# Checkpoints with groups that came later


@every_variant
@pytest.mark.parametrize("base", ["sgd_momentum", "adamw", "adamw_fused"])
def test_a_group_added_late_resumes_bit_for_bit(variant, base):
    def begin():
        session = make(variant, "mlp", base)
        last = list(session.problem.model[2].parameters())
        for group in session.opt.param_groups:
            group["params"] = [p for p in group["params"] if not any(p is q for q in last)]
        return session, last

    def thaw(session, last):
        session.opt.add_param_group({"params": last, "rho": 0.3, "lr": 0.02})

    session, last = begin()
    session.run(2)
    thaw(session, last)
    session.run(2, start=2)
    fresh, other = begin()
    thaw(fresh, other)
    fresh.problem.model.load_state_dict(session.problem.model.state_dict())
    fresh.opt.load_state_dict(copy.deepcopy(session.opt.state_dict()))
    assert [g["rho"] for g in fresh.opt.param_groups] == [g["rho"] for g in session.opt.param_groups]
    rng = torch.get_rng_state()
    want = session.run(3, start=4).weights
    torch.set_rng_state(rng)
    assert_same(Session(fresh.problem, fresh.opt).run(3, start=4).weights, want)
