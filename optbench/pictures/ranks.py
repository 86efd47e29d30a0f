"""Ranks of optimizers by task, and their means over tasks."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from optbench.aggregate import Aggregate
from optbench.pictures.drawing import Margins, Palette, frame, new_page, render, shown_name
from optbench.pictures.ink import LIGHT, ink_on
from optbench.pictures.phrases import listed, sentences
from optbench.pictures.picture import Picture
from optbench.pictures.scales import Extent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_TASKS = 16
_ROW = 0.27  # inches


def pictures(aggregate: Aggregate, *, palette: Palette) -> list[Picture]:
    """The ranks; none where there is nothing to compare.

    Args:
        aggregate: over tasks.
        palette: of the report.
    """
    if not aggregate.optimizers or not aggregate.tasks:
        return []
    return [
        Picture(
            **_draw(aggregate, palette),
            name="ranks",
            title="Ranks over tasks",
            caption=_caption(aggregate),
            task=None,
            numbers=_numbers(aggregate),
        )
    ]


def _place(aggregate: Aggregate, optimizer: str, task: str) -> tuple[int, str]:
    """The first of the places that an optimizer shares, and how it is written: `1`, or `2=` where it shares any."""
    rank = aggregate.ranks[optimizer][task]
    count = Counter(own[task] for own in aggregate.ranks.values())[rank]
    place = round(rank - (count - 1) / 2.0)
    return place, f"{place}{'=' if count > 1 else ''}"


def _draw(aggregate: Aggregate, palette: Palette) -> dict[str, Any]:
    names, tasks = aggregate.optimizers, aggregate.tasks[:MOST_TASKS]
    labels = [shown_name(task, 24) for task in tasks]
    longest = max(map(len, labels))
    is_slanted = longest * 0.085 > 4.4 / len(tasks)
    top = 0.25 + (min(longest, 24) * 0.055 if is_slanted else 0.0)
    left = 0.35 + 0.075 * max(len(shown_name(name)) for name in names)
    room = Margins(
        left=left, top=top, bottom=0.46, right=0.3 + (0.5 if is_slanted else 0.0), between=0.25, widths=(5.0, 3.0)
    )
    with new_page("ranks", height=max(_ROW * len(names), 0.6), columns=2, margins=room) as page:
        cells, means = page.axes[0]
        _cells(cells, aggregate, tasks)
        cells.set_yticks(range(len(names)), [shown_name(name) for name in names])
        cells.set_xticks(
            range(len(tasks)),
            labels,
            rotation=30 if is_slanted else 0,
            ha="left" if is_slanted else "center",
            rotation_mode="anchor",
        )
        cells.xaxis.tick_top()
        cells.tick_params(length=0)
        for spine in cells.spines.values():
            spine.set_visible(False)
        # What decides on numbers along an axis knows upright axes alone: the rows are counted from below.
        x = Extent(low=0.8, high=len(names) + 0.2)
        y = Extent(low=-0.5, high=len(names) - 0.5, is_whole=True)
        frame(page, means, x=("mean rank", x), y=("", y), most=5)
        means.invert_yaxis()
        means.set_yticks(range(len(names)), [""] * len(names))
        means.tick_params(axis="y", length=0)
        for row, name in enumerate(names):
            found, colour = aggregate.mean_ranks[name], palette.style(name).colour
            if found.low is not None and found.high is not None:
                means.hlines(row, found.low, found.high, color=colour, linewidth=1.6)
            means.plot([found.mean], [row], marker="o", markersize=5.0, color=colour)
        svg, png = render(page)
    return {"svg": svg, "png": png}


def _cells(axes: "Axes", aggregate: Aggregate, tasks: Sequence[str]) -> None:
    import matplotlib as mpl

    names = aggregate.optimizers
    places = [[_place(aggregate, name, task) for task in tasks] for name in names]
    colours = mpl.colormaps["viridis_r"]
    edges = [np.arange(count + 1) - 0.5 for count in (len(tasks), len(names))]
    numbers = np.array([[place for place, _ in row] for row in places])
    axes.pcolormesh(*edges, numbers, cmap=colours, vmin=1.0, vmax=max(len(names), 2), edgecolors=LIGHT, linewidth=0.8)
    axes.invert_yaxis()
    for row, own in enumerate(places):
        for column, (place, word) in enumerate(own):
            ink = ink_on(colours((place - 1.0) / max(len(names) - 1.0, 1.0)))
            axes.text(column, row, word, ha="center", va="center", fontsize=8.0, color=ink)


def _caption(aggregate: Aggregate) -> str:
    num_failed, num_trials = sum(aggregate.num_failed.values()), sum(aggregate.num_trials.values())
    left_out = [f"{shown_name(name, 60)} ({why})" for name, why in aggregate.left_out.items()]
    return sentences(
        f"The place of each optimizer's best setting on each of {len(aggregate.tasks)} tasks",
        "= is where seeds cannot tell it from others, which then share the mean of their places",
        "To the right the mean rank, with the 95 % bootstrap interval over tasks",
        f"{num_failed} of {num_trials} trials of these settings ended early" if num_failed else "No trial ended early",
        f"Of the tasks the first {MOST_TASKS} are drawn" if len(aggregate.tasks) > MOST_TASKS else "",
        f"Not compared: {listed(left_out)}" if left_out else "",
    )


def _numbers(aggregate: Aggregate) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "optimizer": name,
                **{f"rank.{task}": rank for task, rank in aggregate.ranks[name].items()},
                "mean_rank": aggregate.mean_ranks[name].mean,
                "low": aggregate.mean_ranks[name].low,
                "high": aggregate.mean_ranks[name].high,
                "num_failed": aggregate.num_failed.get(name, 0),
            }
            for name in aggregate.optimizers
        ]
    )
