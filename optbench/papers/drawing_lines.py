"""A table over the numbers that its columns are named by: a line for each row, as measured and as published."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from optbench.papers import words
from optbench.papers.outcome import CellOutcome, Outcome
from optbench.papers.paper import Figure
from optbench.pictures.drawing import Key, Page, Palette, Style, element, frame, new_page, render
from optbench.pictures.ink import GREY
from optbench.pictures.lines import draw_crosses
from optbench.pictures.phrases import CROSS, listed, sentences
from optbench.pictures.picture import Picture, Series
from optbench.pictures.scales import Extent, extent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Sequence[tuple[float, float]]
PUBLISHED = Key(label="published", style=Style(colour=GREY, dashes=(0, (4, 2.5))), kind="both")
_ROOM = 0.06  # of the height, for each row of crosses
_MOST_ROWS = 6


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A row of the table: its cells by the number of their column."""

    row: str
    cells: Mapping[float, CellOutcome]

    @property
    def measured(self) -> Points:
        """The means."""
        return [(x, mean) for x, one in self.cells.items() if (mean := _mean(one)) is not None]

    @property
    def bars(self) -> Sequence[tuple[float, float, float]]:
        """The intervals: x, low and high."""
        return [
            (x, one.found.low, one.found.high)
            for x, one in self.cells.items()
            if _mean(one) is not None and one.found and one.found.low is not None and one.found.high is not None
        ]

    @property
    def published(self) -> Points:
        """The figures of the source."""
        known = {x: one.cell.check.published for x, one in self.cells.items()}
        return [(x, value) for x, value in known.items() if isinstance(value, float) and math.isfinite(value)]

    @property
    def diverged(self) -> Sequence[float]:
        """Where trials have no mean, for they diverged or never got there."""
        return [
            x
            for x, one in self.cells.items()
            if _mean(one) is None and one.found and ("diverged" in one.found.note or one.found.mean is not None)
        ]


def picture(outcome: Outcome, figure: Figure) -> Picture | None:
    """The picture; None where no cell in a column with a number for a name has a figure."""
    own = [one for one in outcome.cells if one.table.name == figure.table]
    table = next(table for table in outcome.paper.tables if table.name == figure.table)
    places = {name: place for name in table.columns if (place := _number(name, is_log=figure.log_x)) is not None}
    lines = [
        _Line(
            row=row,
            cells=dict(sorted((places[one.cell.column], one) for one in own if _is_at(one, row, places))),
        )
        for row in table.rows
    ]
    lines = [line for line in lines if line.measured or line.diverged]
    if not lines:
        return None
    crosses = _crosses(lines)
    y = _upwards(lines, figure, num_rows=max(crosses.values(), default=-1) + 1)
    return Picture(
        **_draw(lines, figure, y=y, crosses=crosses),
        name=figure.name,
        title=figure.title,
        caption=_caption(lines, figure, left_out=[name for name in table.columns if name not in places]),
        task=None,
        numbers=_numbers(lines),
    )


def _number(name: str, *, is_log: bool) -> float | None:
    """The number that a column is named by."""
    try:
        found = float(name)
    except ValueError:
        return None
    return found if math.isfinite(found) and (found > 0.0 or not is_log) else None


def _is_at(one: CellOutcome, row: str, places: Mapping[str, float]) -> bool:
    return one.cell.row == row and one.cell.column in places


def _mean(one: CellOutcome) -> float | None:
    found = one.found
    return found.mean if found and found.mean is not None and math.isfinite(found.mean) else None


def _crosses(lines: Sequence[_Line]) -> dict[tuple[int, float], int]:
    """For each line and place without a mean, in which row its cross is: those at one place go below each other."""
    taken = Counter[float]()
    found = {}
    for number, line in enumerate(lines):
        for x in line.diverged:
            found[number, x] = min(taken[x], _MOST_ROWS - 1)
            taken[x] += 1
    return found


def _upwards(lines: Sequence[_Line], figure: Figure, *, num_rows: int) -> Extent:
    values = [value for line in lines for _, value in [*line.measured, *line.published]]
    ends = [end for line in lines for _, low, high in line.bars for end in (low, high)]
    shown = extent([*values, *ends], scale="log" if figure.log_y else "linear")
    room = _ROOM * num_rows
    return shown.widened(above=room) if figure.best == "min" else shown.widened(below=room)


