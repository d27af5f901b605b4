import dataclasses
import math

import pytest
import torch

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.metrics import EpochRecord, StepMeans
from fenland.lab.optimizers import OPTIMIZERS, build_optimizer, check_optimizer
from fenland.lab.trainer import train
from fenland.lab.training import loop

QUICK = RunConfig("digits", "mlp", "sgd", lr=0.05, batch_size=64, epochs=3)
TIMES = ("seconds", "images_per_second")


def numbers(record: EpochRecord) -> str:
    # repr, because NaN equals itself there.
    return repr({key: value for key, value in record.as_dict().items() if key not in TIMES})


@pytest.mark.parametrize("optimizer", ["sgd", "sam", "ssam", "looksam", "msam", "rst", "nstepsam"])
@pytest.mark.parametrize("model", ["mlp", "resnet20"])
def test_same_configuration_same_numbers(optimizer: str, model: str) -> None:
    config = dataclasses.replace(QUICK, optimizer=optimizer, model=model, epochs=2, limit=320)
    first, again = train(config), train(config)
    assert list(map(numbers, first.records)) == list(map(numbers, again.records))
    assert numbers(train(dataclasses.replace(config, seed=1)).records[-1]) != numbers(first.records[-1])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_of_the_lab_trains_a_network_with_norm_layers(optimizer: str) -> None:
    base = "adamw" if optimizer == "adamw" else "sgd"
    config = dataclasses.replace(QUICK, optimizer=optimizer, base=base, model="resnet20", epochs=1, limit=128)
    result = train(config)
    assert math.isfinite(result.records[-1].train_loss)


def test_sgd_learns_digits() -> None:
    seen: list[EpochRecord] = []
    result = train(dataclasses.replace(QUICK, epochs=10), seen.append)
    assert tuple(seen) == result.records
    assert [record.epoch for record in seen] == list(range(1, 11))
    summary = result.summary()
    assert summary["status"] == "finished"
    assert summary["test_accuracy"] > 0.95
    assert summary["gradient_evaluations"] == 10 * 22
    assert summary["parameters"] == 85_002
    assert summary["loss_gap"] == summary["test_loss"] - summary["train_loss"]
    assert summary["accuracy_gap"] == summary["train_accuracy"] - summary["test_accuracy"]
    assert seen[0].train_loss > seen[-1].train_loss > 0
    assert seen[-1].grad_norm > 0
    assert math.isnan(seen[-1].gamma)
    assert math.isnan(seen[-1].sharpness)


@pytest.mark.parametrize("optimizer", ["sam", "usam", "ssam", "ssam-u"])
def test_ascents_are_recorded(optimizer: str) -> None:
    result = train(dataclasses.replace(QUICK, optimizer=optimizer))
    last = result.records[-1]
    assert last.test_accuracy > 0.9
    assert last.gradient_evaluations == 2 * 3 * 22
    assert last.sharpness > 0
    assert 0 < last.gamma < 1.5
    assert last.grad_norm > 0
    assert last.ascent_grad_norm > 0
    # The unnormalised ascent is as long as rho times the gradient's norm.
    length = last.grad_norm if optimizer in ("usam", "ssam-u") else 1
    assert last.radius == pytest.approx(0.05 * length, rel=1e-4)
    assert last.skipped == 0


def test_rho_zero_trains_as_sgd_does() -> None:
    plain = train(QUICK).records[-1]
    zero = train(dataclasses.replace(QUICK, optimizer="sam", rho=0.0)).records[-1]
    assert zero.test_loss == plain.test_loss
    assert zero.gradient_evaluations == plain.gradient_evaluations


def test_divergence_is_a_result() -> None:
    for optimizer in ("sgd", "ssam"):
        result = train(dataclasses.replace(QUICK, optimizer=optimizer, lr=1e30, schedule="constant"))
        assert result.status == "diverged"
        assert len(result.records) == 1
        assert not math.isfinite(result.summary()["train_loss"])


def test_the_callers_state_is_left_alone() -> None:
    torch.set_num_threads(2)
    before = torch.get_rng_state()
    train(dataclasses.replace(QUICK, epochs=1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == 2


def test_the_callers_state_does_not_matter() -> None:
    first = train(dataclasses.replace(QUICK, epochs=1))
    torch.manual_seed(99)
    assert numbers(train(dataclasses.replace(QUICK, epochs=1)).records[-1]) == numbers(first.records[-1])


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_learn(precision: str) -> None:
    result = train(dataclasses.replace(QUICK, optimizer="sam", precision=precision))
    assert result.summary()["test_accuracy"] > 0.85


def test_schedule_and_augmentation_reach_the_training() -> None:
    plain = train(dataclasses.replace(QUICK, schedule="step", epochs=10, limit=128))
    assert [record.lr for record in plain.records] == pytest.approx(
        [0.05 * factor for factor in (1, 1, 1, 0.2, 0.2, 0.2, 0.04, 0.04, 0.008, 0.008)]
    )
    augmented = train(dataclasses.replace(QUICK, augment=True))
    assert augmented.records[-1].train_loss > train(QUICK).records[-1].train_loss


def test_the_last_epoch_is_evaluated_on_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "PROBE", 100)
    assert [record.train_examples for record in train(QUICK).records] == [100, 100, 1437]


def test_too_large_a_batch_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^batch_size=2000: give at most 1437"):
        train(dataclasses.replace(QUICK, batch_size=2000))


def test_optimizers_by_name() -> None:
    model = torch.nn.Linear(2, 2)
    built = build_optimizer(dataclasses.replace(QUICK, optimizer="ssam"), model)
    assert built.param_groups[0]["rho"] == 0.05
    assert built.param_groups[0]["momentum"] == 0.9
    with pytest.raises(BadInput, match=r"^optimizers=adam: choose one of sgd, adamw, sam, .*ssam, .*looksam"):
        check_optimizer("adam")


class Record:
    """A step's record with a tensor, a plain number, a truth value and nothing."""

    gamma = torch.tensor(0.5)
    radius = 0.1
    skipped = True
    cosine = None


def test_step_means() -> None:
    means = StepMeans(torch.device("cpu"))
    means.add(torch.tensor(1.0), Record())
    means.add(torch.tensor(3.0), None)
    found = means.means()
    assert found["train_loss"] == 2.0
    assert found["gamma"] == 0.5
    assert found["radius"] == pytest.approx(0.1)
    assert found["skipped"] == 1.0
    assert math.isnan(found["cosine"])
    assert math.isnan(found["sharpness"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_repeats_itself() -> None:
    config = dataclasses.replace(QUICK, optimizer="ssam", model="resnet20", device="cuda", augment=True)
    assert numbers(train(config).records[-1]) == numbers(train(config).records[-1])
