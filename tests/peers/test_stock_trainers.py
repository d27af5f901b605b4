"""Trainers that step by themselves, without fenland's adapter: one message names it, before anything has changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import fenland
from peer_loops import SIZE, assert_same, batch, net, sgd, ssam

POINT = 5
BOTH = r"SharpnessAwareTrainer.*SharpnessAwareStep"


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in model.named_parameters()}


@pytest.fixture(autouse=True)
def fresh_state():
    yield
    try:
        from accelerate.state import AcceleratorState, GradientState, PartialState
    except ImportError:
        return
    for shared in (AcceleratorState, GradientState, PartialState):
        shared._reset_state()


@pytest.mark.parametrize("preset", ["SAM", "SSAM", "MSAM", "LookSAM"])
def test_a_bare_accelerate_loop(preset):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    inner = net(torch.float32)
    raw = getattr(fenland, preset)(sgd(inner), rho=0.1, model=inner)
    model, opt = accelerator.prepare(inner, raw)
    before = weights(inner)
    x, y = batch(0, torch.float32)
    accelerator.backward(nn.functional.cross_entropy(model(x), y))
    with pytest.raises(RuntimeError, match=BOTH):
        opt.step()
    assert_same(weights(inner), before)


class Rows(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.x, self.y = torch.randn(16, SIZE), torch.randint(3, (16,))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"x": self.x[i], "labels": self.y[i]}


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net(torch.float32)

    def forward(self, x: torch.Tensor, labels: Any = None) -> dict[str, torch.Tensor]:
        out = self.net(x)
        return {"loss": nn.functional.cross_entropy(out, labels), "logits": out}


def arguments(folder: Any, **options: Any) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        folder,
        per_device_train_batch_size=8,
        num_train_epochs=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_stock_trainer_of_transformers(accumulate, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    model = Classifier()
    before = weights(model)
    trainer = transformers.Trainer(
        model,
        arguments(tmp_path, gradient_accumulation_steps=accumulate),
        train_dataset=Rows(),
        optimizers=(ssam(model), None),
    )
    with pytest.raises(RuntimeError, match=BOTH):
        trainer.train()
    assert_same(weights(model), before)


def test_a_plain_loop_gets_the_same_message():
    model = net()
    opt = ssam(model)
    nn.functional.cross_entropy(model(batch()[0]), batch()[1]).backward()
    with pytest.raises(RuntimeError, match=r"ascend\(\) and descend\(\)"):
        opt.step()


@pytest.mark.parametrize("precision", ["16-mixed"])
def test_lightning_with_a_scaler_and_no_callback(precision):
    """Lightning steps its GradScaler after one backward."""
    pl = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.plugins import MixedPrecision

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net(torch.float32)

        def training_step(self, pair: Any, batch_idx: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.net(pair[0]).float(), pair[1])

        def configure_optimizers(self) -> Any:
            return ssam(self.net)

    module = Module()
    before = weights(module)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[MixedPrecision(precision, device="cpu", scaler=torch.amp.GradScaler("cpu"))],
    )
    rows = [batch(t, torch.float32) for t in range(2)]
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RuntimeError, match="scaler"):
            trainer.fit(module, torch.utils.data.DataLoader(rows, batch_size=None))
    assert_same(weights(module), before)
