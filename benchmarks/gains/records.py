"""The records of the plan: one JSON file a task, one row a run, no weights.

A file holds ``{"task": KEY, "runs": [ROW, ...]}``. A row says what was run (``method``, ``purpose``, ``settings``),
what came of it (``status``, ``test_accuracy``, ``test_loss``, ``test_ece``, ``train_accuracy``, ``train_loss``; for
runs on the test set ``corruptions``: the same three for noise, blur, contrast), what it cost (``process_seconds``,
``seconds``, ``gradient_evaluations``) and where (``environment``, ``data_id``). In rows of other purposes than ``test``
the names with ``test_`` speak of the held-out examples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fenland.lab.store.files import read_json, write_json

Row = dict[str, Any]
_CURE = "bring it back from the repository's history"


class Rows:
    """The rows of a folder of records.

    Args:
        folder: with a file ``KEY.json`` a task; tasks without a file have no rows.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: dict[str, list[Row]] = {}

    def of(self, task: str) -> list[Row]:
        """The rows of a task."""
        if task not in self._rows:
            path = self.path(task)
            self._rows[task] = read_json(path, _CURE)["runs"] if path.exists() else []
        return self._rows[task]

    def path(self, task: str) -> Path:
        """The file of a task."""
        return self.folder / f"{task}.json"

    def find(self, task: str, settings: Row) -> Row | None:
        """The row of the run with these settings; None where there is none."""
        return next((row for row in self.of(task) if row["settings"] == settings), None)

    def add(self, task: str, row: Row) -> None:
        """One more run; the file is read again and written whole, so that two processes may share it now and then."""
        self._rows.pop(task, None)
        rows = self.of(task)
        if self.find(task, row["settings"]) is None:
            rows.append(row)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.path(task), {"task": task, "runs": rows}, indent=1)
