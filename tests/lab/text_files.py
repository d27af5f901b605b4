"""A small set of texts and a small BERT with its tokenizer, written as files: what the tests of texts train on."""

from __future__ import annotations

import random
from pathlib import Path

import pandas as pd
import pytest
import torch

GOOD, BAD = ("good", "great", "fine", "lovely"), ("bad", "poor", "dull", "awful")
PLAIN = ("the", "film", "was", "and", "a", "plot", "with", "actor")


def sentences(count: int, seed: int) -> pd.DataFrame:
    """Sentences of 3 to 12 words; the label says whether their one telling word is a good one."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        label = number % 2
        words = [draw.choice(PLAIN) for _ in range(draw.randint(2, 11))]
        words.insert(draw.randrange(len(words) + 1), draw.choice((BAD, GOOD)[label]))
        rows.append({"text": " ".join(words), "label": label})
    return pd.DataFrame(rows)


def write_data(folder: Path, train: int = 96, test: int = 40) -> Path:
    """train.parquet and test.parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    sentences(train, 0).to_parquet(folder / "train.parquet", index=False)
    sentences(test, 1).to_parquet(folder / "test.parquet", index=False)
    return folder


def write_model(folder: Path) -> Path:
    """A BERT of two layers, with dropout, random weights and a tokenizer of whole words."""
    transformers = pytest.importorskip("transformers")
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PLAIN, *GOOD, *BAD]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=40, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(folder)
    return folder
