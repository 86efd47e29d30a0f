"""From stored trials to a number for each seed."""

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optbench.claims import FIGURES, figure_of, sizes_of
from optbench.curve_claims import SUCCESSES, Record, column, grouped, matching
from optbench.measurement import Status
from optbench.papers.paper import Measure, Reduction

_Points = Sequence[tuple[Any, float]]
MIN_POINTS = 3  # along and across a valley, or its exponent would be that of the grid


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What trials say.

    Attributes:
        values: by seed; infinite where a target was not reached.
        num_trials: how many there are, whatever became of them.
        statuses: of those that did not succeed, each with how many.
        without_value: seeds whose trials succeeded and have no such figure.
        pooled: the figure of the means over seeds, whose jackknife the values are; None where each seed has its own.
    """

    values: Mapping[int, float]
    num_trials: int
    statuses: Mapping[str, int]
    without_value: Sequence[int]
    pooled: float | None = None

    @property
    def num_diverged(self) -> int:
        """How many of the trials diverged."""
        return self.statuses.get(Status.DIVERGED, 0)

    @property
    def num_failed_otherwise(self) -> int:
        """How many crashed, ran out of time or of memory, which says nothing of the optimizer."""
        return sum(self.statuses.values()) - self.num_diverged


def measured(measure: Measure, records: Sequence[Record]) -> Measured:
    """The figure by seed.

    Args:
        measure: which, and of which trials.
        records: of all trials of the paper that there are.
    """
    sides = [measure] if measure.against is None else [measure, measure.against]
    involved = {id(record): record for side in sides for record in matching(records, side.where)}
    trials = list(involved.values())
    pooled = None
    if measure.reduction is not None and measure.reduction.of == "mean":
        pooled, values = _jackknife(measure, trials)
    else:
        values = {int(seed): _figure(measure, own) for seed, own in grouped(trials, "seed")}
    failed = [record["status"] for record in trials if record["status"] not in SUCCESSES]
    succeeded = set.intersection(  # on both sides, where there are two
        *(
            {record["config"]["seed"] for record in matching(trials, side.where) if record["status"] in SUCCESSES}
            for side in sides
        )
    )
    return Measured(
        values={seed: value for seed, value in values.items() if not math.isnan(value)},
        num_trials=len(trials),
        statuses={status: failed.count(status) for status in dict.fromkeys(failed)},
        without_value=[seed for seed, value in values.items() if math.isnan(value) and seed in succeeded],
        pooled=pooled,
    )


def _figure(measure: Measure, trials: Sequence[Record]) -> float:
    """The figure of these trials, compared with another of them where that is asked; NaN where one is missing."""
    value = _of_trials(measure, matching(trials, measure.where))
    if measure.against is None or measure.comparison is None:
        return value
    other = _of_trials(measure.against, matching(trials, measure.against.where))
    return _compared(value, other, measure.comparison)


def _of_all_seeds(records: Sequence[Record], reduction: Reduction) -> list[Record]:
    """The trials of settings that did well with every seed: a mean over some of them is another figure."""
    num_seeds = len({record["config"]["seed"] for record in records})
    ended = [record for record in records if record["status"] in SUCCESSES]
    return [
        record
        for _, along in grouped(ended, reduction.along)
        for _, own in (grouped(along, reduction.across) if reduction.across else [(None, along)])
        if len({one["config"]["seed"] for one in own}) == num_seeds
        for record in own
    ]


def _jackknife(measure: Measure, trials: Sequence[Record]) -> tuple[float, dict[int, float]]:
    """The figure of the means over seeds, and values by seed that have it for their mean and the jackknife's spread.

    Those are Tukey's pseudo-values without the correction for bias, which for a place on a grid is worse than none.
    """
    assert measure.reduction is not None
    sides = [measure] if measure.against is None else [measure, measure.against]
    kept = {
        id(record): record
        for side in sides
        for record in _of_all_seeds(matching(trials, side.where), side.reduction or measure.reduction)
    }
    records = list(kept.values())
    figure = _figure(measure, records)
    seeds = sorted({int(record["config"]["seed"]) for record in records})
    if len(seeds) < 2:
        return figure, dict.fromkeys(seeds, figure)
    without = {
        seed: _figure(measure, [record for record in records if record["config"]["seed"] != seed]) for seed in seeds
    }
    middle = statistics.fmean(without.values())
    return figure, {seed: figure + (len(seeds) - 1) * (middle - other) for seed, other in without.items()}


def value_of(measure: Measure, record: Record) -> float:
    """The figure of one trial; NaN where it has none."""
    name = measure.figure or ""
    summary, curve = record["summary"], record["curve"]
    if name in FIGURES:
        sizes = sizes_of(record)
        return math.nan if sizes is None else figure_of(sizes, name)
    if name in ("steps_to_target", "seconds_to_target"):
        value = summary.get(name)
        return float(value) if value is not None else math.inf if record["status"] in SUCCESSES else math.nan
    if name not in curve:
        value = summary.get(name)
        return float(value) if isinstance(value, (int, float)) else math.nan
    low, high = measure.steps or (0, math.inf)
    points = [
        (step, value)
        for step, value in zip(curve["step"], column(record, name), strict=True)
        if low <= step <= high and not math.isnan(value)
    ]
    if not points:
        return math.nan
    if isinstance(measure.at, int):
        return next((value for step, value in points if step == measure.at), math.nan)
    values = [value for _, value in points]
    if measure.at == "mean":
        return statistics.fmean(values)
    return {"last": values[-1], "first": values[0], "min": min(values), "max": max(values)}[measure.at]


def _of_trials(measure: Measure, trials: Sequence[Record]) -> float:
    """The figure of these trials; what failed has no value, and is no candidate for the best."""
    ended = [record for record in trials if record["status"] in SUCCESSES]
    if not ended:
        return math.nan
    if measure.reduction is None:
        return _mean(value_of(measure, record) for record in ended)
    reduction = measure.reduction
    if reduction.kind == "ridge":
        return _ridge(measure, reduction, ended)
    if reduction.across is not None:  # the best of all
        points: _Points = [
            (None, value)
            for _, own in grouped(ended, reduction.along)
            for _, value in _points(measure, reduction.across, own)
        ]
    else:
        points = _points(measure, reduction.along, ended)
    return _REDUCTIONS[reduction.kind](points, reduction) if points else math.nan


def _mean(values: Iterable[float]) -> float:
    """Of those that there are: a trial at a shorter budget has no figure of a later step."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def _points(measure: Measure, key: str, trials: Sequence[Record]) -> _Points:
    """The figure for each value of a key, in the order of the values."""
    found = [(value, _mean(value_of(measure, record) for record in own)) for value, own in grouped(trials, key)]
    return [(value, figure) for value, figure in found if not math.isnan(figure)]


