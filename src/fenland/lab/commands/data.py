"""``fenland data``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

from fenland.lab import logs
from fenland.lab.commands import output, shared
from fenland.lab.commands.option import option
from fenland.lab.errors import BadInput

if TYPE_CHECKING:
    from fenland.lab.data.look import Look, Seen

_MOST = 20  # classes that are listed


@dataclass(frozen=True)
class Data:
    """Show what --data would load, before you train on it.

    It shows splits, classes, counts, modes and sizes, how many test images are train images too, and sixteen images as
    one PNG. For texts it shows their lengths and some of them.

    Example: fenland data data/mnist --sheet out/mnist.png
    """

    data: Annotated[Positional[str], option(metavar="NAME|DIR")]
    """As for fenland compare: digits, mnist, cifar10, cifar100, a hub name owner/name, or a folder."""
    data_dir: Annotated[str, option(metavar="DIR")] = ""
    """A folder with a copy of a set that has a name."""
    test_split: Annotated[str, option(metavar="NAME")] = ""
    """The split to test on. Default: test, else the one validation split."""
    sheet: Annotated[str, option(metavar="FILE")] = ""
    """Where the sixteen images go. Default: out/data-NAME.png."""
    json: bool = False
    """Print one JSON document instead of the tables."""

    def run(self, arguments: list[str]) -> int:
        """Look, write the sheet and print."""
        with logs.waiting("torch"):
            from fenland.lab.config import RunConfig
            from fenland.lab.data import identify
            from fenland.lab.data.look import look
            from fenland.lab.data.sheet import write

        sheet = Path(self.sheet or f"out/data-{shared.data_name(self.data)}.png")
        if sheet.suffix.lower() != ".png":
            raise BadInput("sheet", self.sheet, "give a file name that ends with .png")
        config = RunConfig(self.data, "mlp", "sgd", data_dir=self.data_dir or None, test_split=self.test_split or None)
        with logs.waiting("the data"):
            found = look(identify(config))
        if found.texts and self.sheet:
            raise BadInput("sheet", self.sheet, "is for images, and these data are texts; leave it out")
        if found.images is not None:
            write(found.images, sheet)
        if self.json:
            output.print_json({**found.as_dict(), "sheet": None if found.images is None else sheet})
        else:
            self._show(found, sheet)
        if found.problem is not None:
            raise found.problem
        return output.OK

    def _show(self, found: Look, sheet: Path) -> None:
        console = output.console()
        print(found.source)
        console.print(_splits(found))
        console.print(_classes(found))
        for text, names in (("splits not used", found.others), ("files not used", found.ignored)):
            if names:
                print(f"{text}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}")
        if found.images is not None:
            channels, height, width = found.images.shape
            print(f"loaded as {height}x{width} with {channels} channel{'s' * (channels > 1)}, 8 bits each")
            if found.repeated:
                print(f"{found.repeated} of {found.test.rows} test images are in the train set too")
            print(sheet)
        elif found.texts:
            if found.repeated:
                print(f"{found.repeated} test texts are in the train set too")
            print(*found.texts, sep="\n")


def _splits(found: Look) -> Any:
    kinds = ("texts", "kind") if found.texts else ("images", "modes")
    table = output.table(("used to", "split", *kinds, "sizes"))
    for use, seen in (("train", found.train), ("test", found.test)):
        modes = dict(seen.modes) | ({"unusable": seen.unusable} if seen.unusable else {})
        table.add_row(use, seen.name, str(seen.rows), _shares(modes, seen), _shares(seen.sizes, seen))
    return table


def _shares(found: dict[str, int], seen: Seen) -> str:
    """What all images are; how many are what, where they differ."""
    if len(found) == 1 and seen.rows in found.values():
        return next(iter(found))
    shown = ", ".join(f"{name} {count}" for name, count in list(found.items())[:4])
    return shown + (f" and {len(found) - 4} more" if len(found) > 4 else "")


def _classes(found: Look) -> Any:
    table = output.table(("class", "train", "test"))
    names = list(dict.fromkeys([*found.train.labels, *found.test.labels]))
    for name in names[:_MOST]:
        table.add_row(name, *(str(seen.labels.get(name, 0)) for seen in (found.train, found.test)))
    if len(names) > _MOST:
        rest = [sum(seen.labels.get(name, 0) for name in names[_MOST:]) for seen in (found.train, found.test)]
        table.add_row(f"{len(names) - _MOST} more", *map(str, rest))
    return table
