import dataclasses
import json
import math

import pytest

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput

CONFIG = RunConfig("digits", "mlp", "sam", rho=0.05)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rho", -0.1),
        ("rho", math.nan),
        ("lr", 0.0),
        ("lr", math.inf),
        ("momentum", 1.0),
        ("weight_decay", -1e-9),
        ("batch_size", 0),
        ("epochs", 0),
        ("epochs", 1.5),
        ("seed", -1),
        ("limit", 0),
        ("threads", 0),
        ("schedule", "linear"),
        ("precision", "8"),
        ("base", "adam"),
        ("strategy", "dp"),
        ("devices", 0),
        ("warmup", -1.0),
        ("warmup", math.nan),
        ("label_smoothing", 1.0),
        ("label_noise", 1.5),
        ("cutout", -1),
        ("cutout_share", 1.5),
        ("data_seed", -1),
        ("replace", -1),
        ("augment", 1),
        ("weights", "yes"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name}={value}: (give|choose) "):
        dataclasses.replace(CONFIG, **{name: value})


def test_hash_is_pinned() -> None:
    # Stored runs are found by it: a change here makes every existing store run again. Then raise config.SCHEMA.
    assert CONFIG.hash == "ab20e04c5fec"


def test_every_field_but_the_folder_changes_the_hash() -> None:
    other = {
        "data": "mnist", "data_dir": "/x", "test_split": "dev", "data_id": "x",
        "model": "lenet", "optimizer": "ssam", "schedule": "step",
        "device": "cuda", "precision": "64-true", "augment": True, "limit": 7, "rho": 0.1, "lr": 0.2, "momentum": 0.5,
        "weight_decay": 0.0, "batch_size": 1, "epochs": 9, "seed": 3, "threads": 2,
        "base": "adamw", "options": ("eta=0.1",), "warmup": 0.5, "label_smoothing": 0.1, "label_noise": 0.2,
        "cutout": 8, "cutout_share": 0.5, "data_seed": 1, "replace": 0, "strategy": "fsdp", "devices": 2,
        "curvature": 2, "channels_last": True, "weights": True, "validate": 5, "evaluate_every": 2,
        "model_dir": "/x", "model_id": "x", "max_tokens": 9, "lora": 4,
    }  # fmt: skip
    assert set(other) == {field.name for field in dataclasses.fields(RunConfig)}
    several = dataclasses.replace(CONFIG, strategy="ddp")
    assert several.hash != CONFIG.hash
    same = [k for k, value in other.items() if dataclasses.replace(several, **{k: value}).hash == several.hash]
    assert same == ["data_dir", "test_split", "weights", "model_dir"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"precision": "16-mixed"},
            "precision=16-mixed: float16 needs device cuda, this run is on cpu; take bf16-mixed",
        ),
        ({"devices": 2}, "devices=2: more than one needs strategy ddp or fsdp"),
        ({"devices": 2, "strategy": "ddp", "device": "mps"}, "devices=2: there is one mps device"),
        (
            {"devices": 2, "strategy": "ddp", "batch_size": 5},
            "batch_size=5: it is shared by 2 devices; give a multiple",
        ),
        ({"base": "adamw", "optimizer": "sgd"}, "optimizers=sgd: the base is adamw; name that, or give base=sgd"),
        ({"channels_last": True, "strategy": "fsdp"}, "channels_last=on: fsdp shards weights in their own order"),
        ({"warmup": 2.0, "epochs": 1}, "warmup=2.0: give at most 1, the number of epochs"),
        ({"options": ("eta",)}, "options=eta: write name=value, as in eta=0.01"),
        ({"options": ("a=1", "a=2")}, "options=a=1 a=2: a is given twice; keep one"),
    ],
)
def test_fields_that_do_not_fit_each_other(fields: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        dataclasses.replace(CONFIG, **fields)
    assert str(caught.value).startswith(said)


def test_options_have_one_order_and_survive_json() -> None:
    first = dataclasses.replace(CONFIG, options=("b=2", "a=1"))
    assert first.options == ("a=1", "b=2")
    assert first.hash == dataclasses.replace(CONFIG, options=["a=1", "b=2"]).hash
    assert RunConfig.from_dict(json.loads(json.dumps(first.as_dict()))) == first
    assert first.label == "sam a=1 b=2 seed 0"


def test_survives_a_dictionary_with_unknown_keys() -> None:
    assert RunConfig.from_dict({**CONFIG.as_dict(), "later": 1}) == CONFIG


def test_error_text_is_one_line() -> None:
    assert str(BadInput("data", "a\nb", "c\n  d")) == "data=a b: c d"
