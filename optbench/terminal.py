"""What people see of a sweep in a terminal: its progress and its table."""

import io
import re
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pandas as pd
from rich import box
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement as Width
from rich.progress import (
    BarColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from optbench import cells
from optbench.console import console, warn
from optbench.measurement import Measurement, Status
from optbench.report import Report, report
from optbench.store import Store
from optbench.trial import Trial

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """The progress of a sweep: a live bar with the time left, or plain lines where the output is no terminal.

    Args:
        trials: those to run.
        num_stored: those that are in the store already.
        num_merged: overrides that spelt a trial once more.
        store: where results go.
    """

    def __init__(self, trials: Sequence[Trial], *, num_stored: int, num_merged: int, store: Store) -> None:
        self._console = console()
        self._num_trials = len(trials)
        self._num_done = 0
        self._last_line = time.monotonic()
        self._started = time.monotonic()
        stored = f", {num_stored} stored already" if num_stored else ""
        merged = f", {num_merged} duplicate{'s' * (num_merged > 1)} merged" if num_merged else ""
        what = f"{len(trials)} trial{'s' * (len(trials) > 1)} to run" if trials else "nothing to run"
        self._console.print(f"{store.folder}: {what}{stored}{merged}.", soft_wrap=True)
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[done]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal or not trials,
        )
        self._task = self._bar.add_task("", total=max(len(trials), 1), done=f"0/{len(trials)}")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, trial: Trial) -> None:
        """A trial begins."""
        self._bar.update(self._task, description=escape(trial.title))

    def measured(self, trial: Trial, measurement: Measurement) -> None:
        """A trial has measured: the bar moves by the part of its budget that is spent."""
        by_steps = measurement.step / trial.budget.num_steps if trial.budget.num_steps else 0.0
        by_seconds = measurement.seconds / trial.budget.seconds if trial.budget.seconds else 0.0
        part = min(max(by_steps, by_seconds), 1.0)
        self._bar.update(self._task, completed=self._num_done + part)
        if not self._console.is_terminal and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._line(f"{trial.title}: step {measurement.step}", self._num_done + part)

    def finished(self, trial: Trial, status: Status, reason: str | None) -> None:
        """A trial has ended and is stored."""
        self._num_done += 1
        self._bar.update(self._task, completed=self._num_done, done=f"{self._num_done}/{self._num_trials}")
        if not status.succeeded:
            why = f": {reason.splitlines()[0]}" if reason else ""
            self._console.print(f"[red]{status}[/] {escape(trial.title)}{escape(why)}", soft_wrap=True)
        if not self._console.is_terminal:
            self._line(f"{trial.title}: {status}", self._num_done)

    def _line(self, text: str, completed: float) -> None:
        self._last_line = time.monotonic()
        left = (self._last_line - self._started) / completed * (self._num_trials - completed) if completed else 0.0
        self._console.print(
            f"[{self._num_done}/{self._num_trials}] {escape(text)}, {left:.0f} s left".replace("[", "\\[", 1)
        )


def show_trials(store: Store, ids: Sequence[str]) -> int:
    """Show and write the table of these trials; returns how many of them failed."""
    found = report(store, ids=ids)
    show(found)
    return found.num_failed


def show(found: Report, *, svg: Path | None = None) -> None:
    """Print the tables of a report with their notes, and write them beside the results.

    Args:
        found: the report.
        svg: a file for a picture of the same.
    """
    page = console()
    contents = {found.title(task): cells.words(rows) for task, rows in found.tasks.items()}
    for title, content in contents.items():
        for part in _fitting(content, title=title, width=page.width):
            page.print(part)
    for note in cells.notes(found.rows, found.index):
        page.print(f"[dim]{escape(note)}[/]")
    for line in found.failures():
        page.print(f"[red]{escape(line)}[/]", soft_wrap=True)
    for path in found.store.quarantined:
        warn(f"{path}: did not hold what was written, and was set aside.")
    if written := found.write():
        page.print(f"[dim]Written: {escape(' '.join(map(str, written)))}[/]", soft_wrap=True)
    if svg is not None:
        svg.write_text(_picture([_table(content, title=title) for title, content in contents.items()]))


def _picture(parts: Sequence[Table]) -> str:
    """The tables as an SVG that asks no other host for a font."""
    picture = Console(record=True, width=max(map(_width, parts)), height=1000, file=io.StringIO())
    for part in parts:
        picture.print(part)
    without_fonts = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return picture.export_svg(title="optbench", code_format=without_fonts)


def _fitting(content: pd.DataFrame, *, title: str, width: int) -> list[Table]:
    """One table, or in a narrow terminal two: what the settings reach, and what they cost."""
    whole = _table(content, title=title)
    if _width(whole) <= width:
        return [whole]
    rows = list(content.columns[:3])
    price = [name for name in content if str(name).startswith(("step (", "state (")) or name in ("peak", "failed")]
    return [_table(content.drop(columns=price), title=title), _table(content[rows + price], title="cost")]


def _width(table: Table) -> int:
    page = Console(width=1000, height=1000)  # both, or a dumb terminal is taken to be 80 wide
    return Width.get(page, page.options, table).maximum


def _table(content: pd.DataFrame, *, title: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in map(str, content.columns):
        left = name in ("", "optimizer", "setting", "failed")
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
