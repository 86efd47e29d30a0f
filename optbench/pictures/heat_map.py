"""Learning rate and weight decay together: the first metric at each pair, a map for each optimizer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from optbench.contest import Contender, Contest
from optbench.pictures.choices import best_by, estimate_of, shown, told
from optbench.pictures.colours import Colours, colours, draw_bar
from optbench.pictures.drawing import Margins, new_page, render, shown_name
from optbench.pictures.ink import GREY, LIGHT, ink_on
from optbench.pictures.phrases import CROSS, cut, failed, listed, seeds, sentences
from optbench.pictures.picture import Picture
from optbench.pictures.scales import Extent, plain
from optbench.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_IN_WORDS = 8  # columns or rows of cells with a number in each
MOST_MAPS = 6  # of the optimizers that do best
# A search that draws its values at random fills hardly any of the pairs.
_LEAST_FILLED = 0.4
_MOST_TICKS, _MOST_BESIDE = 8, 6
_ROW = 0.38  # inches, of a row of cells
_LEAST_HEIGHT, _MOST_HEIGHT = 1.1, 2.4


@dataclass(frozen=True, kw_only=True)
class _Map:
    contender: Contender
    cells: Mapping[tuple[float, float], Sequence[Row]]

    @property
    def rates(self) -> list[float]:
        return sorted({rate for rate, _ in self.cells})

    @property
    def decays(self) -> list[float]:
        return sorted({decay for _, decay in self.cells})

    @property
    def is_map(self) -> bool:
        num_pairs = len(self.rates) * len(self.decays)
        return len(self.rates) > 1 and len(self.decays) > 1 and len(self.cells) >= _LEAST_FILLED * num_pairs


def pictures(contest: Contest, *, slug: str) -> list[Picture]:
    """The maps of a task; none where no optimizer has at least two rates, each with several weight decays.

    Args:
        contest: of the task.
        slug: of the task, for names of files.
    """
    maps = []
    for contender in contest.contenders:
        pairs = best_by(contender, "lr", "weight_decay")
        one = _Map(
            contender=contender,
            cells={(rate, decay): rows for (rate, decay), rows in pairs.items() if rate > 0.0 and decay >= 0.0},
        )
        if one.is_map:
            maps.append(one)
    means = [found.mean for one in maps for rows in one.cells.values() if (found := estimate_of(rows[0], contest))]
    if not means:
        return []
    drawn = maps[:MOST_MAPS]
    y, is_cut = shown(contest, means, margin=0.0)
    left_out = [one.contender.optimizer for one in maps[MOST_MAPS:]]
    name = f"heat_map_{slug}"
    return [
        Picture(
            **_draw(contest, drawn, y=y, name=name),
            name=name,
            title=f"Learning rate and weight decay on {contest.task}",
            caption=_caption(contest, drawn, y=y if is_cut else None, left_out=left_out),
            task=contest.task,
            numbers=_numbers(contest, drawn),
        )
    ]


def _draw(contest: Contest, maps: Sequence[_Map], *, y: Extent, name: str) -> dict[str, Any]:
    scale = colours(y, direction=contest.direction, label=contest.metric)
    columns = 2 if len(maps) > 1 else 1
    rows = math.ceil(len(maps) / columns)
    room = Margins(top=0.3, under=0.62, between=0.75, right=1.0 if columns == 2 else 3.6)
    height = min(max(_ROW * max(len(one.decays) for one in maps), _LEAST_HEIGHT), _MOST_HEIGHT)
    with new_page(name, height=height, rows=rows, columns=columns, margins=room) as page:
        for place in range(rows * columns):
            axes = page.axes[place // columns][place % columns]
            if place < len(maps):
                _map(axes, contest, maps[place], scale=scale)
            else:
                axes.set_axis_off()
        draw_bar(page, scale)
        svg, png = render(page)
    return {"svg": svg, "png": png}


def _map(axes: "Axes", contest: Contest, one: _Map, *, scale: Colours) -> None:
    from matplotlib.patches import Rectangle

    rates, decays = one.rates, one.decays
    means = np.full((len(decays), len(rates)), math.nan)
    best: tuple[int, int] | None = None
    for (rate, decay), own in one.cells.items():
        place = decays.index(decay), rates.index(rate)
        if (found := estimate_of(own[0], contest)) is not None:
            means[place] = found.mean
        if own[0] is one.contender.best and found is not None:
            best = place
    if best is None and np.isfinite(means).any():
        signed = contest.sign * np.where(np.isfinite(means), means, contest.sign * math.inf)
        best = (int(signed.argmin()) // len(rates), int(signed.argmin()) % len(rates))
    edges = [np.arange(len(values) + 1) - 0.5 for values in (rates, decays)]
    axes.pcolormesh(
        *edges,
        np.ma.masked_invalid(means),
        cmap=scale.map,
        norm=scale.norm,
        edgecolors=LIGHT,
        linewidth=0.8,
    )
    in_words = max(len(rates), len(decays)) <= MOST_IN_WORDS
    for (rate, decay), own in one.cells.items():
        row, column = decays.index(decay), rates.index(rate)
        if math.isnan(means[row, column]):
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(
                Rectangle(corner, 1.0, 1.0, facecolor="none", edgecolor=GREY, hatch="////", linewidth=0.0, alpha=0.6)
            )
        _words(axes, own[0], (column, row, float(means[row, column])), scale=scale, in_words=in_words)
    if best is not None:
        corner = (best[1] - 0.5, best[0] - 0.5)
        axes.add_patch(Rectangle(corner, 1.0, 1.0, facecolor="none", edgecolor="#d6304a", linewidth=1.8, clip_on=False))
    for axis, values, label in ((axes.xaxis, rates, "learning rate"), (axes.yaxis, decays, "weight decay")):
        # Beside each other there is room for fewer than one above the other.
        stride = math.ceil(len(values) / (_MOST_BESIDE if axis is axes.xaxis else _MOST_TICKS))
        axis.set_ticks(
            list(range(0, len(values), stride)), [plain(value, digits=3) for value in values[::stride]], fontsize=7.0
        )
        axis.set_label_text(label)
    axes.tick_params(length=0)
    axes.set_title(shown_name(one.contender.optimizer, 48))
    for spine in axes.spines.values():
        spine.set_visible(False)


def _words(axes: "Axes", row: Row, cell: tuple[int, int, float], *, scale: Colours, in_words: bool) -> None:
    """The number of a cell, and how many of its trials failed."""
    column, line, mean = cell
    num_failed = sum(row.failures.values())
    if math.isnan(mean):
        axes.text(column, line, CROSS, ha="center", va="center", fontsize=9.0, color=GREY, fontweight="bold")
        return
    ink = ink_on(scale.map(scale.norm(mean)))
    if in_words:
        axes.text(
            column, line, plain(mean, digits=3, is_padded=True), ha="center", va="center", fontsize=6.5, color=ink
        )
    if num_failed:
        words = f"{num_failed}{CROSS}" if in_words else CROSS
        axes.text(column + 0.46, line - 0.46, words, ha="right", va="bottom", fontsize=5.5, color=ink)


def _caption(contest: Contest, maps: Sequence[_Map], *, y: Extent | None, left_out: Sequence[str]) -> str:
    rows = [own[0] for one in maps for own in one.cells.values()]
    ended = failed(rows)
    edge = "" if y is None else cut(contest.metric, y.high if contest.sign > 0.0 else y.low, sign=contest.sign)
    return sentences(
        f"The mean of {shown_name(contest.metric)} over {seeds(rows)} at each pair",
        "The best pair of each optimizer has a frame",
        "Where several settings share a pair, it is the best of them"
        if any(len(own) > 1 for one in maps for own in one.cells.values())
        else "",
        f"{ended}: a number before {CROSS} is how many did, hatched is where all did"
        if ended
        else "No trial ended early",
        edge.replace("are not shown", "have the last colour"),
        "Blank pairs were not tried" if any(len(one.cells) < len(one.rates) * len(one.decays) for one in maps) else "",
        f"Not drawn: {listed(left_out)}" if left_out else "",
    )


def _numbers(contest: Contest, maps: Sequence[_Map]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "optimizer": one.contender.optimizer,
                "setting": own[0].setting_text,
                "lr": rate,
                "weight_decay": decay,
                "metric": contest.metric,
                **told(estimate_of(own[0], contest)),
                "num_failed": sum(own[0].failures.values()),
                "num_settings": len(own),
            }
            for one in maps
            for (rate, decay), own in one.cells.items()
        ]
    )
