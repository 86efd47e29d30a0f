"""Answers and figures of a night in words for people."""

import math
from collections.abc import Mapping
from typing import Literal

from optbench.papers.words import counted
from optbench.pictures.scales import plain
from optbench.regress.findings import Answer, Finding, Kind
from optbench.regress.night import Against, Night

NOTHING = "-"
DIGITS = 4
# Bytes, a count of operations, a loss, seconds, or multiples of the time of the calibration kernel.
Unit = Literal["bytes", "count", "loss", "s", "kernels"]
MARKS: Mapping[Answer, str] = {
    Answer.FAIL: "✗",
    Answer.BROKEN: "!",
    Answer.UNCOMPARED: "≠",
    Answer.UNKNOWN: "?",
    Answer.CHANGED: "≠",
    Answer.MISSING: "\N{EN DASH}",
    Answer.NEW: "+",
    Answer.IMPROVED: "↓",  # of every metric, less is better
    Answer.PASS: "✓",
}
# Of an answer: what its metrics are, as a heading.
TITLES: Mapping[Answer, str] = {
    Answer.FAIL: "Worse",
    Answer.BROKEN: "Could not be measured",
    Answer.UNCOMPARED: "Held against nothing",
    Answer.UNKNOWN: "Cannot be told",
    Answer.CHANGED: "Changed, and no worse",
    Answer.MISSING: "No longer asked for",
    Answer.NEW: "New",
    Answer.IMPROVED: "Better",
    Answer.PASS: "The same",
}
# How many are what, in sentences: of one, and of several.
_ARE: Mapping[Answer, tuple[str, str]] = {
    Answer.FAIL: ("is worse", "are worse"),
    Answer.BROKEN: ("could not be measured", "could not be measured"),
    Answer.UNCOMPARED: ("was held against nothing", "were held against nothing"),
    Answer.UNKNOWN: ("cannot be told", "cannot be told"),
    Answer.CHANGED: ("changed and is no worse", "changed and are no worse"),
    Answer.MISSING: ("is no longer asked for", "are no longer asked for"),
    Answer.NEW: ("is new", "are new"),
    Answer.IMPROVED: ("is better", "are better"),
    Answer.PASS: ("is the same", "are the same"),
}
_HEADS = {
    Answer.FAIL: "Regression",
    Answer.BROKEN: "Broken",
    Answer.UNCOMPARED: "Not compared",
    Answer.UNKNOWN: "Unknown",
}
_ENVIRONMENTS = {"git": "the commit", "pins": "the pins", "wheel": "the wheel"}


def headline(night: Night) -> str:
    """The answer in one sentence: the baseline that is not usable, else the worst of what came out."""
    if night.against.state != "there":
        return f"No usable baseline: {baseline_note(night.against)}"
    total = len(night.findings)
    if not total:
        return "Nothing was compared."
    for answer, head in _HEADS.items():
        if count := night.count(answer):
            return f"{head}: {count:,} of {counted(total, 'metric')} {are(answer, count)}."
    if night.count(Answer.NEW) + night.count(Answer.MISSING) == total:
        return f"Nothing could be compared: no metric is on both sides, of {total:,}."
    return f"No regression: none of {counted(total, 'metric')} is worse."


def are(answer: Answer, count: int) -> str:
    """What so many metrics with this answer are, such as `are worse`."""
    return _ARE[answer][count != 1]


def counts(night: Night) -> str:
    """How many metrics have which answer, the worst first."""
    known = [(answer, night.count(answer)) for answer in Answer]
    text = ", ".join(f"{count:,} {are(answer, count)}" for answer, count in known if count)
    return f"{text}." if text else "No metric has an answer."


def baseline_note(against: Against) -> str:
    """What is wrong with a baseline that is not there, a sentence."""
    note = against.note.strip() or f"the state of the stored one is: {against.state}"
    return note if note.endswith((".", "!", "?")) else f"{note}."


