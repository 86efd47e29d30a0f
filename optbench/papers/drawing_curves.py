"""Curves of the trials of a table, a line for each row, with the points that were published."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from optbench.curve_claims import SUCCESSES, Record, grouped, matching
from optbench.curves import Curve
from optbench.measurement import Status
from optbench.papers.drawing_lines import PUBLISHED, hollow, hollow_key, over
from optbench.papers.measures import value_of
from optbench.papers.outcome import CellOutcome, Outcome
from optbench.papers.paper import Figure, Measure
from optbench.papers.sheets import has_columns, label
from optbench.pictures.averages import Average, average
from optbench.pictures.drawing import Key, Palette, element, frame, new_page, render
from optbench.pictures.lines import mean_line
from optbench.pictures.phrases import CROSS, INTERVAL, cut, sentences
from optbench.pictures.picture import Picture, Series
from optbench.pictures.scales import Extent, extent

# The part of a curve that does not decide on what is shown, and how many times longer an axis may be for its sake.
_START_SHARE = 0.25
_MOST_STRETCH = 2.5


@dataclass(frozen=True, kw_only=True)
class _Line:
    label: str
    row: str
    average: Average
    num_trials: int
    published: Sequence[tuple[float, float]]


def picture(outcome: Outcome, figure: Figure) -> Picture | None:
    """The picture; None where no trial of the table has the column."""
    own = [one for one in outcome.cells if one.table.name == figure.table]
    lines: list[_Line] = []
    for row in dict.fromkeys(one.cell.row for one in own):
        lines += _lines(outcome, figure, [one for one in own if one.cell.row == row])
    if not lines:
        return None
    y, is_cut = _upwards(lines, figure)
    edge = y.high if figure.best == "min" else y.low
    words = cut(figure.y, edge, sign=1.0 if figure.best == "min" else -1.0) if is_cut else ""
    return Picture(
        **_draw(lines, figure, y=y),
        name=figure.name,
        title=figure.title,
        caption=_caption(lines, words),
        task=None,
        numbers=_numbers(lines),
    )


def _lines(outcome: Outcome, figure: Figure, cells: Sequence[CellOutcome]) -> list[_Line]:
    """The lines of a row: one for each set of trials that its cells are measured on."""
    found: list[_Line] = []
    seen: list[Sequence[Record]] = []
    for one in cells:
        trials = _trials(one.cell.check.measure, outcome.records)
        if trials in seen:
            continue
        seen.append(trials)
        own = average([_curve(record) for record in trials], figure.y)
        own = _from_first(own) if own is not None and figure.log_x else own
        if own is None or not len(own.mean):
            continue
        published = figure.points.get(one.cell.row, ()) if not found else ()
        found.append(
            _Line(label=label(one), row=one.cell.row, average=own, num_trials=len(trials), published=_known(published))
        )
    if len(found) == 1 or not has_columns(cells[0].table):
        found = [replace(line, label=line.row) for line in found]
    return found


def _known(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _trials(measure: Measure, records: Sequence[Record]) -> list[Record]:
    """Those of a measure; of one that has the best over a key, those at the value that is best on average."""
    own = matching(records, measure.where)
    reduction = measure.reduction
    if reduction is None or reduction.kind not in ("best", "best_at"):
        return own
    means: list[tuple[float, list[Record]]] = []
    for _, trials in grouped(own, reduction.along):
        values = [value_of(measure, record) for record in trials if record["status"] in SUCCESSES]
        if values and math.isfinite(mean := math.fsum(values) / len(values)):
            means.append((mean, trials))
    choose = min if reduction.best == "min" else max
    return choose(means, key=lambda pair: pair[0])[1] if means else own


def _curve(record: Record) -> Curve:
    columns = {
        name: [math.nan if value is None else float(value) for value in values]
        for name, values in record["curve"].items()
    }
    return Curve(seed=record["config"]["seed"], status=Status(record["status"]), columns=columns)


def _from_first(one: Average) -> Average:
    """Without what a logarithm does not have."""
    kept = one.clocks["step"] > 0.0
    return replace(
        one,
        clocks={name: values[kept] for name, values in one.clocks.items()},
        **{name: getattr(one, name)[kept] for name in ("mean", "low", "high", "num_seeds")},
        ends=[end for end in one.ends if end.clocks["step"] > 0.0],
    )


def _upwards(lines: Sequence[_Line], figure: Figure) -> tuple[Extent, bool]:
    """What is shown, and whether the start is cut off, for it would leave too little room for the rest."""
    scale: Any = "log" if figure.log_y else "linear"
    published = [value for line in lines for _, value in line.published]
    every = [*published, *_finite([values for line in lines for values in (line.average.mean, line.average.low)])]
    every += _finite([line.average.high for line in lines])
    start = _START_SHARE * max(float(line.average.clocks["step"].max()) for line in lines)
    later = [*published, *_finite([line.average.mean[line.average.clocks["step"] >= start] for line in lines])]
    whole = extent(every, scale=scale)
    if scale == "log" or not later:
        return whole, False
    low, high = min(every), max(every)
    if figure.best == "min":
        edge = max(later)
        is_cut = high - low > _MOST_STRETCH * (edge - low) > 0.0
        kept = [value for value in every if value <= edge]
    else:
        edge = min(later)
        is_cut = high - low > _MOST_STRETCH * (high - edge) > 0.0
        kept = [value for value in every if value >= edge]
    return (extent(kept), True) if is_cut else (whole, False)


def _finite(arrays: Sequence[Any]) -> list[float]:
    values = np.concatenate([np.empty(0), *arrays])
    found: list[float] = values[np.isfinite(values)].tolist()
    return found


def _draw(lines: Sequence[_Line], figure: Figure, *, y: Extent) -> dict[str, Any]:
    palette = Palette(line.label for line in lines)
    keys = [Key(label=line.label, style=palette.style(line.label)) for line in lines]
    steps = [step for line in lines for step in line.average.clocks["step"].tolist()]
    steps += [step for line in lines for step, _ in line.published]
    x = extent(steps, scale="log" if figure.log_x else "linear", margin=0.02)
    if any(line.published for line in lines):
        keys.append(replace(PUBLISHED, kind="point"))
    series = []
    with new_page(figure.name, height=3.0, keys=keys) as page:
        axes = page.axes[0][0]
        panel = frame(page, axes, x=(figure.x, x), y=(figure.y, y), most=8)
        for place, line in enumerate(lines):
            style, gid = palette.style(line.label), element(place, 0)
            ids = mean_line(axes, line.average, "step", style=style, gid=gid, zorder=3.0 - place / 100.0, shown=y)
            if line.published:
                ids.append(f"{gid}-published")
                hollow(axes, line.published, style=style, gid=ids[-1])
            points = list(zip(line.average.clocks["step"].tolist(), line.average.mean.tolist(), strict=True))
            series.append(Series(label=line.label, colour=style.colour, elements=ids, points=[points]))
        if any(line.published for line in lines):
            hollow_key(page)
        svg, png = render(page)
    return {"svg": svg, "png": png, "panels": [panel], "series": series}


def _caption(lines: Sequence[_Line], words: str) -> str:
    ended = sum(len(line.average.ends) for line in lines)
    total = sum(line.num_trials for line in lines)
    return sentences(
        f"The mean {over([int(line.average.num_seeds.max()) for line in lines])}"
        + (f"; the band is {INTERVAL}" if any(not line.average.is_single for line in lines) else ""),
        "Hollow: as published" if any(line.published for line in lines) else "",
        f"{ended} of {total} trials ended early: {CROSS} is where, and the mean goes on over the others"
        if ended
        else "",
        words,
    )


def _numbers(lines: Sequence[_Line]) -> pd.DataFrame:
    """A line for each point of each curve, and one for each that was published."""
    found: list[Mapping[str, Any]] = []
    for line in lines:
        one = line.average
        for place in range(len(one.mean)):
            figures = {"mean": one.mean[place], "low": one.low[place], "high": one.high[place]}
            where = {"line": line.label, "row": line.row, "step": float(one.clocks["step"][place])}
            found.append({**where, **figures, "num_seeds": int(one.num_seeds[place]), "published": None})
        found += [
            {"line": line.label, "row": line.row, "step": step, "num_seeds": 0, "published": value}
            for step, value in line.published
        ]
    return pd.DataFrame(found)
