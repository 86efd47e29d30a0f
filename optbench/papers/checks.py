"""Checks of a paper's file: how a number is had, and what it is held against."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from optbench.entries import as_text, check_keys
from optbench.errors import UsageError, unknown
from optbench.papers.paper import Band, Check, Comparison, Measure, Position, Reduction, ReductionKind
from optbench.parsing import parse, parse_list, parse_mapping, parse_value

MEASURE = ("where", "figure", "at", "steps", "reduce", "compare", "against", "compute", "arguments")
CHECK = ("value", "spread", "tolerance", "relative_tolerance", "at_most", "at_least", "diverges", "exact", "judged")
_JOINED = ("where", "arguments")
# What makes a band: where an inner level gives one of these, those of outer levels are forgotten.
_BAND = ("tolerance", "relative_tolerance", "at_most", "at_least", "diverges")


def joined(parts: Sequence[Mapping[str, Any]], *, where: str) -> dict[str, Any]:
    """The keys of a table, a row, a column and a cell: the inner ones win, `where` and `arguments` are joined."""
    fields: dict[str, Any] = {}
    for part in parts:
        if any(key in part for key in _BAND):
            fields = {key: value for key, value in fields.items() if key not in _BAND}
        for key, value in part.items():
            fields[key] = {**fields.get(key, {}), **parse_mapping(value, where=where)} if key in _JOINED else value
    return fields


def check_of(fields: Mapping[str, Any], *, where: str) -> Check:
    """A check from its keys.

    Raises:
        UsageError: one is missing, or of the wrong type, or they do not go together.
    """
    measure = _measure(fields, where=where)
    value = parse_value(fields.get("value"), float | str | None, where=f"{where}.value")
    diverges, is_judged, is_exact = (
        parse_value(fields.get(key, default), bool, where=f"{where}.{key}")
        for key, default in (("diverges", False), ("judged", True), ("exact", False))
    )
    return Check(
        measure=measure,
        published=value,
        spread=parse_value(fields.get("spread"), float | None, where=f"{where}.spread"),
        band=_band(fields, value, where=where) if is_judged and not diverges else None,
        diverges=diverges and is_judged,
        is_exact=measure.compute is not None or is_exact,
    )


def _band(fields: Mapping[str, Any], value: float | str | None, *, where: str) -> Band | None:
    given = {
        key: parse_value(fields[key], float, where=f"{where}.{key}")
        for key in ("at_least", "at_most", "tolerance", "relative_tolerance")
        if fields.get(key) is not None
    }
    for key, bound in given.items():
        if math.isnan(bound) or ("tolerance" in key and bound < 0.0):
            raise UsageError(f"{where}.{key}={bound}: a number from 0 on is needed.")
    if "at_least" in given or "at_most" in given:
        low, high = given.get("at_least", -math.inf), given.get("at_most", math.inf)
        if low > high:
            raise UsageError(f"{where}: at_least={low:g} is above at_most={high:g}, so that nothing would do.")
        return Band(low=low, high=high)
    if not isinstance(value, float):
        return None
    if math.isnan(value):
        raise UsageError(f"{where}.value: it is no number; say diverges: true if that is what was published.")
    if len(given) != 1:
        wrong = "only one of them goes" if given else "one is missing, or at_most or at_least"
        raise UsageError(f"{where}.tolerance and relative_tolerance of a published figure: {wrong}.")
    tolerance = given["tolerance"] if "tolerance" in given else given["relative_tolerance"] * abs(value)
    return Band(low=value - tolerance, high=value + tolerance)


def _measure(fields: Mapping[str, Any], *, where: str) -> Measure:
    given = {key: fields[key] for key in MEASURE if fields.get(key) is not None}
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
        check_keys(parse_mapping(against, where=f"{where}.against"), MEASURE, where=f"{where}.against")
        own = {key: value for key, value in given.items() if key not in ("against", "compare")}
        other = _measure(joined([own, against], where=where), where=f"{where}.against")
    return Measure(
        where=parse_mapping(given.get("where", {}), where=f"{where}.where"),
        figure=None if figure is None else as_text(figure, where=f"{where}.figure"),
        at=_position(given.get("at", "last"), where=f"{where}.at"),
        steps=_steps(given.get("steps"), where=f"{where}.steps"),
        reduction=None if "reduce" not in given else _reduction(given["reduce"], where=f"{where}.reduce"),
        comparison=comparison,
        against=other,
        compute=None if compute is None else as_text(compute, where=f"{where}.compute"),
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
