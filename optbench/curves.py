"""The curves of stored trials, read when they are asked for."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optbench.measurement import Status
from optbench.tables import Row

Read = Callable[[str], Mapping[str, Any] | None]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How one trial went.

    Attributes:
        seed: of the trial.
        status: how it ended.
        columns: `step`, `seconds`, `gradient_evaluations`, metrics and more, all of the same length; NaN where a row
            has no value.
    """

    seed: int
    status: Status
    columns: Mapping[str, Sequence[float]]


class Curves:
    """The curves of the trials of rows.

    Args:
        read: gives the record of a trial by its id; None where its file is damaged or gone.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._known: dict[str, Curve | None] = {}

    def of(self, row: Row) -> list[Curve]:
        """The curves of all trials of a setting, by seed; those that failed, too."""
        found = []
        for trial_id in row.ids:
            if trial_id not in self._known:
                record = self._read(trial_id)
                self._known[trial_id] = None if record is None else _curve(record)
            if (curve := self._known[trial_id]) is not None:
                found.append(curve)
        return sorted(found, key=lambda curve: curve.seed)


def _curve(record: Mapping[str, Any]) -> Curve:
    columns = {
        name: [math.nan if value is None else float(value) for value in values]
        for name, values in record["curve"].items()
    }
    return Curve(seed=record["config"]["seed"], status=Status(record["status"]), columns=columns)
