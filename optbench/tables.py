"""From stored trials to the table: a row for each task, optimizer and setting, with its failures."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import pandas as pd

from optbench.cost import Cost
from optbench.costs import cost_id
from optbench.measurement import Status
from optbench.settings import differing, words
from optbench.stats import Difference, Estimate, difference, estimate, ties
from optbench.trial import Direction

SUCCESSES = frozenset(status for status in Status if status.succeeded)
# Parts of a config that make up the task: other data, another size, more time or another finish are another task.
TASK_PARTS = ("task", "data", "model", "budget", "target")

Mark = Literal["best", "tie", ""]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting of one optimizer on one task.

    Attributes:
        task: its name, with the keys by which it differs from other tasks of that name.
        optimizer: its name.
        setting: the keys by which this setting differs from the optimizer's others, and its lr.
        mark: `best` of its task by steps to the target or by the task's first metric, `tie` where seeds cannot tell
            it from the best.
        num_trials: how many are stored, over all seeds.
        metrics: estimates over the trials that succeeded; empty where none did.
        steps_to_target: over the trials that reached the target.
        seconds_to_target: the same.
        num_reached: how many reached the target; None where there was none.
        step_seconds: seconds per step, as its cost says; without that, the median over trials.
        state_bytes_per_parameter: bytes of optimizer state over trained parameters.
        peak_bytes: the same of memory; without that, the largest over trials.
        cost: of a step, measured alone; None where it was not.
        failures: how many ended with each status other than success.
        config: of one of the trials.
        values: the task's first metric by seed, of those that succeeded.
        ranking: what ranks, by seed: the steps to the target where there is one, or else the first metric.
        difference: to the best of the task, of what ranks; None for that one, for settings that are not complete, and
            where no seed is shared.
        ids: of the trials, by seed.
        seeds: of the trials.
    """

    task: str
    optimizer: str
    setting: Mapping[str, Any]
    mark: Mark
    num_trials: int
    metrics: Mapping[str, Estimate]
    steps_to_target: Estimate | None
    seconds_to_target: Estimate | None
    num_reached: int | None
    step_seconds: float | None
    state_bytes_per_parameter: float | None
    peak_bytes: float | None
    cost: Cost | None
    failures: Mapping[str, int]
    config: Mapping[str, Any]
    values: Mapping[int, float]
    ranking: Mapping[int, float]
    difference: Difference | None
    ids: Sequence[str]
    seeds: Sequence[int]

    @property
    def num_succeeded(self) -> int:
        """How many trials ended with success: those that the metrics are over."""
        return self.num_trials - sum(self.failures.values())

    @property
    def setting_text(self) -> str:
        """The setting as overrides spell it."""
        return " ".join(words(self.setting))

    @property
    def metric(self) -> str:
        """The task's first metric."""
        return next(iter(_directions(self.config)))

    @property
    def direction(self) -> Direction:
        """Whether less of it is better, or more."""
        return _directions(self.config)[self.metric]

    @property
    def is_complete(self) -> bool:
        """Whether no trial failed, and none ended without what ranks."""
        return len(self.ranking) == self.num_trials


