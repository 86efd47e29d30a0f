"""Between a source of trials and those who run them: what is given to whom, and what is heard of it."""

import time
from collections import deque

from optbench.console import note
from optbench.control import Stop
from optbench.execution import Event, Finished, Held, Job, Measured, Message, Note, Progressed, Started
from optbench.executors import Observer, Source
from optbench.measurement import Status

SECONDS_UNTIL_ASKED_AGAIN = 1.0


class Dispatch:
    """Passes what happens on slots to the source and the observer.

    A trial that another process is at is asked for again after a while: by then it is stored, or free.

    Args:
        source: where the trials come from.
        observer: who watches.
    """

    def __init__(self, source: Source, *, observer: Observer) -> None:
        self._source = source
        self._observer = observer
        self._given: dict[str, Job] = {}
        self._postponed: deque[tuple[float, Job]] = deque()

    @property
    def is_exhausted(self) -> bool:
        """Whether no trial is left to be given, now or later."""
        return self._source.is_exhausted and not self._postponed

    def next(self) -> Job | None:
        """A trial to start now; None where there is none at present."""
        if self._postponed and self._postponed[0][0] <= time.monotonic():
            return self._postponed.popleft()[1]
        return self._source.next()

    def given(self, slot: str, job: Job) -> None:
        """A slot has this trial now."""
        self._given[slot] = job

    def hear(self, slot: str, event: Event) -> Stop | None:
        """Pass on what has happened; a status if the slot's trial is to be stopped with it."""
        job = self._given.get(slot)
        if isinstance(event, Message):
            self._observer.message(event.text)
        elif isinstance(event, Note):
            note(event.text)
        if job is None:
            return None
        match event:
            case Started():
                self._observer.started(slot, job.trial)
            case Progressed():
                self._observer.progressed(slot, event.step, event.loss)
            case Measured():
                self._observer.measured(slot, event.measurement)
                if not self._source.measured(job.trial, event.measurement):
                    return Status.PRUNED
            case Finished():
                del self._given[slot]
                reason = event.summary.get("reason")
                self._observer.finished(slot, job.trial, event.status, reason=reason, log=event.log)
                self._source.finished(job.trial, event.status, summary=event.summary, timing=event.timing)
            case Held():
                del self._given[slot]
                self._postponed.append((time.monotonic() + SECONDS_UNTIL_ASKED_AGAIN, job))
            case _:
                pass
        return None
