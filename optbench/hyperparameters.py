"""The table of hyperparameters, as papers print it: what each optimizer's best setting is, and what was searched."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optbench.component import BESIDES_ARGUMENTS, DESCRIPTION
from optbench.contest import Contender, Contest
from optbench.settings import spelt
from optbench.sheet import Sheet
from optbench.sheets import Line, sheet
from optbench.tables import Row

# Of an optimizer: how it is computed, and not what.
_IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable", "maximize", "use_triton", "fsdp_in_use")
_NOT_SHOWN = {"name", "_target_", *DESCRIPTION, *BESIDES_ARGUMENTS, *_IMPLEMENTATION} - {"companion"}
NUM_LISTED = 8


def hyperparameters(contests: Sequence[Contest]) -> Sheet:
    """A line for each optimizer on each task, controls aside: every number that its best setting has."""
    lines = [
        _line(contest, contender)
        for contest in contests
        for contender in contest.contenders
        if not contender.is_control
    ]
    notes = [
        "Of the best setting of each optimizer, from the configs as they were run. on: switches of the optimizer that "
        "are on. searched: the values tried, by key."
    ]
    return sheet(lines, name="hyperparameters", title="hyperparameters", notes=notes)


def _line(contest: Contest, contender: Contender) -> Line:
    row = contender.best
    config = row.config
    values: dict[str, Any] = {"task": contest.task, "optimizer": contender.optimizer}
    values |= dict(_arguments(config["optimizer"]))
    switches = [key for key, value in _flags(config["optimizer"]) if value]
    values["on"] = " ".join(switches) or None
    values["schedule"] = _component(config.get("schedule"))
    values["batch size"] = config["task"].get("batch_size")
    values["steps"] = config["budget"].get("num_steps")
    values["seconds"] = config["budget"].get("seconds")
    values["max grad norm"] = config.get("max_grad_norm")
    values["param groups"] = _component(config.get("param_groups"))
    values["precision"] = config["hardware"].get("precision")
    values["seeds"] = row.num_trials
    values["searched"] = "; ".join(f"{key}: {tried}" for key, tried in searched(contender.rows)) or None
    return Line(
        words={key: "-" if value is None else spelt(value) for key, value in values.items()},
        keys={key: value if isinstance(value, (int, float)) else None for key, value in values.items()}
        | {key: value for key, value in values.items() if isinstance(value, str)},
        numbers={
            key.replace(" ", "_"): spelt(value) if isinstance(value, list) else value for key, value in values.items()
        },
    )


def searched(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """The keys in which an optimizer's settings differ, with the values tried."""
    tried: dict[str, dict[str, Any]] = {}
    for row in rows:
        for key, value in row.setting.items():
            tried.setdefault(key, {}).setdefault(spelt(value), value)
    for key, values in tried.items():
        if len(values) < 2:
            continue
        numbers = all(isinstance(value, (int, float)) for value in values.values())
        listed = sorted(values, key=lambda text: float(values[text])) if numbers else list(values)
        if len(listed) > NUM_LISTED:
            yield key, f"{len(listed)} values from {listed[0]} to {listed[-1]}" if numbers else f"{len(listed)} values"
        else:
            yield key, ", ".join(listed)


def _arguments(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers and words of an optimizer, and those of its companion."""
    for key, value in config.items():
        if key in _NOT_SHOWN or value is None or isinstance(value, bool):
            continue
        if isinstance(value, Mapping):
            yield from _arguments(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _flags(config: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    for key, value in config.items():
        if key not in _NOT_SHOWN and isinstance(value, bool):
            yield key, value


def _component(config: Any) -> str | None:
    """A schedule or parameter groups with what is not 0: `cosine warmup=0.1`."""
    if not isinstance(config, Mapping):
        return None
    shown = {key: value for key, value in config.items() if key not in ("name", "_target_", "convention")}
    own = [f"{key}={spelt(value)}" for key, value in shown.items() if value and not isinstance(value, Mapping)]
    return " ".join([str(config.get("name")), *own])
