"""The tables of a reproduction: what was published, what was measured, and each cell and claim with its verdict."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from optbench.curve_claims import Record
from optbench.papers import words
from optbench.papers.outcome import CellOutcome, ClaimOutcome, Outcome, SaidOutcome
from optbench.papers.paper import Check, Origin, Source, Table
from optbench.papers.reading import OWN_COLUMN
from optbench.papers.verdicts import WORST_FIRST, Judgement, Verdict
from optbench.sheet import Sheet
from optbench.sheets import Line, sheet

CLAIMS = "claims"
_AS: Mapping[Origin, str] = {"published": "as published", "theory": "by theory", "ours": "as we measured it before"}
_ROW = "row"
_CLAIM_DIGITS = 4
_LEGEND = (
    "✓ reproduced: the whole interval lies in what is allowed. ✗ not reproduced: none of it does. "
    f"? underpowered: it has an end on each side. {words.MARKS[Verdict.NOT_RUN]} not run. "
    "No sign: nothing was published to hold it against."
)
_INTERVAL = (
    "[a, b] is Student's interval at 95 % for the mean over seeds; none where there is one seed or all are equal."
)


def sheets(outcome: Outcome) -> list[Sheet]:
    """Three sheets for each table of the paper, as published, as measured, and cell by cell; and one of the claims."""
    found = []
    for table in outcome.paper.tables:
        own = of_table(outcome, table)
        found += [_published(outcome, table, own), _measured(outcome, table, own), _cells(outcome, table, own)]
    if outcome.claims or outcome.said:
        found.append(_claims(outcome))
    return found


def of_table(outcome: Outcome, table: Table) -> list[CellOutcome]:
    """The cells of a table."""
    return [one for one in outcome.cells if one.table.name == table.name]


def has_columns(table: Table) -> bool:
    """Whether its columns have names."""
    return list(table.columns) != [OWN_COLUMN]


def label(cell: CellOutcome, between: str = " · ") -> str:
    """A cell's row and column."""
    own = cell.cell
    return f"{own.row}{between}{own.column}" if has_columns(cell.table) else own.row


def measured_on(outcome: Outcome) -> str:
    """On what the trials ran, as a sentence; empty where there are none that say so."""
    known = ", ".join(machines(outcome.records))
    return f"Measured on {known}." if known else ""


def machines(records: Sequence[Record]) -> list[str]:
    """The devices that trials ran on, and with which torch, as far as they say so."""
    environments = [record.get("environment") or {} for record in records]
    devices = {str(one["device"]) for one in environments if one.get("device")}
    versions = {str(one["packages"]["torch"]) for one in environments if (one.get("packages") or {}).get("torch")}
    return [*sorted(devices), *(f"torch {version}" for version in sorted(versions))]


def _published(outcome: Outcome, table: Table, own: Sequence[CellOutcome]) -> Sheet:
    source = outcome.paper.source
    return _shaped(
        *(table, own),
        kind="published",
        title=f"{table.title}, {_AS[table.origin]}",
        texts=lambda one: words.published_words(one.cell.check, table.digits),
        key=lambda one: _number(one.cell.check.published),
        numbers=lambda one: _of_source(one.cell.check),
        notes=[
            _from(table, source),
            "±: standard deviation over the source's seeds." if any(one.cell.check.spread for one in own) else "",
        ],
    )


def _from(table: Table, source: Source) -> str:
    """Where the figures of a table are from, as a sentence."""
    if table.where:
        return f"From {table.where.rstrip('.')}."
    if table.origin == "published":
        return f"From {source.where.rstrip('.')}, {source.authors} ({source.year})."
    return (
        "These figures follow from theory." if table.origin == "theory" else "These figures are earlier ones of ours."
    )


def _measured(outcome: Outcome, table: Table, own: Sequence[CellOutcome]) -> Sheet:
    return _shaped(
        *(table, own),
        kind="measured",
        title=f"{table.title}, as measured here",
        texts=lambda one: words.measured_words(one.found, table.digits, mark=words.mark_of(one.found)),
        key=lambda one: None if one.found is None else _number(one.found.mean),
        numbers=lambda one: _of_judgement(one.found),
        notes=[
            _LEGEND,
            _INTERVAL if any(one.found and one.found.low is not None for one in own) else "",
            _basis(outcome, own),
            f"{words.LEFT_OUT}: a quick run does not measure it." if any(one.found is None for one in own) else "",
        ],
    )


def _shaped(
    table: Table,
    own: Sequence[CellOutcome],
    *,
    kind: str,
    title: str,
    texts: Callable[[CellOutcome], str],
    key: Callable[[CellOutcome], float | None],
    numbers: Callable[[CellOutcome], Mapping[str, Any]],
    notes: Sequence[str],
) -> Sheet:
    """A sheet with the rows and the columns of the table; its numbers have a line for each cell."""
    by_place = {(one.cell.row, one.cell.column): one for one in own}
    lines, keys = [], []
    for row in table.rows:
        cells = [by_place.get((row, column)) for column in table.columns]
        lines.append([row, *(words.NOTHING if one is None else texts(one) for one in cells)])
        keys.append([row, *(None if one is None else key(one) for one in cells)])
    columns = [_ROW, *(table.columns if has_columns(table) else [kind])]
    return Sheet(
        name=f"{table.name}_{kind}",
        title=title,
        words=pd.DataFrame(lines, columns=columns),
        keys=pd.DataFrame(keys, columns=columns, dtype=object),
        numbers=pd.DataFrame([{"row": one.cell.row, "column": one.cell.column, **numbers(one)} for one in own]),
        notes=[note for note in notes if note],
    )


