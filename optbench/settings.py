"""What tells settings apart: the keys in which their configs differ, and how a key is spelt."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from optbench.component import DESCRIPTION
from optbench.hardware import SINCE

# Keys of a config that do not tell two settings apart: they describe or advise. Nor does the place of data that are
# known by their hash.
NOT_COMPARED = frozenset(
    {
        *(f"{group}.convention" for group in ("task", "data", "optimizer", "schedule")),
        *(f"task.{key}" for key in ("metrics", "num_steps", "evaluate_every_num_steps")),
        *(f"optimizer.{key}" for key in DESCRIPTION),
    }
)


def identity(config: Mapping[str, Any]) -> str:
    """16 hexadecimal digits, equal for configs that differ by their seed alone."""
    keys = {key: value for key, value in _flatten(config) if key != "seed"}
    return hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()[:16]


def differing(configs: Sequence[Mapping[str, Any]], parts: Iterable[str]) -> list[dict[str, Any]]:
    """For each config, the keys in these parts of it that tell it from others; always with its lr.

    Args:
        configs: equal parts of them are best one object each, so that they are compared once.
        parts: top-level keys.
    """
    found: list[dict[str, Any]] = [{} for _ in configs]
    for part in parts:
        variants = {id(config.get(part)): config.get(part) for config in configs}
        by_variant = dict(zip(variants, _differing_variants(part, list(variants.values())), strict=True))
        for keys, config in zip(found, configs, strict=True):
            keys |= by_variant[id(config.get(part))]
    return found


def distinctions(configs: Sequence[Mapping[str, Any]], parts: Iterable[str]) -> list[str]:
    """For each config, what tells it from the others as overrides spell it, its class aside, and its lr only if so."""
    found = differing(configs, parts)
    hidden = {"_target_"} | ({"lr"} if len({repr(setting.get("lr")) for setting in found}) == 1 else set())
    return [" ".join(words({key: setting[key] for key in setting if key not in hidden})) for setting in found]


def words(setting: Mapping[str, Any]) -> list[str]:
    """Each key as an override would spell it, floats in six digits."""
    return [f"{key}={spelt(value)}" for key, value in setting.items()]


def spelt(value: Any) -> str:
    """A value as an override would spell it, floats in six digits."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{','.join(spelt(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {spelt(item)}' for key, item in value.items())}}}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


def _differing_variants(part: str, variants: Sequence[Any]) -> list[dict[str, Any]]:
    """For each variant of a part, the keys by which it differs from other variants.

    The keys of an optimizer and of parameter groups are compared within variants of the same name, which implies
    them elsewhere; those of other parts among all variants that have them. A key that another variant of the same name
    lacks differs, too.
    """
    absent = {"name": None} if any(isinstance(variant, Mapping) for variant in variants) else None
    flats = [dict(_flatten({part: absent if variant is None else variant})) for variant in variants]
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
                and (part != "param_groups" or key == "param_groups.name")
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
        if key in NOT_COMPARED or (key == "data.path" and config.get("sha256")):
            continue
        if (
            prefix == "hardware." and name in SINCE and value == SINCE[name]
        ):  # as in a config from before there was the key
            continue
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{key}.")
        else:
            yield key, value
