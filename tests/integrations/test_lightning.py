"""Lightning's Trainer and Fabric against the plain loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import fenland
from trainer_cases import assert_close, batches, loss_fn, moved, net, plain_loop, seed, sgd, ssam

pl = pytest.importorskip("lightning.pytorch")

from lightning.fabric import Fabric  # noqa: E402
from lightning.fabric.plugins import MixedPrecision as FabricMixedPrecision  # noqa: E402
from lightning.pytorch.plugins import MixedPrecision  # noqa: E402

from fenland.integrations.lightning import SharpnessAwareCallback, fabric_step  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # Lightning's own use of torch
]


class Module(pl.LightningModule):
    def __init__(self, build: Any = ssam, **options: Any) -> None:
        super().__init__()
        self.net = net(**options.pop("net", {}))
        self.build, self.options = build, options
        self.norms: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = loss_fn(self.net, *batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        return self.build(self.net, **self.options)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        assert isinstance(optimizer, fenland.SharpnessAware)
        grads = [p.grad.flatten() for p in self.net.parameters() if p.grad is not None]
        self.norms.append(float(torch.cat(grads).norm()) if grads else 0.0)


class Seeds(pl.Callback):
    """Seeds before each micro-batch, as data loading would disturb the generator; keeps what the loop reports."""

    def __init__(self, start: int = 0) -> None:
        self.outputs: list[float] = []
        self.micro = start

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        seed(self.micro)
        self.micro += 1

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *args: Any) -> None:
        if outputs:
            self.outputs.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)


def fit(module: Module, *, callback: Any = None, epochs: int = 1, ckpt: Any = None, **options: Any) -> Any:
    seeds = Seeds(options.pop("start", 0))
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback or SharpnessAwareCallback(), seeds],
        **options,
    )
    trainer.fit(module, torch.utils.data.DataLoader(batches(), batch_size=None), ckpt_path=ckpt)
    trainer.seeds = seeds
    return trainer


CLIP = 0.05  # far below the gradients' norms of about 1


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("clip", [None, CLIP])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_trainer_equals_the_plain_loop(accumulate, clip, precision):
    """6 batches: with 4, the last step of an epoch has two micro-batches only."""
    module, model = Module(), net()
    trainer = fit(module, epochs=2, accumulate_grad_batches=accumulate, gradient_clip_val=clip, precision=precision)
    opt = ssam(model, max_norm=clip)
    logged = plain_loop(
        model, opt, accumulate=accumulate, epochs=2, autocast=None if precision == "32-true" else torch.bfloat16
    )
    assert_close(module.net, model)
    assert moved(model) > (0.01 if clip else 0.1)
    assert module.net.forwards == model.forwards == 2 * 12
    assert trainer.seeds.outputs == pytest.approx(logged, abs=1e-6)
    steps = 2 * -(-6 // accumulate)
    assert len(module.norms) == steps == trainer.global_step
    assert max(module.norms) > CLIP  # on_before_optimizer_step is before clipping, as Lightning documents
    torch.testing.assert_close(trainer.optimizers[0].last.loss, opt.last.loss)
    torch.testing.assert_close(trainer.optimizers[0].last.loss_ascent, opt.last.loss_ascent)
    assert trainer.callback_metrics["loss_epoch"] == pytest.approx(sum(logged[-6:]) / 6, abs=1e-6)
    assert trainer.callback_metrics["loss_step"] == pytest.approx(logged[-1], abs=1e-6)


@pytest.mark.parametrize("clip", [None, CLIP])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_sixteen_mixed_with_a_live_scaler(accumulate, fused, clip):
    """Lightning chooses bf16 on a CPU; the plugin with a CPU GradScaler is what a GPU gets."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    plugin = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
    module, model = Module(lambda m: ssam(m, sgd(m, fused=fused))), net()
    trainer = fit(module, accumulate_grad_batches=accumulate, plugins=[plugin], gradient_clip_val=clip)
    assert trainer.precision_plugin is plugin
    assert scaler.get_scale() == 2.0**10
    assert scaler._growth_tracker == 6 // accumulate, "one update a step"
    other = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    opt = ssam(model, max_norm=clip)
    plain_loop(model, opt, accumulate=accumulate, scaler=other, autocast=torch.float16)
    assert_close(module.net, model, 2e-3 if clip is None else 1e-4)
    assert module.net.forwards == model.forwards == 12