def _cells(outcome: Outcome, table: Table, own: Sequence[CellOutcome]) -> Sheet:
    return sheet(
        [_cell(one, table.digits) for one in own],
        name=f"{table.name}_cells",
        title=f"{table.title}, cell by cell",
        notes=[note for note in (table.because, _basis(outcome, own)) if note],
    )


def _cell(one: CellOutcome, digits: int) -> Line:
    check, found = one.cell.check, one.found
    place = {_ROW: one.cell.row, **({"column": one.cell.column} if has_columns(one.table) else {})}
    return Line(
        words={
            "": words.mark_of(found),
            **place,
            words.ORIGINS[one.table.origin]: words.published_words(check, digits),
            "measured": words.measured_words(found, digits),
            "seeds": _seeds(check, found),
            "allowed": words.allowed_words(check),
            "verdict": words.verdict_words(found),
        },
        keys={
            "": _rank(found),
            **place,
            words.ORIGINS[one.table.origin]: _number(check.published),
            "measured": None if found is None else _number(found.mean),
            "seeds": None if found is None else found.num_values,
            "allowed": None if check.band is None else words.allowed_words(check),
            "verdict": words.verdict_words(found),
        },
        numbers={"row": one.cell.row, "column": one.cell.column, **_of_source(check), **_of_judgement(found)},
    )


def _claims(outcome: Outcome) -> Sheet:
    return sheet(
        [*map(_claim, outcome.claims), *map(_said, outcome.said)],
        name=CLAIMS,
        title="What is said of it",
        notes=[
            "✓ confirmed: what would be measured if it were so was measured. ✗ refuted: it was not. "
            f"? underpowered: these seeds cannot tell. {words.MARKS[Verdict.NOT_RUN]} not run.",
            "These are statements that go round; they do not count in the verdict on the paper.",
            *filter(None, [measured_on(outcome)]),
        ],
    )


def _claim(one: ClaimOutcome) -> Line:
    check, found = one.claim.check, one.found
    text = {
        "": words.mark_of(found) or words.MARKS[Verdict.NOT_RUN],
        "id": one.claim.id,
        "says": one.claim.text,
        "expected if true": words.allowed_words(check),
        "measured": words.measured_words(found, _CLAIM_DIGITS),
        "seeds": _seeds(check, found),
        "verdict": words.claim_words(found),
        "source": one.claim.source,
    }
    numbers = {key: text[key] for key in ("id", "says", "source")}
    return Line(
        words=text,
        keys={**text, "": _rank(found), "seeds": None if found is None else found.num_values},
        numbers={
            **numbers,
            **_of_source(check),
            **_of_judgement(found),
            "verdict": words.claim_verdict(found),
            "in_words": text["measured"],
        },
    )


def _said(one: SaidOutcome) -> Line:
    verdict = words.said_verdict(one.verdict)
    mark = {"confirmed": Verdict.REPRODUCED, "refuted": Verdict.NOT_REPRODUCED}.get(verdict, Verdict.NOT_RUN)
    text = {"id": one.id, "says": one.text, "measured": one.measured, "verdict": verdict, "source": one.source}
    return Line(
        words={"": words.MARKS[mark], **text},
        keys={"": WORST_FIRST.index(mark), **text},
        numbers={
            **{key: text[key] for key in ("id", "says", "source")},
            "verdict": verdict,
            "in_words": one.measured,
        },
    )


def _rank(found: Judgement | None) -> int | None:
    """By which a column of marks is sorted: what went wrong comes first."""
    return WORST_FIRST.index(found.verdict) if found and found.verdict else None


def _seeds(check: Check, found: Judgement | None) -> str:
    if found is None:
        return words.NOTHING
    return "computed" if check.measure.compute else str(found.num_values)


def _basis(outcome: Outcome, own: Sequence[CellOutcome]) -> str:
    """On what these cells were measured."""
    if all(one.cell.check.measure.compute for one in own):
        return "Computed, without trials."
    return measured_on(outcome)


def _number(value: float | str | None) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not math.isnan(value) else None


def _of_source(check: Check) -> dict[str, Any]:
    band = check.band
    return {
        "published": check.published,
        "published_spread": check.spread,
        "allowed_low": None if band is None else band.low,
        "allowed_high": None if band is None else band.high,
        "diverges": check.diverges,
    }


def _of_judgement(found: Judgement | None) -> dict[str, Any]:
    return {
        "mean": None if found is None else found.mean,
        "low": None if found is None else found.low,
        "high": None if found is None else found.high,
        "num_seeds": 0 if found is None else found.num_values,
        "verdict": words.LEFT_OUT if found is None else "" if found.verdict is None else found.verdict.value,
        "more_seeds": None if found is None else found.more_seeds,
        "note": "" if found is None else found.note,
    }
