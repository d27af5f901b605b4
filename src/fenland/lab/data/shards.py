"""Files that are parts of one split: which belong together, and whether some are missing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fenland.lab.data import splits
from fenland.lab.errors import BadInput

# The hub's names, ``train-00000-of-00002`` (older ones end with a hash), and plain counting, ``train-0``.
_OF = re.compile(r"(?P<label>.*?)-?(?P<number>\d{4,6})-of-(?P<total>\d{4,6})(?:-[0-9a-f]+)?")
_COUNTED = re.compile(r"(?P<label>.*?)[-_.]?(?P<number>\d+)")


@dataclass(frozen=True)
class Part:
    """One file of a split."""

    file: Path  # its path
    split: str  # what the split is called
    home: tuple[str, ...]  # the folders that it lies in, below the source's, without one that names the split
    series: str  # its name without a number: files with the same one are counted together
    number: int | None  # its place in the series; None where it has none
    total: int | None  # how many files the series has, where the name says so


def part(file: Path, relative: Path) -> Part | None:
    """What a file is a part of, by its name or by the folder it is in; None where neither names a split."""
    series, number, total = _counted(relative.stem)
    if splits.base(series or relative.stem) is not None:
        if total is None and number is not None and number > 1 and not _counting(file):
            series, number = relative.stem, None  # train2017 is a name, not the 2018th part of train
        return Part(file, series, relative.parent.parts, series, number, total)
    for depth in range(len(relative.parent.parts) - 1, -1, -1):
        folders = relative.parent.parts
        if splits.base(folders[depth]) is not None:
            home = folders[:depth] + folders[depth + 1 :]
            return Part(file, folders[depth], home, series, number, total)
    return None


def _counted(stem: str) -> tuple[str, int | None, int | None]:
    if match := _OF.fullmatch(stem):
        return match["label"], int(match["number"]), int(match["total"])
    if match := _COUNTED.fullmatch(stem):
        return match["label"], int(match["number"]), None
    return stem, None, None


def _counting(file: Path) -> bool:
    """Whether the series that the file is in begins with 0 or 1."""
    series, _, _ = _counted(file.stem)
    siblings = (_counted(other.stem) for other in file.parent.glob(f"*{file.suffix}"))
    return any(name == series and count in (0, 1) for name, count, _ in siblings)


def together(parts: list[Part], argument: str, folder: Path) -> dict[str, list[Path]]:
    """The files of each split, sorted by name."""
    found: dict[str, list[Part]] = {}
    for each in parts:
        found.setdefault(each.split, []).append(each)
    homes = sorted({each.home for each in parts}, key=lambda home: (len(home), home))
    inside = all(longer[: len(shorter)] == shorter for shorter, longer in pairwise(homes))
    if not inside or any(len({each.home for each in own}) > 1 for own in found.values()):
        named = " and ".join(f"{'/'.join(home)}/" if home else "the folder itself" for home in homes[:3])
        cure = f"holds {len(homes)} data sets, in {named}; give one of them alone: their rows may be the same"
        raise BadInput(argument, folder, cure)
    for own in found.values():
        _check_whole(own, argument)
    return {split: sorted(each.file for each in own) for split, own in found.items()}


def _check_whole(own: list[Part], argument: str) -> None:
    series: dict[tuple[str, int | None], list[Part]] = {}
    for each in own:
        if each.number is not None:
            series.setdefault((each.series, each.total), []).append(each)
    totals = {total for _, total in series if total is not None}
    if len(totals) > 1 or (totals and len(own) > max(totals)):
        shown = " and ".join(sorted(each.file.name for each in own)[:2])
        raise BadInput(argument, own[0].file.parent, f"{shown} are parts of different downloads; keep one of them")
    for (_, total), members in series.items():
        _check_numbers(members, total, argument)


def _check_numbers(members: list[Part], total: int | None, argument: str) -> None:
    numbers = {each.number for each in members if each.number is not None}
    first = min(numbers) if total is None else 0
    if first > 1:  # a date, say: nothing that is counted
        return
    wanted = range(first, total if total is not None else max(numbers) + 1)
    missing = [number for number in wanted if number not in numbers]
    if missing:
        counted = f"one of {total} files" if total is not None else "a numbered file"
        lost = ", ".join(str(number) for number in missing[:4])
        are = f"numbers {lost}{' ...' * (len(missing) > 4)} are" if len(missing) > 1 else f"number {lost} is"
        raise BadInput(argument, members[0].file, f"is {counted}, and {are} missing; download the rest")
