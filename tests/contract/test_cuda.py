"""Contract 9 and DESIGN section 4 on a GPU: no waiting, launches that do not grow with the tensors, graph capture."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import fenland

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
ROWS = [r for r in fenland.PRESETS.values() if r.syncs == 0 and not r.needs and not r.per_sample]
STEADY = [fenland.SAM, fenland.SSAM, fenland.GSAM]


def session(preset, tensors=4, **options):
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(64, 64, device="cuda")) for _ in range(tensors)]
    base = torch.optim.SGD(params, lr=0.01, momentum=0.9, fused=True)
    opt = preset(base, replay_rng=False, **options)

    def closure():
        for p in params:
            p.grad = None
        with torch.enable_grad():
            loss = torch.stack([p.square().sum() for p in params]).sum()
            loss.backward()
        return loss

    return params, opt, closure


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_no_step_waits_for_the_device(row):
    _, opt, closure = session(row.build)
    for _ in range(3):
        opt.step(closure)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            opt.step(closure)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def launches(preset, tensors):
    """Kernels of ascend and descend, gradients being there."""
    _, opt, closure = session(preset, tensors)
    for _ in range(3):
        opt.step(closure)
    count = 0
    for half in (opt.ascend, opt.descend):
        closure()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as watched:
            half()
            torch.cuda.synchronize()
        count += sum(e.count for e in watched.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA)
    return count


@pytest.mark.parametrize("preset", [fenland.SAM, fenland.SSAM], ids=lambda p: p.__name__)
def test_launches_do_not_grow_with_the_tensors(preset):
    """A foreach call takes some dozens of tensors a launch: sixteen times the tensors, few launches more."""
    few, many = launches(preset, 8), launches(preset, 128)
    assert many <= 2 * few


@pytest.mark.parametrize("preset", STEADY, ids=lambda p: p.__name__)
def test_a_whole_step_is_captured_as_a_graph(preset):
    """Replayed, it trains as the eager step does."""
    runs = []
    for captured in (False, True):
        params, opt, closure = session(preset)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                opt.step(closure)
        torch.cuda.current_stream().wait_stream(side)
        if captured:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                opt.step(closure)
            for _ in range(3):
                graph.replay()
        else:
            for _ in range(3):
                opt.step(closure)
        runs.append([p.detach().clone() for p in params])
    for a, b in zip(*runs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("preset", STEADY, ids=lambda p: p.__name__)
def test_offloaded_weights_come_back_bit_by_bit_from_the_host(preset):
    params, opt, closure = session(preset, perturb="offload")
    for group in opt.param_groups:
        group["lr"] = 0.0
    before = [p.detach().clone() for p in params]
    for _ in range(3):
        opt.step(closure)
    assert all(torch.equal(a, p.detach()) for a, p in zip(before, params, strict=True))


def test_offloading_needs_no_more_than_the_base():
    """Peak of the device's memory in a step, beyond one gradient."""
    params, opt, closure = session(fenland.SAM, tensors=64, perturb="offload")
    size = sum(p.nbytes for p in params)
    for _ in range(2):
        opt.step(closure)
    for p in params:
        p.grad = None
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    opt.step(closure)
    assert torch.cuda.max_memory_allocated() - start < 1.3 * size
