"""What a measurement refuses, each with its cause and cure, and what it takes that is out of the ordinary."""

import warnings

import nets
import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from measurements import DATA, EVERY, model, text
from torch import nn
from torch.utils.checkpoint import checkpoint

import fenland
from fenland.diagnostics import curvature, landscape
from fenland.diagnostics.objective import Objective


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
    close = curvature.extreme_eigenvalues(net, nets.value, data, hvp="difference", tol=2e-3).largest[0]
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
    "dictionary": (TypeError, r'a dict: .* tensor, such as found\["loss"\]$', lambda m, b: {"loss": value(m, b)}, DATA),
    "parts": (
        TypeError,
        r"a dict: .* such as the sum of a, b$",
        lambda m, b: {"a": value(m, b), "b": value(m, b)},
        DATA,
    ),
    "tuple": (TypeError, r"a tuple: .* such as its first element$", lambda m, b: (value(m, b), 1), DATA),
    "output": (TypeError, r"a Output: .* such as found.loss$", lambda m, b: Output(value(m, b)), DATA),
    "nothing": (TypeError, r"returned None: it must return the loss as a scalar tensor$", lambda m, b: None, DATA),
    "complex": (ValueError, "a complex number: .* such as loss.real", lambda m, b: value(m, b) * 1j, DATA),
}


class Output:
    def __init__(self, loss):
        self.loss = loss


def value(m, b):
    return nets.cross_entropy(m, b)


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
        ({"parameters": []}, "none chosen"),
        ({"hvp": "magic"}, "hvp = 'magic'"),
        ({"step": -1.0}, "step = -1.0"),
        ({"draws": 1}, "draws = 1"),
        ({"method": "guess"}, "method = 'guess'"),
        ({"size": lambda batch: 0}, "size of batch 0"),
    ]:
        with pytest.raises(ValueError, match=match):
            curvature.trace(model(), nets.cross_entropy, DATA, **options)
    for options, match in [
        ({"parameters": 3}, "parameters = 3: must be a list of names"),
        ({"parameters": model().parameters()}, "parameters: has a Parameter in it; .* such as 'unused'"),
        ({"size": 5}, "size = 5: must be a function"),
        ({"seed": None}, "seed = None: must be a whole number"),
        ({"dtype": "float64"}, "dtype = 'float64': must be a floating point dtype"),
        ({"dtype": torch.int64}, "dtype = torch.int64"),
        ({"dtype": torch.complex64}, "dtype = torch.complex64"),
    ]:
        with pytest.raises(TypeError, match=match):
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


def test_a_model_made_under_inference_mode_names_the_cure():
    with torch.inference_mode():
        net = nn.Linear(4, 4)
    with pytest.raises(ValueError, match=r"weight was made under torch.inference_mode.*; load it outside"):
        curvature.trace(net, nets.value, DATA)


