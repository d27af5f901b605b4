"""Whether this tree may be released under a tag: `python tools/release.py --tag v0.1.0 --repository OWNER/NAME`.

The release workflow runs it first. It prints every objection, one a line, and then fails.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def objections(root: Path, tag: str, repository: str) -> list[str]:
    """What stands against the release.

    Args:
        root: the tree.
        tag: as pushed, such as v0.1.0.
        repository: OWNER/NAME of where the tag was pushed, which must be where the metadata point to.
    """
    version = _only(r'^__version__ = "([^"]+)"$', root / "src" / "fenland" / "__init__.py")
    cited = _only(r"^version: (\S+)$", root / "CITATION.cff")
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    home = _only(r'^Source = "https://github\.com/([^"]+)"$', root / "pyproject.toml")
    found = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag}, src/fenland/__init__.py says {version}: tag v{version}, or change the version")
    if cited != version:
        found.append(f"CITATION.cff says version {cited}, not {version}")
    if not re.search(rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", changes, re.M):
        found.append(f"CHANGELOG.md has no heading '## {version} (YYYY-MM-DD)' with the day of the release")
    if home != repository:
        cure = "correct [project.urls] and the readme's substitutions"
        found.append(f"pyproject.toml points to github.com/{home}, this is {repository}: {cure}")
    return found


def _only(pattern: str, file: Path) -> str:
    found = re.findall(pattern, file.read_text(encoding="utf-8"), re.M)
    if len(found) != 1:
        raise SystemExit(f"{file.name}: wants exactly one line like {pattern}")
    return str(found[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tag", required=True)
    parser.add_argument("--repository", required=True, help="OWNER/NAME")
    args = parser.parse_args()
    found = objections(ROOT, args.tag, args.repository)
    print(*found, sep="\n", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
