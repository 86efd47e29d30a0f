"""The parts of a file that declares a paper or a suite: mappings whose keys are known, names, texts."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from optbench.errors import UsageError, unknown
from optbench.parsing import parse_list, parse_mapping, parse_value

_NAME = re.compile(r"[A-Za-z0-9_]+")


class _Loader(yaml.SafeLoader):
    """PyYAML's, which would take the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping; an error where a key is given twice."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.value != "<<"]
        if doubled := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"{doubled!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def parsed(text: str) -> Any:
    """What a YAML file holds; plain data alone.

    Raises:
        YAMLError: it is no YAML, or gives a key twice.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def parsed_mapping(text: str, *, where: str) -> Mapping[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        UsageError: it is no YAML, gives a key twice, or holds something else.
    """
    try:
        return parse_mapping(parsed(text), where=where)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: no valid YAML: {error}") from error


def as_name(value: Any) -> str:
    """The name of a row or a column; YAML reads 0.1 as a number."""
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def as_text(value: Any, *, where: str) -> str:
    """Text in one line."""
    found: str = parse_value(value, str, where=where)
    return " ".join(found.split())


def as_texts(value: Any, *, where: str) -> list[str]:
    """A list of texts."""
    return [parse_value(line, str, where=where) for line in parse_list(value, where=where)]


def as_word(value: Any, *, where: str) -> str:
    """A text that can name a file."""
    found = as_text(value, where=where)
    if not _NAME.fullmatch(found):
        raise UsageError(f"{where}={found!r}: letters, digits and _ make the name of a file.")
    return found


def by_name(content: Any, *, where: str) -> dict[str, Any]:
    """A mapping whose keys are names of rows or columns."""
    return {as_name(name): value for name, value in parse_mapping(content, where=where).items()}


def check_keys(given: Mapping[Any, Any], allowed: Iterable[str], *, where: str) -> None:
    """Refuse keys that are not allowed; names the nearest one that is."""
    names = set(allowed)
    for key in given:
        if as_name(key) not in names:
            raise unknown("key", str(key), names, where=f"in {where}")


def check_unique(names: Sequence[str], *, where: str) -> None:
    """Refuse a name that several have."""
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{where}: {name!r} is the name of {names.count(name)} of them.")
