"""How the trials of a sweep are carried out: where, for how long, with what being kept. None of it is in an id."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optbench.component import Component
from optbench.control import Stop
from optbench.errors import UsageError
from optbench.hardware import Hardware
from optbench.measurement import Measurement, Status
from optbench.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What may be spent, in seconds of a monotonic clock; None is no limit.

    Attributes:
        trial_seconds: by one trial, all in all; then it ends as `timed_out`.
        no_progress_seconds: by a trial that takes no step; then it ends as `timed_out`.
        sweep_seconds: by the whole command; then no trial starts any more, and those that run are preempted.
        grace_seconds: by trials that are asked to stop, until they are killed.
    """

    trial_seconds: float | None
    no_progress_seconds: float | None
    sweep_seconds: float | None
    grace_seconds: float


@dataclass(frozen=True, kw_only=True)
class Context:
    """All that a worker needs besides the trials; plain data, which travels to other processes and machines.

    Attributes:
        results: the folder of all sweeps, absolute.
        sweep: the sweep's name.
        logger: hears of every trial.
        allowed: packages that the command line lets configs call, besides those of the catalogue.
        limits: what may be spent.
        checkpoint_seconds: between two checkpoints of a trial; None keeps them at preemption alone.
        hardware: the different ones that the trials ask for.
    """

    results: str
    sweep: str
    logger: Component
    allowed: Sequence[str]
    limits: Limits
    checkpoint_seconds: float | None
    hardware: Sequence[Hardware]

    @property
    def num_threads(self) -> int:
        """The most that a trial asks for."""
        return max(hardware.num_threads for hardware in self.hardware)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A trial to run.

    Attributes:
        trial: the trial.
        replaces: when the stored result that this run replaces was last changed, in nanoseconds; None where none is
            to be replaced. A result that is not this one stays, and the trial is not run.
        at_a_time: how many trials run on the machine meanwhile, at most, this one included.
    """

    trial: Trial
    replaces: int | None = None
    at_a_time: int = 1


@dataclass(frozen=True, kw_only=True)
class Started:
    """The trial begins.

    Attributes:
        trial_id: of the trial.
        environment: where: versions, commit and machine, as a result has them.
    """

    trial_id: str
    environment: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """A sign of life, about once a second: steps done, and the training loss of the last one that is known."""

    trial_id: str
    step: int
    loss: float | None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The trial has measured."""

    trial_id: str
    measurement: Measurement


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The trial has ended, and its result is stored.

    Attributes:
        trial_id: of the trial.
        status: how it ended.
        summary: the stored figures at its end; `reason` where it failed.
        timing: the stored `train_seconds` and `step_seconds`.
        was_stored: another process had stored it before; nothing was trained.
        log: where what it printed is kept; None where it printed nothing.
        is_last: the process that ran it ends with it, and another one takes its place.
    """

    trial_id: str
    status: Status
    summary: Mapping[str, Any]
    timing: Mapping[str, Any]
    was_stored: bool = False
    log: str | None = None
    is_last: bool = False


@dataclass(frozen=True, kw_only=True)
class Held:
    """Another process is at this trial: ask again later."""

    trial_id: str


@dataclass(frozen=True, kw_only=True)
class Message:
    """Something that people should read, such as the failure of a logger."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Note:
    """What is being done that takes its time, such as a download."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The sweep cannot go on: nothing that it runs could be kept, or all of it would fail alike.

    Attributes:
        text: why, in words for people.
        is_store: whether it is the store that cannot be written to.
    """

    text: str
    is_store: bool = False

    @property
    def error(self) -> UsageError | OSError:
        """What it is raised as, where the sweep is carried out."""
        return OSError(self.text) if self.is_store else UsageError(self.text)


Event = Started | Progressed | Measured | Finished | Held | Message | Note | Refused


@dataclass(frozen=True, kw_only=True)
class Check:
    """Look at these trials before anything trains; answered by `Checked`."""

    trials: Sequence[Trial]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was found: what to warn of, or why nothing may be trained."""

    warnings: Sequence[str]
    error: str | None


@dataclass(frozen=True, kw_only=True)
class StopTrial:
    """End this trial, if it is the one under way."""

    trial_id: str
    status: Stop
