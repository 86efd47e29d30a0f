"""One point of a sweep: fully specified, typed, and named by the hash of what it asks."""

import hashlib
import json
import marshal
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property, wraps
from typing import Any, Literal, Self, TypeVar

from optbench.component import Capability, Component, OptimizerComponent, component, optimizer_component
from optbench.errors import UsageError, unknown
from optbench.hardware import SINCE, Hardware
from optbench.hardware import asked as asked_of_hardware
from optbench.parsing import json_safe, parse, parse_mapping, parse_value

T = TypeVar("T")
Direction = Literal["min", "max"]

# The parts of a config that make a trial, and those that are about where its results go.
REQUIRED = ("task", "optimizer", "schedule", "budget", "evaluation", "target", "divergence", "hardware", "seed")
OPTIONAL = ("data", "model", "param_groups", "max_grad_norm", "lr_scaling")
PARTS = (*REQUIRED, *OPTIONAL)
ELSEWHERE = ("logger", "sweep", "results", "executor", "limits", "checkpoint", "n", "cost", "claims", "figures")
# Parts that are in an id only where they are given: they came later, and a stored result keeps its name.
OPTIONAL_SINCE = ("model", "param_groups", "max_grad_norm", "lr_scaling")
CURVE_COLUMNS = ("step", "seconds", "lr", "gradient_evaluations")
VIEW_COLUMNS = ("update_rms", "grad_norm", "d", "effective_lr")  # of what an optimizer is seen to do
MAX_REMEMBERED = 10_000  # parts of trials: those of a sweep have most of them in common


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
class LrScaling:
    """The rate for another batch size than that it was tuned for: times (batch_size / base_batch_size) ** power.

    `linear` is the rule of Goyal et al. (2017, https://arxiv.org/abs/1706.02677), `sqrt` that of Krizhevsky (2014,
    https://arxiv.org/abs/1404.5997), which Malladi et al. (2022, https://arxiv.org/abs/2205.10287) derive for Adam.
    """

    rule: Literal["linear", "sqrt"]
    base_batch_size: int

    def factor(self, batch_size: int) -> float:
        """What the rate is multiplied by."""
        ratio = batch_size / self.base_batch_size
        return ratio if self.rule == "linear" else math.sqrt(ratio)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Everything that decides how a training goes, and nothing else.

    `config` is the same in YAML's terms, with descriptions and with what the task advises filled in; it is stored with
    the result, and does not enter the id.
    """

    task: Component
    data: Component | None
    model: Component | None
    optimizer: OptimizerComponent
    param_groups: Component | None
    lr_scaling: LrScaling | None
    max_grad_norm: float | None
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
        asked = ((name, getattr(self, name)) for name in _ASKED)
        canonical = ",".join(
            f'"{name}":{_canonical(name, value)}'
            for name, value in asked
            if value is not None or name not in OPTIONAL_SINCE
        )
        return hashlib.sha256(f"{{{canonical}}}".encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """For people: what is trained, by what, at which rate, from which seed."""
        lr = self.optimizer.arguments.get("lr")
        rate = f" lr={lr:g}" if isinstance(lr, float) else ""
        return f"{self.task.name} {self.optimizer.name}{rate} seed {self.seed}"

    @property
    def lr_factor(self) -> float:
        """What `lr_scaling` multiplies every rate by."""
        if self.lr_scaling is None:
            return 1.0
        batch_size = self.task.arguments.get("batch_size")
        if type(batch_size) is not int or batch_size < 1:
            raise UsageError(f"lr_scaling: task={self.task.name} has no task.batch_size to scale the rate by.")
        return self.lr_scaling.factor(batch_size)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Check a composed config and take from it what a trial asks.

        Raises:
            UsageError: a key is unknown or missing, or a value has the wrong type or range.
        """
        for key in config:
            if key not in (*PARTS, *ELSEWHERE):
                raise unknown("key", str(key), (*PARTS, *ELSEWHERE))
        optimizer = _optimizer(_part(config, "optimizer"))
        common, filled_in = _common({key: config.get(key) for key in _COMMON})
        described = {key: value for key, value in config.items() if key in PARTS and value is not None}
        if common["lr_scaling"] is None:
            described.pop("lr_scaling", None)
        trial = cls(
            **common,
            optimizer=optimizer,
            seed=parse_value(config.get("seed"), int, where="seed"),
            config={**described, **filled_in},
        )
        trial._check_ranges()
        return trial

    def _check_ranges(self) -> None:
        for name, value in (
            ("budget.num_steps", self.budget.num_steps),
            ("budget.seconds", self.budget.seconds),
            ("evaluation.every_num_steps", self.evaluation.every_num_steps),
            ("hardware.num_threads", self.hardware.num_threads),
            ("hardware.num_micro_batches", self.hardware.num_micro_batches),
            ("hardware.memory_limit_gb", self.hardware.memory_limit_gb),
            ("divergence.max_loss", self.max_loss),
            ("max_grad_norm", self.max_grad_norm),
            ("lr_scaling.base_batch_size", None if self.lr_scaling is None else self.lr_scaling.base_batch_size),
        ):
            if value is not None and not value > 0:
                raise UsageError(f"{name}={value}: it must be above 0.")
        if self.budget.num_steps is None and self.budget.seconds is None:
            raise UsageError("no budget: give budget.num_steps=<steps> or budget.seconds=<seconds>.")
        if self.seed < 0:
            raise UsageError(f"seed={self.seed}: it must be 0 or above.")
        _ = self.lr_factor


