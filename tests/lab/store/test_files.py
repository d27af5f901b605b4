"""The one writer and the one reader of files."""

import os
import pickle
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fenland.lab.store import files
from fenland.lab.store.files import Damaged, read_json, write_bytes, write_json, write_text, writing


def test_a_file_is_there_whole_with_usual_rights(tmp_path: Path) -> None:
    path = tmp_path / "a b[1]*.txt"
    write_text(path, "first")
    write_text(path, "späť")
    assert path.read_text(encoding="utf-8") == "späť"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("x")])
def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a"
    for before in (None, b"old"):
        if before is not None:
            write_bytes(path, before)
        with pytest.raises(type(error)):
            _half(path, error)
        left = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
        assert left == ({} if before is None else {"a": before})


def _half(path: Path, error: BaseException) -> None:
    with writing(path) as file:
        file.write(b"half")
        raise error


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    theirs, path = tmp_path / "theirs", tmp_path / "ours"
    theirs.write_text("precious")
    path.symlink_to(theirs)
    write_text(path, "new")
    assert theirs.read_text() == "precious"
    assert (path.read_text(), path.is_symlink()) == ("new", False)


def test_the_temporary_name_is_never_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where somebody guesses it."""
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "00")
    for target in (theirs, tmp_path / "nowhere"):
        guessed = files.own_name(tmp_path / "ours")
        guessed.symlink_to(target)
        with pytest.raises(OSError, match="exist"):
            write_text(tmp_path / "ours", "new")
        assert theirs.read_text() == "precious"
        assert not (tmp_path / "nowhere").exists()
        guessed.unlink(missing_ok=True)


def test_names_are_not_to_be_guessed(tmp_path: Path) -> None:
    assert len({files.own_name(tmp_path / "a") for _ in range(100)}) == 100


def test_many_writers_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    texts = [str(number) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from fenland.lab.store.files import writing\n"
        "with writing(Path(sys.argv[1])) as file: file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "a.parquet"
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".tmp-a.parquet-")
    mine = files.own_name(path)
    mine.touch()
    write_text(path, "whole")
    assert {each.name for each in tmp_path.iterdir()} == {"a.parquet", mine.name}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Expecting value"),
        (b'{"a": 1', "Expecting"),
        (b"[1]", "a JSON object was written, this is a list"),
        (b"\xff\xfe", "codec can't decode"),
        (b"[" * 100_000, "recursion"),
        (None, "it is missing"),
    ],
)
def test_a_damaged_file_is_named_with_the_cure(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "result.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Damaged) as caught:
        read_json(path, "run it again")
    said = str(caught.value)
    assert said.startswith(f"DIR={path}: is damaged (")
    assert why in said
    assert said.endswith("); run it again")
    assert "\n" not in said
    assert str(pickle.loads(pickle.dumps(caught.value))) == said


def test_json_comes_back_and_has_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, None, "ü"]})
    assert read_json(path, "") == {"a": [1, None, "ü"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path, "") == {"a": [1, None, "ü"]}
