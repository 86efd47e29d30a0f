"""A night written down, shown, and sent to where trials are tracked."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from rich.markup import escape

from optbench.console import console, warn
from optbench.folder import Folder
from optbench.parsing import finite
from optbench.regress import history, page, sheets, words
from optbench.regress.findings import Answer, worst_first
from optbench.regress.junit import junit
from optbench.regress.night import Night, as_json
from optbench.regress.summary import append_to_job_summary, summary
from optbench.tracking import Publication, Tracked, publish

RUNS = "runs"
RECORD, JUNIT = "regression.json", "junit.xml"
MAX_LINES = 20
_COLOURS: Mapping[Answer, str] = {
    Answer.FAIL: "red",
    Answer.BROKEN: "red",
    Answer.UNCOMPARED: "yellow",
    Answer.UNKNOWN: "yellow",
    Answer.CHANGED: "yellow",
    Answer.IMPROVED: "green",
}


def clear(folder: Path) -> None:
    """Delete what the last run has written for others to read; its record among the runs stays."""
    for name in (RECORD, JUNIT, f"{page.NAME}.html", f"{page.NAME}.md"):
        (folder / name).unlink(missing_ok=True)


def keep(night: Night, *, folder: Path) -> None:
    """Write the record, among those of earlier nights too, JUnit's file, the page and the job summary.

    Args:
        night: of the suite.
        folder: of the suite.

    Raises:
        OSError: the folder cannot be written to.
    """
    record = json.dumps(finite(as_json(night)), indent=1, allow_nan=False) + "\n"
    name = night.started.replace(":", "")
    Folder(folder / RUNS).write(f"{name}.json", record)
    files = Folder(folder)
    files.write(RECORD, record)
    files.write(JUNIT, junit(night))
    before = history.read(folder / RUNS, suite=night.suite, machine=night.machine)
    page.publish(night, before, folder)
    if mistake := append_to_job_summary(summary(night), os.environ):
        warn(mistake)


def show(night: Night, *, folder: Path) -> None:
    """Print what came of it, the worst first.

    Args:
        night: of the suite.
        folder: where it was written.
    """
    terminal = console()
    colour = {0: "green", 10: "red"}.get(night.exit_code, "yellow")
    telling = [finding for finding in worst_first(night.findings) if finding.answer in _COLOURS]
    for finding in telling[:MAX_LINES]:
        sentence = words.sentence(finding)
        terminal.print(f"[{_COLOURS[finding.answer]}]{finding.answer}[/] {escape(sentence)}", soft_wrap=True)
    if len(telling) > MAX_LINES:
        terminal.print(f"and {len(telling) - MAX_LINES} more, which the page has.")
    terminal.print(escape(words.counts(night)), soft_wrap=True)
    terminal.print(f"{escape(words.held_against(night))} {night.machine_words}, {words.load(night)}.", soft_wrap=True)
    terminal.print(f"[{colour}]{escape(words.headline(night))}[/]", soft_wrap=True)
    written = [folder / name for name in (f"{page.NAME}.html", f"{page.NAME}.md", RECORD, JUNIT)]
    terminal.print(f"[dim]Written: {escape(' '.join(map(str, written)))}[/]", soft_wrap=True)


def track(night: Night, tracked: Tracked, *, folder: Path) -> None:
    """Send the night to where trials are tracked: a point of a history for each metric.

    Args:
        night: of the suite.
        tracked: where.
        folder: where it was written.
    """
    nights = history.read(folder / RUNS, suite=night.suite, machine=night.machine)
    figures: dict[str, float | int | str] = {
        f"{finding.kind}/{finding.name}": finding.new for finding in night.findings if finding.new is not None
    }
    counts = {f"count/{answer.value}": night.count(answer) for answer in Answer}
    publication = Publication(
        name=f"{night.suite} {night.started}",
        kind="nightly",
        group=night.suite,
        config={
            "suite": night.suite,
            "digest": night.digest,
            "against": dict(vars(night.against)),
            "machine": night.machine_words,
            "environment": dict(night.readings.environment),
        },
        figures={**counts, "exit_code": night.exit_code, **figures},
        sheets=[sheets.of_answer(night, answer) for answer in Answer if night.count(answer)],
        files=[folder / name for name in (f"{page.NAME}.html", f"{page.NAME}.md", RECORD, JUNIT)],
        succeeded=night.exit_code == 0,
        folder=folder,
        step=len(nights.nights),
    )
    publish(publication, tracked.logger, allowed=tracked.allowed)
