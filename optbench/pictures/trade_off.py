"""Quality against memory and against time: each optimizer's tuned setting, and which of them no other beats in all."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from optbench.contest import Contender, Contest
from optbench.pictures.choices import estimate_of, told
from optbench.pictures.drawing import (
    Margins,
    Page,
    Palette,
    Style,
    element,
    frame,
    new_page,
    render,
    shown_name,
    text_size,
)
from optbench.pictures.ink import GREY
from optbench.pictures.labels import Label, places
from optbench.pictures.phrases import INTERVAL, failed, listed, seeds, sentences
from optbench.pictures.picture import Panel, Picture, Series
from optbench.pictures.scales import Extent, extent, fitting, in_unit
from optbench.stats import Estimate
from optbench.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 3.1
_LABEL_SIZE = 7.5
_STATE = "state_bytes_per_parameter"


@dataclass(frozen=True, kw_only=True)
class _Point:
    contender: Contender
    found: Estimate
    style: Style
    is_on_front: bool

    @property
    def row(self) -> Row:
        return self.contender.best


@dataclass(frozen=True, kw_only=True)
class _Price:
    """What goes to the right: a figure of a row, its name with a unit, and how many of it make that unit."""

    column: str
    label: str
    figure: Callable[[Row], float | None]
    unit: float = 1.0

    def of(self, row: Row) -> float | None:
        value = self.figure(row)
        return None if value is None else value / self.unit


def pictures(contest: Contest, *, slug: str, palette: Palette) -> list[Picture]:
    """The first metric against memory and against the time of a step; none where fewer than two optimizers have both.

    Args:
        contest: of the task.
        slug: of the task, for names of files.
        palette: of the report.
    """
    useful = [
        one
        for one in contest.contenders
        if not one.is_control and (own := estimate_of(one.best, contest)) and _is_better(contest, own)
    ]
    prices = [price for price in (_memory(useful), _time(useful)) if price is not None]
    if not prices:
        return []
    front = _front(contest, useful, prices)
    points = [
        _Point(
            contender=one,
            found=found,
            style=palette.style(one.optimizer),
            is_on_front=one.optimizer in front,
        )
        for one in useful
        if (found := estimate_of(one.best, contest)) is not None
        and any(price.of(one.best) is not None for price in prices)
    ]
    name = f"trade_off_{slug}"
    return [
        Picture(
            **_draw(contest, points, prices, name=name),
            name=name,
            title=f"Quality, memory and time on {contest.task}",
            caption=_caption(contest, points, prices),
            task=contest.task,
            numbers=_numbers(contest, points),
        )
    ]


def _is_better(contest: Contest, found: Estimate) -> bool:
    """Whether it is better than no training: else it is cheap and worth nothing."""
    return contest.start is None or contest.sign * found.mean < contest.sign * contest.start


def _memory(contenders: Sequence[Contender]) -> _Price | None:
    """Peak memory; the optimizer's state where peaks are missing, or about the same for all."""
    peaks = [one.best.peak_bytes for one in contenders if one.best.peak_bytes is not None]
    states = [known for one in contenders if (known := one.best.state_bytes_per_parameter) is not None]
    tells = len(peaks) > 1 and max(peaks) > 1.01 * min(peaks)
    if len(set(states)) > 1 and (not tells or len(states) > len(peaks)):
        return _Price(
            column=_STATE,
            label="optimizer state (bytes per parameter)",
            figure=lambda row: row.state_bytes_per_parameter,
        )
    if not tells:
        return None
    unit, size = in_unit(max(peaks))
    return _Price(column="peak_bytes", label=f"peak memory ({unit})", figure=lambda row: row.peak_bytes, unit=size)


def _time(contenders: Sequence[Contender]) -> _Price | None:
    """Seconds of a step, all measured alone or all as trials ran: the two do not go together."""
    for figure in (_measured_seconds, _seconds_of_trials):
        if sum(figure(one.best) is not None for one in contenders) > 1:
            return _Price(column="step_seconds", label="time of a step (ms)", figure=figure, unit=1e-3)
    return None


def _measured_seconds(row: Row) -> float | None:
    return row.cost.time.step.median if row.cost and row.cost.time else None


