"""Which stored trials a report is about: `optimizer=lion,adamw task.batch_size=64 status=completed`."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd
import yaml

from optbench.component import DESCRIPTION
from optbench.errors import UsageError, unknown
from optbench.keys import select
from optbench.settings import spelt

# Columns that can be asked for beside the keys of a config.
COLUMNS = ("seed", "status", "sweep", "device", "id")
NUM_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A condition on trials.

    Attributes:
        line: as it was typed.
        key: of the config with dots, the name of a part, which stands for its `name`, or one of `COLUMNS`.
        values: any of these.
    """

    line: str
    key: str
    values: Sequence[Any]

    def accepts(self, value: Any) -> bool:
        """Whether a trial with this value is asked for."""
        return any(_same(value, wanted) for wanted in self.values)


def parse(lines: Sequence[str]) -> list[Filter]:
    """Filters as they are typed; a leading `+` is left out.

    Raises:
        UsageError: one has no value, or a list that is not closed.
    """
    found = []
    for line in lines:
        key, _, text = line.lstrip("+").partition("=")
        try:
            values = yaml.safe_load(f"[{text}]")
        except yaml.YAMLError as error:
            raise UsageError(f"{line}: {text!r} is no list of values. As in optimizer=lion,adamw") from error
        if not key or not values:
            raise UsageError(f"{line}: a filter is key=value or key=value,value. As in optimizer=lion,adamw")
        found.append(Filter(line=line, key=key, values=[_number(value) for value in values]))
    return found


def apply(filters: Sequence[Filter], index: pd.DataFrame) -> pd.DataFrame:
    """The rows of the index that every filter accepts.

    Raises:
        UsageError: no trial has such a key, or none such a value.
    """
    for one in filters:
        values = _values(one, index)
        kept = [one.accepts(value) for value in values]
        if not any(kept):
            there = list(dict.fromkeys(spelt(value) for value in values))
            nearest = difflib.get_close_matches(spelt(one.values[0]), there, n=1)
            hint = f" Did you mean {one.key}={nearest[0]}?" if nearest else ""
            more = f" and {len(there) - NUM_LISTED} more" if len(there) > NUM_LISTED else ""
            raise UsageError(
                f"{one.line}: none of {len(index)} trials has that.{hint}\n"
                f"Of {one.key} there is: {', '.join(sorted(there)[:NUM_LISTED])}{more}."
            )
        index = index[kept].reset_index(drop=True)
    return index


def _values(one: Filter, index: pd.DataFrame) -> list[Any]:
    """The value of the filter's key in each trial."""
    if one.key in COLUMNS:
        found: list[Any] = index[one.key].tolist()
        return found
    part, _, rest = one.key.partition(".")
    texts = index[f"config.{part}"].tolist() if f"config.{part}" in index else []

    @cache
    def parsed(text: str | float) -> Any:
        config = json.loads(text) if isinstance(text, str) else None
        if not rest:
            return config["name"] if isinstance(config, Mapping) and "name" in config else config
        return select(config, rest) if isinstance(config, Mapping) else None

    values = [parsed(text) for text in texts]
    if not texts or all(value is None for value in values):
        known = set(COLUMNS)
        for name in index.filter(like="config."):
            for text in index[name].drop_duplicates():
                known |= (
                    set(_keys(json.loads(text), str(name).removeprefix("config."))) if isinstance(text, str) else set()
                )
        if one.key not in known:
            beside = {key for key in known if rest and key.startswith(f"{part}.")}
            allowed = beside or {key for key in known if "." not in key}
            raise unknown("key", one.key, allowed, where="to filter by")
    return values


def _keys(config: Any, prefix: str) -> Iterator[str]:
    yield prefix
    if isinstance(config, Mapping):
        for name, value in config.items():
            if name not in DESCRIPTION:
                yield from _keys(value, f"{prefix}.{name}")


def _number(value: Any) -> Any:
    """`1e-4` is a number to those who type it, and text to YAML."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted or str(value).lower() == str(wanted).lower()
    if value is None or wanted is None:  # an optimizer may be called null
        return bool(value == wanted) or "null" in (value, wanted)
    if isinstance(value, str) and not isinstance(wanted, str):
        return bool(_number(value) == wanted)
    return bool(value == wanted)
