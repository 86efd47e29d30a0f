"""What there is to do: the trials that are asked for, less those that the store has."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from optbench.component import Component
from optbench.errors import unknown
from optbench.execution import Job
from optbench.measurement import Status
from optbench.store import Store
from optbench.stored import Conditions, Stored
from optbench.trial import Trial

FAILED = "failed"
STALE = "stale"
LOCAL = "optbench.executors.local.LocalExecutor"
SERIAL = "optbench.executors.serial.SerialExecutor"
RERUN = (*(status.value for status in Status), FAILED, STALE)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a command asks for, and what of it is to be run.

    Attributes:
        store: of the sweep.
        trials: all that are asked for, each once, in the order in which they were given.
        stored: what there is of them, by id.
        jobs: those that are to be run.
        num_merged: how many were given once more, in whatever spelling.
    """

    store: Store
    trials: Sequence[Trial]
    stored: Mapping[str, Stored]
    jobs: Sequence[Job]
    num_merged: int

    @property
    def num_failed(self) -> int:
        """Trials that have failed and are not to be run again."""
        return sum(self.stored[trial_id].status.failed for trial_id in self._kept)

    @property
    def num_done(self) -> int:
        """Trials that have a result and are not to be run again, failed ones aside."""
        return len(self._kept) - self.num_failed

    @property
    def _kept(self) -> set[str]:
        return self.stored.keys() - {job.trial.id for job in self.jobs}


def make(
    trials: Iterable[Trial],
    *,
    store: Store,
    rerun: Sequence[str] = (),
    pruned_counts: bool = False,
    runs_here: bool = True,
) -> Plan:
    """Find out what is to be run: what has no result, was preempted, or is asked for once more.

    Args:
        trials: those asked for; the same one may come several times.
        store: where their results are. Damaged ones are set aside, and missing then.
        rerun: results to be made again: by status, `failed` for any that says so, `stale` for those of other versions,
            another commit or another device.
        pruned_counts: whether `pruned` is a result, as to the search that gave the trial up; to all others, the trial
            has none.
        runs_here: whether trials run on this machine, so that `stale` looks at the device.

    Raises:
        UsageError: `rerun` has an unknown word, or a later optbench wrote one of the results.
    """
    again = to_run_again(rerun, runs_here=runs_here)
    without_result = {Status.PREEMPTED} if pruned_counts else {Status.PREEMPTED, Status.PRUNED}
    given = 0
    asked: dict[str, Trial] = {}
    for trial in trials:
        given += 1
        asked.setdefault(trial.id, trial)
    everything = store.statuses()
    stored = {trial_id: everything[trial_id] for trial_id in asked if trial_id in everything}
    jobs = []
    for trial_id, trial in asked.items():
        found = stored.get(trial_id)
        if found is None:
            jobs.append(Job(trial=trial))
        elif found.status in without_result or again(found):
            jobs.append(Job(trial=trial, replaces=found.modified_ns))
    return Plan(store=store, trials=list(asked.values()), stored=stored, jobs=jobs, num_merged=given - len(asked))


def runs_here(executor: Component) -> bool:
    """Whether this executor runs trials on this machine, with its devices."""
    return executor.target in (LOCAL, SERIAL)


def to_run_again(rerun: Sequence[str], *, runs_here: bool) -> Callable[[Stored], bool]:
    """Whether a stored result is among those that words of `sweep.rerun` name.

    Raises:
        UsageError: one of them is unknown.
    """
    statuses = statuses_of(rerun)

    @functools.cache  # most results were made alike
    def is_stale(conditions: Conditions) -> bool:
        return STALE in rerun and bool(conditions.differences(runs_here=runs_here))

    return lambda found: found.status in statuses or is_stale(found.conditions)


def statuses_of(rerun: Sequence[str]) -> set[Status]:
    """The statuses that words of `sweep.rerun` are about.

    Raises:
        UsageError: one of them is unknown.
    """
    found: set[Status] = set()
    for word in rerun:
        if word not in RERUN:
            raise unknown("status", str(word), RERUN, where="for sweep.rerun")
        if word == FAILED:
            found |= {status for status in Status if status.failed}
        elif word != STALE:
            found.add(Status(word))
    return found
