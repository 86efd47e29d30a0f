"""Executors: who runs the trials of a sweep. Results travel through the store, not through return values."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from optbench.execution import Context, Job
from optbench.measurement import Measurement, Status
from optbench.trial import Trial


class Source(Protocol):
    """Where the trials come from: a fixed list, or a search that goes by what was found."""

    @property
    def num_trials(self) -> int:
        """How many trials there will be in all, as far as is known."""
        ...

    @property
    def is_exhausted(self) -> bool:
        """Whether `next` will give no trial any more, whatever is told."""
        ...

    def next(self) -> Job | None:
        """A trial to start now; None where there is none at present."""
        ...

    def put_back(self, job: Job) -> None:
        """It could not be run now: another process holds it, or a machine was lost."""
        ...

    def measured(self, trial: Trial, measurement: Measurement) -> bool:
        """It has measured; False where it is not worth going on with, so that it ends as `pruned`."""
        ...

    def finished(self, trial: Trial, status: Status, *, summary: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """It has ended, and its result is stored."""
        ...


class Listed:
    """A source that is a list, known beforehand."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = deque(jobs)
        self._num_trials = len(self._jobs)

    @property
    def num_trials(self) -> int:
        """How many there were at the start."""
        return self._num_trials

    @property
    def is_exhausted(self) -> bool:
        """Whether all have been given away."""
        return not self._jobs

    def next(self) -> Job | None:
        """The first that is left."""
        return self._jobs.popleft() if self._jobs else None

    def put_back(self, job: Job) -> None:
        """It is the last then."""
        self._jobs.append(job)

    def measured(self, trial: Trial, measurement: Measurement) -> bool:  # noqa: ARG002
        """What is on the list is run to its end."""
        return True

    def finished(self, trial: Trial, status: Status, *, summary: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """Nothing follows from it."""


class Observer(Protocol):
    """Who watches: the progress display."""

    def started(self, slot: str, trial: Trial) -> None:
        """A trial begins on a slot, such as `cuda:0` or `cpu 1`."""
        ...

    def progressed(self, slot: str, step: int, loss: float | None) -> None:
        """The trial on this slot is alive."""
        ...

    def measured(self, slot: str, measurement: Measurement) -> None:
        """The trial on this slot has measured."""
        ...

    def finished(self, slot: str, trial: Trial, status: Status, *, reason: str | None, log: str | None) -> None:
        """The trial has ended, and its result is stored."""
        ...

    def message(self, text: str) -> None:
        """Something that people should read."""
        ...


class Interruption(Protocol):
    """Whether the sweep was asked to stop: a signal, or the end of its time."""

    @property
    def is_requested(self) -> bool:
        """Start nothing any more; preempt what runs, and wait for it within the grace."""
        ...

    @property
    def is_urgent(self) -> bool:
        """Do not wait."""
        ...


class Executor(Protocol):
    """Runs trials somewhere, until the source is exhausted or the sweep is interrupted."""

    @property
    def runs_here(self) -> bool:
        """Whether trials run on this machine, so that what it has can be compared with what they had."""
        ...

    def prepare(self, context: Context) -> None:
        """Begin with what takes its time, while the sweep is still being planned; may be left out."""
        ...

    def num_slots(self, context: Context) -> int:
        """How many trials will run at a time."""
        ...

    def check(self, trials: Sequence[Trial], context: Context) -> Sequence[str]:
        """All that can be known to be wrong before the first one trains; returns what is to be warned of.

        Raises:
            UsageError: nothing has been trained.
        """
        ...

    def execute(self, source: Source, *, context: Context, observer: Observer, interruption: Interruption) -> None:
        """Run every trial that the source gives, and store each result as soon as it is there.

        Raises:
            UsageError: the sweep cannot go on.
            OSError: the store cannot be written to.
        """
        ...

    def close(self) -> None:
        """End all processes; called once, whatever happened."""
        ...
