"""Contract 7 on two gloo ranks: whose gradient is climbed along, what travels, and that the ranks stay equal."""

import pytest
import torch
import torch.distributed as dist

import fenland
from harness import assert_same
from kinds import of_each_kind
from ranks import on_ranks
from worlds import (
    EVERY,
    STEPS,
    close,
    closure,
    data,
    ddp_setup,
    mlp,
    one_process,
    per_sample,
    rules,
    share,
    weights,
)

every_name = pytest.mark.parametrize("name", of_each_kind(EVERY, rules))
both_syncs = pytest.mark.parametrize("sync", ["global", "local"])
KINDS = ["SAM", "SSAM", "blend"]  # d = h; gamma h; alpha g + beta h
every_kind = pytest.mark.parametrize("name", KINDS)


def train(rank, name, base, steps=STEPS, dtype=torch.float64, **options):
    torch.manual_seed(0)
    model, opt = ddp_setup(name, base, model=mlp(dtype), **options)
    xs, ys = data(dtype)
    for t in range(steps):
        i = t % STEPS
        opt.step(closure(opt, model, share(xs[i], rank), share(ys[i], rank)))
    return weights(model)


@every_name
def test_global_ascent_equals_one_process_on_the_joint_batch(name):
    if per_sample(name):
        pytest.skip("each rank chooses among its own samples")
    first, second = on_ranks(train, name, "sgd_momentum")
    assert_same(first, second)
    close(first, one_process(name, "sgd_momentum"), 1e-9)


@every_name
@pytest.mark.parametrize("base", ["adamw_fused"])
def test_local_ascent_equals_micro_batches_on_one_process(name, base):
    """Two ranks with their own ascent are m-SAM with two micro-batches."""
    first, second = on_ranks(train_local, name, base)
    assert_same(first, second)
    # A vector kept between steps is each rank's own, but one process has one for all micro-batches.
    if first is not None and not rules(name).method.keeps:
        close(first, one_process(name, base, micro=2), 1e-9)


def train_local(rank, name, base):
    try:
        return train(rank, name, base, sync="local")
    except ValueError as refused:  # by name, at construction
        if "sync" in str(refused):
            return None
        raise


LONG = [*((kind, "local") for kind in KINDS), ("SSAM", "global")]
FAST = {("blend", "local", torch.bfloat16)}  # a thousand steps take 7 s; here ranks drift first, if they do
long_runs = [
    pytest.param(*run, dtype, marks=[] if (*run, dtype) in FAST else pytest.mark.slow, id="-".join([*run, str(dtype)]))
    for run in LONG for dtype in (torch.float32, torch.bfloat16)
]  # fmt: skip


@pytest.mark.parametrize(("name", "sync", "dtype"), long_runs)
def test_ranks_are_bit_identical_after_1000_steps(name, sync, dtype):
    first, second = on_ranks(train_long, name, sync, dtype)
    assert_same(first, second)
    assert all(bool(torch.isfinite(w).all()) for w in first)


def train_long(rank, name, sync, dtype):
    return train(rank, name, "sgd", steps=1000, dtype=dtype, sync=sync)


# What travels


class Traffic:
    """Counts the all-reduces of DDP's buckets and those of anybody else."""

    def __init__(self, model):
        self.buckets = self.others = 0
        model.register_comm_hook(None, self.hook)
        self.all_reduce = dist.all_reduce
        dist.all_reduce = self.count

    def hook(self, _, bucket):
        self.buckets += 1
        work = self.all_reduce(bucket.buffer(), async_op=True)
        return work.get_future().then(lambda done: done.value()[0] / 2)

    def count(self, *args, **kwargs):
        self.others += 1
        return self.all_reduce(*args, **kwargs)

    def close(self):
        dist.all_reduce = self.all_reduce


def traffic_of(rank, name, sync):
    model, opt = ddp_setup(name, "sgd", sync=sync)
    xs, ys = data()
    opt.step(closure(opt, model, share(xs[0], rank), share(ys[0], rank)))  # DDP rebuilds its buckets once
    traffic, seen = Traffic(model), []
    inner = closure(opt, model, share(xs[1], rank), share(ys[1], rank))

    def watched():
        seen.append((traffic.buckets, traffic.others))
        return inner()

    opt.step(watched)
    seen.append((traffic.buckets, traffic.others))
    traffic.close()
    # (before pass 1, before pass 2, at the end)
    return seen


@pytest.mark.parametrize(
    ("name", "sync", "want"),
    [
        ("SAM", "global", [(0, 0), (1, 0), (2, 0)]),
        ("SAM", "local", [(0, 0), (0, 0), (1, 0)]),
        ("USAM", "local", [(0, 0), (0, 0), (1, 0)]),
        ("SSAM", "global", [(0, 0), (1, 0), (2, 0)]),
        ("SSAM", "local", [(0, 0), (0, 0), (0, 1)]),
        ("blend", "local", [(0, 0), (0, 0), (0, 1)]),
    ],
)
def test_what_is_reduced_when(name, sync, want):
    """d = h: the second backward reduces h. Any other combine: d is reduced once, both passes are silent."""
    for seen in on_ranks(traffic_of, name, sync):
        assert seen == want


def gradient_norms(rank, name, sync):
    model, opt = ddp_setup(name, "sgd", sync=sync)
    xs, ys = data()
    opt.step(closure(opt, model, share(xs[0], rank), share(ys[0], rank)))
    return float(opt.last.grad_norm)


