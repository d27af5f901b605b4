"""What a release needs: one version, a citation, a workflow equal to ours, and packages that install and work."""

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from blocks import ROOT

import fenland
import release
import second_torch

USER = Path(__file__).with_name("user.py")
FLOWS = ROOT / ".github" / "workflows"


def test_the_version_is_written_once():
    text = (ROOT / "pyproject.toml").read_text()
    assert not re.search(r"^version = ", text, re.M)
    assert 'dynamic = ["version", "readme"]' in text
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


def flow(name: str) -> dict:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((FLOWS / f"{name}.yml").read_text())


def commands(job: dict) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_the_workflow_runs_what_ci_runs_and_the_core_under_every_python():
    jobs = flow("ci")["jobs"]
    assert commands(jobs["whole"]) == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    tiers = re.findall(r"^make (\S+)$", (ROOT / ".ci" / "run").read_text(), re.M)
    assert tiers == ["test", "test-slow"]
    matrix = jobs["core"]["strategy"]["matrix"]
    metadata = (ROOT / "pyproject.toml").read_text()
    assert re.findall(r"Python :: (3\.\d+)", metadata) == matrix["python"]
    assert f'requires-python = ">={matrix["python"][0]}"' in metadata
    assert matrix["torch"] == ["oldest", "pinned", "newest"]
    for job in ("core", "elsewhere"):
        (command,) = commands(jobs[job])
        assert command.startswith("python tools/second_torch.py ")


def test_the_torch_to_install_is_read_from_the_two_files_that_say_it():
    assert second_torch.requirement("newest") == "torch"
    assert re.fullmatch(r"torch==\d+\.\d+\.\*", second_torch.requirement("oldest"))
    assert second_torch.requirement("pinned") in (ROOT / "constraints.txt").read_text().splitlines()


def test_both_tiers_together_are_every_test():
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r"\$\(PYTEST\) -m (.+)$", makefile, re.M) == ['"not slow"', '"slow or both_tiers"']


def test_a_release_is_built_tried_and_published_without_a_token():
    jobs = flow("release")["jobs"]
    assert jobs["publish"]["needs"] == "try"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["try"]["needs"] == "build"
    assert "secrets." not in (FLOWS / "release.yml").read_text()
    said = " ".join(commands(jobs["build"]))
    assert said.index("tools/release.py") < said.index("-m build") < said.index("twine check --strict")
    assert "tests/docs/user.py" in " ".join(commands(jobs["try"]))


@pytest.mark.parametrize("name", ["ci", "newest", "release"])
def test_every_file_that_a_workflow_runs_is_there_with_the_options_it_is_given(name):
    for job in flow(name)["jobs"].values():
        for command in commands(job):
            for file, rest in re.findall(r"(?:python |^|/)((?:tools|tests|\.ci)/\S+?)(?=[\s\"]|$)([^#\n]*)", command):
                text = (ROOT / file).read_text()
                assert all(f'"{option}"' in text for option in re.findall(r"--[\w-]+", rest)), command
    for extra in re.findall(r"-e '\.\[([\w,]+)\]'", (FLOWS / f"{name}.yml").read_text()):
        assert all(
            re.search(rf"^{each} = \[", (ROOT / "pyproject.toml").read_text(), re.M) for each in extra.split(",")
        )


def test_the_weekly_run_changes_nothing():
    weekly = flow("newest")
    assert weekly["permissions"] == {"contents": "read"}
    assert "constraints" not in " ".join(commands(weekly["jobs"]["fast"]))


def tree(folder: Path, version="1.2.3", cited="1.2.3", heading="## 1.2.3 (2026-01-31)", home="a/b") -> Path:
    for name, text in {
        "src/fenland/__init__.py": f'__version__ = "{version}"',
        "CITATION.cff": f"cff-version: 1.2.0\nversion: {cited}",
        "CHANGELOG.md": heading,
        "pyproject.toml": f'Source = "https://github.com/{home}"',
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    return folder


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, ""),
        ({"version": "1.2.4"}, "the tag is v1.2.3"),
        ({"cited": "1.2.2"}, "CITATION.cff says version 1.2.2"),
        ({"heading": "## 1.2.3 (unreleased)"}, "CHANGELOG.md has no heading"),
        ({"home": "a/c"}, "pyproject.toml points to github.com/a/c, this is a/b"),
    ],
)
def test_a_tag_that_does_not_fit_is_refused(wrong, said, tmp_path):
    found = " ".join(release.objections(tree(tmp_path, **wrong), "v1.2.3", "a/b"))
    assert (said in found) if said else not found


