"""What a CPU cannot show: fp16 as each trainer chooses it, and dropout masks drawn by the device's generator.

Written without a GPU at hand: rehearsed on a CPU, not run on a GPU yet (21 November 2026). A failure may be the test's.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from torch import Tensor, nn

from trainer_cases import BATCH, assert_close, batches, loss_fn, net, seed, ssam

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
K = 2


def reference() -> nn.Module:
    """The plain fp16 loop; each micro-batch has its own masks, the same in both passes."""
    model = net().cuda()
    opt, scaler = ssam(model), torch.amp.GradScaler("cuda", init_scale=2.0**10)
    rows = [(x.cuda(), y.cuda()) for x, y in batches()]
    for first in range(0, len(rows), K):

        def closure(first: int = first) -> Tensor:
            opt.zero_grad()
            for i in range(first, first + K):
                seed(i)  # seeds the devices' generators too
                with torch.autocast("cuda", dtype=torch.float16):
                    loss = loss_fn(model, *rows[i]) / K
                scaler.scale(loss).backward()
            return loss

        opt.step(closure, scaler=scaler)
        scaler.update()
    return model.cpu()


def lightning(folder: Any) -> nn.Module:
    pl = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.plugins import MixedPrecision

    from fenland.integrations.lightning import SharpnessAwareCallback

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return loss_fn(self.net, *batch)

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            seed(batch_idx)

        def configure_optimizers(self) -> Any:
            return ssam(self.net)

    plugin = MixedPrecision("16-mixed", "cuda", torch.amp.GradScaler("cuda", init_scale=2.0**10))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(
        accelerator="gpu",
        devices=1,
        max_epochs=1,
        plugins=[plugin],
        accumulate_grad_batches=K,
        callbacks=[SharpnessAwareCallback()],
        **quiet,
    )
    module = Module()
    trainer.fit(module, torch.utils.data.DataLoader(batches(), batch_size=None))
    return module.net.cpu()


def accelerate(folder: Any) -> nn.Module:
    accelerate = pytest.importorskip("accelerate")
    from fenland.integrations.accelerate import SharpnessAwareStep

    kwargs = accelerate.utils.GradScalerKwargs(init_scale=2.0**10)
    accelerator = accelerate.Accelerator(
        mixed_precision="fp16", gradient_accumulation_steps=K, kwargs_handlers=[kwargs]
    )
    inner = net()
    model, opt = accelerator.prepare(inner, ssam(inner))
    step = SharpnessAwareStep(accelerator, model, opt)
    for i, (x, y) in enumerate(batches()):
        seed(i)
        with accelerator.accumulate(model):
            step(loss_fn, model, x.cuda(), y.cuda())
    assert accelerator.scaler.is_enabled()
    return inner.cpu()


def transformers(folder: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    from test_transformers import Classifier, InOrder, rows, sgd, sharp

    model = Classifier()
    args = transformers.TrainingArguments(
        str(folder),
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=K,
        num_train_epochs=1,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        save_strategy="no",
        report_to="none",
        fp16=True,
        disable_tqdm=True,
    )
    trainer = InOrder(model, args, train_dataset=rows(), optimizers=(sgd(model), None), sharpness_aware=sharp)
    assert trainer.accelerator.scaler.is_enabled()
    trainer.accelerator.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10)  # its own begins with an overflow
    trainer.train()
    return model.net.cpu()


@pytest.mark.parametrize("trainer", [lightning, accelerate, transformers], ids=lambda f: f.__name__)
def test_fp16_on_a_gpu_equals_the_plain_loop(tmp_path, trainer):
    trained = trainer(tmp_path)
    assert trained.forwards == 12
    assert_close(trained, reference(), 2e-3)
