"""Lightning as people meet it: without the callback, with other callbacks, and with hooks of their own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import fenland
from peer_loops import Net, assert_same, batch, counted, net, sgd, ssam

pl = pytest.importorskip("lightning.pytorch")

from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging  # noqa: E402
from lightning.pytorch.utilities.exceptions import MisconfigurationException  # noqa: E402

from fenland.integrations.lightning import SharpnessAwareCallback  # noqa: E402

POINT = 5
BATCHES = 4
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*number of training batches:UserWarning"),
]


class Module(pl.LightningModule):
    def __init__(self, build: Any = ssam, **options: Any) -> None:
        super().__init__()
        self.net = net(torch.float32, **options)
        self.build = build
        self.backwards = 0

    def loss(self, pair: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(pair[0]), pair[1])

    def training_step(self, pair: Any, batch_idx: int) -> Any:
        return self.loss(pair)

    def on_after_backward(self) -> None:
        self.backwards += 1

    def configure_optimizers(self) -> Any:
        return self.build(self.net)


def data() -> list[Any]:
    return [batch(t, torch.float32) for t in range(BATCHES)]


def fit(module: Any, *callbacks: Any, epochs: int = 1, rows: Any = None, **options: Any) -> Any:
    torch.manual_seed(9)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )
    trainer.fit(module, torch.utils.data.DataLoader(rows or data(), batch_size=None))
    return trainer


def weights(module: Any) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in module.net.named_parameters()}


# Without the callback


@pytest.mark.parametrize("accumulate", [2, 4, {0: 2}])
@pytest.mark.parametrize("build", [ssam, lambda m: fenland.SAM(sgd(m), model=m), lambda m: fenland.LookSAM(sgd(m))])
def test_accumulation_without_the_callback_is_refused_by_name(accumulate, build):
    module = Module(build, dropout=0.0)
    module.net.body[1] = nn.Identity()
    before = weights(module)
    scheduler = []
    if isinstance(accumulate, dict):
        scheduler = [pl.callbacks.GradientAccumulationScheduler(accumulate)]
        accumulate = 1
    with pytest.raises(RuntimeError, match=r"SharpnessAwareCallback"):
        fit(module, *scheduler, accumulate_grad_batches=accumulate)
    assert_same(weights(module), before)


def test_the_last_incomplete_accumulation_too():
    """3 batches with accumulate_grad_batches=2 end on a step of one micro-batch: it was refused before."""
    with pytest.raises(RuntimeError, match="SharpnessAwareCallback"):
        fit(Module(), accumulate_grad_batches=8)


def test_without_accumulation_no_callback_is_needed():
    module, model = Module(dropout=0.0), net(torch.float32, dropout=0.0)
    fit(module)
    opt = ssam(model)
    for x, y in data():

        def closure(x: Any = x, y: Any = y) -> torch.Tensor:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        opt.step(closure)
    assert_same(dict(module.net.state_dict()), dict(model.state_dict()), 1e-6)


def test_what_is_never_wrong_is_not_refused():
    """One gradient a step (rho = 0) accumulates as the base does."""
    module, plain = Module(lambda m: fenland.SAM(sgd(m), rho=0.0, model=m)), Module(sgd)
    fit(module, SharpnessAwareCallback(), accumulate_grad_batches=2)
    fit(plain, accumulate_grad_batches=2)
    assert_same(dict(module.net.state_dict()), dict(plain.net.state_dict()))


# Weight averaging


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ["SSAM", "SAM", "GSAM"])
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning")
def test_the_batch_norm_epoch_of_swa_only_measures(accumulate, name):
    """The extra epoch runs forwards alone: weights stay averaged, buffers are cumulative means, no backward is run."""

    class Watched(Module):
        def on_train_epoch_start(self) -> None:
            if getattr(self.trainer.fit_loop, "_skip_backward", False):
                self.at_start = weights(self), self.backwards

    class Last(pl.Callback):
        """Runs after SWA's own hook has put the average in place."""

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            module.at_start = weights(module), module.backwards

    module = Module(lambda m: getattr(fenland, name)(sgd(m), rho=0.1, model=m), dropout=0.0)
    swa = StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1, annealing_epochs=1)
    fit(module, SharpnessAwareCallback(), swa, Last(), epochs=3, accumulate_grad_batches=accumulate)
    averaged, backwards = module.at_start
    assert module.backwards == backwards == 3 * BATCHES * 2
    assert_same(weights(module), averaged)
    other = copy.deepcopy(module.net)
    for m in other.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.reset_running_stats()
            m.momentum = None
    for x, _ in data():
        other(x)
    assert_same(dict(module.net.named_buffers()), dict(other.named_buffers()), 1e-6)


