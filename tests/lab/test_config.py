import dataclasses
import math

import pytest

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.schedules import SCHEDULES

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
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name}={value}: (give|choose) "):
        dataclasses.replace(CONFIG, **{name: value})


def test_hash_is_pinned() -> None:
    # Stored runs are found by it: a change here makes every existing store run again. Then raise config.SCHEMA.
    assert CONFIG.hash == "8cb2b0bed1a3"


def test_every_field_but_the_folder_changes_the_hash() -> None:
    other = {
        "data": "mnist", "data_dir": "/x", "data_id": "x", "model": "lenet", "optimizer": "ssam", "schedule": "step",
        "device": "cuda", "precision": "64-true", "augment": True, "limit": 7, "rho": 0.1, "lr": 0.2, "momentum": 0.5,
        "weight_decay": 0.0, "batch_size": 1, "epochs": 9, "seed": 3, "threads": 2,
    }  # fmt: skip
    assert set(other) == {field.name for field in dataclasses.fields(RunConfig)}
    same = [name for name, value in other.items() if dataclasses.replace(CONFIG, **{name: value}).hash == CONFIG.hash]
    assert same == ["data_dir"]


def test_survives_a_dictionary_with_unknown_keys() -> None:
    assert RunConfig.from_dict({**CONFIG.as_dict(), "later": 1}) == CONFIG


def test_error_text_is_one_line() -> None:
    assert str(BadInput("data", "a\nb", "c\n  d")) == "data=a b: c d"


def test_step_schedule_is_the_papers() -> None:
    factors = [SCHEDULES["step"](epoch / 10) for epoch in range(10)]
    assert factors == pytest.approx([1, 1, 1, 0.2, 0.2, 0.2, 0.04, 0.04, 0.008, 0.008])


def test_cosine_and_constant() -> None:
    assert [SCHEDULES["cosine"](progress) for progress in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert SCHEDULES["constant"](0.9) == 1
