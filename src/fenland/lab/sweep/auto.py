"""What ``auto`` stands for: by the data set, by the base optimizer, by the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fenland.lab.errors import BadInput, one_of
from fenland.lab.models import pretrained


@dataclass(frozen=True)
class Defaults:
    """Of a data set; the names are those of ``RunConfig``."""

    model: str
    lr: float
    batch_size: int
    epochs: int
    augment: bool
    channels_last: bool


# A baseline that trains badly would flatter the others, so the rates are SGD's own best. LeNet on digits, 5 seeds:
# 93.9, 96.2, 96.7, 97.7 and 39.5 % at 0.01, 0.02, 0.05, 0.1 and 0.2. LeNet on MNIST, 2 epochs, 3 seeds: 98.4 % at 0.02,
# 96.4 % at 0.05. CIFAR: the usual recipe, cut to 30 epochs.
# Channels last, seconds of one CPU core a step of 128 images against channels first: ResNet-20 0.65, VGG-11 0.97 (with
# bf16-mixed, 0.51 and 0.58 of itself, together 0.41 and 0.54); LeNet 0.80 to 0.94, too little to rename its runs for.
_DEFAULTS = {
    "digits": Defaults("lenet", lr=0.1, batch_size=64, epochs=30, augment=False, channels_last=False),
    "mnist": Defaults("lenet", lr=0.02, batch_size=128, epochs=10, augment=False, channels_last=False),
    "cifar10": Defaults("resnet20", lr=0.1, batch_size=128, epochs=30, augment=True, channels_last=True),
    "cifar100": Defaults("resnet20", lr=0.1, batch_size=128, epochs=30, augment=True, channels_last=True),
}
_OTHER = Defaults("resnet20", lr=0.1, batch_size=128, epochs=30, augment=False, channels_last=True)
_TEXTS = Defaults("", lr=0.01, batch_size=32, epochs=3, augment=False, channels_last=False)
# Of bases other than SGD: the usual first choice, not tuned here.
_RATES = {"adamw": 1e-3}
# Fine-tuning: see docs/choosing-rho.md for the runs.
_FINE_TUNING = {"adamw": 1e-4}


def automatic(name: str, texts: Mapping[str, str]) -> Any:
    """The value of a field that is ``auto``, given how all fields are written."""
    if name == "channels_last" and texts["strategy"] == "fsdp":
        return False
    if name == "device":
        return next(device for device, there in devices().items() if there)
    texts_are_read = pretrained.named(texts["model"])
    if name == "lr" and texts["base"] in _RATES:
        return (_FINE_TUNING if texts_are_read else _RATES)[texts["base"]]
    if texts_are_read and name != "model":
        return getattr(_TEXTS, name)
    return getattr(_DEFAULTS.get(texts["data"], _OTHER), name)


def check_device(text: str) -> None:
    """Refuse a device that this machine has not."""
    here = devices()
    if text not in here:
        raise BadInput("device", text, one_of(("auto", *here)))
    if not here[text]:
        raise BadInput("device", text, f"torch sees none here; {one_of(name for name, there in here.items() if there)}")


def devices() -> dict[str, bool]:
    """Which devices torch sees here, the fastest first."""
    import torch

    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