def test_sixteen_mixed_backs_off_once_and_leaves_all_as_it_was():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)  # above fp16's range: every gradient overflows
    module = Module()
    fit(module, plugins=[MixedPrecision("16-mixed", "cpu", scaler)], limit_train_batches=2, accumulate_grad_batches=2)
    assert scaler.get_scale() == 2.0**23
    assert_close(module.net, net(), 0)  # buffers too


def test_micro_is_m_sam():
    module, model = Module(), net()
    trainer = fit(module, callback=SharpnessAwareCallback("micro"), accumulate_grad_batches=3)
    logged = plain_loop(model, ssam(model), accumulate=3, micro=True)
    assert_close(module.net, model)
    assert module.net.forwards == 12
    assert trainer.seeds.outputs == pytest.approx(logged, abs=1e-6)
    other = net()
    plain_loop(other, ssam(other), accumulate=3)
    with pytest.raises(AssertionError):
        assert_close(module.net, other, 1e-4)


@pytest.mark.parametrize("build", [fenland.SAM, fenland.USAM, fenland.SSAM])
@pytest.mark.parametrize("base", [torch.optim.AdamW, torch.optim.SGD])
def test_presets_and_bases(build, base):
    def make(model: nn.Module) -> Any:
        return build(base(model.parameters(), lr=0.01), rho=0.1, model=model)

    module, model = Module(make), net()
    fit(module, accumulate_grad_batches=2)
    plain_loop(model, make(model), accumulate=2)
    assert_close(module.net, model)


def test_resume_is_exact(tmp_path):
    whole, first, second = Module(), Module(), Module()
    fit(whole, epochs=2, accumulate_grad_batches=2)
    fit(first, accumulate_grad_batches=2).save_checkpoint(tmp_path / "half.ckpt")
    fit(second, epochs=2, accumulate_grad_batches=2, ckpt=tmp_path / "half.ckpt", start=6)
    assert_close(second.net, whole.net, 0)


def test_a_scheduler_attaches_without_a_warning():
    def make(model: nn.Module) -> Any:
        opt = ssam(model)
        return [opt], [{"scheduler": torch.optim.lr_scheduler.StepLR(opt, 1, 0.5), "interval": "step"}]

    module = Module(make)
    trainer = fit(module, accumulate_grad_batches=2)
    assert trainer.optimizers[0].base.param_groups[0]["lr"] == pytest.approx(0.3 / 8)


