"""Pictures of curves, each setting a line: as SVG for pages and PNG for elsewhere, with the numbers beside them."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from optbench.curve_claims import Record, column, grouped, matching
from optbench.errors import UsageError
from optbench.parsing import parse, parse_list, parse_mapping
from optbench.settings import spelt
from optbench.store import Store
from optbench.writing import csv

FOLDER = "figures"
SIZE_INCHES = (6.4, 4.0)
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture of curves.

    Attributes:
        name: of its files.
        title: above it.
        x: a column of the curves.
        y: another one.
        where: keys of the config, with the values that they have in the trials shown; a list allows any of its values.
        by: the key whose values are told apart by colour; a line for each trial.
        log_y: whether the scale of y is logarithmic.
    """

    name: str
    title: str
    x: str
    y: str
    where: Mapping[str, Any]
    by: str
    log_y: bool


def figures(config: Any) -> list[Figure]:
    """The figures of an experiment.

    Raises:
        UsageError: one lacks a key, or has one that no figure has.
    """
    found = []
    for number, figure in enumerate(parse_list(config or [], where="figures")):
        where = f"figures[{number}]"
        given = dict(parse_mapping(figure, where=where))
        chosen = parse_mapping(given.pop("where", None) or {}, where=f"{where}.where")
        plain = parse(_Plain, {"log_y": False, **given}, where=where)
        if not _NAME.fullmatch(plain.name):
            raise UsageError(f"{where}.name={plain.name!r}: letters, digits, _ and - make the name of a file.")
        found.append(Figure(**vars(plain), where=chosen))
    return found


def draw(figure: Figure, records: Sequence[Record], store: Store) -> list[Path]:
    """Draw the picture, as SVG, PNG and CSV below `figures/` of the sweep; nothing where no trial has such a curve.

    Args:
        figure: what to draw.
        records: of all trials that were asked for.
        store: beside whose results it goes.
    """
    lines = [
        (value, record["config"]["seed"], points)
        for value, own in grouped(matching(records, figure.where), figure.by)
        for record in own
        if (points := _points(record, figure))
    ]
    if not lines:
        return []
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Page

    values = list(dict.fromkeys(spelt(value) for value, _, _ in lines))
    colours = mpl.colormaps["viridis" if len(values) > 10 else "tab10"]
    colour_of = {
        value: colours(place / len(values)) if len(values) > 10 else colours(place)
        for place, value in enumerate(values)
    }
    with mpl.rc_context({"svg.hashsalt": "optbench", "svg.fonttype": "none", "axes.spines.top": False}):
        page = Page(figsize=SIZE_INCHES, layout="constrained")
        axes = page.subplots()
        labelled: set[str] = set()
        for value, _, points in lines:
            name = spelt(value)
            label = None if name in labelled else f"{figure.by.rpartition('.')[2]}={name}"
            labelled.add(name)
            axes.plot(*zip(*points, strict=True), color=colour_of[name], label=label, linewidth=1.4, alpha=0.85)
        if figure.log_y:
            axes.set_yscale("log")
        axes.set(xlabel=figure.x, ylabel=figure.y, title=figure.title)
        axes.grid(visible=True, alpha=0.25)
        axes.legend(frameon=False, fontsize="small")
        files: dict[str, bytes] = {}
        FigureCanvasAgg(page)
        for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            buffer = io.BytesIO()
            page.savefig(buffer, format=kind, dpi=150, metadata=metadata)
            files[kind] = buffer.getvalue()
    numbers = [
        {figure.by: spelt(value), "seed": seed, figure.x: x, figure.y: y}
        for value, seed, points in lines
        for x, y in points
    ]
    files["csv"] = csv(pd.DataFrame(numbers)).encode()
    return [store.write(f"{FOLDER}/{figure.name}.{kind}", content) for kind, content in files.items()]


def _points(record: Record, figure: Figure) -> list[tuple[float, float]]:
    pairs = zip(column(record, figure.x), column(record, figure.y), strict=False)
    return [(x, y) for x, y in pairs if not math.isnan(x) and not math.isnan(y)]


@dataclass(frozen=True, kw_only=True)
class _Plain:
    name: str
    title: str
    x: str
    y: str
    by: str
    log_y: bool
