"""The core's tests under another torch, in an environment of their own: `make test-floor`, `make test-newest`.

    python tools/second_torch.py oldest [--python python3.10] [--fast] [--remove]

`oldest` takes the torch that pyproject.toml names as the floor, `pinned` that of constraints.txt, `newest` the newest
that pip offers. The environment (about 5 GB where torch brings CUDA along) stays for the next time unless `--remove` is
given. What runs there: one case of every test function of the core, and the golden trajectories, the twins and the
examples whole; with `--fast` nothing of it that is marked slow.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
WHOLE = ["test_golden.py", "test_twins.py", "variants/test_family_twins.py", "test_examples.py"]
NOT_CORE = ["lab", "docs", "benchmarks"]


def requirement(which: str) -> str:
    """The torch to install, as in torch==2.6.*."""
    file, pattern, wanted = {
        "oldest": ("pyproject.toml", r'^dependencies = \["torch>=([\d.]+)"\]', "torch=={}.*"),
        "pinned": ("constraints.txt", r"^torch==(\S+)$", "torch=={}"),
        "newest": ("pyproject.toml", r'^dependencies = \["torch>=([\d.]+)"\]', "torch"),
    }[which]
    found = re.search(pattern, (ROOT / file).read_text(), re.M)
    if found is None:
        raise SystemExit(f"{file}: no line matches {pattern}")
    return wanted.format(found[1])


def python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def build(folder: Path, python: str, torch: str) -> Path:
    """Make the environment or bring it up to date; its Python."""
    inside = python_of(folder)
    if not inside.exists():
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
    install = [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
    subprocess.run([*install, "-e", f"{ROOT}[test]", torch], check=True, cwd=ROOT)
    return inside


def tests(python: Path, workers: int, fast: bool) -> list[tuple[str, int]]:
    """Run both parts; (pytest's last line, exit code) of each."""
    common = [str(python), "-m", "pytest", "-q", "-n", str(workers), "-p", "no:cacheprovider"]
    common += ["-m", "not slow"] if fast else []
    skipped = [f"--ignore={TESTS / name}" for name in [*NOT_CORE, *WHOLE]]
    return [
        _run([*common, "--one-case", *skipped, str(TESTS)]),
        _run([*common, *(str(TESTS / name) for name in WHOLE)]),
    ]


def _run(command: list[str]) -> tuple[str, int]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, env=env, **out)
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line.strip() or last
    return last.strip("= "), process.wait()


def versions(python: Path) -> str:
    code = "import platform, torch; print(f'torch {torch.__version__}, Python {platform.python_version()}')"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["oldest", "pinned", "newest"])
    parser.add_argument("--python", default=sys.executable, help="what makes the environment (default: this)")
    parser.add_argument("--folder", type=Path, default=None, help="of the environment (default: .venv-oldest, ...)")
    parser.add_argument("--workers", type=int, default=2, help="test processes")
    parser.add_argument("--fast", action="store_true", help="leave out what is marked slow")
    parser.add_argument("--remove", action="store_true", help="remove the environment afterwards")
    args = parser.parse_args()
    folder = (args.folder or ROOT / f".venv-{args.which}").resolve()
    began = time.monotonic()
    try:
        python = build(folder, args.python, requirement(args.which))
        built = time.monotonic()
        told, outcomes = versions(python), tests(python, args.workers, args.fast)
    finally:
        if args.remove:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{told}; built in {built - began:.0f} s, tested in {time.monotonic() - built:.0f} s")
    for name, (last, code) in zip(("one case of each test", "golden, twins, examples"), outcomes, strict=True):
        print(f"  {name}: {last}{'' if code == 0 else f' (exit code {code})'}")
    return max(code for _, code in outcomes)


if __name__ == "__main__":
    sys.exit(main())
