"""`optbench reproduce`: a paper's trials, its tables beside ours, and an exit code by the verdict."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from optbench.console import console
from optbench.curve_claims import Record
from optbench.errors import UsageError
from optbench.papers import running
from optbench.papers.outcome import Outcome, outcome
from optbench.papers.paper import Measure, Paper
from optbench.papers.publication import answers, publish
from optbench.papers.running import Compose, Planned, Trials, Typed
from optbench.papers.sheets import CLAIMS, machines, sheets
from optbench.papers.verdicts import WORST_FIRST, Judgement, Verdict
from optbench.papers.words import claim_verdict, figure_words, said_verdict
from optbench.parsing import finite
from optbench.store import Store
from optbench.terminal import rich_table

SCHEMA = 1
# Beside each other: a part, or another question, is not to take the place of the whole answer.
WHOLE, QUICK, WHAT_IF = "reproduction", "quick", "what_if"
EXIT_CODES: Mapping[Verdict, int] = {
    Verdict.REPRODUCED: 0,
    Verdict.NOT_REPRODUCED: 10,
    Verdict.NOT_RUN: 12,
    Verdict.UNDERPOWERED: 13,
}
_COLOURS = {Verdict.REPRODUCED: "green", Verdict.NOT_REPRODUCED: "red"}


def reproduce(papers: Sequence[Paper], typed: Typed, compose: Compose, *, results: Path) -> int:
    """Compose what all papers ask for, then reproduce them one by one, print what came out, and write it.

    Args:
        papers: which.
        typed: what the command line says.
        compose: configs from overrides.
        results: the folder of all sweeps.

    Returns:
        The exit code: that of the worst verdict, not reproduced before underpowered before not run.

    Raises:
        UsageError: an override is wrong, or the store cannot be written to.
        Interrupted: a signal ended it; what had finished is stored.
    """
    for paper in papers:
        _check(paper, typed)
    planned = [running.plan(paper, typed, compose) for paper in papers]
    verdicts = [_one(one, typed, results=results) for one in planned]
    if len(papers) > 1:
        page = console()
        for paper, verdict in zip(papers, verdicts, strict=True):
            page.print(f"{escape(paper.name)}: [{_COLOURS.get(verdict, 'yellow')}]{verdict}[/]")
    return EXIT_CODES[next(verdict for verdict in WORST_FIRST if verdict in verdicts)]


def _check(paper: Paper, typed: Typed) -> None:
    """Refuse what would come to nothing, before anything is run."""
    measures = [cell.check.measure for table in paper.tables for cell in table.cells]
    measures += [claim.check.measure for claim in paper.claims]
    if computed := [measure for measure in measures if measure.compute is not None]:
        from optbench.papers.computations import check  # torch takes its time

        for measure in computed:
            check(measure)
    if typed.is_quick and not computed and all(sweep.quick is None for sweep in paper.sweeps):
        raise UsageError(f"--quick: {paper.name} declares no quick subset; leave --quick out.")


def _one(planned: Planned, typed: Typed, *, results: Path) -> Verdict:
    page, paper = console(), planned.paper
    subset = " (quick)" if typed.is_quick else ""
    page.print(f"[bold]{escape(paper.name)}[/]{subset}: {escape(paper.title)}", soft_wrap=True)
    store = Store(results, running.store_name(paper))
    found = running.run(planned, typed, results=results)
    came_out = outcome(
        paper,
        found.records,
        compute=_compute,
        is_quick=typed.is_quick,
        changes=typed.changes,
        said=found.said,
        reasons=found.reasons,
        missing=found.missing,
    )
    try:
        written = _write(came_out, typed, found, store=store)
    except OSError as error:
        raise UsageError(
            f"{store.folder} cannot be written to: {error}.\n"
            "Trials that are stored are kept. Make room, or choose another place with results=<folder>."
        ) from error
    _show(came_out, page)
    page.print(f"[dim]Written: {escape(' '.join(map(str, written)))}[/]\n", soft_wrap=True)
    return came_out.verdict


def _compute(measure: Measure) -> float:
    from optbench.papers.computations import compute  # torch takes its time

    return compute(measure)


def _show(came_out: Outcome, page: Console) -> None:
    for sheet in sheets(came_out):
        if sheet.name.endswith("_cells") or sheet.name == CLAIMS:
            page.print(rich_table(sheet.words, title=sheet.title))
    colour = _COLOURS.get(came_out.verdict, "yellow")
    for sentence in answers(came_out):
        page.print(f"[{colour}]{escape(sentence)}[/]", soft_wrap=True)


def _write(came_out: Outcome, typed: Typed, found: Trials, *, store: Store) -> list[Path | str]:
    kind = WHAT_IF if typed.changes else QUICK if typed.is_quick else WHOLE
    html = publish(came_out, store.folder / kind, facts=_facts(found.records))
    record = {
        "schema": SCHEMA,
        "paper": came_out.paper.name,
        "digest": came_out.paper.digest,
        "verdict": came_out.verdict,
        "is_quick": typed.is_quick,
        "overrides": list(typed.overrides),
        "reasons": list(came_out.reasons),
        "num_trials": len(found.records),
        "cells": [
            {"table": one.table.name, "row": one.cell.row, "column": one.cell.column, **_judged(one.found)}
            | {"published": one.cell.check.published}
            for one in came_out.cells
        ],
        "claims": [
            {"id": one.claim.id, "text": one.claim.text, "source": one.claim.source}
            | {"verdict": claim_verdict(one.found), "measured": _measured(one.found)}
            for one in came_out.claims
        ]
        + [
            {"id": one.id, "text": one.text, "source": one.source}
            | {"verdict": said_verdict(one.verdict), "measured": one.measured}
            for one in came_out.said
        ],
        "environment": dict(found.records[0]["environment"]) if found.records else {},
    }
    path = store.write(f"{kind}.json", json.dumps(finite(record), indent=1, allow_nan=False) + "\n")
    return [html, path, *found.written]


def _judged(found: Judgement | None) -> dict[str, Any]:
    return {"verdict": "left out"} if found is None else dict(vars(found))


def _measured(found: Judgement | None) -> str:
    if found is None or found.mean is None:
        return found.note if found is not None else ""
    return figure_words(found.mean, 4)


def _facts(records: Sequence[Record]) -> list[str]:
    """On what it was measured: short facts."""
    return [f"{len(records)} trials" if records else "computed, without trials", *machines(records)]
