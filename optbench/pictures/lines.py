"""How the mean of curves is drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optbench.pictures.averages import Average
from optbench.pictures.drawing import Style
from optbench.pictures.scales import Extent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_crosses(axes: "Axes", x: Sequence[float], y: Sequence[float], *, colour: str, gid: str) -> None:
    """Mark settings of which trials failed."""
    axes.plot(*(x, y), color=colour, linestyle="none", marker="x", markersize=6.0, markeredgewidth=1.6, gid=gid)


def mean_line(
    axes: "Axes", one: Average, clock: str, *, style: Style, gid: str, zorder: float, shown: Extent
) -> list[str]:
    """Draw the mean, its band and a cross where a trial ended early; the ids of what there is.

    Args:
        axes: to draw on.
        one: what to draw.
        clock: what goes to the right.
        style: of the line.
        gid: of the line; those of band and crosses begin with it.
        zorder: what is higher is drawn above.
        shown: upwards; crosses beyond it are at its edge.
    """
    x = one.clocks[clock]
    ids = [gid]
    marker = style.marker if len(x) <= 12 else None
    axes.plot(
        *(x, one.mean),
        color=style.colour,
        linestyle=style.dashes,
        marker=marker,
        markersize=3.0,
        zorder=zorder,
        gid=gid,
    )
    if not one.is_single:
        ids.append(f"{gid}-band")
        axes.fill_between(
            x, one.low, one.high, color=style.colour, alpha=0.16, linewidth=0.0, zorder=zorder - 1.0, gid=ids[-1]
        )
    if one.ends:
        ids.append(f"{gid}-ends")
        axes.plot(
            [end.clocks[clock] for end in one.ends],
            [shown.clip(end.value) for end in one.ends],
            color=style.colour,
            linestyle="none",
            marker="x",
            markersize=6.0,
            markeredgewidth=1.6,
            clip_on=False,
            zorder=4.0,
            gid=ids[-1],
        )
    return ids
