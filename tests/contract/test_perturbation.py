"""DESIGN section 4: storage moves only where it is safe; everywhere else in place, with the same numbers."""

import pytest
import torch
from torch import nn
from torch.optim import SGD

from harness import BASES, Session, assert_same, every_perturb, every_variant, make

PLAIN = torch.float64


def refused(perturb: str, variant, params: list) -> bool:
    """Whether an explicit "move" declines these parameters: with a ValueError that names the cure, nothing changed.

    The other right answer is to change them in place.
    """
    if perturb != "swap":
        return False
    before = [p.detach().clone() for p in params]
    opt = variant.build(SGD(params, lr=0.0), rho=0.1, perturb=perturb)

    def closure():
        for p in params:
            p.grad = p.detach() ** 3
        return torch.zeros(())

    try:
        opt.step(closure)
        declined = False
    except ValueError as error:
        assert 'perturb="auto"' in str(error)  # noqa: PT017
        declined = True
    assert_same([p.detach() for p in params], before)
    for p in params:
        p.grad = None
    return declined


def addresses(session: Session) -> list[list[int]]:
    """The parameters' addresses at every forward."""
    params = list(session.problem.model.parameters())
    seen: list[list[int]] = []
    session.problem.model.register_forward_pre_hook(lambda m, _: seen.append([p.data_ptr() for p in params]))
    return seen


@every_variant
def test_move_moves_and_copy_does_not(variant):
    """The two strategies are really two; otherwise the rest of this file tests one twice."""
    if variant.passes != 2:
        pytest.skip("not a two-pass method")
    for perturb, moves in (("swap", True), ("inplace", False)):
        session = make(variant, "mlp", perturb=perturb)
        seen = addresses(session)
        session.step()
        assert (seen[0] != seen[1]) == moves


@every_variant
@pytest.mark.parametrize("perturb", ["swap", "auto"])
def test_w_plus_e_lives_in_the_gradient_s_own_buffer(variant, perturb):
    """No extra memory where the combine does not keep g: pass 2 runs in the memory of pass 1's gradients."""
    if variant.preset.name not in ("SAM", "USAM", "SSAM", "SSAM-U"):
        pytest.skip("keeps g, or has another number of passes")
    w = nn.Parameter(torch.randn(1000, 1000))
    opt = variant.build(SGD([w], lr=0.1), rho=0.1, perturb=perturb)
    at, gradient = [], []

    def closure():
        at.append(w.data_ptr())
        w.grad = w.detach() * 2
        gradient.append(w.grad.data_ptr())
        return torch.zeros(())

    opt.step(closure)
    assert at[1] == gradient[0] != at[0]
    assert w.data_ptr() == at[0]


@every_variant
@pytest.mark.parametrize("case", ["mlp", "conv_bn_dropout", "tied", "recurrent", "groups", "first_pass_only"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_both_strategies_give_the_same_weights(variant, case, dtype):
    runs = [make(variant, case, perturb=perturb, dtype=dtype).run(5).weights for perturb in ("swap", "inplace", "auto")]
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-14 if dtype == torch.float64 else 1e-6)


def train(variant, perturb, grads_of, steps=2, params=None, base="sgd_momentum"):
    """Train on f = sum of 4th powers / 4; `grads_of(p, g)` decides how the gradient g reaches p.grad."""
    torch.manual_seed(5)
    params = params or [nn.Parameter(torch.randn(s, dtype=PLAIN)) for s in ((3, 4), (5,))]
    opt = variant.build(BASES[base](params), rho=0.2, perturb=perturb)

    def closure():
        for p in params:
            p.grad = None
        for p in params:
            grads_of(p, (p.detach() ** 3).clone())
        return torch.zeros(())

    for _ in range(steps):
        opt.step(closure)
    return [p.detach().clone() for p in params]


def assign(p, g):
    p.grad = g


class Keeper:
    """Holds on to every gradient in some way and remembers what it was."""

    def __init__(self, alias):
        self.alias, self.held = alias, []

    def __call__(self, p, g):
        p.grad = g
        self.held.append((self.alias(p, g), g.clone()))

    def check(self):
        assert self.held
        for alias, value in self.held:
            alias = torch.as_tensor(alias)
            assert torch.equal(alias.reshape(-1), value.reshape(-1)[: alias.numel()])


ALIASES = {
    "the tensor itself": lambda p, g: p.grad,
    "a detached alias": lambda p, g: p.grad.detach(),
    "a view of it": lambda p, g: p.grad.view(-1)[:2],
    "a numpy array": lambda p, g: p.grad.numpy(),
}


@every_variant
@every_perturb
@pytest.mark.parametrize("alias", ALIASES)
def test_a_gradient_that_somebody_holds_is_not_overwritten(variant, perturb, alias):
    """Gradient loggers, pipelines and hooks keep p.grad: w + e must not appear there."""
    keeper = Keeper(ALIASES[alias])
    got = train(variant, perturb, keeper)
    keeper.check()
    assert_close(got, train(variant, "inplace", assign))


def assert_close(got, want):
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)


