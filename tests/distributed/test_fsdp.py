"""Contract 1 and 7 on sharded parameters (FSDP2, hybrid meshes, tensor parallel): as on one process, bit by bit."""

import warnings

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import fenland
from harness import BASES, assert_same
from ranks import CPU_SHARDS, on_ranks
from worlds import EVERY, NAMES, build, close, closure, data, mlp, one_process, per_sample, share, weights, whole_only

every_name = pytest.mark.parametrize("name", [n for n in EVERY if not per_sample(n) and not whole_only(n)])
some_names = pytest.mark.parametrize("name", NAMES)
KINDS = ["SAM", "SSAM", "blend", "slow"]
every_kind = pytest.mark.parametrize("name", KINDS)


def sharded(mesh, model=None, reshard=True):
    """Uneven on purpose: 3 rows over 2 ranks."""
    model = model or mlp()
    reshard = reshard and CPU_SHARDS
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh, reshard_after_forward=reshard)
    return fully_shard(model, mesh=mesh, reshard_after_forward=reshard)


def line(world=2):
    return init_device_mesh("cpu", (world,))


def shards(model):
    return [p.detach().to_local().clone() for p in model.parameters()]


def whole(model):
    return [p.detach().full_tensor() if hasattr(p, "full_tensor") else p.detach().clone() for p in model.parameters()]


def train(rank, name, base, steps=10, reshard=True, **options):
    torch.manual_seed(0)
    model = sharded(line(), reshard=reshard)
    opt = build(name, BASES[base](model.parameters()), model=model, **options)
    xs, ys = data(steps=steps)
    for x, y in zip(xs, ys, strict=True):
        opt.step(closure(opt, model, share(x, rank), share(y, rank)))
    return whole(model)


@every_name
@pytest.mark.parametrize("base", ["sgd_momentum"])
def test_ten_steps_equal_one_process_on_the_joint_batch(name, base):
    first, second = on_ranks(train, name, base)
    assert_same(first, second)
    close(first, one_process(name, base, steps=10), 1e-6)


@some_names
@pytest.mark.parametrize("base", ["adamw", "adamw_fused"])
def test_ten_steps_with_other_bases(name, base):
    first, second = on_ranks(train, name, base)
    assert_same(first, second)
    close(first, one_process(name, base, steps=10), 1e-6)


def train_unsharded_between(rank, name):
    return train(rank, name, "sgd_momentum", reshard=False)


@every_kind
def test_parameters_kept_whole_after_forward(name):
    """Without resharding, pass 2 must still see w + e: FSDP holds the gathered weights of pass 1."""
    first, second = on_ranks(train_unsharded_between, name)
    assert_same(first, second)
    close(first, one_process(name, "sgd_momentum", steps=10), 1e-6)


def clipped(rank, name):
    return train(rank, name, "sgd_momentum", max_norm=0.05)


@some_names
def test_clipping_uses_the_norm_over_all_shards(name):
    first, _ = on_ranks(clipped, name)
    close(first, one_process(name, "sgd_momentum", steps=10, max_norm=0.05), 1e-6)


def still(rank, name, two_calls):
    model = sharded(line())
    opt = build(name, torch.optim.SGD(model.parameters(), lr=0.0), rho=0.7, model=model)
    before, moved = shards(model), []
    xs, ys = data()
    for x, y in zip(xs, ys, strict=True):
        run = closure(opt, model, share(x, rank), share(y, rank))
        if two_calls:
            run()
            opt.ascend()
            moved.append(any(not torch.equal(a, b) for a, b in zip(shards(model), before, strict=True)))
            run()
            opt.descend()
        else:
            opt.step(run)
    return before, shards(model), all(moved)


@every_name
def test_lr_zero_leaves_every_shard_bit_identical(name):
    for before, after, _ in on_ranks(still, name, False):
        assert_same(after, before)


@every_kind
def test_two_calls_move_the_shards_and_bring_them_back(name):
    for before, after, moved in on_ranks(still, name, True):
        assert moved
        assert_same(after, before)


# Meshes


def hybrid(rank, name):
    """Two replicas of two shards each: an element counts once."""
    model = sharded(init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))
    opt = build(name, BASES["sgd_momentum"](model.parameters()), model=model, max_norm=0.1)
    xs, ys = data()
    norms = []
    for x, y in zip(xs, ys, strict=True):
        opt.step(closure(opt, model, share(x, rank, 4), share(y, rank, 4)))
        norms.append(float(opt.last.grad_norm))
    return norms, whole(model)


@pytest.mark.slow  # four processes
def test_a_hybrid_mesh_counts_each_element_once():
    for name in KINDS:
        answers = on_ranks(hybrid, name, world=4)
        want = one_process(name, "sgd_momentum", max_norm=0.1)
        for norms, got in answers:
            assert norms == answers[0][0]
            close(got, want, 1e-6)


def tensor_parallel(rank, name):
    """Columns of the first layer and rows of the second; their biases are sharded and replicated."""
    model = parallelize_module(mlp(), line(), {"0": ColwiseParallel(), "2": RowwiseParallel()})
    opt = build(name, BASES["sgd_momentum"](model.parameters()), model=model)
    xs, ys = data()
    for x, y in zip(xs, ys, strict=True):
        opt.step(closure(opt, model, x, y))
    return whole(model)


@every_kind
def test_tensor_parallel_layers(name):
    first, second = on_ranks(tensor_parallel, name)
    assert_same(first, second)
    close(first, one_process(name, "sgd_momentum"), 1e-9)


