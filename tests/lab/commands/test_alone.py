"""An option that another one leaves without a meaning is refused: nothing that was asked for is passed over."""

import pytest

from fenland.lab import cli


@pytest.mark.parametrize(
    ("words", "said"),
    {
        "variants --markdown --name SAM": "--name=SAM: means nothing with --markdown; leave one of them out",
        "variants --markdown --json": "--json=on: means nothing with --markdown; leave one of them out",
        "recipe transformer --code --json": "--json=on: means nothing with --code; leave one of them out",
        "study --table . --preset paper": "--preset=paper: means nothing with --table; leave one of them out",
        "study --table . --set seeds=1": "--set=seeds=1: means nothing with --table; leave one of them out",
        "study --list --plan": "--plan=on: means nothing with --list; leave one of them out",
        "study quartic --list --workers 2": "--workers=2: means nothing with --list; leave one of them out",
        "study quartic --logger": "--logger=(nothing): give a value, or leave it out",
        "sweep compare --preset paper": "--preset=paper: is for studies; here every field is set by itself, leave it "
        "out",
        "sweep compare --data-root /tmp": "--data-root=/tmp: is for studies; here write --set data_dir=DIR",
    }.items(),
    ids=str,
)
def test_a_meaningless_option_is_refused(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words.split()) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"fenland: {said}\n")


def test_a_name_beside_all_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "all", "quartik", "--list"]) == 2
    assert "quartik" in capsys.readouterr().err
