"""Figures and verdicts of a reproduction in words for people."""

import math
import re
from collections.abc import Mapping

from optbench.papers.paper import Check, Origin, Source
from optbench.papers.verdicts import MAX_SEEDS, Judgement, Verdict
from optbench.pictures.scales import plain

MARKS = {
    Verdict.REPRODUCED: "✓",
    Verdict.NOT_REPRODUCED: "✗",
    Verdict.UNDERPOWERED: "?",
    Verdict.NOT_RUN: "\N{EN DASH}",
}
NOTHING = "-"
LEFT_OUT = "left out"
_OF_CLAIMS = {
    Verdict.REPRODUCED: "confirmed",
    Verdict.NOT_REPRODUCED: "refuted",
    Verdict.UNDERPOWERED: "underpowered",
    Verdict.NOT_RUN: "not run",
}
_OF_SAID = {"holds": "confirmed", "does not hold": "refuted", "depends": "depends"}
_ALL_DIVERGED = re.compile(r"(\d+) of \1 diverged")
# In between, numbers are written out.
_SMALL, _LARGE = 1e-4, 1e9
_MOST_DECIMALS = 12


ORIGINS: Mapping[Origin, str] = {"published": "published", "theory": "by theory", "ours": "by us before"}


def cited(source: Source) -> str:
    """Authors and year; of several sources or many authors the first."""
    first, _, others = source.authors.partition(";")
    names = first.replace(" and ", ", ").split(", ")
    shown = f"{names[0]} et al." if len(names) > 3 else first
    return f"{shown}{' and others' if others else ''} ({source.year})"


def figure_words(value: float | str | None, digits: int) -> str:
    """A published figure: with at most so many significant digits, or the word that stands for it."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "never" if value > 0 else plain(value)
    if abs(value) >= 10.0**digits and abs(value) < _LARGE:
        return f"{value:.0f}"
    return plain(value, digits=digits)


def published_words(check: Check, digits: int) -> str:
    """What a source has in a cell: the figure with its spread, a word, or a bound; `-` where it has nothing."""
    known = isinstance(check.published, str) or (check.published is not None and math.isfinite(check.published))
    if known:
        spread = "" if check.spread is None else f" ±{figure_words(check.spread, digits)}"
        return figure_words(check.published, digits) + spread
    if check.diverges:
        return "diverges"
    return NOTHING if check.band is None else check.band.text


def allowed_words(check: Check) -> str:
    """What counts as the same."""
    if check.diverges:
        return "diverges"
    if check.band is None:
        return NOTHING
    return f"exactly {check.band.low:.6g}" if check.band.low == check.band.high else check.band.text


def measured_words(found: Judgement | None, digits: int, *, mark: str = "") -> str:
    """What was measured: the mean with its interval, or what became of the trials; `-` where there is nothing.

    Args:
        found: None where a quick run leaves it out.
        digits: significant ones.
        mark: goes behind the mean, before the interval.
    """
    if found is None:
        return LEFT_OUT
    ending = f" {mark}" if mark else ""
    if found.mean is None:
        if found.num_values == 0 and found.verdict in (None, Verdict.NOT_RUN) and "diverged" not in found.note:
            return mark or NOTHING
        return ("diverged" if _ALL_DIVERGED.fullmatch(found.note) else found.note or NOTHING) + ending
    if not math.isfinite(found.mean):
        return ("never" if found.low is None or not math.isfinite(found.low) else "not by all") + ending
    if found.low is None or found.high is None:
        return figure_words(found.mean, digits) + ending
    mean, low, high = alike([found.mean, found.low, found.high], digits)
    return f"{mean}{ending}" if low == mean == high else f"{mean}{ending} [{low}, {high}]"


def alike(values: list[float], digits: int) -> list[str]:
    """Numbers beside each other with one number of decimals, the largest with so many significant digits."""
    largest = max(map(abs, values))
    if largest and not _SMALL <= largest < _LARGE:
        return [plain(value, digits=digits, is_padded=True) for value in values]
    before = math.floor(math.log10(largest)) + 1 if largest else 1
    decimals = min(max(digits - before, 0), _MOST_DECIMALS)
    return [f"{round(value, decimals) + 0.0:.{decimals}f}" for value in values]


def mark_of(found: Judgement | None) -> str:
    """A sign for the verdict; nothing where there is none."""
    return MARKS[found.verdict] if found and found.verdict else ""


def verdict_words(found: Judgement | None) -> str:
    """The verdict of a cell, with what goes with it; `-` of our own data."""
    if found is None:
        return LEFT_OUT
    return _with_details(found, "" if found.verdict is None else found.verdict.value)


def claim_verdict(found: Judgement | None) -> str:
    """The verdict of a claim in one word: whether what would be measured if it were so was measured."""
    return _OF_CLAIMS[Verdict.NOT_RUN if found is None or found.verdict is None else found.verdict]


def claim_words(found: Judgement | None) -> str:
    """The verdict of a claim, with what goes with it."""
    word = claim_verdict(found)
    return word if found is None else _with_details(found, word)


def said_verdict(word: str) -> str:
    """The verdict of an experiment's claim, in the words of a paper's claims."""
    return _OF_SAID.get(word, "not run")


def more_seeds(found: Judgement) -> str:
    """How many more seeds would tell."""
    if found.more_seeds is None:
        return f"more than {MAX_SEEDS} seeds"
    return f"{found.more_seeds} more seed{'s' if found.more_seeds != 1 else ''}"


def counted(count: int, what: str) -> str:
    """A number of things, as `1 cell` and `2 cells`."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _with_details(found: Judgement, word: str) -> str:
    if not word:
        return found.note or NOTHING
    if found.verdict is Verdict.UNDERPOWERED:
        word = f"{word}: {more_seeds(found)}"
        return f"{word} ({found.note})" if found.note else word
    if found.verdict is Verdict.NOT_RUN:
        return f"{word}: {found.note}" if found.note else word
    return f"{word} ({found.note})" if found.note else word
