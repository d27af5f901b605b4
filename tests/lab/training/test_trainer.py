import dataclasses
import math
from typing import Any

import pytest
import torch
from repeats import numbers
from torch import nn

import fenland
from fenland.lab.config import RunConfig
from fenland.lab.data import load
from fenland.lab.errors import BadInput
from fenland.lab.models import MODELS
from fenland.lab.training import engine, loop
from fenland.lab.training.metrics import EpochRecord, StepMeans
from fenland.lab.training.optimizers import OPTIMIZERS, build_optimizer, check_optimizer
from fenland.lab.training.trainer import train

QUICK = RunConfig("digits", "mlp", "sgd", lr=0.05, batch_size=64, epochs=3)


@pytest.mark.parametrize(
    ("optimizer", "model"),
    [
        *((name, "mlp") for name in ("sgd", "sam", "ssam", "looksam", "msam", "rst", "esam")),
        pytest.param("ssam", "resnet20", marks=pytest.mark.slow),
    ],
)
def test_same_configuration_same_numbers(optimizer: str, model: str) -> None:
    config = dataclasses.replace(QUICK, optimizer=optimizer, model=model, epochs=2, limit=192)
    first, again = train(config), train(config)
    assert numbers(first.records) == numbers(again.records)
    assert numbers(train(dataclasses.replace(config, seed=1)).records[-1:]) != numbers(first.records[-1:])


def normed(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Filters, a norm layer and a dense layer, a tenth of the time of ResNet-20."""
    body = nn.Conv2d(shape[0], 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(32, classes))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_of_the_lab_trains_a_network_with_norm_layers(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "normed", normed)
    base = "adamw" if optimizer == "adamw" else "sgd"
    config = dataclasses.replace(QUICK, optimizer=optimizer, base=base, model="normed", epochs=1)
    config = dataclasses.replace(config, limit=32, batch_size=16)
    result = train(config)
    assert math.isfinite(result.records[-1].train_loss)
    assert result.records[-1].skipped == 0 or OPTIMIZERS[optimizer].rho is None


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


@pytest.mark.parametrize("optimizer", ["sgd", "ssam", "spectralsam", "gcsam", "esam"])
def test_divergence_is_a_result(optimizer: str) -> None:
    result = train(dataclasses.replace(QUICK, optimizer=optimizer, lr=1e30, schedule="constant", limit=256))
    assert result.status == "diverged"
    assert len(result.records) == 1
    # The first step is taken at finite weights; what it makes of them shows in the second loss.
    assert result.diverged_step == 2
    summary = result.summary()
    assert summary["diverged_step"] == 2
    assert not math.isfinite(summary["train_loss"])


def explode(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    return model


@pytest.mark.parametrize("optimizer", ["sgd", "sam", "spectralsam", "zsharp", "samon"])
@pytest.mark.parametrize("options", [(), ("nonfinite=raise",)])
def test_no_number_in_the_first_step(optimizer: str, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine.make_model
    monkeypatch.setattr(engine, "make_model", lambda *given: explode(made(*given)))
    if optimizer == "sgd" and options:
        pytest.skip("SGD has no such option")
    model = "resnet20" if optimizer == "samon" else "mlp"
    config = dataclasses.replace(QUICK, optimizer=optimizer, options=options, model=model, limit=64, batch_size=32)
    result = train(config)
    assert (result.status, result.diverged_step, len(result.records)) == ("diverged", 1, 1)


def test_a_long_epoch_is_not_trained_to_its_end_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOOK_EVERY", 4)
    result = train(dataclasses.replace(QUICK, lr=1e30, schedule="constant"))
    assert (result.status, result.diverged_step) == ("diverged", 2)
    assert result.records[-1].gradient_evaluations == 4


def test_all_steps_skipped_is_divergence_and_some_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skipped steps leave the weights as they were: a run that can go on, goes on."""
    backward = engine.Engine._closure

    def spoiled(every: int) -> Any:
        def closure(self: engine.Engine, images: torch.Tensor, labels: torch.Tensor) -> Any:
            run = backward(self, images, labels)

            def spoil() -> torch.Tensor:
                loss = run()
                if self.evaluations % every == 0:
                    self.weights[0].grad[0, 0] = math.inf
                return loss

            return spoil

        return closure

    config = dataclasses.replace(QUICK, optimizer="sam", epochs=1)
    monkeypatch.setattr(engine.Engine, "_closure", spoiled(1))
    result = train(config)
    assert (result.status, result.diverged_step, result.records[-1].skipped) == ("diverged", 1, 1.0)
    monkeypatch.setattr(engine.Engine, "_closure", spoiled(6))
    result = train(config)
    assert (result.status, result.diverged_step) == ("finished", None)
    assert 0 < result.records[-1].skipped < 1


def test_an_error_of_its_own_is_no_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: engine.Engine, *given: object) -> None:
        raise torch.linalg.LinAlgError("the algorithm failed to converge")

    monkeypatch.setattr(engine.Engine, "step", broken)
    with pytest.raises(torch.linalg.LinAlgError):
        train(QUICK)


