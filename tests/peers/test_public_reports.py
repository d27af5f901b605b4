"""Public reports about other SAM optimizers and about optimizers that wrap others, tried on fenland.

Each test names its report; what the plain base, or fenland's own loop, makes of the same batches is computed beside it.
"""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fenland
from peer_loops import FORMS, assert_same, batch, by_closure, counted, fenland_state, loss_of, net, sgd, ssam

POINT = 8
STEPS = 4


@pytest.fixture(autouse=True)
def fresh_state():
    yield
    try:
        from accelerate.state import AcceleratorState, GradientState, PartialState
    except ImportError:
        return
    for shared in (AcceleratorState, GradientState, PartialState):
        shared._reset_state()


def disable_running_stats(model: nn.Module) -> None:
    """The helper of davda54/sam's README."""
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.backup_momentum = m.momentum
            m.momentum = 0


def enable_running_stats(model: nn.Module) -> None:
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and hasattr(m, "backup_momentum"):
            m.momentum = m.backup_momentum


@pytest.mark.parametrize("form", ["two calls", "closure"])
def test_batch_norm_switched_off_by_hand_in_pass_2(form):
    """davda54/sam #17 and #30: the README's `bypass_bn` stays in people's loops, and must not hurt."""
    model, want = net(torch.float32), net(torch.float32)
    opt, reference = ssam(model), ssam(want)
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for t in range(STEPS):
            if form == "two calls":
                opt.zero_grad()
                enable_running_stats(model)
                loss_of(model, t).backward()
                opt.first_step(zero_grad=True)
                disable_running_stats(model)
                loss_of(model, t).backward()
                opt.second_step(zero_grad=True)
                enable_running_stats(model)
                continue
            passes: list[int] = []

            def closure(t: int = t, passes: list[int] = passes) -> Tensor:
                (disable_running_stats if passes else enable_running_stats)(model)
                passes.append(1)
                opt.zero_grad()
                loss = loss_of(model, t)
                loss.backward()
                return loss

            opt.step(closure)
            enable_running_stats(model)
    torch.manual_seed(3)
    for t in range(STEPS):
        by_closure(reference, lambda t=t: loss_of(want, t))
    assert counted(model) == STEPS
    assert_same(dict(model.state_dict()), dict(want.state_dict()))


