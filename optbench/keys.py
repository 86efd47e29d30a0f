"""The keys of a config: which there are, which can be set, and what type their values have."""

from collections.abc import Mapping
from typing import Any

from optbench.component import DESCRIPTION
from optbench.errors import UsageError, unknown

DESCRIBING = frozenset(DESCRIPTION) - {"preset"}  # a preset's size chooses its values


def select(config: Mapping[str, Any], key: str) -> Any:
    """The value of a key with dots; None where there is none."""
    node: Any = config
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def check_settable(key: str, *, line: str) -> None:
    """Refuse an override of what only describes an optimizer: it would change nothing."""
    node, *parts = key.split(".")
    if node == "optimizer" and parts[:1] == ["companion"]:
        node, parts = "optimizer.companion", parts[1:]
    if node.startswith("optimizer") and parts and parts[0] in DESCRIBING:
        raise UsageError(
            f"{line}: {node}.{parts[0]} only describes the optimizer, and setting it changes nothing.\n"
            "It belongs in the YAML of an optimizer, beside its class."
        )


def unknown_key(config: Mapping[str, Any], key: str, *, line: str) -> UsageError:
    """The error for a key that is not there, about the level at which it goes wrong.

    Args:
        config: unresolved, so that what has no value yet is no obstacle.
        key: with dots.
        line: the override.
    """
    node: Any = config
    parts = key.split(".")
    for depth, part in enumerate(parts):
        path = ".".join(parts[:depth])
        if not isinstance(node, Mapping):
            return UsageError(f"{line}: {path} is a single value and has no keys.")
        if part not in node:
            if node.get("_target_") == "???":
                return UsageError(f"{line}: {path}._target_ has no value yet: give it one as well.")
            hidden = {"name", "_target_", "convention"} | (DESCRIBING if path.startswith("optimizer") else set())
            name = str(node.get("name", ""))
            where = f"for {path}={name}" if path and name and "${" not in name else ""
            allowed = [str(other) for other in node if other not in hidden]
            return unknown("key", part, allowed, where=where, prefix=f"{path}." if path else "")
        node = node[part]
    return UsageError(f"{line}: no such key.")


def typed(value: Any, before: Any, *, key: str) -> Any:
    """The value, if it has the type of the one it replaces.

    A whole number becomes a float where a float was, and a word a list of one where a list of words was.

    Raises:
        UsageError: it has another type.
    """
    if value is None or before is None or (isinstance(value, str) and "${" in value):
        return value
    if isinstance(before, str) and "${" in before:
        return value
    if isinstance(before, float) and type(value) is int:
        return float(value)
    if isinstance(before, list) and isinstance(value, list):
        kinds = before + [before[-1]] * len(value) if before else value
        return [typed(item, kind, key=key) for item, kind in zip(value, kinds, strict=False)]
    if type(value) is type(before):
        return value
    if isinstance(value, str) and isinstance(before, list) and before and all(isinstance(item, str) for item in before):
        return [value]
    raise UsageError(f"{key}={value!r}: expected {_kind(before)} as in {key}={before!r}, got {_kind(value)}.")


def _kind(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a mapping",
    }
    return names.get(type(value), type(value).__name__)