def test_the_callers_state_is_left_alone() -> None:
    torch.set_num_threads(2)
    before = torch.get_rng_state()
    train(dataclasses.replace(QUICK, epochs=1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == 2


def test_the_callers_state_does_not_matter() -> None:
    first = train(dataclasses.replace(QUICK, epochs=1))
    torch.manual_seed(99)
    assert numbers(train(dataclasses.replace(QUICK, epochs=1)).records[-1:]) == numbers(first.records[-1:])


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


def test_stable_asam_is_asams_ball_with_the_renormalised_gradient() -> None:
    built = build_optimizer(
        dataclasses.replace(QUICK, optimizer="stable-asam", options=("eta=0.2", "cap=1.5")), torch.nn.Linear(2, 2)
    )
    assert isinstance(built, fenland.SharpnessAware)
    assert built.rules.ball == fenland.Adaptive(eta=0.2)
    assert built.rules.method == fenland.Renormalize(cap=1.5)
    assert built.param_groups[0]["rho"] == 0.5
    assert OPTIMIZERS["stable-asam"].title == "Stable ASAM"
    plain, stable = (train(dataclasses.replace(QUICK, optimizer=name)).records[-1] for name in ("asam", "stable-asam"))
    assert stable.train_loss != plain.train_loss
    assert stable.radius == pytest.approx(plain.radius, rel=0.2)


@pytest.mark.parametrize(
    ("optimizer", "option", "said"),
    [
        ("asam", "eta=x", "options=asam:eta=x: eta takes a number"),
        ("asam", "eta=-1", "options=asam:eta=-1: eta = -1.0: must be a finite number"),
        ("asam", "granularity=row", "options=asam:granularity=row: granularity takes one of element, filter, layer"),
        ("asam", "include_bias=1", "options=asam:include_bias=1: include_bias takes on or off"),
        ("nstepsam", "n=1.5", "options=nstepsam:n=1.5: n takes a whole number"),
        ("sam", "cap=1", "options=sam:cap=1: sam has no argument cap that a word can give; choose one of max_norm"),
        ("sgd", "eta=1", "options=sgd:eta=1: sgd takes no options"),
        ("ssam", "cap=low", "options=ssam:cap=low: cap takes a number or none"),
    ],
)
def test_a_wrong_option_is_refused_by_name(optimizer: str, option: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        build_optimizer(dataclasses.replace(QUICK, optimizer=optimizer, options=(option,)), torch.nn.Linear(2, 2))
    assert str(caught.value).startswith(said)


def test_draws_of_a_method_follow_the_runs_seed() -> None:
    for seed in (0, 7):
        built = build_optimizer(dataclasses.replace(QUICK, optimizer="rst", seed=seed), torch.nn.Linear(2, 2))
        assert isinstance(built, fenland.SharpnessAware)
        assert built.rules.when == fenland.WithProbability(0.5, seed)


def test_adamw_is_torchs_own() -> None:
    built = build_optimizer(dataclasses.replace(QUICK, optimizer="adamw", base="adamw"), torch.nn.Linear(2, 2))
    assert type(built) is torch.optim.AdamW
    assert built.defaults["betas"] == (0.9, 0.999)
    result = train(dataclasses.replace(QUICK, optimizer="ssam", base="adamw", lr=3e-3))
    assert result.summary()["test_accuracy"] > 0.9


def test_label_smoothing_is_in_the_training_loss_only() -> None:
    """With all targets spread, the smoothed loss has a floor that the evaluation does not have."""
    config = dataclasses.replace(QUICK, epochs=8, label_smoothing=0.5)
    last = train(config).records[-1]
    spread = 0.05
    floor = -(0.55 * math.log(0.55) + 9 * spread * math.log(spread))
    assert last.train_loss > floor
    assert last.train_eval_loss < floor
    assert train(dataclasses.replace(config, optimizer="esam")).records[-1].train_loss > floor


def test_warm_up_reaches_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    monkeypatch.setattr(engine.Engine, "set_rate", lambda self, rate: seen.append(rate))
    result = train(dataclasses.replace(QUICK, warmup=1.0, schedule="constant", epochs=2))
    assert seen == pytest.approx([*(0.05 * k / 22 for k in range(1, 23)), 0.05])
    assert [record.lr for record in result.records] == [0.05, 0.05]


def test_the_number_of_noisy_labels_is_a_result() -> None:
    assert "noisy_labels" not in train(QUICK).summary()
    noisy = dataclasses.replace(QUICK, label_noise=0.25)
    assert train(noisy).summary()["noisy_labels"] == load(noisy).noisy_labels > 0


def test_weights_are_kept_where_asked_for() -> None:
    assert train(QUICK).weights is None
    kept = train(dataclasses.replace(QUICK, weights=True, model="resnet20", limit=64, epochs=1)).weights
    assert kept is not None
    assert sum(weight.numel() for weight in kept.values()) > 272_474
    assert any("running_mean" in name for name in kept)


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
    assert numbers(train(config).records[-1:]) == numbers(train(config).records[-1:])


@pytest.mark.parametrize("optimizer", ["sgd", pytest.param("ssam", marks=pytest.mark.slow)])
def test_channels_last_is_another_layout_of_the_same_training(optimizer: str) -> None:
    """In float64, where the order of sums costs 1e-16: the same records; and the weights do lie so in memory."""
    config = dataclasses.replace(QUICK, optimizer=optimizer, model="resnet20", epochs=2, limit=128, precision="64-true")
    config = dataclasses.replace(config, weights=True)
    plain, last = train(config), train(dataclasses.replace(config, channels_last=True))
    for one, other in zip(plain.records, last.records, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-9)
        assert other.test_loss == pytest.approx(one.test_loss, rel=1e-9)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-9)
    assert plain.weights is not None
    assert last.weights is not None
    kernels = [name for name, weight in plain.weights.items() if weight.dim() == 4 and min(weight.shape[1:]) > 1]
    assert len(kernels) > 15
    for name in kernels:
        assert plain.weights[name].is_contiguous()
        assert last.weights[name].is_contiguous(memory_format=torch.channels_last)
        assert not last.weights[name].is_contiguous()