@dataclass(frozen=True, kw_only=True)
class _Group:
    """The trials of one setting: all that is asked but the seed.

    Attributes:
        config: of one of them.
        columns: the whole index; a figure that does not exist is None.
        places: where the trials are in each column.
    """

    config: Mapping[str, Any]
    columns: Mapping[str, Sequence[Any]]
    places: Sequence[int]

    @property
    def task(self) -> str:
        return str(self.config["task"]["name"])

    @property
    def optimizer(self) -> str:
        return str(self.config["optimizer"]["name"])

    @property
    def devices(self) -> set[Any]:
        """What the trials ran on."""
        return {self.columns["device"][place] for place in self.places}

    @cached_property
    def succeeded(self) -> Sequence[int]:
        statuses = self.columns["status"]
        return [place for place in self.places if statuses[place] in SUCCESSES]

    @property
    def failures(self) -> Mapping[str, int]:
        counts = Counter(self.columns["status"][place] for place in self.places)
        return {status.value: counts[status] for status in Status if status in counts and status not in SUCCESSES}

    @property
    def directions(self) -> Mapping[str, Direction]:
        """Metric to `min` or `max`, the one that ranks first."""
        return _directions(self.config)

    @cached_property
    def metrics(self) -> Mapping[str, Estimate]:
        return {name: found for name in self.directions if (found := self.estimate(name)) is not None}

    @property
    def has_target(self) -> bool:
        return self.config["target"]["metric"] is not None

    @cached_property
    def ranking(self) -> Mapping[int, float]:
        """What ranks, by seed: the steps to the target where there is one, or else the first metric.

        Trials that reach a target end with about the same metric: it is their steps that tell them apart.
        """
        return self.by_seed("steps_to_target" if self.has_target else next(iter(self.directions)))

    @property
    def is_complete(self) -> bool:
        """Whether no trial failed, and none ended without what ranks."""
        return len(self.ranking) == len(self.places)

    @property
    def score(self) -> tuple[float, ...]:
        """What the groups of a task are sorted by: complete ones first, then by steps to a target, then by metrics."""
        signs = {name: -1.0 if direction == "max" else 1.0 for name, direction in self.directions.items()}
        means = [sign * self.metrics[name].mean if name in self.metrics else math.inf for name, sign in signs.items()]
        steps = sum(self.ranking.values()) / len(self.ranking) if self.has_target and self.ranking else math.inf
        return 1.0 - len(self.ranking) / len(self.places), steps, *means

    @property
    def ids(self) -> list[str]:
        """Of the trials, by seed."""
        seeds, ids = self.columns["seed"], self.columns["id"]
        return [ids[place] for place in sorted(self.places, key=lambda place: (seeds[place], ids[place]))]

    def by_seed(self, name: str) -> dict[int, float]:
        """A figure of the trials that succeeded and have it."""
        seeds, values = self.columns["seed"], self.columns.get(name)
        return {seeds[place]: values[place] for place in self.succeeded if values and values[place] is not None}

    def estimate(self, name: str) -> Estimate | None:
        values = list(self.by_seed(name).values())
        return estimate(values) if values else None

    def figures(self, name: str) -> list[float]:
        """A figure of all trials that have it, whatever their status."""
        values = self.columns.get(name)
        return [values[place] for place in self.places if values and values[place] is not None]


def _directions(config: Mapping[str, Any]) -> Mapping[str, Direction]:
    return config["task"].get("metrics") or {"test_loss": "min"}


def rows(index: pd.DataFrame, costs: Iterable[Cost] = ()) -> list[Row]:
    """A row for each setting among the trials of an index, grouped by task, the best first.

    Args:
        index: as `Store.index` gives it, in any order; not changed.
        costs: those that were measured.
    """
    known: dict[str, list[Cost]] = {}
    for cost in costs:
        known.setdefault(cost.id, []).append(cost)
    by_name: dict[str, list[_Group]] = {}
    for group in _groups(index):
        by_name.setdefault(group.task, []).append(group)
    by_task: dict[str, list[_Group]] = {}
    for name, groups in by_name.items():
        for group, own in zip(groups, differing([group.config for group in groups], TASK_PARTS), strict=True):
            by_task.setdefault(" ".join([name, *words(own)]), []).append(group)
    return [row for task, groups in by_task.items() for row in _ranked(groups, task=task, costs=known)]