def _seconds_of_trials(row: Row) -> float | None:
    return row.step_seconds if row.cost is None or row.cost.time is None else None


def _front(contest: Contest, contenders: Sequence[Contender], prices: Sequence[_Price]) -> set[str]:
    """Optimizers that have all figures, and that no other beats in one of them and equals in the rest."""
    figures = {}
    for one in contenders:
        found = estimate_of(one.best, contest)
        costs = [price.of(one.best) for price in prices]
        known = [cost for cost in costs if cost is not None]
        if found is not None and len(known) == len(prices):
            figures[one.optimizer] = (contest.sign * found.mean, *known)
    return {
        name
        for name, own in figures.items()
        if not any(other != own and all(b <= a for a, b in zip(own, other, strict=True)) for other in figures.values())
    }


def _draw(contest: Contest, points: Sequence[_Point], prices: Sequence[_Price], *, name: str) -> dict[str, Any]:
    bounds = [value for one in points for value in (one.found.mean, one.found.low, one.found.high) if value is not None]
    y = extent(bounds, scale=fitting(bounds) if contest.direction == "min" else "linear", margin=0.09)
    panels: list[Panel] = []
    elements: list[list[str]] = [[] for _ in points]
    spots: list[list[list[tuple[float, float]]]] = [[] for _ in points]
    with new_page(name, height=_HEIGHT, columns=len(prices), margins=Margins(bottom=0.5)) as page:
        for panel, (axes, price) in enumerate(zip(page.axes[0], prices, strict=True)):
            known = {place: cost for place, one in enumerate(points) if (cost := price.of(one.row)) is not None}
            lowest, highest = min(known.values()), max(known.values())
            scale = "log" if lowest > 0.0 and highest > 10.0 * lowest else "linear"
            x = extent(known.values(), scale="log" if scale == "log" else "linear", margin=0.1)
            panels.append(frame(page, axes, x=(price.label, x), y=(contest.metric, y), most=6))
            if panel:
                axes.tick_params(labelleft=False)
                axes.set_ylabel("")
            front = _step_line(
                axes, [(known[place], points[place].found.mean) for place in known], x=x, sign=contest.sign
            )
            for place, one in enumerate(points):
                at = (known[place], one.found.mean) if place in known else None
                spots[place].append([at] if at else [])
                if at:
                    elements[place] += _point(axes, one, at, gid=element(place, panel))
            drawn = {place: (cost, points[place].found.mean) for place, cost in known.items()}
            for place, gid in _label(page, axes, points, drawn=drawn, panel=panels[-1], front=front).items():
                elements[place].append(gid)
        svg, png = render(page)
    series = [
        Series(label=one.contender.optimizer, colour=one.style.colour, elements=ids, points=own)
        for one, ids, own in zip(points, elements, spots, strict=True)
    ]
    return {"svg": svg, "png": png, "panels": panels, "series": series}


def _step_line(
    axes: "Axes", points: Sequence[tuple[float, float]], *, x: Extent, sign: float
) -> list[tuple[float, float]]:
    """Join the points that no other beats in both: the best quality that each price buys.

    Returns:
        Where the line turns.
    """
    kept: list[tuple[float, float]] = []
    for cost, mean in sorted(points, key=lambda point: (point[0], sign * point[1])):
        if not kept or sign * mean < sign * kept[-1][1]:
            kept.append((cost, mean))
    kept.append((x.high, kept[-1][1]))
    axes.plot(
        *zip(*kept, strict=True), drawstyle="steps-post", color=GREY, linewidth=1.0, linestyle=(0, (3, 2)), zorder=1.0
    )
    return kept


def _point(axes: "Axes", one: _Point, at: tuple[float, float], *, gid: str) -> list[str]:
    ids = [gid]
    axes.plot(
        *([at[0]], [at[1]]),
        linestyle="none",
        marker=one.style.marker,
        markersize=6.5,
        markeredgewidth=1.4,
        markeredgecolor=one.style.colour,
        markerfacecolor=one.style.colour if one.is_on_front else "none",
        zorder=3.0,
        gid=gid,
    )
    if one.found.low is not None and one.found.high is not None:
        ids.append(f"{gid}-bar")
        axes.vlines(
            at[0],
            one.found.low,
            one.found.high,
            color=one.style.colour,
            linewidth=1.0,
            alpha=0.7,
            zorder=2.0,
            gid=ids[-1],
        )
    return ids


