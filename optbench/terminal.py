"""What people see of a sweep in a terminal: its progress and its table."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement as Width
from rich.table import Table
from rich.text import Text

from optbench import cells
from optbench.console import console, warn
from optbench.report import Report, report
from optbench.store import Store

_ON_THE_LEFT = frozenset(
    {
        *("", "optimizer", "setting", "failed", "says", "claim", "id", "figure", "verdict"),
        *("row", "column", "source", "command", "paper", "what", "cost"),
    }
)
# Of an experiment with claims, so many are printed; more are in the file alone.
MAX_TABLES = 4


def show_trials(store: Store, ids: Sequence[str]) -> Report:
    """Show and write the table of these trials."""
    found = report(store, ids=ids)
    show(found)
    return found


def show(found: Report, *, svg: Path | None = None) -> None:
    """Print the tables of a report with their notes, and write them beside the results.

    Args:
        found: the report.
        svg: a file for a picture of the same.
    """
    page = console()
    contents = {found.title(task): cells.words(rows) for task, rows in found.tasks.items()}
    asked = found.store.read_plan() or {}
    is_summed_up = len(contents) > MAX_TABLES and bool(asked.get("claims"))
    if is_summed_up:  # by claims, below: nobody reads that many tables
        page.print(f"[dim]{len(contents)} tables, one for each setting of the task: see table.md.[/]")
    for title, content in contents.items() if not is_summed_up else ():
        for part in _fitting(content, title=title, width=page.width):
            page.print(part)
    for note in cells.notes(found.rows, found.index):
        page.print(f"[dim]{escape(note)}[/]")
    for line in found.failures():
        page.print(f"[red]{escape(line)}[/]", soft_wrap=True)
    for path in found.store.quarantined:
        warn(f"{path}: did not hold what was written, and was set aside.")
    if written := [*found.write(), *_findings(found, asked, page)]:
        page.print(f"[dim]Written: {escape(' '.join(map(str, written)))}[/]", soft_wrap=True)
    if svg is not None:
        write_picture(svg, contents)


def write_picture(path: Path, contents: Mapping[str, pd.DataFrame]) -> None:
    """Write an SVG of these tables, by title."""
    path.write_text(_picture([rich_table(content, title=title) for title, content in contents.items()]))


def _findings(found: Report, asked: Mapping[str, Any], page: Console) -> list[Path]:
    """Claims and figures of the experiment that the last command asked for, where its plan has any."""
    if not asked.get("claims") and not asked.get("figures"):
        return []
    from optbench import findings

    try:
        return findings.show(found.store, asked, ids=list(found.index["id"]), page=page)
    except OSError:  # a folder that is read-only shows its table all the same
        return []


def _picture(parts: Sequence[Table]) -> str:
    """The tables as an SVG that asks no other host for a font."""
    picture = Console(record=True, width=max(map(_width, parts)), height=1000, file=io.StringIO())
    for part in parts:
        picture.print(part)
    without_fonts = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return picture.export_svg(title="optbench", code_format=without_fonts)


def _fitting(content: pd.DataFrame, *, title: str, width: int) -> list[Table]:
    """One table, or in a narrow terminal two: what the settings reach, and what they cost."""
    whole = rich_table(content, title=title)
    if _width(whole) <= width:
        return [whole]
    rows = list(content.columns[:3])
    price = [
        name
        for name in content
        if str(name).startswith(("step ", "state (", "optimizer's")) or name in ("peak", "failed")
    ]
    return [rich_table(content.drop(columns=price), title=title), rich_table(content[rows + price], title="cost")]


def _width(table: Table) -> int:
    page = Console(width=1000, height=1000)  # both, or a dumb terminal is taken to be 80 wide
    return Width.get(page, page.options, table).maximum


def rich_table(content: pd.DataFrame, *, title: str) -> Table:
    """The content with a title; what cannot be told from its figures stands on the left."""
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD)
    for name in map(str, content.columns):
        left = name in _ON_THE_LEFT
        heading = name.replace(" (", "\n(")
        table.add_column(heading, justify="left" if left else "right", no_wrap=name in ("", "optimizer"))
    for line in content.itertuples(index=False, name=None):
        style = {"★": "bold green", "=": "green"}.get(str(line[0]))
        table.add_row(*(_cell(str(cell)) for cell in line), style=style)
    return table


def _cell(text: str) -> Text:
    """An estimate goes on two lines, its interval below it."""
    value, bracket, interval = text.partition(" [")
    return Text.assemble(value, (f"\n{bracket.strip()}{interval}", "dim")) if bracket else Text(text)
