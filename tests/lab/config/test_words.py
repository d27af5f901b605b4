"""The one dialect of values, and that every command reads it."""

from pathlib import Path
from typing import Any, Literal

import pytest

from fenland.lab.config import RunConfig, words
from fenland.lab.config.options import read_options
from fenland.lab.config.run_config import FIELDS, SHARED, of_field, written
from fenland.lab.errors import BadInput
from fenland.lab.store.listing import choose
from fenland.lab.sweep.planning import Request, base_run, plan
from fenland.presets import PRESETS

ON, OFF, NONE = ("on", "yes", "true", "ON", "True"), ("off", "no", "false", "OFF"), ("none", "None", "all", "ALL")


@pytest.mark.parametrize(
    ("word", "values"),
    {
        "seed=0..9": list(map(str, range(10))),
        "seed=0..8..4": ["0", "4", "8"],
        "seed=3,0..1,7": ["3", "0", "1", "7"],
        "seed=-2..-1": ["-2", "-1"],
        "rho=0.01, 0.05,0.05": ["0.01", "0.05"],
        "batch-size=64": ["64"],
        "options=eta=0.1,p=2;eta=0.2;": ["eta=0.1,p=2", "eta=0.2", ""],
    }.items(),
)
def test_values_of_an_axis(word: str, values: list[str]) -> None:
    (found,) = words.axes([word], RunConfig).values()
    assert found == values


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        *((text, bool, True) for text in ON),
        *((text, bool, False) for text in OFF),
        *((text, int | None, None) for text in NONE),
        *((text, str | None, None) for text in NONE),
        ("7", int | None, 7),
        ("1e-3", float, 0.001),
        ("0..3,7", tuple[int, ...], (0, 1, 2, 3, 7)),
        ("0..4..2", list[int], (0, 2, 4)),
        ("0.1, 0.2", tuple[float, ...], (0.1, 0.2)),
        ("none", tuple[float, ...], ()),
        ("", tuple[str, ...], ()),
        ("on,no", tuple[bool, ...], (True, False)),
        ("b", Literal["a", "b"], "b"),
        ("3", int | str, 3),
        ("x", int | str, "x"),
    ],
)
def test_values(text: str, kind: Any, value: Any) -> None:
    found = words.value(text, kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("1", bool, "write on or off"),
        ("2.5", int, "write a whole number"),
        ("x", float | None, "write a number"),
        ("3..1", tuple[int, ...], "3..1 is an empty range"),
        ("0..3..0", tuple[int, ...], "is an empty range"),
        ("c", Literal["a", "b"], "choose one of a, b"),
        ("x", int | float, "write a whole number or write a number"),
    ],
)
def test_what_is_none(text: str, kind: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        words.value(text, kind)


@pytest.mark.parametrize("word", [*ON, *OFF])
def test_every_command_takes_the_same_words_for_a_switch(word: str) -> None:
    truth = word in ON
    assert base_run({"augment": word}).augment is truth  # compare, and sweep --set
    assert of_field("weights", word) is truth
    rows = [{"augment": True, "n": 1}, {"augment": False, "n": 0}]
    assert choose(rows, [f"augment={word}"]) == [rows[not truth]]  # runs --where
    read = read_options("asam", [PRESETS["ASAM"].build], [f"include_bias={word}"])  # a method's options
    assert read == {"include_bias": truth}


@pytest.mark.parametrize("word", NONE)
def test_every_command_takes_the_same_words_for_nothing(word: str) -> None:
    assert base_run({"limit": word, "replace": word, "data_dir": word}).limit is None
    rows = [{"limit": None}, {"limit": 5}]
    assert choose(rows, [f"limit={word}"]) == rows[:1]


def test_seeds_are_a_count_or_a_list() -> None:
    def seeds(text: str) -> list[int]:
        return [run.seed for run in plan(Request(optimizers=("sgd",), seeds=text))]

    assert seeds("3") == [0, 1, 2]
    assert seeds("2..4") == [2, 3, 4]
    assert seeds("7,0..1") == [7, 0, 1]


@pytest.mark.parametrize("name", SHARED)
def test_a_default_is_written_as_it_is_read(name: str) -> None:
    text = written(name)
    assert getattr(base_run({name: text}), name) == getattr(base_run({}), name)
    if text != "auto" and name != "data":
        assert of_field(name, text) == RunConfig("digits", "mlp", "sgd").as_dict()[name]


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_has_a_cure_and_help(name: str) -> None:
    entry = FIELDS[name]
    assert entry.allowed.cure.split()[0] in ("give", "choose", "write")
    assert entry.help[-1] == "."
    with pytest.raises(BadInput, match=f"^{name}="):
        of_field(name, "b ad\0") if name not in _WORDS else _refused(name)


_WORDS = (  # that may be any
    "data", "model", "optimizer", "data_id", "data_dir", "model_id", "model_dir", "test_split", "device",
)  # fmt: skip


def _refused(name: str) -> None:
    RunConfig(**{"data": "digits", "model": "mlp", "optimizer": "sgd", name: 3})


def test_a_command_line_has_every_shared_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fenland.lab.cli import main

    assert main(["compare", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in SHARED:
        assert f"--{name.replace('_', '-')} {FIELDS[name].allowed.metavar}" in shown
        assert " ".join(FIELDS[name].help.split()) in shown
