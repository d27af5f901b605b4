"""Write constraints.txt anew: the newest set that installs together. `make constraints`, then `make test`, then commit.

    python tools/constraints.py [--torch 2.13.0] [--folder DIR] [--write]

A fresh environment gets every extra with nothing pinned but torch (by default the one that constraints.txt pins now);
what pip put into it is the set. Without `--write` the differences are printed and nothing is changed.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "constraints.txt"
# What pip needs for itself, and what a torch with CUDA brings along, which a torch without does not want.
LEFT_OUT = re.compile(r"^(fenland|pip|setuptools|wheel|triton|nvidia-.*|cuda-.*)$", re.I)


def extras() -> str:
    """Those that `make setup` installs."""
    found = re.search(r"-e '\.\[([\w,]+)\]'", (ROOT / "Makefile").read_text())
    if found is None:
        raise SystemExit("Makefile: setup installs no '.[extras]'")
    return found[1]


def pinned(name: str) -> str:
    found = re.search(rf"^{name}==(\S+)$", FILE.read_text(), re.M)
    if found is None:
        raise SystemExit(f"constraints.txt pins no {name}; give --{name}")
    return found[1]


def installed(folder: Path, torch: str) -> list[str]:
    """Lines name==version of a fresh environment with every extra."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "-e", f"{ROOT}[{extras()}]", f"torch=={torch}"], check=True, cwd=ROOT)
    listed = subprocess.run([*pip, "list", "--format=json"], capture_output=True, text=True, check=True).stdout
    found = {each["name"]: each["version"].split("+")[0] for each in json.loads(listed)}
    return [f"{name}=={found[name]}" for name in sorted(found, key=str.lower) if not LEFT_OUT.match(name)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", default=None, help="its version (default: as pinned now)")
    parser.add_argument("--folder", type=Path, default=None, help="of the environment (default: a temporary one)")
    parser.add_argument("--write", action="store_true", help="replace constraints.txt")
    args = parser.parse_args()
    before = FILE.read_text().splitlines()
    head = [line for line in before if line.startswith("#")]
    with tempfile.TemporaryDirectory(prefix="fenland-constraints-") as scratch:
        after = [*head, *installed(args.folder or Path(scratch), args.torch or pinned("torch"))]
    print("\n".join(difflib.unified_diff(before, after, "constraints.txt", "newest", lineterm="", n=0)) or "no change")
    if args.write:
        FILE.write_text("\n".join(after) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
