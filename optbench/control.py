"""What the training loop and those around it tell each other while it runs, from one thread to another."""

from typing import Literal

from optbench.measurement import Status

Stop = Literal[Status.PREEMPTED, Status.PRUNED]


class Control:
    """Signs of life from the loop, and the wish that it stop.

    Attributes:
        step: steps done; the loop writes it at every step.
        loss: training loss of the last step that was fetched from the device.
        stop: set from outside to end the training after the step under way, with this status.
    """

    def __init__(self) -> None:
        self.step = 0
        self.loss: float | None = None
        self.stop: Stop | None = None
