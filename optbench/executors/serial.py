"""Trials one after the other in this process."""

import time
from collections.abc import Sequence
from pathlib import Path

from optbench.checks import build_logger, check_all
from optbench.control import Control
from optbench.execution import Context, Event, Finished, Held, Measured, Message, Refused
from optbench.executors import Interruption, Observer, Source
from optbench.executors.attempt import attempt
from optbench.measurement import Status
from optbench.store import Store
from optbench.trial import Trial

SLOT = "here"
SECONDS_UNTIL_ASKED_AGAIN = 1.0


class SerialExecutor:
    """Runs trials in this process, where a debugger sees them: none can be stopped that hangs or kills it."""

    runs_here = True

    def prepare(self, context: Context) -> None:
        """There is nothing to begin with."""

    def num_slots(self, context: Context) -> int:  # noqa: ARG002
        """One."""
        return 1

    def check(self, trials: Sequence[Trial], context: Context) -> Sequence[str]:
        """All that can be known to be wrong; returns what is to be warned of."""
        return check_all(trials, context)

    def execute(self, source: Source, *, context: Context, observer: Observer, interruption: Interruption) -> None:
        """Run each trial and store its result as soon as it is there; one that fails leaves the others alone.

        Raises:
            UsageError: the sweep cannot go on.
            OSError: the store cannot be written to.
        """
        store = Store(Path(context.results), context.sweep)
        logger = build_logger(context)
        while not interruption.is_requested and (job := source.next()) is not None:
            watch = _Watch(job.trial, source=source, observer=observer, interruption=interruption)
            observer.started(SLOT, job.trial)
            attempt(job, context=context, store=store, logger=logger, control=watch.control, report=watch.hear)
            if watch.is_held:
                source.put_back(job)
                time.sleep(SECONDS_UNTIL_ASKED_AGAIN)

    def close(self) -> None:
        """There is nothing to end."""


class _Watch:
    """Passes on what is heard of one trial."""

    def __init__(self, trial: Trial, *, source: Source, observer: Observer, interruption: Interruption) -> None:
        self.control = Control()
        self.is_held = False
        self._trial = trial
        self._source = source
        self._observer = observer
        self._interruption = interruption

    def hear(self, event: Event) -> None:
        """Take an event.

        Raises:
            UsageError: the sweep cannot go on.
            OSError: the store cannot be written to.
        """
        match event:
            case Measured():
                self._observer.measured(SLOT, event.measurement)
                if not self._source.measured(self._trial, event.measurement):
                    self.control.stop = Status.PRUNED
                if self._interruption.is_requested:
                    self.control.stop = Status.PREEMPTED
            case Finished():
                reason = event.summary.get("reason")
                self._observer.finished(SLOT, self._trial, event.status, reason=reason, log=None)
                self._source.finished(self._trial, event.status, summary=event.summary, timing=event.timing)
            case Message():
                self._observer.message(event.text)
            case Refused():
                raise event.error
            case _:
                self.is_held = isinstance(event, Held)
