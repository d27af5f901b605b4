"""fenland alone needs torch alone; an adapter without its library says what to install."""

import subprocess
import sys

import pytest

LIBRARIES = ("lightning", "pytorch_lightning", "transformers", "accelerate", "datasets", "sklearn", "pandas", "scipy")

# An environment with torch only, made by refusing every module that torch itself did not load before.
ALONE = """
import sys, importlib.abc, torch, torch.optim
needs = {name.split(".")[0] for name in sys.modules} | set(sys.stdlib_module_names) | {"torch", "fenland"}

class TorchOnly(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in needs:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

assert not needs & set(LIBRARIES), needs & set(LIBRARIES)
sys.meta_path.insert(0, TorchOnly())
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


def run(code: str) -> subprocess.CompletedProcess:
    head = f"LIBRARIES = {LIBRARIES!r}\n"
    return subprocess.run([sys.executable, "-c", head + ALONE + code], capture_output=True, text=True)


def test_fenland_trains_with_torch_alone():
    done = run(STEP)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "cure"),
    [
        ("lightning", "pip install lightning"),
        ("transformers", "pip install transformers accelerate"),
        ("accelerate", "pip install accelerate"),
    ],
)
def test_an_adapter_names_what_it_needs(module, cure):
    done = run(f"import fenland.integrations.{module}\n")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: fenland.integrations.{module} needs")
    assert cure in last
