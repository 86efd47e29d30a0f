"""What the memory of a step at its peak is made of, a bar for each optimizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from optbench.contest import Contender, Contest
from optbench.cost import Memory
from optbench.pictures.drawing import Key, Margins, Style, new_page, render, shown_name
from optbench.pictures.phrases import listed, sentences
from optbench.pictures.picture import Picture
from optbench.pictures.scales import Extent, in_unit, plain

MOST_BARS = 24
_ROW = 0.26  # inches
# In the order in which they are stacked: what an optimizer decides on comes last.
COLOURS = {
    "parameters": "#3478d6",
    "frozen": "#737b87",
    "batch": "#97603a",
    "activations": "#7f9400",
    "workspace": "#b8860b",
    "gradients": "#0e98b0",
    "state": "#e06c00",
    "transient": "#d6304a",
}
_OTHER = "#a0408c"


@dataclass(frozen=True, kw_only=True)
class _Bar:
    contender: Contender
    memory: Memory

    @property
    def label(self) -> str:
        name = shown_name(self.contender.optimizer)
        return name if self.memory.kind == "measured" else f"{name} (predicted)"


def pictures(contest: Contest, *, slug: str) -> list[Picture]:
    """The parts of the peak; none where no cost is known.

    Args:
        contest: of the task.
        slug: of the task, for names of files.
    """
    bars = [
        _Bar(contender=one, memory=memory)
        for one in contest.contenders
        if (memory := _memory(one)) is not None and memory.peak_bytes > 0
    ]
    if not bars:
        return []
    bars.sort(key=lambda bar: (bar.memory.peak_bytes, bar.contender.optimizer))
    drawn = bars[:MOST_BARS]
    name = f"memory_{slug}"
    return [
        Picture(
            **_draw(drawn, name=name),
            name=name,
            title=f"Peak memory on {contest.task}",
            caption=_caption(contest, bars),
            task=contest.task,
            numbers=_numbers(bars),
        )
    ]


def _memory(contender: Contender) -> Memory | None:
    cost = contender.best.cost
    return None if cost is None else cost.memory or cost.predicted


def _parts(bars: Sequence[_Bar]) -> list[str]:
    """The parts that any bar has, in the order in which they are stacked."""
    there = {part: None for bar in bars for part, size in bar.memory.peak_parts.items() if size > 0}
    return [part for part in COLOURS if part in there] + [part for part in there if part not in COLOURS]


def _draw(bars: Sequence[_Bar], *, name: str) -> dict[str, Any]:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    parts = _parts(bars)
    keys = [Key(label=part, style=Style(colour=COLOURS.get(part, _OTHER)), kind="area") for part in parts]
    largest = max(bar.memory.peak_bytes for bar in bars)
    unit, size = in_unit(largest)
    room = Margins(left=0.3 + 0.075 * max(len(bar.label) for bar in bars), right=0.3)
    with new_page(name, height=max(_ROW * len(bars), 0.6), margins=room, keys=keys) as page:
        axes = page.axes[0][0]
        shown = Extent(low=0.0, high=1.12 * largest / size)
        starts = [0.0] * len(bars)
        for part in parts:
            widths = [bar.memory.peak_parts.get(part, 0) / size for bar in bars]
            axes.barh(
                range(len(bars)), widths, left=starts, height=0.72, color=COLOURS.get(part, _OTHER), linewidth=0.0
            )
            starts = [start + width for start, width in zip(starts, widths, strict=True)]
        for row, bar in enumerate(bars):
            total = bar.memory.peak_bytes / size
            axes.text(total + 0.008 * shown.high, row, plain(total, digits=3), va="center", fontsize=8.0)
        axes.set(xlim=(shown.low, shown.high), ylim=(len(bars) - 0.5, -0.5), xlabel=f"peak memory of a step ({unit})")
        ticks = shown.ticks(7)
        axes.xaxis.set_major_locator(FixedLocator([value for value, _ in ticks]))
        axes.xaxis.set_major_formatter(FixedFormatter([word for _, word in ticks]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        svg, png = render(page)
    return {"svg": svg, "png": png}


def _caption(contest: Contest, bars: Sequence[_Bar]) -> str:
    drawn, left_out = bars[:MOST_BARS], [bar.contender.optimizer for bar in bars[MOST_BARS:]]
    without = [one.optimizer for one in contest.contenders if one not in [bar.contender for bar in bars]]
    counted = {bar.memory.counted for bar in bars}
    return sentences(
        f"What is alive when a training step takes most, for the best setting of {len(drawn)} "
        f"optimizer{'s' if len(drawn) > 1 else ''}",
        "Each was gone through once and alone, so that there are no seeds and no failures",
        "Counted are tensors, not the workspace inside a kernel" if counted == {"tensors"} else "",
        "(predicted) is without data and not measured" if any(bar.memory.kind == "predicted" for bar in drawn) else "",
        f"Not drawn, for they take more: {listed(left_out)}" if left_out else "",
        f"Not drawn, for no cost is known: {listed(without)}" if without else "",
    )


def _numbers(bars: Sequence[_Bar]) -> pd.DataFrame:
    parts = _parts(bars)
    return pd.DataFrame(
        [
            {
                "optimizer": bar.contender.optimizer,
                "setting": bar.contender.best.setting_text,
                "kind": bar.memory.kind,
                "counted": bar.memory.counted,
                **{f"{part}_bytes": bar.memory.peak_parts.get(part, 0) for part in parts},
                "peak_bytes": bar.memory.peak_bytes,
            }
            for bar in bars
        ]
    )
