"""What the seeds say: means with bootstrap intervals, and differences seed by seed."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
MAX_ENUMERATED = 6
NUM_RESAMPLES = 2000
# How often the interval of so many normally distributed values holds their true mean: less than 95 % for few.
COVERAGE = {2: 0.50, 3: 0.75, 4: 0.80, 5: 0.84, 6: 0.87}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds with its bootstrap interval; the bounds are None for a single seed."""

    mean: float
    low: float | None
    high: float | None
    num_values: int


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and percentile-bootstrap interval (Efron, 1979) at 95 %.

    Up to six values every resample is enumerated, so the interval is exact; beyond, 2,000 are drawn from a
    fixed seed. With two or three seeds the interval is the range of the values: few seeds cannot say more.

    Args:
        values: one for each seed, at least one, all finite.
    """
    smallest, largest = min(values), max(values)
    mean = min(max(math.fsum(values) / len(values), smallest), largest)  # that of equal values is their value
    if len(values) == 1:
        return Estimate(mean=mean, low=None, high=None, num_values=1)
    if len(values) <= 3:  # each end is one of n^n resamples, more than 2.5 % of them
        return Estimate(mean=mean, low=smallest, high=largest, num_values=len(values))
    weights, probabilities = _resamples(len(values))
    means = np.clip(weights @ np.asarray(values), smallest, largest)
    order = np.argsort(means)
    cumulative = np.cumsum(probabilities[order])
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = means[order[np.searchsorted(cumulative, [tail, 1.0 - tail])]]
    return Estimate(mean=mean, low=float(low), high=float(high), num_values=len(values))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean difference over shared seeds; bounds and p-value are None for a single seed.

    Attributes:
        mean: of the differences.
        low: of the interval at 95 %, by Student's t.
        high: the same.
        p_value: two-sided, of there being no difference.
        num_values: how many seeds are shared.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    num_values: int


def difference(best: Mapping[int, float], other: Mapping[int, float]) -> Difference | None:
    """By how much another setting is above the best one, seed by seed; None where no seed is shared.

    Trials with equal seeds share weights and minibatches, so that a seed that is hard for both tells nothing. The
    interval is that of Student (1908): with three seeds a bootstrap would be the range of the differences, which leaves
    out the true mean one time in four.

    Args:
        best: the better setting's metric by seed.
        other: the other's.
    """
    found = np.asarray([other[seed] - value for seed, value in best.items() if seed in other])
    if not found.size:
        return None
    smallest, largest = float(found.min()), float(found.max())
    mean = min(max(math.fsum(found.tolist()) / found.size, smallest), largest)
    if found.size == 1:
        return Difference(mean=mean, low=None, high=None, p_value=None, num_values=1)
    if smallest == largest:  # each seed says the very same
        return Difference(mean=mean, low=mean, high=mean, p_value=float(mean == 0.0), num_values=found.size)
    from scipy.special import stdtr, stdtrit

    freedom = found.size - 1
    scale = max(abs(smallest), abs(largest))  # the square of a large difference is beyond what a float holds
    error = scale * float((found / scale).std(ddof=1)) / math.sqrt(found.size)
    if not 0.0 < error < math.inf:  # beyond what a float can tell
        return Difference(mean=mean, low=None, high=None, p_value=None, num_values=found.size)
    half = float(stdtrit(freedom, (1.0 + CONFIDENCE) / 2.0)) * error
    p_value = 2.0 * float(stdtr(freedom, -abs(mean) / error))
    return Difference(mean=mean, low=mean - half, high=mean + half, p_value=p_value, num_values=found.size)


def ties(differences: Sequence[Difference | None]) -> list[bool]:
    """For each difference to the best, whether the two cannot be told apart, over all these comparisons.

    Holm's (1979) correction: of many settings that are as good as the best, one in twenty would else be told apart by
    chance alone. A single shared seed ties with an equal value alone, and settings that share no seed never do.
    """
    order = sorted(
        (place for place, found in enumerate(differences) if found is not None and found.p_value is not None),
        key=lambda place: _p_value(differences[place]),
    )
    tied = [found is not None and found.p_value is None and found.mean == 0.0 for found in differences]
    for rank, place in enumerate(order):
        if _p_value(differences[place]) * (len(order) - rank) > 1.0 - CONFIDENCE:
            for other in order[rank:]:
                tied[other] = True
            break
    return tied


def band(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The interval of `estimate` at each point of curves.

    Args:
        values: a row for each seed, a column for each point; NaN where a seed has no value there.

    Returns:
        Lower and upper bounds, NaN where fewer than two seeds have a value.
    """
    num_points = values.shape[1]
    low, high = np.full(num_points, math.nan), np.full(num_points, math.nan)
    present = ~np.isnan(values)
    for pattern in np.unique(present.T, axis=0):
        size = int(pattern.sum())
        if size < 2:
            continue
        points = np.flatnonzero((pattern == present.T).all(axis=1))
        own = values[np.ix_(np.flatnonzero(pattern), points)]
        bounds = own.min(axis=0), own.max(axis=0)
        if size > 3:
            weights, probabilities = _resamples(size)
            means = np.clip(weights @ own, *bounds)
            order = np.argsort(means, axis=0)
            cumulative = np.cumsum(probabilities[order], axis=0)
            tail = (1.0 - CONFIDENCE) / 2.0
            columns = np.arange(len(points))
            bounds = tuple(
                means[order[(cumulative < level).sum(axis=0), columns], columns] for level in (tail, 1.0 - tail)
            )
        low[points], high[points] = bounds
    return low, high


def _p_value(found: Difference | None) -> float:
    return math.inf if found is None or found.p_value is None else found.p_value


@cache
def _resamples(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The weight of each value in each resample, and the probability of each resample."""
    if size > MAX_ENUMERATED:
        counts = np.random.default_rng(0).multinomial(size, np.full(size, 1.0 / size), NUM_RESAMPLES)
        return counts / size, np.full(NUM_RESAMPLES, 1.0 / NUM_RESAMPLES)
    draws = itertools.combinations_with_replacement(range(size), size)
    counts = np.array([np.bincount(draw, minlength=size) for draw in draws])
    orders = [math.factorial(size) / math.prod(map(math.factorial, map(int, row))) for row in counts]
    return counts / size, np.array(orders) / float(size**size)
