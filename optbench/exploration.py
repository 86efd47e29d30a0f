"""One study under way: its points, what they have cost, and what came out."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from optbench.errors import UsageError
from optbench.keys import select
from optbench.measurement import Measurement, Status
from optbench.samplers import Outcome, Sampler, make_point
from optbench.search import Choices, Dimension, Point, Study
from optbench.trial import Trial

# A study whose last points all crashed or did not fit spends hardly any seconds: it would go on for ever.
NUM_FRUITLESS = 20
# The pruner looks at no trial before this part of its steps is done: until then rates are warmed up, and luck decides.
UNPRUNED_PART = 0.2
# Of a point whose seeds ended differently, the status that tells most about it is the first of these.
_TELLING = (Status.DIVERGED, Status.OUT_OF_MEMORY, Status.TIMED_OUT, Status.PRUNED, Status.CRASHED)


@dataclass(frozen=True, kw_only=True)
class TuningBudget:
    """What each study may spend; whichever of the two ends first.

    Attributes:
        num_settings: points, each of them with all its seeds.
        seconds: of training, by all its trials together. Those that run when it is spent are run to their end.
    """

    num_settings: int | None
    seconds: float | None

    def __post_init__(self) -> None:
        if self.num_settings is None and self.seconds is None:
            raise UsageError(
                "a search needs a budget: give n=<settings for each optimizer> or sweep.seconds=<seconds of training>."
            )
        for name, value in (("n", self.num_settings), ("sweep.seconds", self.seconds)):
            if value is not None and not value > 0:
                raise UsageError(f"{name}={value}: it must be above 0.")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a study has found.

    Attributes:
        study: its name.
        metric: that it goes by: the task's first one, at the end of a trial.
        direction: `min` or `max`.
        num_seeds: trials of each point.
        num_settings: points that have ended.
        num_pruned: of these, given up by the pruner.
        num_failed: of these, without a value since a trial failed.
        seconds: of training that they took, all seeds together.
        best: the point with the best value; None where none has one.
        best_value: the mean of the metric over its seeds.
    """

    study: str
    metric: str
    direction: str
    num_seeds: int
    num_settings: int
    num_pruned: int
    num_failed: int
    seconds: float
    best: Point | None
    best_value: float | None