def mixed(rank, name):
    """Some parameters sharded, some plain."""
    model = mlp()
    fully_shard(model[0], mesh=line())
    opt = build(name, BASES["sgd"](model.parameters()), model=model)
    xs, ys = data()
    for x, y in zip(xs, ys, strict=True):

        def run(x=x, y=y):
            loss = closure(opt, model, share(x, rank), share(y, rank))()
            for p in model[2:].parameters():  # what DDP would do for the plain ones
                torch.distributed.all_reduce(p.grad)
                p.grad /= 2
            return loss

        opt.step(run)
    return whole(model)


@every_kind
def test_sharded_and_plain_parameters_together(name):
    first, second = on_ranks(mixed, name)
    close(first, second, 1e-12)
    close(first, one_process(name, "sgd"), 1e-9)


# The scaler


def scaled(rank, name, bad_pass):
    model = sharded(line(), mlp(torch.float32))
    opt = build(name, BASES["sgd_momentum"](model.parameters()), model=model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    xs, ys = data(torch.float32)
    before, calls = None, []
    for t in range(2):
        before = shards(model)

        def run(t=t):
            calls.append(t)
            bad = rank == 1 and t == 1 and calls.count(1) == bad_pass
            x = share(xs[t], rank) * (float("inf") if bad else 1.0)
            return closure(opt, model, x, share(ys[t], rank), scaler)()

        opt.step(run, scaler=scaler)
        scaler.update()
    return before, shards(model), scaler.get_scale()


@every_kind
@pytest.mark.parametrize("bad_pass", [0, 1, 2])
def test_grad_scaler_on_shards(name, bad_pass):
    for before, after, scale in on_ranks(scaled, name, bad_pass):
        assert scale == 2.0 ** (11 if bad_pass else 12)
        same = all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
        assert same == bool(bad_pass)


# What is refused, and ZeRO


def refuse_local(rank):
    model = sharded(line())
    with pytest.raises(ValueError, match=r"sync = \"local\".*sharded"):
        fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model, sync="local")
    return True


def test_local_ascent_is_refused_by_name():
    assert all(on_ranks(refuse_local))


def refuse_flat(rank, original):
    model = FullyShardedDataParallel(mlp(), use_orig_params=original, device_id=torch.device("cpu"))
    with pytest.raises(TypeError, match="fully_shard"):
        fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    return True


@pytest.mark.parametrize("original", [True, False])
def test_fsdp1_is_refused_with_the_cure(original):
    assert all(on_ranks(refuse_flat, original))


def zero(rank, name, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing it compiles with torch.jit.script, which is deprecated
        from torch.distributed.optim import ZeroRedundancyOptimizer
    model = nn.parallel.DistributedDataParallel(mlp())
    cls = torch.optim.AdamW
    base = ZeroRedundancyOptimizer(model.parameters(), cls, lr=0.01, **options)
    opt = build(name, base, model=model)
    xs, ys = data()
    for x, y in zip(xs, ys, strict=True):
        opt.step(closure(opt, model, share(x, rank), share(y, rank)))
    base.consolidate_state_dict(to=0)
    saved = len(opt.state_dict()["state"]) if rank == 0 else None
    return weights(model), saved


@every_kind
@pytest.mark.parametrize("options", [{}, {"fused": True}, {"parameters_as_bucket_view": True}], ids=str)
def test_zero_redundancy_optimizer_as_base(name, options):
    (first, saved), (second, _) = on_ranks(zero, name, options)
    assert_same(first, second)
    close(first, one_process(name, "adamw"), 1e-6)
    assert saved == 6


def without_host(rank, name):
    """The flow of an accelerator: a fused base, found_inf and grad_scale beside sharded parameters."""
    model = sharded(line(), mlp(torch.float32))
    opt = build(name, BASES["adamw_fused"](model.parameters()), model=model)
    opt._runner.on_host = False
    xs, ys = data(torch.float32)
    seen = []
    for t, (x, y) in enumerate(zip(xs, ys, strict=True)):
        before = shards(model)
        bad = float("inf") if (rank, t) == (1, 2) else 1.0
        opt.step(closure(opt, model, share(x, rank) * bad, share(y, rank)))
        still = all(torch.equal(a, b) for a, b in zip(shards(model), before, strict=True))
        seen.append((bool(opt.last.skipped), still))
    return seen, whole(model)


@every_kind
def test_a_skip_that_the_device_decides(name):
    (seen, first), (other, second) = on_ranks(without_host, name)
    assert seen == other == [(t == 2, t == 2) for t in range(5)]
    assert_same(first, second)


def refuse_shards(rank, name):
    with pytest.raises(ValueError, match="needs whole tensors"):
        train(rank, name, "sgd", steps=1)
    return True


@pytest.mark.parametrize("name", [n for n in EVERY if whole_only(n)])
def test_rules_that_need_whole_tensors_are_refused_by_name(name):
    assert all(on_ranks(refuse_shards, name))


def sampled(rank, name):
    model = sharded(line())
    opt = build(name, BASES["sgd"](model.parameters()), model=model, rho=0.2, record_every=1)
    x, y = (part[0] for part in data())
    opt.step(closure(opt, model, share(x, rank), share(y, rank)))
    return float(opt.last.radius), float(opt.last.realised_radius), float(opt.last.realised_cosine)


@every_kind
def test_the_realised_perturbation_is_measured_over_all_shards(name):
    for wanted, got, cosine in on_ranks(sampled, name):
        assert got == pytest.approx(wanted, rel=1e-9)
        assert cosine == pytest.approx(1.0, abs=1e-9)
