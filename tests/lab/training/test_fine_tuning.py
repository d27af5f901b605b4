"""Pre-trained transformers: what is trained, that it repeats itself and goes on, and what is recorded of it."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch
from repeats import numbers
from text_files import write_data, write_model
from torch.nn.functional import cross_entropy

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.models import pretrained
from fenland.lab.training import loop
from fenland.lab.training.evaluation import BINS, Tally
from fenland.lab.training.task import load_examples, make_model
from fenland.lab.training.trainer import train

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    place = tmp_path_factory.mktemp("texts")
    folder, model = write_data(place / "data"), write_model(place / "model")
    config = RunConfig(
        str(folder), str(model), "sam", rho=0.05, base="adamw", lr=5e-3, batch_size=16, epochs=4, weights=True
    )
    return pretrained.identify(data.identify(config))


def test_sam_learns_what_the_texts_say(base: RunConfig, tmp_path: Path) -> None:
    more = data.identify(dataclasses.replace(base, data=str(write_data(tmp_path / "more", train=256)), data_dir=None))
    last = train(dataclasses.replace(more, rho=0.01, lr=2e-3, epochs=12)).records[-1]
    assert last.test_accuracy > 0.9, "one word tells; an untrained model is right in half of the sentences"
    assert last.gradient_evaluations == 2 * 12 * (256 // 16)
    assert last.process_seconds > 0


def test_a_run_repeats_itself_and_goes_on_where_it_was_stopped(
    base: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(base)

    class Stop(Exception):
        pass

    def stop(record: object) -> None:
        if record.epoch == 2:  # type: ignore[attr-defined]
            raise Stop

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Stop):
        train(base, stop, checkpoint=tmp_path / "run.pt")
    again = train(base, checkpoint=tmp_path / "run.pt")
    assert numbers(again.records) == numbers(whole.records)
    assert whole.weights is not None
    assert again.weights is not None
    assert all(torch.equal(again.weights[name], weight) for name, weight in whole.weights.items())


@needs_peft
@pytest.mark.parametrize("optimizer", ["adamw", "sam"])
def test_adapters_are_trained_alone(base: RunConfig, optimizer: str) -> None:
    config = dataclasses.replace(base, optimizer=optimizer, lora=4, rho=0.05 if optimizer == "sam" else None)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        first = make_model(config, load_examples(config)).state_dict()
    done = train(config)
    assert done.weights is not None
    moved = {name for name, weight in done.weights.items() if not torch.equal(weight, first[name])}
    assert any("lora_A" in name for name in moved)
    assert any("lora_B" in name for name in moved)
    assert all("lora" in name or "modules_to_save" in name for name in moved), moved
    trained = sum(done.weights[name].numel() for name in moved)
    assert done.parameters == trained
    assert done.parameters < 0.2 * sum(weight.numel() for weight in done.weights.values())


def test_a_model_is_known_by_its_files_not_by_its_place(base: RunConfig, tmp_path: Path) -> None:
    import shutil

    assert base.model == "local"
    copy = shutil.copytree(str(base.model_dir), tmp_path / "copy")
    other = pretrained.identify(dataclasses.replace(base, model=str(copy), model_dir=None, model_id=""))
    assert other.hash == base.hash
    (tmp_path / "copy" / "vocab.txt").write_text("other")
    changed = pretrained.identify(dataclasses.replace(base, model=str(copy), model_dir=None, model_id=""))
    assert changed.hash != base.hash
    (tmp_path / "copy" / "config.json").unlink()
    with pytest.raises(BadInput, match=r"holds no config\.json with \*\.safetensors; give the folder"):
        pretrained.identify(dataclasses.replace(base, model=str(copy), model_dir=None))


def test_adapters_need_a_pretrained_model() -> None:
    with pytest.raises(BadInput, match="lora=4: is for pre-trained transformers, not for mlp"):
        pretrained.identify(RunConfig("digits", "mlp", "sgd", lora=4))


def test_padding_changes_nothing(base: RunConfig) -> None:
    model = make_model(base, load_examples(base)).eval()
    texts = torch.tensor([[2, 6, 7, 3], [2, 8, 3, -1]])
    longer = torch.cat([texts, torch.full((2, 3), -1)], 1)
    with torch.no_grad():
        assert torch.allclose(model(texts), model(longer), atol=1e-6)
        assert torch.allclose(model(texts[1:, :3]), model(texts)[1:], atol=1e-6)


def test_evaluations_can_be_rare(base: RunConfig) -> None:
    every = train(dataclasses.replace(base, epochs=3))
    rare = train(dataclasses.replace(base, epochs=3, evaluate_every=2))
    assert [record.train_examples > 0 for record in rare.records] == [False, True, True]
    assert rare.status == "finished"
    assert numbers(rare.records)[1:] == numbers(every.records)[1:]


def test_the_calibration_error_is_that_of_its_definition() -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(500, 4), torch.randint(4, (500,))
    tally = Tally(torch.device("cpu"))
    for part, own in zip(logits.split(70), labels.split(70), strict=True):
        tally.add(part, own)
    found = tally.result()
    confidence, answers = logits.double().softmax(1).max(1)
    expected = 0.0
    for k in range(BINS):
        inside = (confidence > k / BINS) & (confidence <= (k + 1) / BINS)
        if inside.any():
            right = (answers[inside] == labels[inside]).double().mean()
            expected += float(inside.double().mean() * (right - confidence[inside].mean()).abs())
    assert found.ece == pytest.approx(expected, abs=1e-12)
    assert found.accuracy == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert found.loss == pytest.approx(float(cross_entropy(logits, labels)), rel=1e-6)
    assert found.examples == 500
