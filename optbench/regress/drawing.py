"""The pictures of a history: each metric over the nights, beside the level that it began with."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from optbench.papers.words import counted
from optbench.pictures.drawing import Key, Margins, Palette, Style, element, frame, new_page, render
from optbench.pictures.ink import GREY
from optbench.pictures.lines import draw_crosses
from optbench.pictures.phrases import CROSS, sentences
from optbench.pictures.picture import Panel, Picture, Series
from optbench.pictures.scales import Extent, extent, fitting
from optbench.regress.change_points import ChangePoint
from optbench.regress.findings import Kind
from optbench.regress.history import History, Point, Track
from optbench.regress.words import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NAMED = 12  # as many colours there are
LEAST_NIGHTS = 2
OTHERS = "all others"
_TITLES: Mapping[Kind, str] = {
    "exact": "Exact figures over the nights",
    "loss": "Final losses over the nights",
    "time": "Times of a step over the nights",
}
_HEIGHT, _LOW_HEIGHT = 3.2, 1.7  # inches, of one panel and of each of several
_ROOM = 0.07  # of the height, for crosses at the edge
_MARGINS = Margins(left=0.88, under=0.32)
_LABEL = 0.66 * 72.0  # points, from the axes to the label on their left


@dataclass(frozen=True, kw_only=True)
class Line:
    """A metric as it is drawn.

    Attributes:
        track: the metric.
        changes: where it changed.
        is_worse: in the last night, by its answer.
        level: that it began with: the median before the first change; of exact figures, the first value.
    """

    track: Track
    changes: Sequence[tuple[Point, ChangePoint]]
    is_worse: bool
    level: float = field(init=False)

    def __post_init__(self) -> None:
        values = [value for _, value in self.track.whole]
        before = self.changes[0][1].place if self.changes else len(values)
        first = values[:1] if self.track.kind == "exact" else values[:before]
        object.__setattr__(self, "level", statistics.median(first) if first else math.nan)

    @property
    def points(self) -> list[tuple[float, float]]:
        """Night and ratio to the level, where there is one."""
        ratios = [(float(point.night), self.ratio(point.value)) for point in self.track.points]
        return [(night, ratio) for night, ratio in ratios if math.isfinite(ratio)]

    @property
    def partial(self) -> list[tuple[float, float | None]]:
        """The nights in which a seed diverged, with the ratio of the others."""
        own = [(point.night, self.ratio(point.value)) for point in self.track.points if point.is_partial]
        return [(float(night), ratio if math.isfinite(ratio) else None) for night, ratio in own]

    @property
    def is_of_interest(self) -> bool:
        """Whether it is named."""
        return self.is_worse or bool(self.changes) or bool(self.partial)

    @property
    def interest(self) -> tuple[bool, int, float]:
        """What the first to be named come last by: worse in the last night, then the latest and the largest change."""
        sizes = [abs(math.log(change.ratio)) for _, change in self.changes if change.ratio and change.ratio > 0.0]
        latest = max((point.night for point, _ in self.changes), default=0)
        return self.is_worse, latest, max(sizes, default=0.0)

    def ratio(self, value: float | None) -> float:
        """A value over the level; NaN where there is none."""
        if value is None or math.isnan(self.level):
            return math.nan
        if not self.level:
            return math.nan if value else 1.0
        return value / self.level


def picture(kind: Kind, lines: Sequence[Line], history: History) -> Picture | None:
    """The picture of a class of metrics, with a panel for each figure.

    Args:
        kind: the class.
        lines: all metrics; those of other classes are passed over.
        history: that they are of.

    Returns:
        None where there are no two nights, or where figures that have no noise never changed.
    """
    own = [line for line in lines if line.track.kind == kind and len(line.points) >= LEAST_NIGHTS]
    if kind != "time":
        moved = {line.track.figure for line in own if line.is_of_interest}
        own = [line for line in own if line.track.figure in moved]
    if len(history.nights) < LEAST_NIGHTS or not own:
        return None
    named = _named(own)
    return Picture(
        **_draw(own, named, name=f"history_{kind}", history=history),
        name=f"history_{kind}",
        title=_TITLES[kind],
        caption=_caption(own, named),
        task=None,
        numbers=_numbers(own),
    )


def _named(lines: Sequence[Line]) -> list[str]:
    """The subjects that have a colour."""
    ordered = sorted((line for line in lines if line.is_of_interest), key=lambda line: line.interest, reverse=True)
    return list(dict.fromkeys(line.track.subject for line in ordered))[:MOST_NAMED]


def _draw(lines: Sequence[Line], named: Sequence[str], *, name: str, history: History) -> dict[str, Any]:
    figures = list(dict.fromkeys(line.track.figure for line in lines))
    palette = Palette(named)
    has_others = any(line.track.subject not in named for line in lines)
    keys = [Key(label=subject, style=palette.style(subject)) for subject in named]
    keys += [Key(label=OTHERS if named else "all", style=Style(colour=GREY))] if has_others else []
    is_one = len(figures) == 1
    x = extent(range(1, len(history.nights) + 1), margin=0.015, is_whole=True)
    label = f"night, {history.nights[0].started[:10]} to {history.nights[-1].started[:10]}"
    elements: list[list[str]] = [[] for _ in keys]
    points: list[list[Sequence[tuple[float, float]]]] = [[] for _ in keys]
    panels: list[Panel] = []
    height = _HEIGHT if is_one else _LOW_HEIGHT
    with new_page(name, height=height, rows=len(figures), margins=_MARGINS, keys=keys) as page:
        for place, figure in enumerate(figures):
            axes = page.axes[place][0]
            own = [line for line in lines if line.track.figure == figure]
            y = _upwards(own)
            x_label = label if place == len(figures) - 1 else ""
            panels.append(frame(page, axes, x=(x_label, x), y=(f"{figure}, ratio", y), most=8 if is_one else 6))
            axes.yaxis.set_label_coords(-_LABEL / panels[-1].box[2], 0.5)  # numbers such as 0.9995 are wide
            axes.axhline(1.0, color=GREY, linewidth=0.6, zorder=1.0)
            for number, subject in enumerate(named):
                line = next((line for line in own if line.track.subject == subject), None)
                points[number].append(line.points if line else [])
                if line:
                    style = palette.style(subject)
                    elements[number] += _draw_line(axes, line, y, style=style, gid=element(number, place))
            if has_others:
                others = [line for line in own if line.track.subject not in named]
                elements[-1] += _draw_others(axes, others, y, gid=element(len(named), place))
                points[-1].append([])
        svg, png = render(page)
    series = [
        Series(label=key.label, colour=key.style.colour, elements=ids, points=places)
        for key, ids, places in zip(keys, elements, points, strict=True)
    ]
    return {"svg": svg, "png": png, "panels": panels, "series": series}


def _upwards(lines: Sequence[Line]) -> Extent:
    values = [ratio for line in lines for _, ratio in line.points] + [1.0]
    shown = extent(values, scale=fitting(values))
    return shown.widened(above=_ROOM) if any(line.partial for line in lines) else shown


def _draw_line(axes: "Axes", line: Line, y: Extent, *, style: Style, gid: str) -> list[str]:
    """A line with its changes, and what it was worse or diverged in; the ids of what there is."""
    ids = [gid]
    axes.plot(*zip(*line.points, strict=True), color=style.colour, zorder=3.0, gid=gid)
    if line.changes:
        ids.append(f"{gid}-changes")
        places = [(float(point.night), line.ratio(point.value)) for point, _ in line.changes]
        axes.plot(
            *zip(*places, strict=True),
            color=style.colour,
            linestyle="none",
            marker="D",
            markersize=6.0,
            markerfacecolor="white",
            markeredgewidth=1.3,
            zorder=3.5,
            gid=ids[-1],
        )
    if line.is_worse and line.points[-1][0] == line.track.points[-1].night:
        ids.append(f"{gid}-worse")
        axes.plot(*line.points[-1], color=style.colour, marker="o", markersize=7.0, zorder=3.6, gid=ids[-1])
    if line.partial:
        ids.append(f"{gid}-failed")
        _draw_partial(axes, line, y, colour=style.colour, gid=ids[-1])
    return ids


def _draw_others(axes: "Axes", lines: Sequence[Line], y: Extent, *, gid: str) -> list[str]:
    """The lines that have no name, those that lie on each other once."""
    from matplotlib.collections import LineCollection

    ids = []
    for is_changed, width, alpha in ((False, 0.7, 0.4), (True, 1.0, 0.9)):
        own = [line for line in lines if bool(line.changes) is is_changed]
        if paths := list(dict.fromkeys(tuple(line.points) for line in own)):
            ids.append(f"{gid}-changed" if is_changed else gid)
            drawn = LineCollection(paths, colors=GREY, linewidths=width, alpha=alpha, zorder=2.0, gid=ids[-1])
            axes.add_collection(drawn, autolim=False)
    partial = [line for line in lines if line.partial]
    for number, line in enumerate(partial):
        ids.append(f"{gid}-failed-{number}")
        _draw_partial(axes, line, y, colour=GREY, gid=ids[-1])
    return ids


def _draw_partial(axes: "Axes", line: Line, y: Extent, *, colour: str, gid: str) -> None:
    edge = y.at(1.0 - _ROOM / 2.0)
    draw_crosses(
        axes,
        [night for night, _ in line.partial],
        [edge if ratio is None else ratio for _, ratio in line.partial],
        colour=colour,
        gid=gid,
    )


def _caption(lines: Sequence[Line], named: Sequence[str]) -> str:
    unnamed = {line.track.subject for line in lines if line.is_of_interest} - set(named)
    num_from_zero = sum(line.level == 0.0 and bool(line.changes) for line in lines)
    is_exact = lines[0].track.kind == "exact"
    is_timed = lines[0].track.kind == "time"
    return sentences(
        "Each line is a metric over its first value"
        if is_exact
        else "Each line is a metric over its median before it first changed",
        "A time is a multiple of the calibration kernel's in the same process" if is_timed else "",
        "A diamond is the first night of another level" if any(line.changes for line in lines) else "",
        "A dot is worse in this night" if any(line.is_worse for line in lines) else "",
        f"{CROSS}: a seed diverged, and the mean is of the others" if any(line.partial for line in lines) else "",
        f"Without a colour, though they changed: {counted(len(unnamed), 'subject')}" if unnamed else "",
        f"Without a ratio, for they began with 0: {counted(num_from_zero, 'metric')}" if num_from_zero else "",
    )


def _numbers(lines: Sequence[Line]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "night": point.night,
                "started": whole(point.started),
                "subject": whole(line.track.subject),
                "figure": whole(line.track.figure),
                "value": point.value,
                "ratio": line.ratio(point.value),
                "is_partial": point.is_partial,
                "is_change": any(other is point for other, _ in line.changes),
            }
            for line in lines
            for point in line.track.points
        ]
    )
