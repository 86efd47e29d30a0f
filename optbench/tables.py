"""From stored trials to the table: a row for each task, optimizer and setting, with its failures."""

import itertools
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import pandas as pd

from optbench.measurement import Status
from optbench.stats import COVERAGE, Estimate, estimate, ties

# Keys of a config that do not tell two settings apart: they describe or advise, or say where data lie.
NOT_COMPARED = frozenset(
    {
        *(f"{group}.convention" for group in ("task", "data", "optimizer", "schedule")),
        *(f"task.{key}" for key in ("metrics", "num_steps", "evaluate_every_num_steps")),
        "data.path",
    }
)

SUCCESSES = frozenset(status for status in Status if status.succeeded)
# Parts of a config that make up the task: other data or another size are another task.
TASK_PARTS = ("task", "data")

Mark = Literal["best", "tie", ""]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting of one optimizer on one task.

    Attributes:
        task: its name, with the keys by which it differs from other tasks of that name.
        optimizer: its name.
        setting: the keys by which this setting differs from the optimizer's others, and its lr.
        mark: `best` of its task by the task's first metric, `tie` where seeds cannot tell it from the best.
        num_trials: how many are stored, over all seeds.
        metrics: estimates over the trials that succeeded; empty where none did.
        steps_to_target: over the trials that reached the target.
        seconds_to_target: the same.
        num_reached: how many reached the target; None where there was none.
        step_seconds: median over trials of seconds per step.
        state_bytes_per_parameter: bytes of optimizer state over trained parameters.
        peak_bytes: the largest peak over trials.
        failures: how many ended with each status other than success.
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
    failures: Mapping[str, int]

    @property
    def num_succeeded(self) -> int:
        """How many trials ended with success: those that the metrics are over."""
        return self.num_trials - sum(self.failures.values())


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

    @cached_property
    def succeeded(self) -> Sequence[int]:
        statuses = self.columns["status"]
        return [place for place in self.places if statuses[place] in SUCCESSES]

    @property
    def failures(self) -> Mapping[str, int]:
        statuses = [self.columns["status"][place] for place in self.places]
        return Counter(status for status in statuses if status not in SUCCESSES)

    @property
    def directions(self) -> Mapping[str, str]:
        """Metric to `min` or `max`, the one that ranks first."""
        return self.config["task"].get("metrics") or {"test_loss": "min"}

    @cached_property
    def metrics(self) -> Mapping[str, Estimate]:
        return {name: found for name in self.directions if (found := self.estimate(name)) is not None}

    @cached_property
    def ranking(self) -> Mapping[int, float]:
        """The first metric by seed: it is what ranks."""
        return self.by_seed(next(iter(self.directions)))

    @property
    def is_complete(self) -> bool:
        """Whether no trial failed, and none ended without the metric that ranks."""
        return len(self.ranking) == len(self.places)

    @property
    def score(self) -> tuple[float, ...]:
        """What the groups of a task are sorted by: complete ones first, then by metrics in their order."""
        signs = {name: -1.0 if direction == "max" else 1.0 for name, direction in self.directions.items()}
        means = [
            sign * self.metrics[name].mean if name in self.metrics else math.inf
            for name, sign in signs.items()
        ]
        return 1.0 - len(self.ranking) / len(self.places), *means

    def by_seed(self, name: str) -> dict[int, float]:
        """A figure of the trials that succeeded and have it."""
        seeds, values = self.columns["seed"], self.columns.get(name)
        return {
            seeds[place]: values[place] for place in self.succeeded if values and values[place] is not None
        }

    def estimate(self, name: str) -> Estimate | None:
        values = list(self.by_seed(name).values())
        return estimate(values) if values else None

    def figures(self, name: str) -> list[float]:
        """A figure of all trials that have it, whatever their status."""
        values = self.columns.get(name)
        return [values[place] for place in self.places if values and values[place] is not None]


def rows(index: pd.DataFrame) -> list[Row]:
    """A row for each setting among the trials of an index, grouped by task, the best first.

    Args:
        index: as `Store.index` gives it, in any order; not changed.
    """
    by_name: dict[str, list[_Group]] = {}
    for group in _groups(index):
        by_name.setdefault(group.task, []).append(group)
    by_task: dict[str, list[_Group]] = {}
    for name, groups in by_name.items():
        for group, differing in zip(groups, _differing(groups, TASK_PARTS), strict=True):
            by_task.setdefault(" ".join([name, *_words(differing)]), []).append(group)
    return [row for task, groups in by_task.items() for row in _ranked(groups, task=task)]