def _label(
    page: Page,
    axes: "Axes",
    points: Sequence[_Point],
    *,
    drawn: Mapping[int, tuple[float, float]],
    panel: Panel,
    front: Sequence[tuple[float, float]],
) -> dict[int, str]:
    """Write the name beside each point where it covers nothing; the id of each."""
    _, _, width, height = panel.box
    x = Extent(low=panel.x_limits[0], high=panel.x_limits[1], scale=panel.x_scale)
    y = Extent(low=panel.y_limits[0], high=panel.y_limits[1], scale=panel.y_scale)
    texts = {place: shown_name(points[place].contender.optimizer, 20) for place in drawn}
    labels = [
        Label(
            text=texts[place],
            size=text_size(texts[place], _LABEL_SIZE),
            anchor=(x.part(cost) * width, y.part(mean) * height),
            bar=_bar(points[place].found, y, height),
        )
        for place, (cost, mean) in drawn.items()
    ]
    turns = [(x.part(cost) * width, y.part(mean) * height) for cost, mean in front]
    lines = [
        line
        for (left, before), (right, after) in itertools.pairwise(turns)
        for line in ((left, before, right, before), (right, min(before, after), right, max(before, after)))
    ]
    found = {}
    number = page.axes[0].index(axes)
    spots = places(labels, width=width, height=height, lines=lines)
    for place, label, spot in zip(drawn, labels, spots, strict=True):
        found[place] = f"{element(place, number)}-name"
        offset = (spot[0] - label.anchor[0], spot[1] - label.anchor[1])
        middle = (offset[0] + label.size[0] / 2.0, offset[1])
        far = math.hypot(max(0.0, abs(middle[0]) - label.size[0] / 2.0), middle[1]) > 2.0 * _LABEL_SIZE
        axes.annotate(
            label.text,
            xy=drawn[place],
            xytext=offset,
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=_LABEL_SIZE,
            gid=found[place],
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkB": 4.0} if far else None,
        )
    return found


def _bar(found: Estimate, y: Extent, height: float) -> tuple[float, float]:
    low, high = (found.mean if bound is None else bound for bound in (found.low, found.high))
    return y.part(low) * height, y.part(high) * height


def _caption(contest: Contest, points: Sequence[_Point], prices: Sequence[_Price]) -> str:
    rows = [one.row for one in points]
    ended = failed(rows)
    shown = [one.contender for one in points]
    worthless = [
        one.optimizer
        for one in contest.contenders
        if (own := estimate_of(one.best, contest)) and not _is_better(contest, own)
    ]
    without = [one.optimizer for one in contest.contenders if one not in shown and one.optimizer not in worthless]
    with_bars = any(one.found.low is not None for one in points)
    return sentences(
        f"The best setting of each optimizer over {seeds(rows)}: the mean of {shown_name(contest.metric)}"
        + (f", with {INTERVAL}" if with_bars else ""),
        "The dashed line is the best that each price buys",
        "The optimizer's state stands for memory, for peaks are unknown or alike" if prices[0].column == _STATE else "",
        "Filled points are beaten by no other in quality, memory and time together"
        if len(prices) == 2
        else "Filled points are on it",
        f"{ended}, and the means are over the others" if ended else "No trial ended early",
        f"Not drawn, for they have no figures: {listed(without)}" if without else "",
        f"Not drawn, for they are no better than no training: {listed(worthless)}" if worthless else "",
    )


def _numbers(contest: Contest, points: Sequence[_Point]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "optimizer": one.contender.optimizer,
                "setting": one.row.setting_text,
                "metric": contest.metric,
                **told(one.found),
                "num_failed": sum(one.row.failures.values()),
                "peak_bytes": one.row.peak_bytes,
                "state_bytes_per_parameter": one.row.state_bytes_per_parameter,
                "step_seconds": one.row.step_seconds,
                "is_on_front": one.is_on_front,
            }
            for one in points
        ]
    )