def _best(points: _Points, reduction: Reduction) -> tuple[Any, float]:
    choose = min if reduction.best == "min" else max
    return choose(points, key=lambda point: point[1])


def _power(points: _Points) -> float:
    usable = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    if len(usable) < 2:
        return math.nan
    x, y = zip(*usable, strict=True)
    return float(np.polyfit(x, y, 1)[0])


def _ordered(points: _Points, reduction: Reduction) -> float:
    sign = 1.0 if reduction.kind == "rises" else -1.0
    steps = [sign * (after - before) > 0 for (_, before), (_, after) in itertools.pairwise(points)]
    return statistics.fmean(steps) if steps else math.nan


def _ridge(measure: Measure, reduction: Reduction, trials: Sequence[Record]) -> float:
    assert reduction.across is not None
    found = [
        (value, points)
        for value, own in grouped(trials, reduction.along)
        if (points := _points(measure, reduction.across, own))
    ]
    across = [points for _, points in found]
    best = [(value, *_bottom(points, reduction)) for value, points in found]
    if len(best) < MIN_POINTS or any(len(points) < MIN_POINTS for points in across):
        return math.nan
    choose = min if reduction.best == "min" else max
    peak = choose(figure for _, _, figure in best)
    return _power([(value, at) for value, at, figure in best if abs(figure - peak) <= reduction.within * abs(peak)])


def _bottom(points: _Points, reduction: Reduction) -> tuple[float, float]:
    """Where the best figure is, and the figure: between the points of the grid, by a parabola over the logarithm.

    The best point alone would jump from one to the next with each seed, by half a decade on many grids.
    """
    at, figure = _best(points, reduction)
    place = [value for value, _ in points].index(at)
    around = points[max(place - 1, 0) : place + 2]
    if len(around) < 3 or any(value <= 0 for value, _ in around):  # at an edge of the grid
        return float(at), figure
    (left, low), (middle, centre), (right, high) = [(math.log(value), found) for value, found in around]
    before, after = (centre - low) / (middle - left), (high - centre) / (right - middle)
    bend = (after - before) / (right - left)
    slope = before + bend * (middle - left)
    return (math.exp(middle - slope / (2.0 * bend)), figure) if bend else (float(at), figure)


_REDUCTIONS: Mapping[str, Callable[[_Points, Reduction], float]] = {
    "best": lambda points, reduction: _best(points, reduction)[1],
    "best_at": lambda points, reduction: float(_best(points, reduction)[0]),
    "power": lambda points, _: _power(points),
    "falls": _ordered,
    "rises": _ordered,
}


def _compared(value: float, other: float, comparison: str) -> float:
    if comparison == "difference":
        return value - other
    return value / other if other else math.nan
