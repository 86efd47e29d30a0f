"""How far each measured figure is from the published one, in parts of what is allowed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from optbench.papers import words
from optbench.papers.outcome import CellOutcome, Outcome
from optbench.papers.paper import Band, Table
from optbench.papers.sheets import has_columns
from optbench.papers.verdicts import Judgement, Verdict
from optbench.pictures.drawing import Key, Margins, Style, box, new_page, render, shown_name, text_size
from optbench.pictures.ink import GREY
from optbench.pictures.phrases import CROSS, sentences
from optbench.pictures.picture import Picture
from optbench.pictures.scales import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "departures"
MOST_LINES = 50  # in one picture
EDGE = 3.0  # what is further off is an arrow at the frame
STYLES = {
    Verdict.REPRODUCED: Style(colour="#3478d6", marker="o"),
    Verdict.NOT_REPRODUCED: Style(colour="#d6304a", marker="X"),
    Verdict.UNDERPOWERED: Style(colour="#e06c00", marker="^"),
}
_ALLOWED = Style(colour="#a9cdb6")
_BEYOND = EDGE + 0.22  # where the arrow is
_LIMIT = EDGE + 0.4
_ROW = 0.19  # inches, of a line
_SIZE = 7.5
_MOST_OF_LABEL, _MOST_OF_COLUMN, _MOST_OF_TITLE = 46, 18, 64  # letters
_LEFT, _RIGHT = 0.2, 1.62  # inches: beside the labels, and for two columns of numbers
_LEAST_LEFT = 60.0  # points, for labels; titles of tables go on over the frame
_COLUMNS = (8.0, 62.0)  # points from the axes
_HEADING = 1.3  # lines that the title of a table takes


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A cell with its departure and the ends of the interval, in parts of the tolerance; NaN where there is no mean."""

    cell: CellOutcome
    found: Judgement
    verdict: Verdict
    at: float
    low: float | None
    high: float | None


def pictures(outcome: Outcome) -> list[Picture]:
    """The picture, or several where there are many cells; none where no cell is held against a figure."""
    asked = [one for one in outcome.cells if one.cell.check.band is not None and not one.cell.check.band.is_one_sided]
    lines = [line for one in asked if (line := _line(one)) is not None]
    groups = _pages(lines)
    is_grouped = len({line.cell.table.name for line in lines}) > 1
    return [
        Picture(
            **_draw(group, name=name, is_grouped=is_grouped),
            name=name,
            title="How far each figure is from the published one"
            + (f" ({place} of {len(groups)})" if len(groups) > 1 else ""),
            caption=_caption(group, num_missing=len(asked) - len(lines)),
            task=None,
            numbers=_numbers(group),
        )
        for place, group in enumerate(groups, 1)
        for name in [NAME if place == 1 else f"{NAME}_{place}"]
    ]


def _line(one: CellOutcome) -> _Line | None:
    band, found = one.cell.check.band, one.found
    if band is None or found is None or found.verdict not in STYLES:
        return None
    ends = [None if end is None or math.isnan(end) else _parts(end, band) for end in (found.low, found.high)]
    at = math.nan if found.mean is None else _parts(found.mean, band)
    return _Line(cell=one, found=found, verdict=found.verdict, at=at, low=ends[0], high=ends[1])


def _parts(value: float, band: Band) -> float:
    """How far a value is from the middle of the band, in halves of its width."""
    middle, half = (band.low + band.high) / 2.0, (band.high - band.low) / 2.0
    if value == middle:
        return 0.0
    return (value - middle) / half if half else math.copysign(math.inf, value - middle)


