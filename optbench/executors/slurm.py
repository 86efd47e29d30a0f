"""Trials on a Slurm cluster: workers, submitted once as one array, go through a queue in the store.

The command that submits them only watches the store. It may end, and a later one finds the workers again.
"""

import functools
import importlib.util
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from optbench.checks import check_all
from optbench.errors import UsageError
from optbench.execution import Context, Job
from optbench.executors import Interruption, Listed, Observer, Source
from optbench.executors import queue as queues
from optbench.executors.allocation import work
from optbench.executors.watch import Watch, folder_of, named, workers_in_queue
from optbench.store import Store
from optbench.trial import Trial

POSITIVE = ("num_workers", "slots_per_worker", "jobs_per_gpu", "cpus_per_worker", "timeout_minutes", "warning_seconds")


class SlurmExecutor:
    """Runs trials in the allocations of a Slurm cluster; needs the extra `slurm` and a results folder that all share.

    Args:
        num_workers: allocations; each of them runs trials until all are stored.
        slots_per_worker: trials at a time in each; None takes its GPUs times `jobs_per_gpu`, or its cores divided by
            the threads of a trial.
        jobs_per_gpu: trials that share a GPU.
        cpus_per_worker: cores of each.
        gpus_per_worker: GPUs of each; 0 asks for none.
        memory_gb: of each; None leaves it to the partition, as None does in those that follow.
        partition: where they run.
        account: that pays.
        qos: their quality of service.
        timeout_minutes: the longest that one may run at a time.
        warning_seconds: so long before that it is told, keeps checkpoints, and goes back into Slurm's queue.
        max_requeues: how often it may do so, or be preempted.
        idle_minutes: a worker ends that has had nothing to do for so long, since others are at what is left; None lets
            it wait for them, and take over what they lose.
        setup: lines of shell that go before each worker, such as `module load cuda`.
        sbatch: more options of Slurm's, by their long names without the dashes.
        poll_seconds: how often the store is looked at.

    Raises:
        UsageError: one of them is out of its range.
    """

    runs_here = False

    def __init__(
        self,
        *,
        num_workers: int,
        slots_per_worker: int | None,
        jobs_per_gpu: int,
        cpus_per_worker: int,
        gpus_per_worker: int,
        memory_gb: float | None,
        partition: str | None,
        account: str | None,
        qos: str | None,
        timeout_minutes: int,
        warning_seconds: int,
        max_requeues: int,
        idle_minutes: float | None,
        setup: Sequence[str],
        sbatch: Mapping[str, Any],
        poll_seconds: float,
    ) -> None:
        given = dict(locals())
        for name in (*POSITIVE, "gpus_per_worker", "max_requeues"):
            least = 1 if name in POSITIVE else 0
            if given[name] is not None and (type(given[name]) is not int or given[name] < least):
                raise UsageError(f"executor.{name}={given[name]!r}: a whole number is needed, {least} or above.")
        for name in ("memory_gb", "idle_minutes", "poll_seconds"):
            if given[name] is not None and (type(given[name]) not in (int, float) or not given[name] > 0):
                raise UsageError(f"executor.{name}={given[name]!r}: a number above 0 is needed.")
        if warning_seconds >= 60 * timeout_minutes:
            raise UsageError(
                f"executor.warning_seconds={warning_seconds}: it must be less than executor.timeout_minutes="
                f"{timeout_minutes}."
            )
        self._num_workers = num_workers
        self._num_slots = slots_per_worker
        self._jobs_per_gpu = jobs_per_gpu
        self._cpus_per_worker = cpus_per_worker
        self._gpus_per_worker = gpus_per_worker
        self._warning_seconds = warning_seconds
        self._max_requeues = max_requeues
        self._idle_seconds = None if idle_minutes is None else 60.0 * idle_minutes
        self._poll_seconds = poll_seconds
        self._asked = {
            "timeout_min": timeout_minutes,
            "cpus_per_task": cpus_per_worker,
            "gpus_per_node": gpus_per_worker or None,
            "mem_gb": memory_gb,
            "slurm_partition": partition,
            "slurm_account": account,
            "slurm_qos": qos,
            "slurm_signal_delay_s": warning_seconds,
            "slurm_array_parallelism": num_workers,
            "slurm_setup": list(setup),
            # Since Slurm 22.05, srun does not take the number of cores over from sbatch.
            "slurm_srun_args": [f"--cpus-per-task={cpus_per_worker}", "--open-mode=append"],
            "slurm_additional_parameters": {"requeue": True, **sbatch},
        }

    def prepare(self, context: Context) -> None:
        """There is nothing to begin with."""

    def num_slots(self, context: Context) -> int:
        """How many trials will run at a time once all workers do."""
        if self._num_slots is None and self._gpus_per_worker:
            return self._num_workers * self._gpus_per_worker * self._jobs_per_gpu
        num_threads = max(hardware.num_threads for hardware in context.hardware)
        return self._num_workers * (self._num_slots or max(1, self._cpus_per_worker // num_threads))

    def check(self, trials: Sequence[Trial], context: Context) -> Sequence[str]:
        """What can be known here to be wrong, so devices aside; returns what is to be warned of.

        Raises:
            UsageError: nothing has been submitted.
        """
        if importlib.util.find_spec("submitit") is None:
            raise UsageError("executor=slurm needs submitit: pip install 'optbench[slurm]'.")
        for program in ("sbatch", "srun", "squeue", "scontrol"):
            if shutil.which(program) is None:
                raise UsageError(
                    f"executor=slurm: no {program} is found on this machine. Start the sweep where jobs are submitted "
                    "to Slurm, or use executor=local."
                )
        if context.limits.grace_seconds >= self._warning_seconds:
            raise UsageError(
                f"limits.grace_seconds={context.limits.grace_seconds:g} must be less than "
                f"executor.warning_seconds={self._warning_seconds}: trials are stopped between the two."
            )
        return check_all(trials, context, is_here=False)

    def execute(self, source: Source, *, context: Context, observer: Observer, interruption: Interruption) -> None:
        """Submit workers for what none is at yet, and watch the store until it has all, or no worker is left.

        Raises:
            UsageError: the trials depend on each other's results, or Slurm refuses the workers.
            OSError: the store cannot be written to.
        """
        store = Store(Path(context.results), context.sweep)
        if not (isinstance(source, Listed) or getattr(source, "is_fixed", False)):
            raise UsageError(
                "executor=slurm takes trials that are known beforehand, and this search goes by what was found. "
                "Use sweep=grid or sweep=random with n=<settings>, or executor=local within an allocation."
            )
        jobs: list[Job] = []
        while (job := source.next()) is not None:
            jobs.append(job)
        arrays, covered = self._under_way(store)
        rest = [job for job in jobs if job.trial.id not in covered]
        if len(rest) < len(jobs):
            observer.message(f"{named(arrays)} is at {len(jobs) - len(rest)} of these trials, and is watched again.")
        if rest:
            array = self._submit(rest, context=context, store=store)
            arrays.append(array)
            observer.message(
                f"{named([array])} is submitted. It goes on when this command ends, and the same command watches it "
                f"again; `scancel {array}` ends it."
            )
        Watch(jobs, source=source, store=store, observer=observer).watch(
            arrays, interruption=interruption, poll_seconds=self._poll_seconds
        )

    def close(self) -> None:
        """The workers go on."""

    def _under_way(self, store: Store) -> tuple[list[str], set[str]]:
        """The arrays that are still at this sweep, and the trials that they will run."""
        notes = [json.loads(path.read_bytes()) for path in (store.folder / queues.FOLDER).glob("*.submitted.json")]
        active = workers_in_queue() if notes else {}
        arrays: list[str] = []
        covered: set[str] = set()
        for note in notes:
            if note["array"] in active:
                with suppress(FileNotFoundError, UsageError):  # then its workers cannot read it, either
                    queue = queues.read(store.folder / queues.FOLDER / note["queue"])
                    due = {job.trial.id for job in queue.jobs if queues.left(job, store) is not None}
                    if due:
                        arrays.append(note["array"])
                        covered |= due
        return arrays, covered

    def _submit(self, jobs: Sequence[Job], *, context: Context, store: Store) -> str:
        """Write the queue and submit workers for it; the number of their array."""
        import submitit

        path = queues.write(queues.Queue(context=context, jobs=jobs), store)
        num_workers = min(self._num_workers, len(jobs))
        run = functools.partial(
            work,
            path=path,
            num_workers=num_workers,
            num_slots=self._num_slots,
            jobs_per_gpu=self._jobs_per_gpu,
            max_requeues=self._max_requeues,
            idle_seconds=self._idle_seconds,
        )
        try:
            executor = submitit.AutoExecutor(folder=folder_of(store), cluster="slurm")
            executor.update_parameters(name=f"optbench-{context.sweep}", **self._asked)
            submitted = executor.map_array(run, range(num_workers))
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise UsageError(f"Slurm refuses the workers: {str(error).strip()}") from error
        array = str(submitted[0].job_id).partition("_")[0]
        store.write(
            f"{queues.FOLDER}/{path.stem}-{array}.submitted.json", json.dumps({"array": array, "queue": path.name})
        )
        return array
