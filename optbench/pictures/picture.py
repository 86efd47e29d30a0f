"""A picture of a report: drawn, in numbers, and where its lines are, so that a page can answer to a pointer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

Scale = Literal["linear", "log"]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A pair of axes within a picture.

    Attributes:
        box: left, top, width and height of the area within the axes, in the units of the SVG's `viewBox`, y downwards.
        x_label: what goes to the right.
        y_label: what goes up.
        x_limits: the values at the left and at the right edge.
        y_limits: the values at the lower and at the upper edge.
        x_scale: of x.
        y_scale: of y.
    """

    box: tuple[float, float, float, float]
    x_label: str
    y_label: str
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]
    x_scale: Scale
    y_scale: Scale


@dataclass(frozen=True, kw_only=True)
class Series:
    """What one entry of the legend stands for.

    Attributes:
        label: in the legend.
        colour: as `#rrggbb`.
        elements: ids of the SVG elements that it shows and hides: lines, bands, markers, in all panels.
        points: for each panel, by its place, the points (x, y) that a pointer finds; none where a panel has none.
    """

    label: str
    colour: str
    elements: Sequence[str]
    points: Sequence[Sequence[tuple[float, float]]]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture.

    Attributes:
        name: of its files: letters, digits, _ and -.
        title: above it.
        caption: what is shown and on what: over how many seeds, how many failures, what a band is.
        task: the contest that it belongs to; None where it is about several.
        svg: for pages and papers; ids in it are unique within the picture, and none of its text is markup of a config.
        png: for elsewhere.
        numbers: everything that is drawn, for pandas and CSV.
        panels: its axes, where a pointer can read them; none of pictures that are not curves.
        series: what its legend tells apart, in the legend's order.
    """

    name: str
    title: str
    caption: str
    task: str | None
    svg: bytes
    png: bytes
    numbers: pd.DataFrame
    panels: Sequence[Panel] = ()
    series: Sequence[Series] = ()
