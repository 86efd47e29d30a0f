"""The page of a report: one file of HTML that needs nothing besides itself."""

import base64
import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from numbers import Real
from typing import TYPE_CHECKING, Any

import pandas as pd

from optbench.inline_svg import embedded
from optbench.pictures.picture import Panel, Picture
from optbench.sheet import Sheet

if TYPE_CHECKING:
    from jinja2 import Environment

# A table beyond this shows so many rows, and a button for the rest.
MAX_SHOWN_ROWS = 30
MIN_FILTERED_ROWS = 6
MAX_SHOWN_NOTES = 3
# So many sections have all their answers on the first screen; where there are more, it has the first of each.
MAX_FULL_ANSWERS = 4
MAX_LABELLED_POINTS = 60
LONG_TEXT = 32
SIGNIFICANT_DIGITS = 6
# Points; pictures that are wider take a line of the page for themselves, as those with panels side by side do.
WIDE = 620.0
LEGEND = "legend"
_INTERVAL = re.compile(r"([-+\u2212\u00b1]?\.?\d.*) (\[[^\[\],]+, [^\[\],]+\])")
_LABELS = ("saturated", "unsolved", "discriminating")


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page, with a heading.

    Attributes:
        id: letters, digits, _ and -; unique within the page.
        heading: above it, and in the navigation.
        label: `saturated`, `unsolved` or `discriminating`, shown as a badge; empty for none.
        label_reason: a sentence beside the badge.
        answers: what is found, a sentence each; at the top of the page as well.
        sheets: its tables.
        pictures: below them.
        remarks: small, at the end.
        left_out: files of pictures that are not on the page.
    """

    id: str
    heading: str
    label: str = ""
    label_reason: str = ""
    answers: Sequence[str] = ()
    sheets: Sequence[Sheet] = ()
    pictures: Sequence[Picture] = ()
    remarks: Sequence[str] = ()
    left_out: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that is on the page.

    Attributes:
        title: above it.
        summary: short facts, such as `435 trials` and `12 failed`.
        warnings: what to know before reading on, a sentence each.
        sections: in their order.
        version: of optbench.
    """

    title: str
    summary: Sequence[str]
    warnings: Sequence[str]
    sections: Sequence[Section]
    version: str


def render(page: Page) -> str:
    """The page as HTML, with its style, its script and its pictures in it.

    Raises:
        ValueError: the id of a section has other characters than it may, or is that of another one.
    """
    from markupsafe import Markup

    _check_ids(page.sections)
    style, script = _template("report.css"), _template("report.js")
    numbers = {"table": 0, "picture": 0}

    def number(kind: str) -> int:
        numbers[kind] += 1
        return numbers[kind]

    sections: list[dict[str, Any]] = [
        {
            "section": section,
            "has_badge": section.label in _LABELS,
            "tables": [_table(sheet, number=number("table")) for sheet in section.sheets],
            "figures": [_figure(picture, number=number("picture")) for picture in section.pictures],
        }
        for section in page.sections
    ]
    data = {figure["id"]: figure["data"] for view in sections for figure in view["figures"] if figure["data"]}
    text = (
        _environment()
        .get_template("report.html.j2")
        .render(
            page=page,
            sections=sections,
            policy=_policy(script),
            style=Markup(style),
            script=Markup(script),
            data=data,
            max_answers=None if sum(bool(section.answers) for section in page.sections) <= MAX_FULL_ANSWERS else 1,
            max_shown_rows=MAX_SHOWN_ROWS,
            min_filtered_rows=MIN_FILTERED_ROWS,
            max_shown_notes=MAX_SHOWN_NOTES,
        )
    )
    return text.encode("utf-8", "replace").decode()  # JSON can hold half a character, which no file can


def _check_ids(sections: Sequence[Section]) -> None:
    ids = [section.id for section in sections]
    for section_id in ids:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", section_id):
            raise ValueError(f"{section_id!r}: letters, digits, _ and - make the id of a section.")
        if ids.count(section_id) > 1:
            raise ValueError(f"{section_id!r} is the id of {ids.count(section_id)} sections.")


@cache
def _template(name: str) -> str:
    return (resources.files("optbench") / "templates" / name).read_text(encoding="utf-8")


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_template),
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":"), "allow_nan": False}
    return environment


