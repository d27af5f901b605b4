"""Every recipe's code runs as it is pasted and does what the recipe says; its numbers are those of the records."""

import importlib.util
import json
import math
import shlex
import sys
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace

import pytest
import torch

from fenland.lab.cli import main
from fenland.lab.commands.parsing import parse
from fenland.lab.config.run_config import SHARED
from fenland.lab.evidence.tasks import TASKS
from fenland.lab.recipes import RECIPES, measured
from fenland.lab.recipes.measured import summarised
from fenland.lab.store.statistics import interval
from fenland.lab.sweep.planning import base_run

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
    assert len(recipe.pasted.splitlines()) <= 19
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


def test_the_packaged_numbers_are_those_of_the_records():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import measured_recipes
    finally:
        sys.path.remove(str(ROOT / "docs"))
    assert measured.FILE.read_text() == measured_recipes.content(), "run python docs/measured_recipes.py"


def row(
    method: str, seed: int, accuracy: float, seconds: float, purpose: str = "test", status: str = "finished"
) -> dict:
    values = {"test_accuracy": accuracy, "test_loss": 1 - accuracy, "test_ece": accuracy / 10}
    settings = {"seed": seed, "lr": 0.2, "rho": 0.1 if method == "SAM" else None}
    return {
        "method": method,
        "purpose": purpose,
        "status": status,
        "process_seconds": seconds,
        **values,
        "settings": settings,
    }


def test_a_gain_is_the_paired_difference_with_its_interval():
    ours, theirs = [0.80, 0.83, 0.85], [0.79, 0.80, 0.81]
    rows = [row("SAM", 0, 0.7, 1, "choosing") for _ in range(4)]
    rows += [row("SAM", seed, value, 20) for seed, value in enumerate(ours)]
    rows += [row("SGD", seed, value, 10) for seed, value in enumerate(theirs)]
    rows += [row("SGD", 3, 0.9, 10), row("SAM", 3, 0.1, 10, status="diverged")]
    found = summarised(rows, "SAM", "SGD", interval)
    differences = [0.01, 0.03, 0.04]
    half = 4.302653 * stdev(differences) / math.sqrt(3)  # Student's t, 2 degrees of freedom
    wanted = (mean(differences), mean(differences) - half, mean(differences) + half)
    assert found.gains["test_accuracy"] == pytest.approx(wanted, abs=2e-6)
    assert found.gains["test_loss"][0] == pytest.approx(-wanted[0], abs=2e-6)
    assert (found.lr, found.rho, found.choosing, found.seeds, found.cost) == (0.2, 0.1, 4, 3, 2.0)
    assert f"accuracy +{100 * wanted[0]:.2f} points" in found.sentence
    assert "3 paired seeds, 2.00 times" in found.sentence


def test_what_was_not_run_is_said_to_be_so():
    assert summarised([row("SAM", 0, 0.7, 1, "choosing")], "SAM", "SGD", interval) is None
    alone = summarised([row("SAM", 0, 0.7, 1), row("SGD", 0, 0.6, 1)], "SAM", "SGD", interval)
    assert alone.gains == {}, "one pair has no interval"


def test_a_recipe_tells_what_was_measured(monkeypatch):
    recipe = RECIPES["small-data"]
    known = SimpleNamespace(lr=0.3, rho=0.7, choosing=4, gains={"test_accuracy": (1, 1, 1)}, sentence="better")
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
