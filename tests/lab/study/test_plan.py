"""What a study would take, and a dry run of everything that its preset paper trains."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from image_files import write_split

from fenland.lab.cli import main
from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.studies import STUDIES, find
from fenland.lab.study.plan import Folders, check_here, distinct, evaluations, measure

NETWORKS = ("gamma", "uniform-stability", "spectrum", "classification", "radius", "ball-metric", "architectures",
            "momentum-batch", "late-sam")  # fmt: skip
# A hundred classes change the last layer alone (test_models): one network stands for the others there.
LIKE_CIFAR10 = {("cifar100", name) for name in ("resnet56", "resnext29-32x4d", "wrn28-10", "pyramidnet110-a48")}
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="cuda is here")


def runs_of(name, preset, folders=None):
    study = find(name)
    config = study.presets[preset]
    return study, config, list(study.trained(config, folders or Folders()))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_paper_preset_says_device_precision_and_repetitions(name):
    _, config, runs = runs_of(name, "paper")
    assert config.device == "cuda"
    assert {run.device for run in runs} == {"cuda"}
    assert {run.precision for run in runs} == {"32-true"}
    assert len({run.seed for run in runs}) >= 3
    assert {run.limit for run in runs} == {None}


def test_gradient_evaluations_are_those_of_the_steps():
    _, config, runs = runs_of("gamma", "quick")
    steps = config.epochs * (1437 // config.batch_size)
    assert evaluations(runs) == 2 * 3 * 2 * 3 * 2 * steps
    assert evaluations([*runs, *runs]) == evaluations(runs), "a run that several cases share is trained once"
    assert evaluations([RunConfig("cifar10", "lenet", "sgd", epochs=2, batch_size=512)]) == 2 * 97


def test_late_ascents_are_counted_from_their_step_on():
    _, config, runs = runs_of("late-sam", "paper")
    steps = 200 * (50_000 // 128)
    assert config.starts == (0.0, 0.5, 0.75, 0.9, 1.0)
    assert evaluations(runs) == 3 * round(steps * (2 + 1.5 + 1.25 + 1.1 + 1))
    (part,) = measure([RunConfig("digits", "mlp", "windowsam", epochs=2, batch_size=64, options=("start=40",))])
    assert (part.steps, part.evaluations) == (44, 44 + 4)


def test_runs_are_grouped_by_what_a_step_costs():
    _, _, runs = runs_of("momentum-batch", "two-cores")
    groups = distinct(runs)
    assert {(run.optimizer, run.batch_size): len(same) for run, same in groups.items()} == {
        ("sgd", 128): 2 * 3, ("sgd", 512): 2 * 3, ("sam", 128): 2 * 2 * 3, ("sam", 512): 2 * 2 * 3,
    }  # fmt: skip


def test_a_part_has_the_operations_and_the_memory_of_its_network():
    run = RunConfig("digits", "mlp", "sam", epochs=3, batch_size=64)
    (part,) = measure([run])
    layers = [64 * 256, 256 * 256, 256 * 10]
    products = 3 * sum(layers) - layers[0]  # nobody asks for the gradient at the images
    assert part.flop == 2 * 64 * products
    assert part.steps == 3 * (1437 // 64)
    assert part.evaluations == 2 * part.steps
    kept = 64 * (256 + 256)  # at least the two hidden layers' outputs
    assert 4 * (6 * 85_002 + kept) < part.memory < 4 * (6 * 85_002 + 6 * kept) + 1437 * 64
    assert part.seconds > 0
    assert part.timed == 64
    assert part.hours == pytest.approx((part.evaluations * part.seconds + part.steps * part.extra) / 3600)


@NO_CUDA
@pytest.mark.parametrize("name", NETWORKS)
def test_without_cuda_the_paper_preset_says_what_it_needs(name):
    study, config, runs = runs_of(name, "paper")
    with pytest.raises(BadInput, match=rf"{name} trains .* networks .* on cuda, .*--plan.*--preset quick") as caught:
        check_here(study, "paper", config, runs)
    assert f"{len({run.hash for run in runs}):,} networks ({evaluations(runs):,}" in str(caught.value)


@NO_CUDA
def test_the_command_refuses_before_it_writes(tmp_path, capsys):
    assert main(["study", "gamma", "--preset", "paper", "--out", str(tmp_path / "out")]) == 2
    assert "torch sees none here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_prints_a_plan_and_runs_nothing(tmp_path, capsys):
    words = ["study", "gamma", "quartic", "--plan", "--set", "models=mlp", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "gamma, preset quick" in shown
    assert "18 runs, 7,920 gradient evaluations" in shown
    assert "quartic, preset quick: trains no network" in shown
    assert main([*words, "--json"]) == 0
    gamma, quartic = json.loads(capsys.readouterr().out)["plans"]
    assert (gamma["runs"], gamma["gradient_evaluations"]) == (18, 7920)
    assert [part["optimizer"] for part in gamma["parts"]] == ["usam", "sam"]
    assert gamma["hours_here"] == pytest.approx(sum(part["hours_here"] for part in gamma["parts"]))
    assert (quartic["runs"], quartic["hours_here"]) == (0, 0)
    assert not (tmp_path / "out").exists()


def test_every_study_that_trains_can_be_planned():
    assert {name for name in STUDIES if list(find(name).trained(find(name).presets["quick"], Folders()))} >= {*NETWORKS}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Folders:
    """Data sets of the published shapes with eight images."""
    root: Path = tmp_path_factory.mktemp("sets")
    for name, size, classes in (("mnist", (28, 28), 10), ("cifar10", (32, 32, 3), 10), ("cifar100", (32, 32, 3), 100)):
        for split in ("train", "test"):
            write_split(root / name / f"{split}.parquet", 8, size, names=[str(each) for each in range(classes)])
    return Folders(root)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_two_steps_of_everything_that_the_paper_preset_trains(name, folders, tmp_path, monkeypatch):
    """The real networks, optimizers, options and augmentation for two steps of two images, on the CPU."""
    from fenland.lab.study.twins import LINEAR, follow
    from fenland.lab.training.here import train_here

    monkeypatch.setenv("FENLAND_CACHE", str(tmp_path / "cache"))
    _, _, runs = runs_of(name, "paper", folders)
    for same in distinct(runs).values():
        few = {"batch_size": 2, "limit": 4, "epochs": 1, "warmup": 0.0, "device": "cpu", "data_id": ""}
        short = dataclasses.replace(same[0], **few)
        if (short.data, short.model) in LIKE_CIFAR10:
            continue
        if name == "uniform-stability":
            assert short.model == LINEAR or follow(short, None)["status"].tolist() == ["finished"] * 2
            continue
        result = train_here(short, None, None)
        assert result.status == "finished", short
        assert result.records[-1].gradient_evaluations >= 2
