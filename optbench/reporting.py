"""`optbench report`: reads stores, prints the tables, and writes the page, the tables and the pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from optbench import filters, terminal
from optbench.analysis import Analysis, analyse
from optbench.console import console, warn
from optbench.errors import UsageError
from optbench.failures import FAILED
from optbench.gathering import Gathered, gather
from optbench.publication import Publication, publish
from optbench.report import report
from optbench.sheets import best

if TYPE_CHECKING:
    from optbench.tracking import Tracked

FOLDER = "report"
MAX_NOTES = 12
MAX_ROWS = 100  # of the table of a sweep; with more, each optimizer's best setting is printed
MAX_TABLES = 6  # tasks of which the tables are printed


def split(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Folders and filters: what holds a `=` is a filter, unless there is a folder of that name."""
    folders, lines = [], []
    for word in words:
        name = word.removeprefix("results=")
        if name != word or "=" not in word or Path(word).exists():
            folders.append(Path(name))
        else:
            lines.append(word)
    return folders or [Path("results")], lines


def make_report(
    words: Sequence[str],
    *,
    everything: bool,
    out: Path | None,
    svg: Path | None,
    tracked: "Tracked | None" = None,
) -> None:
    """Print and write a report.

    Args:
        words: folders and filters.
        everything: every stored trial, not those of the last command of each sweep alone.
        out: where to write; None is `report` in the folder named first.
        svg: a file for a picture of the tables that are printed.
        tracked: where the tables and the page are tracked, too.

    Raises:
        UsageError: there is nothing to report, or the folder cannot be written to.
    """
    folders, lines = split(words)
    conditions = filters.parse(lines)
    out = out if out is not None else folders[0] / FOLDER
    page = console(stderr=True)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=page, transient=True, disable=not page.is_terminal) as bar:
        task = bar.add_task("reading", total=None)
        gathered = gather(
            folders,
            everything=everything,
            conditions=conditions,
            progress=lambda what: bar.update(task, description=what),
        )
        bar.update(task, description=f"comparing {len(gathered.index)} trials")
        analysis = analyse(gathered)
        bar.stop()
        _print(gathered, analysis, everything=everything, svg=svg)
        bar.start()
        try:
            written = publish(
                analysis,
                out,
                progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
            )
        except OSError as error:
            raise UsageError(
                f"{error.filename or out}: {error.strerror}. The report goes to {out}; name another folder with --out."
            ) from error
    stdout = console()
    for line in written.answers:
        stdout.print(escape(line), soft_wrap=True)
    stdout.print(
        f"[bold]{escape(str(written.page))}[/] [dim]and {written.num_files - 1} files beside it[/]", soft_wrap=True
    )
    if tracked is not None:
        _track(analysis, written, tracked=tracked, lines=lines)


def _track(analysis: Analysis, written: Publication, *, tracked: "Tracked", lines: Sequence[str]) -> None:
    """Send what was written to where it is tracked."""
    from optbench import tracking

    gathered = analysis.gathered
    sweeps = [store.sweep for store in gathered.stores]
    what = " ".join(["report", *sweeps, *lines])
    tracking.publish(
        tracking.Publication(
            name=what,
            kind="report",
            group=sweeps[0] if len(sweeps) == 1 else None,
            config={"sweeps": sweeps, "filters": list(lines)},
            figures={
                "trials": len(gathered.index),
                "failed": int(gathered.index["status"].isin(FAILED).sum()),
                "tasks": len(analysis.contests),
            },
            sheets=analysis.all_sheets(),
            files=[written.page],
            succeeded=True,
            folder=written.page.parent,
        ),
        tracked.logger,
        allowed=tracked.allowed,
    )


def _print(gathered: Gathered, analysis: Analysis, *, everything: bool, svg: Path | None) -> None:
    """The table of the sweep; of several, or of a part, each optimizer's best setting."""
    page = console()
    for path in (path for store in gathered.stores for path in store.quarantined):
        warn(f"{path}: did not hold what was written, and was set aside.")
    num_rows = sum(len(contest.rows) for contest in analysis.contests)
    if len(gathered.stores) == 1 and not gathered.is_filtered and num_rows <= MAX_ROWS:
        terminal.show(report(gathered.stores[0], everything=everything), svg=svg)
        _remark(gathered)
        return
    sheets = [best(contest, slug=analysis.slugs[contest.task]) for contest in analysis.contests]
    if len(sheets) > MAX_TABLES:
        page.print(f"[dim]{len(sheets)} tasks: their tables are in the report.[/]")
    for sheet in sheets if len(sheets) <= MAX_TABLES else ():
        page.print(terminal.rich_table(sheet.words, title=sheet.title))
        for note in sheet.notes[:MAX_NOTES]:
            page.print(f"[dim]{escape(note)}[/]", soft_wrap=True)
    _remark(gathered)
    if svg is not None:
        terminal.write_picture(svg, {sheet.title: sheet.words for sheet in sheets})


def _remark(gathered: Gathered) -> None:
    """What is not in the report, on standard error."""
    for remark in gathered.remarks:
        warn(remark)
