"""Measurements leave a model as it was, refuse what they cannot measure, and say what to do instead."""

import weakref

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fenland
from fenland.diagnostics import curvature
from fenland.diagnostics.objective import Objective

DATA = nets.images()
OTHER = nn.Linear(1, 1)


def model():
    torch.manual_seed(0)
    made = nets.Conv()
    made(DATA[0][0]).sum().backward()  # gradients and running statistics that are not the initial ones
    made.norm.eval()  # a mixed mode
    return made


CALLS = {
    "extremes": lambda m, f, b, **o: curvature.extreme_eigenvalues(m, f, b, **o),
    "difference": lambda m, f, b, **o: curvature.extreme_eigenvalues(m, f, b, hvp="difference", tol=0.1, **o),
    "trace": lambda m, f, b, **o: curvature.trace(m, f, b, draws=2, **o),
    "density": lambda m, f, b, **o: curvature.density(m, f, b, draws=1, steps=3, **o),
    "layers": lambda m, f, b, **o: curvature.per_layer(m, f, b, tol=0.1, **o),
}


@pytest.mark.parametrize("mode", ["eval", "train", "keep"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_nothing_is_changed(call, mode):
    net = model()
    before = nets.state(net)
    grads = [p.grad for p in net.parameters()]
    call(net, nets.cross_entropy, DATA, mode=mode)
    assert nets.same(before, nets.state(net))
    assert all(p.grad is g for p, g in zip(net.parameters(), grads, strict=True))


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_nothing_is_changed_by_an_exception(call, after):
    net = model()
    before = nets.state(net)
    calls = 0

    def breaks(net, batch):
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        return nets.cross_entropy(net, batch)

    with pytest.raises(KeyboardInterrupt):
        call(net, breaks, DATA, mode="train")
    assert nets.same(before, nets.state(net))


def test_a_two_call_optimizer_does_not_take_a_measurement_for_its_step():
    """Its second pass starts from the random numbers of its own first one, whatever ran in between."""

    def run(measured):
        torch.manual_seed(0)
        net = nets.Conv()
        opt = fenland.SAM(torch.optim.SGD(net.parameters(), lr=0.1), rho=0.1, model=net)
        for x, y in DATA:
            if measured:
                curvature.trace(net, nets.cross_entropy, DATA, draws=2, mode="train")
            torch.rand(3)
            F.cross_entropy(net(x), y).backward()
            opt.ascend()
            F.cross_entropy(net(x), y).backward()
            opt.descend()
            opt.zero_grad()
        return nets.state(net)

    assert nets.same(run(measured=False), run(measured=True))


def test_memory_does_not_grow_with_the_number_of_batches():
    """At most the graphs of two batches are alive (the one at work and, for a moment, the one before)."""
    net = nn.Linear(4, 4)
    alive, most = weakref.WeakSet(), 0

    class Marked(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g * 1.0

    def loss_fn(net, batch):
        nonlocal most
        most = max(most, len(alive))
        loss = torch.tanh(Marked.apply(net(batch))).square().mean()
        alive.add(loss)
        return loss

    for count in (3, 12):
        most = 0
        curvature.trace(net, loss_fn, [torch.randn(2, 4) for _ in range(count)], draws=4)
        assert most <= 2


def test_one_batch_costs_one_forward():
    net, calls = nn.Linear(4, 4), 0

    def loss_fn(net, batch):
        nonlocal calls
        calls += 1
        return torch.tanh(net(batch)).square().mean()

    curvature.trace(net, loss_fn, [torch.randn(2, 4)], draws=20)
    assert calls == 1


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.qkv = nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.qkv(x).view(len(x), 5, 1, 24).transpose(1, 2).chunk(3, dim=-1)
        return F.scaled_dot_product_attention(q, k, v).square().mean()


def test_fused_attention_names_cause_and_cure():
    net, data = Attention(), [torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))]
    with pytest.raises(RuntimeError, match=r'differentiated twice.*attention.*hvp="difference".*MATH') as raised:
        curvature.extreme_eigenvalues(net, nets.value, data)
    assert "is not implemented" in str(raised.value)

    def math(net, batch):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return net(batch)

    exact = curvature.extreme_eigenvalues(net, math, data).largest[0]
    close = curvature.extreme_eigenvalues(net, nets.value, data, hvp="difference").largest[0]
    assert close.error is not None
    assert abs(close.value - exact.value) <= close.error + close.residual + exact.residual


def test_a_function_that_is_differentiable_once():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return 2 * ctx.saved_tensors[0] * g

    net = nn.Linear(4, 4)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        curvature.trace(net, lambda net, x: Once.apply(net(x)).square().mean(), [torch.randn(2, 4)])


REFUSED = {
    "nan": (ValueError, "must be finite", lambda m, b: m(b[0]).mean() * torch.nan, DATA),
    "vector": (ValueError, r"shape \(6, 4\)", lambda m, b: m(b[0]), DATA),
    "number": (TypeError, "returned a float", lambda m, b: 1.0, DATA),
    "empty": (ValueError, "there is none in it", nets.cross_entropy, []),
    "generator": (TypeError, "one-shot generator.*list of batches", nets.cross_entropy, (b for b in DATA)),
    "iterator": (TypeError, "one-shot", nets.cross_entropy, iter(DATA)),
    "tensor": (TypeError, r"pass \[batch\]", nets.cross_entropy, DATA[0][0]),
    "mapping": (TypeError, r"pass \[batch\]", nets.cross_entropy, {"x": DATA[0][0]}),
    "none": (TypeError, "must be an iterable", nets.cross_entropy, None),
    "other model": (
        ValueError,
        "does loss_fn use the model",
        lambda m, b: nn.Linear(1, 1)(b[0][:, 0, 0, :1]).sum(),
        DATA,
    ),
    "no gradient": (ValueError, "with gradients switched on", lambda m, b: m(b[0]).detach().mean(), DATA),
    "loss_fn": (TypeError, "loss_fn = None", None, DATA),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_cure(case):
    error, match, loss_fn, batches = REFUSED[case]
    with pytest.raises(error, match=match):
        curvature.extreme_eigenvalues(model(), loss_fn, batches)


def test_wrong_arguments():
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="none of its parameters requires a gradient"):
        curvature.trace(frozen, nets.cross_entropy, DATA)
    with pytest.raises(TypeError, match="model ="):
        curvature.trace(nets.cross_entropy, nets.cross_entropy, DATA)
    for options, match in [
        ({"mode": "test"}, "mode = 'test'"),
        ({"parameters": ["no.such"]}, "must be one of unused, conv.weight"),
        ({"parameters": lambda name: False}, "none chosen"),
        ({"hvp": "magic"}, "hvp = 'magic'"),
        ({"step": -1.0}, "step = -1.0"),
        ({"draws": 1}, "draws = 1"),
        ({"method": "guess"}, "method = 'guess'"),
        ({"size": lambda batch: 0}, "size of batch 0"),
    ]:
        with pytest.raises(ValueError, match=match):
            curvature.trace(model(), nets.cross_entropy, DATA, **options)
    for options, match in [
        ({"k": 0}, "k = 0"),
        ({"k": 500}, "235 numbers"),
        ({"which": "top"}, "which"),
        ({"tol": -1}, "tol"),
    ]:
        with pytest.raises(ValueError, match=match):
            curvature.extreme_eigenvalues(model(), nets.cross_entropy, DATA, **options)


def test_batches_that_change_are_noticed():
    class Random:
        def __iter__(self):
            self.again = getattr(self, "again", 0) + 1
            yield torch.full((2, 4), float(self.again))

    with pytest.warns(UserWarning, match="changed from .* between two passes"):
        twice(Random())

    class Growing(Random):
        def __iter__(self):
            yield from super().__iter__()
            if self.again > 1:
                yield torch.ones(2, 4)

    with pytest.raises(ValueError, match="1 batches with 2 examples in the first pass, 2 with 4"):
        twice(Growing())


def twice(batches):
    with Objective(nn.Linear(4, 4), lambda net, x: net(x).square().mean(), batches) as objective:
        objective.gradient(at_w=True)
        objective.gradient(at_w=True)


def test_a_compiled_model_names_the_cause():
    """torch.compile has no second derivative; the error is ours and names the way out."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    compiled = torch.compile(net, backend="aot_eager")
    with pytest.raises(RuntimeError, match=r'cannot be differentiated twice.*hvp="difference"'):
        curvature.trace(compiled, lambda net, x: net(x).square().mean(), [torch.randn(2, 4)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_numbers_of_a_cpu():
    """Eigenvalues, trace, density, sharpness, doctor and range test on a device, and its generator as before."""

    def measure(device):
        net = model().to(device).double()
        data = [(x.to(device).double(), y.to(device)) for x, y in DATA]
        opt = fenland.SAM(torch.optim.SGD(net.parameters(), lr=0.1), rho=0.1)
        torch.rand(3, device=device)
        before = torch.get_device_module(device).get_rng_state() if device == "cuda" else torch.get_rng_state()
        found = [
            curvature.extreme_eigenvalues(net, nets.cross_entropy, data).largest[0].value,
            curvature.trace(net, nets.cross_entropy, data, method="hutch++").value,
            curvature.density(net, nets.cross_entropy, data, draws=1, steps=20).share_below(0.0),
            fenland.sharpness(net, nets.cross_entropy, data, kind="worst").value,
            fenland.sharpness(net, nets.cross_entropy, data, kind="average", adaptive=True).value,
            fenland.diagnose(net, nets.cross_entropy, data, opt, mode="eval").ascent.gamma,
            fenland.find_rho(net, nets.cross_entropy, data, opt, mode="eval").points[-1].rise.value,
        ]
        after = torch.get_device_module(device).get_rng_state() if device == "cuda" else torch.get_rng_state()
        assert torch.equal(before, after)
        return found

    assert measure("cuda") == pytest.approx(measure("cpu"), rel=1e-6)


def test_a_shuffling_loader_gives_the_same_examples_in_every_pass():
    x, y = torch.cat([b[0] for b in DATA]), torch.cat([b[1] for b in DATA])
    loader = DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True)
    found = curvature.extreme_eigenvalues(model(), nets.cross_entropy, loader, mode="train")
    again = curvature.extreme_eigenvalues(model(), nets.cross_entropy, list(loader), mode="eval")
    assert found.converged
    assert again.converged
