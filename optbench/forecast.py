"""What trials will take, as far as costs and trials that are stored, or a step gone through without data, tell."""

import functools
import heapq
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optbench import components, machine
from optbench.cost import Memory
from optbench.costs import NOT_IN_A_STEP, cost_id, kept_below
from optbench.errors import UsageError
from optbench.hardware import Hardware
from optbench.parsing import json_safe
from optbench.plan import LOCAL, Plan, runs_here
from optbench.store import sweeps
from optbench.trial import Trial

if TYPE_CHECKING:
    from optbench.executors import Executor
    from optbench.sweep import Settings

_PARTS = ("task", "data", "model", "optimizer")
_COLUMNS = (*(f"config.{part}" for part in _PARTS), "device", "num_threads", "step_seconds", "peak_bytes")
_Kind = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Of one trial; None where nothing that is stored tells.

    Attributes:
        seconds: of training to the end of its budget, without evaluation and start.
        peak_bytes: of memory, data set excluded, as it was measured in a step like its own.
        predicted_peak_bytes: the same, predicted without taking a step.
    """

    seconds: float | None
    peak_bytes: int | None
    predicted_peak_bytes: int | None = None

    @property
    def likely_peak_bytes(self) -> int | None:
        """What was measured, or else what is predicted."""
        return self.predicted_peak_bytes if self.peak_bytes is None else self.peak_bytes


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What there would be to run the trials on.

    Attributes:
        num_slots: trials at a time; None where that shows only when they run.
        on_gpus: whether these are slots of GPUs.
        device_bytes: memory of each GPU, the smallest if they differ, or what is available beside the processor; None
            where that is not known.
        num_sharing: trials at a time that share that memory.
    """

    num_slots: int | None
    on_gpus: bool
    device_bytes: int | None
    num_sharing: int


@dataclass(frozen=True, kw_only=True)
class Group:
    """The trials of one task and optimizer, with what is predicted for those that are to be run.

    Attributes:
        task: the task's name.
        optimizer: the optimizer's name.
        num_trials: of them.
        num_to_run: of them.
        num_failed: of them, stored and not to be run again.
        forecasts: of each that is to be run.
    """

    task: str
    optimizer: str
    num_trials: int
    num_to_run: int
    num_failed: int
    forecasts: Sequence[Forecast]

    @property
    def num_done(self) -> int:
        """Trials that have a result and are not to be run again, failed ones aside."""
        return self.num_trials - self.num_to_run - self.num_failed

    @property
    def known_seconds(self) -> list[float]:
        """Of the trials to run of which that is known."""
        return [forecast.seconds for forecast in self.forecasts if forecast.seconds is not None]

    @property
    def peak_bytes(self) -> int | None:
        """The largest that was measured of those to be run."""
        return max((found.peak_bytes for found in self.forecasts if found.peak_bytes is not None), default=None)

    @property
    def predicted_peak_bytes(self) -> int | None:
        """The largest that is predicted of those to be run."""
        peaks = (found.predicted_peak_bytes for found in self.forecasts)
        return max((peak for peak in peaks if peak is not None), default=None)

    @property
    def likely_peak_bytes(self) -> int | None:
        """The largest of those to be run, measured where it was, else predicted."""
        peaks = (found.likely_peak_bytes for found in self.forecasts)
        return max((peak for peak in peaks if peak is not None), default=None)

    @property
    def is_known(self) -> bool:
        """Whether time and memory of all that are to be run are known."""
        return all(found.seconds is not None and found.likely_peak_bytes is not None for found in self.forecasts)


def capacity(settings: "Settings", trials: Sequence[Trial]) -> Capacity:
    """What an executor would have for these trials, as far as that can be known without starting it.

    Args:
        settings: of the sweep.
        trials: those to run.

    Raises:
        UsageError: the executor does not take what it is given.
    """
    gpus = machine.gpus()
    on_gpus = bool(gpus) and any(trial.hardware.device != "cpu" for trial in trials)
    if not runs_here(settings.executor):
        return Capacity(num_slots=None, on_gpus=on_gpus, device_bytes=None, num_sharing=1)
    num_slots = 1
    if settings.executor.target == LOCAL:
        executor: Executor = components.build(settings.executor, group="executor")
        num_slots = executor.num_slots(settings.context(trials, allowed=()))
    num_slots = min(num_slots, len(trials))
    return Capacity(
        num_slots=num_slots,
        on_gpus=on_gpus,
        device_bytes=min(gpu.total_bytes for gpu in gpus) if on_gpus else machine.available_bytes(),
        num_sharing=math.ceil(num_slots / len(gpus)) if on_gpus else num_slots,
    )