def test_clipping_by_hand_changes_what_reads_the_length_of_g():
    """SSAM's factor |g| / |h| sees the clipped g; max_norm= clips d alone, as clip_grad_norm_ would clip it."""
    factors, steps = {}, {}
    for way in ("not at all", "by hand", "max_norm"):
        model = net()
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        base = torch.optim.SGD(model.parameters(), lr=1.0)
        opt = fenland.SSAM(base, rho=0.2, model=model, max_norm=1e-3 if way == "max_norm" else None)
        torch.manual_seed(4)
        loss_of(model).backward()
        if way == "by hand":
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        opt.ascend()
        loss_of(model).backward()
        opt.descend()
        factors[way] = float(opt.last.gamma)
        steps[way] = before - torch.cat([p.detach().flatten() for p in model.parameters()])
    assert factors["max_norm"] == factors["not at all"]
    assert factors["by hand"] < 0.1 * factors["not at all"]
    d = steps["not at all"]
    torch.testing.assert_close(steps["max_norm"], d * 1e-3 / (d.norm() + 1e-6), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("preset", ["SAM", "GNP"])
def test_clipping_by_hand_before_ascend(preset):
    """davda54/sam #32 and #64: a clipped g has the same direction, so a normalised ascent is the same.

    Methods that read ||g|| (SSAM's factor) see the clipped one: docs/compatibility.md says to use max_norm=.
    """
    results = []
    for clips in (False, True):
        model = net()
        opt = getattr(fenland, preset)(sgd(model), rho=0.2, model=model)
        loss_of(model).backward()
        g = torch.cat([p.grad.flatten() for p in model.parameters()])
        if clips:
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        w = torch.cat([p.detach().flatten() for p in model.parameters()])
        opt.ascend()
        e = torch.cat([p.detach().flatten() for p in model.parameters()]) - w
        opt.restore()
        results.append(e)
        torch.testing.assert_close(e, 0.2 * g / g.norm(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


def test_what_a_closure_leaves_in_outer_variables_is_of_its_last_call():
    """plenoptic #485: metrics read from a closure's variables belong to w + e; what `step` returns belongs to w."""
    model = net(dropout=0.0)
    opt = ssam(model)
    seen: dict[str, Tensor] = {}

    def closure() -> dict[str, Tensor]:
        opt.zero_grad()
        seen["loss"] = loss_of(model)
        seen["loss"].backward()
        return {"loss": seen["loss"]}

    at_w = float(loss_of(copy.deepcopy(model)).detach())
    returned = opt.step(closure)
    assert float(returned["loss"].detach()) == pytest.approx(at_w, abs=1e-12)
    assert float(seen["loss"].detach()) == float(opt.last.loss_ascent) > at_w


def test_fabric_s_wrapper_after_loading(tmp_path):
    """Lightning #18482: an optimizer that `fabric.setup` wrapped, loaded from a checkpoint, steps on as before."""
    fabric_module = pytest.importorskip("lightning.fabric")

    def begin() -> tuple[Any, nn.Module, Any]:
        fabric = fabric_module.Fabric(accelerator="cpu", devices=1)
        inner = net(torch.float32)
        wrapped, opt = fabric.setup(inner, fenland.VaSSO(sgd(inner), rho=0.1, model=inner))
        return fabric, wrapped, opt

    def train(model: nn.Module, opt: Any, steps: range) -> None:
        for t in steps:
            torch.manual_seed(t)
            by_closure(opt, lambda t=t: loss_of(model, t))

    fabric, model, opt = begin()
    train(model, opt, range(2))
    fabric.save(tmp_path / "half.ckpt", {"model": model, "opt": opt})
    train(model, opt, range(2, 4))
    other_fabric, other, resumed = begin()
    other_fabric.load(tmp_path / "half.ckpt", {"model": other, "opt": resumed})
    train(other, resumed, range(2, 4))
    assert_same(dict(other.state_dict()), dict(model.state_dict()))
    assert resumed.param_groups[0] is resumed.optimizer.base.param_groups[0]


@pytest.mark.parametrize("also_prepare", [True, False])
def test_a_scheduler_under_accelerate_drives_the_base(also_prepare):
    """apex #766 and dp-transformers #43: after wrapping or loading, a scheduler wrote into dead groups."""
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    inner = net(torch.float32)
    raw = ssam(inner)
    schedule = torch.optim.lr_scheduler.StepLR(raw, 1, 0.5)
    model, opt = accelerator.prepare(inner, raw)
    if also_prepare:
        schedule = accelerator.prepare(schedule)
    opt.load_state_dict(copy.deepcopy(opt.state_dict()))
    for k in range(2):
        raw.step(lambda: opt.zero_grad() or accelerator.backward(loss_of(model)))
        schedule.step()
        rates = {g["lr"] for o in (opt, raw, raw.base) for g in o.param_groups}
        assert rates == {0.1 * 0.5 ** (k + 1)}
    groups = [dict(g) for g in opt.param_groups]
    opt.param_groups = [{**g, "lr": 0.7} for g in groups]
    assert raw.base.param_groups[0]["lr"] == 0.7


def test_accelerate_s_step_with_a_closure():
    """accelerate #105: the wrapper passes a closure on, so a loop without accumulation works as it stands."""
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    inner, want = net(torch.float32), net(torch.float32)
    model, opt = accelerator.prepare(inner, ssam(inner))
    reference = ssam(want)
    torch.manual_seed(3)
    for t in range(STEPS):
        opt.step(lambda t=t: opt.zero_grad() or accelerator.backward(loss_of(model, t)))
    torch.manual_seed(3)
    for t in range(STEPS):
        by_closure(reference, lambda t=t: loss_of(want, t))
    assert_same(dict(inner.state_dict()), dict(want.state_dict()), 1e-6)


def test_accelerate_s_step_with_a_closure_while_it_accumulates_is_refused():
    """The wrapper leaves out steps between synchronisations, closure and all: their batches would be lost."""
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    inner = net(torch.float32)
    model, opt = accelerator.prepare(inner, ssam(inner))
    before = {k: v.clone() for k, v in inner.named_parameters()}

    def loop() -> None:
        for t in range(2):
            with accelerator.accumulate(model):
                opt.step(lambda t=t: opt.zero_grad() or accelerator.backward(loss_of(model, t)))

    with pytest.raises(RuntimeError, match="SharpnessAwareStep"):
        loop()
    assert_same(dict(inner.named_parameters()), before)


def test_distributed_checkpoint_of_a_fresh_optimizer_leaves_it_fresh():
    """pytorch #164929: get_optimizer_state_dict steps a fresh optimizer with lr 0; fenland's own count stays 0."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    results = []
    for wrapped in (True, False):
        model = net(dropout=0.0)
        base = torch.optim.AdamW(model.parameters(), lr=0.01)
        opt = fenland.SAM(base, rho=0.0, model=model) if wrapped else base
        get_optimizer_state_dict(model, opt, options=StateDictOptions(full_state_dict=True))
        if wrapped:
            assert fenland_state(opt)["group 0 fenland.count"] == 0
        opt.zero_grad()
        for t in range(2):
            if wrapped:
                by_closure(opt, lambda t=t, m=model: loss_of(m, t))
                continue
            opt.zero_grad()
            loss_of(model, t).backward()
            opt.step()
        results.append(dict(model.state_dict()))
    assert_same(*results)


def test_distributed_checkpoint_while_gradients_are_there():
    """pytorch #140898: a state dict taken after a step, before zero_grad, is whole."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    model = net(dropout=0.0)
    opt = fenland.VaSSO(torch.optim.AdamW(model.parameters(), lr=0.01), rho=0.1, model=model)
    by_closure(opt, lambda: loss_of(model))
    assert next(model.parameters()).grad is not None
    state = get_optimizer_state_dict(model, opt)
    other = copy.deepcopy(model)
    resumed = fenland.VaSSO(torch.optim.AdamW(other.parameters(), lr=0.01), rho=0.1, model=other)
    set_optimizer_state_dict(other, resumed, copy.deepcopy(state))
    for o, m in ((opt, model), (resumed, other)):
        by_closure(o, lambda m=m: loss_of(m, 1))
    assert_same(dict(other.state_dict()), dict(model.state_dict()), 1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_group(form):
    """pytorch #143828: a group without parameters, as layer-wise recipes leave behind."""
    model = net()
    params = list(model.parameters())
    base = torch.optim.AdamW([{"params": params}, {"params": [], "lr": 0.5}], lr=0.01)
    opt = fenland.SAM(base, rho=0.2, model=model)
    FORMS[form](opt, lambda: loss_of(model))
    opt.load_state_dict(copy.deepcopy(opt.state_dict()))
    FORMS[form](opt, lambda: loss_of(model))
    assert float(opt.last.radius) == pytest.approx(0.2)
    assert opt.param_groups[1]["params"] == []


def test_an_optimizer_in_backward_is_refused():
    """The step-in-backward recipe (torch's tutorial) has one gradient and no second pass."""
    model = net()
    opts = {p: fenland.SAM(torch.optim.SGD([p], lr=0.1), rho=0.1) for p in model.parameters()}
    before = {k: v.clone() for k, v in model.named_parameters()}
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: opts[p].step())
    with pytest.raises(RuntimeError, match=r"step\(\) without a closure"):
        loss_of(model).backward()
    assert_same(dict(model.named_parameters()), before)


def test_a_scheduler_s_state_saves_without_the_optimizer_inside():
    """mmengine #375: a scheduler on a wrapped optimizer saved the wrapper with it, loggers and all."""
    opt = ssam(net())
    for make in (
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=5),
        lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.05, 0.2),
        lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o),
        lambda o: torch.optim.swa_utils.SWALR(o, 0.05),
    ):
        out = io.BytesIO()
        torch.save({k: v for k, v in make(opt).state_dict().items() if not callable(v)}, out)
        assert out.tell() < 20_000
        out.seek(0)
        torch.load(out, weights_only=True)


def test_manual_optimization_on_the_inner_optimizer():
    """davda54/sam #31: `self.optimizers().optimizer.step(closure)` reaches past Lightning's wrapper, and is right."""
    pl = pytest.importorskip("lightning.pytorch")

    class Manual(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.automatic_optimization = net(torch.float32, dropout=0.0), False

        def training_step(self, pair: Any, batch_idx: int) -> None:
            opt = self.optimizers().optimizer

            def closure() -> Tensor:
                opt.zero_grad()
                loss = F.cross_entropy(self.net(pair[0]), pair[1])
                self.manual_backward(loss)
                return loss

            opt.step(closure)

        def configure_optimizers(self) -> Any:
            return ssam(self.net)

    module, want = Manual(), net(torch.float32, dropout=0.0)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    rows = [batch(t, torch.float32) for t in range(STEPS)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, torch.utils.data.DataLoader(rows, batch_size=None))
    reference = ssam(want)
    for t in range(STEPS):
        by_closure(reference, lambda t=t: loss_of(want, t))
    assert_same(dict(module.net.state_dict()), dict(want.state_dict()), 1e-6)
