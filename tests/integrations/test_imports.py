"""fenland alone needs torch alone; an adapter without its library says what to install."""

import contextlib
import re
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec

import pytest

LIBRARIES = ("lightning", "pytorch_lightning", "transformers", "accelerate", "datasets", "sklearn", "pandas", "scipy")

# An environment with torch only, made by refusing every installed module that torch does not require.
ALONE = """
import sys
from importlib.machinery import PathFinder

class TorchOnly:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.split(".")[0] in HIDDEN else PathFinder.find_spec(name, path, target)

sys.meta_path = [TorchOnly if finder is PathFinder else finder for finder in sys.meta_path]
import torch
"""

STEP = """
import fenland, fenland.integrations
model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
opt = fenland.SSAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.05, model=model)
def closure():
    opt.zero_grad()
    loss = model(torch.ones(3, 2) * torch.arange(3)[:, None]).pow(2).sum()
    loss.backward()
    return loss
opt.step(closure)
assert not [m for m in LIBRARIES if m in sys.modules]
"""


def required(name: str, found: set[str]) -> set[str]:
    """The distributions that `name` needs, without extras, itself included."""
    found.add(name)
    for line in metadata.requires(name) or []:
        other = re.match(r"[\w.-]+", line)[0].lower().replace("_", "-")
        with contextlib.suppress(metadata.PackageNotFoundError):
            if "extra ==" not in line and other not in found:
                required(other, found)
    return found


def run(code: str) -> subprocess.CompletedProcess:
    allowed = required("torch", {"fenland"})
    hidden = {
        module
        for module, owners in metadata.packages_distributions().items()
        if not {owner.lower().replace("_", "-") for owner in owners} & allowed
    }
    if sys.version_info >= (3, 11):  # before, the standard library finds the owners of few modules
        assert {name for name in LIBRARIES if find_spec(name)} <= hidden
    hidden |= set(LIBRARIES)
    head = f"LIBRARIES, HIDDEN = {LIBRARIES!r}, {hidden!r}\n"
    return subprocess.run([sys.executable, "-c", head + ALONE + code], capture_output=True, text=True)


def test_fenland_trains_with_torch_alone():
    done = run(STEP)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "cure"),
    [
        ("lightning", "pip install lightning"),
        pytest.param("transformers", "pip install transformers accelerate", marks=pytest.mark.slow),
        pytest.param("accelerate", "pip install accelerate", marks=pytest.mark.slow),
    ],
)
def test_an_adapter_names_what_it_needs(module, cure):
    done = run(f"import fenland.integrations.{module}\n")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: fenland.integrations.{module} needs")
    assert cure in last
