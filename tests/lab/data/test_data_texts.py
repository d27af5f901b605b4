"""Texts: read from parquet, in the tokens of a model, in batches of similar length."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from text_files import sentences, write_data, write_model

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.data.token_batches import TOGETHER
from fenland.lab.data.tokens import END
from fenland.lab.errors import BadInput
from fenland.lab.models import pretrained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def made(folder: Path, model: Path, **more: object) -> RunConfig:
    return pretrained.identify(data.identify(RunConfig(str(folder), str(model), "adamw", base="adamw", **more)))  # type: ignore[arg-type]


def load(config: RunConfig) -> data.Tokens:
    return data.load_texts(config, pretrained.tokenizer(config))


def test_the_rows_are_the_texts_in_the_models_own_tokens(tmp_path: Path, model: Path) -> None:
    found = load(made(write_data(tmp_path / "set"), model))
    words = (model / "vocab.txt").read_text().split()
    for split, frame in (("train", sentences(96, 0)), ("test", sentences(40, 1))):
        numbers, labels = getattr(found, split), getattr(found, f"{split}_labels")
        assert labels.tolist() == frame.label.tolist()
        for line, text in zip(numbers, frame.text, strict=True):
            assert [words[number] for number in line if number != END] == ["[CLS]", *text.split(), "[SEP]"]
            assert (np.diff((line == END).astype(int)) >= 0).all(), "what is filled stands at the end"
    assert found.classes == ("0", "1")
    assert found.shape == (max(len(text.split()) for text in [*sentences(96, 0).text, *sentences(40, 1).text]) + 2,)


def test_long_texts_are_cut(tmp_path: Path, model: Path) -> None:
    folder = write_data(tmp_path / "set")
    assert load(made(folder, model, max_tokens=8)).shape == (8,)
    frame = sentences(96, 0)
    frame.loc[0, "text"] = "film " * 100
    frame.to_parquet(folder / "train.parquet", index=False)
    assert load(made(folder, model)).shape == (40,), "the model has 40 positions"


def test_choices_of_the_train_set_hold_for_texts(tmp_path: Path, model: Path) -> None:
    config = made(write_data(tmp_path / "set"), model, limit=40, label_noise=0.25)
    whole, found = load(dataclasses.replace(config, limit=None, label_noise=0.0)), load(config)
    assert len(found.train) == 40
    assert found.noisy_labels == 10
    rows = {tuple(line): label for line, label in zip(whole.train, whole.train_labels, strict=True)}
    assert sum(rows[tuple(line)] != label for line, label in zip(found.train, found.train_labels, strict=True)) == 10
    other = load(dataclasses.replace(config, replace=3))
    assert (other.train != found.train).any(1).sum() <= 1


def test_held_out_examples_stand_in_the_place_of_the_test_set(tmp_path: Path, model: Path) -> None:
    config = made(write_data(tmp_path / "set"), model)
    whole, found = load(config), load(dataclasses.replace(config, validate=20, limit=50))
    chosen, kept = [{tuple(line) for line in lines} for lines in (found.test, found.train)]
    everything, unseen = [{tuple(line) for line in lines} for lines in (whole.train, whole.test)]
    assert (len(found.test), len(found.train)) == (20, 50)
    assert chosen <= everything
    assert not chosen & kept, "sentences differ here"
    assert not (chosen - everything) & unseen
    assert np.bincount(found.test_labels).tolist() == [10, 10], "stratified"
    assert (load(dataclasses.replace(config, validate=20)).test == found.test[:, : found.test.shape[1]]).all()
    with pytest.raises(BadInput, match="validate=96: give less than 96"):
        load(dataclasses.replace(config, validate=96))


def batches(tokens: data.Tokens, size: int = 4, seed: int = 0, **more: int) -> data.TokenBatches:
    return data.TokenBatches(tokens, torch.device("cpu"), size, seed, **more)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, model: Path) -> data.Tokens:
    folder = write_data(tmp_path_factory.mktemp("data") / "set", train=4 * TOGETHER * 2 + 3)
    return load(made(folder, model))


def lengths(batch: torch.Tensor) -> torch.Tensor:
    return (batch != END).sum(1)


def test_an_epoch_has_every_example_once_in_batches_of_like_length(tokens: data.Tokens) -> None:
    made_of = batches(tokens)
    epoch = list(made_of.epoch(1))
    assert len(epoch) == made_of.steps == 2 * TOGETHER
    assert all(batch.shape == (4, int(lengths(batch).max())) for batch, _ in epoch), "cut to the longest"
    width = tokens.shape[0]
    rows = [
        tuple(np.pad(row, (0, width - len(row)), constant_values=END)) for batch, _ in epoch for row in batch.numpy()
    ]
    stored = [tuple(row) for row in tokens.train]
    assert all(rows.count(row) <= stored.count(row) for row in set(rows))
    assert len(rows) == len(stored) - 3
    spread = np.mean([int(lengths(batch).max() - lengths(batch).min()) for batch, _ in epoch])
    drawn = lengths(torch.from_numpy(tokens.train)).numpy()
    at_random = np.mean([np.ptp(np.random.default_rng(i).choice(drawn, 4, replace=False)) for i in range(200)])
    assert spread < 0.3 * at_random
    by_length = [int(lengths(batch).max()) for batch, _ in epoch[:TOGETHER]]
    assert by_length != sorted(by_length), "the batches come in any order"


def test_the_order_is_that_of_seed_and_epoch_alone_and_can_be_entered_anywhere(tokens: data.Tokens) -> None:
    def same(one: list, other: list) -> bool:
        return len(one) == len(other) and all(
            torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True)
        )

    whole = list(batches(tokens).epoch(2))
    torch.manual_seed(5)
    assert same(whole, list(batches(tokens).epoch(2)))
    assert same(whole[7:], list(batches(tokens).epoch(2, start=7)))
    assert not same(whole, list(batches(tokens).epoch(3)))
    assert not same(whole, list(batches(tokens, seed=1).epoch(2)))
    parts = [list(batches(tokens, rank=rank, world=2).epoch(2)) for rank in range(2)]
    for number, (_, labels) in enumerate(whole):
        assert torch.equal(torch.cat([part[number][1] for part in parts]), labels)


def test_evaluation_has_all_examples(tokens: data.Tokens) -> None:
    found = list(batches(tokens).evaluation("test", size=16))
    assert sum(len(labels) for _, labels in found) == len(tokens.test)
    assert sorted(int(x) for batch, _ in found for x in lengths(batch)) == sorted((tokens.test != END).sum(1).tolist())
    some = [len(labels) for _, labels in batches(tokens).evaluation("train", limit=10)]
    assert sum(some) == 10
    with pytest.raises(BadInput, match="give at most"):
        batches(tokens, size=1000)


def test_what_cannot_be_used_is_named(tmp_path: Path, model: Path) -> None:
    folder = write_data(tmp_path / "set")
    with pytest.raises(BadInput, match="holds texts, but lenet takes images; name a pre-trained transformer"):
        data.load(data.identify(RunConfig(str(folder), "lenet", "sgd")))
    frame = sentences(96, 0)
    frame.loc[5, "text"] = None
    frame.to_parquet(folder / "train.parquet", index=False)
    with pytest.raises(BadInput, match=r"train\.parquet: row 5, column text: has no text; add it, or drop the row"):
        load(made(folder, model))
    pd.DataFrame({"text": [1, 2], "label": [0, 1]}).to_parquet(folder / "train.parquet", index=False)
    with pytest.raises(BadInput, match=r"column text is int64; it must hold texts \(string\)"):
        data.identify(RunConfig(str(folder), "lenet", "sgd"))


def test_images_are_refused_by_a_model_of_texts(tmp_path: Path, model: Path) -> None:
    from image_files import write_tree

    write_tree(tmp_path / "set", {"train": {"a": 2, "b": 2}, "test": {"a": 2, "b": 2}})
    with pytest.raises(BadInput, match="holds images, but local reads texts"):
        load(made(tmp_path / "set", model))


@pytest.mark.parametrize("other", ["question", "sentence2"])
def test_one_half_of_a_pair_is_not_read_alone(other: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        frame = sentences(8, 0).rename(columns={"text": "sentence"})
        frame.assign(**{other: "why?"}).to_parquet(tmp_path / f"{split}.parquet", index=False)
    said = f"has the text columns sentence and {other}; one text an example is read: join them"
    with pytest.raises(BadInput, match=said):
        data.identify(RunConfig(str(tmp_path), "a/b", "sgd"))