def _draw(
    lines: Sequence[_Line], figure: Figure, *, y: Extent, crosses: Mapping[tuple[int, float], int]
) -> dict[str, Any]:
    x = extent(
        [place for line in lines for place in line.cells], scale="log" if figure.log_x else "linear", margin=0.03
    )
    palette = Palette(line.row for line in lines)
    keys = [Key(label=line.row, style=palette.style(line.row), kind="both") for line in lines]
    if any(line.published for line in lines):
        keys.append(PUBLISHED)
    series = []
    with new_page(figure.name, height=3.0, keys=keys) as page:
        axes = page.axes[0][0]
        panel = frame(page, axes, x=(figure.x, x), y=(figure.y, y), most=8)
        for number, line in enumerate(lines):
            gid, style = element(number, 0), palette.style(line.row)
            ids = _draw_line(axes, line, style=style, gid=gid)
            own = [(place, row) for (other, place), row in crosses.items() if other == number]
            if own:
                heights = [_ROOM * (row + 0.5) for _, row in own]
                at = [y.at(1.0 - height if figure.best == "min" else height) for height in heights]
                ids.append(f"{gid}-failed")
                draw_crosses(axes, [place for place, _ in own], at, colour=style.colour, gid=ids[-1])
            points = line.measured or line.published
            series.append(Series(label=line.row, colour=style.colour, elements=ids, points=[points]))
        if PUBLISHED in keys:
            hollow_key(page)
        svg, png = render(page)
    return {"svg": svg, "png": png, "panels": [panel], "series": series}


def _draw_line(axes: "Axes", line: _Line, *, style: Style, gid: str) -> list[str]:
    """What is measured and what is published; the ids of what there is."""
    ids = []
    if line.published:
        ids.append(f"{gid}-published")
        hollow(axes, line.published, style=style, gid=ids[-1], dashes=PUBLISHED.style.dashes)
    if line.measured:
        ids.append(gid)
        axes.plot(*zip(*line.measured, strict=True), color=style.colour, marker=style.marker, markersize=4.0, gid=gid)
    if line.bars:
        ids.append(f"{gid}-bars")
        axes.vlines(*zip(*line.bars, strict=True), color=style.colour, linewidth=1.0, alpha=0.8, gid=ids[-1])
    return ids


def hollow(axes: "Axes", points: Points, *, style: Style, gid: str, dashes: Any = "none") -> None:
    """Draw what is published: hollow markers, larger than those of what is measured."""
    axes.plot(
        *zip(*points, strict=True),
        color=style.colour,
        linestyle=dashes,
        linewidth=0.9,
        marker=style.marker,
        markersize=7.0,
        markerfacecolor="none",
        markeredgewidth=1.1,
        zorder=3.5,
        gid=gid,
    )


def hollow_key(page: Page) -> None:
    """Make the marker of the legend's last entry hollow, too."""
    handle: Any = page.figure.legends[0].legend_handles[-1]
    handle.set(markerfacecolor="none", markersize=6.0, markeredgewidth=1.1, linewidth=0.9)


def over(counts: Sequence[int]) -> str:
    """Over how many seeds: `over 3 to 5 seeds`."""
    known = sorted(set(counts))
    if len(known) < 2:
        return f"over {words.counted(known[0] if known else 0, 'seed')}"
    return f"over {known[0]} to {known[-1]} seeds"


def _caption(lines: Sequence[_Line], figure: Figure, *, left_out: Sequence[str]) -> str:
    measured = [one for line in lines for one in line.cells.values() if one.found and _mean(one) is not None]
    seeds = [one.found.num_values for one in measured if one.found and not one.cell.check.measure.compute]
    edge = "top" if figure.best == "min" else "bottom"
    return sentences(
        "Filled and solid: the mean" + (f" {over(seeds)}" if seeds else " as computed"),
        "Bars are Student's interval at 95 %" if any(line.bars for line in lines) else "",
        "Hollow and dashed: as published" if any(line.published for line in lines) else "",
        f"{CROSS} at the {edge}: diverged, or never got there" if any(line.diverged for line in lines) else "",
        f"Not drawn, for their names are no numbers: columns {listed(left_out)}" if left_out else "",
    )


def _numbers(lines: Sequence[_Line]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "row": line.row,
                "x": x,
                "mean": None if one.found is None else one.found.mean,
                "low": None if one.found is None else one.found.low,
                "high": None if one.found is None else one.found.high,
                "num_seeds": 0 if one.found is None else one.found.num_values,
                "has_diverged": x in line.diverged,
                "published": one.cell.check.published,
                "published_spread": one.cell.check.spread,
                "verdict": one.found.verdict.value if one.found and one.found.verdict else "",
            }
            for line in lines
            for x, one in line.cells.items()
        ]
    )
