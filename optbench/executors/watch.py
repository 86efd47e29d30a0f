"""What a command sees of workers that it is not connected to: their results, their leases, and Slurm's queue."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from optbench import lease
from optbench.errors import UsageError
from optbench.execution import Job
from optbench.executors import Interruption, Observer, Source
from optbench.executors import queue as queues
from optbench.measurement import Status
from optbench.store import Store

LOOKS_FOR_EACH_QUESTION = 5  # Slurm's controller is asked less often than the store is looked at
SECONDS_TO_ANSWER = 60.0
SECONDS_TO_WAIT = 0.25


class Watch:
    """Looks at the store and at Slurm's queue, and tells the observer what has changed."""

    def __init__(self, jobs: Sequence[Job], *, source: Source, store: Store, observer: Observer) -> None:
        self._left = {job.trial.id: job for job in jobs}
        self._source = source
        self._store = store
        self._observer = observer
        self._slots: dict[str, lease.Holder] = {}
        self._at: dict[str, str] = {}
        self._said = ""

    def watch(self, arrays: Sequence[str], *, interruption: Interruption, poll_seconds: float) -> None:
        """Until all is stored, no worker is left, or the command is asked to end."""
        num_gone = 0
        looks = 0
        while True:
            self._look()
            if not self._left:
                return
            if looks % LOOKS_FOR_EACH_QUESTION == 0:
                # Twice, with a look in between: on a network drive, a file may show later than its writer has gone.
                num_gone = num_gone + 1 if self._are_gone(arrays) else 0
                if num_gone == 2:
                    self._say_what_is_missing(arrays)
                    return
            looks += 1
            begun = time.monotonic()
            while time.monotonic() - begun < poll_seconds:
                if interruption.is_requested:
                    self._observer.message(
                        f"{named(arrays)} goes on without this command. The same command watches it again; "
                        f"`scancel {' '.join(arrays)}` ends it."
                    )
                    return
                time.sleep(min(SECONDS_TO_WAIT, poll_seconds))

    def _look(self) -> None:
        """What has been stored, and what is under way."""
        for trial_id in sorted(queues.stored(self._store) & self._left.keys()):
            job = self._left[trial_id]
            if (now := queues.left(job, self._store)) is not None:
                self._left[trial_id] = now
                continue
            if (record := self._store.read(trial_id)) is None:  # damaged in between, and set aside
                continue
            del self._left[trial_id]
            status, summary = Status(record["status"]), record["summary"]
            log = self._store.log(trial_id)
            self._observer.finished(
                self._at.get(trial_id, "slurm"),
                job.trial,
                status,
                reason=summary.get("reason"),
                log=str(log) if log.exists() else None,
            )
            self._source.finished(job.trial, status, summary=summary, timing=record["timing"])
        held = lease.held(self._store.folder)
        processes = {(holder.host, holder.pid) for holder in held.values()}
        self._slots = {slot: holder for slot, holder in self._slots.items() if (holder.host, holder.pid) in processes}
        for trial_id, holder in held.items():
            if trial_id in self._left and (slot := self._slot(holder)) != self._at.get(trial_id):
                self._at[trial_id] = slot
                self._observer.started(slot, self._left[trial_id].trial)

    def _slot(self, holder: lease.Holder) -> str:
        """The name of a process's slot: that of its machine, and the first number that is free there."""
        for slot, known in self._slots.items():
            if (known.host, known.pid) == (holder.host, holder.pid):
                return slot
        number = 0
        while (slot := f"{holder.host} {number}") in self._slots:
            number += 1
        self._slots[slot] = holder
        return slot

    def _are_gone(self, arrays: Sequence[str]) -> bool:
        """Whether none of the workers is in Slurm's queue any more; says so where none of them runs yet."""
        try:
            workers = workers_in_queue()
        except UsageError as error:
            self._say(f"{error} The workers go on all the same.")
            return False
        states = [state for array in arrays for state in workers.get(array, [])]
        waiting = [f"{state.lower()} ({reason})" for state, reason in states if state != "COMPLETING"]
        if waiting and not any(state == "RUNNING" for state, _ in states):
            self._say(f"no worker runs now: {len(waiting)} {', '.join(sorted(set(waiting)))}")
        return not states

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._observer.message(text)

    def _say_what_is_missing(self, arrays: Sequence[str]) -> None:
        folder = folder_of(self._store)
        said = [line for array in arrays for line in _last_lines(folder, array)]
        self._observer.message(
            "\n".join(
                [
                    f"{named(arrays)} has ended, and {len(self._left)} of its trials have no result. The same command "
                    f"runs them. What the workers said is in {folder}.",
                    *said,
                ]
            )
        )


def folder_of(store: Store) -> Path:
    """Where Slurm and submitit keep what belongs to workers."""
    return store.folder / queues.FOLDER / "workers"


def named(arrays: Sequence[str]) -> str:
    """The arrays, for people."""
    return f"Slurm's job {', '.join(arrays)}"


def workers_in_queue() -> Mapping[str, list[tuple[str, str]]]:
    """The state, and the reason for it, of each task in Slurm's queue that is this user's, by the number of its array.

    Raises:
        UsageError: Slurm does not answer.
    """
    asked = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%F|%T|%r"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"Slurm does not answer: {error}.") from error
    if answer.returncode != 0:
        raise UsageError(f"Slurm does not answer: {answer.stderr.strip()}.")
    found: dict[str, list[tuple[str, str]]] = {}
    for line in answer.stdout.splitlines():
        array, state, reason = line.strip().split("|", 2)
        found.setdefault(array, []).append((state, reason))
    return found


def _last_lines(folder: Path, array: str) -> list[str]:
    """The last lines that a worker of this array wrote before it ended, those of srun aside."""
    for path in sorted(folder.glob(f"{array}_*_log.err")):
        with suppress(OSError):
            lines = path.read_text(errors="replace").splitlines()
            if kept := [line for line in lines if line.strip() and not line.startswith(("srun:", "slurmstepd"))]:
                return kept[-3:]
    return []
