"""What the seeds say: means with bootstrap intervals, and ties."""

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


def ties(best: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Whether two settings cannot be told apart on the seeds that they share.

    Trials with equal seeds share weights and minibatches, so it is their differences that are resampled: a
    tie is an interval of the mean difference that holds 0. A single shared seed ties with an equal value
    alone, and settings that share no seed never do.

    Args:
        best: the better setting's metric by seed.
        other: the other's.
    """
    differences = [other[seed] - value for seed, value in best.items() if seed in other]
    if not differences:
        return False
    found = estimate(differences)
    if found.low is None or found.high is None:
        return found.mean == 0.0
    return found.low <= 0.0 <= found.high


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
