"""The tables of a night's page: what came of its metrics, where the history changed, and the nights themselves."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from optbench.pictures.scales import plain
from optbench.regress import words
from optbench.regress.change_points import ChangePoint
from optbench.regress.findings import WORST_FIRST, Answer, Finding, worst_first
from optbench.regress.history import History, Point, Track
from optbench.regress.night import Night
from optbench.sheet import Sheet

CHANGE_POINTS, NIGHTS = "change_points", "nights"
MOST_CHANGES = 200  # on the page; the file has all
MOST_LETTERS = 400  # of a note in a table
Changes = Sequence[tuple[Track, Point, ChangePoint]]
_Rows = Sequence[Mapping[str, tuple[str, Any]]]  # of each column what people read, and what it is sorted by


def of_answer(night: Night, answer: Answer) -> Sheet:
    """All metrics with an answer, the worst first."""
    own = worst_first([finding for finding in night.findings if finding.answer is answer])
    return _findings(own, name=f"answer_{answer.value}", title=words.TITLES[answer])


def of_class(findings: Sequence[Finding], *, name: str, title: str) -> Sheet:
    """All metrics of a class, the worst first."""
    return _findings(worst_first(findings), name=name, title=title)


def of_changes(changes: Changes) -> Sheet:
    """Where the history changed, the latest first and of one night the worst first."""
    ordered = sorted(changes, key=lambda one: (-one[1].night, -(one[2].ratio or math.inf), one[0].name))
    rows: _Rows = [
        {
            "metric": (track.name, track.name),
            "since": (_moment(point.started), point.started),
            "night": (str(point.night), point.night),
            "before": _figure(change.before, words.unit(track.kind, track.figure)),
            "after": _figure(change.after, words.unit(track.kind, track.figure)),
            "ratio": (words.ratio_number(change.ratio), change.ratio),
        }
        for track, point, change in ordered[:MOST_CHANGES]
    ]
    left = len(ordered) - len(rows)
    return _sheet(
        rows,
        name=CHANGE_POINTS,
        title="Where the history changed",
        numbers=[
            {
                "kind": track.kind,
                "subject": track.subject,
                "figure": track.figure,
                "since": point.started,
                "night": point.night,
                "before": change.before,
                "after": change.after,
                "ratio": change.ratio,
            }
            for track, point, change in ordered
        ],
        notes=[f"The {left:,} earliest are in the file alone."] if left else [],
    )


def of_nights(history: History) -> Sheet:
    """The nights, the latest first."""
    numbered = list(enumerate(history.nights, 1))[::-1]
    shown = [answer for answer in Answer if any(night.count(answer) for night in history.nights)]
    rows: _Rows = [
        {
            "": (_mark(night), None),
            "night": (str(number), number),
            "started": (_moment(night.started), night.started),
            **{answer.value: (f"{night.count(answer):,}", night.count(answer)) for answer in shown},
            "load": (" to ".join(plain(one, digits=3) for one in night.load), night.load[0]),
            "took": (words.duration(night.seconds), night.seconds),
            "held against": (_cut(night.against.name), night.against.name),
        }
        for number, night in numbered
    ]
    numbers = [
        {
            "night": number,
            "started": night.started,
            **{answer.value: night.count(answer) for answer in Answer},
            "load_first": night.load[0],
            "load_last": night.load[1],
            "seconds": night.seconds,
            "against_kind": night.against.kind,
            "against": night.against.name,
            "baseline": night.against.state,
            "exit_code": night.exit_code,
        }
        for number, night in numbered
    ]
    return _sheet(rows, name=NIGHTS, title="The nights", numbers=numbers)


def _mark(night: Night) -> str:
    return next(
        (words.MARKS[answer] for answer in (Answer.FAIL, Answer.BROKEN, Answer.UNCOMPARED) if night.count(answer)), ""
    )


def _findings(findings: Sequence[Finding], *, name: str, title: str) -> Sheet:
    has = {
        "figure": len({finding.figure for finding in findings}) > 1,
        "answer": len({finding.answer for finding in findings}) > 1,
        "A/A control": any(finding.control is not None for finding in findings),
        "why": any(finding.note for finding in findings),
    }
    rows: _Rows = [
        {column: cell for column, cell in _cells(finding).items() if has.get(column, True)} for finding in findings
    ]
    figures = dict.fromkeys(finding.figure for finding in findings)
    return _sheet(
        rows,
        name=name,
        title=title if has["figure"] or not figures else f"{title}: {next(iter(figures))}",
        numbers=[_numbers(finding) for finding in findings],
    )


def _cells(finding: Finding) -> dict[str, tuple[str, Any]]:
    unit = words.unit_of(finding)
    place = WORST_FIRST.index(finding.answer)
    return {
        "": (words.MARKS[finding.answer], place),
        "subject": (finding.subject, finding.subject),
        "figure": (finding.figure, finding.figure),
        "answer": (finding.answer.value, f"{place} {finding.answer.value}"),
        "before": _figure(finding.old, unit),
        "now": _figure(finding.new, unit),
        "ratio": (words.ratio(finding), finding.ratio),
        "A/A control": (words.ratio_number(finding.control), finding.control),
        "why": (_cut(finding.note), finding.note),
    }


def _figure(value: float | None, unit: words.Unit) -> tuple[str, float | None]:
    return words.number(value, unit), value


def _cut(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"


def _numbers(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "subject": finding.subject,
        "figure": finding.figure,
        "answer": finding.answer.value,
        "unit": words.unit_of(finding),
        "old": finding.old,
        "new": finding.new,
        "ratio": finding.ratio,
        "ratio_low": finding.low,
        "ratio_high": finding.high,
        "control": finding.control,
        "note": finding.note,
    }


def _moment(started: str) -> str:
    """A label such as `2026-11-28T03:17:00Z`, as `2026-11-28 03:17`."""
    return started.replace("T", " ", 1)[:16]


def _sheet(
    rows: _Rows, *, name: str, title: str, numbers: Iterable[Mapping[str, Any]], notes: Sequence[str] = ()
) -> Sheet:
    columns = list(rows[0]) if rows else []
    texts = [[_whole(cell[0]) for cell in row.values()] for row in rows]
    keys = [[_whole(cell[1]) for cell in row.values()] for row in rows]
    return Sheet(
        name=name,
        title=title,
        words=pd.DataFrame(texts, columns=columns),
        keys=pd.DataFrame(keys, columns=columns, dtype=object),
        numbers=pd.DataFrame([{column: _whole(cell) for column, cell in row.items()} for row in numbers]),
        notes=notes,
    )


def _whole(cell: Any) -> Any:
    return words.whole(cell) if isinstance(cell, str) else cell
