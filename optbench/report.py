"""From the store to tables and files; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from optbench import cells, tables
from optbench.costs import Costs
from optbench.measurement import Status
from optbench.store import Store
from optbench.writing import csv, markdown_table, markdown_text


@dataclass(frozen=True, kw_only=True)
class Report:
    """The table of a sweep, and what it leaves out.

    Attributes:
        store: where the trials are.
        index: the trials that the table is about, a row each.
        rows: the table.
        num_missing: trials of the last command that have no result yet.
    """

    store: Store
    index: pd.DataFrame
    rows: Sequence[tables.Row]
    num_missing: int

    @property
    def num_failed(self) -> int:
        """Trials that came to a bad end."""
        return int(self.index["status"].isin([status.value for status in Status if status.failed]).sum())

    @property
    def tasks(self) -> dict[str, list[tables.Row]]:
        """The rows of each task."""
        found: dict[str, list[tables.Row]] = {}
        for row in self.rows:
            found.setdefault(row.task, []).append(row)
        return found

    def title(self, task: str) -> str:
        """A heading for the table of one task."""
        return f"{task} ({self.store.sweep})"

    def markdown(self) -> str:
        """All tables with their notes, as Markdown."""
        parts = [
            f"## {markdown_text(self.title(task))}\n\n{markdown_table(cells.words(rows))}\n"
            for task, rows in self.tasks.items()
        ]
        lines = [*cells.notes(self.rows, self.index), *self.failures()]
        return "\n".join([*parts, *(f"- {markdown_text(line)}" for line in lines)]) + "\n"

    def failures(self) -> list[str]:
        """A line for each trial that failed with an error, with its reason, and one for those missing."""
        lines = []
        failed = self.index[self.index["reason"].notna()] if "reason" in self.index else self.index[:0]
        for trial in failed.to_dict("records"):
            name = f"{trial['task']} {trial['optimizer']} seed {trial['seed']}"
            reason = str(trial["reason"]).partition("\n")[0]
            path = self.store.path(trial["id"])
            lines.append(f"{name} {trial['status']}: {reason} (traceback in {path})")
        if self.num_missing:
            lines.append(f"{self.num_missing} planned trial(s) have no result yet: run the same command again.")
        return lines

    def write(self) -> list[Path]:
        """Write `table.md` and `table.csv` beside the results; nothing in a folder that is read-only."""
        try:
            numbers = csv(cells.numbers(self.rows))
            return [self.store.write("table.md", self.markdown()), self.store.write("table.csv", numbers)]
        except OSError:
            return []


def report(store: Store, *, everything: bool = False, ids: Sequence[str] | None = None) -> Report:
    """The report on the trials with these ids, or on those that the last command asked for, or on all."""
    index = store.index()
    index = index[index["status"] != Status.PREEMPTED].reset_index(drop=True)  # these have no result yet
    costs = Costs(store).all()
    plan = None if everything else {"ids": ids} if ids is not None else store.read_plan()
    if plan is None:
        return Report(store=store, index=index, rows=tables.rows(index, costs), num_missing=0)
    order = {trial_id: place for place, trial_id in enumerate(plan["ids"])}
    asked = index[index["id"].isin(list(order))]
    asked = asked.sort_values("id", key=lambda ids: ids.map(order), ignore_index=True)
    return Report(store=store, index=asked, rows=tables.rows(asked, costs), num_missing=len(order) - len(asked))