def frame(table: Sequence[Row]) -> pd.DataFrame:
    """The table in numbers, for pandas and CSV: an estimate `x` takes four columns.

    They are its mean `x`, `x_low`, `x_high` and `x_num_seeds`, over how many seeds it is.
    """
    with_target = _with_target(table)
    metrics = _metrics(table)
    return pd.DataFrame([_flat(row, metrics=metrics, with_target=with_target) for row in table])


def cells(table: Sequence[Row]) -> pd.DataFrame:
    """The table in words, for people: columns without any content are left out."""
    with_target = _with_target(table)
    metrics = _metrics(table)
    lines = []
    for row in table:
        line = {
            "": {"best": "★", "tie": "=", "": ""}[row.mark],
            "optimizer": row.optimizer,
            "setting": " ".join(_words(row.setting)),
            "seeds": f"{row.num_succeeded}/{row.num_trials}" if row.failures else str(row.num_trials),
        }
        for name in metrics:
            line[name.replace("_", " ")] = _estimate(row.metrics.get(name), row, percent="accuracy" in name)
        if with_target:
            line["to target"] = _to_target(row)
        line["step"] = f"{row.step_seconds * 1e3:.3g} ms" if row.step_seconds is not None else "-"
        state = row.state_bytes_per_parameter
        line["state"] = f"{state:.2f} B/param" if state is not None else "-"
        line["peak"] = _bytes(row.peak_bytes)
        line["failed"] = ", ".join(f"{count} {status}" for status, count in row.failures.items()) or "-"
        lines.append(line)
    return pd.DataFrame(lines)


def notes(table: Sequence[Row], index: pd.DataFrame) -> list[str]:
    """What the table says and on what, a sentence each."""
    found = []
    if any(row.mark for row in table):
        found.append(
            "★ best by the task's first metric; = not told apart from it by the seeds they share "
            "(95 % bootstrap)."
        )
    nums_seeds = {found.num_values for row in table for found in row.metrics.values()}
    if 1 in nums_seeds:
        found.append("A setting with one seed has no interval: seed noise alone may explain its place.")
    if few := sorted(nums_seeds & COVERAGE.keys()):
        held = ", ".join(f"{COVERAGE[num_seeds]:.0%} with {num_seeds}" for num_seeds in few)
        found.append(f"Intervals over few seeds are too narrow: they hold the true mean {held} of the time.")
    if any(row.failures for row in table):
        found.append("Where trials failed, the means are over the others, and the setting ranks below.")
    if "device_type" in index:
        devices = sorted({str(device) for device in index["device"].dropna()})
        peaks = {"cuda": "bytes allocated by a trial on the GPU", "cpu": "tensor bytes of a training step"}
        peak = " or ".join(text for kind, text in peaks.items() if (index["device_type"] == kind).any())
        threads = sorted({int(count) for count in index["num_threads"].dropna()})
        found.append(
            f"step: median seconds per training step, evaluation excluded, on {', '.join(devices)} "
            f"({', '.join(map(str, threads))} thread(s)), as the trials ran. peak: {peak}, data set excluded."
        )
    return found


def _groups(index: pd.DataFrame) -> list[_Group]:
    figures = {
        str(name): [None if value != value else value for value in column.tolist()]  # NaN differs from itself
        for name, column in index.select_dtypes("number").items()
    }
    columns = {**figures, "seed": index["seed"].tolist(), "status": index["status"].tolist()}
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


def _ranked(groups: Sequence[_Group], *, task: str) -> list[Row]:
    """The rows of one task, the best first."""
    ordered = sorted(groups, key=lambda group: (group.score, group.optimizer))
    best = ordered[0] if ordered[0].is_complete and len(ordered) > 1 else None
    parts = [part for part in ordered[0].config if part not in TASK_PARTS]
    table = []
    for group, setting in zip(ordered, _differing(ordered, parts), strict=True):
        mark: Mark = ""
        if group is best:
            mark = "best"
        elif best is not None and group.is_complete and ties(best.ranking, group.ranking):
            mark = "tie"
        table.append(_row(group, task=task, mark=mark, setting=setting))
    return table


def _row(group: _Group, *, task: str, mark: Mark, setting: Mapping[str, Any]) -> Row:
    with_target = group.config["target"]["metric"] is not None
    step_seconds = group.figures("step_seconds")
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
        step_seconds=statistics.median(step_seconds) if step_seconds else None,
        state_bytes_per_parameter=state_bytes / num_parameters
        if state_bytes is not None and num_parameters
        else None,
        peak_bytes=max(group.figures("peak_bytes"), default=None),
        failures=group.failures,
    )