def _policy(script: str) -> str:
    """What the page may load and run: its own style and script, and pictures within it."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A cell: its text, the interval after it, what it is sorted by where that is not its text, and its looks."""

    text: str
    interval: str
    key: str | None
    is_number: bool

    @property
    def is_long(self) -> bool:
        return len(self.text) > LONG_TEXT


def _table(sheet: Sheet, *, number: int) -> dict[str, Any]:
    columns = list(_columns(sheet))
    rows = list(zip(*columns, strict=True))
    has_marks = bool(columns) and all(len(cell.text) <= 1 for cell in columns[0])
    return {
        "id": f"table-{number}",
        "title": sheet.title,
        "heads": [
            {"text": str(name), "is_number": any(cell.is_number for cell in cells)}
            for name, cells in zip(sheet.words.columns, columns, strict=True)
        ],
        "rows": rows,
        "has_marks": has_marks,
        "name_column": int(has_marks),
        "marks": {"★": "best", "=": "tie"} if has_marks else {},
        "notes": sheet.notes,
    }


def _columns(sheet: Sheet) -> Iterator[list[_Cell]]:
    for place in range(sheet.words.shape[1]):
        words, keys = sheet.words.iloc[:, place].tolist(), sheet.keys.iloc[:, place].tolist()
        keys = [None if key is None or pd.isna(key) else key for key in keys]
        present = [key for key in keys if key is not None]
        is_number = bool(present) and all(isinstance(key, Real) and not isinstance(key, bool) for key in present)
        yield [_cell(word, key, is_number=is_number) for word, key in zip(words, keys, strict=True)]


def _cell(word: Any, key: Any, *, is_number: bool) -> _Cell:
    text = "" if word is None or pd.isna(word) else str(word)
    spelt = "" if key is None else _spelt(key) if is_number else str(key)
    parts = _INTERVAL.fullmatch(text)
    return _Cell(
        text=parts[1] if parts else text,
        interval=parts[2] if parts else "",
        key=None if spelt == text else spelt,
        is_number=is_number,
    )


def _spelt(key: Any) -> str:
    """A number as JavaScript reads it."""
    value = float(key)
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _figure(picture: Picture, *, number: int) -> dict[str, Any]:
    from markupsafe import Markup

    prefix = f"picture-{number}-"
    without = [LEGEND] if picture.series else []  # the page has one that answers to clicks
    drawing = embedded(picture.svg, prefix=prefix, label=picture.title, without=without)
    return {
        "id": f"picture-{number}",
        "picture": picture,
        "svg": Markup(drawing.text),
        "width": f"{drawing.width:g}",
        "is_wide": drawing.width > WIDE or len({panel.box[0] for panel in picture.panels}) > 1,
        "data": _data(picture, prefix=prefix) if picture.series else None,
    }


def _data(picture: Picture, *, prefix: str) -> dict[str, Any]:
    """What the script has to know of a picture."""
    return {
        "panels": [
            {
                "box": [_rounded(value) for value in panel.box],
                "x": _axis(panel, "x"),
                "y": _axis(panel, "y"),
            }
            for panel in picture.panels
        ],
        "series": [
            {
                "label": series.label,
                "colour": series.colour,
                "elements": [prefix + name for name in series.elements],
                "points": [_flat(points) for points in series.points] if picture.panels else [],
            }
            for series in picture.series
        ],
    }


def _axis(panel: Panel, name: str) -> dict[str, Any]:
    limits = panel.x_limits if name == "x" else panel.y_limits
    return {
        "label": panel.x_label if name == "x" else panel.y_label,
        "limits": [float(limit) for limit in limits],
        "scale": panel.x_scale if name == "x" else panel.y_scale,
    }


def _flat(points: Sequence[tuple[float, float]]) -> list[float]:
    """Of each point x and then y; of very many points, some evenly among them and the last."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(finite) > MAX_LABELLED_POINTS:
        last = len(finite) - 1
        places = [round(step * last / (MAX_LABELLED_POINTS - 1)) for step in range(MAX_LABELLED_POINTS)]
        finite = [finite[place] for place in places]
    return [_rounded(value) for point in finite for value in point]


def _rounded(value: float) -> float:
    short = float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