_ASKED = tuple(sorted(field.name for field in fields(Trial) if field.name != "config"))
_COMMON = tuple(key for key in PARTS if key not in ("optimizer", "seed"))


def _remembering(function: Callable[[Any], T]) -> Callable[[Any], T]:
    """The function, which gives the same object again for plain data that are the same in every digit."""
    remembered: dict[bytes, T] = {}

    @wraps(function)
    def remember(data: Any) -> T:
        try:
            key = marshal.dumps(data, 2)  # of this version: equal for equal data, whichever objects they share
        except ValueError:  # not plain
            return function(data)
        if key not in remembered:
            if len(remembered) >= MAX_REMEMBERED:
                remembered.clear()
            remembered[key] = function(data)
        return remembered[key]

    return remember


_optimizer = _remembering(optimizer_component)


@_remembering
def _common(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What a trial asks, its optimizer and seed aside; and the parts of the config that the task's advice fills in."""
    parts = {key: _part(config, key) for key in REQUIRED if key in config}
    task = dict(parts["task"])
    num_steps, every_num_steps = task.pop("num_steps", None), task.pop("evaluate_every_num_steps", None)
    metrics = _metrics(task.pop("metrics", None) or {})
    budget = parse(Budget, parts["budget"], where="budget")
    if budget.num_steps is None and budget.seconds is None:
        budget = parse(Budget, {"num_steps": num_steps, "seconds": None}, where="task")
    evaluation = dict(parts["evaluation"])
    if evaluation.get("every_num_steps") is None:
        evaluation["every_num_steps"] = every_num_steps
    evaluated = parse(Evaluation, evaluation, where="evaluation")
    asked = {
        "task": component(task, group="task"),
        "data": _optional_component(config, "data"),
        "model": _optional_component(config, "model"),
        "param_groups": _optional_component(config, "param_groups"),
        "lr_scaling": _lr_scaling(config.get("lr_scaling") or {}),
        "max_grad_norm": parse_value(config.get("max_grad_norm"), float | None, where="max_grad_norm"),
        "schedule": component(parts["schedule"], group="schedule"),
        "budget": budget,
        "evaluation": evaluated,
        "target": _target(parts["target"], metrics),
        "max_loss": parse(_Divergence, parts["divergence"], where="divergence").max_loss,
        "hardware": parse(Hardware, {**SINCE, **parts["hardware"]}, where="hardware"),
    }
    return asked, {"budget": dict(vars(budget)), "evaluation": dict(vars(evaluated))}


_spelt: dict[tuple[str, int], tuple[Any, str]] = {}


def _canonical(name: str, value: Any) -> str:
    """A part of a trial in JSON, in which equal parts are equal."""
    if not is_dataclass(value):
        return _dumped(value)
    key = name, id(value)
    if key not in _spelt:
        if len(_spelt) >= MAX_REMEMBERED:
            _spelt.clear()
        _spelt[key] = (
            value,
            _dumped(_asked_of_part(value, is_data=name == "data")),
        )  # with the part itself, so that its id stays its own
    return _spelt[key][1]


def _dumped(value: Any) -> str:
    return json.dumps(json_safe(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class _Divergence:
    max_loss: float


@dataclass(frozen=True, kw_only=True)
class _AskedTarget:
    metric: str | None
    value: float | None


def _part(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    if value is None:
        raise UsageError(f"{key} is missing: a trial needs it.")
    return parse_mapping(value, where=key)


def _optional_component(config: Mapping[str, Any], key: str) -> Component | None:
    return None if config.get(key) is None else component(_part(config, key), group=key)


def _lr_scaling(config: Any) -> LrScaling | None:
    asked = parse_mapping(config, where="lr_scaling")
    if all(value is None for value in asked.values()):
        return None
    for key, allowed in (("rule", "linear or sqrt"), ("base_batch_size", "the batch size that lr is for")):
        if asked.get(key) is None:
            raise UsageError(f"lr_scaling needs both its keys: give lr_scaling.{key}, {allowed}.")
    return parse(LrScaling, asked, where="lr_scaling")


def _asked_of_part(part: Any, *, is_data: bool = False) -> dict[str, Any]:
    if isinstance(part, OptimizerComponent):
        return _asked_of(part)
    if isinstance(part, Hardware):
        return asked_of_hardware(part)
    asked = {field.name: getattr(part, field.name) for field in fields(part)}
    if is_data and part.arguments.get("sha256"):  # then it is no matter where the data lie
        asked["arguments"] = {key: value for key, value in part.arguments.items() if key != "path"}
    return asked


def _asked_of(optimizer: OptimizerComponent) -> dict[str, Any]:
    """What a trial asks of its optimizer; what the file says about it does not change the training."""
    asked: dict[str, Any] = {
        "name": optimizer.name,
        "target": optimizer.target,
        "arguments": optimizer.arguments,
    }
    if optimizer.companion is not None:
        asked["companion"] = _asked_of(optimizer.companion)
    if optimizer.matrices:
        asked["matrices"] = optimizer.matrices
    if optimizer.follow:
        asked["follow"] = optimizer.follow
    # What is declared and changes the loop; the others are told by the companion, or change nothing.
    if loop := sorted(optimizer.capabilities - {Capability.LR_FREE, Capability.MATRICES_ONLY}):
        asked["capabilities"] = loop
    return asked


def _metrics(config: Any) -> dict[str, Direction]:
    if not isinstance(config, Mapping):
        raise UsageError(f"task.metrics={config!r}: expected a mapping of metrics to min or max.")
    for name in config:
        if name in (*CURVE_COLUMNS, *VIEW_COLUMNS):
            raise UsageError(f"task.metrics: {name!r} is a column of every curve; give the metric another name.")
    return {str(name): parse_value(value, Direction, where=f"task.metrics.{name}") for name, value in config.items()}


def _target(config: Mapping[str, Any], metrics: Mapping[str, Direction]) -> Target | None:
    asked = parse(_AskedTarget, config, where="target")
    if asked.metric is None and asked.value is None:
        return None
    if asked.metric is None or asked.value is None:
        raise UsageError("a target needs both target.metric=<name> and target.value=<number>.")
    if asked.metric not in metrics:
        raise unknown("metric", asked.metric, metrics, where="for target.metric")
    return Target(metric=asked.metric, value=asked.value, direction=metrics[asked.metric])
