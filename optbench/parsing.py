"""From YAML's values to typed data: exactly the keys that a dataclass has, each of its declared type."""

import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from optbench.errors import UsageError, unknown

T = TypeVar("T")


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
    return cls(**{key: parse_value(values[key], hint, where=f"{where}.{key}") for key, hint in hints.items()})


def parse_value(value: Any, hint: Any, *, where: str) -> Any:
    """The value, if it is of the type; a whole number becomes a float where one is asked for.

    Raises:
        UsageError: it is of another type, or not among a literal's choices.
    """
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
        if get_origin(option) is Literal and value in get_args(option):
            return value
    choices = [get_args(option) if get_origin(option) is Literal else (_name(option),) for option in options]
    names = " or ".join(str(choice) for group in choices for choice in group)
    raise UsageError(f"{where}={value!r}: expected {names}, got {type(value).__name__}.")


def parse_mapping(value: Any, *, where: str) -> Mapping[str, Any]:
    """The value, if it is a mapping.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}={value!r}: expected a mapping of keys, got {type(value).__name__}.")
    return value


def parse_list(value: Any, *, where: str) -> Sequence[Any]:
    """The value, if it is a list.

    Raises:
        UsageError: it is none.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UsageError(f"{where}={value!r}: expected a list, as in [{value}], got {type(value).__name__}.")
    return value


def json_safe(value: Any) -> Any:
    """The same value in JSON's terms: tuples become lists, and floats that JSON lacks become their names."""
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [json_safe(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def finite(value: Any) -> Any:
    """The same value with None for every float that JSON lacks."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _name(option: Any) -> str:
    return "null" if option is type(None) else str(option.__name__)
