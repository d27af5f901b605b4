"""Recipes of docs/compatibility.md against the plain loop; packages outside constraints.txt have a stand-in here.

The stand-ins keep the structure that matters: who zeroes, who runs forward and backward, who steps, and in which order.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fenland
from peer_loops import (
    FORMS,
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


def expected(dtype: torch.dtype = torch.float64, **options: Any) -> tuple[nn.Module, list[float]]:
    model = net(dtype)
    seed()
    return model, plain_loop(model, ssam(model, **options), rows(dtype))


# skorch: `train_step` hands a closure to the optimizer, as torch teaches


class SkorchNet:
    """skorch.NeuralNet: `train_step` makes the closure, the first result is what is logged."""

    def __init__(self, module: nn.Module, optimizer: Any) -> None:
        self.module_, self.optimizer_, self.losses = module, optimizer, []

    def train_step(self, pair: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        kept: list[dict[str, Tensor]] = []

        def step_fn() -> Tensor:
            self.optimizer_.zero_grad()
            self.module_.train()
            y_pred = self.module_(pair[0])
            loss = F.cross_entropy(y_pred, pair[1])
            loss.backward()
            kept.append({"loss": loss, "y_pred": y_pred})
            return loss

        self.optimizer_.step(step_fn)
        return kept[0]

    def partial_fit(self, data: list[tuple[Tensor, Tensor]]) -> None:
        self.losses += [float(self.train_step(pair)["loss"].detach()) for pair in data]


def test_skorch_s_structure_works_as_it_is():
    want, losses = expected()
    model = net()
    seed()
    trained = SkorchNet(model, ssam(model))
    trained.partial_fit(rows())
    assert_same(dict(model.state_dict()), dict(want.state_dict()))
    assert trained.losses == losses


@pytest.mark.skipif(importlib.util.find_spec("skorch") is None, reason="needs skorch")
@pytest.mark.filterwarnings("ignore")
def test_skorch_itself():
    from skorch import NeuralNetClassifier

    class Sharp(NeuralNetClassifier):
        def initialize_optimizer(self, *args: Any, **kwargs: Any) -> Any:
            super().initialize_optimizer(*args, **kwargs)
            self.optimizer_ = ssam(self.module_, self.optimizer_)
            return self

    data = rows(torch.float32)
    x, y = torch.cat([a for a, _ in data]), torch.cat([b for _, b in data])
    model = net(torch.float32)
    made = Sharp(
        model,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=0.1,
        batch_size=len(data[0][0]),
        max_epochs=1,
        train_split=None,
        iterator_train__shuffle=False,
        verbose=0,
    ).initialize()
    fresh = {k: v.clone() for k, v in made.module_.state_dict().items()}
    seed()
    made.partial_fit(x.numpy(), y.numpy())
    want = net(torch.float32)
    want.load_state_dict(fresh)
    seed()
    torch.empty((), dtype=torch.int64).random_()  # the loader's base seed
    plain_loop(want, ssam(want), data)
    assert_same(dict(made.module_.state_dict()), dict(want.state_dict()), 1e-6)


# ignite: the update function is the user's


class Engine:
    """ignite.engine.Engine: runs an update function over the data and keeps what it returns."""

    def __init__(self, update: Callable[[Any, Any], Any]) -> None:
        self.update, self.outputs = update, []

    def run(self, data: Iterable[Any]) -> None:
        self.outputs += [self.update(self, pair) for pair in data]


def ignite_update(model: nn.Module, opt: Any) -> Callable[[Any, Any], float]:
    """The recipe."""

    def update(engine: Any, pair: Any) -> float:
        model.train()
        x, y = pair

        def closure() -> Tensor:
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        return float(opt.step(closure).detach())

    return update


@pytest.mark.parametrize("kind", ["stand-in", "ignite"])
def test_ignite_s_update_function_steps_with_a_closure(kind):
    want, losses = expected()
    model = net()
    opt = ssam(model)
    seed()
    if kind == "stand-in":
        engine = Engine(ignite_update(model, opt))
        engine.run(rows())
        assert engine.outputs == losses
    else:
        ignite = pytest.importorskip("ignite.engine")
        ignite.Engine(ignite_update(model, opt)).run(rows(), max_epochs=1)
    assert_same(dict(model.state_dict()), dict(want.state_dict()))


# fastai and other trainers with callbacks around their own step: one recipe


class CancelStepError(Exception):
    """fastai's CancelStepException: the trainer leaves its own `opt.step()` out."""


class Learner:
    """fastai.learner.Learner._do_one_batch: forward, backward, `before_step`, step, zero_grad."""

    def __init__(self, model: nn.Module, opt: Any, callbacks: list[Any]) -> None:
        self.model, self.opt, self.callbacks = model, opt, callbacks
        self.xb = self.yb = self.loss = None

    def one_batch(self) -> None:
        self.loss = F.cross_entropy(self.model(self.xb), self.yb)
        self.loss.backward()
        try:
            for callback in self.callbacks:
                callback.before_step(self)
            self.opt.step()
        except CancelStepError:
            pass
        self.opt.zero_grad()

    def fit(self, data: Iterable[tuple[Tensor, Tensor]]) -> None:
        for self.xb, self.yb in data:
            self.one_batch()


