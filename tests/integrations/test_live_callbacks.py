"""The live monitor beside Lightning's and Hugging Face's trainers: one update a step, records where they belong."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from torch import nn

from fenland.diagnostics.live import Live
from trainer_cases import batches, loss_fn, moved, net, ssam

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]


def test_lightning(tmp_path: Any) -> None:
    pl = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.loggers import CSVLogger

    from fenland.integrations.lightning import LiveCallback, SharpnessAwareCallback

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return loss_fn(self.net, *batch)

        def configure_optimizers(self) -> Any:
            return ssam(self.net)

    def fit(live: bool) -> tuple[Any, Any]:
        callback = LiveCallback(
            lambda opt, module: Live(opt, module.net, lambda m, b: loss_fn(m, *b), batches()[:1], every=2, budget=1.0)
        )
        logger = CSVLogger(tmp_path, name=f"live-{live}", flush_logs_every_n_steps=1)
        torch.manual_seed(0)
        module = Module()
        trainer = pl.Trainer(
            max_epochs=2, accumulate_grad_batches=3, logger=logger, enable_progress_bar=False, accelerator="cpu",
            enable_model_summary=False, enable_checkpointing=False, log_every_n_steps=1,
            callbacks=[SharpnessAwareCallback(), *[callback] * live],
        )  # fmt: skip
        torch.manual_seed(1)
        trainer.fit(module, torch.utils.data.DataLoader(batches(), batch_size=None))
        return module, callback

    module, callback = fit(live=True)
    assert [r["step"] for r in callback.live.records] == [2, 4]  # 2 epochs of 6 batches, 3 a step
    logged = (tmp_path / "live-True" / "version_0" / "metrics.csv").read_text()
    assert "fenland/gamma" in logged
    assert "fenland/largest_eigenvalue" in logged
    plain, _ = fit(live=False)
    assert moved(module.net) > 0
    assert all(torch.equal(x, plain.net.state_dict()[name]) for name, x in module.net.state_dict().items())


def test_transformers(tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    from fenland.integrations.transformers import LiveCallback, SharpnessAwareTrainer

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Any, labels: Any) -> Any:
            logits = self.net(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    rows = [{"x": x, "labels": y} for xs, ys in batches() for x, y in zip(xs, ys, strict=True)]
    probe = [{"x": xs, "labels": ys} for xs, ys in batches()[:1]]
    callback = LiveCallback(
        lambda opt, model: Live(opt, model, lambda m, b: m(**b)["loss"], probe, every=2, budget=1.0)
    )
    args = transformers.TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=1, per_device_train_batch_size=8, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    trainer = SharpnessAwareTrainer(
        Classifier(), args, train_dataset=rows, callbacks=[callback], sharpness_aware=lambda base, m: ssam(m, base)
    )
    trainer.train()
    found = [entry for entry in trainer.state.log_history if "fenland/gamma" in entry]
    assert [entry["step"] for entry in found] == [2, 4, 6]
    assert all(entry["fenland/largest_eigenvalue"] > 0 for entry in found)