def _groups(index: pd.DataFrame) -> list[_Group]:
    figures = {
        str(name): [None if value != value else value for value in column.tolist()]  # NaN differs from itself
        for name, column in index.select_dtypes("number").items()
    }
    columns = {
        **figures,
        **{name: index[name].tolist() for name in ("id", "seed", "status", "device") if name in index},
    }
    places: dict[str, list[int]] = {}
    for place, setting in enumerate(index["setting"].tolist()):
        places.setdefault(setting, []).append(place)

    @cache  # few variants of a part are shared by many settings, and equal ones become one object
    def parse(text: str | float) -> Any:
        return json.loads(text) if isinstance(text, str) else None

    configs = index.iloc[[own[0] for own in places.values()]].filter(like="config.")
    parts = [[parse(text) for text in texts.tolist()] for _, texts in configs.items()]
    names = [str(name).removeprefix("config.") for name in configs]
    return [
        _Group(config=dict(zip(names, config, strict=True)), columns=columns, places=own)
        for config, own in zip(zip(*parts, strict=True), places.values(), strict=True)
    ]


def _ranked(groups: Sequence[_Group], *, task: str, costs: Mapping[str, Sequence[Cost]]) -> list[Row]:
    """The rows of one task, the best first."""
    most = max(len(group.places) for group in groups)

    def place(group: _Group) -> tuple[Any, ...]:
        """One seed may be a lucky one: where others have more, it does not come first."""
        is_alone = group.is_complete and len(group.places) == 1 < most
        return group.score[0], is_alone, group.score, group.optimizer

    ordered = sorted(groups, key=place)
    best = ordered[0] if ordered[0].is_complete and len(ordered) > 1 else None
    differences = [
        difference(best.ranking, group.ranking) if best and group is not best and group.is_complete else None
        for group in ordered
    ]
    # Each by itself: over all settings of a table, three seeds would tell hardly any apart.
    marks: list[Mark] = ["tie" if ties([found])[0] else "" for found in differences]
    if best is not None:
        marks[0] = "best"
    parts = [part for part in ordered[0].config if part not in TASK_PARTS]
    settings = differing([group.config for group in ordered], parts)
    return [
        _row(group, task=task, mark=mark, setting=setting, difference=found, cost=_cost(group, costs))
        for group, mark, setting, found in zip(ordered, marks, settings, differences, strict=True)
    ]


def _cost(group: _Group, costs: Mapping[str, Sequence[Cost]]) -> Cost | None:
    """The cost of the group's steps, as measured on a device that its trials ran on."""
    own = costs.get(cost_id(group.config), ()) if costs else ()
    return next((cost for cost in own if cost.environment.get("device") in group.devices), None)


def _row(
    group: _Group,
    *,
    task: str,
    mark: Mark,
    setting: Mapping[str, Any],
    difference: Difference | None,
    cost: Cost | None,
) -> Row:
    with_target = group.has_target
    measured = group.figures("step_seconds")
    step_seconds = statistics.median(measured) if measured and len(group.devices) == 1 else None
    peak_bytes = max(group.figures("peak_bytes"), default=None)
    num_parameters = max(group.figures("num_parameters"), default=0)
    state_bytes = max(group.figures("state_bytes"), default=None)
    return Row(
        task=task,
        optimizer=group.optimizer,
        setting=setting,
        mark=mark,
        num_trials=len(group.places),
        metrics=group.metrics,
        steps_to_target=group.estimate("steps_to_target") if with_target else None,
        seconds_to_target=group.estimate("seconds_to_target") if with_target else None,
        num_reached=len(group.by_seed("steps_to_target")) if with_target else None,
        step_seconds=cost.time.step.median if cost and cost.time else step_seconds,
        state_bytes_per_parameter=state_bytes / num_parameters if state_bytes is not None and num_parameters else None,
        peak_bytes=cost.memory.peak_bytes if cost and cost.memory else peak_bytes,
        cost=cost,
        failures=group.failures,
        config=group.config,
        values=group.by_seed(next(iter(group.directions))),
        ranking=group.ranking,
        difference=difference,
        ids=group.ids,
        seeds=sorted(group.columns["seed"][place] for place in group.places),
    )
