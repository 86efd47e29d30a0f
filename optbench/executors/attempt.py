"""One attempt at a trial: under a lease, unless it is stored by now, with its result stored at the end."""

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from optbench import lease
from optbench.allowlist import check_names, check_targets, components_of
from optbench.artifacts import ARTIFACTS
from optbench.checkpoint import Checkpoints
from optbench.control import Control
from optbench.device import resolve_device
from optbench.environment import environment
from optbench.errors import UsageError
from optbench.execution import Context, Event, Finished, Held, Job, Measured, Message, Refused, Started
from optbench.executors.printing import printing_to
from optbench.leftovers import forget
from optbench.loggers import Logger, Tolerant
from optbench.measurement import Measurement, Status
from optbench.run import run
from optbench.store import Store
from optbench.trial import Trial


def attempt(
    job: Job,
    *,
    context: Context,
    store: Store,
    logger: Logger,
    control: Control,
    report: Callable[[Event], None],
    log: Path | None = None,
    is_first: bool = True,
) -> None:
    """Run a trial and store its result, unless another process is at it or has stored it.

    Args:
        job: the trial.
        context: of the sweep.
        store: where the result goes.
        logger: hears of the trial; its failure costs the tracking alone.
        control: tells how far the trial is, and may end it.
        report: takes what happens; the last event is `Finished`, `Held` or `Refused`.
        log: where to keep what is printed meanwhile, on file descriptors 1 and 2; None leaves them alone.
        is_first: whether a logger that cannot even start is a mistake, which ends the sweep.

    Raises:
        KeyboardInterrupt: passed on; an interrupted trial is no result.
    """
    trial = job.trial
    try:
        check_names(components_of(trial), allowed=context.allowed)
        check_targets(components_of(trial), allowed=context.allowed)
        taken = lease.take(store.folder, trial.id)
        if taken is None:
            report(Held(trial_id=trial.id))
            return
        try:
            stored = store.modified_ns(trial.id)
            if stored is not None and stored != job.replaces and (record := store.read(trial.id)) is not None:
                status = Status(record["status"])
                if status is not Status.PREEMPTED:  # by another sweep, which has left it to us
                    report(_finished(trial, status, record, was_stored=True))
                    return
                job = replace(job, replaces=stored)
            elif stored is not None and (store.read(trial.id) or {}).get("status") != Status.PREEMPTED:
                forget(store.folder, trial.id)  # it is to be made again, from the beginning
            with nullcontext() if log is None else printing_to(log):  # under the lease: the file is ours
                tracked = Tolerant(logger, on_failure=partial(_say, report), passes_mistakes=is_first)
                done = _run(job, context=context, store=store, tracked=tracked, control=control, report=report)
                if log is not None and (trace := done.summary.get("traceback")):
                    print(trace, file=sys.stderr)
            printed = log is not None and log.exists()
            report(replace(done, log=str(log) if printed else None))
        finally:
            taken.release()
    except UsageError as error:
        report(Refused(text=str(error)))
    except OSError as error:
        report(Refused(text=str(error), is_store=True))


def _run(
    job: Job,
    *,
    context: Context,
    store: Store,
    tracked: Logger,
    control: Control,
    report: Callable[[Event], None],
) -> Finished:
    trial = job.trial
    found = {**environment(resolve_device(trial.hardware)), "trials_at_a_time": job.at_a_time}
    report(Started(trial_id=trial.id, environment=found))
    tracked.start(trial, folder=store.folder, environment=found)
    checkpoints = Checkpoints(store.folder, trial, every_seconds=context.checkpoint_seconds)

    def measured(measurement: Measurement) -> None:
        tracked.log(measurement)
        report(Measured(trial_id=trial.id, measurement=measurement))

    result = run(
        trial,
        on_measurement=measured,
        control=control,
        checkpoints=checkpoints,
        artifacts=store.folder / ARTIFACTS / trial.id,
    )
    result = replace(result, environment={**result.environment, "trials_at_a_time": job.at_a_time})
    store.publish(trial, result, replaces=job.replaces)
    if result.status is not Status.PREEMPTED:
        checkpoints.delete()
    tracked.finish(result)
    return _finished(trial, result.status, {"summary": result.summary, "timing": result.timing})


def _say(report: Callable[[Event], None], reason: str) -> None:
    report(Message(text=f"the logger has failed and this trial goes on without it: {reason}"))


def _finished(trial: Trial, status: Status, record: Mapping[str, Any], *, was_stored: bool = False) -> Finished:
    return Finished(
        trial_id=trial.id,
        status=status,
        summary=record["summary"],
        timing=record["timing"],
        was_stored=was_stored,
    )
