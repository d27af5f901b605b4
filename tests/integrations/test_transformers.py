"""Hugging Face's Trainer against the plain loop."""

from __future__ import annotations

import os
import sys
from importlib.machinery import SourceFileLoader
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from torch import Tensor, nn

import fenland
from trainer_cases import BATCH, Net, assert_close, batches, moved, net, plain_loop, seed, sgd, ssam

transformers = pytest.importorskip("transformers")

from transformers import Trainer, TrainerCallback, TrainingArguments  # noqa: E402

from fenland.integrations import transformers as adapter  # noqa: E402
from fenland.integrations.transformers import SharpnessAwareMixin, SharpnessAwareTrainer  # noqa: E402

CLIP = 0.05


class Classifier(nn.Module):
    """The network as the Trainer wants it: a loss from labels, which it may normalise over the whole step."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.net = net(**options)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Counts(Classifier):
    """Takes `num_items_in_batch`: rows with label -100 do not count."""

    def forward(self, x: Tensor, labels: Tensor, num_items_in_batch: Any = None, **kwargs: Any) -> dict[str, Tensor]:
        logits = self.net(x)
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        return {"loss": loss / (num_items_in_batch or (labels != -100).sum()), "logits": logits}


def rows(data: Any = None) -> list[dict[str, Tensor]]:
    return [{"x": x, "labels": y} for xs, ys in data or batches() for x, y in zip(xs, ys, strict=True)]


class InOrder(SharpnessAwareTrainer):
    """No shuffling, and a seed before each pass 1."""

    micro = 0

    def _get_train_sampler(self, *args: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        seed(self.micro)
        self.micro += 1
        return super().training_step(*args, **kwargs)


def sharp(base: Any, model: nn.Module) -> Any:
    return ssam(model, base)


def trainer(
    folder: Any, model: nn.Module, *, kind: Any = InOrder, base: Any = sgd, data: Any = None, **options: Any
) -> Any:
    named = {k: options.pop(k) for k in ("accumulate", "sharpness_aware", "callbacks") if k in options}
    named.setdefault("sharpness_aware", sharp)
    settings = {
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        **options,
    }
    args = TrainingArguments(str(folder), **settings)
    return kind(model, args, train_dataset=rows(data), optimizers=(base(model) if base else None, None), **named)


def logged(trained: Any, key: str = "loss") -> list[float]:
    return [row[key] for row in trained.state.log_history if key in row]


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("clip", [0.0, CLIP])
def test_the_trainer_equals_the_plain_loop(tmp_path, accumulate, clip):
    """6 batches: with 4, the last step has two micro-batches, which the Trainer weighs by 1/2."""
    model, other = Classifier(), net()
    trained = trainer(tmp_path, model, gradient_accumulation_steps=accumulate, max_grad_norm=clip)
    trained.train()
    opt = ssam(other, max_norm=clip or None)
    if accumulate == 4:
        plain_loop(other, opt, accumulate=4, data=batches()[:4])
        losses = plain_loop(other, opt, accumulate=2, data=batches()[4:], seeds=4)
    else:
        losses = plain_loop(other, opt, accumulate=accumulate)
    assert_close(model.net, other)
    assert moved(other) > (0.005 if clip else 0.1)
    assert model.net.forwards == 12
    steps = -(-6 // accumulate)
    assert trained.state.global_step == steps
    last = losses[-2:] if accumulate > 1 else losses[-1:]
    assert logged(trained)[-1] == pytest.approx(sum(last) / len(last), abs=1e-4)  # logs are rounded
    assert logged(trained, "grad_norm")[-1] == pytest.approx(float(opt.last.grad_norm), abs=1e-5)


def test_the_loss_is_shared_out_over_all_items(tmp_path):
    """Micro-batches with 2, 8, 5, 8 ... items: e and d come from the mean over items, not over micro-batches."""
    data = [(x, y.clone()) for x, y in batches()]
    for i, keep in ((0, 2), (2, 5), (5, 1)):
        data[i][1][keep:] = -100
    model, other = Counts(dropout=0.0), net(dropout=0.0)
    trained = trainer(tmp_path, model, data=data, gradient_accumulation_steps=2)
    trained.train()
    opt = ssam(other)
    for first in range(0, 6, 2):
        n = sum(int((y != -100).sum()) for _, y in data[first : first + 2])

        def closure(first: int = first, n: int = n) -> Tensor:
            opt.zero_grad()
            losses = [nn.functional.cross_entropy(other(x), y, reduction="sum") / n for x, y in data[first : first + 2]]
            torch.stack(losses).sum().backward()
            return torch.stack(losses).sum()

        loss = opt.step(closure)
    assert_close(model.net, other)
    assert logged(trained)[-1] == pytest.approx(float(loss.detach()), abs=1e-4)


def test_micro_is_m_sam(tmp_path):
    model, other = Classifier(), net()
    trainer(tmp_path, model, gradient_accumulation_steps=3, accumulate="micro").train()
    plain_loop(other, ssam(other), accumulate=3, micro=True)
    assert_close(model.net, other)
    assert model.net.forwards == 12


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clip", [0.0, CLIP])
def test_a_live_scaler_unscales_and_steps_once(tmp_path, fused, clip):
    """The scaler that a GPU would get, put in by hand."""
    model, other = Classifier(), net()
    trained = trainer(
        tmp_path, model, base=lambda m: sgd(m, fused=fused), gradient_accumulation_steps=2, max_grad_norm=clip
    )
    trained.accelerator.scaler = scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    trained.train()
    assert scaler._growth_tracker == 3
    plain_loop(other, ssam(other, max_norm=clip or None), accumulate=2)
    assert_close(model.net, other, 2e-6)


def test_an_overflow_backs_off_and_leaves_all_as_it_was(tmp_path):
    data = batches()[:2]
    data[1] = (data[1][0] * float("inf"), data[1][1])
    model = Classifier()
    trained = trainer(
        tmp_path,
        model,
        data=data,
        gradient_accumulation_steps=2,
        lr_scheduler_type="linear",
        logging_nan_inf_filter=False,
    )
    trained.accelerator.scaler = scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    trained.train()
    assert scaler.get_scale() == 2.0**11
    assert_close(model.net, net(), 0)
    assert trained.optimizer.param_groups[0]["lr"] == 0.3  # the schedule waits


def test_bf16_flag(tmp_path):
    model, other = Classifier(), net()
    trainer(tmp_path, model, bf16=True, gradient_accumulation_steps=2).train()
    plain_loop(other, ssam(other), accumulate=2, autocast=torch.bfloat16)
    assert_close(model.net, other)
    plain = net()
    plain_loop(plain, ssam(plain), accumulate=2)
    with pytest.raises(AssertionError):
        assert_close(model.net, plain, 1e-5)


@pytest.mark.parametrize("base", [None, sgd])
def test_resume_is_exact(tmp_path, base):
    """Dropout included: the Trainer saves the generators. base=None: the Trainer's own AdamW."""

    def run(folder: Any, resume: Any = None) -> Any:
        model = Classifier()
        options: dict[str, Any] = {
            "save_strategy": "steps",
            "save_steps": 3,
            "num_train_epochs": 2,
            "max_grad_norm": CLIP,
        }
        trained = trainer(folder, model, kind=SharpnessAwareTrainer, base=base, seed=11, **options)
        trained.train(resume_from_checkpoint=resume)
        assert len(trained.optimizer.state_dict()["param_groups"]) == (1 if base else 2)
        return model

    whole = run(tmp_path / "a")
    resumed = run(tmp_path / "b", resume=str(tmp_path / "a" / "checkpoint-9"))
    assert resumed.net.forwards == 6
    assert_close(resumed.net, whole.net, 0)


