"""The parts of a trial that YAML files declare: a callable and its arguments; of an optimizer, what it is like too."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from optbench.errors import UsageError, unknown
from optbench.parsing import parse_list, parse_mapping, parse_value

# Keys of an optimizer's file that describe it: no arguments, and no part of what a trial asks.
DESCRIPTION = (
    "convention",
    "state_bytes_per_parameter",
    "limits",
    "advised",
    "rule",
    "departs",
    "preset",
    "search",
    "period",
    "settles",
)


# Those that decide how it trains, and are no arguments of its class either.
BESIDES_ARGUMENTS = ("capabilities", "follow", "companion", "matrices")


class Capability(StrEnum):
    """What an optimizer needs that SGD does not; the one loop does it for whichever declares it."""

    CLOSURE = "closure"
    """`step(closure)` computes the gradients itself, as often as it needs them (LBFGS)."""
    EXTRA_PASS = "extra_pass"
    """The gradients are there, and `step(closure)` makes another pass over the same minibatch (SAM)."""
    TRAIN_EVAL = "train_eval"
    """`train()` and `eval()` swap the weights that are trained for those that are evaluated (schedule-free)."""
    CREATE_GRAPH = "create_graph"
    """The gradients need a graph of their own, to be differentiated again (Hutchinson's estimator in Sophia-H)."""
    MATRICES_ONLY = "matrices_only"
    """Takes hidden matrices alone; a `companion` trains the rest (Muon)."""
    LR_FREE = "lr_free"
    """Estimates its own rate; `lr` is a factor of it, usually 1."""


class Limit(StrEnum):
    """What was found not to work with an optimizer."""

    BF16_PARAMETERS = "bf16_parameters"
    """Training with bfloat16 parameters fails, or hardly moves."""
    BF16_RELOAD = "bf16_reload"
    """State in float32 comes back as bfloat16 from `load_state_dict`."""
    WEIGHTS_ONLY_LOAD = "weights_only_load"
    """`torch.load(weights_only=True)` refuses its `state_dict`."""
    STATE_DICT = "state_dict"
    """After `load_state_dict` it does not go on along the same path."""
    ZERO_RATE = "zero_rate"
    """A rate of 0 breaks it, and the first step of a warm-up has that."""
    COMPILED_STEP = "compiled_step"
    """`torch.compile` of its step fails or changes the result."""
    PREDICTION = "prediction"
    """The memory of a step cannot be predicted without taking it."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """A part that a YAML file names by `_target_`: a callable and its keyword arguments."""

    name: str
    target: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What an optimizer's authors advise; None is no advice.

    Attributes:
        lr: the lowest and the highest.
        schedule: names of those that suit it.
        warmup: whether a schedule may warm up; a mapping allows it with these arguments alone.
        because: their reason.
        source: where they say so.
    """

    lr: tuple[float, float] | None
    schedule: Sequence[str] | None
    warmup: bool | Mapping[str, Any] | None
    because: str
    source: str


@dataclass(frozen=True, kw_only=True)
class OptimizerComponent(Component):
    """An optimizer, with what its file declares.

    Attributes:
        capabilities: what it needs of the loop.
        companion: the optimizer of all that is not a hidden matrix.
        matrices: special keys of the parameter group that holds the matrices.
        follow: keys that go along with another one, such as a decay of vectors with `weight_decay`.
        decay: what its weight decay means, in the words of its convention; None where it does not say.
        limits: what does not work with it, and why.
        advice: of its authors.
        period: the steps after which its work repeats, where it refreshes something now and then; 1 for others.
        settles: the steps in which its state grows; 0 where all of it is there after the first ones.
    """

    capabilities: frozenset[Capability]
    companion: "OptimizerComponent | None"
    matrices: Mapping[str, Any]
    follow: Mapping[str, str]
    decay: str | None
    limits: Mapping[Limit, str]
    advice: Advice | None
    period: int = 1
    settles: int = 0


def component(config: Mapping[str, Any], *, group: str) -> Component:
    """The component that a group's YAML describes; `name`, `_target_` and `convention` are not arguments.

    Raises:
        UsageError: it has no name or no target.
    """
    return Component(**_called(config, group=group, description=("convention",)))


def optimizer_component(config: Mapping[str, Any], *, group: str = "optimizer") -> OptimizerComponent:
    """The optimizer that its YAML describes.

    Raises:
        UsageError: it has no name or no target, or declares what is not known.
    """
    names = parse_list(config.get("capabilities") or [], where=f"{group}.capabilities")
    capabilities = [Capability(_known(Capability, name, group)) for name in names]
    limits, matrices, follow, convention = (
        parse_mapping(config.get(key) or {}, where=f"{group}.{key}")
        for key in ("limits", "matrices", "follow", "convention")
    )
    companion, advised = config.get("companion"), config.get("advised")
    if (companion is not None) != (Capability.MATRICES_ONLY in capabilities):
        raise UsageError(f"{group}: `companion` and the capability {Capability.MATRICES_ONLY} go together.")
    if companion is not None:
        companion = _companion(parse_mapping(companion, where=f"{group}.companion"), group=f"{group}.companion")
    called = _called(config, group=group, description=(*DESCRIPTION, *BESIDES_ARGUMENTS))
    for key in (key for pair in follow.items() for key in pair):
        if key not in called["arguments"]:
            raise unknown("key", str(key), called["arguments"], where=f"in {group}.follow")
    values = {**called["arguments"], **matrices}
    period = math.lcm(*_steps(config.get("period"), values, where=f"{group}.period"))
    settles = max(_steps(config.get("settles"), values, where=f"{group}.settles"), default=0)
    return OptimizerComponent(
        **called,
        capabilities=frozenset(capabilities),
        companion=companion,
        matrices=matrices,
        follow=follow,
        decay=convention.get("weight_decay"),
        limits={Limit(_known(Limit, name, group)): str(reason) for name, reason in limits.items()},
        advice=None if advised is None else _advice(advised, where=f"{group}.advised"),
        period=period if companion is None else math.lcm(period, companion.period),
        settles=settles if companion is None else max(settles, companion.settles),
    )


def _companion(config: Mapping[str, Any], *, group: str) -> OptimizerComponent:
    companion = optimizer_component(config, group=group)
    if companion.capabilities or companion.matrices or companion.companion:
        raise UsageError(f"{group}: a companion is a plain optimizer, without capabilities, matrices or a companion.")
    return companion


def _steps(declared: Any, values: Mapping[str, Any], *, where: str) -> list[int]:
    """The values of the arguments that tell a number of steps."""
    names = [declared] if isinstance(declared, str) else parse_list(declared or [], where=where)
    for name in names:
        if name not in values:
            raise unknown("argument", str(name), values, where=f"for {where}")
    return [values[name] for name in names if type(values[name]) is int and values[name] >= 1]


def _called(config: Mapping[str, Any], *, group: str, description: Sequence[str]) -> dict[str, Any]:
    for key in ("name", "_target_"):
        if not isinstance(config.get(key), str):
            raise UsageError(f"{group}.{key} is missing: the YAML of every {group} gives its name and its _target_.")
    arguments = {key: value for key, value in config.items() if key not in ("name", "_target_", *description)}
    return {"name": config["name"], "target": config["_target_"], "arguments": arguments}


def _known(kind: type[StrEnum], name: Any, group: str) -> str:
    members = [member.value for member in kind]
    if name not in members:
        raise unknown(kind.__name__.lower(), str(name), members, where=f"for {group}")
    return str(name)


def _advice(config: Any, *, where: str) -> Advice:
    given = parse_mapping(config, where=where)
    allowed = ("lr", "schedule", "warmup", "because", "source")
    for key in given:
        if key not in allowed:
            raise unknown("key", str(key), allowed, prefix=f"{where}.")
    lr, schedule = given.get("lr"), given.get("schedule")
    bounds = [parse_value(bound, float, where=f"{where}.lr") for bound in parse_list(lr or [], where=f"{where}.lr")]
    if lr is not None and len(bounds) != 2:
        raise UsageError(f"{where}.lr={lr!r}: give the lowest and the highest, as in [0.5, 2.0].")
    return Advice(
        lr=(bounds[0], bounds[1]) if bounds else None,
        schedule=None if schedule is None else list(map(str, parse_list(schedule, where=f"{where}.schedule"))),
        warmup=given.get("warmup"),
        because=str(given.get("because", "")),
        source=str(given.get("source", "")),
    )
