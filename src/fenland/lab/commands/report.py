"""``fenland report``."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from fenland.lab import logs
from fenland.lab.commands import output
from fenland.lab.commands.option import option
from fenland.lab.errors import BadInput


@dataclass(frozen=True)
class Report:
    """Write pages again from what is stored, without training or measuring.

    For a comparison it writes the report. For a folder above studies and comparisons it writes every study's page and
    an index over all of them (DIR/index.html). For two folders it writes one page that shows them side by side: the
    numbers, and the settings that differ.

    Example: fenland report out/demo, or fenland report out/monday out/tuesday

    Exit codes: 0 written, 1 a study's page could not be (the others were), 2 wrong arguments.
    """

    out: Annotated[Positional[str], option(metavar="DIR")]
    """The --out of a comparison or of studies, or a folder above several of them."""
    beside: Annotated[Positional[str], option(metavar="[DIR]")] = ""
    """What it is shown beside: another --out of a comparison. Two runs compare as OUT/runs/HASH."""
    to: Annotated[str, option(metavar="FILE.html")] = ""
    """The page of two. Default: out/report-A-B.html."""

    def run(self, arguments: list[str]) -> int:
        """Write them and print their paths."""
        if self.beside:
            return self._beside(arguments)
        if self.to:
            raise BadInput("to", self.to, "is for the page of two folders; that of one is written into it")
        folder = output.existing_folder(self.out)
        with logs.waiting("pandas and matplotlib"):
            from fenland.lab.report import write_report
            from fenland.lab.studies import STUDIES
            from fenland.lab.study.index import comparisons_below, studies_below, write_index

        studies, comparisons = studies_below(folder), comparisons_below(folder)
        own = folder in comparisons or not (studies or comparisons)
        if own:
            with logs.waiting("the figures"):
                print(write_report(output.existing_store(self.out)))
        code = self._studies(studies)
        if studies or set(comparisons) - {folder}:
            print(write_index(folder, list(STUDIES)))
        return code

    def _beside(self, arguments: list[str]) -> int:
        first, second = map(output.existing_folder, (self.out, self.beside))
        page = Path(self.to or f"out/report-{first.resolve().name}-{second.resolve().name}.html")
        if page.suffix != ".html":
            raise BadInput("to", self.to, "a page's name ends in .html")
        with logs.waiting("pandas and matplotlib"):
            from fenland.lab.report import write_beside

        with logs.waiting("the figures"):
            print(write_beside(first, second, page, shlex.join(["fenland", *arguments])))
        return output.OK

    def _studies(self, folders: list[Path]) -> int:
        from fenland.lab.studies import find
        from fenland.lab.study.run import judge_again

        code = output.OK
        for folder in folders:
            try:
                print(judge_again(folder, find).report)
            # One study of another version, or one that is damaged, must not keep the others from being written.
            except (BadInput, OSError, ValueError, KeyError, TypeError) as error:
                cure = "" if isinstance(error, BadInput) else "; run the study again"
                print(f"fenland: {folder}: {error}{cure}", file=sys.stderr)
                code = output.FAILED
        return code