def test_a_fenland_optimizer_in_optimizers(tmp_path):
    model, other = Classifier(), net()
    trained = trainer(tmp_path, model, base=lambda m: ssam(m), sharpness_aware=None)
    trained.train()
    plain_loop(other, ssam(other))
    assert_close(model.net, other)
    trained.micro = 0
    trained.train()  # a second time: wrapped already
    plain_loop(other, trained_opt := ssam(other, base=sgd(other)))
    assert trained_opt.last is not None
    assert model.net.forwards == 24


def test_callbacks_and_the_mixin(tmp_path):
    class Own(SharpnessAwareMixin, Trainer):
        pass

    seen = []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            seen.append("pre")

        def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            seen.append("post")

    model = Classifier()
    trained = trainer(tmp_path, model, kind=Own, base=None, callbacks=[Watch()], lr_scheduler_type="linear")
    trained.train()
    assert seen == ["pre", "post"] * 6
    opt = trained.optimizer.optimizer
    assert isinstance(opt, fenland.SharpnessAware)
    assert isinstance(opt.base, torch.optim.AdamW)
    assert opt.param_groups[0]["lr"] == 0


def test_what_cannot_be_right_is_refused(tmp_path):
    with pytest.raises(TypeError, match="is a SGD: must be a fenland optimizer"):
        trainer(tmp_path, Classifier(), sharpness_aware=None).train()
    with pytest.raises(TypeError, match="is a SGD: must be a fenland optimizer"):
        trainer(tmp_path, Classifier(), sharpness_aware=lambda base, model: base).train()
    with pytest.raises(ValueError, match="accumulate = 'all'"):
        trainer(tmp_path, Classifier(), accumulate="all").train()


def test_a_net_without_guards_is_warned_about(tmp_path):
    model = Classifier()
    trained = trainer(tmp_path, model, sharpness_aware=lambda base, model: fenland.SSAM(base))
    with pytest.warns(UserWarning, match="model=your_model"):
        trained.train()
    assert isinstance(model.net, Net)


@pytest.mark.parametrize("version", ["5.0.0", "5.5.4", "4.57.6"])
def test_a_trainer_that_is_too_old_is_refused_at_import(monkeypatch, version):
    """Their accumulated or clipped gradients are other ones, and nothing would say so."""
    code = SourceFileLoader("too_old", adapter.__file__).get_code("too_old")
    loaded = sys.modules["transformers"]  # the module that `import` finds puts itself there while it loads
    monkeypatch.setattr(loaded, "__version__", version)
    with pytest.raises(ImportError, match=f"5.6 or newer, and {version} is installed.*pip install -U transformers"):
        exec(code, {"__name__": "too_old"})
    monkeypatch.setattr(loaded, "__version__", "6.0.0.dev0")
    exec(code, {"__name__": "too_old"})
