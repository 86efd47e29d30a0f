"""A worker in an allocation of Slurm's: it goes through a queue, and back into Slurm's when it has to make room."""

import os
import subprocess
import sys
from pathlib import Path

from optbench.errors import UsageError
from optbench.execution import Context
from optbench.executors import queue as queues
from optbench.executors.devices import gpus, num_cores
from optbench.executors.local import LocalExecutor
from optbench.signals import Signals
from optbench.store import Store

EXIT_REFUSED = 2


def work(
    number: int,
    *,
    path: Path,
    num_workers: int,
    num_slots: int | None,
    jobs_per_gpu: int,
    max_requeues: int,
    idle_seconds: float | None,
) -> None:
    """Run trials until all of the queue are stored, or Slurm asks for the allocation back.

    Args:
        number: of this worker, from 0.
        path: of the queue.
        num_workers: how many go through it.
        num_slots: trials at a time; None takes what the allocation has room for.
        jobs_per_gpu: trials that share a GPU.
        max_requeues: how often this worker may go back into Slurm's queue.
        idle_seconds: it ends after so long with nothing to do; None never.
    """
    from optbench.live import Progress

    try:
        queue = queues.read(path)
        context = queue.context
        source = queues.SharedSource(
            queue.jobs,
            store=Store(Path(context.results), context.sweep),
            offset=len(queue.jobs) * number // num_workers,
            idle_seconds=idle_seconds,
        )
        executor = LocalExecutor(num_slots=num_slots or _num_slots(context), jobs_per_gpu=jobs_per_gpu)
        # Waiting in Slurm's queue is no time spent, so that limits.sweep_seconds begins here.
        with Signals(seconds=context.limits.sweep_seconds) as signals:
            with Progress(num_trials=len(queue.jobs), num_slots=executor.num_slots(context)) as progress:
                try:
                    executor.execute(source, context=context, observer=progress, interruption=signals)
                finally:
                    executor.close()
            if signals.received is not None:
                _requeue(max_requeues)
    except (UsageError, OSError) as error:
        print(f"optbench: {error}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)


def _num_slots(context: Context) -> int | None:
    """As many as the allocation has cores for; None where its GPUs decide."""
    if gpus() and any(hardware.device != "cpu" for hardware in context.hardware):
        return None
    # A cluster that does not bind processes to cores shows all of the machine's.
    num_own = min(num_cores(), int(os.environ.get("SLURM_CPUS_ON_NODE", num_cores())))
    return max(1, num_own // context.num_threads)


def _requeue(max_requeues: int) -> None:
    """Have Slurm run this worker again later, unless it was cancelled, or put back by Slurm itself."""
    environ = os.environ
    if "SLURM_ARRAY_JOB_ID" in environ:  # the number of a task alone may be that of the whole array
        task = f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    else:
        task = environ["SLURM_JOB_ID"]
    num_requeues = int(environ.get("SLURM_RESTART_COUNT", 0))
    if num_requeues >= max_requeues:
        print(f"optbench: not requeued, since it was {num_requeues} times (executor.max_requeues)", file=sys.stderr)
        return
    state = _slurm("squeue", "--noheader", f"--jobs={task}", "--format=%T")
    if state == "RUNNING":
        _slurm("scontrol", "requeue", task)


def _slurm(*command: str) -> str:
    """What one of Slurm's commands answers; what it complains of goes to the worker's log."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60).stdout.strip()
    except subprocess.TimeoutExpired as error:
        print(f"optbench: {error}", file=sys.stderr)
        return ""