def test_the_checks_of_a_release_can_read_this_tree():
    (found,) = release.objections(ROOT, f"v{fenland.__version__}", "fenland/fenland")
    assert found.startswith("CHANGELOG.md has no heading"), "until the day of the release"


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
    done = subprocess.run([python, "-I", USER], capture_output=True, text=True, cwd=tmp_path, timeout=120)
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
    pytest.importorskip("twine")
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"fenland/py.typed", "fenland/optimizer.py", "fenland/lab/report/templates/page.css"} <= names
    assert not [n for n in names if n.startswith(("tests", "docs"))]
    with tarfile.open(sdist) as archive:
        inside = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"README.md", "LICENSE", "CITATION.cff", "mkdocs.yml", "Makefile", "constraints.txt"} <= inside
    assert not [n for n in inside if n.startswith((".venv", "out/"))]


LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.slow
def test_the_index_page_has_links_and_pictures_that_can_be_followed(built):
    """Of this version's tag, and each to a file that is there."""
    with zipfile.ZipFile(built[0]) as wheel:
        (name,) = [n for n in wheel.namelist() if n.endswith("METADATA")]
        metadata = wheel.read(name).decode()
    page = metadata.partition("\n\n")[2]
    links = LINK.findall(page)
    assert len(links) == len(LINK.findall((ROOT / "README.md").read_text()))
    ours = re.compile(
        r"https://(?:github\.com/[\w-]+/[\w-]+/blob|raw\.githubusercontent\.com/[\w-]+/[\w-]+)/v([\d.]+)/(.+)"
    )
    for link in links:
        found = ours.fullmatch(link)
        if found is None:
            assert link.startswith("https://"), link
            continue
        assert found[1] == fenland.__version__
        assert (ROOT / found[2].partition("#")[0]).exists(), link
        assert ("raw." in link) == link.endswith((".png", ".svg", ".gif"))


@pytest.mark.slow
def test_the_metadata_are_complete(built):
    with zipfile.ZipFile(built[0]) as wheel:
        (name,) = [n for n in wheel.namelist() if n.endswith("METADATA")]
        fields = message_from_string(wheel.read(name).decode())
    assert fields["Author"] == "The fenland authors" in (ROOT / "CITATION.cff").read_text()
    assert fields["License-Expression"] == "Apache-2.0 AND BSD-3-Clause"
    assert {u.partition(",")[0] for u in fields.get_all("Project-URL")} >= {
        "Source",
        "Documentation",
        "Changelog",
        "Issues",
    }
    core = [r for r in fields.get_all("Requires-Dist") if "extra ==" not in r]
    assert core == [second_torch.requirement("oldest").replace("==", ">=").removesuffix(".*")]
    assert "Operating System :: OS Independent" in fields.get_all("Classifier")


def test_a_library_that_we_carry_has_its_licence_beside_it():
    """And the metadata name every licence there is, so that installers and indexes show them."""
    carried = list((ROOT / "src").rglob("*.min.*"))
    assert carried
    assert all((file.parent / name).is_file() for file in carried for name in ("LICENSE", "NOTICE"))
    patterns = re.search(r"^license-files = \[(.+)\]$", (ROOT / "pyproject.toml").read_text(), re.M)[1]
    named = {file for pattern in re.findall(r'"([^"]+)"', patterns) for file in ROOT.glob(pattern)}
    assert named == {ROOT / "LICENSE", *(ROOT / "src").rglob("LICENSE*"), *(ROOT / "src").rglob("NOTICE*")}


@pytest.mark.slow
def test_the_wheel_carries_every_licence(built):
    with zipfile.ZipFile(built[0]) as wheel:
        kept = [name.partition("/licenses/")[2] for name in wheel.namelist() if "/licenses/" in name]
    there = [ROOT / "LICENSE", *(ROOT / "src").rglob("LICENSE*"), *(ROOT / "src").rglob("NOTICE*")]
    assert sorted(kept) == sorted(str(file.relative_to(ROOT)) for file in there)


@pytest.mark.slow
def test_a_user_s_script_passes_mypy_strict(built, tmp_path):
    pytest.importorskip("mypy")
    python = install(built[0], tmp_path / "env")
    script = tmp_path / "user.py"
    script.write_text(USER.read_text())
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "--cache-dir"]
    done = subprocess.run(
        [*command, str(tmp_path / "cache"), str(script)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout
    wrong = USER.read_text().replace('method="USAM"', "method=3")
    script.write_text(wrong)
    done = subprocess.run(
        [*command, str(tmp_path / "cache"), str(script)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1, "types reach the user's script"
    assert 'Argument "method"' in done.stdout