class Words(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(9, 6, sparse=sparse)
        self.head = nn.Linear(6, 4)

    def forward(self, words):
        return self.head(torch.tanh(self.table(words)).mean(1))


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
def test_sparse_embeddings_are_measured_like_dense_ones(call):
    generator = torch.Generator().manual_seed(0)
    data = [
        (torch.randint(0, 9, (n, 3), generator=generator), torch.randint(0, 4, (n,), generator=generator))
        for n in (6, 4)
    ]
    sparse, dense = Words(sparse=True), Words(sparse=False)
    assert text(call(sparse, nets.cross_entropy, data)) == text(call(dense, nets.cross_entropy, data))
    assert sparse.table.sparse
    nets.cross_entropy(sparse, data[0]).backward()
    assert sparse.table.weight.grad.is_sparse


def test_sparse_gradients_of_a_function_count_too():
    table = Words(sparse=False)

    def loss_fn(net, batch):
        rows = F.embedding(batch[0], net.table.weight, sparse=True)
        return F.cross_entropy(net.head(torch.tanh(rows).mean(1)), batch[1])

    data = [(torch.tensor([[1, 2, 3], [3, 4, 8]]), torch.tensor([0, 2]))]
    assert fenland.sharpness(table, loss_fn, data).value == fenland.sharpness(table, nets.cross_entropy, data).value
    got = curvature.extreme_eigenvalues(table, loss_fn, data, hvp="difference", tol=0.01)
    want = curvature.extreme_eigenvalues(table, nets.cross_entropy, data, hvp="difference", tol=0.01)
    assert got.largest[0].value == want.largest[0].value


@pytest.mark.parametrize("call", [call for name, call in EVERY.items() if name != "landscape"])
def test_a_gradient_that_is_not_finite_is_named(call):
    net = nn.Linear(36, 4)

    def loss_fn(net, batch):
        return nets.cross_entropy(lambda x: net(x.flatten(1)), batch) + (0 * net.bias).norm()

    def root(net, batch):
        return loss_fn(net, batch) + (net.bias.sum() * 0).sqrt()

    with pytest.raises(ValueError, match=r"the gradient of bias is not finite, though the loss is 1\.\d+: a root"):
        call(net, root, DATA)


class Waves(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.wave = nn.Parameter(torch.randn(36, 4, dtype=torch.cfloat))
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return (x.flatten(1).cfloat() @ self.wave).abs() + self.bias


@pytest.mark.parametrize("call", [call for name, call in EVERY.items() if name != "landscape"])
def test_complex_weights_are_refused_by_name(call):
    with pytest.raises(TypeError, match=r"wave is complex.* torch.view_as_complex in forward, or leave it out"):
        call(Waves(), nets.cross_entropy, DATA)


def test_the_real_weights_beside_complex_ones_can_be_measured():
    found = curvature.extreme_eigenvalues(Waves(), nets.cross_entropy, DATA, parameters=["bias"])
    assert found.largest[0].value > 0


class Remade(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(36, 8), nn.Linear(8, 4)
        self.reentrant = reentrant

    def inner(self, x):
        return torch.tanh(self.first(x))

    def forward(self, x):
        x = x.flatten(1).requires_grad_()
        if self.reentrant is not None:
            return self.last(checkpoint(self.inner, x, use_reentrant=self.reentrant))
        return self.last(self.inner(x))


@pytest.mark.parametrize("name", [name for name in EVERY if name != "landscape"])
def test_reentrant_checkpoints_are_refused_and_others_count(name):
    call = EVERY[name]
    net = Remade(reentrant=True)
    before = nets.state(net)
    with pytest.raises(RuntimeError, match=r"use_reentrant=True, which hides the grad.*; pass use_reentrant=False"):
        call(net, nets.cross_entropy, DATA)
    assert nets.same(before, nets.state(net))
    remade, plain = (call(Remade(kind), nets.cross_entropy, DATA) for kind in (False, None))
    assert text(remade) == text(plain)


def optimized(net):
    return fenland.SAM(torch.optim.SGD(net.parameters(), lr=0.1), rho=0.1)


ALL = {
    "diagnose": lambda net, f, b, **o: fenland.diagnose(net, f, b, optimized(net), **o),
    "find_rho": lambda net, f, b, **o: fenland.find_rho(net, f, b, optimized(net), points=3, **o),
    "some parameters": lambda net, f, b, **o: fenland.sharpness(
        net, f, b, parameters=lambda name: "weight" in name or name == "twin", **o
    ),
    "layers": lambda net, f, b, **o: curvature.per_layer(net, f, b, **o),
}


@pytest.mark.parametrize("call", ALL.values(), ids=ALL)
def test_a_loss_of_another_model_is_no_zero_gradient(call):
    """Nor where a part of the parameters is chosen, by name or by an optimizer."""
    other = model()
    with pytest.raises(ValueError, match="the loss depends on none of the parameters"):
        call(model(), lambda net, batch: value(other, batch), DATA)


def test_layers_that_the_loss_does_not_use_have_no_curvature():
    found = curvature.per_layer(model(), nets.cross_entropy, DATA)
    assert found[""].largest[0].value == 0
    assert found["head"].largest[0].value > 0


@pytest.mark.parametrize("call", ALL.values(), ids=ALL)
@pytest.mark.parametrize("part", [0.0, 1.0], ids=["whole", "a part"])
def test_in_another_dtype_the_model_itself_is_no_constant(call, part):
    """A closure over it would have no gradient, silently, as the copy is what moves."""
    net = model()

    def loss_fn(given, batch):
        return part * value(given, batch) + net.head.weight.square().sum()

    batches = [(x.double(), y) for x, y in DATA]
    with pytest.raises(ValueError, match="loss_fn uses the model itself"):
        call(net, loss_fn, batches, dtype=torch.float64)


def test_a_copy_may_be_made_under_inference_mode():
    want = fenland.sharpness(model(), nets.cross_entropy, DATA, dtype=torch.float64)
    with torch.inference_mode():
        assert fenland.sharpness(model_outside, nets.cross_entropy, DATA, dtype=torch.float64) == want


model_outside = model()


@pytest.mark.parametrize("run", [False, True], ids=["fresh", "run"])
def test_weights_that_hooks_make_can_be_copied(run):
    """A pruned weight is the output of a forward hook, with a graph, which `copy.deepcopy` refuses."""
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    nn.utils.prune.l1_unstructured(net[0], "weight", 0.5)
    batches = [(torch.randn(8, 5), torch.randint(0, 3, (8,)))]
    if run:
        nets.cross_entropy(net, batches[0]).backward()
    single = curvature.extreme_eigenvalues(net, nets.cross_entropy, batches)
    double = curvature.extreme_eigenvalues(net, nets.cross_entropy, batches, dtype=torch.float64, tol=1e-9)
    assert single.largest[0].value == pytest.approx(double.largest[0].value, rel=1e-4)
    assert double.converged


@pytest.mark.parametrize("call", ALL.values(), ids=ALL)
def test_lazy_models_are_named(call):
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(ValueError, match=r"1.weight is lazy.*run one batch"):
        call(net, nets.cross_entropy, DATA)
    assert nn.parameter.is_lazy(net[1].weight)


def test_a_replica_inside_of_a_model_is_named(monkeypatch):
    class Replica(nn.Sequential):
        pass

    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", Replica)
    with pytest.raises(ValueError, match=r"model.1: is DistributedDataParallel.*pass model.1.module"):
        curvature.trace(nn.Sequential(nn.Flatten(), Replica(nn.Linear(36, 4))), nets.cross_entropy, DATA)


def test_a_loss_that_changes_is_said_once():
    calls = []

    def drifts(net, batch):
        calls.append(1)
        return value(net, batch) * len(calls)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        curvature.extreme_eigenvalues(model(), drifts, DATA)
    assert sum("changed from" in str(each.message) for each in caught) == 1


ELSEWHERE = {
    **EVERY,
    "hutch++": lambda m, f, b: curvature.trace(m, f, b, draws=6, method="hutch++"),
    "restarted": lambda m, f, b: curvature.extreme_eigenvalues(m, f, b, k=2, tol=1e-9, dtype=torch.float64),
    "average": lambda m, f, b: fenland.sharpness(m, f, b, kind="average", draws=2),
    "doctor": lambda m, f, b: fenland.diagnose(m, f, b, optimized(m)),
    "trajectory": lambda m, f, b: landscape.trajectory(m, f, b, checkpoints(m), points=3),
}


def checkpoints(net):
    return [
        {k: x + i * i * (k == "head.bias") + i * (k == "unused") for k, x in net.state_dict().items()} for i in range(4)
    ]


@pytest.mark.parametrize("call", ELSEWHERE.values(), ids=ELSEWHERE)
def test_another_default_device_changes_nothing(call):
    """`torch.set_default_device` says where new tensors go that name no device; on "meta" none of them has a number."""

    def loss_fn(net, batch):
        x, y = batch
        return F.cross_entropy(net(x.to(net.head.weight)), y)

    want = text(call(model(), loss_fn, DATA))
    net = model()
    with torch.device("meta"):
        assert text(call(net, loss_fn, DATA)) == want


@pytest.mark.parametrize("call", ALL.values(), ids=ALL)
def test_two_parameters_in_one_memory_are_named(call):
    """Each would be moved by itself, the second on top of the first."""
    net = model()
    net.twin = nn.Parameter(net.conv.weight.data)
    with pytest.raises(ValueError, match=r"twin and conv\.weight are two parameters in the same memory.*tie them"):
        call(net, nets.cross_entropy, DATA)


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_the_names_of_parameters_may_come_from_an_iterator(dtype):
    model = nn.Linear(2, 1)
    with Objective(
        model, lambda m, x: m(x).square().mean(), [torch.ones(3, 2)], parameters=iter(["bias"]), dtype=dtype
    ) as it:
        assert it.names == ["bias"]
        assert [p.shape for p in it.params] == [model.bias.shape]
