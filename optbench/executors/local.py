"""Trials in worker processes on this machine, one for each slot."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import wait

from optbench.console import note
from optbench.errors import UsageError
from optbench.execution import Checked, Context, Note, Refused
from optbench.executors import Interruption, Observer, Source
from optbench.executors.devices import gpus, num_cores, thread_variables
from optbench.executors.dispatch import Dispatch
from optbench.executors.slot import Slot
from optbench.trial import Trial

SECONDS_TO_WAIT = 0.25


class LocalExecutor:
    """Runs as many trials at a time as there are slots; a process that dies or hangs costs its own trial alone.

    Args:
        num_slots: None takes GPUs times `jobs_per_gpu`, or cores divided by threads.
        jobs_per_gpu: trials that share a GPU.

    Raises:
        UsageError: one of them is not above 0.
    """

    def __init__(self, *, num_slots: int | None, jobs_per_gpu: int) -> None:
        for name, value in (("num_slots", num_slots), ("jobs_per_gpu", jobs_per_gpu)):
            if value is not None and (type(value) is not int or value < 1):
                raise UsageError(f"executor.{name}={value!r}: a whole number above 0 is needed.")
        self._num_slots = num_slots
        self._jobs_per_gpu = jobs_per_gpu
        self._slots: list[Slot] = []

    def places(self, context: Context) -> Sequence[tuple[str, Mapping[str, str]]]:
        """The name of each slot, and the variables that its process is born with."""
        threads = thread_variables(context.num_threads)
        devices = gpus() if any(hardware.device != "cpu" for hardware in context.hardware) else []
        if devices:
            num_slots = self._num_slots or len(devices) * self._jobs_per_gpu
            places = []
            for number in range(num_slots):
                turn, device = number // len(devices), devices[number % len(devices)]
                name = f"cuda:{device}" if num_slots <= len(devices) else f"cuda:{device} ({turn + 1})"
                places.append((name, {**threads, "CUDA_VISIBLE_DEVICES": device}))
            return places
        num_slots = self._num_slots or max(1, num_cores() // context.num_threads)
        return [(f"cpu {number}", threads) for number in range(num_slots)]

    runs_here = True

    def prepare(self, context: Context) -> None:
        """Start a process, which imports torch while the sweep is still being planned."""
        self._start(context, num_trials=1)

    def num_slots(self, context: Context) -> int:
        """How many trials will run at a time."""
        return len(self.places(context))

    def _start(self, context: Context, *, num_trials: int) -> None:
        """Have a process for each slot, and for no more than there are trials."""
        places = self.places(context)[: max(1, num_trials)]
        kept = [slot for slot, place in zip(self._slots, places, strict=False) if slot.place == place]
        for slot in self._slots[len(kept) :]:
            slot.close()
        self._slots = kept + [
            Slot(name, context=context, environment=variables) for name, variables in places[len(kept) :]
        ]
        for slot in self._slots:
            slot.start()

    def check(self, trials: Sequence[Trial], context: Context) -> Sequence[str]:
        """All that can be known to be wrong, looked at where the trials will run; returns what is to be warned of.

        Raises:
            UsageError: nothing has been trained.
        """
        self._start(context, num_trials=len(trials))
        checker = self._slots[0]
        checker.check(trials)
        while True:
            for event in checker.poll():
                if isinstance(event, Checked):
                    if event.error is not None:
                        raise UsageError(event.error)
                    return event.warnings
                if isinstance(event, Note):
                    note(event.text)
            if not checker.is_alive:
                return []  # what ends a process in a check ends it in a trial, and is a row there
            wait([checker.fileno()], SECONDS_TO_WAIT)

    def execute(self, source: Source, *, context: Context, observer: Observer, interruption: Interruption) -> None:
        """Run every trial that the source gives.

        Raises:
            UsageError: the sweep cannot go on.
            OSError: the store cannot be written to.
        """
        self._start(context, num_trials=source.num_trials)
        dispatch, most = Dispatch(source, observer=observer), self.num_slots(context)
        asked_to_stop: float | None = None
        while True:
            if not interruption.is_requested:
                if len(self._slots) < min(most, source.num_trials):  # a search knows more as it goes on
                    self._start(context, num_trials=source.num_trials)
                for slot in self._slots:
                    if slot.is_idle and (job := dispatch.next()) is not None:
                        slot.give(replace(job, at_a_time=len(self._slots)))
                        dispatch.given(slot.name, job)
            busy = [slot for slot in self._slots if not slot.is_idle]
            if not busy and (interruption.is_requested or dispatch.is_exhausted):
                return
            if interruption.is_urgent:
                return
            if interruption.is_requested and asked_to_stop is None:
                asked_to_stop = time.monotonic()
                for slot in busy:
                    slot.preempt()
                busy = [slot for slot in busy if not slot.is_idle]
            if busy:
                wait([slot.fileno() for slot in busy], SECONDS_TO_WAIT)
            else:
                time.sleep(SECONDS_TO_WAIT)
            is_late = asked_to_stop is not None and time.monotonic() - asked_to_stop > context.limits.grace_seconds
            for slot in busy:
                for event in slot.kill() if is_late else slot.poll():
                    if isinstance(event, Refused):
                        raise event.error
                    if not isinstance(event, Checked) and (stop := dispatch.hear(slot.name, event)) is not None:
                        slot.stop(stop)

    def close(self) -> None:
        """End all processes."""
        for slot in self._slots:
            slot.close()
        self._slots = []
