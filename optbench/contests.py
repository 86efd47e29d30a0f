"""From rows to contests: each optimizer's best setting and default, its edges, and what controls say of the task."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from optbench import catalogue
from optbench.component import DESCRIPTION
from optbench.contest import Contender, Contest
from optbench.controls import CONTROLS, label
from optbench.curves import Curves
from optbench.edges import Overrides, edges
from optbench.parsing import json_safe
from optbench.stats import Difference, difference, ties
from optbench.tables import Row

# What is not there, or as it is by default, in a setting that is untuned.
_UNTUNED = ("param_groups", "max_grad_norm", "lr_scaling")


def contests(rows: Sequence[Row], *, curves: Curves, overrides: Overrides = lambda _: None) -> list[Contest]:
    """A contest for each task among the rows.

    Args:
        rows: of one table, the best of each task first.
        curves: of their trials.
        overrides: of their trials, for the commands that widen a search.
    """
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row)
    return [_contest(task, own, curves=curves, overrides=overrides) for task, own in by_task.items()]


def _contest(task: str, rows: Sequence[Row], *, curves: Curves, overrides: Overrides) -> Contest:
    first = rows[0]
    contenders = _contenders(rows, overrides)
    sign = 1.0 if first.direction == "min" or first.num_reached is not None else -1.0  # of steps, fewer are better
    found, reason = label(contenders, sign=sign)
    return Contest(
        task=task,
        metric=first.metric,
        direction=first.direction,
        start=_start(first, curves),
        rows=rows,
        contenders=contenders,
        label=found,
        label_reason=reason,
        config=first.config,
    )


def _contenders(rows: Sequence[Row], overrides: Overrides) -> list[Contender]:
    by_optimizer: dict[str, list[Row]] = {}
    for row in rows:
        by_optimizer.setdefault(row.optimizer, []).append(row)
    first = next(
        (own[0] for name, own in by_optimizer.items() if name not in CONTROLS and own[0].is_complete and own[0].values),
        None,
    )
    found = [
        Contender(
            optimizer=optimizer,
            rows=own,
            default=default_of(own),
            edges=[] if optimizer in CONTROLS or not own[0].values else edges(own, overrides),
            difference=_difference(first, own[0]),
            is_tied=False,
            is_control=optimizer in CONTROLS,
            is_leader=own[0] is first,
        )
        for optimizer, own in by_optimizer.items()
    ]
    tied = ties([contender.difference for contender in found])
    return [
        replace(contender, is_tied=contender.is_leader or is_tied)
        for contender, is_tied in zip(found, tied, strict=True)
    ]


def _difference(first: Row | None, row: Row) -> Difference | None:
    if first is None or row is first or not row.is_complete:
        return None
    return difference(first.ranking, row.ranking)


def default_of(rows: Sequence[Row]) -> Row | None:
    """The setting in which the optimizer is as its file has it, with a constant rate and nothing added.

    Args:
        rows: settings of one optimizer.
    """
    for row in rows:
        asked = row.config
        if asked["schedule"] and asked["schedule"]["name"] != "constant":
            continue
        if any(asked.get(part) for part in _UNTUNED):
            continue
        file = _file(row.optimizer)
        if file is None:
            continue
        own = _arguments(asked["optimizer"])
        if own.keys() == file.keys() and all(own[key] == file[key] for key in file if not _is_computed(file[key])):
            return row
    return None


@cache
def _file(optimizer: str) -> dict[str, Any] | None:
    """What the optimizer's file sets; None where it does not come with optbench."""
    found = catalogue.entry("optimizer", optimizer)
    return None if found is None else _arguments(found.config)


def _is_computed(value: Any) -> bool:
    """Whether the file has it follow from other keys, which are compared themselves."""
    return isinstance(value, str) and "${" in value


def _arguments(config: Any) -> dict[str, Any]:
    own = {key: value for key, value in config.items() if key not in DESCRIPTION}
    found: dict[str, Any] = json_safe(own)
    return found


def _start(row: Row, curves: Curves) -> float | None:
    """The first metric before training, the mean over seeds."""
    values = [
        curve.columns[row.metric][0]
        for curve in curves.of(row)
        if curve.columns.get(row.metric) and curve.columns["step"][0] == 0
    ]
    known = [value for value in values if math.isfinite(value)]
    return math.fsum(known) / len(known) if known else None