@every_variant
@every_perturb
def test_a_gradient_held_by_a_hook_is_not_overwritten(variant, perturb):
    session = make(variant, "mlp", perturb=perturb)
    held = []
    for p in session.problem.model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: held.append((p.grad, p.grad.clone())))
    session.run(2)
    for kept, value in held[: 4 * variant.passes]:
        assert torch.equal(kept, value)


@every_variant
@every_perturb
def test_gradients_that_are_views_of_a_bucket(variant, perturb):
    """DDP's gradient_as_bucket_view: the bucket is reused, its memory never becomes a weight."""
    bucket = torch.zeros(17, dtype=PLAIN)

    def into_bucket(p, g):
        at = slice(0, 12) if p.dim() == 2 else slice(12, 17)
        bucket[at].copy_(g.reshape(-1))
        p.grad = bucket[at].view_as(p)

    assert_close(train(variant, perturb, into_bucket, steps=3), train(variant, "inplace", assign, steps=3))


@every_variant
@every_perturb
@pytest.mark.parametrize("form", ["recorded", "base_step", "no ascent"])
def test_a_bucket_is_copied_where_g_must_survive_pass_two(variant, perturb, form):
    """Pass 2 writes h into the same bucket: cosine, "base_step" and d = g need the g of pass 1."""
    if variant.passes != 2:
        pytest.skip("not a two-pass method")
    w = nn.Parameter(torch.tensor([1.0, 2.0, -1.0], dtype=PLAIN))
    bucket = torch.zeros(5, dtype=PLAIN)
    options = {"recorded": {"record_every": 1}, "base_step": {"nonfinite": "base_step"}, "no ascent": {}}[form]
    opt = variant.build(SGD([w], lr=0.1), rho=0.0 if form == "no ascent" else 0.5, perturb=perturb, **options)
    before, seen = w.detach().clone(), []

    def backward():
        bucket[:3] = w.detach() ** 3 * (1 + len(seen))  # another batch in pass 2: h is not g even at w
        seen.append(bucket[:3].clone())
        if len(seen) == 2 and form == "base_step":
            bucket[1] = float("nan")
        w.grad = bucket[:3].view_as(w)

    backward()
    opt.ascend()
    backward()
    opt.descend()
    g, h = seen
    if form == "recorded":
        assert float(opt.last.cosine) == pytest.approx(float(g @ h / g.norm() / h.norm()), rel=1e-12)
        assert float(opt.last.cosine) < 1 - 1e-4
    else:
        torch.testing.assert_close(w.detach(), before - 0.1 * g, rtol=1e-13, atol=0)


@every_variant
@every_perturb
@pytest.mark.parametrize("layout", ["transposed", "column major", "expanded", "one number", "every other"])
def test_gradients_with_other_strides(variant, perturb, layout):
    strides = []

    def lay_out(p, g):
        strides.append((p.dim(), p.stride()))
        if p.dim() != 2:
            p.grad = g
        elif layout == "transposed":
            p.grad = g.t().contiguous().t()
        elif layout == "column major":  # a tensor of its own, no view
            p.grad = torch.empty_strided((3, 4), (1, 3), dtype=PLAIN).copy_(g)
        elif layout == "expanded":
            p.grad = g[:1, :1].expand_as(p)
        elif layout == "one number":
            p.grad = g[0, 0].clone().expand_as(p)
        else:
            wide = torch.full((3, 8), 7.0, dtype=PLAIN)
            wide[:, ::2] = g
            p.grad = wide[:, ::2]

    def contiguous(p, g):
        one = layout in ("expanded", "one number") and p.dim() == 2
        p.grad = g[:1, :1].expand_as(p).contiguous() if one else g

    assert_close(train(variant, perturb, lay_out), train(variant, "inplace", contiguous))
    assert set(strides) == {(2, (4, 1)), (1, (1,))}  # in pass 2 too: a compiled model would be compiled anew


@every_variant
@every_perturb
def test_two_parameters_with_one_gradient_tensor(variant, perturb):
    def run(perturb, share):
        torch.manual_seed(6)
        params = [nn.Parameter(torch.randn(4, dtype=PLAIN)) for _ in range(2)]
        opt = variant.build(SGD(params, lr=0.1), rho=0.2, perturb=perturb)

        def closure():
            g = (params[0] + params[1]).detach()
            params[0].grad, params[1].grad = g, g if share else g.clone()
            return torch.zeros(())

        for _ in range(3):
            opt.step(closure)
        return [p.detach().clone() for p in params]

    assert_close(run(perturb, True), run("inplace", False))


@every_variant
@every_perturb
def test_channels_last_weights_keep_their_layout(variant, perturb):
    session = make(variant, "group_norm", perturb=perturb)
    reference = make(variant, "group_norm", perturb="inplace").run(3)
    session.problem.model.to(memory_format=torch.channels_last)
    strides = [p.stride() for p in session.problem.model.parameters()]
    session.run(3)
    assert [p.stride() for p in session.problem.model.parameters()] == strides
    assert_close(session.weights, reference.weights)


