"""What the presets of large models say."""

from collections.abc import Mapping
from typing import Any

from optbench.catalogue import entry, names
from optbench.errors import UsageError, unknown


def preset_value(*, preset: str, key: str) -> float:
    """A number of an optimizer's YAML, by its key, as in `preset.lr.7B` or `betas.1`."""
    value = _value(preset, key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"optimizer={preset}: {key}={value!r} is no number.")
    return float(value)


def decay_by_preset(*, preset: str, size: str) -> float:
    """What its decay takes from the weights in a step at the peak rate of one size, where it is times lr."""
    return preset_value(preset=preset, key=f"preset.lr.{size}") * preset_value(preset=preset, key="weight_decay")


def num_values(*, preset: str, key: str) -> float:
    """How many values an optimizer's YAML gives below a key, as in `preset.lr`."""
    return float(len(_below(_value(preset, key))))


def _value(preset: str, key: str) -> Any:
    found = entry("optimizer", preset)
    if found is None:
        raise unknown("optimizer", preset, names("optimizer"))
    value: Any = found.config
    for part in key.split("."):
        inside = _below(value)
        if part not in inside:
            raise unknown("key", part, inside, where=f"of {key} in optimizer={preset}")
        value = inside[part]
    return value


def _below(value: Any) -> dict[str, Any]:
    """What a mapping or a list has, by key or by place; nothing for anything else."""
    pairs = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, Mapping) else ()
    return {str(name): one for name, one in pairs}
