"""Every recipe's code runs as it is pasted and does what the recipe says; its numbers are those of the records."""

import contextlib
import importlib.util
import json
import math
import shlex
import sys
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch

from fenland.lab.cli import main
from fenland.lab.commands.parsing import parse
from fenland.lab.config.run_config import SHARED
from fenland.lab.recipes import RECIPES, measured
from fenland.lab.sweep.planning import base_run
from gains import plan
from gains.records import Rows
from gains.tasks import TASKS

ROOT = Path(__file__).parents[3]
STEPS, EPOCHS = 4, 2


def user_of_images() -> dict:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    loader = [(torch.randn(8, 3, 2, 2), torch.randint(3, (8,))) for _ in range(STEPS)]
    return {"model": model, "epochs": EPOCHS, "loader": loader}


def user_of_texts() -> dict:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = transformers.BertForSequenceClassification(config)
    loader = [{"input_ids": torch.randint(30, (4, 6)), "labels": torch.randint(2, (4,))} for _ in range(STEPS)]
    return {"model": model, "epochs": EPOCHS, "loader": loader}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks transformers by an old name
@pytest.mark.parametrize("name", RECIPES)
def test_pasted_code_runs_and_is_what_the_recipe_says(name):
    recipe = RECIPES[name]
    if "peft" in recipe.pasted and importlib.util.find_spec("peft") is None:
        pytest.skip("needs peft")
    space = user_of_texts() if "AutoModel" in recipe.pasted else user_of_images()
    model, calls = space["model"], []
    model.register_forward_hook(lambda *_: calls.append(1))
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    exec(compile(recipe.pasted, name, "exec"), space)
    opt, total = space["opt"], EPOCHS * STEPS
    assert {group["rho"] for group in opt.param_groups} == {recipe.rho}
    assert {group["max_lr"] for group in opt.param_groups} == {recipe.lr}
    assert space["rates"].last_epoch == total
    ascents = total // 4 if "quarter" in recipe.when else total
    assert len(calls) == total + ascents
    moved = {key for key, weight in model.named_parameters() if not torch.equal(weight, before.get(_old(key), NOTHING))}
    if name == "lora":
        assert moved, "the adapters and the head are trained"
        assert all("lora" in key or "modules_to_save" in key for key in moved), moved
    else:
        assert moved == set(before)


NOTHING = torch.empty(0)


def _old(key: str) -> str:
    """A weight's name before peft has wrapped its layer."""
    return key.replace(".base_layer", "").replace(".original_module", "")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_short_and_stands_on_a_task_of_the_plan(name):
    recipe = RECIPES[name]
    lines = [line for line in recipe.pasted.splitlines() if line and not line.startswith(("import", "from", "#"))]
    assert len(lines) <= (18 if name == "lora" else 15)
    points = TASKS[recipe.task].methods[recipe.method].points
    assert (recipe.lr, recipe.rho) in points
    fields = TASKS[recipe.task].fields
    for key in ("epochs", "batch_size", "limit", "label_noise", "lora", "model", "base"):
        if key in recipe.fields and key != "model":
            assert str(fields[key]) == recipe.fields[key], key


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_of_a_recipe_is_one(name, tmp_path):
    recipe = RECIPES[name]
    words = shlex.split(recipe.command)
    assert words[0] == "fenland"
    command = parse(words[1:])
    assert command.optimizers == (recipe.fields.get("base", "sgd"), recipe.preset.lower())
    given = {field: getattr(command, field) for field in SHARED}
    run = base_run(given | {"data": "digits", "device": "cpu"})
    assert run.lr == recipe.lr
    assert run.epochs == TASKS[recipe.task].fields["epochs"]


