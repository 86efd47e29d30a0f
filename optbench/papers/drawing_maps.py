"""A figure over two keys of the config, a panel for each value of a third one."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from optbench.curve_claims import SUCCESSES, Record, grouped, matching
from optbench.papers.drawing_lines import over
from optbench.papers.measures import value_of
from optbench.papers.outcome import Outcome
from optbench.papers.paper import Figure, Measure
from optbench.pictures.colours import Colours, colours, draw_bar
from optbench.pictures.drawing import Key, Margins, Style, new_page, render, shown_name
from optbench.pictures.ink import DARK, GREY, LIGHT, ink_on
from optbench.pictures.phrases import CROSS, cut, sentences
from optbench.pictures.picture import Picture
from optbench.pictures.scales import Extent, extent, fitting, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BEST = Style(colour="#d6304a")
_SLOPE = Style(colour=DARK, dashes=(0, (4, 2)))
_MOST_COLUMNS = 3
_MOST_TICKS = 6
_LEAST_FILLED = 0.75
_REACH = 4.0  # times the median distance from the best
_ROW = 0.24  # inches, of a row of cells
_LEAST_HEIGHT, _MOST_HEIGHT = 1.6, 2.6


_Grid = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """The trials at a pair of values: their mean, over how many, and how many failed."""

    mean: float
    num_values: int
    num_failed: int


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """The pairs that were tried at a value of the key that panels go by; a pair is a value along x and one along y."""

    value: Any
    cells: Mapping[tuple[float, float], _Cell]

    def best(self, figure: Figure) -> dict[float, float]:
        """The best y at each x."""
        choose = min if figure.best == "min" else max
        found = {}
        for x in sorted({x for x, _ in self.cells}):
            known = {y: cell.mean for (own, y), cell in self.cells.items() if own == x and math.isfinite(cell.mean)}
            if known:
                found[x] = choose(known, key=lambda y: known[y])
        return found

    def slope(self, figure: Figure) -> float | None:
        """That of the source."""
        return figure.slope.get(spelt(self.value))


def picture(outcome: Outcome, figure: Figure) -> Picture | None:
    """The picture; None where no trial has the figure, or x or y is no number in any."""
    panels = [
        _Panel(value=value, cells=_cells(trials, figure))
        for value, trials in grouped(matching(outcome.records, figure.where), figure.by)
    ]
    panels = [panel for panel in panels if any(math.isfinite(cell.mean) for cell in panel.cells.values())]
    if not panels:
        return None
    return Picture(
        **_draw(panels, figure),
        name=figure.name,
        title=figure.title,
        caption=_caption(panels, figure),
        task=None,
        numbers=_numbers(panels, figure),
    )


def spelt(value: Any) -> str:
    """A value as the keys of a paper's file are spelt."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cells(trials: Sequence[Record], figure: Figure) -> dict[tuple[float, float], _Cell]:
    last = Measure(
        where={},
        figure=figure.z,
        at="last",
        steps=None,
        reduction=None,
        comparison=None,
        against=None,
        compute=None,
        arguments={},
    )
    found = {}
    for x, column in grouped(trials, figure.x):
        for y, own in grouped(column, figure.y):
            if not _is_number(x) or not _is_number(y):
                continue
            values = [value_of(last, record) for record in own if record["status"] in SUCCESSES]
            known = [value for value in values if math.isfinite(value)]
            mean = statistics.fmean(known) if known else math.nan
            cell = _Cell(mean=mean, num_values=len(known), num_failed=len(own) - len(known))
            found[float(x), float(y)] = cell
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _draw(panels: Sequence[_Panel], figure: Figure) -> dict[str, Any]:
    grids = _grids(panels)
    is_shared = all(grid == grids[0] for grid in grids)
    scale = colours(_shown(panels, figure)[0], direction=figure.best, label=figure.z or "")
    columns = min(len(panels), _MOST_COLUMNS)
    rows = math.ceil(len(panels) / columns)
    height = min(max(_ROW * max(len(y) for _, y in grids), _LEAST_HEIGHT), _MOST_HEIGHT)
    room = Margins(top=0.3, under=0.75, between=0.25 if is_shared else 0.75, right=3.6 if columns == 1 else 1.0)
    keys = [Key(label="best of each column", style=Style(colour=_BEST.colour, marker="o"), kind="both")]
    if any(panel.slope(figure) is not None for panel in panels):
        keys.append(Key(label="slope of the source", style=Style(colour=GREY, dashes=_SLOPE.dashes)))
    with new_page(figure.name, height=height, rows=rows, columns=columns, margins=room, keys=keys) as page:
        for place in range(rows * columns):
            axes = page.axes[place // columns][place % columns]
            if place >= len(panels):
                axes.set_axis_off()
                continue
            _panel(axes, panels[place], figure, grid=grids[place], scale=scale)
            if place % columns:
                axes.tick_params(labelleft=not is_shared)
                axes.set_ylabel("")
        draw_bar(page, scale)
        svg, png = render(page)
    return {"svg": svg, "png": png}


def _grids(panels: Sequence[_Panel]) -> list[_Grid]:
    """For each panel the values along x and y: the same for all, unless that would leave much of them blank."""
    pairs = [pair for panel in panels for pair in panel.cells]
    every = _grid(pairs)
    if len(pairs) >= _LEAST_FILLED * len(panels) * len(every[0]) * len(every[1]):
        return [every] * len(panels)
    return [_grid(list(panel.cells)) for panel in panels]


def _grid(pairs: Sequence[tuple[float, float]]) -> _Grid:
    return sorted({x for x, _ in pairs}), sorted({y for _, y in pairs})


def _shown(panels: Sequence[_Panel], figure: Figure) -> tuple[Extent, float | None]:
    """What the colours go over, and where they end for values that are far worse than most; None where none is."""
    means = [cell.mean for panel in panels for cell in panel.cells.values() if math.isfinite(cell.mean)]
    sign = 1.0 if figure.best == "min" else -1.0
    best = min(means, key=lambda mean: sign * mean)
    reach = _REACH * statistics.median(abs(mean - best) for mean in means)
    if max(abs(mean - best) for mean in means) <= reach or not reach:
        return extent(means, scale=fitting(means), margin=0.0), None
    edge = best + sign * reach
    return extent([best, edge], scale=fitting([best, edge]), margin=0.0), edge


def _panel(axes: "Axes", panel: _Panel, figure: Figure, *, grid: _Grid, scale: Colours) -> None:
    x, y = grid
    means = np.full((len(y), len(x)), math.nan)
    for (across, upwards), cell in panel.cells.items():
        place = (y.index(upwards), x.index(across))
        means[place] = cell.mean
        if math.isnan(cell.mean):
            axes.text(*(place[1], place[0], CROSS), ha="center", va="center", fontsize=8.0, color=GREY)
        elif cell.num_failed:
            corner, ink = (place[1] + 0.46, place[0] - 0.46), ink_on(scale.map(scale.norm(cell.mean)))
            axes.text(*(*corner, CROSS), ha="right", va="bottom", fontsize=6.0, color=ink)
    edges = [np.arange(len(values) + 1) - 0.5 for values in (x, y)]
    axes.pcolormesh(
        *edges, np.ma.masked_invalid(means), cmap=scale.map, norm=scale.norm, edgecolors=LIGHT, linewidth=0.4
    )
    best = panel.best(figure)
    points = [(x.index(across), y.index(upwards)) for across, upwards in best.items()]
    axes.plot(*zip(*points, strict=True), color=LIGHT, linewidth=3.0, zorder=2.4)
    axes.plot(
        *zip(*points, strict=True),
        color=_BEST.colour,
        linewidth=1.4,
        marker="o",
        markersize=4.5,
        markeredgecolor=LIGHT,
        markeredgewidth=0.6,
        zorder=2.5,
    )
    slope = panel.slope(figure)
    if slope is not None:
        _draw_slope(axes, best, slope, grid=grid)
    axes.set(xlim=(-0.5, len(x) - 0.5), ylim=(-0.5, len(y) - 0.5))
    for axis, values, label in ((axes.xaxis, x, figure.x), (axes.yaxis, y, figure.y)):
        stride = math.ceil(len(values) / _MOST_TICKS)
        words = [plain(value, digits=2 if value < 10.0 else 4) for value in values[::stride]]
        axis.set_ticks(list(range(0, len(values), stride)), words, fontsize=7.0)
        axis.set_label_text(shown_name(label, 40))
    axes.tick_params(length=0)
    axes.set_title(shown_name(spelt(panel.value), 32))
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_slope(axes: "Axes", best: Mapping[float, float], slope: float, *, grid: _Grid) -> None:
    """A line in logarithms through the middle best; cells are one beside the other, however far apart their values."""
    usable = [(across, upwards) for across, upwards in best.items() if across > 0.0 and upwards > 0.0]
    columns, rows = ([value for value in values if value > 0.0] for values in grid)
    if not usable or len(columns) < 2 or len(rows) < 2:
        return
    middle = usable[len(usable) // 2]
    log_x, log_y = np.log(columns), np.log(rows)
    far = np.linspace(log_x[0] - 2.0 * (log_x[1] - log_x[0]), log_x[-1] + 2.0 * (log_x[-1] - log_x[-2]), 201)
    line = math.log(middle[1]) + slope * (far - math.log(middle[0]))
    first = [len(values) - len(kept) for values, kept in zip(grid, (columns, rows), strict=True)]  # those at zero
    places = _place(far, log_x) + first[0], _place(line, log_y) + first[1]
    inside = (np.abs(places[0]) < 1e3) & (places[1] > -1.0) & (places[1] < len(grid[1]))
    axes.plot(places[0][inside], places[1][inside], color=LIGHT, linewidth=2.4, zorder=2.2)
    axes.plot(
        *(places[0][inside], places[1][inside]), color=_SLOPE.colour, linestyle=_SLOPE.dashes, linewidth=1.2, zorder=2.3
    )


def _place(values: Any, known: Any) -> Any:
    """Where values are in the order of the known ones, between them and beyond along straight lines."""
    inside = np.interp(values, known, np.arange(len(known)))
    below = (values - known[0]) / (known[1] - known[0])
    above = len(known) - 1 + (values - known[-1]) / (known[-1] - known[-2])
    return np.where(values < known[0], below, np.where(values > known[-1], above, inside))


def _caption(panels: Sequence[_Panel], figure: Figure) -> str:
    cells = [cell for panel in panels for cell in panel.cells.values()]
    num_failed, total = sum(cell.num_failed for cell in cells), sum(cell.num_values + cell.num_failed for cell in cells)
    slopes = {spelt(panel.value): slope for panel in panels if (slope := panel.slope(figure)) is not None}
    said = " and ".join(f"{plain(slope, digits=3)} for {shown_name(name)}" for name, slope in slopes.items())
    edge, sign = _shown(panels, figure)[1], 1.0 if figure.best == "min" else -1.0
    seeds = over([cell.num_values for cell in cells if cell.num_values])
    return sentences(
        f"The last {shown_name(figure.z or '')}, its mean {seeds}, at each pair, a map for each "
        f"{shown_name(figure.by or '', 40)}",
        "Joined are the best pairs of each column",
        f"Dashed is the slope of the source in logarithms, through the middle of these: {said}" if said else "",
        cut(figure.z or "", edge, sign=sign).replace("are not shown", "have the last colour")
        if edge is not None
        else "",
        f"{num_failed} of {total} trials failed: {CROSS} is where one did, blank where all did" if num_failed else "",
        "Other blank pairs were not tried" if _is_sparse(panels) else "",
    )


def _is_sparse(panels: Sequence[_Panel]) -> bool:
    grids = zip(panels, _grids(panels), strict=True)
    return any(len(panel.cells) < len(x) * len(y) for panel, (x, y) in grids)


def _numbers(panels: Sequence[_Panel], figure: Figure) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "by": spelt(panel.value),
                "x": x,
                "y": y,
                "mean": cell.mean,
                "num_seeds": cell.num_values,
                "num_failed": cell.num_failed,
                "is_best_of_column": best.get(x) == y,
                "source_slope": panel.slope(figure),
            }
            for panel in panels
            for best in [panel.best(figure)]
            for (x, y), cell in panel.cells.items()
        ]
    )
