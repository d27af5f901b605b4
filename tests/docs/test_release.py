"""What a release needs: one version, a citation, a workflow equal to ours, and packages that install and work."""

import os
import re
import subprocess
import sys
import tarfile
import textwrap
import venv
import zipfile
from pathlib import Path

import pytest
from blocks import ROOT

import fenland

USER = """
import torch
import fenland
from fenland import theory

model = torch.nn.Linear(4, 1)
x, y = torch.randn(8, 4), torch.randn(8, 1)
opt = fenland.SSAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.05, model=model, max_norm=1.0)


def closure() -> torch.Tensor:
    opt.zero_grad()
    loss = torch.nn.functional.mse_loss(model(x), y)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return loss


before = [p.detach().clone() for p in model.parameters()]
loss: torch.Tensor = opt.step(closure)
assert not all(torch.equal(p, q) for p, q in zip(model.parameters(), before))
sharpness = opt.last.sharpness
assert sharpness is not None and float(sharpness) > 0
limit: float = theory.stable_lr(4.0, rho=0.05, method="USAM")
own = fenland.SharpnessAware(
    torch.optim.AdamW(model.parameters()), ball=fenland.Adaptive(), combine=fenland.Renormalize()
)
own.load_state_dict(own.state_dict())
print("works", fenland.__version__)
"""


def test_the_version_is_written_once():
    text = (ROOT / "pyproject.toml").read_text()
    assert not re.search(r"^version = ", text, re.M)
    assert 'dynamic = ["version"]' in text
    assert f"## {fenland.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_citation_names_the_version_and_the_papers():
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert str(cited["version"]) == fenland.__version__
    assert cited["title"]
    assert cited["authors"]
    titles = [r["title"] for r in cited["references"]]
    assert [title.split()[0] for title in titles[:3]] == ["Stabilizing", "Investigations", "Stability"]
    assert [title.split()[-1] for title in titles[3:]] == ["Minimization", "Stability", "Minimizers"]
    assert all(r["authors"] and r["type"] for r in cited["references"])


def test_the_workflow_runs_what_ci_runs():
    yaml = pytest.importorskip("yaml")
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = flow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """Wheel and sdist, built in isolation (the build's own requirements come from the package index)."""
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode and "No matching distribution found for hatchling" in done.stdout + done.stderr:
        pytest.skip("no package index with hatchling")
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def install(package: Path, folder: Path) -> Path:
    """A clean environment with this package and torch alone; its Python.

    Torch, which is large, is not copied: the environment is told the folder of ours, from which only torch and what
    torch itself imports can be seen, through links.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (target,) = folder.glob("lib/python*/site-packages")
    for name in _torch_and_its_own():
        (target / name.name).symlink_to(name)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--target", str(target), str(package)], check=True, timeout=200)
    return python


def _torch_and_its_own() -> list[Path]:
    import torch

    site = Path(torch.__file__).parents[1]
    wanted = ("torch", "torchgen", "functorch", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2",
              "markupsafe", "filelock", "fsspec", "_distutils_hack", "nvidia", "triton")  # fmt: skip
    found = [p for name in wanted for p in (site / name, site / f"{name}.py") if p.exists()]
    return [*found, *site.glob("torch-*.dist-info")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_package_installs_beside_torch_alone_and_works(built, kind, tmp_path):
    python = install(built[kind == "sdist"], tmp_path / "env")
    script = tmp_path / "user.py"
    script.write_text(USER)
    done = subprocess.run([python, "-I", script], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["works", fenland.__version__]
    absent = (
        "import importlib.util as u, fenland; print(u.find_spec('lightning'), u.find_spec('numpy'), fenland.__file__)"
    )
    said = subprocess.run([python, "-I", "-c", absent], capture_output=True, text=True, cwd=tmp_path, timeout=60).stdout
    assert said.startswith(f"None None {tmp_path}"), said


@pytest.mark.slow
def test_the_packages_hold_what_they_should(built):
    wheel, sdist = built
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"fenland/py.typed", "fenland/optimizer.py", "fenland/lab/report/templates/page.css"} <= names
    assert not [n for n in names if n.startswith(("tests", "docs"))]
    with tarfile.open(sdist) as archive:
        inside = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"README.md", "LICENSE", "CITATION.cff", "mkdocs.yml", "Makefile", "constraints.txt"} <= inside
    assert not [n for n in inside if n.startswith((".venv", "out/"))]


@pytest.mark.slow
def test_a_user_s_script_passes_mypy_strict(built, tmp_path):
    pytest.importorskip("mypy")
    python = install(built[0], tmp_path / "env")
    script = tmp_path / "user.py"
    script.write_text(textwrap.dedent(USER))
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "--cache-dir"]
    done = subprocess.run(
        [*command, str(tmp_path / "cache"), str(script)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout
    wrong = USER.replace('method="USAM"', "method=3")
    script.write_text(wrong)
    done = subprocess.run(
        [*command, str(tmp_path / "cache"), str(script)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1, "types reach the user's script"
    assert 'Argument "method"' in done.stdout
