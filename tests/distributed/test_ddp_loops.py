"""DDP in the loops that people write: under a scaler, with accumulation, in two calls, with buffers."""

import copy

import pytest
import torch
from torch import nn

from harness import BASES, assert_same, buffers
from ranks import on_ranks
from test_ddp import KINDS, both_syncs, every_kind, train
from worlds import build, close, closure, data, ddp_setup, mlp, one_process, share, weights

SCALE = 2.0**12


def scaled(rank, name, sync, bad_pass):
    model, opt = ddp_setup(name, "sgd_momentum", model=mlp(torch.float32), sync=sync)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, growth_interval=1000)
    xs, ys = data(torch.float32)
    scales, kept = [], []
    for t in range(3):
        calls = []

        def run(t=t, calls=calls):
            calls.append(None)
            bad = t == 1 and rank == 1 and len(calls) == bad_pass
            x = share(xs[t], rank) * (float("inf") if bad else 1.0)
            return closure(opt, model, x, share(ys[t], rank), scaler)()

        kept.append(weights(model))
        opt.step(run, scaler=scaler)
        scaler.update()
        scales.append(scaler.get_scale())
    return scales, kept, weights(model)


def train_float32(rank, name, sync):
    return train(rank, name, "sgd_momentum", 3, torch.float32, sync=sync)


@every_kind
@both_syncs
@pytest.mark.parametrize("bad_pass", [0, 1, 2])
def test_scalers_of_all_ranks_stay_equal(name, sync, bad_pass):
    """An overflow on one rank skips on all and backs every scaler off, once."""
    (scales, kept, end), (scales_1, _, end_1) = on_ranks(scaled, name, sync, bad_pass)
    assert scales == scales_1 == ([SCALE] * 3 if not bad_pass else [SCALE, SCALE / 2, SCALE / 2])
    assert_same(end, end_1)
    if bad_pass:
        assert_same(kept[2], kept[1])
    else:
        unscaled, _ = on_ranks(train_float32, name, sync)
        close(end, unscaled, 1e-5)


def accumulated(rank, name, sync):
    """K = 2 micro-batches on each rank: no_sync for all but the last."""
    model, opt = ddp_setup(name, "sgd_momentum", sync=sync)
    xs, ys = data()
    for x, y in zip(xs, ys, strict=True):
        mine, target = share(x, rank), share(y, rank)

        def run(mine=mine, target=target):
            opt.zero_grad()
            with model.no_sync():
                loss = nn.functional.cross_entropy(model(share(mine, 0)), share(target, 0)) / 2
                loss.backward()
            last = nn.functional.cross_entropy(model(share(mine, 1)), share(target, 1)) / 2
            last.backward()
            return loss.detach() + last.detach()

        opt.step(run)
    return weights(model)


@every_kind
@both_syncs
def test_accumulation_under_no_sync(name, sync):
    first, second = on_ranks(accumulated, name, sync)
    assert_same(first, second)
    close(first, one_process(name, "sgd_momentum", micro=2 if sync == "local" else 0), 1e-9)


def micro_batches(rank, name, sync):
    """m-SAM under DDP: two micro-batches a rank, each with its own ascent."""
    model, opt = ddp_setup(name, "sgd_momentum", sync=sync)
    xs, ys = data()
    for x, y in zip(xs, ys, strict=True):
        mine, target = share(x, rank), share(y, rank)
        opt.step([closure(opt, model, share(mine, i), share(target, i)) for i in range(2)])
    return weights(model)


@every_kind
def test_micro_batches_on_two_ranks_are_four(name):
    first, second = on_ranks(micro_batches, name, "local")
    assert_same(first, second)
    close(first, one_process(name, "sgd_momentum", micro=4), 1e-9)


def two_calls(rank, name):
    """By hand: no_sync must cover the forward, where DDP decides."""
    model, opt = ddp_setup(name, "sgd_momentum", sync="local")
    xs, ys = data()
    for x, y in zip(xs, ys, strict=True):
        run = closure(opt, model, share(x, rank), share(y, rank))
        with model.no_sync():
            run()
        opt.ascend()
        run()
        opt.descend()
    return weights(model)


def test_local_ascent_in_two_calls():
    first, second = on_ranks(two_calls, "SAM")
    assert_same(first, second)
    close(first, one_process("SAM", "sgd_momentum", micro=2), 1e-9)


def with_norm(rank, name, sync):
    torch.manual_seed(3)
    inner = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3)).double()
    model, opt = ddp_setup(name, "sgd_momentum", model=inner, sync=sync)
    torch.manual_seed(10 + rank)
    xs, ys = data()
    for x, y in zip(xs, ys, strict=True):
        opt.step(closure(opt, model, share(x, rank), share(y, rank)))
    with torch.no_grad():
        model(share(xs[0], rank))  # DDP broadcasts rank 0's buffers at the next forward
    counted = int(buffers(inner)["1.num_batches_tracked"])
    return counted, weights(model)


@pytest.mark.parametrize("name", KINDS)
@both_syncs
def test_buffers_count_one_forward_a_step(name, sync):
    (counted, first), (_, second) = on_ranks(with_norm, name, sync)
    assert counted == 5 + 1
    assert_same(first, second)


def resumed(rank, name, sync):
    """Half of the steps, a checkpoint, fresh objects, the other half."""
    model, opt = ddp_setup(name, "adamw", sync=sync)
    xs, ys = data()

    def go(model, opt, steps):
        for t in steps:
            opt.step(closure(opt, model, share(xs[t], rank), share(ys[t], rank)))

    go(model, opt, range(2))
    fresh = mlp()
    fresh.load_state_dict(model.module.state_dict())
    again, other = ddp_setup(name, "adamw", model=fresh, sync=sync)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))  # torch takes the tensors as they are
    go(model, opt, range(2, 5))
    go(again, other, range(2, 5))
    return weights(model), weights(again)


@every_kind
@both_syncs
def test_resume_is_bit_exact(name, sync):
    for whole, rest in on_ranks(resumed, name, sync):
        assert_same(rest, whole)


def static_graph_again(rank):
    """A second DDP module on the same process, local from its first step."""
    model = nn.parallel.DistributedDataParallel(mlp(), static_graph=True)
    opt = build("SAM", BASES["sgd"](model.parameters()), model=model, sync="local")
    xs, ys = data()
    norms = []
    for t in range(3):
        opt.step(closure(opt, model, share(xs[t], rank), share(ys[t], rank)))
        norms.append(float(opt.last.grad_norm))
    return norms


def test_a_static_graph_is_synchronised_once():
    first, second = on_ranks(static_graph_again)
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, False, False]
