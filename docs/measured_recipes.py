"""What the records say of each recipe: python docs/measured_recipes.py writes the file that the package carries."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from fenland.lab.evidence.records import Rows
from fenland.lab.evidence.tasks import TASKS
from fenland.lab.recipes import RECIPES
from fenland.lab.recipes.measured import FILE, summarised
from fenland.lab.store.files import write_text
from fenland.lab.store.statistics import interval

RECORDS = Path(__file__).parent / "records" / "evidence"


def content(records: Path = RECORDS) -> str:
    """The file, from the records."""
    rows = Rows(records)
    found = {}
    for recipe in RECIPES.values():
        known = summarised(rows.of(recipe.task), recipe.method, TASKS[recipe.task].base, interval)
        if known is not None:
            found[f"{recipe.task} / {recipe.method}"] = asdict(known)
    return json.dumps(found, indent=1) + "\n"


if __name__ == "__main__":
    write_text(FILE, content())
