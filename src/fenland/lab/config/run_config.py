"""Every field of a training run, once: the same configuration gives the same numbers and the same name in the store.

From this table come ``RunConfig`` and its errors, the options of `fenland compare`, the fields of `fenland sweep
compare --set` and the lines of their help. A new field is one entry here and what reads it in training.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, get_args

from fenland.lab.config.entry import (
    AUTO,
    BELOW_ONE,
    FOLDER,
    NAME,
    NEVER,
    NOT_NEGATIVE,
    POSITIVE,
    REQUIRED,
    SHARE,
    SWITCH,
    WHERE_SET,
    Allowed,
    among,
    at_least,
    entries,
    entry,
)
from fenland.lab.config.schedules import SCHEDULES
from fenland.lab.config.words import hints
from fenland.lab.config.words import value as value_of
from fenland.lab.errors import BadInput

# Raise it when a field or a recorded number changes its meaning: stored runs of older schemas are then not reused.
SCHEMA = 2

PRECISIONS = ("32-true", "bf16-mixed", "64-true", "16-mixed")
BASES = ("sgd", "adamw")
STRATEGIES = ("auto", "ddp", "fsdp")
_OPTION = re.compile(r"[A-Za-z_]\w*=.+")
_OPTIONS = Allowed(
    lambda value: all(isinstance(each, str) and _OPTION.fullmatch(each) for each in value),
    "write name=value, as in eta=0.01",
)


@dataclass(frozen=True)
class RunConfig:
    """The full configuration of one run; a value that its field may not hold is a ``BadInput``."""

    data: str = entry(
        REQUIRED,
        NAME,
        "digits, mnist, cifar10, cifar100, a hub name owner/name, or a folder: parquet files in the hub's schema, of "
        "images or of texts, or SPLIT/CLASS/ with images (see fenland data).",
    )
    model: str = entry(
        REQUIRED,
        NAME,
        "mlp, lenet, convnet, resnet18 (with -group: group norm, -plain: none), resnet20, resnet56 (with -identity: "
        "the paper's shortcut), wrn16-10, wrn28-10 or any wrnD-K, pyramidnet20-a48, pyramidnet110-a48, "
        "resnext29-32x4d, vgg11, vgg16 (with -plain: no batch norm), vit. For texts a pre-trained transformer: its "
        "hub name owner/name, or its folder.",
        auto=True,
    )
    optimizer: str = entry(
        REQUIRED, NAME, "sgd, adamw, or a method of `fenland variants` in small letters.", option=False
    )
    seed: int = entry(
        0, at_least(0), "Fixes the initial weights, the order of the examples, augmentation and dropout.", option=False
    )
    rho: float | None = entry(
        None, NOT_NEGATIVE, "Radius of the ascent, in the norm of the weights; none without an ascent.", option=False
    )
    lr: float = entry(
        0.1, POSITIVE, "Learning rate of the base, the highest one of the schedule (auto for adamw: 0.001).", auto=True
    )
    momentum: float = entry(0.9, BELOW_ONE, "Momentum of SGD, first beta of AdamW (its second one is 0.999).")
    # 5e-4: the usual choice for small images, as in Foret et al. 2021.
    weight_decay: float = entry(5e-4, NOT_NEGATIVE, "L2 penalty of SGD, decoupled decay of AdamW.")
    batch_size: int = entry(
        128, at_least(1), "Examples a step, of all devices together; the incomplete last batch is dropped.", auto=True
    )
    epochs: int = entry(1, at_least(1), "Passes over the train set.", auto=True)
    schedule: str = entry(
        "cosine",
        among(tuple(SCHEDULES)),
        "constant, cosine, one-cycle (rises over 30 % of the steps, then falls to 0), or step (20 %, 4 %, 0.8 % of the "
        "learning rate at 30, 60, 80 % of the epochs).",
    )
    limit: int | None = entry(
        None, at_least(1), "Train on this many examples only, stratified over the classes; all for all."
    )
    augment: bool = entry(
        False, SWITCH, "Random crop (zero padding 4) and flip: on, off, auto (on for CIFAR).", auto=True
    )
    device: str = entry("cpu", NAME, "cpu, cuda, mps.", auto=True)
    precision: str = entry("32-true", among(PRECISIONS), "32-true, bf16-mixed, 64-true; 16-mixed on cuda.")
    # They change the order of sums and so the last digits: hence a part of the run.
    threads: int = entry(1, at_least(1), "Threads of one run on the CPU; more help large models only.")
    data_dir: str | None = entry(
        None, FOLDER, "A folder with a copy of a set that has a name, instead of a download.", hashed=NEVER
    )
    # What it is tested on is part of data_id.
    test_split: str | None = entry(
        None, NAME, "The split to test on; none takes test, else the one validation split.", hashed=NEVER
    )
    data_id: str = entry("", NAME, "Identity of the data, filled in by `fenland.lab.data.identify`.", option=False)
    base: str = entry("sgd", among(BASES), "sgd or adamw: what takes the step. The baseline has the same name.")
    options: tuple[str, ...] = entry(
        (), _OPTIONS, "Arguments of the optimizer's preset as name=value, such as eta=0.01; kept sorted.", option=False
    )
    warmup: float = entry(
        0.0, NOT_NEGATIVE, "Epochs (fractions too) over which the learning rate rises linearly, step by step."
    )
    # Every recorded evaluation is without it.
    label_smoothing: float = entry(
        0.0, BELOW_ONE, "Share of the target that is spread over all classes, in the training loss only."
    )
    label_noise: float = entry(0.0, SHARE, "Share of the train labels that are replaced by another class.")
    cutout: int = entry(0, at_least(0), "Side of the square blanked in each training image, in pixels; 0 for none.")
    cutout_share: float = entry(
        1.0, SHARE, "Share of the training images in which cutout blanks a square.", hashed=WHERE_SET
    )
    data_seed: int = entry(
        0, at_least(0), "Fixes which examples --limit takes, which labels are noisy and what --replace takes."
    )
    replace: int | None = entry(
        None, at_least(0), "Number of the neighbouring train set that differs in one example, from 0; none for the set."
    )
    strategy: str = entry(
        "auto", among(STRATEGIES), "How a run uses several devices: ddp (replicated), fsdp (sharded); auto: one device."
    )
    devices: int = entry(1, at_least(1), "Processes of one run, with --strategy; they share the batch.")
    # Its time is not training time.
    curvature: int = entry(
        0,
        at_least(0),
        "Measure the Hessian's extreme eigenvalues every so many epochs and at the last one; 0 for never.",
        hashed=WHERE_SET,
    )
    validate: int = entry(
        0,
        at_least(0),
        "Hold out this many train examples and test on them, never on the test set: for choosing lr and rho.",
        hashed=WHERE_SET,
    )
    evaluate_every: int = entry(
        0,
        at_least(0),
        "Evaluate after every so many epochs and after the last one; 0 for after each.",
        hashed=WHERE_SET,
    )
    channels_last: bool = entry(
        False,
        SWITCH,
        "Keep weights and images with their channels last in memory: faster convolutions, other last digits.",
        auto=True,
        hashed=WHERE_SET,
    )
    model_dir: str | None = entry(
        None, FOLDER, "Where a pre-trained model named by its folder lies.", option=False, hashed=NEVER
    )
    model_id: str = entry("", NAME, "Identity of the files in it.", option=False, hashed=WHERE_SET)
    max_tokens: int | None = entry(
        None,
        at_least(8),
        "Tokens of a text that are read, the rest is cut off; none for all that the model takes.",
        hashed=WHERE_SET,
    )
    lora: int = entry(
        0,
        at_least(0),
        "Rank of the adapters (LoRA) that are trained in place of a pre-trained model's own weights; 0 for those.",
        hashed=WHERE_SET,
    )
    weights: bool = entry(False, SWITCH, "Keep the final weights of every run.", hashed=NEVER)

    def __post_init__(self) -> None:
        # A list, as JSON gives it back, is the same configuration; so are other orders of the options.
        object.__setattr__(self, "options", tuple(sorted(map(str, self.options))))
        for name in FIELDS:
            check(name, getattr(self, name))
        for fits in (_check_options, _check_warmup, _check_half, _check_base, _check_devices):
            fits(self)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, in the order of the fields."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """Read what ``as_dict`` wrote; keys that this version does not know are left out."""
        return cls(**{key: value for key, value in values.items() if key in FIELDS})

    def identity(self) -> dict[str, Any]:
        """What fixes the numbers of the run: everything but where its data lies and what is kept."""
        rule = {name: each.hashed for name, each in FIELDS.items()}
        return {
            name: value
            for name, value in self.as_dict().items()
            if rule[name] != NEVER and (value != getattr(RunConfig, name, None) or rule[name] != WHERE_SET)
        }

    @property
    def hash(self) -> str:
        """Twelve hex digits of the configuration's SHA-256: the name of the run in a store."""
        text = json.dumps({"schema": SCHEMA, **self.identity()}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """A short name for people."""
        return " ".join((self.optimizer, *self.options, f"seed {self.seed}"))


FIELDS = entries(RunConfig)
# Fields that `fenland compare` has as options of the same name: one value for all runs.
SHARED = tuple(name for name, each in FIELDS.items() if each.option)
HINTS = hints(RunConfig)
RunConfig.__doc__ = f"{RunConfig.__doc__}\n\nArgs:\n" + "".join(
    f"    {name}: {each.help}\n" for name, each in FIELDS.items()
)
OPTIONAL = frozenset(name for name, kind in HINTS.items() if type(None) in get_args(kind))


def written(name: str) -> str:
    """What a shared field is where it is not given, as it would be written."""
    default = getattr(RunConfig, name, None)
    if FIELDS[name].auto:
        return AUTO
    if default is None or name == "data":
        return {"data": "digits", "limit": "all"}.get(name, "none")
    return (
        ("off", "on")[default]
        if isinstance(default, bool)
        else f"{default:g}"
        if isinstance(default, float)
        else str(default)
    )


def check(name: str, value: Any) -> None:
    """Refuse what a field may not hold."""
    allowed = FIELDS[name].allowed
    nothing = value is None and name in OPTIONAL
    if not nothing and (value is None or not allowed.holds(value)):
        raise BadInput(name, " ".join(value) if isinstance(value, tuple) else value, allowed.cure)


def of_field(name: str, text: str) -> Any:
    """The value of a field from its text."""
    try:
        value = value_of(text, HINTS[name])
        check(name, value)
    except ValueError:
        cure = FIELDS[name].allowed.cure
        more = [*[AUTO] * FIELDS[name].auto, *["none"] * (name in OPTIONAL)]
        raise BadInput(name, text, ", or ".join([cure, *more])) from None
    return value


# Fields that must fit each other.


def _check_options(config: RunConfig) -> None:
    names = [text.partition("=")[0] for text in config.options]
    for name in names:
        if names.count(name) > 1:
            raise BadInput("options", " ".join(config.options), f"{name} is given twice; keep one")


def _check_warmup(config: RunConfig) -> None:
    if config.warmup > config.epochs:
        raise BadInput("warmup", config.warmup, f"give at most {config.epochs}, the number of epochs")


def _check_half(config: RunConfig) -> None:
    if config.precision == "16-mixed" and config.device != "cuda":
        cure = f"float16 needs device cuda, this run is on {config.device}; take bf16-mixed there"
        raise BadInput("precision", config.precision, cure)


def _check_base(config: RunConfig) -> None:
    if config.optimizer in BASES and config.optimizer != config.base:
        cure = f"the base is {config.base}; name that, or give base={config.optimizer}"
        raise BadInput("optimizers", config.optimizer, cure)


def _check_devices(config: RunConfig) -> None:
    if config.devices > 1 and config.strategy == "auto":
        raise BadInput("devices", config.devices, "more than one needs strategy ddp or fsdp")
    if config.devices > 1 and config.device == "mps":
        raise BadInput("devices", config.devices, "there is one mps device; take cpu or cuda")
    if config.devices > 1 and config.curvature:
        raise BadInput("curvature", config.curvature, "is measured in one process; leave it out, or give devices=1")
    if config.channels_last and config.strategy == "fsdp":
        raise BadInput("channels_last", "on", "fsdp shards weights in their own order; give off, or strategy ddp")
    if config.batch_size % config.devices:
        cure = f"it is shared by {config.devices} devices; give a multiple of {config.devices}"
        raise BadInput("batch_size", config.batch_size, cure)
