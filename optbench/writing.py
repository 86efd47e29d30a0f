"""Tables as Markdown, CSV and LaTeX, in which no name of a config becomes markup, a formula or a command."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import pandas as pd

from optbench.sheet import Sheet

# What a spreadsheet takes for the start of a formula, behind blanks too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
# Signs that are in no common LaTeX font.
_LATEX = {
    "★": r"$\star$",
    "✕": r"$\times$",
    "✗": r"$\times$",
    "✓": r"$\surd$",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
# Markup of Markdown, after the backslash itself: cells, elements, links and what they refer to.
_MARKDOWN = {"\\": "\\\\", "|": "\\|", "&": "&amp;", "<": "&lt;", "](": "]\\(", "]:": "]\\:"}


def markdown(sheet: Sheet) -> str:
    """A heading, the table and its notes."""
    notes = [f"- {markdown_text(note)}" for note in sheet.notes]
    return "\n".join([f"### {markdown_text(sheet.title)}\n", markdown_table(sheet.words), "", *notes]) + "\n"


def csv(numbers: pd.DataFrame) -> str:
    """The figures, for pandas and for spreadsheets."""
    safe = {name: column.map(inert) if column.dtype.kind not in "biuf" else column for name, column in numbers.items()}
    return pd.DataFrame(safe, columns=numbers.columns).rename(columns=inert).to_csv(index=False)


def latex(sheet: Sheet) -> str:
    """A `tabular` with the rules of booktabs; words alone, and of Latin letters if it is to go through pdflatex."""
    words = sheet.words.map(_one_line).rename(columns=_one_line)
    columns = "".join("l" if _is_text(keys.tolist()) else "r" for _, keys in sheet.keys.items())
    text: str = words.to_latex(index=False, escape=True, column_format=columns)
    for sign, command in _LATEX.items():
        text = text.replace(sign, command)
    text = re.sub(r"^(?=[\[*])", "{}", text, flags=re.MULTILINE)  # else an option of the line break before it
    notes = "".join(f"% {_one_line(note)}\n" for note in [sheet.title, *sheet.notes])
    return f"{notes}% \\usepackage{{booktabs}}\n{text}"


def markdown_table(table: pd.DataFrame) -> str:
    """The table as Markdown."""
    lines = [[markdown_text(str(cell)) for cell in line] for line in [list(table), *table.to_numpy().tolist()]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * max(width, 3) for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines
    )


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, on one line and in one cell: no element, no link and no picture."""
    text = "".join(sign for sign in text if unicodedata.category(sign) != "Cc" or sign.isspace())
    for special, written in _MARKDOWN.items():
        text = text.replace(special, written)
    return " ".join(text.split())


def inert(cell: Any) -> Any:
    """The cell, with a quote before text that a spreadsheet would take for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip(" ").startswith(_FORMULA) else cell


def _one_line(text: str) -> str:
    """Without control characters and line breaks, which would end a comment or a row."""
    kept = "".join(sign if unicodedata.category(sign)[0] != "C" else " " for sign in text)
    return " ".join(kept.split())


def _is_text(keys: Sequence[Any]) -> bool:
    return any(isinstance(key, str) for key in keys)
