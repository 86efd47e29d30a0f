"""What tuning buys: the result to be expected after so many settings, if they are tried in any order.

The best of k settings that are drawn without replacement from the N that were tried has a distribution that is known
exactly: it is at place i or better, in the order from the best to the worst, unless all k are among the other N - i. So
nothing is drawn here, and the band is of what the draw alone decides; that seeds differ is not in it.

Dodge et al., "Show Your Work: Improved Reporting of Experimental Results", 2019, https://arxiv.org/abs/1909.03004, do
this with replacement, which is a little worse for the same effort: the same setting may come twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optbench.contest import Contender, Contest
from optbench.measurement import Status
from optbench.stats import Estimate

LOW_QUANTILE, HIGH_QUANTILE = 0.05, 0.95
LEAST_SETTINGS = 3


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What an optimizer comes to after 1, 2, ... settings, up to all that were tried.

    Attributes:
        optimizer: its name.
        scores: of each setting, the best first: the mean of the first metric over seeds. A setting of which a trial
            failed counts as no training.
        num_failed: settings of which a trial failed.
        expected: mean of the best of k.
        low: the 5th percentile of the best of k.
        high: the 95th.
    """

    optimizer: str
    scores: Sequence[float]
    num_failed: int
    expected: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def efforts(contest: Contest) -> list[Effort]:
    """Of each optimizer with three settings or more, in the contest's order; those without any result aside."""
    known = [mean for row in contest.rows if (mean := _mean(contest, row.metrics)) is not None]
    if contest.start is None and not known:
        return []
    worst = contest.sign * max((contest.sign * mean for mean in known), default=0.0)
    failed = worst if contest.start is None else contest.start
    found = []
    for contender in contest.contenders:
        scores, num_failed = _scores(contest, contender, failed=failed)
        if len(scores) >= LEAST_SETTINGS and num_failed < len(scores):
            expected, low, high = best_of(scores, sign=contest.sign)
            found.append(
                Effort(
                    optimizer=contender.optimizer,
                    scores=sorted(scores, key=lambda score: contest.sign * score),
                    num_failed=num_failed,
                    expected=expected,
                    low=low,
                    high=high,
                )
            )
    return found


def best_of(scores: Sequence[float], *, sign: float) -> tuple[list[float], list[float], list[float]]:
    """Mean and 5th and 95th percentile of the best of 1, 2, ..., N of these scores, drawn without replacement.

    Args:
        scores: at least one, all finite.
        sign: what makes a lower score the better one.

    Returns:
        Three lists, each as long as `scores`; `low` is below `high` whatever the sign.
    """
    ordered = np.sort(sign * np.asarray(scores, dtype=np.float64))
    size = len(ordered)
    places = np.arange(1, size + 1)
    expected, low, high = np.empty(size), np.empty(size), np.empty(size)
    worse = np.ones(size)  # the probability that all that were drawn are worse than place i: C(N - i, k) / C(N, k)
    for drawn in range(size):
        worse = worse * np.maximum(size - places - drawn, 0) / (size - drawn)
        expected[drawn] = ordered @ -np.diff(worse, prepend=1.0)
        low[drawn], high[drawn] = (ordered[_place(worse, level)] for level in (LOW_QUANTILE, HIGH_QUANTILE))
    expected = np.clip(expected, ordered[0], ordered[-1])
    if sign < 0.0:
        low, high = high, low
    return (sign * expected).tolist(), (sign * low).tolist(), (sign * high).tolist()


def _place(worse: NDArray[np.float64], level: float) -> int:
    """The first place at which the probability of being there or better comes to the level."""
    return int(np.argmax(1.0 - worse >= level - 1e-12))


def _scores(contest: Contest, contender: Contender, *, failed: float) -> tuple[list[float], int]:
    scores = []
    num_failed = 0
    finished = [mean for row in contender.rows if (mean := _mean(contest, row.metrics)) is not None]
    # A search gives up what is worse than others by then.
    given_up = max(finished, key=lambda mean: contest.sign * mean, default=failed)
    for row in contender.rows:
        mean = _mean(contest, row.metrics)
        if any(Status(status).failed for status in row.failures) or (mean is None and not row.failures):
            num_failed += 1
            mean = failed
        scores.append(given_up if mean is None else mean)
    return scores, num_failed


def _mean(contest: Contest, metrics: Mapping[str, Estimate]) -> float | None:
    return metrics[contest.metric].mean if contest.metric in metrics else None
