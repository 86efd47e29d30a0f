"""A slot: the place of one trial at a time, and the supervision of the process that runs it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from optbench.control import Stop
from optbench.execution import (
    Check,
    Checked,
    Context,
    Event,
    Finished,
    Held,
    Job,
    Measured,
    Note,
    Progressed,
    Refused,
    Started,
    StopTrial,
)
from optbench.executors.endings import ending, num_oom_kills, store_lost
from optbench.measurement import Measurement, Result, Status, columns
from optbench.parsing import finite
from optbench.store import Store
from optbench.trial import Trial

MAX_FAILED_STARTS = 2
SECONDS_TO_BEGIN = 600.0  # importing torch from a busy network disk takes minutes; it is no part of a trial's time
SECONDS_TO_END = 2.0
NOWHERE: Mapping[str, Any] = {
    "device": "unknown",
    "device_type": "unknown",
    "num_threads": None,
    "packages": {},
    "commit": None,
}


class Slot:
    """One worker process, replaced when it ends, and the trial that it is at.

    Whatever becomes of the process, the trial that was given ends with an event and with a row in the store.

    Args:
        name: for people, such as `cuda:0`.
        context: of the sweep.
        environment: variables that the process is born with, besides those of this one.
    """

    def __init__(self, name: str, *, context: Context, environment: Mapping[str, str]) -> None:
        self.name = name
        self._context = context
        self._environment = dict(environment)
        self._store = Store(Path(context.results), context.sweep)
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._num_failed_starts = 0
        self._guarded = -1
        # Of the trial that it is at:
        self._job: Job | None = None
        self._started: float | None = None
        self._moved = 0.0
        self._step = 0
        self._measurements: list[Measurement] = []
        self._found = NOWHERE
        self._num_oom_kills = 0

    @property
    def place(self) -> tuple[str, Mapping[str, str]]:
        """Its name, and the variables that its process is born with."""
        return self.name, self._environment

    @property
    def is_idle(self) -> bool:
        """Whether it has no trial."""
        return self._job is None

    @property
    def trial(self) -> Trial | None:
        """The trial that it is at."""
        return None if self._job is None else self._job.trial

    @property
    def is_alive(self) -> bool:
        """Whether its process has been started, and not been found to have ended."""
        return self._process is not None

    def fileno(self) -> int:
        """Readable when `poll` has something; the process has to have been started."""
        assert self._connection is not None
        return self._connection.fileno()

    def start(self) -> None:
        """Start the process where there is none, without waiting for it."""
        if self._process is not None:
            return
        ours, theirs = socket.socketpair()
        guard, self._guarded = os.pipe()
        with theirs, self._open_log() as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "optbench.executors.worker", str(theirs.fileno()), str(guard)],
                pass_fds=[theirs.fileno(), guard],
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        os.close(guard)
        self._connection = Connection(ours.detach())
        self._send((self._context, list(sys.path)))

    def check(self, trials: Sequence[Trial]) -> None:
        """Have the process look at trials before anything trains; `poll` gives a `Checked`."""
        self.start()
        self._send(Check(trials=trials))

    def give(self, job: Job) -> None:
        """Run a trial; the slot is not idle until `poll` has given its last event."""
        assert self._job is None, "one trial at a time"
        self.start()
        self._clear()
        self._job = job
        self._send(job)

    def stop(self, status: Stop) -> None:
        """Ask the trial to end after the step under way."""
        if self._job is not None:
            self._send(StopTrial(trial_id=self._job.trial.id, status=status))

    def poll(self) -> list[Event | Checked]:
        """What has happened since the last call; never waits."""
        if self._connection is None:
            return []
        events: list[Event | Checked] = []
        # Asked before what it said is read. What it has forked may keep the connection open after its end.
        has_ended = self._process is not None and self._process.poll() is not None
        try:
            while self._connection is not None and self._connection.poll(0):
                message = self._connection.recv()
                told = getattr(message, "trial_id", None)
                if told is not None and (self._job is None or told != self._job.trial.id):
                    continue  # of a trial that is over, or from a process that it had forked
                self._note(message)
                events.append(message)
        except (EOFError, OSError):
            return events + self._lost()
        if has_ended and self._process is not None:
            return events + self._lost()
        if self._job is not None and self._started is None:
            return events + (self._lost() if time.monotonic() - self._moved > SECONDS_TO_BEGIN else [])
        if self._job is not None and (reason := self._over_limit()) is not None:
            self._end_process()
            events += self._ended(Status.TIMED_OUT, reason)
        return events

    def preempt(self) -> None:
        """Ask the trial to keep a checkpoint and end; one that has not begun ends at once."""
        if self._job is not None and self._started is None:
            self._end_process()
            self._clear()
        else:
            self.stop(Status.PREEMPTED)

    def kill(self) -> list[Event | Checked]:
        """End the process and all that it has started; its trial is preempted."""
        events = self.poll()  # it may have ended by itself
        self._end_process()
        if self._job is None or self._started is None:
            self._clear()
            return events
        return events + self._ended(Status.PREEMPTED, "it did not stop within limits.grace_seconds, and was killed")

    def close(self) -> None:
        """End the process, and a trial with it, of which no row is left."""
        if self._process is not None and self._job is None:
            self._send(None)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(SECONDS_TO_END)
        self._end_process()
        self._clear()

    def _clear(self) -> None:
        self._job = None
        self._started = None
        self._moved = time.monotonic()
        self._step = 0
        self._measurements = []
        self._found = NOWHERE
        self._num_oom_kills = num_oom_kills()

    def _send(self, message: object) -> None:
        assert self._connection is not None
        with suppress(OSError):  # a process that has just died is found by `poll`
            self._connection.send(message)

    def _note(self, event: Event | Checked) -> None:
        """Keep what a row would need if the process died now."""
        match event:
            case Started():
                self._moved = time.monotonic()
                self._found = event.environment
            case Progressed():
                if self._started is None:
                    self._started = self._moved = time.monotonic()
                    self._num_failed_starts = 0
                if event.step != self._step:
                    self._step, self._moved = event.step, time.monotonic()
            case Measured():
                self._measurements.append(event.measurement)
                self._step, self._moved = event.measurement.step, time.monotonic()
            case Note():
                self._moved = time.monotonic()
            case Finished() | Held():
                if isinstance(event, Finished) and event.is_last:
                    self._end_process()
                self._job = None
            case Refused():
                self._job = None
            case _:
                pass

    def _over_limit(self) -> str | None:
        limits, now = self._context.limits, time.monotonic()
        if limits.no_progress_seconds is not None and now - self._moved > limits.no_progress_seconds:
            return f"no step in {limits.no_progress_seconds:g} s (limits.no_progress_seconds)"
        if (
            limits.trial_seconds is not None
            and self._started is not None
            and now - self._started > limits.trial_seconds
        ):
            return f"longer than {limits.trial_seconds:g} s (limits.trial_seconds)"
        return None

    def _lost(self) -> list[Event | Checked]:
        """The process has ended by itself, or does not come to begin."""
        assert self._process is not None
        num_before = self._num_oom_kills
        code = self._end_process()
        job = self._job
        if job is None:
            return []
        if self._started is None:  # it has not even begun: not the trial's fault
            self._num_failed_starts += 1
            if self._num_failed_starts >= MAX_FAILED_STARTS:
                self._clear()
                return [Refused(text=f"worker processes end before they begin: {ending(code)}.\n{self._log_tail()}")]
            self._job = None
            self.give(job)
            return []
        is_oom = code == -signal.SIGKILL and num_oom_kills() > num_before
        status = Status.OUT_OF_MEMORY if is_oom else Status.CRASHED
        why = ", since the machine was out of memory" if is_oom else ""
        return self._ended(status, f"its process ended: {ending(code)}{why}")

    def _ended(self, status: Status, reason: str) -> list[Event | Checked]:
        """Store the row of a trial whose process is gone."""
        job, started = self._job, self._started
        assert job is not None
        last = self._measurements[-1] if self._measurements else None
        wall_seconds = None if started is None else time.monotonic() - started
        result = Result(
            status=status,
            summary={"num_steps": self._step, "reason": reason, "wall_seconds": wall_seconds},
            curve=finite(columns(self._measurements)),
            timing={"train_seconds": last.seconds if last is not None else None, "step_seconds": None},
            environment=self._found,
        )
        self._clear()
        try:
            return [store_lost(job, result, store=self._store)]
        except OSError as error:
            return [Refused(text=str(error), is_store=True)]

    def _end_process(self) -> int:
        """End the process and its group; how it ended: an exit code, or a signal's number below 0."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is None or connection is None:
            return 0
        connection.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)  # the connection may be closed a moment before the process has ended
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        os.close(self._guarded)
        with suppress(OSError):
            if not self._log_path.stat().st_size:
                self._log_path.unlink()
        return code

    @property
    def _log_path(self) -> Path:
        """What the worker prints while it is at no trial."""
        name = "".join(letter if letter.isalnum() else "-" for letter in self.name)
        return self._store.log(f"worker-{os.getpid()}-{name}")

    def _open_log(self) -> Any:
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        return self._log_path.open("ab")

    def _log_tail(self) -> str:
        with suppress(OSError):
            lines = self._log_path.read_text(errors="replace").strip().splitlines()
            return "\n".join([*lines[-5:], f"More in {self._log_path}."])
        return ""
