"""A night as Markdown: for the summary of a job of GitHub Actions, and for a terminal."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from optbench.regress import words
from optbench.regress.findings import Answer, Finding, worst_first
from optbench.regress.night import Night
from optbench.writing import markdown_table, markdown_text

# Bytes. GitHub aborts the upload of a larger one, for each step on its own:
# https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands#step-isolation-and-limits
MOST_OF_JOB = 1024 * 1024
MOST_BYTES = 1000 * 1024  # leaves room for what else a step writes
MOST_ROWS = 50  # of each answer
VARIABLE = "GITHUB_STEP_SUMMARY"
_SHOWN = tuple(answer for answer in Answer if answer is not Answer.PASS)
_ORDER = (*(answer for answer in _SHOWN if answer not in (Answer.MISSING, Answer.NEW)), Answer.NEW, Answer.MISSING)
_MOST_LETTERS = {"metric": 200, "why": 400}  # of a cell; what is longer is no name that anyone reads
_CUT = "\n\nThe rest was left out: the summary of a job has no more room.\n"


def summary(night: Night, *, limit: int = MOST_BYTES) -> str:
    """The answer, what it was held against, and a table of each kind of answer, the worst first.

    Args:
        night: to be shown.
        limit: in bytes of UTF-8. The best rows are left out first, and a sentence says how many were.
    """
    findings = [
        finding
        for answer in _ORDER
        for finding in worst_first([one for one in night.findings if one.answer is answer])[:MOST_ROWS]
    ]
    low, high = 0, len(findings)
    while low < high:  # the most rows that fit
        middle = (low + high + 1) // 2
        if _size(_text(night, findings[:middle])) <= limit:
            low = middle
        else:
            high = middle - 1
    return _cut(_text(night, findings[:low]), limit)


def append_to_job_summary(text: str, environ: Mapping[str, str]) -> str | None:
    """Append to the file that `GITHUB_STEP_SUMMARY` names, as far as there is room in it.

    Args:
        text: Markdown.
        environ: of the process; where it does not name a file, nothing is done.

    Returns:
        What went wrong, a sentence to warn with; None where nothing did.
    """
    name = environ.get(VARIABLE)
    if not name:
        return None
    try:
        path = Path(name)
        if path.exists() and not path.is_file():  # to open a pipe would wait for a reader
            return f"The job summary was not written: {VARIABLE} names no file."
        taken = path.stat().st_size if path.exists() else 0
        gap = "\n\n" if taken else ""
        room = MOST_OF_JOB - taken - len(gap)
        if room < min(_size(text), 2 * len(_CUT)):
            return f"The job summary was not written: its file holds {taken:,} bytes, and GitHub takes {MOST_OF_JOB:,}."
        with path.open("ab") as file:
            file.write((gap + _cut(text, room)).encode("utf-8", "replace"))
    except (OSError, ValueError) as error:  # a null byte in a name is a ValueError
        return f"The job summary could not be written: {error}."
    return None


def _text(night: Night, shown: Sequence[Finding]) -> str:
    """Markdown with these findings in the tables."""
    facts = [f"{words.load(night)}", f"took {words.duration(night.seconds)}", f"started {night.started}"]
    parts = [
        f"## {markdown_text(words.headline(night))}",
        f"{markdown_text(words.held_against(night))} Suite {markdown_text(night.suite)}.",
        f"Machine: {markdown_text(night.machine_words)}; {markdown_text(', '.join(facts))}.",
        words.counts(night).capitalize(),
    ]
    for answer in _ORDER:
        own = [finding for finding in shown if finding.answer is answer]
        if not (total := night.count(answer)):
            continue
        parts.append(f"### {words.TITLES[answer]}: {total:,}")
        if own:
            parts.append(markdown_table(pd.DataFrame([_row(finding) for finding in own])))
        if left := total - len(own):
            parts.append(f"{left:,} {'more ' if own else ''}{words.are(answer, left)}, and left out here.")
    return words.whole("\n\n".join(parts) + "\n")


def _row(finding: Finding) -> dict[str, str]:
    unit = words.unit_of(finding)
    row = {
        "metric": finding.name,
        "before": words.number(finding.old, unit),
        "now": words.number(finding.new, unit),
        "ratio [95 %]": words.ratio(finding),
        "A/A control": words.ratio_number(finding.control),
        "why": finding.note,
    }
    for column, most in _MOST_LETTERS.items():
        if len(row[column]) > most:
            row[column] = f"{row[column][: most - 1]}…"
    return {column: words.whole(text) for column, text in row.items()}


def _cut(text: str, limit: int) -> str:
    """The text, or as many of its lines as have room beside a sentence that says so."""
    if _size(text) <= limit:
        return text
    kept = text.encode("utf-8", "replace")[: max(0, limit - _size(_CUT))]
    with suppress(ValueError):
        kept = kept[: kept.rindex(b"\n")]
    return (kept.decode("utf-8", "ignore") + _CUT).encode()[: max(0, limit)].decode("utf-8", "ignore")


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
