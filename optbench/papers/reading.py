"""From a paper's YAML to a `Paper`: every key known, of its type, and none that it needs missing.

A table, its rows, its columns and its cells may each give any of the keys of a check; the inner ones win, and what they
give under `where` and `arguments` is joined.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, get_type_hints

from optbench.entries import as_text, as_texts, as_word, by_name, check_keys, check_unique, parsed_mapping
from optbench.errors import UsageError, unknown
from optbench.papers.checks import CHECK, MEASURE, check_of, joined
from optbench.papers.paper import Cell, Claim, Figure, Need, Origin, Paper, PaperSweep, Source, Table
from optbench.parsing import parse, parse_list, parse_mapping, parse_value

DEPARTURES = "departures"  # the picture that is always drawn
OWN_COLUMN = "value"  # of a table without columns
_PAPER = ("name", "title", "claim", "source", "gaps", "cost", "sweeps", "tables", "claims", "figures")
_TABLE = ("name", "title", "because", "digits", "origin", "where_in", "rows", "columns", "published")
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
    given = {**dict.fromkeys(("gaps", "claims", "figures", "sweeps")), **parsed_mapping(text, where=where)}
    check_keys(given, _PAPER, where=where)
    for key in _PAPER:
        if key not in given:
            raise UsageError(f"{where}: {key} is missing.")
    cost = {"quick_minutes": None, **parse_mapping(given["cost"], where=f"{where}: cost")}
    check_keys(cost, ("minutes", "quick_minutes", "machine"), where=f"{where}: cost")
    tables = [_table(table, where=f"{where}: {place}") for place, table in _listed(given, "tables")]
    check_unique([table.name for table in tables], where=f"{where}: tables")
    figures = [_figure(figure, tables, where=f"{where}: {place}") for place, figure in _listed(given, "figures")]
    check_unique([figure.name for figure in figures], where=f"{where}: figures")
    return Paper(
        name=as_word(given["name"], where=f"{where}: name"),
        title=as_text(given["title"], where=f"{where}: title"),
        statement=as_text(given["claim"], where=f"{where}: claim"),
        source=parse(Source, parse_mapping(given["source"], where=f"{where}: source"), where=f"{where}: source"),
        gaps=[as_text(line, where=f"{where}: {place}") for place, line in _listed(given, "gaps")],
        minutes=parse_value(cost.get("minutes"), float | None, where=f"{where}: cost.minutes"),
        quick_minutes=parse_value(cost["quick_minutes"], float | None, where=f"{where}: cost.quick_minutes"),
        machine=as_text(cost.get("machine"), where=f"{where}: cost.machine"),
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
    check_keys(given, ("overrides", "quick", "needs"), where=where)
    if "overrides" not in given:
        raise UsageError(f"{where}.overrides is missing.")
    quick = given["quick"]
    return PaperSweep(
        overrides=as_texts(given["overrides"], where=f"{where}.overrides"),
        quick=None if quick is None else as_texts(quick, where=f"{where}.quick"),
        needs=parse_value(given["needs"], Need | None, where=f"{where}.needs"),
    )


def _table(content: Any, *, where: str) -> Table:
    given = dict(parse_mapping(content, where=where))
    check_keys(given, (*_TABLE, *MEASURE, *CHECK), where=where)
    for key in ("name", "title", "rows", "published"):
        if key not in given:
            raise UsageError(f"{where}.{key} is missing.")
    rows = _groups(given["rows"], where=f"{where}.rows")
    has_columns = "columns" in given
    columns = _groups(given["columns"], where=f"{where}.columns") if has_columns else {OWN_COLUMN: {}}
    published = by_name(given["published"], where=f"{where}.published")
    check_keys(published, rows, where=f"{where}.published")
    common = {key: value for key, value in given.items() if key not in _TABLE}
    cells = []
    for row, content_of_row in published.items():
        place = f"{where}.published.{row}"
        line = by_name(content_of_row, where=place) if has_columns else {OWN_COLUMN: content_of_row}
        check_keys(line, columns, where=place)
        for column, content_of_cell in line.items():
            place = f"{where}.published.{row}.{column}"
            own = _cell(content_of_cell, where=place)
            fields = joined([common, rows[row], columns[column], own], where=place)
            cells.append(Cell(row=row, column=column, check=check_of(fields, where=place)))
    has_tolerance = any(cell.check.band is not None and not cell.check.measure.compute for cell in cells)
    if has_tolerance and not given.get("because"):
        raise UsageError(f"{where}.because is missing: say why the tolerances are what they are.")
    return Table(
        name=as_word(given["name"], where=f"{where}.name"),
        title=as_text(given["title"], where=f"{where}.title"),
        because=as_text(given.get("because", ""), where=f"{where}.because"),
        origin=parse_value(given.get("origin", "published"), Origin, where=f"{where}.origin"),
        where=as_text(given.get("where_in", ""), where=f"{where}.where_in"),
        rows=list(rows),
        columns=list(columns),
        cells=cells,
        digits=parse_value(given.get("digits", 4), int, where=f"{where}.digits"),
    )


def _groups(content: Any, *, where: str) -> dict[str, Mapping[str, Any]]:
    """Rows or columns by name, each with the keys that it gives."""
    found = {}
    for name, fields in by_name(content, where=where).items():
        own = parse_mapping(fields or {}, where=f"{where}.{name}")
        check_keys(own, (*MEASURE, *CHECK), where=f"{where}.{name}")
        found[name] = own
    return found


def _cell(content: Any, *, where: str) -> Mapping[str, Any]:
    """A cell: a number or word; a number and its spread; or any keys of a check."""
    if isinstance(content, Mapping):
        check_keys(content, (*MEASURE, *CHECK), where=where)
        return content
    if isinstance(content, list):
        if len(content) != 2:
            raise UsageError(f"{where}={content}: a list is a figure and its standard deviation, two numbers.")
        return {"value": content[0], "spread": content[1]}
    return {"value": content}


def _claim(content: Any, *, where: str) -> Claim:
    given = parse_mapping(content, where=where)
    check_keys(given, ("id", "text", "source", *MEASURE, *CHECK), where=where)
    check = check_of(joined([given], where=where), where=where)
    if not check.is_judged:
        raise UsageError(f"{where}: give value and tolerance, at_most, at_least or diverges, so that it can be wrong.")
    return Claim(
        **{key: as_text(given.get(key), where=f"{where}.{key}") for key in ("id", "text", "source")}, check=check
    )


def _figure(content: Any, tables: Sequence[Table], *, where: str) -> Figure:
    given = {**_FIGURE, **parse_mapping(content, where=where)}
    check_keys(given, Figure.__dataclass_fields__, where=where)
    hints = get_type_hints(Figure)
    nested = ("where", "slope", "points")
    plain = {
        key: parse_value(given.get(key), hint, where=f"{where}.{key}")
        for key, hint in hints.items()
        if key not in nested
    }
    if as_word(plain["name"], where=f"{where}.name").startswith(DEPARTURES):
        raise UsageError(
            f"{where}.name={plain['name']}: every reproduction has a picture of that name; choose another."
        )
    of = next((table for table in tables if table.name == plain["table"]), None)
    if plain["kind"] == "heat_map":
        for key in ("x", "y", "z", "by"):
            if not plain[key]:
                raise UsageError(f"{where}.{key} is missing: kind=heat_map needs it.")
    elif of is None:
        raise unknown("table", str(plain["table"]), [table.name for table in tables], where=f"for {where}.table")
    points = by_name(given["points"], where=f"{where}.points")
    check_keys(points, of.rows if of else (), where=f"{where}.points")
    return Figure(
        **plain,
        where=parse_mapping(given["where"], where=f"{where}.where"),
        slope={
            name: parse_value(value, float, where=f"{where}.slope.{name}")
            for name, value in by_name(given["slope"], where=f"{where}.slope").items()
        },
        points={row: list(_pairs(line, where=f"{where}.points.{row}")) for row, line in points.items()},
    )


def _pairs(content: Any, *, where: str) -> Iterator[tuple[float, float]]:
    for pair in parse_list(content, where=where):
        if len(parse_list(pair, where=where)) != 2:
            raise UsageError(f"{where}: {pair}: a step and a value are needed, as in [[100, 0.5]].")
        step, value = (parse_value(one, float, where=where) for one in pair)
        yield step, value
