"""The report's table: cells as text, and what each column means."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fenland.lab.figures.style import title_of

Row = dict[str, Any]
MINUS = "−"


@dataclass(frozen=True)
class Cell:
    """A number, and in small type below it the interval or what it is relative to; ``order`` is what it sorts by."""

    main: str
    below: str = ""
    best: bool = False
    order: str = ""


@dataclass(frozen=True)
class Column:
    """A column of the table."""

    title: str  # its head
    meaning: str  # its definition
    cell: Callable[[Row], Cell]  # from a row of the summary to its text
    best: tuple[str, bool] | None = None  # the summary's column that ranks it, and whether the largest is best


def columns(baseline: str, alone: bool = False) -> list[Column]:
    """All columns; ``baseline`` is the label that the others are compared with, ``alone`` when there are none."""
    base = title_of(baseline)
    return [*_accuracy(base)[: 1 if alone else 2], *_loss_and_gaps(), *_cost(base)]


def _accuracy(base: str) -> list[Column]:
    return [
        Column(
            "Test accuracy, %",
            "Share of the test set classified correctly after the last epoch: mean over seeds, below it the 95 % "
            "Student-t interval of that mean.",
            lambda row: _interval(row, "test_accuracy", 100, 2),
            ("test_accuracy", True),
        ),
        Column(
            f"Gain over {base}, points",
            f"Test accuracy minus {base}'s with the same seed, mean and 95 % interval of those differences (a paired "
            "t-interval). It is not adjusted for choosing the best of several optimizers.",
            lambda row: _interval(row, "test_accuracy_difference", 100, 2, sign=True),
        ),
    ]


def _loss_and_gaps() -> list[Column]:
    return [
        Column(
            "Test loss",
            "Mean cross-entropy on the test set after the last epoch.",
            lambda row: _interval(row, "test_loss", 1, 4),
            ("test_loss", False),
        ),
        Column(
            "Loss gap",
            "Test loss minus training loss, both after the last epoch in evaluation mode: the generalisation gap.",
            lambda row: _interval(row, "loss_gap", 1, 4),
            ("loss_gap", False),
        ),
        Column(
            "Accuracy gap, points",
            "Training accuracy minus test accuracy.",
            lambda row: _interval(row, "accuracy_gap", 100, 2),
            ("accuracy_gap", False),
        ),
    ]


def _cost(base: str) -> list[Column]:
    return [
        Column(
            "Training time",
            f"Mean time of a run's training steps, without evaluation; below it relative to {base}.",
            _time,
        ),
        Column(
            "Gradient evaluations",
            "Forward and backward passes of a whole run: one a step for SGD, two for an optimizer that climbs.",
            lambda row: Cell(number(row["gradient_evaluations"], 0), order=_order(row["gradient_evaluations"])),
        ),
        Column("Seeds", "Finished runs; diverged ones are counted here and in no mean.", _seeds),
    ]


def rows(summary: list[Row], chosen: list[Column]) -> list[dict[str, Any]]:
    """For each optimizer its title and cells; the best mean of a column is marked."""
    return [
        {
            "label": title_of(row["optimizer"]),
            "cells": [replace(column.cell(row), best=_is_best(row, summary, column)) for column in chosen],
        }
        for row in summary
    ]


def _is_best(row: Row, summary: list[Row], column: Column) -> bool:
    if column.best is None or len(summary) < 2:
        return False
    name, largest = column.best
    values = [each[name] for each in summary if math.isfinite(each[name])]
    return bool(values) and row[name] == (max(values) if largest else min(values))


def number(value: float, digits: int, sign: bool = False) -> str:
    """With so many decimals and a true minus sign; a dash for what is not finite."""
    if not math.isfinite(value):
        return "–"
    return f"{value:{'+' if sign else ''},.{digits}f}".replace("-", MINUS)


def _interval(row: Row, name: str, unit: float, digits: int, sign: bool = False) -> Cell:
    mean, low, high = (unit * row[key] for key in (name, f"{name}_low", f"{name}_high"))
    below = f"{number(low, digits, sign)} to {number(high, digits, sign)}" if math.isfinite(low) else ""
    return Cell(number(mean, digits, sign), below, order=_order(mean))


def _time(row: Row) -> Cell:
    seconds = row["seconds"]
    if not math.isfinite(seconds):
        return Cell("–")
    minutes = f"{seconds / 60:,.1f} min" if seconds >= 100 else f"{seconds:.1f} s"
    relative = row["relative_time"]
    return Cell(minutes, f"× {relative:.2f}" if math.isfinite(relative) else "", order=_order(seconds))


def _seeds(row: Row) -> Cell:
    return Cell(str(row["n"]), f"{row['diverged']} diverged" if row["diverged"] else "", order=str(row["n"]))


def _order(value: float) -> str:
    return f"{value:.9g}" if math.isfinite(value) else ""
