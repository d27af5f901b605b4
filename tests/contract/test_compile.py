"""Contract 9: a compiled forward and backward is compiled once, whatever the ascent does to the weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import fenland
from harness import BASES, VARIANTS, assert_same, every_perturb, every_variant

# torch's tracer meets its own deprecated functions.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def network():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


def closure(opt, forward, x, y):
    reduction = "none" if opt.rules.method.per_sample else "mean"

    def run():
        opt.zero_grad()
        loss = F.cross_entropy(forward(x), y, reduction=reduction)
        if reduction == "mean":
            loss.backward()
        return loss

    return run


def train(variant, perturb, compiled, form="closure", steps=6):
    model = network()
    counter = CompileCounterWithBackend("aot_eager")
    forward = torch.compile(model, backend=counter) if compiled else model
    opt = variant.build(BASES["sgd_momentum"](model.parameters()), model=model, perturb=perturb)
    torch.manual_seed(5)
    x, y = torch.randn(16, 6), torch.randint(3, (16,))
    run, frames = closure(opt, forward, x, y), []
    for _ in range(steps):
        if form == "closure":
            opt.step(run)
        else:
            run()
            opt.ascend()
            run()
            opt.descend()
        frames.append(counter.frame_count)
    return [p.detach().clone() for p in model.parameters()], frames


@every_variant
@every_perturb
def test_no_recompilation_after_the_first_step(variant, perturb):
    got, frames = train(variant, perturb, compiled=True)
    want, _ = train(variant, perturb, compiled=False)
    assert frames[0] >= 1
    assert frames == [frames[0]] * len(frames)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@every_perturb
@pytest.mark.filterwarnings(
    "ignore:ascend.. has seen no forward:UserWarning"
)  # compiled forwards show none, and it is said
def test_nor_in_two_calls(perturb):
    got, frames = train(VARIANTS[0], perturb, compiled=True, form="two_call")
    assert frames == [frames[0]] * len(frames)
    want, _ = train(VARIANTS[0], perturb, compiled=True)
    assert_same(got, want)


def test_a_schedule_of_rho_and_lr_recompiles_nothing():
    model = network()
    counter = CompileCounterWithBackend("aot_eager")
    forward = torch.compile(model, backend=counter)
    opt = VARIANTS[0].build(BASES["sgd"](model.parameters()), rho=lambda t: 0.01 * (t + 1), model=model)
    x, y = torch.randn(16, 6), torch.randint(3, (16,))
    frames = []
    for t in range(5):
        opt.param_groups[0]["lr"] = 0.1 / (t + 1)
        opt.step(closure(opt, forward, x, y))
        frames.append(counter.frame_count)
    assert frames == [frames[0]] * len(frames)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's, as it looks at tensors
@pytest.mark.parametrize("form", ["closure", "two_call"])
@pytest.mark.parametrize("perturb", ["swap", "inplace"])
def test_a_compiled_function_around_the_whole_step_is_right(form, perturb):
    """The step itself is left out of the graph: traced, it would train on other gradients without a word."""
    nets = [torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(16, 4)

    def trainer(net):
        base = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        opt = fenland.SSAM(base, rho=0.2, model=net, perturb=perturb)

        def closure():
            opt.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            return loss

        def two_calls():
            closure()
            opt.ascend()
            net(x).square().mean().backward()
            opt.descend()

        return (lambda: opt.step(closure)) if form == "closure" else two_calls

    compiled, plain = torch.compile(trainer(nets[0]), backend="eager"), trainer(nets[1])
    for _ in range(4):
        compiled()
        plain()
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(a, b)
