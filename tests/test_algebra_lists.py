"""The bulk arithmetic takes other ways for small and large tensors; the numbers are those of the plain formulas."""

import pytest
import torch

from fenland.algebra import Lists, inverse
from fenland.algebra.base import Algebra
from fenland.algebra.lists import FEW, JOINED, PIECE, addcmul, addcmul_into, combine_

SIZES = {
    "few small": [3, 5],
    "many small": [7] * (FEW + 3),
    "small and one large": [7] * FEW + [JOINED + 1],
    "small and large": [7, JOINED + 1] * FEW,
    "in pieces": [3] * FEW + [2 * PIECE + 5, PIECE],
    "large alone": [PIECE + 1],
}
every_size = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def vectors(sizes, dtype, many=2):
    draw = torch.Generator().manual_seed(0)
    return [[torch.randn(n, generator=draw, dtype=dtype) for n in sizes] for _ in range(many)]


def close(a, b, dtype):
    torch.testing.assert_close(a, b, rtol=1e-12 if dtype == torch.float64 else 2e-5, atol=1e-5, check_dtype=False)


@every_size
@every_dtype
@pytest.mark.parametrize("looks", [True, False])
def test_norm_and_dot(sizes, dtype, looks, monkeypatch):
    monkeypatch.setattr(Algebra, "looks", looks)
    xs, ys = vectors(sizes, dtype)
    x, y = (torch.cat(v).double() for v in (xs, ys))
    V = Lists()
    assert V.norm(xs).dtype == V.dot(xs, ys).dtype == dtype
    close(V.norm(xs), x.norm(), dtype)
    torch.testing.assert_close(V.dot(xs, ys).double(), x @ y, rtol=0, atol=1e-5 * float(x.norm() * y.norm()))


@pytest.mark.parametrize("value", [1e-25, 1e25, float("inf"), float("nan"), 0.0])
def test_norms_outside_of_the_squares_range(value):
    xs = [torch.full((3,), value) for _ in range(FEW + 1)]
    want = torch.tensor(value, dtype=torch.float64) * (3 * len(xs)) ** 0.5
    torch.testing.assert_close(Lists().norm(xs).double(), want, rtol=1e-6, atol=0, equal_nan=True)


def test_mixed_dtypes_and_strides():
    xs = [torch.randn(4, 6).t() for _ in range(FEW)] + [torch.randn(5, dtype=torch.float64)]
    ys = [torch.randn(6, 4) for _ in range(FEW)] + [torch.randn(5, dtype=torch.float64)]
    want = sum(float((x.double() * y.double()).sum()) for x, y in zip(xs, ys, strict=True))
    assert float(Lists().dot(xs, ys)) == pytest.approx(want, rel=1e-5, abs=1e-5)
    assert float(Lists().dot(xs[:-1], ys[:-1])) == pytest.approx(
        sum(float((x * y).sum()) for x, y in zip(xs[:-1], ys[:-1], strict=True)), rel=1e-4, abs=1e-4
    )


@pytest.mark.parametrize("value", [0.0, 1e-31, 1e-29, 2.0, float("inf"), float("nan")])
def test_inverse_is_one_whether_the_host_looks_or_not(value, monkeypatch):
    s = torch.tensor(value)
    seen = inverse(s)
    monkeypatch.setattr(Algebra, "looks", False)
    torch.testing.assert_close(inverse(s), seen, rtol=0, atol=0, equal_nan=True)
    assert (seen == 0) == (value < 1e-30 or value == float("inf"))


@every_size
@every_dtype
@pytest.mark.parametrize("spend", [False, True])
def test_metric_step(sizes, dtype, spend):
    """(R^2 a, ||R a||), in a's own tensors where these may be spent."""
    a, w = vectors(sizes, dtype)
    kept = [x.clone() for x in a]
    direction, length = Lists().metric_step(lambda _, x: x.abs() + 0.1, a, w, spend=spend)
    for u, g, x in zip(direction, kept, w, strict=True):
        close(u, (x.abs() + 0.1) ** 2 * g, dtype)
    close(length, torch.cat([(x.abs() + 0.1) * g for g, x in zip(kept, w, strict=True)]).norm(), dtype)
    assert all(torch.equal(x, g) for x, g in zip(a, kept, strict=True)) != spend
    assert all(u is x for u, x in zip(direction, a, strict=True)) == spend


PAIRS = {
    "two numbers": (0.5, 2.0),
    "a mixture": (0.2, 0.8),
    "g added": (0.5, 1.0),
    "tensors": (torch.tensor(0.5, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)),
    "a number and a tensor": (-0.6, torch.tensor(1.7, dtype=torch.float64)),
    "a tensor and a number": (torch.tensor(0.3), 0.6),
}


@every_size
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_combine(sizes, pair):
    alpha, beta = pair
    gs, hs = vectors(sizes, torch.float64)
    want = [float(alpha) * g + float(beta) * h for g, h in zip(gs, hs, strict=True)]
    kept = [g.clone() for g in gs]
    combine_(alpha, gs, beta, hs)
    for h, x in zip(hs, want, strict=True):
        torch.testing.assert_close(h, x, rtol=1e-14, atol=1e-14)
    if isinstance(alpha, float):
        assert all(torch.equal(g, x) for g, x in zip(gs, kept, strict=True)), "numbers leave g as it was"


@every_size
@every_dtype
def test_the_ascent_point_has_the_same_bits_wherever_it_goes(sizes, dtype):
    ws, us = vectors(sizes, dtype)
    s = torch.tensor(0.3, dtype=dtype)
    results = []
    for where in ("w", "u", "new", "w, u spent"):
        w, u = [x.clone() for x in ws], [x.clone() for x in us]
        out = {"u": u, "new": [torch.empty_like(x) for x in w]}.get(where, w)
        addcmul_into(w, u, s, out=out, spend="spent" in where)
        results.append(out)
        if where in ("w", "new"):
            assert all(torch.equal(a, b) for a, b in zip(u, us, strict=True))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("kind", ["plain", "other strides", "half", "large", "a factor a tensor"])
def test_a_sum_in_fresh_memory_is_rounded_as_one_in_place(kind):
    shapes = [(4, 6)] * 9 if kind != "large" else [(1 << 10, 1 << 9)]
    dtype = torch.bfloat16 if kind == "half" else torch.float32
    ws, us = ([torch.randn(s).to(dtype) for s in shapes] for _ in range(2))
    if kind == "other strides":
        us = [u.t().contiguous().t() for u in us]
    s = [torch.rand(()) for _ in ws] if kind == "a factor a tensor" else torch.tensor(0.3)
    before = [u.clone() for u in us]
    found = addcmul(ws, us, s)
    assert all(map(torch.equal, us, before))
    assert [x.stride() for x in found] == [w.stride() for w in ws]
    assert not {x.data_ptr() for x in found} & {x.data_ptr() for x in (*ws, *us)}
    addcmul_into(ws, us, s, out=ws)
    assert all(map(torch.equal, found, ws))
