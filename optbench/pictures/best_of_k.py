"""What tuning buys: the best that is to be expected of so many settings, a line for each optimizer."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from optbench.contest import Contest
from optbench.effort import Effort, efforts
from optbench.pictures.choices import shown
from optbench.pictures.drawing import Key, Palette, element, frame, new_page, render, shown_name
from optbench.pictures.phrases import cut, listed, seeds, sentences
from optbench.pictures.picture import Picture, Series
from optbench.pictures.scales import Extent, extent


def pictures(contest: Contest, *, slug: str, palette: Palette) -> list[Picture]:
    """The expected best against the number of settings tried; none where no optimizer has three settings.

    Args:
        contest: of the task.
        slug: of the task, for names of files.
        palette: of the report.
    """
    found = efforts(contest)
    if not found:
        return []
    # The bands would leave the lines no room: they may run out of the picture.
    y, _ = shown(contest, [value for one in found for value in one.expected])
    is_cut = any(y.clip(value) != value for one in found for value in (*one.expected, *one.low, *one.high))
    name = f"best_of_k_{slug}"
    return [
        Picture(
            **_draw(contest, found, y=y, palette=palette, name=name),
            name=name,
            title=f"What tuning buys on {contest.task}",
            caption=_caption(contest, found, y=y if is_cut else None),
            task=contest.task,
            numbers=_numbers(contest, found),
        )
    ]


def _draw(contest: Contest, found: Sequence[Effort], *, y: Extent, palette: Palette, name: str) -> dict[str, Any]:
    most = max(len(one.scores) for one in found)
    x = extent([1.0, float(most)], scale="log" if most > 30 else "linear", margin=0.02, is_whole=True)
    styles = [palette.style(one.optimizer) for one in found]
    keys = [Key(label=one.optimizer, style=style) for one, style in zip(found, styles, strict=True)]
    series = []
    with new_page(name, height=3.0, keys=keys) as page:
        axes = page.axes[0][0]
        panel = frame(page, axes, x=("settings tried", x), y=(f"best {contest.metric}", y), most=8)
        for place, (one, style) in enumerate(zip(found, styles, strict=True)):
            ks = list(range(1, len(one.scores) + 1))
            line = element(place, 0)
            zorder = 3.0 - place / 100.0
            axes.plot(
                *(ks, one.expected),
                color=style.colour,
                linestyle=style.dashes,
                marker=style.marker if len(ks) <= 12 else None,
                markersize=3.0,
                zorder=zorder,
                gid=line,
            )
            band = f"{line}-band"
            axes.fill_between(
                *(ks, one.low, one.high), color=style.colour, alpha=0.12, linewidth=0.0, zorder=zorder - 1.0, gid=band
            )
            points = list(zip(map(float, ks), one.expected, strict=True))
            series.append(Series(label=one.optimizer, colour=style.colour, elements=[line, band], points=[points]))
        svg, png = render(page)
    return {"svg": svg, "png": png, "panels": [panel], "series": series}


def _absent(contest: Contest, names: Sequence[str]) -> str:
    absent = [one.optimizer for one in contest.contenders if one.optimizer not in names]
    return f"Not drawn, for too few settings were tried: {listed(absent)}" if absent else ""


def _caption(contest: Contest, found: Sequence[Effort], *, y: Extent | None) -> str:
    names = [one.optimizer for one in found]
    rows = [row for contender in contest.contenders if contender.optimizer in names for row in contender.rows]
    num_settings = sum(len(one.scores) for one in found)
    num_failed = sum(one.num_failed for one in found)
    instead = "no training" if contest.start is not None else "the worst mean"
    edge = "" if y is None else cut(contest.metric, y.high if contest.sign > 0.0 else y.low, sign=contest.sign)
    return sentences(
        f"The best {shown_name(contest.metric)} to be expected of k settings, if any k of those tried were drawn",
        "The band is from the 5th to the 95th percentile over draws; that seeds differ is not in it",
        f"The score of a setting is its mean over {seeds(rows)}",
        f"{num_failed} of {num_settings} settings had trials that ended early and count as {instead}"
        if num_failed
        else "No trial ended early",
        edge,
        _absent(contest, names),
    )


def _numbers(contest: Contest, found: Sequence[Effort]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "optimizer": one.optimizer,
                "metric": contest.metric,
                "k": place + 1,
                "expected": one.expected[place],
                "low": one.low[place],
                "high": one.high[place],
                "num_settings": len(one.scores),
                "num_failed": one.num_failed,
            }
            for one in found
            for place in range(len(one.scores))
        ]
    )
