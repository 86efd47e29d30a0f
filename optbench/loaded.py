"""Stored results as pandas tables: what `optbench.load` gives."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from optbench import filters
from optbench.analysis import Analysis, analyse
from optbench.errors import unknown
from optbench.gathering import Gathered, gather
from optbench.sheet import Sheet

Table = Literal["trials", "curves", "settings", "best", "default", "hyperparameters", "cost", "failures", "over_tasks"]


def load(
    results: str | Path | Sequence[str | Path] = "results",
    *conditions: str,
    table: Table = "trials",
    everything: bool = True,
) -> pd.DataFrame:
    """Stored results as a DataFrame.

    ```python
    trials = optbench.load("results")
    lion = optbench.load("results", "optimizer=lion", "task=mnist_mlp")
    best = optbench.load(["results", "/mnt/gpu/results"], table="best")
    ```

    Args:
        results: results folders, or sweeps in one.
        conditions: as `optbench report` takes them: `optimizer=lion,adamw`.
        table: `trials` has a row for each trial, `curves` one for each of its measurements; the others are the tables
            of `optbench report`, over all tasks.
        everything: every stored trial; else those of the last command of each sweep alone.

    Raises:
        UsageError: a folder is not there, or no trial is left; a table is unknown.
    """
    if table not in get_args(Table):
        raise unknown("table", str(table), get_args(Table))
    folders = [Path(results)] if isinstance(results, (str, Path)) else [Path(folder) for folder in results]
    gathered = gather(folders, everything=everything, conditions=filters.parse(conditions))
    if table == "trials":
        return gathered.index.drop(columns="modified_ns")
    if table == "curves":
        return _curves(gathered)
    found = _joined(_sheets(analyse(gathered), table))
    return found if len(found) else found.reindex(columns=_COLUMNS.get(table, ["task", "optimizer"]))


# Of tables without a row.
_CURVE = ["id", "task", "optimizer", "setting", "seed", "status", "step", "seconds", "lr", "gradient_evaluations"]
_COLUMNS = {
    "failures": ["task", "optimizer", "setting", "seed", "status", "step", "last_train_loss", "reason", "file"],
    "over_tasks": ["optimizer", "mean_rank", "score", "probability_of_improvement", "reference", "num_tasks"],
}


def _curves(gathered: Gathered) -> pd.DataFrame:
    """A row for each measurement, with the trial's id, task, optimizer, setting and seed."""
    frames = []
    for trial in gathered.index[["id", "task", "optimizer", "setting", "seed", "status"]].to_dict("records"):
        record = gathered.reader(trial["id"])
        if record is not None and record["curve"].get("step"):
            frames.append(
                pd.DataFrame(record["curve"]).astype(float).assign(**{str(key): value for key, value in trial.items()})
            )
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=_CURVE)


def _sheets(analysis: Analysis, table: str) -> list[Sheet]:
    if table == "cost":
        return analysis.costs()
    single = {
        "hyperparameters": analysis.hyperparameters,
        "failures": analysis.failures,
        "over_tasks": analysis.over_tasks,
    }
    if table in single:
        found = single[table]()
        return [] if found is None else [found]
    return [
        sheet
        for contest in analysis.contests
        for sheet in analysis.of_contest(contest, with_settings=True)
        if sheet.name.startswith(f"{table}_")
    ]


def _joined(sheets: Sequence[Sheet]) -> pd.DataFrame:
    """The numbers of all tables, one below the other; each row once."""
    rows = [
        {str(key): value for key, value in row.items()} for sheet in sheets for row in sheet.numbers.to_dict("records")
    ]
    return pd.DataFrame(rows).drop_duplicates(ignore_index=True)