@every_kind
def test_local_gradients_differ_and_global_ones_do_not(name):
    first, second = on_ranks(gradient_norms, name, "local")
    assert abs(first - second) > 1e-3
    first, second = on_ranks(gradient_norms, name, "global")
    assert first == second


# DDP's options


@every_kind
@both_syncs
@pytest.mark.parametrize("option", ["gradient_as_bucket_view", "find_unused_parameters", "static_graph"])
def test_options_of_ddp_change_nothing(name, sync, option):
    want = on_ranks(train, name, "sgd_momentum") if sync == "global" else None
    first, second = on_ranks(train_with, name, sync, {option: True})
    assert_same(first, second)
    if want is not None:
        close(first, want[0], 1e-12)
    elif option != "static_graph":  # its first pass 1 is synchronised, so the first ascent is everybody's
        close(first, one_process(name, "sgd_momentum", micro=2), 1e-9)


def train_with(rank, name, sync, options):
    return train(rank, name, "sgd_momentum", ddp=options, sync=sync)


class Forked(torch.nn.Module):
    """Rank 0 uses `left`, rank 1 `right`, nobody `never`."""

    def __init__(self, rank):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.left, self.right = (torch.nn.Linear(6, 6), torch.nn.Linear(6, 3), torch.nn.Linear(6, 3))
        self.never, self.rank = torch.nn.Linear(2, 2), rank
        self.double()

    def forward(self, x):
        return (self.left if self.rank == 0 else self.right)(torch.tanh(self.first(x)))


def train_forked(rank, name, sync, view):
    options = {"find_unused_parameters": True, "gradient_as_bucket_view": view}
    model, opt = ddp_setup(name, "sgd_momentum", model=Forked(rank), ddp=options, sync=sync)
    never = weights(model.module.never)
    xs, ys = data()
    for x, y in zip(xs, ys, strict=True):
        opt.step(closure(opt, model, share(x, rank), share(y, rank)))
    assert_same(weights(model.module.never), never)
    return weights(model)


@every_kind
@both_syncs
@pytest.mark.parametrize("view", [False, True])
def test_parameters_that_only_one_rank_uses(name, sync, view):
    first, second = on_ranks(train_forked, name, sync, view)
    assert_same(first, second)


# Failures on one rank


def fault(rank, name, sync, policy, bad_pass, first_step):
    model, opt = ddp_setup(name, "sgd_momentum", sync=sync, nonfinite=policy)
    xs, ys = data()
    good = closure(opt, model, share(xs[0], rank), share(ys[0], rank))
    if not first_step:
        opt.step(good)
    before, calls, error = weights(model), [], None

    def bad():
        loss = good()
        calls.append(loss)
        if rank == 1 and len(calls) == bad_pass:
            opt.param_groups[0]["params"][0].grad.view(-1)[0] = float("inf")
        return loss

    def bad_input():  # before the reduction, as a real overflow is
        calls.append(None)
        x = share(xs[1], rank) * (float("inf") if rank == 1 and len(calls) == bad_pass else 1.0)
        return closure(opt, model, x, share(ys[1], rank))()

    try:
        opt.step(bad_input if sync == "global" or name == "SAM" else bad)
    except FloatingPointError as raised:
        error = str(raised)
    after = weights(model)
    opt.step(good)
    return before, after, error, weights(model), model.module[0].weight.grad is not None


@every_kind
@both_syncs
@pytest.mark.parametrize("policy", ["skip", "raise", "base_step"])
@pytest.mark.parametrize("bad_pass", [1, 2])
@pytest.mark.parametrize("first_step", [True, False])
def test_a_bad_gradient_on_one_rank_is_met_alike_on_all(name, sync, policy, bad_pass, first_step):
    answers = on_ranks(fault, name, sync, policy, bad_pass, first_step, timeout=20.0)
    (before, after, error, later, _), (_, after_1, error_1, later_1, _) = answers
    assert_same(after, after_1)
    assert_same(later, later_1)
    assert (error is None) == (error_1 is None) == (policy != "raise")
    assert all(bool(torch.isfinite(w).all()) for w in later)
    if policy != "base_step":
        assert_same(after, before)


def clipped(rank, name, sync):
    model, opt = ddp_setup(name, "sgd", sync=sync, max_norm=0.05)
    for group in opt.param_groups:
        group["lr"] = 1.0
    before = weights(model)
    xs, ys = data()
    opt.step(closure(opt, model, share(xs[0], rank), share(ys[0], rank)))
    return before, weights(model)


@every_kind
@both_syncs
def test_clipping_bounds_the_shared_d(name, sync):
    (before, after), (_, other) = on_ranks(clipped, name, sync)
    assert_same(after, other)
    moved = sum(float((a - b).norm() ** 2) for a, b in zip(after, before, strict=True)) ** 0.5
    assert moved == pytest.approx(0.05, rel=1e-3)


def refused(rank, what):
    model = mlp()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"sync = \"local\".*DistributedDataParallel"):
        fenland.SAM(base, sync="local", model=model if what == "plain" else None)
    return True


@pytest.mark.parametrize("what", ["plain", "none"])
def test_local_ascent_needs_the_ddp_module(what):
    assert all(on_ranks(refused, what))
