"""Where a series of nights changed: by how much, and from when on.

The method is that of Hunter (Fleming et al. 2023, https://arxiv.org/abs/2301.03034): the divisive search of Matteson
and James (2014), with Student's test in Welch's form in place of their permutations, so that the same series has the
same change points each time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_P_VALUE = 0.001
LEAST_NIGHTS = 5  # on each side
LEAST_EFFECT = 0.02  # a part of the value before
# As in Hunter, the search takes what is weaker, too: one change can hide another until both are known.
_SEARCH_FACTOR = 10.0


@dataclass(frozen=True, kw_only=True)
class ChangePoint:
    """One change.

    Attributes:
        place: of the first value after it.
        before: the median between the change before, or the start, and this one; of exact values, the last one.
        after: the median from there to the next change, or to the end; of exact values, the first one.
    """

    place: int
    before: float
    after: float

    @property
    def ratio(self) -> float | None:
        """After over before: above 1 is worse. None where that is no number."""
        return self.after / self.before if self.before else None


def change_points(
    values: Sequence[float],
    *,
    least_effect: float = LEAST_EFFECT,
    least_nights: int = LEAST_NIGHTS,
    most_p_value: float = MOST_P_VALUE,
) -> list[ChangePoint]:
    """Where the level of a noisy series changed, the first change first.

    A slow drift becomes one change or several; a single odd night is none.

    Args:
        values: in the order of the nights, all finite.
        least_effect: what is less is no change, as a part of the median before.
        least_nights: on each side of a change, at least 2.
        most_p_value: what Welch's test between the two sides gives at most. The place of a change is the likeliest of
            many, so that a series without one has a false one more often than this.
    """
    own = np.asarray(values, dtype=float)
    places = _search(own, start=0, least=least_nights, most=_SEARCH_FACTOR * most_p_value)
    while places:  # the weakest goes, until none is too weak
        edges = [0, *places, len(own)]
        sides = [(own[edges[at] : edges[at + 1]], own[edges[at + 1] : edges[at + 2]]) for at in range(len(places))]
        p_values = [math.inf if _effect(*pair) < least_effect else _p_value(*pair) for pair in sides]
        weakest = max(range(len(places)), key=p_values.__getitem__)
        if p_values[weakest] <= most_p_value:
            return [
                ChangePoint(place=place, before=float(np.median(left)), after=float(np.median(right)))
                for place, (left, right) in zip(places, sides, strict=True)
            ]
        del places[weakest]
    return []


def exact_changes(values: Sequence[float]) -> list[ChangePoint]:
    """Where figures without noise changed: wherever one is not the one before it."""
    return [
        ChangePoint(place=place, before=values[place - 1], after=values[place])
        for place in range(1, len(values))
        if values[place] != values[place - 1]
    ]


def _search(values: NDArray[np.float64], *, start: int, least: int, most: float) -> list[int]:
    """The places of changes, sorted: the likeliest one, then those on its left and on its right."""
    if len(values) < 2 * least or values.min() == values.max():
        return []
    place = _likeliest(values, least=least)
    left, right = values[:place], values[place:]
    if _p_value(left, right) > most:
        return []
    return [
        *_search(left, start=start, least=least, most=most),
        start + place,
        *_search(right, start=start + place, least=least, most=most),
    ]


def _likeliest(values: NDArray[np.float64], *, least: int) -> int:
    """Where the two sides are furthest apart, by the energy distance of Matteson and James (2014, equation 5)."""
    size = len(values)
    distances = np.abs(values[:, None] - values[None, :])
    sums = np.zeros((size + 1, size + 1))  # of all distances between values before one place and before another
    sums[1:, 1:] = distances.cumsum(axis=0).cumsum(axis=1)
    best, found = -math.inf, least
    for place in range(least, size - least + 1):
        left, right = place, size - place
        within_left, across = sums[place, place], sums[place, size] - sums[place, place]
        within_right = sums[size, size] - within_left - 2.0 * across
        apart = 2.0 * across / (left * right)
        spread = within_left / (left * (left - 1)) + within_right / (right * (right - 1))
        if (merit := float((apart - spread) * left * right / size)) > best:
            best, found = merit, place
    return found


def _effect(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """How far apart the two medians are, as a part of the first."""
    before, after = float(np.median(left)), float(np.median(right))
    if before == after:
        return 0.0
    return abs(after - before) / abs(before) if before else math.inf


def _p_value(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Of there being no difference of the means, two-sided (Welch, 1947): 0 or 1 where neither side varies."""
    from scipy.special import stdtr

    variances = [0.0 if side.min() == side.max() else float(side.var(ddof=1)) / len(side) for side in (left, right)]
    difference = abs(float(left.mean()) - float(right.mean()))
    error = math.sqrt(sum(variances))
    if not error:
        return float(left[0] == right[0])
    parts = [variance / sum(variances) for variance in variances]
    freedom = 1.0 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, (left, right), strict=True))
    return 2.0 * float(stdtr(freedom, -difference / error))
