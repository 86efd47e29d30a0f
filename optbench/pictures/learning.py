"""Learning curves: each optimizer's tuned setting, against steps, seconds and gradient evaluations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optbench.contest import Contender, Contest
from optbench.curves import Curves
from optbench.pictures.averages import CLOCKS, Average, average
from optbench.pictures.drawing import Key, Palette, element, frame, inner, new_page, render
from optbench.pictures.lines import mean_line
from optbench.pictures.phrases import CROSS, INTERVAL, cut, failed, listed, seeds, sentences
from optbench.pictures.picture import Panel, Picture, Series
from optbench.pictures.scales import Extent, extent, fitting

MOST_LINES = 10
SECOND_METRIC = "train_loss"
_LABELS = {"step": "step", "seconds": "training time (s)", "gradient_evaluations": "gradient evaluations"}
# The part of a curve that does not decide on what is shown, and how many times longer an axis may be for its sake.
_START_SHARE = 0.25
_FEW_POINTS = 3  # measured at the start and at the end, there is nothing to zoom into
_MOST_STRETCH = {"linear": 2.5, "log": 4.0}


@dataclass(frozen=True, kw_only=True)
class _Line:
    contender: Contender
    averages: Mapping[str, Average]


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """What is shown upwards, and in words what is not."""

    shown: Extent
    words: str


def pictures(contest: Contest, *, slug: str, curves: Curves, palette: Palette) -> list[Picture]:
    """The curves of the best settings; none where no trial has a curve of the first metric.

    Args:
        contest: of the task.
        slug: of the task, for names of files.
        curves: of its trials.
        palette: of the report.
    """
    metrics = list(dict.fromkeys([contest.metric, SECOND_METRIC]))
    found: list[_Line] = []
    for contender in contest.contenders:
        own = curves.of(contender.best) if len(found) < MOST_LINES else []
        averages = {name: one for name in metrics if (one := average(own, name)) is not None}
        if contest.metric in averages:
            found.append(_Line(contender=contender, averages=averages))
    if not found:
        return []
    metrics = [name for name in metrics if any(name in line.averages for line in found)]
    cuts = {name: _cut(contest, found, name) for name in metrics}
    clocks = [clock for clock in CLOCKS if _is_told(found, clock)]
    drawn = _draw(found, clocks=clocks, cuts=cuts, palette=palette, name=f"curves_{slug}")
    left_out = [one.optimizer for one in contest.contenders if one not in [line.contender for line in found]]
    return [
        Picture(
            **drawn,
            title=f"Learning curves on {contest.task}",
            caption=_caption(found, cuts, left_out=left_out),
            task=contest.task,
            numbers=_numbers(found, metrics),
        )
    ]


def _learned(contest: Contest, contender: Contender) -> bool:
    """Whether the optimizer came away from the start, as `null` does not."""
    if contest.start is None or contest.metric not in contender.best.metrics:
        return not contender.is_control
    best = contest.contenders[0].best.metrics.get(contest.metric)
    way = contest.sign * (contest.start - contender.best.metrics[contest.metric].mean)
    return best is None or way > 0.05 * abs(contest.start - best.mean)


def _is_told(lines: Sequence[_Line], clock: str) -> bool:
    """Whether a row against this clock says anything: gradient evaluations do not where each step takes one."""
    averages = [one for line in lines for one in line.averages.values()]
    if clock == "step":
        return True
    if not any(np.isfinite(one.clocks[clock]).any() for one in averages):
        return False
    return clock == "seconds" or not all(
        np.array_equal(one.clocks[clock], one.clocks["step"], equal_nan=True) for one in averages
    )


def _cut(contest: Contest, lines: Sequence[_Line], metric: str) -> _Cut:
    """What is shown: everything, unless the start or a divergence would leave too little room for the rest.

    The rest is each curve from a quarter of its steps on, those of optimizers aside that learn nothing.
    """
    sign = contest.sign if metric == contest.metric else 1.0
    averages = {line.contender.optimizer: line.averages[metric] for line in lines if metric in line.averages}
    every = _finite([values for one in averages.values() for values in (one.mean, one.low, one.high)])
    learned = [line.contender.optimizer for line in lines if _learned(contest, line.contender)]
    later = [
        rest
        for name, one in averages.items()
        if name in learned
        and (rest := _finite([one.mean[one.clocks["step"] >= _START_SHARE * one.clocks["step"].max()]]))
    ]
    scale = fitting(every) if sign > 0.0 else "linear"
    whole = _Cut(shown=extent(every, scale=scale), words="")
    if not later or max(len(one.mean) for one in averages.values()) <= _FEW_POINTS:
        return whole

    def height(value: float) -> float:
        """Upwards is worse."""
        return sign * (math.log(value) if scale == "log" else value)

    low, high = min(map(height, every)), max(map(height, every))
    edge = max(float(np.quantile([height(value) for value in rest], 0.99)) for rest in later)
    if metric == contest.metric and contest.start is not None and (scale == "linear" or contest.start > 0.0):
        start = height(contest.start)
        edge = min(edge, start + 0.1 * abs(start - low))
    if edge <= low or high - low <= _MOST_STRETCH[scale] * (edge - low):
        return whole
    kept = [value for value in every if height(value) <= edge]
    shown = extent(kept, scale=fitting(kept) if sign > 0.0 else "linear")
    return _Cut(shown=shown, words=cut(metric, shown.high if sign > 0.0 else shown.low, sign=sign))


def _finite(arrays: Sequence[NDArray[np.float64]]) -> list[float]:
    values = np.concatenate([np.empty(0), *arrays])
    found: list[float] = values[np.isfinite(values)].tolist()
    return found


def _draw(
    lines: Sequence[_Line], *, clocks: Sequence[str], cuts: Mapping[str, _Cut], palette: Palette, name: str
) -> dict[str, Any]:
    styles = [palette.style(line.contender.optimizer) for line in lines]
    keys = [Key(label=line.contender.optimizer, style=style) for line, style in zip(lines, styles, strict=True)]
    extents = {clock: _along(lines, clock) for clock in clocks}
    panels: list[Panel] = []
    elements: list[list[str]] = [[] for _ in lines]
    points: list[list[list[tuple[float, float]]]] = [[] for _ in lines]
    with new_page(name, height=2.25, rows=len(cuts), columns=len(clocks), keys=keys) as page:
        for row, (metric, whole) in enumerate(cuts.items()):
            for column, clock in enumerate(clocks):
                axes = page.axes[row][column]
                most = 6 if len(clocks) < 3 else 4
                panel = frame(page, axes, x=(_LABELS[clock], extents[clock]), y=(metric, whole.shown), most=most)
                inner(axes, x=row < len(cuts) - 1, y=column > 0)
                for place, line in enumerate(lines):
                    one = line.averages.get(metric)
                    gid = element(place, len(panels))
                    if one is None or not np.isfinite(one.clocks[clock]).any():
                        points[place].append([])
                        continue
                    zorder = 3.0 - place / 100.0
                    elements[place] += mean_line(
                        axes, one, clock, style=styles[place], gid=gid, zorder=zorder, shown=whole.shown
                    )
                    points[place].append(list(zip(one.clocks[clock].tolist(), one.mean.tolist(), strict=True)))
                panels.append(panel)
        svg, png = render(page)
    series = [
        Series(
            label=line.contender.optimizer, colour=styles[place].colour, elements=elements[place], points=points[place]
        )
        for place, line in enumerate(lines)
    ]
    return {"name": name, "svg": svg, "png": png, "panels": panels, "series": series}


def _along(lines: Sequence[_Line], clock: str) -> Extent:
    values = [value for line in lines for one in line.averages.values() for value in one.clocks[clock].tolist()]
    values += [end.clocks[clock] for line in lines for one in line.averages.values() for end in one.ends]
    return extent([0.0, *values], margin=0.02)


def _caption(lines: Sequence[_Line], cuts: Mapping[str, _Cut], *, left_out: Sequence[str]) -> str:
    rows = [line.contender.best for line in lines]
    averages = [one for line in lines for one in line.averages.values()]
    many = any(not one.is_single for one in averages)
    ended = failed(rows)
    stopped = any(one.num_seeds.min() < one.num_seeds.max() for one in averages) and not ended
    return sentences(
        f"The best setting of each optimizer over {seeds(rows)}",
        "The line is the mean over the seeds that run at that point" + (f", the band is {INTERVAL}" if many else ""),
        f"{ended}: {CROSS} is where one did, and the mean goes on over the others" if ended else "No trial ended early",
        "Where trials stop at a target, the mean goes on over the others" if stopped else "",
        *(one.words for one in cuts.values()),
        f"Not drawn: {listed(left_out)}" if left_out else "",
        "Of long curves about a hundred points are drawn" if any(one.is_thinned for one in averages) else "",
    )


def _numbers(lines: Sequence[_Line], metrics: Sequence[str]) -> pd.DataFrame:
    """A row for each point of each line, and one for each cross, which has a seed and a status."""
    found: list[dict[str, Any]] = []
    for line in lines:
        best = line.contender.best
        for metric in metrics:
            one = line.averages.get(metric)
            if one is None:
                continue
            head = {"optimizer": line.contender.optimizer, "setting": best.setting_text, "metric": metric}
            num_failed = sum(best.failures.values())
            for place in range(len(one.mean)):
                clocks = {clock: float(one.clocks[clock][place]) for clock in CLOCKS}
                figures = {"mean": one.mean[place], "low": one.low[place], "high": one.high[place]}
                counts = {"n": int(one.num_seeds[place]), "num_failed": num_failed}
                found.append({**head, **clocks, **figures, **counts, "seed": None, "status": None})
            found += [
                {**head, **end.clocks, "mean": end.value, "n": 1, "seed": end.seed, "status": end.status.value}
                for end in one.ends
            ]
    return pd.DataFrame(found)
