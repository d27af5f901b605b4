"""Contract 5 on shards: `torch.distributed.checkpoint` in all its ways, with fenland's own state, bit for bit."""

import copy
import tempfile

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)

from harness import BASES, assert_same
from kinds import of_each_kind
from ranks import on_ranks
from test_fsdp import line, sharded, shards
from worlds import EVERY, NAMES, build, closure, data, mlp, per_sample, rules, share, whole_only

SHARDED = [n for n in EVERY if not per_sample(n) and not whole_only(n)]
every_name = pytest.mark.parametrize("name", of_each_kind(SHARDED, rules))
some_names = pytest.mark.parametrize("name", NAMES)
bases = pytest.mark.parametrize("base", ["sgd", "adamw_fused"])
STEPS = 6


def session(name, base, rank=None):
    model = mlp() if rank is None else sharded(line())
    if rank is None:
        model = model.to(torch.float64)
    return model, build(name, BASES[base](model.parameters()), model=model, rho=0.2)


def go(model, opt, rank, steps):
    xs, ys = data(steps=STEPS)
    for t in steps:
        x, y = (xs[t], ys[t]) if rank is None else (share(xs[t], rank), share(ys[t], rank))
        opt.step(closure(opt, model, x, y))


def state_of(model, opt):
    made, state = get_state_dict(model, opt)
    return {"model": made, "opt": state}


def through_files(rank, name, base):
    """Saved to disk in pieces, loaded in place into a fresh session's state."""
    model, opt = session(name, base, rank)
    go(model, opt, rank, range(3))
    folder = [tempfile.mkdtemp()] if rank in (None, 0) else [None]
    if rank is not None:
        dist.broadcast_object_list(folder, src=0)
    dcp.save(state_of(model, opt), checkpoint_id=folder[0])
    fresh, other = session(name, base, rank)
    with torch.no_grad():
        for p in fresh.parameters():
            p.mul_(0.5)
    state = state_of(fresh, other)
    dcp.load(state, checkpoint_id=folder[0])
    set_state_dict(fresh, other, model_state_dict=state["model"], optim_state_dict=state["opt"])
    return finish(rank, model, opt, fresh, other)


def through_memory(rank, name, base, full):
    """get/set_optimizer_state_dict; `full` gathers everything on rank 0 and hands it out from there."""
    model, opt = session(name, base, rank)
    go(model, opt, rank, range(3))
    how = StateDictOptions(full_state_dict=full, cpu_offload=full)
    state = copy.deepcopy(get_optimizer_state_dict(model, opt, options=how))  # torch hands out the live tensors
    fresh, other = session(name, base, rank)
    fresh.load_state_dict(model.state_dict())
    back = StateDictOptions(full_state_dict=full, broadcast_from_rank0=full)
    set_optimizer_state_dict(fresh, other, state, options=back)
    return finish(rank, model, opt, fresh, other)


def finish(rank, model, opt, fresh, other):
    """Continue both; the new one must be bit-equal, and have groups, count and kept vectors of its own."""
    assert other.param_groups is other.base.param_groups
    go(model, opt, rank, range(3, STEPS))
    go(fresh, other, rank, range(3, STEPS))
    take = shards if rank is not None else lambda m: [p.detach() for p in m.parameters()]
    assert_same(take(fresh), take(model))
    assert other._memory.count == opt._memory.count == STEPS
    kept = [len(list(m._memory.kept.values())) for m in (opt, other)]
    assert kept[0] == kept[1]
    return kept[0]


@every_name
@bases
def test_files_on_two_ranks(name, base):
    first, second = on_ranks(through_files, name, base)
    assert first == second == (6 if name == "slow" else first)


# Plain SGD has no state, and then torch's own broadcast finds no device.
@some_names
@pytest.mark.parametrize("base", ["sgd_momentum", "adamw"])
@pytest.mark.parametrize("full", [False, True])
def test_state_dicts_on_two_ranks(name, base, full):
    on_ranks(through_memory, name, base, full)


def loaded_whole(rank, name):
    """A file from one process, loaded by hand into shards."""
    model, opt = session(name, "adamw")
    go(model, opt, None, range(3))
    state = get_optimizer_state_dict(model, opt)
    fresh, other = session(name, "adamw", rank)
    whole = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(fresh, other, state, options=whole)
    names = [f"fenland.{n}" for n in other.rules.method.keeps]
    mine = other.state_dict()["state"]
    theirs = opt.state_dict()["state"]
    for i in theirs:
        for n in ["exp_avg", *names]:
            assert_same(mine[i][n].full_tensor(), theirs[i][n])
    return True


@some_names
def test_a_checkpoint_of_one_process_loads_into_shards(name):
    assert all(on_ranks(loaded_whole, name))