@every_variant
@every_perturb
def test_float32_gradients_of_bfloat16_weights(variant, perturb):
    """torch lets a parameter ask for gradients of another type (grad_dtype)."""
    weight = nn.Parameter(torch.linspace(-1, 1, 8).bfloat16())
    if not hasattr(weight, "grad_dtype"):
        pytest.skip("this torch has no grad_dtype")
    weight.grad_dtype = torch.float32
    opt = variant.build(SGD([weight], lr=0.0), rho=0.5, perturb=perturb)
    before = weight.detach().clone()
    dtypes = []

    def closure():
        dtypes.append(weight.dtype)
        weight.grad = (weight.detach().float() ** 3).clone()
        return torch.zeros(())

    opt.step(closure)
    assert weight.dtype == torch.bfloat16
    assert set(dtypes) == {torch.bfloat16}
    assert_same(weight.detach(), before)


class Flat(nn.Module):
    """Parameters that are views of one flat tensor, as flattening libraries make them."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = torch.linspace(-1, 1, 16, dtype=PLAIN)
        self.a = nn.Parameter(self.flat[:12].view(3, 4))
        self.b = nn.Parameter(self.flat[12:])


@every_variant
@every_perturb
def test_parameters_that_are_views_stay_views(variant, perturb):
    model = Flat()
    if refused(perturb, variant, [model.a, model.b]):
        return
    params = [model.a, model.b]
    start = [p.detach().clone() for p in params]
    seen = []
    opt = variant.build(SGD(params, lr=0.1), rho=0.2, perturb=perturb)

    def closure():
        seen.append((model.flat.clone(), torch.cat([p.detach().reshape(-1) for p in params])))
        for p in params:
            p.grad = p.detach() ** 3
        return torch.zeros(())

    for _ in range(3):
        opt.step(closure)
    assert model.a.data_ptr() == model.flat.data_ptr()
    assert torch.equal(model.flat, torch.cat([p.detach().reshape(-1) for p in params]))
    for flat, joined in seen:
        assert torch.equal(flat, joined)  # whoever reads the flat tensor sees w + e in pass 2
    reference = [nn.Parameter(x) for x in start]
    assert_close(
        [p.detach() for p in params],
        train(variant, "inplace", assign, steps=3, params=reference, base="sgd"),
    )


@every_variant
@every_perturb
def test_shared_memory_parameters_stay_shared(variant, perturb):
    """Hogwild: other processes read this memory, so pass 2 happens in it and it never moves."""
    session = make(variant, "mlp", perturb=perturb)
    session.problem.model.share_memory()
    if refused(perturb, variant, list(session.problem.model.parameters())):
        return
    seen = addresses(session)
    session.run(2)
    assert all(p.is_shared() for p in session.problem.model.parameters())
    assert all(row == seen[0] for row in seen)


@every_variant
@every_perturb
def test_a_buffer_that_aliases_a_parameter(variant, perturb):
    """It shows w + e in pass 2 and the new weights after the step; the buffer guard must not write old weights back."""
    session, reference = make(variant, "mlp", perturb=perturb), make(variant, "mlp").run(3)
    layer = session.problem.model[0]
    layer.register_buffer("alias", layer.weight.detach())
    if refused(perturb, variant, [layer.weight]):
        return
    opt = make_opt(variant, session, perturb)
    seen = []
    layer.register_forward_pre_hook(lambda m, _: seen.append(torch.equal(m.alias, m.weight)))
    Session(session.problem, opt).run(3)
    assert all(seen)
    assert torch.equal(layer.alias, layer.weight)
    assert_close(session.weights, reference.weights)


def make_opt(variant, session, perturb):
    base = SGD(session.problem.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    return variant.build(base, rho=0.1, perturb=perturb, model=session.problem.model)


@every_variant
@every_perturb
def test_tied_weights_are_moved_once(variant, perturb):
    """Embedding and output layer are one tensor: e is added once, and the tie survives."""
    session = make(variant, "tied", perturb=perturb)
    model = session.problem.model
    seen = []
    model.register_forward_pre_hook(lambda m, _: seen.append(m.head.weight is m.embed.weight))
    session.run(3)
    assert all(seen)
    assert model.head.weight.data_ptr() == model.embed.weight.data_ptr()


@every_variant
@every_perturb
def test_two_parameters_on_one_memory_are_refused_or_right(variant, perturb):
    """Tied through memory, not through the object: lr = 0 leaves the weights bit-identical, or an error names it."""
    memory = torch.linspace(-1, 1, 6, dtype=PLAIN)
    params = [nn.Parameter(memory.view(2, 3)), nn.Parameter(memory)]
    before = memory.clone()
    opt = variant.build(SGD(params, lr=0.0), rho=0.2, perturb=perturb)

    def closure():
        for p in params:
            p.grad = p.detach() ** 3
        return torch.zeros(())

    try:
        opt.step(closure)
    except (RuntimeError, ValueError) as error:
        assert "shar" in str(error) or "memory" in str(error) or "storage" in str(error)  # noqa: PT017
    assert torch.equal(memory, before)
    assert all(p.data_ptr() == memory.data_ptr() for p in params)
