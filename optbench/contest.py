"""What was run on one task, by optimizer: the setting that did best, the one of its file, and how they compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optbench.measurement import Status
from optbench.stats import Difference
from optbench.tables import Row
from optbench.trial import Direction

Side = Literal["lowest", "highest"]
Label = Literal["saturated", "unsolved", "discriminating"]


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A best value at the end of what was tried.

    Attributes:
        key: as an override spells it, such as `optimizer.lr`.
        value: the best one.
        side: which end it is.
        tried: all values that were tried, in their order.
        command: widens the search in that direction; None where it cannot be told.
    """

    key: str
    value: float
    side: Side
    tried: Sequence[float]
    command: str | None

    @property
    def name(self) -> str:
        """The key within the optimizer, such as `lr`."""
        return self.key.removeprefix("optimizer.")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One optimizer on one task.

    Attributes:
        optimizer: its name.
        rows: its settings, the best first.
        default: the setting with all values as its file has them; None where that was not run.
        edges: where its best value is at the end of what was tried.
        difference: of its best setting to that of the leader, seed by seed; None for the leader itself, for those with
            failures, and where no seed is shared.
        is_tied: whether it cannot be told apart from the leader, the comparisons with the other optimizers corrected
            for; True for the leader.
        is_leader: whether it is the best of all but controls, without failures.
        is_control: whether it is there to be beaten: `null` and `sgd_untuned`.
    """

    optimizer: str
    rows: Sequence[Row]
    default: Row | None
    edges: Sequence[Edge]
    difference: Difference | None
    is_tied: bool
    is_control: bool
    is_leader: bool = False

    @property
    def best(self) -> Row:
        """The first of its settings: tuned."""
        return self.rows[0]

    @property
    def num_trials(self) -> int:
        """Over all settings."""
        return sum(row.num_trials for row in self.rows)

    @property
    def failures(self) -> Mapping[str, int]:
        """How many trials of all its settings failed, by status; those that a search gave up did not."""
        counts: dict[str, int] = {}
        for row in self.rows:
            for status, count in row.failures.items():
                if Status(status).failed:
                    counts[status] = counts.get(status, 0) + count
        return counts

    @property
    def num_pruned(self) -> int:
        """How many trials of all its settings a search gave up."""
        return sum(row.failures.get(Status.PRUNED, 0) for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Contest:
    """All that was run on one task.

    Attributes:
        task: its name, with the keys by which it differs from other tasks of that name.
        metric: the task's first metric.
        direction: whether less of it is better, or more.
        start: its value before training, the mean over trials; None where no curve has it.
        rows: all settings, the best first.
        contenders: its optimizers, the best first.
        label: what the controls say of it; None where they were not run.
        label_reason: why, in a sentence; or what to run for a label.
        config: of one of its trials.
    """

    task: str
    metric: str
    direction: Direction
    start: float | None
    rows: Sequence[Row]
    contenders: Sequence[Contender]
    label: Label | None
    label_reason: str
    config: Mapping[str, Any]

    @property
    def sign(self) -> float:
        """What makes a lower value the better one."""
        return 1.0 if self.direction == "min" else -1.0
