"""What a run found along its way: rows of a curve, and how it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MAX_CURVE_POINTS = 1000


class Status(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    REACHED_TARGET = "reached_target"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    PRUNED = "pruned"
    """A search gave it up, for others did better by then. To those who ask for the trial itself it has no result."""
    PREEMPTED = "preempted"
    """It was stopped from outside; the same command goes on with it."""

    @property
    def succeeded(self) -> bool:
        """Whether the final figures of such a run count as a result."""
        return self in (Status.COMPLETED, Status.REACHED_TARGET)

    @property
    def failed(self) -> bool:
        """Whether the trial itself came to a bad end."""
        return self in (Status.DIVERGED, Status.OUT_OF_MEMORY, Status.TIMED_OUT, Status.CRASHED)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of a curve.

    Attributes:
        step: optimizer steps done.
        seconds: time spent training so far, evaluation and logging excluded.
        lr: learning rate of the last step, in the first parameter group; NaN where the optimizer chooses it by itself.
        gradient_evaluations: backward passes so far; more than steps where an optimizer needs several for one.
        metrics: name to value; `train_loss` is the mean minibatch loss since the row before.
        status: how the run ended, on its last row; None before.
    """

    step: int
    seconds: float
    lr: float
    gradient_evaluations: int
    metrics: Mapping[str, float]
    status: Status | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one run of a trial found, in JSON's terms.

    Attributes:
        status: how it ended.
        summary: figures at the end, by name; a figure that does not exist is None.
        curve: the measurements in columns.
        timing: seconds of training, and the median seconds per step.
        environment: versions, commit and machine.
    """

    status: Status
    summary: Mapping[str, Any]
    curve: Mapping[str, Any]
    timing: Mapping[str, Any]
    environment: Mapping[str, Any]


def columns(measurements: Sequence[Measurement]) -> dict[str, list[float]]:
    """The curve in columns, thinned evenly to at most `MAX_CURVE_POINTS` rows.

    The first and the last row are always kept. A metric that a row lacks is NaN there.
    """
    last = len(measurements) - 1
    if last >= MAX_CURVE_POINTS:
        kept = [measurements[i * last // (MAX_CURVE_POINTS - 1)] for i in range(MAX_CURVE_POINTS)]
    else:
        kept = list(measurements)
    names = dict.fromkeys(name for row in kept for name in row.metrics)
    return {
        "step": [row.step for row in kept],
        "seconds": [row.seconds for row in kept],
        "lr": [row.lr for row in kept],
        "gradient_evaluations": [row.gradient_evaluations for row in kept],
        **{name: [row.metrics.get(name, float("nan")) for row in kept] for name in names},
    }