@contextlib.contextmanager
def script():
    """docs/measured_recipes.py as a module."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        yield importlib.import_module("measured_recipes")
    finally:
        sys.path.remove(str(ROOT / "docs"))


def test_the_packaged_numbers_are_those_of_the_records():
    with script() as measured_recipes:
        assert measured.FILE.read_text() == measured_recipes.content(), "run python docs/measured_recipes.py"


def rows_of(folder: Path, missing: int = 0) -> Rows:
    """Records of reviews-2k in which SAM's third point wins; with seeds for SAM, AdamW and the matched base."""
    task, rows = TASKS["reviews-2k"], Rows(folder)

    def add(method: str, purpose: str, point: tuple, seed: int, accuracy: float, loss: float, seconds: float) -> None:
        settings = plan.unit("reviews-2k", task, method, purpose, point, seed).settings
        numbers = {"test_accuracy": accuracy, "test_loss": loss, "test_ece": accuracy / 10, "process_seconds": seconds}
        told = {"method": method, "purpose": purpose, "status": "finished"}
        rows.add("reviews-2k", {**told, **numbers, "settings": settings})

    points = task.methods["SAM"].points
    for number, point in enumerate(points[: len(points) - missing]):
        add("SAM", plan.CHOOSING, point, 0, 0.7, (0.5, 0.4, 0.3, 0.6)[number], 1)
    for seed, (ours, theirs) in enumerate([(0.80, 0.79), (0.83, 0.80), (0.85, 0.81)]):
        add("SAM", plan.TEST, points[2], seed, ours, 1 - ours, 20)
        add("AdamW", plan.TEST, task.methods["AdamW"].points[0], seed, theirs, 1 - theirs, 10)
        if seed:
            add("AdamW, seconds of SAM", plan.TEST, task.methods["AdamW"].points[0], seed, theirs, 1 - theirs, 20)
    return rows


def test_a_gain_is_the_paired_difference_with_its_interval(tmp_path):
    with script() as measured_recipes:
        found = measured_recipes.known(rows_of(tmp_path), "reviews-2k", "SAM")
    assert (found.lr, found.rho) == TASKS["reviews-2k"].methods["SAM"].points[2]
    assert found.tries == 4
    differences = [1.0, 3.0, 4.0]
    half = 4.302653 * stdev(differences) / math.sqrt(3)  # Student's t, 2 degrees of freedom
    low, high = mean(differences) - half, mean(differences) + half
    assert f"accuracy {mean(differences):+.2f} ({low:+.2f} to {high:+.2f}) points" in found.gain
    assert f"test loss {-mean(differences) / 100:+.3f}" in found.gain
    assert "over 3 seeds, 2.00 times the seconds of AdamW" in found.gain
    assert found.gain.endswith("at the same seconds not measured yet"), "two seeds of three"


def test_what_was_not_run_is_said_to_be_so(tmp_path):
    with script() as measured_recipes:
        assert measured_recipes.known(rows_of(tmp_path, missing=1), "reviews-2k", "SAM") is None
        assert measured_recipes.gain(Rows(tmp_path), "reviews-2k", "SSAM") == ""


def test_a_recipe_tells_what_was_measured(monkeypatch):
    recipe = RECIPES["small-data"]
    known = measured.Measured(lr=0.3, rho=0.7, tries=4, gain="better")
    monkeypatch.setattr("fenland.lab.recipes.recipe.measured", lambda task, method: known)
    assert (recipe.lr, recipe.rho, recipe.gain) == (0.3, 0.7, "better")
    assert "lr=0.3" in recipe.pasted
    assert "rho=0.7" in recipe.pasted
    monkeypatch.setattr("fenland.lab.recipes.recipe.measured", lambda task, method: None)
    assert recipe.gain == "not measured yet"
    assert (recipe.lr, recipe.rho) == recipe.start[:2]


def test_the_command_lists_shows_and_prints_code(capsys):
    assert main(["recipe"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in RECIPES)
    assert main(["recipe", "lora"]) == 0
    assert "gain      " in capsys.readouterr().out
    assert main(["recipe", "lora", "--code"]) == 0
    assert capsys.readouterr().out == RECIPES["lora"].pasted
    assert main(["recipe", "lora", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["rho"] == RECIPES["lora"].rho


@pytest.mark.parametrize("words", [["pizza"], ["--code"]])
def test_a_wrong_name_is_told_the_right_ones(words, capsys):
    assert main(["recipe", *words]) == 2
    assert "choose one of images" in " ".join(capsys.readouterr().err.split())
