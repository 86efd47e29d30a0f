"""From a night and those before it to files: the page, its summary, the tables and the pictures, all in one folder."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from optbench import __version__
from optbench.folder import Folder
from optbench.page import Page, Section, render
from optbench.papers.words import counted
from optbench.pictures.picture import Picture
from optbench.regress import drawing, sheets, words
from optbench.regress.change_points import LEAST_NIGHTS, MOST_P_VALUE
from optbench.regress.drawing import Line
from optbench.regress.findings import WORST_FIRST, Answer, Finding, Kind, worst_first
from optbench.regress.history import History
from optbench.regress.night import Night
from optbench.regress.summary import summary
from optbench.writing import csv

NAME = "regression"
MOST_NAMED = 6  # metrics that are worse, in sentences
MOST_FAILURES = 12
_METHOD = (
    f"A level changed where Welch's test between the nights before and after gives p at most {MOST_P_VALUE:g}, with "
    f"{LEAST_NIGHTS} nights or more on each side, so that a change is seen after so many nights at the earliest. Of a "
    "hundred noisy metrics that did not change, one to three show a change by chance. Exact figures changed wherever "
    "the number is another one. What the suite asked differently in earlier nights is left out."
)
_KERNELS = (
    "A time is a multiple of the calibration kernel's in the same process, in kernels; in ms where both sides were "
    "measured beside each other."
)
_CLASSES: Mapping[Kind, tuple[str, str]] = {
    "exact": ("Exact figures", "Whole numbers that no noise changes: any other number is a change."),
    "loss": ("Losses", "Of trainings, over seeds."),
    "time": ("Times", "Of a step, held against the noise that the same code shows beside itself (A/A control)."),
}


def publish(night: Night, history: History, folder: Path) -> Path:
    """Write the page, the summary, the tables and the pictures.

    Args:
        night: to be shown.
        history: of its suite and machine, with or without this night.
        folder: made where it is not there.

    Returns:
        The page to open.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    history = history.joined(night)
    lines = _lines(night, history)
    pictures = [one for kind in _CLASSES if (one := drawing.picture(kind, lines, history)) is not None]
    page = Page(
        title=f"Nightly regression: {night.suite}",
        summary=list(_facts(night)),
        warnings=[words.headline(night)] if night.against.state != "there" else [],
        sections=[_verdict(night), *_classes(night), _history(history, lines, pictures), *_nights(history)],
        version=__version__,
    )
    kept = Folder(folder)
    for picture in pictures:
        kept.write(f"figures/{picture.name}.svg", picture.svg)
        kept.write(f"figures/{picture.name}.csv", csv(picture.numbers))
    for section in page.sections:
        for sheet in section.sheets:
            kept.write(f"tables/{sheet.name}.csv", csv(sheet.numbers))
    written = kept.write(f"{NAME}.html", render(page))
    kept.write(f"{NAME}.md", summary(night).encode("utf-8", "replace"))
    kept.close()
    return written


def _lines(night: Night, history: History) -> list[Line]:
    """Every metric over the nights, with its changes."""
    worse = {(finding.name, night.started) for finding in night.findings if finding.answer is Answer.FAIL}
    return [
        Line(track=track, changes=track.changes(), is_worse=(track.name, track.points[-1].started) in worse)
        for track in history.tracks()
    ]


def _facts(night: Night) -> Iterator[str]:
    yield counted(len(night.findings), "metric")
    yield from (
        f"{night.count(answer):,} {answer.value}" for answer in Answer if night.count(answer) and answer != Answer.PASS
    )
    yield night.machine_words
    yield words.load(night)
    yield f"started {night.started}"
    yield f"took {words.duration(night.seconds)}"


