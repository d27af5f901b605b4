"""Started by torchrun: a trainer on 2 ranks, each with half of every batch, against one process with the whole."""

from __future__ import annotations

import gc
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from trainer_cases import Net, assert_close, batches, loss_fn, net, plain_loop, ssam

K = 2
PLAIN = {"dropout": 0.0, "norm": False}  # ranks see other rows: BatchNorm and masks would differ


def share(rank: int) -> list[Any]:
    return [(x.chunk(2)[rank].contiguous(), y.chunk(2)[rank].contiguous()) for x, y in batches()]


def lightning(rank: int) -> Net:
    import lightning.pytorch as pl

    from fenland.integrations.lightning import SharpnessAwareCallback

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net(**PLAIN)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return loss_fn(self.net, *batch)

        def configure_optimizers(self) -> Any:
            return ssam(self.net)

    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=1,
        accumulate_grad_batches=K,
        use_distributed_sampler=False,
        callbacks=[SharpnessAwareCallback()],
        **quiet,
    )
    module = Module()
    trainer.fit(module, torch.utils.data.DataLoader(share(trainer.global_rank), batch_size=None))
    return module.net


def accelerate(rank: int) -> Net:
    from accelerate import Accelerator

    from fenland.integrations.accelerate import SharpnessAwareStep

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=K)
    inner = net(**PLAIN)
    model, opt = accelerator.prepare(inner, ssam(inner))
    step = SharpnessAwareStep(accelerator, model, opt)
    for x, y in share(accelerator.process_index):
        with accelerator.accumulate(model):
            step(loss_fn, model, x, y)
    return inner


def transformers(rank: int) -> Net:
    from transformers import TrainingArguments

    from test_transformers import Classifier, InOrder, rows, sgd, sharp

    model = Classifier(**PLAIN)
    args = TrainingArguments(
        tempfile.mkdtemp(),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=K,
        num_train_epochs=1,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    InOrder(model, args, train_dataset=rows(), optimizers=(sgd(model), None), sharpness_aware=sharp).train()
    return model.net


def main(run: Callable[[int], Net]) -> None:
    torch.set_num_threads(1)
    trained = run(0)
    assert dist.get_world_size() == 2
    for p in trained.parameters():
        theirs = [torch.empty_like(p) for _ in range(2)]
        dist.all_gather(theirs, p.detach())
        assert torch.equal(*theirs), "the ranks differ"
    assert trained.forwards == 12
    model = net(**PLAIN)
    plain_loop(model, ssam(model), accumulate=K)
    assert_close(trained, model)
    print("equal")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main({"lightning": lightning, "accelerate": accelerate, "transformers": transformers}[sys.argv[1]])
    gc.collect()
