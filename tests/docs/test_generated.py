"""Tables and pictures are those that the committed commands make from the committed measurements."""

import re
import subprocess
import sys

import pytest
from blocks import DOCS, ROOT

pytest.importorskip("matplotlib")


def test_no_table_is_stale():
    command = [sys.executable, str(DOCS / "tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_changed_number_makes_a_page_stale(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import tables

    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    assert tables.filled(text) == text
    changed = re.sub(r"\| SAM \| \d", "| SAM | 99", text, count=1)
    assert changed != text
    assert tables.filled(changed) == text
    sys.modules.pop("tables")


def test_pages_use_every_picture_and_no_other():
    made = {p.name for p in (DOCS / "images" / "choices").glob("*.svg")}
    named = set(re.findall(r"images/choices/([\w-]+)-light\.svg", (DOCS / "choices.md").read_text()))
    # docs/hooks.py adds the dark one.
    assert made == {f"{name}-{theme}.svg" for name in named for theme in ("light", "dark")}


def test_the_screens_of_the_lab_are_there_small_and_used(monkeypatch):
    pytest.importorskip("PIL")
    monkeypatch.syspath_prepend(str(DOCS))
    import screens

    made = {p.name: p for p in (DOCS / "images" / "lab").iterdir()}
    text = (DOCS / "lab.md").read_text(encoding="utf-8")
    used = dict(re.findall(r"^!\[([^\]]+)\]\(images/lab/([\w-]+)-light\.png\)$", text, re.M))
    assert sorted(used.values()) == sorted(screens.SCREENS)
    assert sorted(made) == sorted(screens.names())  # docs/hooks.py adds the dark one
    assert all(len(alt) > 40 for alt in used), "say what there is to see"
    moving = made.pop(screens.MOVING)
    assert f"images/lab/{screens.MOVING}" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert moving.stat().st_size < screens.MOVING_LIMIT
    with screens.Image.open(moving) as picture:
        assert picture.n_frames > len(screens.STEPS) / 2, "equal frames are one"
    for name, path in made.items():
        kind, scheme = path.stem.rsplit("-", 1)
        assert path.stat().st_size < screens.LIMIT, name
        with screens.Image.open(path) as picture:
            screen = screens.SCREENS[kind]
            assert picture.size == (round(screen.width * screens.SHARP), round(screen.height * screens.SHARP))
            dark = picture.convert("L").resize((1, 1)).getpixel((0, 0)) < 100
        assert dark is (scheme == "dark"), name
    sys.modules.pop("screens")


def test_the_screens_are_of_commands_that_exist(monkeypatch):
    pytest.importorskip("PIL")
    monkeypatch.syspath_prepend(str(DOCS))
    import screens

    from fenland.lab.commands.parsing import parse

    for command in screens.COMMANDS:
        assert parse(command.format(out="out").split())
    sys.modules.pop("screens")


@pytest.mark.slow
def test_the_pictures_are_those_that_the_engine_draws(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import figures

    for name in figures.FIGURES:
        kept = (DOCS / "images" / "choices" / f"{name}-light.svg").read_text(encoding="utf-8")
        assert _near(figures.draw(name, "light"), kept), f"{name}: run python docs/figures.py"
    sys.modules.pop("figures")


def test_the_pictures_of_the_evidence_are_those_of_its_records(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import tables

    import evidence

    made = evidence.pictures(evidence.Rows(tables.EVIDENCE))
    kept = {path.name: path.read_text(encoding="utf-8") for path in evidence.IMAGES.glob("*.svg")}
    assert sorted(kept) == sorted(f"{name}-{theme}.svg" for name in made for theme in ("light", "dark"))
    for name, (labels, draw, alt) in made.items():
        drawn = evidence.figure.svg(name, "light", labels, draw, alt)
        assert _near(drawn, kept[f"{name}-light.svg"]), f"{name}: run python docs/evidence.py"
    # The README shows the first of them, beside the table that has its numbers.
    assert "images/evidence/gains-light.svg" in (ROOT / "README.md").read_text(encoding="utf-8")
    sys.modules.pop("evidence")
    sys.modules.pop("tables")


def _near(first: str, second: str) -> bool:
    """Equal but for numbers that differ by less than a tenth of a point: processors round differently."""
    number = r"-?\d+\.?\d*(?:e-?\d+)?"
    if re.sub(number, "#", first) != re.sub(number, "#", second):
        return False
    pairs = zip(re.findall(number, first), re.findall(number, second), strict=True)
    # Equal texts first: the hexadecimal name of a marker may read as a number beyond all floats.
    return all(a == b or abs(float(a) - float(b)) < 0.1 for a, b in pairs)


def test_measurements_are_made_by_committed_commands():
    for page in (DOCS / "when-not.md", DOCS / "benchmarks.md", DOCS / "choices.md"):
        commands = re.findall(r"`python ((?:docs|benchmarks)/\w+\.py)", page.read_text(encoding="utf-8"))
        assert commands, page.name
        assert all((ROOT / command).exists() for command in commands)
