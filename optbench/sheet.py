"""A table of a report: in words for people, in numbers for pandas, and what it is sorted by."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One table.

    Attributes:
        name: of its files: letters, digits and _.
        title: above it.
        words: what people read; every cell is text.
        keys: what a column is sorted by: as `words` in shape and columns, a number, text or None in each cell.
        numbers: the same figures for pandas and CSV, with columns of their own.
        notes: what it says and on what, a sentence each.
    """

    name: str
    title: str
    words: pd.DataFrame
    keys: pd.DataFrame
    numbers: pd.DataFrame
    notes: Sequence[str] = ()
