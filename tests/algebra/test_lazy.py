"""Linear combinations that are not formed have the norms, products and sums of the tensors that they stand for."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fenland.algebra import Lazy, Leaf, Lists, Stacked, project

SHAPES = [(2, 3), (4,), ()]
numbers = st.floats(-3.0, 3.0)
seeds = st.integers(0, 2**31)


def params():
    return [torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in SHAPES]


def leaf(seed, of=None, **more):
    draw = torch.Generator().manual_seed(seed)
    shapes = SHAPES if of is None else [p.shape for p in of]
    return Leaf([torch.randn(s, generator=draw, dtype=torch.float64) for s in shapes], Lists(), of, **more)


def flat(vector):
    return torch.cat([x.reshape(-1) for x in vector.tensors])


def scalar(x):
    return torch.tensor(x, dtype=torch.float64)


def close(a, b):
    torch.testing.assert_close(torch.as_tensor(a, dtype=torch.float64), b, rtol=1e-9, atol=1e-9)


@given(seeds, st.lists(numbers, min_size=3, max_size=3), st.booleans())
def test_norm_dot_and_form_are_those_of_the_sum(seed, coefficients, as_tensors):
    of = params()
    xs = [leaf(seed + i, of) for i in range(3)]
    vectors = [flat(x) for x in xs]
    c = [scalar(k) for k in coefficients] if as_tensors else coefficients
    x = xs[0] * c[0] + c[1] * xs[1] - xs[2] * c[2]
    y = -xs[1] + xs[2] * c[0]
    flat_x = coefficients[0] * vectors[0] + coefficients[1] * vectors[1] - coefficients[2] * vectors[2]
    flat_y = coefficients[0] * vectors[2] - vectors[1]
    torch.testing.assert_close(x.norm, flat_x.norm(), rtol=1e-7, atol=1e-6)  # from products: half the digits remain
    close(x.dot(y), flat_x @ flat_y)
    close(flat(x), flat_x)
    close(flat(y), flat_y)
    close(x.form().norm, flat_x.norm())
    assert all(torch.equal(flat(v), w) for v, w in zip(xs, vectors, strict=True)), "leaves are as they were"


def test_a_leaf_occurs_once():
    x, y = leaf(0), leaf(1)
    total = x * 2.0 + y - x * 0.5 + (y * 3.0 + x)
    assert [(c, z) for c, z in total.terms] == [(2.5, x), (4.0, y)]
    close(flat(total), 2.5 * flat(x) + 4 * flat(y))
    assert [c for c, _ in (x * scalar(2.0) + x * 1.5).terms] == [scalar(3.5)]


def test_what_cancels_is_zero():
    x = leaf(0)
    none = x - x
    assert float(none.norm) == 0.0
    assert not flat(none).any()
    close((x * 0.0).dot(x), scalar(0.0))


def test_a_tensor_from_the_left_is_the_same_product():
    x = leaf(0)
    left, right = scalar(0.3) * x, x * scalar(0.3)
    assert isinstance(left, Lazy)
    assert left.terms == right.terms
    assert isinstance(2 * x, Lazy)


def test_a_factor_of_one_forms_nothing():
    x = leaf(0)
    assert x.form() is x
    assert (x * 1.0).form() is x
    assert (x * 1.0).norm is x.norm
    assert (x * 2.0).form() is not x
    copy = (x * scalar(1.0)).form()  # nobody looks at a device's number
    assert copy is not x
    assert torch.equal(flat(copy), flat(x))


def test_what_is_formed_is_new_memory_of_its_own():
    x, y = leaf(0, params()), leaf(1)
    y.params = x.params
    for combined in (x * 2.0, x + y, x * 0.0 + y, x * scalar(1.0)):
        made = combined.form()
        assert made.owned == [True] * len(SHAPES)
        assert made.params is x.params
        assert not {t.data_ptr() for t in made.tensors} & {t.data_ptr() for v in (x, y) for t in v.tensors}


class Counting(Lists):
    """Counts its passes over vectors."""

    def __init__(self):
        super().__init__()
        self.passes = []

    def norm(self, xs):
        self.passes.append("norm")
        return super().norm(xs)

    def dot(self, xs, ys):
        self.passes.append("dot")
        return super().dot(xs, ys)


def test_each_leaf_is_measured_once_and_each_pair_once():
    V, of = Counting(), params()
    x, y = (Leaf(leaf(i, of).tensors, V, of) for i in range(2))
    for _ in range(3):
        _ = (x * 2.0 - y).norm, (x + y * scalar(3.0)).norm, x.dot(y), (x - y).dot(x + y), project(x, y).norm
    assert sorted(V.passes) == ["dot", "norm", "norm"]


def test_an_emptied_leaf_keeps_its_numbers_and_says_what_to_write():
    x, y = leaf(0), leaf(1)
    norm, dot = x.norm, x.dot(y)
    x.raw = None  # as where its memory was given to w + e
    assert x.norm is norm
    assert (x * 2.0).norm == 2 * norm
    assert x.dot(y) == dot
    assert y.dot(x) == dot
    length = (x - y).norm  # of numbers that are known
    close(length, (norm**2 + y.norm**2 - 2 * dot).sqrt())
    for asked in (lambda: x.tensors, lambda: (x + y).form(), lambda: leaf(2).dot(x)):
        with pytest.raises(RuntimeError, match=r"only its norm is known: write keep=g in the request"):
            asked()
    unmeasured = leaf(3)
    unmeasured.raw = None
    with pytest.raises(RuntimeError, match="keep=g"):
        _ = unmeasured.norm


def test_leaves_over_different_parameters_are_zero_where_they_have_none():
    """A gradient of pass 2 may have parameters that pass 1 did not reach, and the other way round."""
    a, b, _ = params()
    c = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    x, y = leaf(0, [a, b]), leaf(1, [c, a])
    total = (x * 2.0 + y * scalar(3.0)).form()
    assert {id(p) for p in total.params} == {id(a), id(b), id(c)}
    found = {id(p): t for p, t in zip(total.params, total.tensors, strict=True)}
    close(found[id(a)], 2 * x.tensors[0] + 3 * y.tensors[1])
    close(found[id(b)], 2 * x.tensors[1])
    close(found[id(c)], 3 * y.tensors[0])
    close(x.dot(y), (x.tensors[0] * y.tensors[1]).sum())
    close((x + y).norm, (x + y).form().norm)
    assert [len(v.tensors) for v in (x, y)] == [2, 2]


def test_the_same_parameters_in_two_lists_are_the_same():
    of = params()
    x, y = leaf(0, of), leaf(1, list(of))
    assert (x + y).form().params is of
    close(x.dot(y), flat(x) @ flat(y))


@given(seeds, st.sampled_from([2.0**-10, 1 / 3.0]))
def test_a_loss_scale_counts_everywhere_and_is_taken_out_once(seed, factor):
    """Tensors that still carry a loss scale 1 / factor stand for factor times themselves."""
    of = params()
    plain, other = leaf(seed, of), leaf(seed + 1, of)
    want, known = factor * flat(plain), flat(other)
    x = leaf(seed, of, factor=scalar(factor))
    close(x.norm, want.norm())
    close(x.dot(other), want @ known)
    close(other.dot(x), want @ known)
    close(x.dot(x), want @ want)
    total = x * 2.0 - other * scalar(0.5)
    close(total.norm, (2 * want - 0.5 * known).norm())
    close(flat(total.form()), 2 * want - 0.5 * known)
    assert x.factor is not None, "sums do not write to their leaves"
    close(flat(x), want)
    assert x.factor is None
    close(flat(x), want)
    close(flat(total.form()), 2 * want - 0.5 * known)


def test_the_part_that_some_parameters_have():
    of = params()
    x, y = leaf(0, of, owned=[True, False, True], factor=scalar(0.5)), leaf(1, of)
    part = (x + y * 2.0).only([0, 2])
    want = [0.5 * x.raw[i] + 2 * y.raw[i] for i in (0, 2)]
    for got, exact in zip(part.tensors, want, strict=True):
        close(got, exact)
    one = x.only([0, 2])
    assert one.owned == [True, True]
    assert [p is q for p, q in zip(one.params, (of[0], of[2]), strict=True)] == [True, True]
    close(one.norm, 0.5 * torch.cat([x.raw[0].reshape(-1), x.raw[2].reshape(-1)]).norm())
    assert x.only(None) is x
    assert x.only([0, 1, 2]) is x


def test_a_projection_leaves_what_is_orthogonal():
    x, y = leaf(0), leaf(1)
    along, rest = project(x, y), x - project(x, y)
    close(rest.dot(y), scalar(0.0))
    close(flat(along + rest), flat(x))
    nothing = Leaf([torch.zeros_like(t) for t in y.tensors], Lists())
    assert not flat(project(x, nothing)).any()
    tiny = y * 1e-200  # its square is not a number that there is
    close(flat(project(x, tiny)), flat(along))


def test_replicas_have_a_number_each():
    def some(seed):
        draw = torch.Generator().manual_seed(seed)
        return [torch.randn(5, *s, generator=draw, dtype=torch.float64) for s in SHAPES]

    xs, ys, c = some(0), some(1), torch.linspace(-1, 2, 5, dtype=torch.float64)
    x, y = Leaf(xs, Stacked()), Leaf(ys, Stacked())
    total = x * c - y * 0.5
    for r in range(5):
        a, b = (Leaf([t[r] for t in ts], Lists()) for ts in (xs, ys))
        one = a * c[r] - b * 0.5
        close(total.norm[r], one.norm)
        close(total.dot(y)[r], one.dot(b))
        close(torch.cat([t[r].reshape(-1) for t in total.tensors]), flat(one))
