"""What measured values say of a band in which they should lie: inside it, outside it, or not to be told yet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from optbench.papers.paper import Band
from optbench.stats import CONFIDENCE

MAX_SEEDS = 1000


class Verdict(StrEnum):
    """Of a cell, and of a paper."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    UNDERPOWERED = "underpowered"
    NOT_RUN = "not run"


# What outweighs what, in a paper and where several are named.
WORST_FIRST = (Verdict.NOT_REPRODUCED, Verdict.UNDERPOWERED, Verdict.NOT_RUN, Verdict.REPRODUCED)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A mean with its interval, and what that says.

    Attributes:
        verdict: None where there was nothing to hold it against.
        mean: over seeds; None where nothing was measured.
        low: of Student's interval at 95 %; None with a single seed, and where no seed changes the value.
        high: the same.
        num_values: how many seeds.
        more_seeds: how many more would tell, where it is underpowered; None where that cannot be said or is too many.
        note: what else is to be said of it.
    """

    verdict: Verdict | None
    mean: float | None
    low: float | None
    high: float | None
    num_values: int
    more_seeds: int | None = None
    note: str = ""


def judge(values: Sequence[float], band: Band | None, *, is_exact: bool) -> Judgement:
    """Hold values against a band, as in tests of equivalence (Schuirmann, 1987).

    Reproduced: Student's (1908) interval for the mean at 95 % lies within the band. Not reproduced: the whole interval
    lies outside. Underpowered: it has an end on each side, so that these seeds cannot tell.

    Args:
        values: one for each seed, at least one.
        band: where the mean should lie; None gives no verdict.
        is_exact: no seed changes the value, so that one says it all.
    """
    first = values[0]
    if all(_are_equal(value, first) for value in values) and (is_exact or len(values) > 1):
        verdict = None if band is None else _of_point(first, band)
        return Judgement(verdict=verdict, mean=first, low=None, high=None, num_values=len(values))
    if not all(map(math.isfinite, values)):  # some never got there: no mean, but a finding
        verdict = None if band is None else Verdict.REPRODUCED
        if band is not None and not all(value in band for value in values):
            verdict = Verdict.NOT_REPRODUCED
        return Judgement(
            verdict=verdict, mean=math.inf, low=min(values), high=max(values), num_values=len(values), note="not in all"
        )
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        verdict = None if band is None else Verdict.UNDERPOWERED
        note = "" if band is None else "a single seed has no spread"
        return Judgement(verdict=verdict, mean=mean, low=None, high=None, num_values=1, more_seeds=2, note=note)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = half_width(deviation, len(values))
    low, high = mean - half, mean + half
    if band is None:
        return Judgement(verdict=None, mean=mean, low=low, high=high, num_values=len(values))
    if band.low <= low and high <= band.high:
        verdict = Verdict.REPRODUCED
    elif high < band.low or low > band.high:
        verdict = Verdict.NOT_REPRODUCED
    else:
        verdict = Verdict.UNDERPOWERED
    more = None
    if verdict is Verdict.UNDERPOWERED:
        margin = min(abs(mean - edge) for edge in (band.low, band.high))
        needed = seeds_needed(deviation, margin, at_least=len(values) + 1)
        more = None if needed is None else needed - len(values)
    return Judgement(verdict=verdict, mean=mean, low=low, high=high, num_values=len(values), more_seeds=more)


def half_width(deviation: float, num_values: int) -> float:
    """Half of Student's interval at 95 % for the mean of so many values with this standard deviation."""
    from scipy.special import stdtrit

    return float(stdtrit(num_values - 1, (1.0 + CONFIDENCE) / 2.0)) * deviation / math.sqrt(num_values)


def seeds_needed(deviation: float, margin: float, *, at_least: int) -> int | None:
    """With how many seeds the interval would be narrow enough, if mean and spread stay; None beyond a thousand."""
    return next((count for count in range(at_least, MAX_SEEDS + 1) if half_width(deviation, count) <= margin), None)


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """Of a paper, from its cells: one that is not reproduced, and the paper is not; the same with what cannot be told.

    Args:
        verdicts: of all cells that are held against something.
    """
    return next((verdict for verdict in WORST_FIRST if verdict in verdicts), Verdict.NOT_RUN)


def _are_equal(value: float, other: float) -> bool:
    """But for rounding."""
    return value == other or math.isclose(value, other, rel_tol=1e-12)


def _of_point(value: float, band: Band) -> Verdict:
    return Verdict.REPRODUCED if value in band else Verdict.NOT_REPRODUCED
