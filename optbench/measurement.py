"""What a run found along its way: rows of a curve, and how it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

MAX_CURVE_POINTS = 1000


class Status(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    REACHED_TARGET = "reached_target"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"

    @property
    def succeeded(self) -> bool:
        """Whether the final figures of such a run count as a result."""
        return self in (Status.COMPLETED, Status.REACHED_TARGET)


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
