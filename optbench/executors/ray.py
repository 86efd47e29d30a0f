"""Trials on a Ray cluster: a slot is an actor, which has its share of a machine's cores and GPUs."""

import itertools
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from optbench import __version__
from optbench.errors import UsageError
from optbench.execution import Checked, Context, Finished, Held, Job, Refused
from optbench.executors import Interruption, Observer, Source
from optbench.executors.cluster import Cluster, Lost
from optbench.executors.devices import thread_variables
from optbench.executors.dispatch import Dispatch
from optbench.executors.endings import store_lost
from optbench.executors.remote import News, Place, Setting
from optbench.executors.slot import NOWHERE
from optbench.measurement import Result, Status
from optbench.store import Store
from optbench.trial import Trial

SECONDS_TO_WAIT = 0.25
SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_UNTIL_SAID = 10.0
SECONDS_TO_END = 5.0
MAX_FAILED_STARTS = 10


class Lane:
    """An actor, seen from the driver.

    Attributes:
        name: for people, such as `node7 cuda:0`; None until it is known where it is.
        job: the trial that it is at.
    """

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.name: str | None = None
        self.job: Job | None = None


class RayExecutor:
    """Runs trials in the actors of a Ray cluster. A machine that is lost costs no trial: they run again elsewhere.

    Args:
        address: of a cluster; "auto" takes the one of this machine, "local" starts one for the time of the sweep. None
            takes the one that `RAY_ADDRESS` names, or else `ray start` has made here, or else starts one.
        num_slots: trials at a time; None takes as many as the cluster has room for.
        gpus_per_slot: 0.5 lets two trials share a GPU; None takes one where trials may use a GPU and there is one.
        cpus_per_slot: None takes as many as a trial has threads.
        max_lost: how often a trial may be lost with its machine and run again; after that it has crashed.

    Raises:
        UsageError: one of them is out of its range.
    """

    def __init__(
        self,
        *,
        address: str | None,
        num_slots: int | None,
        gpus_per_slot: float | None,
        cpus_per_slot: float | None,
        max_lost: int,
    ) -> None:
        if num_slots is not None and (type(num_slots) is not int or num_slots < 1):
            raise UsageError(f"executor.num_slots={num_slots!r}: a whole number above 0 is needed.")
        if type(max_lost) is not int or max_lost < 0:
            raise UsageError(f"executor.max_lost={max_lost!r}: a whole number is needed, 0 or above.")
        for name, share in (("gpus_per_slot", gpus_per_slot), ("cpus_per_slot", cpus_per_slot)):
            if share is not None and (type(share) not in (int, float) or share < 0 or (share > 1 and share % 1)):
                raise UsageError(f"executor.{name}={share!r}: a part of one is needed, or a whole number.")
        self._address = address
        self._num_slots = num_slots
        self._gpus_per_slot = gpus_per_slot
        self._cpus_per_slot = cpus_per_slot
        self._max_lost = max_lost
        self._cluster: Cluster | None = None
        self._lanes: list[Lane] = []
        self._asked: dict[Any, Lane] = {}
        self._num_failed_starts = 0
        # What the slots are for, and take:
        self._setting: Setting | None = None
        self._shares: Mapping[str, float] = {}
        self._room = 0
        self._looked = 0.0
        self._waiting_since: float | None = None

    runs_here = False

    def prepare(self, context: Context) -> None:
        """Connect, and start a slot, which imports torch while the sweep is still being planned.

        Raises:
            UsageError: there is no Ray, no such cluster, or no room in it.
            OSError: the store cannot be written to.
        """
        self._grow(self._begin(context), num_trials=1)

    def num_slots(self, context: Context) -> int:
        """How many trials will run at a time, on the machines that are there now."""
        self._begin(context)
        return self._num_slots or self._room

    def check(self, trials: Sequence[Trial], context: Context) -> Sequence[str]:
        """All that can be known to be wrong, looked at where the trials will run; returns what is to be warned of.

        Raises:
            UsageError: nothing has been trained.
            OSError: the store cannot be written to.
        """
        from optbench.console import warn

        cluster = self._begin(context)
        checker: Lane | None = None
        while True:
            self._grow(cluster, num_trials=len(trials))
            if checker is None and (checker := next((lane for lane in self._lanes if lane.name), None)) is not None:
                checker.actor.check.remote(trials)
            for lane, event in self._news(cluster):
                if isinstance(event, Lost) and lane is checker:
                    checker = None
                elif isinstance(event, Checked):
                    if event.error is not None:
                        raise UsageError(event.error)
                    return event.warnings
            if (waiting := self._waiting(cluster)) is not None:
                warn(waiting)

    def execute(self, source: Source, *, context: Context, observer: Observer, interruption: Interruption) -> None:
        """Run every trial that the source gives.

        Raises:
            UsageError: the sweep cannot go on.
            OSError: the store cannot be written to.
        """
        cluster = self._begin(context)
        dispatch = Dispatch(source, observer=observer)
        num_lost: Counter[str] = Counter()
        asked_to_stop: float | None = None
        is_killing = False
        while True:
            if not interruption.is_requested:
                if not dispatch.is_exhausted:
                    self._grow(cluster, num_trials=source.num_trials)
                self._give(dispatch)
            busy = [lane for lane in self._lanes if lane.job is not None]
            if interruption.is_urgent or (not busy and (interruption.is_requested or dispatch.is_exhausted)):
                return
            if interruption.is_requested and asked_to_stop is None:
                asked_to_stop = time.monotonic()
                for lane in busy:
                    lane.actor.preempt.remote()
            late = 0.0 if asked_to_stop is None else time.monotonic() - asked_to_stop - context.limits.grace_seconds
            if late > 0 and not is_killing:
                is_killing = True
                for lane in busy:
                    lane.actor.kill.remote()
            if late > SECONDS_TO_END:
                return
            for lane, event in self._news(cluster):
                if lane.job is None or lane.name is None or isinstance(event, Checked):
                    continue
                if isinstance(event, Lost):
                    num_lost[lane.job.trial.id] += 1
                    fate = self._after_loss(lane.job, context=context, num_lost=num_lost[lane.job.trial.id])
                    what = "runs elsewhere" if isinstance(fate, Held) else "has crashed"
                    observer.message(f"{lane.name} is lost, and its trial {what}: {event.reason}")
                    event = fate
                stop = dispatch.hear(lane.name, event)
                if isinstance(event, (Finished, Held)):
                    lane.job = None
                elif stop is not None:
                    lane.actor.stop.remote(lane.job.trial.id, stop)
            if not busy and (waiting := self._waiting(cluster)) is not None:
                observer.message(waiting)

    def close(self) -> None:
        """End all slots, and the cluster too where it was started for them."""
        if self._cluster is not None:
            try:
                self._end_lanes(self._cluster)
            finally:
                self._cluster.close()
                self._cluster = None

    def _begin(self, context: Context) -> Cluster:
        """Be connected, and have no slots but those of this context."""
        if self._cluster is None:
            self._cluster = Cluster(self._address)
        if self._setting is None or self._setting.context != context:
            self._end_lanes(self._cluster)
            machines = self._cluster.machines()
            self._shares = self._shares_for(context, machines)
            self._look(machines)
            if not self._room and self._num_slots is None:
                raise UsageError(
                    f"executor=ray: no machine of the cluster has what a slot needs, {_amounts(self._shares)}.\n"
                    "Change executor.cpus_per_slot or executor.gpus_per_slot; with executor.num_slots=<number>, the "
                    "sweep waits for machines that have it."
                )
            probe = Path(context.results) / context.sweep / "tmp" / f"seen-{secrets.token_hex(8)}"
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.touch()
            variables = {name: value for name, value in os.environ.items() if name.startswith("OPTBENCH_")}
            variables |= thread_variables(context.num_threads)
            if "GPU" not in self._shares:
                variables["CUDA_VISIBLE_DEVICES"] = ""
            self._setting = Setting(
                context=context, environment=variables, version=__version__, path=list(sys.path), probe=str(probe)
            )
        return self._cluster

    def _shares_for(self, context: Context, machines: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
        """What a slot takes of a machine, in Ray's words."""
        cpus, gpus = self._cpus_per_slot, self._gpus_per_slot
        if cpus is None:
            cpus = context.num_threads
        if gpus is None:
            may_use = any(hardware.device != "cpu" for hardware in context.hardware)
            gpus = 1 if may_use and any(machine.get("GPU") for machine in machines) else 0
        if not cpus and not gpus:
            raise UsageError("executor.cpus_per_slot=0: without a share of a GPU, a slot needs one of the cores.")
        return {kind: share for kind, share in (("CPU", cpus), ("GPU", gpus)) if share}

    def _look(self, machines: Sequence[Mapping[str, float]]) -> None:
        """How many slots there is room for, if nothing else runs there."""
        self._looked = time.monotonic()
        self._room = sum(
            min(int(machine.get(kind, 0) / share + 1e-9) for kind, share in self._shares.items())
            for machine in machines
        )

    def _grow(self, cluster: Cluster, *, num_trials: int) -> None:
        """Start slots where there is room now; the others take the place of those that were lost, or wait for it."""
        if time.monotonic() - self._looked > SECONDS_BETWEEN_LOOKS:
            self._look(cluster.machines())
        while len(self._lanes) < min(self._num_slots or self._room, max(1, num_trials)):
            lane = Lane(cluster.start(self._shares))
            self._lanes.append(lane)
            self._asked[lane.actor.open.remote(self._setting)] = lane

    def _give(self, dispatch: Dispatch) -> None:
        for lane in self._lanes:
            if lane.name is not None and lane.job is None and (job := dispatch.next()) is not None:
                lane.job = job
                dispatch.given(lane.name, job)
                lane.actor.give.remote(replace(job, at_a_time=len(self._lanes)))  # on all machines: no more on one

    def _news(self, cluster: Cluster) -> Iterator[tuple[Lane, News | Lost]]:
        """What is heard of the slots by now; waits a moment for something.

        Raises:
            UsageError: the sweep cannot go on.
            OSError: the store cannot be written to.
        """
        for call, answer in cluster.answers(self._asked, seconds=SECONDS_TO_WAIT):
            lane = self._asked.pop(call)
            if isinstance(answer, Lost):
                self._lanes.remove(lane)
                cluster.kill(lane.actor)
                self._num_failed_starts += lane.name is None
                if answer.was_unfit or self._num_failed_starts >= MAX_FAILED_STARTS:
                    raise UsageError(f"executor=ray: no slot can be started: {answer.reason}")
                yield lane, answer
                continue
            self._asked[cluster.events(lane.actor)] = lane
            if isinstance(answer, Place):
                lane.name = self._name(answer)
                self._num_failed_starts = 0
                continue
            for event in [answer] if isinstance(answer, Refused) else answer:
                if isinstance(event, Refused):
                    raise event.error
                yield lane, event

    def _name(self, place: Place) -> str:
        """A name that no other slot has."""
        names: Iterable[str]
        if place.gpus:
            first = f"{place.host} cuda:{','.join(place.gpus)}"
            names = itertools.chain([first], (f"{first} ({number})" for number in itertools.count(2)))
        else:
            names = map(f"{place.host} cpu {{}}".format, itertools.count())
        taken = {lane.name for lane in self._lanes}
        return next(name for name in names if name not in taken)

    def _after_loss(self, job: Job, *, context: Context, num_lost: int) -> Finished | Held:
        """What becomes of a trial whose slot is gone: it is asked for again, or has crashed once too often."""
        if num_lost <= self._max_lost:
            return Held(trial_id=job.trial.id)
        result = Result(
            status=Status.CRASHED,
            summary={"num_steps": 0, "reason": f"its machine, or Ray's part of it, was lost {num_lost} times"},
            curve={},
            timing={"train_seconds": None, "step_seconds": None},
            environment=NOWHERE,
        )
        return store_lost(job, result, store=Store(Path(context.results), context.sweep))

    def _waiting(self, cluster: Cluster) -> str | None:
        """Said once, when no slot has come about for a while."""
        if any(lane.name is not None for lane in self._lanes):
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = time.monotonic()
        elif time.monotonic() - self._waiting_since > SECONDS_UNTIL_SAID:
            self._waiting_since = float("inf")
            free = {kind: cluster.free().get(kind, 0) for kind in self._shares}
            return f"executor=ray: waiting for {_amounts(self._shares)} on one machine; free are {_amounts(free)}."
        return None

    def _end_lanes(self, cluster: Cluster) -> None:
        lanes, self._lanes = self._lanes, []
        self._asked.clear()
        cluster.end([lane.actor for lane in lanes if lane.name is not None], seconds=SECONDS_TO_END)
        for lane in lanes:
            cluster.kill(lane.actor)
        if self._setting is not None:
            Path(self._setting.probe).unlink(missing_ok=True)
            self._setting = None


def _amounts(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {kind}" for kind, amount in resources.items())
