"""Meta's `schedulefree` itself, where it is installed, against a two-pass loop written by hand.

`pip install --target DIR --no-deps schedulefree` and DIR in PYTHONPATH are enough to run this file.
"""

from __future__ import annotations

import copy
import os
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fenland
from peer_loops import BATCH, FORMS, SIZE, Net, assert_same, batch, loss_of, net

schedulefree = pytest.importorskip("schedulefree", reason="needs Meta's package schedulefree, which no extra installs")

POINT = 8
RHO, STEPS = 0.1, 6
KINDS = {
    "AdamW": lambda p: schedulefree.AdamWScheduleFree(p, lr=0.05, warmup_steps=2, weight_decay=0.01),
    "SGD": lambda p: schedulefree.SGDScheduleFree(p, lr=0.5, warmup_steps=2),
    "RAdam": lambda p: schedulefree.RAdamScheduleFree(p, lr=0.05),
}


def by_hand(model: nn.Module, base: Any, t: int) -> None:
    """SAM from its definition: the second pass at w + rho g / |g| with the masks and buffers of the first."""
    params, buffers = list(model.parameters()), dict(model.named_buffers())
    before, start = copy.deepcopy(buffers), torch.get_rng_state()
    model.zero_grad()
    loss_of(model, t).backward()
    after, end = copy.deepcopy(buffers), torch.get_rng_state()
    length = torch.sqrt(sum((p.grad**2).sum() for p in params))
    w = [p.detach().clone() for p in params]
    with torch.no_grad():
        for p in params:
            p.add_(p.grad * (RHO / length))
        for name, b in buffers.items():
            b.copy_(before[name])
    torch.set_rng_state(start)
    model.zero_grad()
    loss_of(model, t).backward()
    with torch.no_grad():
        for p, x in zip(params, w, strict=True):
            p.copy_(x)
        for name, b in buffers.items():
            b.copy_(after[name])
    torch.set_rng_state(end)
    base.step()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_the_loop_by_hand(form, kind):
    """With evaluations between the steps, at the averaged weights, and a checkpoint that goes on."""
    model, want = net(), net()
    opt, base = fenland.SAM(KINDS[kind](model.parameters()), rho=RHO, model=model), KINDS[kind](want.parameters())
    losses = []
    for m, o in ((model, opt), (want, base)):
        torch.manual_seed(7)
        o.train()
        for t in range(STEPS):
            by_hand(m, o, t) if o is base else FORMS[form](o, lambda m=m, t=t: loss_of(m, t))
            o.eval()
            m.eval()
            losses.append(loss_of(m, t).detach())
            m.train()
            o.train()
    assert torch.allclose(torch.stack(losses[:STEPS]), torch.stack(losses[STEPS:]), rtol=0, atol=1e-8)
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-8)
    again = net()
    other = fenland.SAM(KINDS[kind](again.parameters()), rho=RHO, model=again)
    again.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    for m, o in ((model, opt), (again, other)):
        torch.manual_seed(8)
        FORMS[form](o, lambda m=m: loss_of(m, 2))
        o.eval()
    assert_same(dict(again.state_dict()), dict(model.state_dict()))


@pytest.mark.parametrize("form", FORMS)
def test_in_eval_mode_it_raises_and_all_is_as_before(form):
    model = net()
    opt = fenland.SAM(KINDS["AdamW"](model.parameters()), rho=RHO, model=model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(Exception, match="not in train mode"):
        FORMS[form](opt, lambda: loss_of(model))
    weights = dict(model.named_parameters())
    assert_same(weights, {name: before[name] for name in weights})
    assert opt.state_dict()["param_groups"][0]["fenland.count"] == 0


@pytest.mark.parametrize("name", ["AdamWScheduleFreeClosure", "SGDScheduleFreeClosure", "RAdamScheduleFreeClosure"])
def test_its_classes_that_evaluate_a_closure_are_refused_by_name(name):
    with pytest.raises(TypeError, match=rf"{name}, whose step\(\) needs a closure .* without Closure in its name"):
        fenland.SAM(getattr(schedulefree, name)(net().parameters(), lr=0.1), rho=RHO)


def test_its_wrapper_is_no_base_and_does_not_step_us_without_a_closure():
    model = net()
    inner = schedulefree.ScheduleFreeWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(TypeError, match=r"ScheduleFreeWrapper .*must be a torch\.optim\.Optimizer"):
        fenland.SAM(inner, rho=RHO)


def test_through_accelerate():
    accelerate = pytest.importorskip("accelerate")
    from fenland.integrations.accelerate import SharpnessAwareStep

    model, want = net(), net()
    opt, base = fenland.SAM(KINDS["SGD"](model.parameters()), rho=RHO, model=model), KINDS["SGD"](want.parameters())
    accelerator = accelerate.Accelerator(cpu=True)
    prepared, wrapped = accelerator.prepare(model, opt)
    step = SharpnessAwareStep(accelerator, prepared, wrapped)
    torch.manual_seed(7)
    wrapped.train()
    for t in range(STEPS):
        x, y = batch(t)
        step(lambda x=x, y=y: F.cross_entropy(prepared(x), y))
    wrapped.eval()
    torch.manual_seed(7)
    base.train()
    for t in range(STEPS):
        by_hand(want, base, t)
    base.eval()
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-8)


class Classifier(nn.Module):
    """As the Trainer wants it; no bias before BatchNorm, whose gradient is rounding that Adam makes large."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net(dropout=0.0)
        self.net.body[0] = nn.Linear(SIZE, 12, bias=False)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        logits = self.net(x)
        return logits if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


def test_the_trainer_with_optim_schedule_free_adamw(tmp_path):
    """The Trainer switches between train and eval by itself, through the wrapper; evaluation is at the averaged w."""
    transformers = pytest.importorskip("transformers")
    from fenland.integrations.transformers import SharpnessAwareTrainer

    class InOrder(SharpnessAwareTrainer):
        def _get_train_sampler(self, *args: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    torch.manual_seed(3)
    model = Classifier()
    want = copy.deepcopy(model)
    data = [batch(t, torch.float32) for t in range(4)]
    rows = [{"x": x, "labels": y} for xs, ys in data for x, y in zip(xs, ys, strict=True)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        optim="schedule_free_adamw",
        learning_rate=0.05,
        lr_scheduler_type="constant",
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        max_grad_norm=0,
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        use_cpu=True,
    )
    trainer = InOrder(
        model,
        arguments,
        train_dataset=rows,
        eval_dataset=rows,
        sharpness_aware=lambda base, model: fenland.SAM(base, rho=RHO, model=model),
    )
    trainer.train()
    inner = trainer.optimizer.optimizer.base
    assert isinstance(inner, schedulefree.AdamWScheduleFree)
    base = schedulefree.AdamWScheduleFree(want.parameters(), **{k: inner.defaults[k] for k in ("lr", "betas", "eps")})
    base.train()
    for t in range(4):
        by_hand(want, base, t)
    base.eval()
    want.eval()
    whole = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
    expected = F.cross_entropy(want(whole[0]), whole[1]).item()
    (evaluated,) = [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]
    assert evaluated == pytest.approx(expected, abs=1e-5)
    trainer.optimizer.eval()
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-5)
