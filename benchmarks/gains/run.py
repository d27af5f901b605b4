"""One run of the plan: trained, tested on clean and on corrupted images, and put down as a row."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.models import build_model, pretrained
from fenland.lab.store import environment
from fenland.lab.training.evaluation import Tally
from fenland.lab.training.loop import OnEpoch
from fenland.lab.training.trainer import train
from gains.corruptions import CORRUPTIONS
from gains.plan import TEST, Unit
from gains.records import Row

KEPT = (
    "test_accuracy", "test_loss", "test_ece", "train_accuracy", "train_loss", "process_seconds", "seconds",
    "gradient_evaluations", "parameters",
)  # fmt: skip


def carry_out(
    unit: Unit, folder: Path | None, checkpoints: Path, on_epoch: OnEpoch | None = None, model: Path | None = None
) -> Row:
    """Train a unit, from its checkpoint where there is one, and say what came of it.

    Args:
        unit: of the plan.
        folder: of the data; None for the lab's own set of that name.
        checkpoints: a folder for what an interrupted run goes on from; the file is removed at the end.
        on_epoch: called with each epoch's record.
        model: folder of a pre-trained model; None for one of the lab's.

    Raises:
        BadInput: the data are missing or do not fit.
    """
    run = placed(unit.run, folder, model)
    checkpoints.mkdir(parents=True, exist_ok=True)
    path = checkpoints / f"{run.hash}.checkpoint"
    result = train(run, on_epoch, checkpoint=path)
    ends = result.summary()
    row: Row = {"task": unit.task, "method": unit.method, "purpose": unit.purpose, "status": result.status}
    row |= {name: ends[name] if math.isfinite(ends[name]) else None for name in KEPT}
    if unit.purpose == TEST and model is None and result.weights is not None and result.status == "finished":
        row["corruptions"] = corrupted(run, result.weights)
    about = environment.describe(run.threads)
    row |= {"settings": unit.settings, "data_id": run.data_id, "environment": about}
    for file in checkpoints.glob(f"{path.name}*"):
        file.unlink()
    return row


def placed(run: RunConfig, folder: Path | None, model: Path | None = None) -> RunConfig:
    """The run with its data and its model in their folders, and their identity."""
    if folder is not None:
        local = run.data if run.data in data.BUILT_IN else str(folder)
        run = dataclasses.replace(run, data=local, data_dir=str(folder) if local == run.data else None)
    if model is not None:
        run = dataclasses.replace(run, model=str(model))
    return pretrained.identify(data.identify(run))


def corrupted(run: RunConfig, weights: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """Accuracy, loss and calibration error on each kind of corrupted test images."""
    images = data.load(run)
    layout = torch.channels_last if run.channels_last else torch.contiguous_format
    model = build_model(run.model, images.shape, len(images.classes)).to(memory_format=layout)  # type: ignore[call-overload]
    model.load_state_dict(weights)
    model.eval()
    normal = images.statistics()
    found = {}
    for kind, corrupt in CORRUPTIONS.items():
        spoiled = dataclasses.replace(images, test=corrupt(images.test), normalisation=normal)
        found[kind] = _tested(model, data.Batches(spoiled, torch.device("cpu"), run.batch_size, run.seed), layout)
    return found


@torch.no_grad()
def _tested(model: torch.nn.Module, batches: data.Batches, layout: torch.memory_format) -> dict[str, float]:
    tally = Tally(torch.device("cpu"))
    for images, labels in batches.evaluation("test"):
        tally.add(model(images.to(memory_format=layout)), labels)
    end: Any = tally.result()
    return {"accuracy": end.accuracy, "loss": end.loss, "ece": end.ece}