def _pages(lines: Sequence[_Line]) -> list[list[_Line]]:
    """Parts of at most `MOST_LINES`, tables kept together where that is possible."""
    by_table: dict[str, list[_Line]] = {}
    for line in lines:
        by_table.setdefault(line.cell.table.name, []).append(line)
    pages: list[list[_Line]] = []
    for own in by_table.values():
        if pages and len(pages[-1]) + len(own) <= MOST_LINES:
            pages[-1] += own
            continue
        num_parts = math.ceil(len(own) / MOST_LINES)
        size = math.ceil(len(own) / num_parts)
        pages += [own[start : start + size] for start in range(0, len(own), size)]
    return pages


def _draw(lines: Sequence[_Line], *, name: str, is_grouped: bool) -> dict[str, Any]:
    from matplotlib.ticker import FixedLocator

    places, headings, depth = _places(lines, is_grouped=is_grouped)
    keys = [
        *(Key(label=verdict.value, style=style, kind="point") for verdict, style in STYLES.items()),
        Key(label="allowed", style=_ALLOWED, kind="area"),
    ]
    labels = [_label(line.cell) for line in lines]
    titles = {y: shown_name(table.title, _MOST_OF_TITLE) for y, table in headings.items()}
    widest = max(_LEAST_LEFT, *(text_size(text, _SIZE)[0] for text in labels))
    room = Margins(left=widest / 72.0 + _LEFT, right=_RIGHT, top=0.3)
    with new_page(name, height=_ROW * depth, margins=room, keys=keys) as page:
        axes = page.axes[0][0]
        width = box(page, axes)[2]
        axes.set(xlim=(-_LIMIT, _LIMIT), ylim=(depth, 0.0))
        axes.set_xlabel("from the published figure, in parts of what is allowed")
        axes.xaxis.set_major_locator(FixedLocator([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]))
        axes.grid(visible=True, axis="x", color="#a0a0a0", alpha=0.3, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.axvspan(-1.0, 1.0, color=_ALLOWED.colour, alpha=0.35, linewidth=0.0, zorder=0.2)
        axes.axvline(0.0, color=GREY, linewidth=0.8, zorder=0.5)
        axes.spines["left"].set_visible(False)
        axes.set_yticks(places, labels, fontsize=_SIZE)
        axes.tick_params(axis="y", length=0)
        transform = axes.get_yaxis_transform()
        columns = [1.0 + points / width for points in _COLUMNS]
        for x, text in zip(columns, ("measured", "published"), strict=True):
            axes.text(x, -0.1, text, transform=transform, va="bottom", fontsize=_SIZE, color=GREY)
        for y, title in titles.items():
            axes.text(
                -(widest + 5.0) / width,
                y,
                title,
                transform=transform,
                va="center_baseline",
                fontsize=_SIZE,
                weight="bold",
            )
        for line, y in zip(lines, places, strict=True):
            _draw_line(axes, line, y)
            for x, text in zip(columns, _figures(line), strict=True):
                axes.text(x, y, shown_name(text, 13), transform=transform, va="center_baseline", fontsize=_SIZE)
        svg, png = render(page)
    return {"svg": svg, "png": png}


def _label(one: CellOutcome) -> str:
    if not has_columns(one.table):
        return shown_name(one.cell.row, _MOST_OF_LABEL)
    column = f" · {shown_name(one.cell.column, _MOST_OF_COLUMN)}"
    return shown_name(one.cell.row, _MOST_OF_LABEL - len(column)) + column


def _places(lines: Sequence[_Line], *, is_grouped: bool) -> tuple[list[float], dict[float, Table], float]:
    """Where each line and the title of each table is, downwards, and how far down that goes."""
    places: list[float] = []
    headings: dict[float, Table] = {}
    depth, before = 0.0, ""
    for line in lines:
        if is_grouped and line.cell.table.name != before:
            headings[depth + _HEADING - 0.55] = line.cell.table
            depth += _HEADING
        places.append(depth + 0.5)
        depth, before = depth + 1.0, line.cell.table.name
    return places, headings, depth


def _draw_line(axes: "Axes", line: _Line, y: float) -> None:
    style = STYLES[line.verdict]
    if math.isnan(line.at):
        axes.plot([_BEYOND], [y], color=style.colour, marker="x", markersize=6.0, markeredgewidth=1.6, linestyle="none")
        text = words.measured_words(line.found, line.cell.table.digits)
        axes.text(
            _BEYOND - 0.25, y, shown_name(text), ha="right", va="center_baseline", fontsize=_SIZE, color=style.colour
        )
        return
    if line.low is not None and line.high is not None:
        ends = [min(max(end, -EDGE), EDGE) for end in (line.low, line.high)]
        axes.plot(ends, [y, y], color=style.colour, linewidth=1.4, solid_capstyle="butt")
        for end, side in ((line.low, -1.0), (line.high, 1.0)):
            if side * end > EDGE:
                _arrow(axes, (side, y), style)
    if abs(line.at) <= EDGE:
        axes.plot([line.at], [y], color=style.colour, marker=style.marker, markersize=5.0, linestyle="none", zorder=3.0)
        return
    side = math.copysign(1.0, line.at)
    _arrow(axes, (side, y), style)
    axes.plot([side * EDGE], [y], color=style.colour, marker=style.marker, markersize=5.0, linestyle="none", zorder=3.0)
    near = line.at if line.low is None or line.high is None else min(side * line.low, side * line.high)
    if math.isfinite(line.at) and abs(near) > EDGE:  # else the bar is there
        away = f"{side * float(f'{abs(line.at):.2g}'):+.0f}" if abs(line.at) >= 10.0 else f"{line.at:+.1f}"
        if abs(line.at) >= 1e4:
            away = f"{'+' if side > 0.0 else ''}{plain(line.at, digits=2)}"
        align = "right" if side > 0.0 else "left"
        axes.text(side * (EDGE - 0.2), y - 0.02, away, ha=align, va="center_baseline", fontsize=6.5, color=style.colour)


def _arrow(axes: "Axes", place: tuple[float, float], style: Style) -> None:
    """At the frame, on the side of this sign."""
    side, y = place
    axes.plot(
        [side * _BEYOND], [y], color=style.colour, marker=">" if side > 0.0 else "<", markersize=5.0, linestyle="none"
    )


def _figures(line: _Line) -> tuple[str, str]:
    """What was measured and published, in few characters."""
    digits, mean = line.cell.table.digits, line.found.mean
    return words.figure_words(mean, digits), words.figure_words(line.cell.cell.check.published, digits)


def _caption(lines: Sequence[_Line], *, num_missing: int) -> str:
    seeds = sorted({line.found.num_values for line in lines if not line.cell.cell.check.measure.compute})
    over = "" if not seeds else f" over {seeds[0]}" + (f" to {seeds[-1]}" if len(seeds) > 1 else "")
    over += "" if not seeds else " seed" if seeds == [1] else " seeds"
    has_bars = any(line.low is not None for line in lines)
    is_far = any(not abs(end) <= EDGE for line in lines for end in (line.at, line.low, line.high) if end is not None)
    return sentences(
        f"The mean{over} of each cell, from the published figure or the middle of what is allowed, whose edges are -1 "
        "and 1",
        "The bar is Student's interval at 95 %: reproduced is what lies within, not reproduced what lies outside, and "
        "underpowered what has an end on each side"
        if has_bars
        else "",
        f"Arrows and {CROSS} at the frame are further off than {EDGE:g}" if is_far else "",
        f"Not drawn, for nothing was measured: {words.counted(num_missing, 'cell')}" if num_missing else "",
    )


def _numbers(lines: Sequence[_Line]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "table": line.cell.table.name,
                "row": line.cell.cell.row,
                "column": line.cell.cell.column,
                "departure": line.at,
                "departure_low": line.low,
                "departure_high": line.high,
                "mean": line.found.mean,
                "published": line.cell.cell.check.published,
                "num_seeds": line.found.num_values,
                "verdict": line.verdict.value,
            }
            for line in lines
        ]
    )