def _verdict(night: Night) -> Section:
    worse = worst_first([finding for finding in night.findings if finding.answer is Answer.FAIL])
    answers = [words.headline(night)]
    answers += [words.sentence(finding) for finding in worse[:MOST_NAMED]]
    if len(worse) > MOST_NAMED:
        answers.append(f"{len(worse) - MOST_NAMED:,} more are worse, which the table has.")
    shown = [answer for answer in WORST_FIRST if answer is not Answer.PASS and night.count(answer)]
    failures = list(night.readings.failures.items())
    remarks = [f"{subject}: {reason}" for subject, reason in failures[:MOST_FAILURES]]
    if len(failures) > MOST_FAILURES:
        remarks.append(f"{counted(len(failures) - MOST_FAILURES, 'more subject')} could not be measured.")
    return Section(
        id="verdict",
        heading="Verdict",
        label_reason=words.held_against(night),
        answers=answers,
        sheets=[sheets.of_answer(night, answer) for answer in shown],
        remarks=["What could not be measured:", *remarks] if remarks else [],
    )


def _classes(night: Night) -> Iterator[Section]:
    """A section for each class of metrics that there is."""
    for kind, (heading, what) in _CLASSES.items():
        own = [finding for finding in night.findings if finding.kind == kind]
        if own:
            yield Section(
                id=kind,
                heading=heading,
                label_reason=f"{what} {_counts(own)}",
                remarks=[_KERNELS] if any(words.unit_of(one) == "kernels" for one in own) else [],
                sheets=[sheets.of_class(own, name=kind, title=f"All {len(own):,} metrics")],
            )


def _counts(findings: Sequence[Finding]) -> str:
    known = {answer: sum(finding.answer is answer for finding in findings) for answer in WORST_FIRST}
    text = ", ".join(f"{count:,} {words.are(answer, count)}" for answer, count in known.items() if count)
    return f"Of {len(findings):,}, {text}."


def _history(history: History, lines: Sequence[Line], pictures: Sequence[Picture]) -> Section:
    changes = [(line.track, point, change) for line in lines for point, change in line.changes]
    is_first = len(history.nights) < drawing.LEAST_NIGHTS
    return Section(
        id="history",
        heading="History",
        answers=["There is no history yet: this is the first night on this machine."]
        if is_first
        else [_failed(history), _changes(changes, lines)],
        sheets=[sheets.of_changes(changes)] if changes else [],
        pictures=pictures,
        remarks=[*_remarks(history), *([] if is_first else [_METHOD])],
    )


def _nights(history: History) -> Iterator[Section]:
    if len(history.nights) >= drawing.LEAST_NIGHTS:
        yield Section(id="nights", heading="Nights", sheets=[sheets.of_nights(history)])


def _failed(history: History) -> str:
    first, last = (night.started[:10] for night in (history.nights[0], history.nights[-1]))
    failed = history.failed()
    text = f"{counted(len(history.nights), 'night')} on this machine, {first} to {last}: "
    if not failed:
        return f"{text}in none was a metric worse."
    return f"{text}in {len(failed):,} a metric was worse, the last on {failed[-1].started[:10]}."


def _changes(changes: sheets.Changes, lines: Sequence[Line]) -> str:
    if not changes:
        return f"None of {counted(len(lines), 'metric')} changed its level."
    num_changed = len({track.name for track, _, _ in changes})
    last = max(point.night for _, point, _ in changes)
    own = [one for one in changes if one[1].night == last]
    track, point, change = max(own, key=lambda one: (one[2].ratio or 0.0, one[0].name))
    ratio = "" if change.ratio is None else f", {words.ratio_number(change.ratio)} times what it was"
    more = f" and {counted(len(own) - 1, 'other')}" if len(own) > 1 else ""
    text = f"{num_changed:,} of {counted(len(lines), 'metric')} changed, the last since {point.started[:10]}"
    return f"{text}: {track.name}{ratio}{more}."


def _remarks(history: History) -> Iterator[str]:
    if history.num_unreadable:
        yield f"Passed over, for they are no nights that can be read: {counted(history.num_unreadable, 'file')}."
    if history.num_elsewhere:
        yield f"Passed over, for they are of another machine or suite: {counted(history.num_elsewhere, 'night')}."
