"""From a paper's YAML to a `Paper`: every key known, of its type, and none that it needs missing.

A table, its rows, its columns and its cells may each give any of the keys of a check; the inner ones win, and what they
give under `where` and `arguments` is joined.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, get_args

import yaml

from optbench.errors import UsageError, unknown
from optbench.papers.paper import (
    Band,
    Cell,
    Check,
    Claim,
    Comparison,
    Figure,
    FigureKind,
    Measure,
    Need,
    Paper,
    PaperSweep,
    Position,
    Reduction,
    ReductionKind,
    Source,
    Table,
)
from optbench.parsing import parse, parse_list, parse_mapping, parse_value

DEPARTURES = "departures"  # the picture that is always drawn
OWN_COLUMN = "value"  # of a table without columns
_MEASURE = ("where", "figure", "at", "steps", "reduce", "compare", "against", "compute", "arguments")
_CHECK = ("value", "spread", "tolerance", "relative_tolerance", "at_most", "at_least", "diverges", "exact", "judged")
_JOINED = ("where", "arguments")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_PAPER = ("name", "title", "claim", "source", "gaps", "cost", "sweeps", "tables", "claims", "figures")
_TABLE = ("name", "title", "because", "digits", "rows", "columns", "published")
_FIGURE: Mapping[str, Any] = {
    **dict.fromkeys(("table", "z", "by")),
    **dict.fromkeys(("where", "slope", "points"), MappingProxyType({})),
    **dict.fromkeys(("x", "y"), ""),
    **dict.fromkeys(("log_x", "log_y"), False),
    "best": "min",
}


def read(text: str, *, where: str) -> Paper:
    """A paper from the text of its file.

    Args:
        text: YAML.
        where: the file, for messages.

    Raises:
        UsageError: it is no YAML, or a key is unknown, missing or of the wrong type; names it by its full path.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: no valid YAML: {error}") from error
    given = {**dict.fromkeys(("gaps", "claims", "figures", "sweeps")), **parse_mapping(content, where=where)}
    _check_keys(given, _PAPER, where=where)
    for key in _PAPER:
        if key not in given:
            raise UsageError(f"{where}: {key} is missing.")
    cost = {"quick_minutes": None, **parse_mapping(given["cost"], where=f"{where}: cost")}
    _check_keys(cost, ("minutes", "quick_minutes", "machine"), where=f"{where}: cost")
    tables = [_table(table, where=f"{where}: {place}") for place, table in _listed(given, "tables")]
    _check_unique([table.name for table in tables], where=f"{where}: tables")
    figures = [_figure(figure, tables, where=f"{where}: {place}") for place, figure in _listed(given, "figures")]
    _check_unique([figure.name for figure in figures], where=f"{where}: figures")
    return Paper(
        name=_word(given["name"], where=f"{where}: name"),
        title=_text(given["title"], where=f"{where}: title"),
        statement=_text(given["claim"], where=f"{where}: claim"),
        source=parse(Source, parse_mapping(given["source"], where=f"{where}: source"), where=f"{where}: source"),
        gaps=[_text(line, where=f"{where}: {place}") for place, line in _listed(given, "gaps")],
        minutes=parse_value(cost.get("minutes"), float | None, where=f"{where}: cost.minutes"),
        quick_minutes=parse_value(cost["quick_minutes"], float | None, where=f"{where}: cost.quick_minutes"),
        machine=_text(cost.get("machine"), where=f"{where}: cost.machine"),
        sweeps=[_sweep(sweep, where=f"{where}: {place}") for place, sweep in _listed(given, "sweeps")],
        tables=tables,
        claims=[_claim(claim, where=f"{where}: {place}") for place, claim in _listed(given, "claims")],
        figures=figures,
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def _listed(given: Mapping[str, Any], key: str) -> Iterator[tuple[str, Any]]:
    for number, item in enumerate(parse_list(given[key] or [], where=key)):
        yield f"{key}[{number}]", item


def _sweep(content: Any, *, where: str) -> PaperSweep:
    given = {"needs": None, "quick": None, **parse_mapping(content, where=where)}
    _check_keys(given, ("overrides", "quick", "needs"), where=where)
    if "overrides" not in given:
        raise UsageError(f"{where}.overrides is missing.")
    quick = given["quick"]
    return PaperSweep(
        overrides=_texts(given["overrides"], where=f"{where}.overrides"),
        quick=None if quick is None else _texts(quick, where=f"{where}.quick"),
        needs=parse_value(given["needs"], Need | None, where=f"{where}.needs"),
    )


def _table(content: Any, *, where: str) -> Table:
    given = dict(parse_mapping(content, where=where))
    _check_keys(given, (*_TABLE, *_MEASURE, *_CHECK), where=where)
    for key in ("name", "title", "rows", "published"):
        if key not in given:
            raise UsageError(f"{where}.{key} is missing.")
    rows = _groups(given["rows"], where=f"{where}.rows")
    has_columns = "columns" in given
    columns = _groups(given["columns"], where=f"{where}.columns") if has_columns else {OWN_COLUMN: {}}
    published = _by_name(given["published"], where=f"{where}.published")
    _check_keys(published, rows, where=f"{where}.published")
    common = {key: value for key, value in given.items() if key not in _TABLE}
    cells = []
    for row, content_of_row in published.items():
        place = f"{where}.published.{row}"
        line = _by_name(content_of_row, where=place) if has_columns else {OWN_COLUMN: content_of_row}
        _check_keys(line, columns, where=place)
        for column, content_of_cell in line.items():
            place = f"{where}.published.{row}.{column}"
            own = _cell(content_of_cell, where=place)
            fields = _joined([common, rows[row], columns[column], own], where=place)
            cells.append(Cell(row=row, column=column, check=_check(fields, where=place)))
    has_tolerance = any(cell.check.band is not None and not cell.check.measure.compute for cell in cells)
    if has_tolerance and not given.get("because"):
        raise UsageError(f"{where}.because is missing: say why the tolerances are what they are.")
    return Table(
        name=_word(given["name"], where=f"{where}.name"),
        title=_text(given["title"], where=f"{where}.title"),
        because=_text(given.get("because", ""), where=f"{where}.because"),
        rows=list(rows),
        columns=list(columns),
        cells=cells,
        digits=parse_value(given.get("digits", 4), int, where=f"{where}.digits"),
    )


def _groups(content: Any, *, where: str) -> dict[str, Mapping[str, Any]]:
    """Rows or columns by name, each with the keys that it gives."""
    found = {}
    for name, fields in _by_name(content, where=where).items():
        own = parse_mapping(fields or {}, where=f"{where}.{name}")
        _check_keys(own, (*_MEASURE, *_CHECK), where=f"{where}.{name}")
        found[name] = own
    return found


def _by_name(content: Any, *, where: str) -> dict[str, Any]:
    """A mapping whose keys are names, of which YAML reads some as numbers."""
    return {_key(name): value for name, value in parse_mapping(content, where=where).items()}


def _cell(content: Any, *, where: str) -> Mapping[str, Any]:
    """A cell: a number or word; a number and its spread; or any keys of a check."""
    if isinstance(content, Mapping):
        _check_keys(content, (*_MEASURE, *_CHECK), where=where)
        return content
    if isinstance(content, list):
        if len(content) != 2:
            raise UsageError(f"{where}={content}: a list is a figure and its standard deviation, two numbers.")
        return {"value": content[0], "spread": content[1]}
    return {"value": content}


def _joined(parts: Sequence[Mapping[str, Any]], *, where: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            fields[key] = {**fields.get(key, {}), **parse_mapping(value, where=where)} if key in _JOINED else value
    return fields


def _check(fields: Mapping[str, Any], *, where: str) -> Check:
    measure = _measure(fields, where=where)
    value = parse_value(fields.get("value"), float | str | None, where=f"{where}.value")
    diverges = parse_value(fields.get("diverges", False), bool, where=f"{where}.diverges")
    return Check(
        measure=measure,
        published=value,
        spread=parse_value(fields.get("spread"), float | None, where=f"{where}.spread"),
        band=None if diverges else _band(fields, value, where=where),
        diverges=diverges,
        is_exact=measure.compute is not None or parse_value(fields.get("exact", False), bool, where=f"{where}.exact"),
    )


def _band(fields: Mapping[str, Any], value: float | str | None, *, where: str) -> Band | None:
    bounds = {
        key: parse_value(fields.get(key), float | None, where=f"{where}.{key}")
        for key in ("at_least", "at_most", "tolerance", "relative_tolerance")
    }
    low, high = bounds["at_least"], bounds["at_most"]
    if low is not None or high is not None:
        return Band(low=-math.inf if low is None else low, high=math.inf if high is None else high)
    if not isinstance(value, float) or not parse_value(fields.get("judged", True), bool, where=f"{where}.judged"):
        return None
    tolerance = bounds["tolerance"]
    if tolerance is None and bounds["relative_tolerance"] is not None:
        tolerance = bounds["relative_tolerance"] * abs(value)
    if tolerance is None:
        raise UsageError(f"{where}.tolerance is missing: a published figure needs one, or at_most or at_least.")
    return Band(low=value - tolerance, high=value + tolerance)


def _measure(fields: Mapping[str, Any], *, where: str) -> Measure:
    given = {key: fields[key] for key in _MEASURE if fields.get(key) is not None}
    compute, figure = given.get("compute"), given.get("figure")
    if (compute is None) == (figure is None):
        raise UsageError(f"{where}: a measure has either figure, of trials, or compute, the name of a computation.")
    comparison = parse_value(given.get("compare"), Comparison | None, where=f"{where}.compare")
    against = given.get("against")
    if (comparison is None) != (against is None):
        raise UsageError(
            f"{where}: compare and against go together: compare is ratio or difference, against has where."
        )
    other = None
    if against is not None:
        _check_keys(parse_mapping(against, where=f"{where}.against"), _MEASURE, where=f"{where}.against")
        own = {key: value for key, value in given.items() if key not in ("against", "compare")}
        other = _measure(_joined([own, against], where=where), where=f"{where}.against")
    return Measure(
        where=parse_mapping(given.get("where", {}), where=f"{where}.where"),
        figure=None if figure is None else _text(figure, where=f"{where}.figure"),
        at=_position(given.get("at", "last"), where=f"{where}.at"),
        steps=_steps(given.get("steps"), where=f"{where}.steps"),
        reduction=None if "reduce" not in given else _reduction(given["reduce"], where=f"{where}.reduce"),
        comparison=comparison,
        against=other,
        compute=None if compute is None else _text(compute, where=f"{where}.compute"),
        arguments=parse_mapping(given.get("arguments", {}), where=f"{where}.arguments"),
    )


def _position(value: Any, *, where: str) -> Position | int:
    if type(value) is int:
        return value
    if value not in get_args(Position):
        raise unknown("value", str(value), [*get_args(Position), "<steps>"], where=f"for {where}")
    position: Position = value
    return position


def _steps(value: Any, *, where: str) -> tuple[int, int] | None:
    if value is None:
        return None
    steps = parse_list(value, where=where)
    if len(steps) != 2 or any(type(step) is not int for step in steps):
        raise UsageError(f"{where}={value}: the first and the last step are needed, as in [0, 50].")
    return steps[0], steps[1]


def _reduction(content: Any, *, where: str) -> Reduction:
    given = {"across": None, "within": 0.05, "best": "min", "of": "seeds", **parse_mapping(content, where=where)}
    if "kind" in given and given["kind"] not in get_args(ReductionKind):
        raise unknown("value", str(given["kind"]), get_args(ReductionKind), where=f"for {where}.kind")
    found = parse(Reduction, given, where=where)
    if (found.across is None and found.kind == "ridge") or (
        found.across is not None and found.kind not in ("ridge", "best")
    ):
        raise UsageError(f"{where}.across: the key that a ridge has its best values of, and no other kind has.")
    return found


def _claim(content: Any, *, where: str) -> Claim:
    given = parse_mapping(content, where=where)
    _check_keys(given, ("id", "text", "source", *_MEASURE, *_CHECK), where=where)
    check = _check(_joined([given], where=where), where=where)
    if not check.is_judged:
        raise UsageError(f"{where}: give value and tolerance, at_most, at_least or diverges, so that it can be wrong.")
    return Claim(
        **{key: _text(given.get(key), where=f"{where}.{key}") for key in ("id", "text", "source")}, check=check
    )


def _figure(content: Any, tables: Sequence[Table], *, where: str) -> Figure:
    given = {**_FIGURE, **parse_mapping(content, where=where)}
    kind = parse_value(given.get("kind"), FigureKind, where=f"{where}.kind")
    nested = ("where", "slope", "points")
    plain = {key: value for key, value in given.items() if key not in nested}
    _check_keys(given, Figure.__dataclass_fields__, where=where)
    for key in ("name", "title", "x", "y"):
        _text(plain.get(key), where=f"{where}.{key}")
    if kind == "heat_map":
        for key in ("x", "y", "z", "by"):
            if not plain[key]:
                raise UsageError(f"{where}.{key} is missing: kind=heat_map needs it.")
    elif plain["table"] not in [table.name for table in tables]:
        raise unknown("table", str(plain["table"]), [table.name for table in tables], where=f"for {where}.table")
    points = {
        _key(row): [(float(step), float(value)) for step, value in parse_list(line, where=f"{where}.points")]
        for row, line in parse_mapping(given["points"], where=f"{where}.points").items()
    }
    slope = {_key(name): float(value) for name, value in parse_mapping(given["slope"], where=f"{where}.slope").items()}
    if _word(plain["name"], where=f"{where}.name").startswith(DEPARTURES):
        raise UsageError(
            f"{where}.name={plain['name']}: every reproduction has a picture of that name; choose another."
        )
    return Figure(**plain, where=parse_mapping(given["where"], where=f"{where}.where"), slope=slope, points=points)


def _check_keys(given: Mapping[Any, Any], allowed: Any, *, where: str) -> None:
    for key in given:
        if _key(key) not in allowed:
            raise unknown("key", str(key), allowed, where=f"in {where}")


def _check_unique(names: Sequence[str], *, where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{where}: {name!r} is the name of {names.count(name)} of them.")


def _key(value: Any) -> str:
    """The name of a row or a column; YAML reads 0.1 as a number."""
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def _text(value: Any, *, where: str) -> str:
    text: str = parse_value(value, str, where=where)
    return " ".join(text.split())


def _texts(value: Any, *, where: str) -> list[str]:
    return [parse_value(line, str, where=where) for line in parse_list(value, where=where)]


def _word(value: Any, *, where: str) -> str:
    text = _text(value, where=where)
    if not _NAME.fullmatch(text):
        raise UsageError(f"{where}={text!r}: letters, digits and _ make the name of a file.")
    return text
