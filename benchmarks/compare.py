"""What moved between two records of `fenland bench --out` by more than their spread.

    python benchmarks/compare.py OLD.json NEW.json

Exit code 1 where a step got dearer, 0 otherwise, so that a job can watch it.
"""

import argparse
import sys
from pathlib import Path

from fenland.lab.bench.compare import changes, read
from fenland.lab.errors import BadInput


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    given = parser.parse_args(arguments)
    try:
        found = changes(read(given.old), read(given.new))
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    for change in found:
        print(("dearer   " if change.new > change.old else "cheaper  ") + str(change))
    if not found:
        print("nothing moved by more than the spread")
    return int(any(change.new > change.old for change in found))


if __name__ == "__main__":
    sys.exit(main())
