"""`fenland doctor` as it is used: on a stored run, and on what a function returns."""

import json
import math

import pytest

for library in ("lightning", "tyro", "pandas"):  # of the lab
    pytest.importorskip(library)

from fenland.lab.cli import main  # noqa: E402
from fenland.lab.config import RunConfig  # noqa: E402
from fenland.lab.data import identify  # noqa: E402
from fenland.lab.store.environment import describe  # noqa: E402
from fenland.lab.store.runs import Store  # noqa: E402
from fenland.lab.training.trainer import train  # noqa: E402

MODULE = """
import torch
from torch import nn
import torch.nn.functional as F
import fenland

class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5]))

    def forward(self, x):
        return 2 * self.w.square().sum() * x.mean()

def patient(make=lambda p: fenland.USAM(torch.optim.SGD(p, lr=0.4), rho=0.5)):
    model = Line()
    return model, lambda model, batch: model(batch), [torch.ones(3)], make(model.parameters())

def without():
    return patient()[:3]

def wrong():
    return 3

def nan():
    model, _, batches, opt = patient()
    return model, lambda model, batch: model(batch) * float("nan"), batches, opt
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "clinic.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Two runs of one epoch, one with its weights."""
    store = Store(tmp_path_factory.mktemp("out"))
    for seed, weights in ((0, True), (1, False)):
        config = RunConfig("digits", "mlp", "ssam", seed=seed, epochs=1, limit=256, batch_size=64, lr=0.05, rho=0.1)
        config = identify(RunConfig(**{**config.as_dict(), "weights": weights}))
        store.save(config, train(config), describe(1))
    return store


def test_a_function_is_judged(here, capsys):
    assert main(["doctor", "clinic:patient"]) == 0
    out = capsys.readouterr().out
    assert "verdict: unstable. USAM at lr 0.4, rho 0.5, is over its limit 0.1667; SSAM-U allows 0.5." in out
    assert main(["doctor", "clinic:patient", "--strict"]) == 1
    assert main(["doctor", "clinic:patient", "--strict", "--lr", "0.1"]) == 0
    assert main(["doctor", "clinic:patient", "--strict", "--rho", "0.05"]) == 0
    capsys.readouterr()
    assert main(["doctor", "clinic:without"]) == 0
    assert "pass the optimizer" in capsys.readouterr().out


def test_the_function_may_import_what_lies_beside_it(here, tmp_path, capsys):
    (tmp_path / "ward.py").write_text("from clinic import patient\n")
    (tmp_path / "surgery.py").write_text("def setup():\n    import ward\n\n    return ward.patient()\n")
    assert main(["doctor", "surgery:setup"]) == 0
    assert "verdict" in capsys.readouterr().out


def test_json(here, capsys):
    assert main(["doctor", "clinic:patient", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["largest"]["value"] == pytest.approx(4.0)
    assert {each["method"] for each in found["limits"]} == {"SGD", "USAM", "SSAM-U"}
    assert all({"what", "why"} == set(each) for each in found["advice"])


def test_a_stored_run_is_judged(stored, capsys):
    assert main(["doctor", str(stored.root), "--examples", "200"]) == 0
    out = capsys.readouterr().out
    assert "SSAM(SGD), lr 0.05, rho 0.1; 200 examples in 4 batches, mode train" in out
    (name,) = [run.folder.name for run in stored.runs() if stored.finished(run.folder.name, weights=True)]
    assert main(["doctor", str(stored.root), "--run", name[:5], "--examples", "200", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert math.isfinite(found["largest"]["value"])
    assert found["loss"] < 2.3


BAD = {
    ("clinic:nothing",): "give MODULE:FUNCTION",
    ("no_such_module:f",): "No module named 'no_such_module'",
    ("clinic:wrong",): "must return model, loss_fn, batches",
    ("clinic:nan",): "must be finite",
    ("json:dumps",): "cannot be called without arguments (missing a required argument: 'obj')",
    ("json:__name__",): "cannot be called without arguments ('json' is not a callable object)",
    ("clinic:patient", "--run", "ab"): "is for a stored run",
    ("clinic:patient", "--examples", "9"): "is for a stored run",
    ("clinic:patient", "--lr", "-1"): "give a number >= 0",
    ("clinic:without", "--rho", "1"): "there is no optimizer with a rho",
    ("nowhere",): "no such directory; give the --out of an earlier comparison, or MODULE:FUNCTION",
}


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_bad_input_is_one_line(here, capsys, arguments):
    assert main(["doctor", *arguments]) == 2
    said = capsys.readouterr().err
    assert BAD[arguments] in said
    assert said.startswith("fenland: ")
    assert said.count("\n") == 1


def test_a_run_without_weights(stored, capsys):
    without = [run.folder.name for run in stored.runs() if not stored.finished(run.folder.name, weights=True)]
    assert main(["doctor", str(stored.root), "--run", without[0]]) == 2
    assert "was stored without its weights" in capsys.readouterr().err
    assert main(["doctor", str(stored.root), "--run", "zz"]) == 2
    assert "--run=zz: no stored run begins so" in capsys.readouterr().err