class SecondPass:
    """The recipe: `p.grad` holds g; run the batch once more at w + e, and let the trainer leave its step out."""

    def before_step(self, learner: Any) -> None:
        with learner.opt.ascent():
            F.cross_entropy(learner.model(learner.xb), learner.yb).backward()
        raise CancelStepError


def test_a_trainer_with_callbacks_takes_the_second_pass_in_one():
    want, _ = expected()
    model = net()
    seed()
    Learner(model, ssam(model), [SecondPass()]).fit(rows())
    assert_same(dict(model.state_dict()), dict(want.state_dict()))


def test_a_trainer_with_callbacks_and_no_recipe_is_refused():
    model = net()
    with pytest.raises(RuntimeError, match="step\\(\\) without a closure"):
        Learner(model, ssam(model), []).fit(rows())


# timm's train.py: a scaler object that runs backward and steps


class NativeScaler:
    """timm.utils.NativeScaler."""

    def __init__(self) -> None:
        self._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def __call__(self, loss: Tensor, optimizer: Any, clip_grad: float | None = None, parameters: Any = None) -> None:
        self._scaler.scale(loss).backward()
        if clip_grad is not None:
            self._scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, clip_grad)
        self._scaler.step(optimizer)
        self._scaler.update()


@pytest.mark.parametrize("clip", [None, 0.05])
def test_timm_s_loop_with_its_scaler(clip):
    """The recipe: the scaler's own GradScaler goes to the step; clipping is max_norm=."""
    want, _ = expected(torch.float32, max_norm=clip)
    model, loss_scaler = net(torch.float32), NativeScaler()
    opt = ssam(model, max_norm=clip)
    seed()
    for x, y in rows(torch.float32):

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss_scaler._scaler.scale(loss).backward()
            return loss

        opt.step(closure, scaler=loss_scaler._scaler)
        loss_scaler._scaler.update()
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-5)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_timm_s_loop_as_it_stands_is_refused(clip):
    model = net(torch.float32)
    opt = ssam(model)
    before = {k: v.clone() for k, v in model.named_parameters()}
    x, y = rows(torch.float32)[0]
    with pytest.raises(RuntimeError, match="scaler=scaler"):
        NativeScaler()(F.cross_entropy(model(x), y), opt, clip, model.parameters())
    assert_same(dict(model.named_parameters()), before)


# LoRA


class Lora(nn.Module):
    """peft.tuners.lora.Linear: a frozen layer beside two small trained matrices, with dropout in front of them."""

    def __init__(self, base: nn.Linear, r: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.dropout = nn.Dropout(0.2)
        self.A = nn.Parameter(torch.randn(r, base.in_features, dtype=base.weight.dtype) * 0.1)
        self.B = nn.Parameter(torch.zeros(base.out_features, r, dtype=base.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.dropout(x) @ self.A.T @ self.B.T


def with_lora(model: nn.Module) -> nn.Module:
    torch.manual_seed(4)
    model.requires_grad_(False)
    model.body[0], model.head = Lora(model.body[0]), Lora(model.head)
    return model


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("whole", [True, False], ids=["model.parameters()", "trainable parameters"])
def test_lora_moves_the_adapters_alone(form, whole):
    """|e| is taken over the adapters; frozen weights keep every bit, and their dropout is replayed."""
    model = with_lora(net())
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    trained = [p for p in model.parameters() if p.requires_grad]
    opt = fenland.SAM(sgd(list(model.parameters()) if whole else trained), rho=0.2, model=model)
    seen = []

    def loss(t: int) -> Tensor:
        seen.append([p.detach().clone() for p in trained])
        return loss_of(model, t)

    seed()
    for t in range(3):
        FORMS[form](opt, lambda t=t: loss(t))
    for w, there in zip(seen[0::2], seen[1::2], strict=True):
        e = torch.cat([(b - a).flatten() for a, b in zip(w, there, strict=True)])
        assert float(e.norm()) == pytest.approx(0.2)
    assert_same({n: p for n, p in model.named_parameters() if n in frozen}, frozen)
    assert counted(model) == 3


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")
@pytest.mark.filterwarnings("ignore")
def test_peft_itself():
    import peft

    model = peft.get_peft_model(
        net(torch.float32), peft.LoraConfig(r=2, target_modules=["body.0", "head"], lora_dropout=0.2)
    )
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    opt = ssam(model)
    seed()
    for t in range(3):
        by_closure(opt, lambda t=t: loss_of(model, t))
    assert_same({n: p for n, p in model.named_parameters() if n in frozen}, frozen)
    assert float(opt.last.radius) == pytest.approx(0.2, rel=1e-5)