def test_weight_averaging_sees_w_and_never_w_plus_e():
    """Lightning's EMA callback: the average of the weights after each step, buffers too."""
    module, model = Module(dropout=0.0), net(torch.float32, dropout=0.0)
    seen = []

    class Averaged(WeightAveraging):
        def should_update(self, step_idx: Any = None, epoch_idx: Any = None) -> bool:
            if step_idx is not None:
                seen.append(weights(module))
            return step_idx is not None

    fit(module, SharpnessAwareCallback(), Averaged(), epochs=1)
    opt = ssam(model)
    after = []
    for x, y in data():

        def closure(x: Any = x, y: Any = y) -> torch.Tensor:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        opt.step(closure)
        after.append({k: v.detach().clone() for k, v in model.named_parameters()})
    assert len(seen) == len(after)
    for got, want in zip(seen, after, strict=True):
        assert_same(got, want, 1e-6)


# Hooks of the user's own


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_optimizer_zero_grad_that_skips_is_refused(accumulate):
    class EverySecond(Module):
        def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
            if (batch_idx // accumulate) % 2 == 0:
                optimizer.zero_grad()

    with pytest.raises(RuntimeError, match=r"EverySecond\.optimizer_zero_grad"):
        fit(EverySecond(), SharpnessAwareCallback(), accumulate_grad_batches=accumulate)


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_optimizer_zero_grad_that_zeroes_in_its_own_way_is_right(set_to_none, accumulate):
    class Zeroes(Module):
        def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
            for p in self.net.parameters():
                if p.grad is not None:
                    p.grad = None if set_to_none else torch.zeros_like(p.grad)

    module, plain = Zeroes(), Module()
    for m in (module, plain):
        fit(m, SharpnessAwareCallback(), epochs=2, accumulate_grad_batches=accumulate)
    assert_same(dict(module.net.state_dict()), dict(plain.net.state_dict()))


@pytest.mark.parametrize("value", [0.5, "loss", [1.0]])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning_s_own_explanation_of_training_step_is_seen(value, accumulate):
    class Returns(Module):
        def training_step(self, pair: Any, batch_idx: int) -> Any:
            return value

    with pytest.raises(MisconfigurationException, match="`training_step` must return"):
        fit(Returns(), SharpnessAwareCallback(), accumulate_grad_batches=accumulate)


def test_a_dict_without_a_loss_is_explained_by_lightning_too():
    class Returns(Module):
        def training_step(self, pair: Any, batch_idx: int) -> Any:
            return {"los": self.loss(pair)}

    with pytest.raises(MisconfigurationException, match="'loss' key"):
        fit(Returns(), SharpnessAwareCallback())


# Manual optimization


class Manual(Module):
    def __init__(self, form: str = "closure", **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization, self.form = False, form

    def training_step(self, pair: Any, batch_idx: int) -> None:
        opt = self.optimizers()
        opt.zero_grad()

        def closure() -> torch.Tensor:
            opt.zero_grad()
            loss = self.loss(pair)
            self.manual_backward(loss)
            return loss

        if self.form == "closure":
            opt.step(closure)
            return
        self.manual_backward(self.loss(pair))
        with opt.ascent():
            self.manual_backward(self.loss(pair))


def test_manual_optimization_counts_its_steps_with_a_closure():
    """`opt.step(closure)` is what Lightning counts: global_step, and so checkpoints and loggers, go on."""
    module = Manual()
    assert fit(module).global_step == BATCHES
    assert counted(module.net) == BATCHES


def test_two_calls_train_the_same_but_lightning_does_not_count_them():
    """Documented in docs/trainers.md: Lightning counts calls of `step` alone."""
    module, other = Manual("two calls", dropout=0.0), Manual(dropout=0.0)
    assert fit(module).global_step == 0
    fit(other)
    assert_same(dict(module.net.state_dict()), dict(other.net.state_dict()))


def test_the_net_of_these_tests_learns():
    module = Module()
    before = weights(module)
    fit(module)
    assert isinstance(module.net, Net)
    assert all(not torch.equal(v, before[k]) for k, v in weights(module).items())
