"""A stored table is taken again where code and settings are the same, and nowhere else."""

import importlib
import io
import sys
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from fenland.lab.studies import STUDIES, find
from fenland.lab.study import Piece, identity, statements
from fenland.lab.study.laboratory import Laboratory, training_code
from fenland.lab.study.load import load
from fenland.lab.study.run import identity_of, run_study

OWN = '''"""Words."""
from dataclasses import dataclass
from functools import partial
import math as m
import pandas as pd
from fenland.lab.study import OURS, Claim, Finding, Piece, Study

FACTOR = 3
UNUSED = 5

@dataclass(frozen=True)
class Config:
    top: int = 2

    def doubled(self):
        return 2 * self.top

    def words(self):
        return "says"

class Helper:
    """Says."""

    def used(self):
        return FACTOR

    def idle(self):
        return 0

def roll(n):
    """Docstring."""
    from fenland.theory import stable_lr
    return pd.DataFrame({"n": [n * Helper().used() * m.ceil(stable_lr(1.0))]})  # comment

def measure(config, lab):
    parts = lab.keep_all([Piece("n", {"n": n}, partial(roll, n)) for n in range(config.doubled())], "n")
    return {"n": pd.concat(parts)}

def claim(measured):
    return Finding("1", "1", True)

STUDY = Study(name="own", title="t", source=OURS, question="?", config=Config, runs=measure,
              claims=[Claim("c", OURS, claim)])
'''


def of(tmp_path, text):
    path = tmp_path / "own.py"
    path.write_text(text)
    study = load(str(path))
    return identity_of(study, study.presets["quick"])


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("FACTOR = 3", "FACTOR = 4", True),
        ("return FACTOR", "return FACTOR + 1", True),
        ("2 * self.top", "3 * self.top", True),
        ("n * Helper()", "n + Helper()", True),
        ("top: int = 2", "top: int = 3", True),
        ("import stable_lr", "import cycle_amplitude as stable_lr", True),
        ("class Helper:", "class Helper(dict):", True),
        ("UNUSED = 5", "UNUSED = 6", False),
        ('"""Says."""', '"""Tells."""', False),
        ("return 0", "return 1", False),
        ('"says"', '"tells"', False),
        ("Docstring.", "Other words.", False),
        ("# comment", "# another", False),
        ('"""Words."""', '"""Others."""', False),
        ('Finding("1", "1", True)', 'Finding("1", "2", False)', False),
        ('Claim("c"', 'Claim("another sentence"', False),
        ("def roll(n):", "def roll(n: int) -> pd.DataFrame:", False),
    ],
)
def test_what_computes_counts_and_what_does_not_does_not(tmp_path, old, new, counts):
    assert old in OWN
    assert (of(tmp_path, OWN) != of(tmp_path, OWN.replace(old, new))) is counts


def test_an_edit_of_a_claim_measures_nothing_and_one_of_the_measurement_everything(tmp_path):
    path, out = tmp_path / "own.py", tmp_path / "out"

    def run(text):
        path.write_text(text)
        return run_study(load(str(path)), out=out, console=Console(file=io.StringIO()))

    assert not run(OWN).reused
    again = run(OWN.replace('Finding("1", "1", True)', 'Finding("1", "2", False)'))
    assert again.reused
    assert [verdict.holds for verdict in again.verdicts] == [False]
    assert not run(OWN.replace("FACTOR = 3", "FACTOR = 4")).reused
    assert len(list((out / "pieces").glob("*.parquet"))) == 8


def edited(module, old, new):
    """`statements._parse` as if one file of fenland were edited."""
    importlib.import_module(module)
    real, parse = sys.modules[module].__file__, statements._parse
    text = Path(real).read_text(encoding="utf-8")
    assert old in text
    other = statements._statements(text.replace(old, new, 1))
    return lambda path, changed: other if path == real else parse(path, changed)


def forget():
    """What was read of the code."""
    identity._reached.cache_clear()
    training_code.cache_clear()


def identities():
    studies = [find(name) for name in ("quartic", "attractor", "gamma", "uniform-stability")]
    return {study.name: identity_of(study, study.presets["quick"]) for study in studies}


@pytest.fixture(scope="module")
def before():
    return identities()


@pytest.mark.parametrize(
    ("module", "old", "new", "changed"),
    [
        ("fenland.lab.replicas.trajectories", "def run(", "@print\ndef run(", ("quartic", "attractor")),
        ("fenland.lab.training.loop", "class Loop", "@print\nclass Loop", ("gamma",)),
        ("fenland.lab.data.load", "def load(", "@print\ndef load(", ("gamma", "uniform-stability")),
        ("fenland.lab.models.wrn", "class WRN", "@print\nclass WRN", ("gamma",)),
        ("fenland.lab.study.page", "def write_page(", "@print\ndef write_page(", ()),
        ("fenland.lab.study.claims", "def judge(", "@print\ndef judge(", ()),
        ("fenland.lab.figures.plots", "def draw_panel(", "@print\ndef draw_panel(", ()),
    ],
)
def test_an_edit_of_a_shared_module_redoes_the_studies_that_use_it_and_no_other(
    before, monkeypatch, module, old, new, changed
):
    forget()
    with monkeypatch.context() as patch:
        patch.setattr(statements, "_parse", edited(module, old, new))
        after = identities()
    forget()
    found = {name for name in before if before[name] != after[name]}
    assert set(changed) <= found
    if not changed:
        assert not found


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_reaches_its_own_code_and_the_same_each_time(name):
    study = find(name)
    first = identity_of(study, study.presets["quick"])
    identity._reached.cache_clear()
    assert identity_of(study, study.presets["quick"]) == first != identity_of(study, study.presets["paper"])


def test_a_run_that_other_code_trained_is_trained_again(tmp_path):
    from fenland.lab.config import RunConfig

    def lab():
        return Laboratory(tmp_path, find("gamma"), Console(file=io.StringIO()))

    run = RunConfig("digits", "mlp", "sgd", epochs=1, limit=128, batch_size=64)
    lab().train([run])
    (result,) = (tmp_path / "runs").glob("*/result.json")
    before = result.stat().st_mtime_ns
    lab().train([run])
    assert result.stat().st_mtime_ns == before
    (note,) = (tmp_path / "pieces").glob("run-*.txt")
    note.write_text("of other code")
    lab().train([run])
    assert result.stat().st_mtime_ns > before


def test_the_key_of_a_piece_holds_its_settings_and_its_code(tmp_path):
    lab = Laboratory(tmp_path, find("quartic"), Console(file=io.StringIO()))
    paths = {
        lab._path(Piece("n", {"n": n}, partial(function, n)))
        for n in (1, 2)
        for function in (find("quartic").runs, find("quadratic").runs)
    }
    assert len(paths) == 4
