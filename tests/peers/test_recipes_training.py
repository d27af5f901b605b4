"""Recipes of training around the step: averages, schedules, checkpointed forwards, fine-tuning loops.

The stand-ins keep the structure that matters: who zeroes, who runs forward and backward, who steps, and in which order.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler, swa_utils
from torch.utils.checkpoint import checkpoint

from peer_loops import (
    FORMS,
    SIZE,
    STEPS,
    assert_same,
    by_closure,
    counted,
    loss_of,
    net,
    plain_loop,
    rows,
    seed,
    sgd,
    ssam,
)

POINT = 8


# Averages of the weights


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["EMA", "SWA"])
@pytest.mark.parametrize("use_buffers", [True, False])
def test_averages_are_of_w_and_never_of_w_plus_e(form, kind, use_buffers):
    average = swa_utils.get_ema_multi_avg_fn(0.9) if kind == "EMA" else None
    model, want = net(), net()
    averaged = swa_utils.AveragedModel(model, multi_avg_fn=average, use_buffers=use_buffers)
    reference = swa_utils.AveragedModel(want, multi_avg_fn=average, use_buffers=use_buffers)
    opt, other = ssam(model), ssam(want)
    seed()
    for t in range(STEPS):
        FORMS[form](opt, lambda t=t: loss_of(model, t))
        averaged.update_parameters(model)
    rng = torch.get_rng_state()
    seed()
    for t in range(STEPS):
        by_closure(other, lambda t=t: loss_of(want, t))
        reference.update_parameters(want)
    assert torch.equal(rng, torch.get_rng_state())
    assert_same(dict(averaged.state_dict()), dict(reference.state_dict()))
    swa_utils.update_bn([x for x, _ in rows()], averaged)
    seed()
    FORMS[form](opt, lambda: loss_of(model))  # the average's own forwards are none of the model's
    seed()
    by_closure(other, lambda: loss_of(want))
    assert_same(dict(model.state_dict()), dict(want.state_dict()))


def test_swa_by_the_book():
    """torch's recipe: SWALR on the fenland optimizer, AveragedModel, update_bn at the end."""
    model = net()
    opt = ssam(model)
    averaged, schedule = swa_utils.AveragedModel(model), swa_utils.SWALR(opt, swa_lr=0.02, anneal_epochs=2)
    weights = []
    for _ in range(3):
        for t in range(2):
            by_closure(opt, lambda t=t: loss_of(model, t))
        averaged.update_parameters(model)
        weights.append(model.head.weight.detach().clone())
        schedule.step()
    swa_utils.update_bn([x for x, _ in rows()], averaged)
    torch.testing.assert_close(averaged.module.head.weight, torch.stack(weights).mean(0))
    assert opt.base.param_groups[0]["lr"] == pytest.approx(0.02)
    assert counted(averaged.module) == STEPS


# Schedulers


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=STEPS),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, base_lr=0.05, max_lr=0.2, step_size_up=2),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=2), lr_scheduler.CosineAnnealingLR(o, STEPS)], milestones=[2]
    ),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_see_the_optimizer_that_they_drive(form, name):
    """Learning rate and momentum follow as on the plain base, and the next step uses them."""
    model, want = net(), net()
    opt, alone = ssam(model, rho=0.0), sgd(want)
    schedules = [SCHEDULERS[name](o) for o in (opt, alone)]
    seed()
    for t in range(STEPS):
        rng = torch.get_rng_state()
        FORMS[form](opt, lambda t=t: loss_of(model, t))
        torch.set_rng_state(rng)
        alone.zero_grad()
        loss = loss_of(want, t)
        loss.backward()
        alone.step()
        for schedule in schedules if t < STEPS - 1 else ():
            schedule.step(1.0) if name == "ReduceLROnPlateau" else schedule.step()
        for key in ("lr", "momentum"):
            assert opt.param_groups[0][key] == opt.base.param_groups[0][key] == alone.param_groups[0][key]
    assert_same(dict(model.state_dict()), dict(want.state_dict()))
    resumed = SCHEDULERS[name](ssam(net()))
    resumed.load_state_dict(copy.deepcopy(schedules[0].state_dict()))


# Gradient checkpointing


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.net, self.reentrant = net(), reentrant

    def forward(self, x: Tensor) -> Tensor:
        z = checkpoint(self.net.body, x.requires_grad_(True), use_reentrant=self.reentrant)
        return checkpoint(self.net.head, z, use_reentrant=self.reentrant)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_inside_a_model(form, reentrant):
    """Recomputed masks are those of the forward in both passes, so weights equal the model without checkpointing."""
    model, want = Checkpointed(reentrant), net()
    opt, other = ssam(model), ssam(want)
    seed()
    for t in range(3):
        FORMS[form](opt, lambda t=t: loss_of(model, t))
    seed()
    for t in range(3):
        by_closure(other, lambda t=t: loss_of(want, t))
    for (name, p), q in zip(model.net.named_parameters(), want.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12, msg=name)


# A loop over tokens, as supervised fine-tuning runs it


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 11, bias=False)
        self.drop = nn.Dropout(0.1)
        self.head.weight = self.embed.weight  # tied

    def forward(self, ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.head(self.drop(torch.tanh(self.mix(self.embed(ids)))))
        loss = F.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
        )
        return {"loss": loss, "logits": logits}


def words() -> Words:
    torch.manual_seed(3)
    return Words().double()


def sentences(t: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(t)
    ids = torch.randint(11, (4, 7), generator=g)
    labels = ids.clone()
    labels[torch.rand(ids.shape, generator=g) < 0.3] = -100
    return ids, labels


@pytest.mark.parametrize("form", FORMS)
def test_a_fine_tuning_loop_with_accumulation_divides_by_all_tokens(form):
    """Micro-batches of unequal token counts, tied embeddings: equal to one batch of everything."""
    model, want = words(), words()
    model.drop.p = want.drop.p = 0.0
    opt, other = ssam(model), ssam(want)
    for t in range(3):
        ids, labels = sentences(t)
        tokens = int((labels[:, 1:] != -100).sum())

        def micro(model: nn.Module = model, ids: Tensor = ids, labels: Tensor = labels, tokens: int = tokens) -> None:
            for a, b in zip(ids.chunk(2), labels.chunk(2), strict=True):
                (model(a, b)["loss"] / tokens).backward()

        if form == "closure":
            opt.step(lambda micro=micro: opt.zero_grad() or micro())
        else:
            opt.zero_grad()
            micro()
            with opt.ascent():
                micro()

        by_closure(other, lambda i=ids, k=labels, n=tokens: want(i, k)["loss"] / n)
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-12)


def test_the_batches_of_these_tests_are_not_trivial():
    assert rows()[0][0].shape[1] == SIZE
    model = net()
    opt = ssam(model)
    losses = plain_loop(model, opt, rows() * 5)
    assert losses[-1] < losses[0]