def test_metrics_count_pass_one_only():
    from torchmetrics import MeanMetric

    class Measured(Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = MeanMetric()

        def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
            loss = loss_fn(self.net, *batch)
            self.log("seen", self.mean(loss.detach()))
            self.log_dict({"again": self.mean}, on_step=False, on_epoch=True)
            return {"loss": loss, "more": batch_idx}

    module, model = Measured(), net()
    trainer = fit(module, accumulate_grad_batches=2)
    logged = plain_loop(model, ssam(model), accumulate=2)
    assert trainer.callback_metrics["again"] == pytest.approx(sum(logged) / 6, abs=1e-6)
    assert_close(module.net, model)


def test_a_batch_without_a_loss_is_left_out():
    class Some(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx in (1, 2, 3) else super().training_step(batch, batch_idx)

    module = Some()
    with pytest.warns(UserWarning, match="returned `None`"):
        fit(module, accumulate_grad_batches=2)
    assert module.net.forwards == 6


def test_an_exception_leaves_weights_and_the_trainer_as_they_were():
    class Breaks(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.net.forwards == 3:  # pass 2 of the second micro-batch
                raise KeyError("data")
            return super().training_step(batch, batch_idx)

    module = Breaks()
    trainer = None
    with pytest.raises(KeyError, match="data"):
        trainer = fit(module, accumulate_grad_batches=2)
    assert trainer is None
    assert_close(module.net, net(), 0)
    assert "log" not in vars(module)
    assert not {"training_step", "optimizer_step"} & set(vars(module.trainer.strategy))


def test_what_cannot_be_right_is_refused():
    class Manual(Module):
        automatic_optimization = False

    class Iterates(Module):
        def training_step(self, dataloader_iter: Any) -> Any:
            raise NotImplementedError

    with pytest.raises(TypeError, match=r"is a SGD: must be a fenland optimizer"):
        fit(Module(sgd))
    with pytest.raises(ValueError, match="automatic_optimization = False"):
        fit(Manual())
    with pytest.raises(ValueError, match="dataloader_iter"), pytest.warns(UserWarning, match="dataloader_iter"):
        fit(Iterates())
    with pytest.raises(ValueError, match="accumulate = 'both'"):
        fit(Module(), callback=SharpnessAwareCallback("both"))


def test_manual_optimization_needs_no_callback():
    class Manual(Module):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            pass

        def training_step(self, batch: Any, batch_idx: int) -> None:
            opt = self.optimizers()

            def closure() -> torch.Tensor:
                opt.zero_grad()
                loss = loss_fn(self.net, *batch)
                self.manual_backward(loss)
                return loss

            opt.step(closure)

    module, model = Manual(), net()
    fit(module, callback=pl.Callback())
    plain_loop(model, ssam(model))
    assert_close(module.net, model)


def fabric_loop(fabric: Fabric, model: nn.Module, opt: Any, step: Any) -> None:
    for i, (x, y) in enumerate(batches()):
        seed(i)

        def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            opt.zero_grad()
            loss = loss_fn(model, x, y)
            fabric.backward(loss)
            return loss

        assert step(closure).shape == ()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("way", ["own", "helper"])
def test_fabric_takes_the_closure_as_it_is(precision, way):
    fabric, inner, model = Fabric(accelerator="cpu", devices=1, precision=precision), net(), net()
    wrapped, opt = fabric.setup(inner, ssam(inner))
    fabric_loop(fabric, wrapped, opt, opt.step if way == "own" else lambda c: fabric_step(fabric, opt, c))
    plain_loop(model, ssam(model), autocast=None if precision == "32-true" else torch.bfloat16)
    assert_close(inner, model)
    assert inner.forwards == 12


def test_fabric_two_calls_go_through_the_wrapper():
    fabric, inner, model = Fabric(accelerator="cpu", devices=1), net(), net()
    wrapped, opt = fabric.setup(inner, ssam(inner))
    for i, (x, y) in enumerate(batches()):
        seed(i)
        opt.zero_grad()
        fabric.backward(loss_fn(wrapped, x, y))
        with opt.ascent():
            fabric.backward(loss_fn(wrapped, x, y))
    plain_loop(model, ssam(model))
    assert_close(inner, model)


def test_fabric_sixteen_mixed_with_a_live_scaler():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[FabricMixedPrecision("16-mixed", "cpu", scaler)])
    inner, model = net(), net()
    wrapped, opt = fabric.setup(inner, ssam(inner))
    fabric_loop(fabric, wrapped, opt, lambda c: fabric_step(fabric, opt, c))
    assert scaler._growth_tracker == 6
    plain_loop(model, ssam(model), autocast=torch.float16, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10))
    assert_close(inner, model, 2e-3)
    with pytest.raises(RuntimeError, match="Closure use is not currently supported"):  # torch's own refusal
        opt.step(lambda: fabric.backward(loss_fn(wrapped, *batches()[0])))
