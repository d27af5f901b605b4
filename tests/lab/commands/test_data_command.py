"""``fenland data``: what would be loaded, and the sheet of sixteen images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from image_files import png, write_split, write_tree
from PIL import Image
from text_files import sentences

from fenland.lab import cli
from fenland.lab.data import digits, sheet


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_is_shown_with_its_sheet(tiny: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_split(tiny / "validation.parquet", 6)
    write_split(tiny / "more.parquet", 6)
    assert cli.main(["data", str(tiny)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    said = [" ".join(line.split()) for line in captured.out.splitlines()]
    assert said[0] == f"parquet files in {tiny}"
    assert "train train 40 L 8x8" in said
    assert "test test 12 L 8x8" in said
    assert "3 10 3" in said
    assert "splits not used: validation" in said
    assert "files not used: more.parquet" in said
    assert "loaded as 8x8 with 1 channel, 8 bits each" in said
    with Image.open(here / "out" / "data-tiny.png") as made:
        assert made.format == "PNG"
        assert made.size == (572, 680)


def test_modes_sizes_and_repeated_images_are_counted(
    tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(here / "pets", {"train": {"cat": 3, "dog": 2}, "test": {"cat": 1, "dog": 1}})
    grey = np.full((8, 8), 7, np.uint8)
    (here / "pets" / "train" / "cat" / "grey.png").write_bytes(png(grey))
    shutil.copy(here / "pets" / "train" / "dog" / "1.png", here / "pets" / "test" / "dog" / "copy.png")
    assert cli.main(["data", "pets", "--json", "--sheet", "seen/pets.png"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["train"] == {
        "name": "train", "rows": 6, "modes": {"RGB": 5, "L": 1}, "sizes": {"8x8": 6}, "labels": {"cat": 4, "dog": 2},
        "unusable": 0,
    }  # fmt: skip
    assert found["repeated"] == 1
    assert found["classes"] == ["cat", "dog"]
    assert found["shape"] == [3, 8, 8]
    assert found["sheet"] == "seen/pets.png"
    assert (here / "seen" / "pets.png").is_file()
    assert [file.name for file in (here / "seen").iterdir()] == ["pets.png"]


def test_what_is_refused_is_shown_first(tiny: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [{"bytes": png(np.zeros((8, 8 + row % 2), np.uint8)), "path": None} for row in range(6)] + [None]
    write_split(tiny / "train.parquet", 7, cells=cells)
    assert cli.main(["data", str(tiny)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"fenland: --data={tiny / 'train.parquet'}: row 1, column image: is 8x9, the images")
    assert "train train 7 L 6, unusable 1 8x8 3, 8x9 3" in [
        " ".join(line.split()) for line in captured.out.splitlines()
    ]
    assert not (here / "out").exists()


def test_digits_and_many_classes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "digits"]) == 0
    assert "train train 1437 L 8x8" in [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for split, count in (("train", 60), ("test", 30)):
        write_split(here / "many" / f"{split}.parquet", count, labels=[row % 30 for row in range(count)])
    assert cli.main(["data", "many"]) == 0
    assert "10 more 20 10" in [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits", "--sheet", "x.jpg"], "--sheet=x.jpg: give a file name that ends with .png"),
        (["digits", "--test-split", "val"], "--test-split=val: digits have one test split; leave it out"),
        (
            ["nowhere"],
            "--data=nowhere: choose one of digits, mnist, cifar10, cifar100, a hub name owner/name, or a folder",
        ),
        (
            ["./nowhere"],
            "--data=nowhere: no such directory; give the directory that holds train.parquet and test.parquet",
        ),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"fenland: {message}")
    assert captured.err.count("\n") == 1
    assert list(here.iterdir()) == []


def test_the_sheet_shows_the_images_themselves(tmp_path: Path) -> None:
    images = digits.load()
    sheet.write(images, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as made:
        shown = np.asarray(made.convert("RGB"))
    from fenland.lab.data.images import stratified

    row = stratified(images.train_labels, 8, seed=0)[0]
    tile = shown[30 : 30 + 128, 12 : 12 + 128, 0]
    np.testing.assert_array_equal(tile[8::16, 8::16], images.train[row, 0])


def test_texts_are_shown_as_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = sentences(20, 0)
    frame.to_parquet(tmp_path / "train.parquet", index=False)
    pd.concat([frame[1:4], sentences(6, 5)]).to_parquet(tmp_path / "test.parquet", index=False)
    assert cli.main(["data", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    lengths = sorted(len(text.split()) for text in frame.text)
    assert found["train"]["rows"] == 20
    assert found["train"]["labels"] == {"0": 10, "1": 10}
    assert list(found["train"]["sizes"]) == [f"{lengths[0]} to {lengths[-1]} words, median {int(np.median(lengths))}"]
    assert found["repeated"] == 3
    assert found["sheet"] is None
    assert len(found["texts"]) == 4
    assert cli.main(["data", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "3 test texts are in the train set too" in shown
    assert found["texts"][0] in shown
    assert cli.main(["data", str(tmp_path), "--sheet", "a.png"]) == 2
    said = "fenland: --sheet=a.png: is for images, and these data are texts; leave it out\n"
    assert capsys.readouterr() == ("", said)
    # A text that the test split has twice counts twice; no text is no text in common.
    both = [frame[1:4], frame[1:3], sentences(6, 5)]
    pd.concat(both).to_parquet(tmp_path / "test.parquet", index=False)
    assert cli.main(["data", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repeated"] == 5
    frame.loc[3, "text"] = " "
    frame.to_parquet(tmp_path / "train.parquet", index=False)
    assert cli.main(["data", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "unusable 1" in said.out
    assert "row 3, column text: has no text; add it, or drop the row" in said.err
