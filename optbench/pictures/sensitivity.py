"""How much the learning rate matters: the first metric against it, a line for each optimizer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from optbench.contest import Contender, Contest
from optbench.pictures.choices import best_by, estimate_of, from_worse_edge, shown, told
from optbench.pictures.drawing import Key, Palette, Style, element, frame, new_page, render, shown_name
from optbench.pictures.lines import draw_crosses
from optbench.pictures.phrases import CROSS, INTERVAL, cut, failed, listed, seeds, sentences
from optbench.pictures.picture import Panel, Picture, Series
from optbench.pictures.scales import Extent, extent
from optbench.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAILED_ROOM = 0.06  # of the height, for each row of crosses
_MOST_ROWS = 6


@dataclass(frozen=True, kw_only=True)
class _Line:
    contender: Contender
    by_rate: Mapping[float, Sequence[Row]]


def pictures(contest: Contest, *, slug: str, palette: Palette) -> list[Picture]:
    """The picture; none where no optimizer has two learning rates.

    Args:
        contest: of the task.
        slug: of the task, for names of files.
        palette: of the report.
    """
    lines = []
    for contender in contest.contenders:
        by_rate = {rate: rows for (rate,), rows in best_by(contender, "lr").items() if rate > 0.0}
        if len(by_rate) > 1:
            lines.append(_Line(contender=contender, by_rate=by_rate))
    if not any(estimate_of(row, contest) for line in lines for row in _chosen(line).values()):
        return []
    estimates = [found for line in lines for row in _chosen(line).values() if (found := estimate_of(row, contest))]
    bounds = [bound for found in estimates for bound in (found.low, found.high) if bound is not None]
    y, is_cut = shown(contest, [*(found.mean for found in estimates), *bounds])
    heights = _heights(lines)
    room = _FAILED_ROOM * (max(heights.values(), default=-1) + 1)
    y = y.widened(above=room) if contest.direction == "min" else y.widened(below=room)
    name = f"sensitivity_{slug}"
    return [
        Picture(
            **_draw(contest, lines, y=y, heights=heights, palette=palette, name=name),
            name=name,
            title=f"Learning rates on {contest.task}",
            caption=_caption(contest, lines, y=y, is_cut=is_cut),
            task=contest.task,
            numbers=_numbers(contest, lines),
        )
    ]


def _chosen(line: _Line) -> dict[float, Row]:
    """The best setting at each rate."""
    return {rate: rows[0] for rate, rows in line.by_rate.items()}


def _heights(lines: Sequence[_Line]) -> dict[tuple[int, float], int]:
    """For each line and rate with failures, in which row its cross is: crosses at one rate go below each other."""
    taken = Counter[float]()
    found = {}
    for place, line in enumerate(lines):
        for rate, row in _chosen(line).items():
            if row.failures:
                found[place, rate] = min(taken[rate], _MOST_ROWS - 1)
                taken[rate] += 1
    return found


def _draw(
    contest: Contest,
    lines: Sequence[_Line],
    *,
    y: Extent,
    heights: Mapping[tuple[int, float], int],
    palette: Palette,
    name: str,
) -> dict[str, Any]:
    x = extent([rate for line in lines for rate in line.by_rate], scale="log", margin=0.03)
    styles = [palette.style(line.contender.optimizer) for line in lines]
    keys = [
        Key(label=line.contender.optimizer, style=style, kind="both") for line, style in zip(lines, styles, strict=True)
    ]
    series = []
    with new_page(name, height=3.0, keys=keys) as page:
        axes = page.axes[0][0]
        panel: Panel = frame(page, axes, x=("learning rate", x), y=(contest.metric, y), most=8)
        for place, (line, style) in enumerate(zip(lines, styles, strict=True)):
            crosses = {
                rate: from_worse_edge(contest, y, _FAILED_ROOM * (row + 0.5))
                for (own, rate), row in heights.items()
                if own == place
            }
            ids, points = _line(axes, contest, line, style=style, crosses=crosses, gid=element(place, 0))
            series.append(Series(label=line.contender.optimizer, colour=style.colour, elements=ids, points=[points]))
        svg, png = render(page)
    return {"svg": svg, "png": png, "panels": [panel], "series": series}


def _line(
    axes: "Axes",
    contest: Contest,
    line: _Line,
    *,
    style: Style,
    crosses: Mapping[float, float],
    gid: str,
) -> tuple[list[str], list[tuple[float, float]]]:
    known = {rate: found for rate, row in _chosen(line).items() if (found := estimate_of(row, contest))}
    points = [(rate, found.mean) for rate, found in known.items()]
    ids = []
    if points:
        ids.append(gid)
        axes.plot(
            *zip(*points, strict=True),
            color=style.colour,
            linestyle=style.dashes,
            marker=style.marker,
            markersize=3.5,
            gid=gid,
        )
    bars = [(rate, found.low, found.high) for rate, found in known.items() if found.low is not None]
    if bars:
        ids.append(f"{gid}-bars")
        rates, lows, highs = zip(*bars, strict=True)
        axes.vlines(rates, lows, highs, color=style.colour, linewidth=1.0, alpha=0.8, gid=ids[-1])
    if crosses:
        ids.append(f"{gid}-failed")
        draw_crosses(axes, list(crosses), list(crosses.values()), colour=style.colour, gid=ids[-1])
    return ids, points


def _caption(contest: Contest, lines: Sequence[_Line], *, y: Extent, is_cut: bool) -> str:
    rows = [row for line in lines for row in _chosen(line).values()]
    ended = failed(rows)
    edge = y.high if contest.direction == "min" else y.low
    side = "top" if contest.direction == "min" else "bottom"
    several = any(len(own) > 1 for line in lines for own in line.by_rate.values())
    drawn = {line.contender.optimizer for line in lines}
    absent = [one.optimizer for one in contest.contenders if one.optimizer not in drawn]
    with_bars = any(found.low is not None for row in rows if (found := estimate_of(row, contest)))
    return sentences(
        f"{shown_name(contest.metric)} over {seeds(rows)} for each learning rate tried: the mean"
        + (f", with {INTERVAL}" if with_bars else ""),
        "Where several settings share a rate, it is the best of them" if several else "",
        f"{ended}: {CROSS} at the {side} is where any did, and the mean is over the others"
        if ended
        else "No trial ended early",
        cut(contest.metric, edge, sign=contest.sign) if is_cut else "",
        f"Not drawn, for they have one rate: {listed(absent)}" if absent else "",
    )


def _numbers(contest: Contest, lines: Sequence[_Line]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "optimizer": line.contender.optimizer,
                "setting": rows[0].setting_text,
                "lr": rate,
                "metric": contest.metric,
                **told(estimate_of(rows[0], contest)),
                "num_failed": sum(rows[0].failures.values()),
                "num_settings": len(rows),
            }
            for line in lines
            for rate, rows in line.by_rate.items()
        ]
    )
