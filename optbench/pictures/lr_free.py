"""What methods without a learning rate come to: the rate that they take, and their estimate of the distance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from optbench.component import Capability
from optbench.contest import Contender, Contest
from optbench.curves import Curves
from optbench.pictures.averages import Average, average
from optbench.pictures.drawing import Key, Margins, Palette, Style, element, frame, new_page, render
from optbench.pictures.lines import mean_line
from optbench.pictures.phrases import CROSS, INTERVAL, failed, seeds, sentences
from optbench.pictures.picture import Panel, Picture, Series
from optbench.pictures.scales import extent
from optbench.tables import Row

COLUMNS: Mapping[str, str] = {"effective_lr": "learning rate taken", "d": "estimate d"}
MOST_SETTINGS = 8


@dataclass(frozen=True, kw_only=True)
class _Line:
    row: Row
    averages: Mapping[str, Average]
    label: str
    style: Style


def pictures(contest: Contest, *, slug: str, curves: Curves, palette: Palette) -> list[Picture]:
    """The rate and the estimate by step; none where no optimizer estimates any.

    Args:
        contest: of the task.
        slug: of the task, for names of files.
        curves: of its trials.
        palette: of the report.
    """
    names = [one.optimizer for one in contest.contenders if _is_free(one)]
    rows = [row for row in contest.rows if row.optimizer in names]
    found = [(row, averages) for row in rows[:MOST_SETTINGS] if (averages := _averages(curves, row))]
    if not found:
        return []
    lines = _lines(found, palette)
    columns = [name for name in COLUMNS if any(name in line.averages for line in lines)]
    estimating = [line for line in lines if "d" in line.averages]
    is_same = len(columns) > 1 and all(_is_same(line) for line in estimating)
    columns = columns[:1] if is_same else columns
    name = f"lr_free_{slug}"
    return [
        Picture(
            **_draw(lines, columns, name=name),
            name=name,
            title=f"Learning rates that methods find themselves on {contest.task}",
            caption=_caption(lines, is_same=is_same, num_left_out=len(rows) - len(rows[:MOST_SETTINGS])),
            task=contest.task,
            numbers=_numbers(lines),
        )
    ]


def _is_free(contender: Contender) -> bool:
    """As its file says: a column `d` is not enough, for other methods call other things so."""
    return Capability.LR_FREE in (contender.best.config["optimizer"].get("capabilities") or ())


def _is_same(line: _Line) -> bool:
    """Whether the rate is the estimate, as it is where `lr` is 1 throughout."""
    rate = line.averages.get("effective_lr")
    return rate is not None and np.allclose(rate.mean, line.averages["d"].mean, rtol=1e-9, atol=0.0)


def _averages(curves: Curves, row: Row) -> dict[str, Average]:
    own = curves.of(row)
    return {name: one for name in COLUMNS if (one := average(own, name)) is not None and (one.mean > 0.0).any()}


def _lines(found: Sequence[tuple[Row, Mapping[str, Average]]], palette: Palette) -> list[_Line]:
    """An optimizer with one setting has its colour and its name; settings have colours and words of their own."""
    num_settings = [sum(other.optimizer == row.optimizer for other, _ in found) for row, _ in found]
    is_plain = max(num_settings) == 1
    labels = [row.optimizer if is_plain else f"{row.optimizer} {row.setting_text}" for row, _ in found]
    places = Palette(str(place) for place in range(len(found)))
    styles = [palette.style(row.optimizer) if is_plain else places.style(str(n)) for n, (row, _) in enumerate(found)]
    return [
        _Line(row=row, averages=averages, label=label, style=style)
        for (row, averages), label, style in zip(found, labels, styles, strict=True)
    ]


def _draw(lines: Sequence[_Line], columns: Sequence[str], *, name: str) -> dict[str, Any]:
    keys = [Key(label=line.label, style=line.style) for line in lines]
    x = extent(
        [0.0, *(step for line in lines for one in line.averages.values() for step in one.clocks["step"].tolist())],
        margin=0.02,
    )
    panels: list[Panel] = []
    elements: list[list[str]] = [[] for _ in lines]
    points: list[list[list[tuple[float, float]]]] = [[] for _ in lines]
    with new_page(name, height=2.5, columns=len(columns), margins=Margins(between=0.8), keys=keys) as page:
        for panel, (axes, column) in enumerate(zip(page.axes[0], columns, strict=True)):
            averages = [line.averages.get(column) for line in lines]
            values = [
                value
                for one in averages
                if one is not None
                for values in (one.mean, one.low, one.high)
                for value in values.tolist()
            ]
            y = extent(values, scale="log")
            panels.append(frame(page, axes, x=("step", x), y=(COLUMNS[column], y), most=5))
            for place, one in enumerate(averages):
                points[place].append([])
                if one is None:
                    continue
                gid = element(place, panel)
                elements[place] += mean_line(
                    axes, one, "step", style=lines[place].style, gid=gid, zorder=3.0 - place / 100.0, shown=y
                )
                pairs = zip(one.clocks["step"].tolist(), one.mean.tolist(), strict=True)
                points[place][-1] = [(step, value) for step, value in pairs if value > 0.0]
        svg, png = render(page)
    series = [
        Series(label=line.label, colour=line.style.colour, elements=ids, points=own)
        for line, ids, own in zip(lines, elements, points, strict=True)
    ]
    return {"svg": svg, "png": png, "panels": panels, "series": series}


def _caption(lines: Sequence[_Line], *, is_same: bool, num_left_out: int) -> str:
    rows = [line.row for line in lines]
    ended = failed(rows)
    many = any(not one.is_single for line in lines for one in line.averages.values())
    return sentences(
        f"The learning rate that updates take, over {seeds(rows)}",
        "d estimates the distance to a solution" if any("d" in line.averages for line in lines) else "",
        "The two are the same number, drawn once" if is_same else "",
        "The line is the mean" + (f", the band is {INTERVAL}" if many else ""),
        f"{ended}: {CROSS} is where one did, and the mean goes on over the others" if ended else "No trial ended early",
        f"The best {len(lines)} settings are drawn, {num_left_out} are not" if num_left_out else "",
    )


def _numbers(lines: Sequence[_Line]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "optimizer": line.row.optimizer,
                "setting": line.row.setting_text,
                "column": column,
                "step": one.clocks["step"][place],
                "mean": one.mean[place],
                "low": one.low[place],
                "high": one.high[place],
                "n": int(one.num_seeds[place]),
                "num_failed": sum(line.row.failures.values()),
            }
            for line in lines
            for column, one in line.averages.items()
            for place in range(len(one.mean))
        ]
    )
