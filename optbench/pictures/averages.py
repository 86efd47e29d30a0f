"""The mean curve of a setting over its seeds, with its band, and where trials ended early."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optbench.curves import Curve
from optbench.measurement import Status
from optbench.stats import band

MOST_POINTS = 101
CLOCKS = ("step", "seconds", "gradient_evaluations")

_Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class End:
    """Where the curve of a trial that failed ends.

    Attributes:
        seed: of the trial.
        status: how it ended.
        clocks: step, seconds and gradient evaluations of its last finite value.
        value: that value.
    """

    seed: int
    status: Status
    clocks: Mapping[str, float]
    value: float


@dataclass(frozen=True, kw_only=True)
class Average:
    """One column of the curves of a setting, over seeds.

    Attributes:
        clocks: steps, and the means of seconds and of gradient evaluations over the seeds that run at each point; NaN
            where no curve has them.
        mean: over the seeds that run at each point.
        low: of the interval over these seeds; NaN for a single one.
        high: the same.
        num_seeds: that run at each point.
        ends: of the trials that failed, by seed.
        is_thinned: whether points were left out, evenly, for there were more than `MOST_POINTS`.
    """

    clocks: Mapping[str, _Values]
    mean: _Values
    low: _Values
    high: _Values
    num_seeds: NDArray[np.int64]
    ends: Sequence[End]
    is_thinned: bool

    @property
    def is_single(self) -> bool:
        """Whether no point has an interval."""
        return bool(np.isnan(self.low).all())


def average(curves: Sequence[Curve], column: str) -> Average | None:
    """The mean of a column over these curves, at the steps of the longest one; None where none has a finite value.

    A curve counts from its first to its last finite value, and between its own steps along a straight line. So a trial
    that failed takes part until it fails.

    Args:
        curves: of one setting.
        column: of the curves.
    """
    known = [(curve, *_finite(curve, column)) for curve in curves]
    known = [(curve, places, values) for curve, places, values in known if len(places)]
    if not known:
        return None
    longest = max(known, key=lambda one: (one[0].status.succeeded, _clock(one[0], "step", one[1])[-1], len(one[1])))
    steps = _clock(longest[0], "step", longest[1])
    is_thinned = len(steps) > MOST_POINTS
    if is_thinned:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, MOST_POINTS).round().astype(int))]
    matrix = np.array([_at(steps, _clock(curve, "step", places), values) for curve, places, values in known])
    runs = ~np.isnan(matrix)
    low, high = band(matrix)
    clocks = {"step": steps}
    for name in CLOCKS[1:]:
        rows = [
            _at(steps, _clock(curve, "step", places), _clock(curve, name, places)) if name in curve.columns else None
            for curve, places, _ in known
        ]
        clocks[name] = _mean(np.array([np.full(len(steps), math.nan) if row is None else row for row in rows]))
    return Average(
        clocks=clocks,
        mean=_mean(matrix),
        low=low,
        high=high,
        num_seeds=runs.sum(axis=0),
        ends=[_end(curve, places, values) for curve, places, values in known if not curve.status.succeeded],
        is_thinned=is_thinned,
    )


def _finite(curve: Curve, column: str) -> tuple[NDArray[np.int64], _Values]:
    values = np.asarray(curve.columns.get(column, ()), dtype=np.float64)
    places = np.flatnonzero(np.isfinite(values))
    return places, values[places]


def _clock(curve: Curve, name: str, places: NDArray[np.int64]) -> _Values:
    return np.asarray(curve.columns[name], dtype=np.float64)[places]


def _at(steps: _Values, own: _Values, values: _Values) -> _Values:
    """The values at these steps; NaN before the first and after the last of the curve's own."""
    return np.asarray(np.interp(steps, own, values, left=math.nan, right=math.nan))


def _mean(matrix: _Values) -> _Values:
    """Over rows, those that are NaN aside; NaN where all are."""
    counts = (~np.isnan(matrix)).sum(axis=0)
    sums = np.nansum(matrix, axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), math.nan)


def _end(curve: Curve, places: NDArray[np.int64], values: _Values) -> End:
    last = int(places[-1])
    clocks = {name: float(curve.columns[name][last]) if name in curve.columns else math.nan for name in CLOCKS}
    return End(seed=curve.seed, status=curve.status, clocks=clocks, value=float(values[-1]))
