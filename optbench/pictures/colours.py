"""The colour scale of a map, and the bar beside it that says what a colour stands for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from optbench.pictures.drawing import Page, shown_name
from optbench.pictures.scales import Extent

if TYPE_CHECKING:
    from matplotlib.colors import Colormap, Normalize


@dataclass(frozen=True, kw_only=True)
class Colours:
    """The colour scale of a picture.

    Attributes:
        map: from a part of the scale to a colour.
        norm: from a value to a part of the scale.
        shown: the values that it goes over.
        label: of what is coloured.
    """

    map: "Colormap"
    norm: "Normalize"
    shown: Extent
    label: str


def colours(shown: Extent, *, direction: Literal["min", "max"], label: str) -> Colours:
    """A scale on which the best is the brightest, whether that is the least or the most.

    Args:
        shown: the values that it goes over; what lies beyond has the last colour.
        direction: which is the best.
        label: of what is coloured.
    """
    import matplotlib as mpl
    from matplotlib.colors import LogNorm, Normalize

    return Colours(
        map=mpl.colormaps["viridis_r" if direction == "min" else "viridis"],
        norm=(LogNorm if shown.scale == "log" else Normalize)(vmin=shown.low, vmax=shown.high, clip=True),
        shown=shown,
        label=label,
    )


def draw_bar(page: Page, own: Colours) -> None:
    """Draw the colour scale to the right of the first row."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    last = page.axes[0][-1].get_position()
    width = float(page.figure.get_size_inches()[0])
    axes = page.figure.add_axes((last.x1 + 0.2 / width, last.y0, 0.14 / width, last.height))
    values = [own.shown.at(step / 64.0) for step in range(65)]
    middles = [own.shown.at((step + 0.5) / 64.0) for step in range(64)]
    axes.pcolormesh(
        [0.0, 1.0],
        values,
        np.asarray(middles)[:, None],
        cmap=own.map,
        norm=own.norm,
        edgecolors="face",
        linewidth=0.3,
    )
    axes.set(yscale=own.shown.scale, ylim=(own.shown.low, own.shown.high), xticks=[])
    ticks = own.shown.ticks(5)
    axes.yaxis.set_major_locator(FixedLocator([value for value, _ in ticks]))
    axes.yaxis.set_major_formatter(FixedFormatter([word for _, word in ticks]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set_ylabel(shown_name(own.label))
    for spine in axes.spines.values():
        spine.set_visible(False)