class Exploration:
    """A study under way; `sampler` is to be set before anything is asked of it.

    Args:
        study: what is searched.
        seed: of the points.
        budget: that it has.
        prunes: whether a trial may be given up. With several seeds none is: all of them have to be run for the mean.

    Raises:
        UsageError: its config is wrong.
    """

    sampler: Sampler

    def __init__(self, study: Study, *, seed: int, budget: TuningBudget, prunes: bool) -> None:
        self.study = study
        self.seed = seed
        self.settings: dict[int, Setting] = {}
        self.is_closed = False  # no other point is found
        self.base = study.configs({})[0]
        first = self.trials(make_point(study, base=self.base, choose=_lowest))
        self.num_seeds = len(first)
        self.example = next(iter(first.values()))
        self.prunes = prunes and self.num_seeds == 1
        metrics = self.example.config["task"].get("metrics") or {"train_loss": "min"}
        self.metric, self.direction = next(iter(metrics.items()))
        self._budget = budget
        self._first_ids = list(first)

    @cached_property
    def file_name(self) -> str:
        """Equal for equal searches; another one for other trials, values or seeds, which must not be mixed with it."""
        dimensions = [(each.key, repr(each.values), repr(each.when)) for each in self.study.dimensions]
        asked = json.dumps([self.study.name, dimensions, self._first_ids, self.metric, self.direction, self.seed])
        name = re.sub(r"[^A-Za-z0-9_=,-]+", "_", self.study.name)[:100]
        return f"{name}-{hashlib.sha256(asked.encode()).hexdigest()[:12]}"

    def trials(self, point: Point) -> dict[str, Trial]:
        """The trials of a point, by id: one for each seed.

        Raises:
            UsageError: its config is wrong.
        """
        return {trial.id: trial for trial in map(Trial.from_config, self.study.configs(point))}

    @property
    def points(self) -> Sequence[Point]:
        """All that were asked for up to now, ended or not, in this order."""
        numbered = {told.number: told.point for told in self.sampler.told.values()} | dict(self.sampler.asked)
        return [point for _, point in sorted(numbered.items(), key=lambda item: item[0])]

    @property
    def seconds(self) -> float:
        """What its points have taken that have ended."""
        return sum(told.outcome.seconds for told in self.sampler.told.values())

    def spent(self, guess: float = 0.0) -> float:
        """The part of its budget that is spent, once those points have ended that are under way.

        Args:
            guess: the seconds that a point takes, where none of its own has ended.
        """
        parts = [0.0]
        if self._budget.num_settings is not None:
            parts.append(self.sampler.num_points / self._budget.num_settings)
        if self._budget.seconds is not None:
            num_told = len(self.sampler.told)
            mean = self.seconds / num_told if num_told else guess
            parts.append((self.seconds + mean * len(self.sampler.asked)) / self._budget.seconds)
        return max(parts)

    @property
    def is_spent(self) -> bool:
        """Whether no point will be asked for any more."""
        if self.is_closed or self._is_fruitless:
            return True
        if self._budget.num_settings is not None and self.sampler.num_points >= self._budget.num_settings:
            return True
        return self._budget.seconds is not None and self.seconds >= self._budget.seconds

    @property
    def num_left(self) -> int:
        """How many more points will be asked for, as far as is known."""
        if self.is_spent:
            return 0
        left = []
        if self._budget.num_settings is not None:
            left.append(self._budget.num_settings - self.sampler.num_points)
        if self._budget.seconds is not None and (num_told := len(self.sampler.told)) and self.seconds > 0:
            num_in_all = math.ceil(self._budget.seconds / self.seconds * num_told)
            left.append(max(num_in_all - num_told - len(self.sampler.asked), 0))
        return min(left, default=1)

    @property
    def found(self) -> Found:
        """What it has found so far."""
        outcomes = [(told.outcome, told.point) for told in self.sampler.told.values()]
        valued = [(outcome.value, point) for outcome, point in outcomes if outcome.value is not None]
        choose = min if self.direction == "min" else max
        best = choose(valued, key=lambda pair: pair[0], default=None)
        num_pruned = sum(outcome.status is Status.PRUNED for outcome, _ in outcomes)
        return Found(
            study=self.study.name,
            metric=self.metric,
            direction=self.direction,
            num_seeds=self.num_seeds,
            num_settings=len(outcomes),
            num_pruned=num_pruned,
            num_failed=len(outcomes) - len(valued) - num_pruned,
            seconds=self.seconds,
            best=None if best is None else best[1],
            best_value=None if best is None else best[0],
        )

    def is_looked_at(self, step: int) -> bool:
        """Whether the pruner looks at the measurement at this step.

        It looks at about eight for each doubling of the steps: each look is written to the disk, and a curve may have
        thousands of rows. They are the same steps for every trial, for those are compared.
        """
        num_steps, every = self.example.budget.num_steps, self.example.evaluation.every_num_steps
        row, is_between = divmod(step, every)
        is_early = row == 0 or (num_steps is not None and step < UNPRUNED_PART * num_steps)
        return not is_between and not is_early and row % (1 << max(row.bit_length() - 4, 0)) == 0

    def point_of(self, record: Mapping[str, Any]) -> Point | None:
        """The point that a stored trial belongs to; None where it is none of this study's."""
        config, own = record["config"], self.example.config
        if any(config[part]["name"] != own[part]["name"] for part in ("task", "optimizer")):
            return None
        point = make_point(self.study, base=self.base, choose=lambda dimension: select(config, dimension.key))
        by_key = {dimension.key: dimension for dimension in self.study.dimensions}
        if not all(_allows(by_key[key], value) for key, value in point.items()):
            return None
        return point if record["id"] in self.trials(point) else None

    @property
    def _is_fruitless(self) -> bool:
        """Whether points end at once, so that a budget in seconds would never be spent."""
        if self._budget.num_settings is not None:
            return False
        told = sorted(self.sampler.told.values(), key=lambda each: each.number)[-NUM_FRUITLESS:]
        outcomes = [each.outcome for each in told]
        return len(outcomes) == NUM_FRUITLESS and (
            all(outcome.status in (Status.CRASHED, Status.OUT_OF_MEMORY) for outcome in outcomes)
            or not any(outcome.seconds > 0 for outcome in outcomes)
        )


class Setting:
    """A point under way.

    Args:
        exploration: that it is a point of.
        number: its sampler's.
        ids: of its trials.
    """

    def __init__(self, exploration: Exploration, number: int, *, ids: set[str]) -> None:
        self.exploration = exploration
        self.number = number
        self._left = ids
        self._ends: list[tuple[Status, float | None, float]] = []

    def should_stop(self, measurement: Measurement) -> bool:
        """Whether the pruner gives its trial up."""
        exploration = self.exploration
        value = measurement.metrics.get(exploration.metric)
        if value is None or not exploration.prunes or not exploration.is_looked_at(measurement.step):
            return False
        return exploration.sampler.should_stop(self.number, step=measurement.step, value=value)

    def ended(self, trial_id: str, status: Status, *, summary: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """One of its trials has ended; after the last one, its sampler is told."""
        value = summary.get(self.exploration.metric) if status.succeeded else None
        self._ends.append((status, value, timing.get("train_seconds") or 0.0))
        self._left.discard(trial_id)
        if not self._left:
            del self.exploration.settings[self.number]
            self.exploration.sampler.tell(self.number, self._outcome)

    @property
    def _outcome(self) -> Outcome:
        statuses, values, seconds = zip(*self._ends, strict=True)
        numbers = [value for value in values if value is not None and math.isfinite(value)]
        return Outcome(
            status=next((status for status in _TELLING if status in statuses), statuses[0]),
            value=sum(numbers) / len(numbers) if len(numbers) == len(values) else None,
            seconds=sum(seconds),
        )


def _lowest(dimension: Dimension) -> Any:
    values = dimension.values
    if isinstance(values, Choices):
        return values.values[0]
    return math.ceil(values.low) if values.integer else values.low


def _allows(dimension: Dimension, value: Any) -> bool:
    values = dimension.values
    if isinstance(values, Choices):
        return value in values.values
    kinds = (int,) if values.integer else (int, float)
    return type(value) in kinds and values.low <= value <= values.high
