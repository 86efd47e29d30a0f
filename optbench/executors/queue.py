"""The trials of a sweep as a file in the store, for workers that outlive the command that submitted them."""

import dataclasses
import hashlib
import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optbench import __version__, lease
from optbench.component import Component
from optbench.errors import UsageError
from optbench.execution import Context, Job, Limits
from optbench.hardware import Hardware
from optbench.measurement import Measurement, Status
from optbench.store import Store
from optbench.trial import Trial

FOLDER = "queue"
SECONDS_BETWEEN_LOOKS = 1.0
# Stored with such a status, a trial has no result yet.
NO_RESULT = (Status.PREEMPTED, Status.PRUNED)


@dataclass(frozen=True, kw_only=True)
class Queue:
    """What workers are to do: the trials, and all that they have in common."""

    context: Context
    jobs: Sequence[Job]


def write(queue: Queue, store: Store) -> Path:
    """Put the queue into the store, in a file that is named by the hash of what it holds.

    Raises:
        UsageError: a trial would not be the same when it is read.
        OSError: the store cannot be written to.
    """
    trials = [{"config": job.trial.config, "replaces": job.replaces} for job in queue.jobs]
    whole = {"optbench": __version__, "context": dataclasses.asdict(queue.context), "trials": trials}
    content = json.dumps(whole, default=dict).encode()
    for job, read_again in zip(queue.jobs, _parse(content).jobs, strict=True):
        if job.trial.id != read_again.trial.id:
            raise UsageError(
                f"{job.trial.title}: its config has a value that JSON cannot hold, so it cannot be passed to other "
                "machines. Use executor=local."
            )
    return store.write(f"{FOLDER}/{_hash(content)}.json", content)


def read(path: Path) -> Queue:
    """The queue in a file.

    Raises:
        UsageError: the file does not hold what was written, or another optbench has written it.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if _hash(content) != path.stem:
        raise UsageError(f"{path}: does not hold what was written; start the sweep again.")
    return _parse(content)


def stored(store: Store) -> set[str]:
    """The trials of which there is some result, by id."""
    with suppress(FileNotFoundError):
        return {path.stem for path in store.path("any").parent.iterdir()}
    return set()


def left(job: Job, store: Store) -> Job | None:
    """The job as it stands now; None where its result is stored, which a preempted trial's is not."""
    modified_ns = store.modified_ns(job.trial.id)
    if modified_ns == job.replaces:
        return job
    record = None if modified_ns is None else store.read(job.trial.id)
    if record is None:
        return Job(trial=job.trial)
    return Job(trial=job.trial, replaces=modified_ns) if record["status"] in NO_RESULT else None


class SharedSource:
    """A source that is shared with workers elsewhere: what they have stored or are at is not given.

    Args:
        jobs: all of the queue.
        store: tells what is stored, and who is at what.
        offset: where this worker starts, so that not all begin with the same trial; it comes round to the others.
        idle_seconds: exhausted after so long without a trial to give, though others are at some; None waits for them.
    """

    def __init__(self, jobs: Sequence[Job], *, store: Store, offset: int, idle_seconds: float | None) -> None:
        self._store = store
        self._num_trials = len(jobs)
        self._waiting = deque(jobs)
        self._waiting.rotate(-offset)
        self._idle_seconds = idle_seconds
        self._given_at = time.monotonic()
        self._looked_at = -SECONDS_BETWEEN_LOOKS

    @property
    def num_trials(self) -> int:
        """How many the queue has in all."""
        return self._num_trials

    @property
    def is_exhausted(self) -> bool:
        """Whether all are stored or given, or there was none to give for long enough."""
        is_idle = self._idle_seconds is not None and time.monotonic() - self._given_at > self._idle_seconds
        return not self._waiting or is_idle

    def next(self) -> Job | None:
        """The next that is neither stored nor under way elsewhere."""
        if time.monotonic() - self._looked_at < SECONDS_BETWEEN_LOOKS:
            return None
        held = lease.held(self._store.folder) if self._waiting else {}
        for _ in range(len(self._waiting)):
            job = left(self._waiting.popleft(), self._store)
            if job is not None and job.trial.id not in held:
                self._given_at = time.monotonic()
                return job
            if job is not None:
                self._waiting.append(job)
        self._looked_at = time.monotonic()
        return None

    def put_back(self, job: Job) -> None:
        """It is the last then."""
        self._waiting.append(job)

    def measured(self, trial: Trial, measurement: Measurement) -> bool:  # noqa: ARG002
        """What is in the queue is run to its end."""
        return True

    def finished(self, trial: Trial, status: Status, *, summary: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """One that was preempted, here or elsewhere, is to be gone on with."""
        del summary, timing
        self._given_at = time.monotonic()
        if status in NO_RESULT:
            self.put_back(Job(trial=trial))


def _parse(content: bytes) -> Queue:
    given = json.loads(content)
    if given["optbench"] != __version__:
        raise UsageError(f"the queue is of optbench {given['optbench']}, and this is {__version__}: start again.")
    context = given["context"]
    return Queue(
        context=Context(
            **{
                **context,
                "logger": Component(**context["logger"]),
                "allowed": tuple(context["allowed"]),
                "limits": Limits(**context["limits"]),
                "hardware": tuple(Hardware(**hardware) for hardware in context["hardware"]),
            }
        ),
        jobs=[Job(trial=Trial.from_config(entry["config"]), replaces=entry["replaces"]) for entry in given["trials"]],
    )


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
