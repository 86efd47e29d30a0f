"""Where costs are kept: `results/<sweep>/costs/<id>.json`, one for each task, optimizer and hardware."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optbench.component import DESCRIPTION
from optbench.cost import Cost, Memory, Phase, Spread, Time
from optbench.hardware import SINCE
from optbench.parsing import json_safe
from optbench.store import Store

SCHEMA = 1
# Keys of a task that say nothing about a step of it, and of an optimizer those that change no tensor's size.
NOT_IN_A_STEP = ("num_steps", "evaluate_every_num_steps", "metrics", "convention")
_NOT_IN_A_COST = (*DESCRIPTION, "lr")
_NOT_FINITE = ("inf", "-inf", "nan")  # floats as they are stored
# Numbers of an optimizer that change what it computes, not how much, as long as they are not 0.
_HARMLESS = (
    *("alpha", "beta1", "beta2", "beta2_decay", "beta3", "betas", "betas_1d", "clip_threshold", "d", "d0", "d_coef"),
    *("dampening", "decay_rate", "diagonal_eps", "eps", "gamma", "growth_rate", "initial_accumulator_value", "lr"),
    *("lr_1d", "lr_decay", "lr_factor", "matrix_eps", "max_grad_norm", "max_norm_growth", "momentum", "momentum_decay"),
    *("rho", "scale", "shampoo_beta", "trust_coefficient", "weight_decay", "weight_decay_1d", "weight_lr_power"),
)


def cost_id(config: Mapping[str, Any]) -> str:
    """16 hexadecimal digits, equal for trials whose steps cost the same.

    They have task, data, model, optimizer, parameter groups and hardware in common. Of an optimizer's rates,
    decays, betas and the like it counts only whether they are 0: they change what a step computes, not how much. Its
    `lr` does not count, nor do seed, schedule and budget.

    Args:
        config: of a trial, in YAML's terms.
    """
    task, data, optimizer = (dict(config.get(part) or {}) for part in ("task", "data", "optimizer"))
    if data.get("sha256"):
        data.pop("path", None)
    companion = dict(optimizer.get("companion") or {})
    asked = {
        "task": _without(task, NOT_IN_A_STEP),
        "data": _without(data, ("convention",)),
        **({"model": model} if (model := config.get("model")) else {}),
        "optimizer": _sizes({**_without(optimizer, _NOT_IN_A_COST), "companion": _without(companion, _NOT_IN_A_COST)}),
        "param_groups": _sizes(config.get("param_groups") or {}),
        "clips": config.get("max_grad_norm") is not None,
        "hardware": _sizes(
            {key: value for key, value in config["hardware"].items() if key not in SINCE or value != SINCE[key]}
        ),
    }
    return hashlib.sha256(json.dumps(json_safe(asked), sort_keys=True).encode()).hexdigest()[:16]


class Costs:
    """The costs that are kept with a sweep.

    Args:
        store: of the sweep.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.folder / "costs"

    def read(self, cost_id: str) -> Cost | None:
        """The cost of this id; None where there is none, or none that this optbench can read."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads((self._folder / f"{cost_id}.json").read_bytes())
            return _from_json(record) if record["schema"] <= SCHEMA else None
        return None

    def all(self) -> list[Cost]:
        """All of them, by id."""
        found = (self.read(path.stem) for path in sorted(self._folder.glob("*.json")))
        return [cost for cost in found if cost is not None]

    def write(self, cost: Cost) -> None:
        """Keep a cost, in place of an earlier one.

        Raises:
            OSError: the disk is full or not writable.
        """
        self._store.write(f"costs/{cost.id}.json", json.dumps({"schema": SCHEMA, **as_json(cost)}, allow_nan=False))


def kept_below(results: Path) -> list[Cost]:
    """The costs that are kept with any sweep in this folder."""
    folders = sorted(folder.parent for folder in results.glob("*/costs"))
    return [cost for folder in folders for cost in Costs(Store(folder.parent, folder.name)).all()]


def as_json(cost: Cost) -> dict[str, Any]:
    """The cost in JSON's terms."""
    return {**asdict(cost), "config": json_safe(cost.config)}


def memory_from_json(record: Mapping[str, Any] | None) -> Memory | None:
    """What `dataclasses.asdict` made of it."""
    return None if record is None else Memory(**{**record, "peak_phase": Phase(record["peak_phase"])})


def time_from_json(record: Mapping[str, Any] | None) -> Time | None:
    """What `dataclasses.asdict` made of it."""
    if record is None:
        return None
    spreads = {
        key: Spread(**record[key])
        for key in ("step", "reference_step", "ratio", "optimizer_ratio")
        if record[key] is not None
    }
    phases = {
        key: {phase: Spread(**spread) for phase, spread in record[key].items()}
        for key in ("phases", "reference_phases")
        if record[key] is not None
    }
    return Time(**{**record, **spreads, **phases})


def _from_json(record: Mapping[str, Any]) -> Cost:
    own = {key: value for key, value in record.items() if key != "schema"}
    return Cost(
        **{
            **own,
            "memory": memory_from_json(own["memory"]),
            "predicted": memory_from_json(own["predicted"]),
            "time": time_from_json(own["time"]),
        }
    )


def _without(config: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


def _sizes(value: Any, *, key: str = "") -> Any:
    """The same, with numbers that change no tensor's size told apart by being 0 alone, and 1.0 equal to 1."""
    if isinstance(value, Mapping):
        return {name: _sizes(item, key=str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sizes(item, key=key) for item in value]
    if isinstance(value, bool) or not (isinstance(value, (int, float)) or value in _NOT_FINITE):
        return value
    if key in _HARMLESS:
        return value != 0
    return int(value) if isinstance(value, float) and value.is_integer() else value
