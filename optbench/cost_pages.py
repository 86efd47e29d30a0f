"""Cost tables: shown in a terminal, and written beside the results."""

from collections.abc import Sequence
from typing import Any

from rich.markup import escape

from optbench import claims as claiming
from optbench import cost_cells
from optbench.console import console, warn
from optbench.cost import Cost
from optbench.store import Store
from optbench.terminal import rich_table
from optbench.writing import csv, markdown_table


def show(costs: Sequence[Cost], *, store: Store, claims: Any = None) -> None:
    """Print the tables of these costs with their notes, and write them as `costs.md` and `costs.csv`.

    Args:
        costs: in the order in which they are shown.
        store: beside whose results they are written.
        claims: of an experiment, to be shown with what was measured.

    Raises:
        UsageError: a claim lacks a key, or has one that no claim has.
    """
    if not costs:
        return
    tables = {}
    for heading, group in cost_cells.grouped(costs).items():
        tables[f"memory: {heading}"] = cost_cells.memory_words(group)
        if any(cost.time for cost in group):
            tables[f"time: {heading}"] = cost_cells.time_words(group)
    if asked := claiming.claims(claims):
        tables["what is said, and what was measured"] = claiming.table(asked, costs)
    page = console()
    for heading, content in tables.items():
        page.print(rich_table(content, title=heading))
    notes = [
        *cost_cells.notes(costs),
        *dict.fromkeys(f"{claim.id}, {claim.optimizer}: {claim.source}." for claim in asked),
    ]
    for note in notes:
        page.print(f"[dim]{escape(note)}[/]")
    warnings = list(cost_cells.warnings(costs))
    for warning in warnings:
        warn(warning)
    lines = [f"## {heading}\n\n{markdown_table(content)}\n" for heading, content in tables.items()]
    text = "\n".join([*lines, *(f"- {line}" for line in [*notes, *warnings])]) + "\n"
    numbers = csv(cost_cells.numbers(costs))
    written = [store.write("costs.md", text), store.write("costs.csv", numbers)]
    page.print(f"[dim]Written: {escape(' '.join(map(str, written)))}[/]", soft_wrap=True)
