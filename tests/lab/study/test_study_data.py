"""A study is measured again where its networks are to be trained on other data."""

import dataclasses
import io
import shutil
from pathlib import Path

from image_files import write_split
from rich.console import Console
from toy import COUNTS, STUDY

from fenland.lab.config import RunConfig
from fenland.lab.study.run import identity_of, run_study


def training(config, lab):
    """What the toy study would train."""
    return [RunConfig("mnist", "mlp", "sgd", data_dir=lab.data_dir("mnist"), seed=seed) for seed in config.seeds]


def write(root: Path, count: int) -> Path:
    for split in ("train", "test"):
        write_split(root / "mnist" / f"{split}.parquet", count, (28, 28))
    return root


def test_other_images_in_the_data_root_are_measured_and_a_copy_is_not(tmp_path):
    study = dataclasses.replace(STUDY, trains=training)
    first, other = write(tmp_path / "first", 20), write(tmp_path / "other", 24)
    copy = Path(shutil.copytree(first, tmp_path / "copy"))
    config = study.presets["quick"]
    assert identity_of(study, config, first) == identity_of(study, config, copy) != identity_of(study, config, other)
    assert identity_of(study, config) not in {identity_of(study, config, root) for root in (first, other)}
    quiet, begun = Console(file=io.StringIO()), COUNTS["runs"]
    for root, times in ((first, 1), (copy, 1), (other, 2), (other, 2)):
        done = run_study(study, out=tmp_path / "out", console=quiet, data_root=root)
        assert COUNTS["runs"] == begun + times
    assert done.reused
