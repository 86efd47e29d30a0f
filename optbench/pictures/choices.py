"""The settings of an optimizer by the values of their keys: the best one for each value."""

from collections.abc import Iterable, Mapping
from typing import Any

from optbench.contest import Contender, Contest
from optbench.pictures.scales import Extent, extent, fitting
from optbench.stats import Estimate
from optbench.tables import Row

# How far below no training an axis goes, as a part of the way from there to the best.
_BEYOND = 0.15


def number(row: Row, key: str) -> float | None:
    """The value of an optimizer's key, such as `lr`; None where it has none or no number."""
    value = row.config["optimizer"].get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def best_by(contender: Contender, *keys: str) -> dict[tuple[float, ...], list[Row]]:
    """The settings for each combination of values, the best first; those that lack a value aside."""
    found: dict[tuple[float, ...], list[Row]] = {}
    for row in contender.rows:
        values = [number(row, key) for key in keys]
        known = tuple(value for value in values if value is not None)
        if len(known) == len(keys):
            found.setdefault(known, []).append(row)
    return dict(sorted(found.items()))


def estimate_of(row: Row, contest: Contest) -> Estimate | None:
    """The first metric over the seeds that succeeded."""
    return row.metrics.get(contest.metric)


def shown(contest: Contest, values: Iterable[float], *, margin: float = 0.05) -> tuple[Extent, bool]:
    """What an axis of the first metric shows, and whether worse values are cut off.

    What is far worse than no training is of no interest, and would leave the rest no room.

    Args:
        contest: that the values are of.
        values: to be shown.
        margin: beyond them, as a part of the length.
    """
    every = list(values)
    if contest.start is None or not every:
        return extent(every, scale=_scale(contest, every), margin=margin), False
    best = min(every, key=lambda value: contest.sign * value)
    edge = contest.start + contest.sign * _BEYOND * abs(contest.start - best)
    kept = [value for value in every if contest.sign * value <= contest.sign * edge]
    is_cut = len(kept) < len(every)
    kept = [*kept, contest.start] if is_cut else kept
    return extent(kept, scale=_scale(contest, kept), margin=margin), is_cut


def from_worse_edge(contest: Contest, y: Extent, fraction: float) -> float:
    """The value at this part of the height, from the edge where the first metric is worst."""
    return y.at(1.0 - fraction if contest.direction == "min" else fraction)


def told(found: Estimate | None) -> Mapping[str, Any]:
    """An estimate as columns of a table."""
    if found is None:
        return {"mean": None, "low": None, "high": None, "n": 0}
    return {"mean": found.mean, "low": found.low, "high": found.high, "n": found.num_values}


def _scale(contest: Contest, values: Iterable[float]) -> Any:
    return fitting(values) if contest.direction == "min" else "linear"
