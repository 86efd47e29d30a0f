"""How processes end, and what becomes of the trials that they were at."""

import signal
from contextlib import suppress
from pathlib import Path

from optbench import lease
from optbench.execution import Finished, Held, Job
from optbench.leftovers import forget
from optbench.measurement import Result, Status
from optbench.store import Store


def store_lost(job: Job, result: Result, *, store: Store) -> Finished | Held:
    """Store the row of a trial whose process is gone; held, where another one is at it, or it had stored its result.

    Raises:
        OSError: the store cannot be written to.
    """
    trial_id = job.trial.id
    taken = lease.take(store.folder, trial_id)
    if taken is None:
        return Held(trial_id=trial_id)
    try:
        if store.modified_ns(trial_id) not in (None, job.replaces):
            return Held(trial_id=trial_id)  # whoever asks again is told what is stored
        store.publish(job.trial, result, replaces=job.replaces)
        if result.status is not Status.PREEMPTED:
            forget(store.folder, trial_id)
    finally:
        taken.release()
    log = store.log(trial_id)
    return Finished(
        trial_id=trial_id,
        status=result.status,
        summary=result.summary,
        timing=result.timing,
        log=str(log) if log.exists() and log.stat().st_size else None,
    )


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def num_oom_kills() -> int:
    """How often the system has killed a process for want of memory, of this control group where that is told."""
    for name in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control", "/proc/vmstat"):
        with suppress(OSError, ValueError):
            for line in Path(name).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0