def held_against(night: Night) -> str:
    """What the night was held against, a sentence."""
    against = night.against
    if against.kind == "stored":
        if against.state != "there":
            return "It was held against nothing."
        text = f"It was held against the stored baseline: {against.name}"
    else:
        text = f"It was held against {_ENVIRONMENTS[against.kind]} {against.name}, measured beside it"
    text = text if text.endswith(".") else f"{text}."
    return f"{text} {baseline_note(against)}" if against.note.strip() else text


def load(night: Night) -> str:
    """Of the machine, in words."""
    first, last = night.load
    return f"load {plain(first, digits=3)} at the beginning and {plain(last, digits=3)} at the end"


def duration(seconds: float) -> str:
    """How long something took."""
    return f"{seconds:.0f} s" if seconds < 120.0 else f"{seconds / 60.0:.0f} min"


def unit(kind: Kind, figure: str, *, is_beside: bool = False) -> Unit:
    """What a figure is in.

    Args:
        kind: the class of the metric.
        figure: which figure, in words.
        is_beside: both sides were timed beside each other, so that times are seconds.
    """
    if kind == "time":
        return "s" if is_beside else "kernels"
    if kind == "loss":
        return "loss"
    return "bytes" if figure.endswith("bytes") else "count"


def unit_of(finding: Finding) -> Unit:
    """What the figures of a finding are in: of a step that one side alone could time, in kernels."""
    return unit(finding.kind, finding.figure, is_beside=finding.is_beside)


def number(value: float | None, own: Unit) -> str:
    """A figure: bytes and counts exactly, times to four digits in ms or in kernels, losses to four digits.

    Args:
        value: None is `-`.
        own: what it is in.
    """
    if value is None:
        return NOTHING
    if not math.isfinite(value) or own == "loss":
        return plain(value, digits=DIGITS)
    if own == "s":
        return f"{plain(value * 1e3, digits=DIGITS)} ms"
    if own == "kernels":
        return f"{plain(value, digits=DIGITS)} kernels"
    exactly = f"{value:,.0f}" if float(value).is_integer() else f"{value:,}"
    return f"{exactly} B" if own == "bytes" else exactly


def whole(text: str) -> str:
    """The text without halves of characters, such as a message about a file's odd name has: no file can hold them."""
    return text.encode("utf-8", "replace").decode()


def sentence(finding: Finding) -> str:
    """What came of a metric, with its figures and its note, in one line."""
    text = f"{finding.name} {are(finding.answer, 1)}"
    if finding.old is not None and finding.new is not None:
        old, new = (number(value, unit_of(finding)) for value in (finding.old, finding.new))
        text += f": {old} before, {new} now"
        text += "" if finding.ratio is None else f", ratio {ratio(finding)}"
    text = " ".join((f"{text}; {finding.note}" if finding.note else text).split())
    text = text if text.endswith(".") else f"{text}."
    return text[:1].upper() + text[1:]


def ratio(finding: Finding) -> str:
    """New over old with its interval, or with the difference of exact figures."""
    text = ratio_number(finding.ratio)
    if finding.low is not None and finding.high is not None:
        return f"{text} [{ratio_number(finding.low)}, {ratio_number(finding.high)}]"
    if finding.kind == "exact" and finding.old is not None and finding.new is not None:
        difference = finding.new - finding.old
        return f"{text} ({difference:+,.0f})" if math.isfinite(difference) and difference else text
    return text


def ratio_number(value: float | None) -> str:
    """A ratio to three decimals, or to three digits beyond ten; `-` for none."""
    if value is None:
        return NOTHING
    if not math.isfinite(value) or abs(value) >= 10.0:
        return plain(value, digits=3)
    if value != 1.0 and abs(value - 1.0) < 5e-4:  # else it would look as if nothing had changed
        shown = plain(value, digits=8)
        return shown if shown != "1" else "1.000"
    return f"{value:.3f}"