def num_fitting(peak_bytes: int, found: Capacity) -> int | None:
    """How many such trials fit on a device at a time, up to as many as would share it; None where it is not known."""
    if found.device_bytes is None:
        return None
    return min(found.device_bytes // max(peak_bytes, 1), found.num_sharing)


class History:
    """What steps took that are stored below a results folder, in whatever sweep; read when first asked.

    A cost says it best; a trial without one is taken for what others of the same task and optimizer took.

    Args:
        results: the folder of all sweeps.
    """

    def __init__(self, results: Path) -> None:
        self._results = results
        self._is_read = False
        self._seconds: dict[_Kind, dict[str, list[float]]] = {}
        self._peaks: dict[_Kind, dict[str, int]] = {}
        self._costs: dict[str, tuple[float | None, int | None]] = {}
        self._predicted: dict[str, int] = {}
        self._steps: dict[tuple[str, Hardware], tuple[float | None, int | None]] = {}

    def forecast(self, trial: Trial) -> Forecast:
        """What this trial takes here."""
        self._read()
        key = cost_id(trial.config)
        step_seconds, peak_bytes = self._costs.get(key, (None, None))
        likely_seconds, likely_bytes = self._step(_kind_of(trial), trial.hardware)
        step_seconds = likely_seconds if step_seconds is None else step_seconds
        budget = trial.budget
        seconds = budget.seconds if budget.num_steps is None else None
        if budget.num_steps is not None and step_seconds is not None:
            seconds = step_seconds * budget.num_steps
            seconds = seconds if budget.seconds is None else min(seconds, budget.seconds)
        return Forecast(
            seconds=seconds,
            peak_bytes=likely_bytes if peak_bytes is None else peak_bytes,
            predicted_peak_bytes=self._predicted.get(key),
        )

    def unpredicted(self, trials: Iterable[Trial]) -> list[Mapping[str, Any]]:
        """One config for each cost among these trials of which no prediction is known."""
        self._read()
        return list(
            {key: trial.config for trial in trials if (key := cost_id(trial.config)) not in self._predicted}.values()
        )

    def add(self, predicted: Mapping[str, Memory]) -> None:
        """Take over predictions, by their cost's id."""
        self._predicted |= {key: memory.peak_bytes for key, memory in predicted.items()}

    def _step(self, name: str, hardware: Hardware) -> tuple[float | None, int | None]:
        """What a step takes on a device that is here: the median of its seconds, the largest peak."""
        kind, asked = (name, hardware.num_threads), hardware.device
        if (name, hardware) not in self._steps:
            found = self._seconds.get(kind, {}).items()
            seconds = [each for device, all_ in found if machine.is_here(device, asked) for each in all_]
            peaks = [peak for device, peak in self._peaks.get(kind, {}).items() if machine.is_here(device, asked)]
            self._steps[name, hardware] = (statistics.median(seconds) if seconds else None, max(peaks, default=None))
        return self._steps[name, hardware]

    def _read(self) -> None:
        if self._is_read:
            return
        self._is_read = True
        for cost in kept_below(self._results):
            if machine.is_here(str(cost.environment.get("device")), cost.config["hardware"]["device"]):
                step, peak = self._costs.get(cost.id, (None, None))
                step = cost.time.step.median if cost.time else step
                self._costs[cost.id] = (step, cost.memory.peak_bytes if cost.memory else peak)
            if cost.predicted is not None:
                self.add({cost.id: cost.predicted})
        for store in sweeps(self._results):
            with suppress(UsageError):  # of a later optbench: that tells nothing about this one
                for row in store.rows(_COLUMNS):
                    self._take(row)

    def _take(self, row: Mapping[str, Any]) -> None:
        if row["num_threads"] is None:
            return
        parts = (row.get(f"config.{part}") or "null" for part in _PARTS)
        kind = (_kind(*parts), int(row["num_threads"]))
        if row["step_seconds"] is not None:
            self._seconds.setdefault(kind, {}).setdefault(row["device"], []).append(row["step_seconds"])
        if row["peak_bytes"] is not None:
            peaks = self._peaks.setdefault(kind, {})
            peaks[row["device"]] = max(peaks.get(row["device"], 0), int(row["peak_bytes"]))


def groups(plan: Plan, history: History) -> list[Group]:
    """The groups of a plan, in the order in which they come in it."""
    to_run = {job.trial.id for job in plan.jobs}
    members: dict[tuple[str, str], list[Trial]] = {}
    for trial in plan.trials:
        members.setdefault((trial.task.name, trial.optimizer.name), []).append(trial)
    found = []
    for (task, optimizer), trials in members.items():
        waiting = [trial for trial in trials if trial.id in to_run]
        kept = (plan.stored[trial.id] for trial in trials if trial.id not in to_run)
        found.append(
            Group(
                task=task,
                optimizer=optimizer,
                num_trials=len(trials),
                num_to_run=len(waiting),
                num_failed=sum(stored.status.failed for stored in kept),
                forecasts=[history.forecast(trial) for trial in waiting],
            )
        )
    return found


def wall_seconds(seconds: Iterable[float], *, num_slots: int) -> float:
    """How long trials of these durations take, each started in its order as soon as a slot is free."""
    ends = [0.0] * num_slots
    for duration in seconds:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


def _kind_of(trial: Trial) -> str:
    return _canonical({part: trial.config.get(part) for part in _PARTS})


@functools.lru_cache(maxsize=4096)
def _kind(*parts: str) -> str:
    return _canonical({part: json.loads(text) for part, text in zip(_PARTS, parts, strict=True)})


def _canonical(config: Mapping[str, Any]) -> str:
    """What decides how long a step takes: all of the task, and which optimizer, not its rates."""
    task, data, optimizer = (config[part] for part in ("task", "data", "optimizer"))
    told = {
        "task": {key: value for key, value in task.items() if key not in NOT_IN_A_STEP},
        "data": [data.get("name"), data.get("_target_")] if data else None,
        "model": config["model"],
        "optimizer": [optimizer["name"], optimizer["_target_"], (optimizer.get("companion") or {}).get("name")],
    }
    return json.dumps(json_safe(told), sort_keys=True)
