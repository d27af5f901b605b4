"""Rows of tables by what they are of, and tables by the names of the pieces that made them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from fenland.lab.study.parts import Lab, Piece, Tables


def select(table: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """The rows with these values.

    Args:
        table: any.
        where: the value of a column; numbers with a fraction may be off by rounding. A tuple: one of several.
    """
    for name, wanted in where.items():
        if isinstance(wanted, tuple):
            table = table[table[name].isin(wanted)]
        elif isinstance(wanted, float):
            table = table[np.isclose(table[name].astype(float), wanted, rtol=1e-9, atol=0.0)]
        else:
            table = table[table[name] == wanted]
    return table


def gathered(lab: Lab, pieces: Sequence[Piece], what: str, *about: str) -> Tables:
    """The tables of pieces, those of one name below each other.

    Args:
        lab: that computes them.
        pieces: named by their tables.
        what: they are, for the progress.
        about: fields of their keys that become columns.
    """
    import pandas as pd

    parts: dict[str, list[pd.DataFrame]] = {}
    for piece, part in zip(pieces, lab.keep_all(pieces, what), strict=True):
        parts.setdefault(piece.name, []).append(part.assign(**{name: piece.key[name] for name in about}))
    return {name: pd.concat(each, ignore_index=True) for name, each in parts.items()}
