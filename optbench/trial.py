"""One point of a sweep: fully specified, typed, and named by the hash of what it asks."""

import hashlib
import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from optbench.errors import UsageError, unknown

Direction = Literal["min", "max"]
T = TypeVar("T")

# The parts of a config that make a trial, and those that are about where its results go.
PARTS = ("task", "data", "optimizer", "schedule", "budget", "evaluation", "target", "divergence", "hardware", "seed")
ELSEWHERE = ("logger", "sweep", "results")
CURVE_COLUMNS = ("step", "seconds", "lr")


@dataclass(frozen=True, kw_only=True)
class Component:
    """A part that a YAML file names by `_target_`: a callable and its keyword arguments."""

    name: str
    target: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to train: until `num_steps` steps or `seconds` of training are spent, whichever comes first."""

    num_steps: int | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """When to measure: at step 0, then after every so many steps, and at the end."""

    every_num_steps: int


@dataclass(frozen=True, kw_only=True)
class Target:
    """A value of a metric that ends the trial when it is reached."""

    metric: str
    value: float
    direction: Direction

    def is_met(self, metrics: Mapping[str, float]) -> bool:
        """Whether these metrics reach the target."""
        value = metrics.get(self.metric, math.nan)
        return value <= self.value if self.direction == "min" else value >= self.value


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What to train on: `auto` takes the GPU where there is one."""

    device: Literal["auto", "cpu", "cuda"]
    num_threads: int


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Everything that decides how a training goes, and nothing else.

    `config` is the same in YAML's terms, with descriptions and with what the task advises filled in; it is stored with
    the result, and does not enter the id.
    """

    task: Component
    data: Component | None
    optimizer: Component
    schedule: Component
    budget: Budget
    evaluation: Evaluation
    target: Target | None
    max_loss: float
    hardware: Hardware
    seed: int
    config: Mapping[str, Any]

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits of the SHA-256 of what is asked; equal for equal questions, however spelt."""
        asked = {field.name: _plain(getattr(self, field.name)) for field in fields(self) if field.name != "config"}
        if self.data is not None and self.data.arguments.get("sha256"):  # then it is no matter where the data lie
            asked["data"]["arguments"] = {key: value for key, value in self.data.arguments.items() if key != "path"}
        canonical = json.dumps(json_safe(asked), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """For people: what is trained, by what, at which rate, from which seed."""
        lr = self.optimizer.arguments.get("lr")
        rate = f" lr={lr:g}" if isinstance(lr, float) else ""
        return f"{self.task.name} {self.optimizer.name}{rate} seed {self.seed}"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Check a composed config and take from it what a trial asks.

        Raises:
            UsageError: a key is unknown or missing, or a value has the wrong type or range.
        """
        for key in config:
            if key not in (*PARTS, *ELSEWHERE):
                raise unknown("key", str(key), (*PARTS, *ELSEWHERE))
        parts = {key: _part(config, key) for key in PARTS if key not in ("data", "seed")}
        task = dict(parts["task"])
        num_steps, every_num_steps = task.pop("num_steps", None), task.pop("evaluate_every_num_steps", None)
        metrics = _metrics(task.pop("metrics", None) or {})
        budget = parse(Budget, parts["budget"], where="budget")
        if budget.num_steps is None and budget.seconds is None:
            budget = parse(Budget, {"num_steps": num_steps, "seconds": None}, where="task")
        evaluation = dict(parts["evaluation"])
        if evaluation.get("every_num_steps") is None:
            evaluation["every_num_steps"] = every_num_steps
        trial = cls(
            task=component(task, group="task"),
            data=component(_part(config, "data"), group="data") if config.get("data") is not None else None,
            optimizer=component(parts["optimizer"], group="optimizer"),
            schedule=component(parts["schedule"], group="schedule"),
            budget=budget,
            evaluation=parse(Evaluation, evaluation, where="evaluation"),
            target=_target(parts["target"], metrics),
            max_loss=parse(_Divergence, parts["divergence"], where="divergence").max_loss,
            hardware=parse(Hardware, parts["hardware"], where="hardware"),
            seed=_value(config.get("seed"), int, where="seed"),
            config={
                **{key: value for key, value in config.items() if key in PARTS},
                "budget": _plain(budget),
                "evaluation": evaluation,
            },
        )
        trial._check_ranges()
        return trial

    def _check_ranges(self) -> None:
        for name, value in (
            ("budget.num_steps", self.budget.num_steps),
            ("budget.seconds", self.budget.seconds),
            ("evaluation.every_num_steps", self.evaluation.every_num_steps),
            ("hardware.num_threads", self.hardware.num_threads),
            ("divergence.max_loss", self.max_loss),
        ):
            if value is not None and not value > 0:
                raise UsageError(f"{name}={value}: it must be above 0.")
        if self.budget.num_steps is None and self.budget.seconds is None:
            raise UsageError("no budget: give budget.num_steps=<steps> or budget.seconds=<seconds>.")
        if self.seed < 0:
            raise UsageError(f"seed={self.seed}: it must be 0 or above.")


@dataclass(frozen=True, kw_only=True)
class _Divergence:
    max_loss: float


@dataclass(frozen=True, kw_only=True)
class _AskedTarget:
    metric: str | None
    value: float | None


def component(config: Mapping[str, Any], *, group: str) -> Component:
    """The component that a group's YAML describes; `name`, `_target_` and `convention` are not arguments."""
    arguments = {key: value for key, value in config.items() if key not in ("name", "_target_", "convention")}
    for key in ("name", "_target_"):
        if not isinstance(config.get(key), str):
            raise UsageError(f"{group}.{key} is missing: the YAML of every {group} gives its name and its _target_.")
    return Component(name=config["name"], target=config["_target_"], arguments=arguments)


def parse(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """A dataclass from a mapping that has exactly its fields, each of its declared type.

    Raises:
        UsageError: names the key by its full path, what was given and what is allowed.
    """
    hints = get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise unknown("key", str(key), hints, prefix=f"{where}.")
    for key in hints:
        if key not in values:
            raise UsageError(f"{where}.{key} is missing.")
    return cls(**{key: _value(values[key], hint, where=f"{where}.{key}") for key, hint in hints.items()})


def json_safe(value: Any) -> Any:
    """The same value in JSON's terms: tuples become lists, and floats that JSON lacks become their names."""
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [json_safe(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _value(value: Any, hint: Any, *, where: str) -> Any:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise unknown("value", str(value), map(str, get_args(hint)), where=f"for {where}")
        return value
    options = get_args(hint) if isinstance(hint, types.UnionType) or get_origin(hint) is Union else (hint,)
    if value is None and type(None) in options:
        return None
    for option in options:
        if option is float and type(value) is int:
            return float(value)
        if type(value) is option:  # not isinstance: True is no number here
            return value
    names = " or ".join("null" if option is type(None) else option.__name__ for option in options)
    raise UsageError(f"{where}={value!r}: expected {names}, got {type(value).__name__}.")


def _part(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    if value is None:
        raise UsageError(f"{key} is missing: a trial needs it.")
    if not isinstance(value, Mapping):
        raise UsageError(f"{key}={value!r}: expected a mapping of keys, got {type(value).__name__}.")
    return value


def _metrics(config: Any) -> dict[str, Direction]:
    if not isinstance(config, Mapping):
        raise UsageError(f"task.metrics={config!r}: expected a mapping of metrics to min or max.")
    for name in config:
        if name in CURVE_COLUMNS:
            raise UsageError(f"task.metrics: {name!r} is a column of every curve; give the metric another name.")
    return {str(name): _value(value, Direction, where=f"task.metrics.{name}") for name, value in config.items()}


def _target(config: Mapping[str, Any], metrics: Mapping[str, Direction]) -> Target | None:
    asked = parse(_AskedTarget, config, where="target")
    if asked.metric is None and asked.value is None:
        return None
    if asked.metric is None or asked.value is None:
        raise UsageError("a target needs both target.metric=<name> and target.value=<number>.")
    if asked.metric not in metrics:
        raise unknown("metric", asked.metric, metrics, where="for target.metric")
    return Target(metric=asked.metric, value=asked.value, direction=metrics[asked.metric])


def _plain(value: Any) -> Any:
    if isinstance(value, (Component, Budget, Evaluation, Target, Hardware)):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return value