def _differing(groups: Sequence[_Group], parts: Iterable[str]) -> list[dict[str, Any]]:
    """For each group, the keys in these parts of its config that tell it from others; always with its lr."""
    found: list[dict[str, Any]] = [{} for _ in groups]
    for part in parts:
        variants = {id(group.config.get(part)): group.config.get(part) for group in groups}
        differing = dict(zip(variants, _differing_variants(part, list(variants.values())), strict=True))
        for keys, group in zip(found, groups, strict=True):
            keys |= differing[id(group.config.get(part))]
    return found


def _differing_variants(part: str, variants: Sequence[Any]) -> list[dict[str, Any]]:
    """For each variant of a part, the keys by which it differs from other variants.

    The keys of an optimizer are compared within that optimizer, those of other parts among all variants that
    have them. A key that another variant of the same name lacks differs, too.
    """
    flats = [dict(_flatten({part: {"name": None} if variant is None else variant})) for variant in variants]
    names = [flat.get(f"{part}.name") for flat in flats]

    def varies(key: str, among: Iterable[Mapping[str, Any]]) -> bool:
        return len({repr(flat.get(key, "absent")) for flat in among}) > 1

    shown = {}
    for name in dict.fromkeys(names):
        same = [flat for flat, other in zip(flats, names, strict=True) if other == name]
        shown[name] = [
            key
            for key in dict.fromkeys(itertools.chain(*same))
            if key == "optimizer.lr"
            or varies(key, same)
            or (
                part != "optimizer"
                and not key.endswith("._target_")
                and varies(key, (flat for flat in flats if key in flat))
            )
        ]
    return [
        {
            key.removeprefix("optimizer.").removeprefix("task.").removesuffix(".name"): flat[key]
            for key in shown[name]
            if key in flat
        }
        for flat, name in zip(flats, names, strict=True)
    ]


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        key = f"{prefix}{name}"
        if key in NOT_COMPARED:
            continue
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{key}.")
        else:
            yield key, value


def _metrics(table: Sequence[Row]) -> list[str]:
    """All metrics of a table in the order of its columns."""
    order = {"train_loss": 0, "test_loss": 1}
    return sorted(
        dict.fromkeys(name for row in table for name in row.metrics), key=lambda name: order.get(name, 2)
    )


def _with_target(table: Sequence[Row]) -> bool:
    return any(row.num_reached is not None for row in table)


def _flat(row: Row, *, metrics: Sequence[str], with_target: bool) -> dict[str, Any]:
    line: dict[str, Any] = {
        "task": row.task,
        "optimizer": row.optimizer,
        "setting": " ".join(_words(row.setting)),
        "mark": row.mark,
        "num_trials": row.num_trials,
        "num_succeeded": row.num_succeeded,
        **{f"num_{status}": row.failures.get(status, 0) for status in Status if not status.succeeded},
    }
    estimates = {name: row.metrics.get(name) for name in metrics}
    if with_target:
        line["num_reached"] = row.num_reached
        estimates |= {"steps_to_target": row.steps_to_target, "seconds_to_target": row.seconds_to_target}
    for name, found in estimates.items():
        line[name] = found.mean if found else None
        line[f"{name}_low"] = found.low if found else None
        line[f"{name}_high"] = found.high if found else None
        line[f"{name}_num_seeds"] = found.num_values if found else 0
    for name in ("step_seconds", "state_bytes_per_parameter", "peak_bytes"):
        line[name] = getattr(row, name)
    return line


def _words(setting: Mapping[str, Any]) -> list[str]:
    return [f"{key}={_short(value)}" for key, value in setting.items()]


def _short(value: Any) -> str:
    """A value as an override would spell it, floats in six digits."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{','.join(_short(item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


def _estimate(found: Estimate | None, row: Row, *, percent: bool) -> str:
    if found is None:
        return "-"
    scale, digits, unit = (100.0, ".2f", " %") if percent else (1.0, ".4g", "")
    text = f"{found.mean * scale:{digits}}{unit}"
    if found.num_values < row.num_succeeded:
        text += f" ({found.num_values}/{row.num_trials})"
    if found.low is not None and found.high is not None:
        text += f" [{found.low * scale:{digits}}, {found.high * scale:{digits}}]"
    return text


def _to_target(row: Row) -> str:
    if row.num_reached is None:
        return "-"
    reached = f"{row.num_reached}/{row.num_trials}"
    if row.steps_to_target is None or row.seconds_to_target is None:
        return f"never ({reached})"
    return f"{row.steps_to_target.mean:.0f} steps, {row.seconds_to_target.mean:.3g} s ({reached})"


def _bytes(count: float | None) -> str:
    if count is None:
        return "-"
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count:.0f} B"
