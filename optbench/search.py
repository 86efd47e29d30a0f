"""Search spaces: which values of which keys are worth trying."""

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optbench.errors import UsageError, unknown
from optbench.keys import select
from optbench.parsing import json_safe, parse_list, parse_mapping

Point = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Range:
    """Any number between two, both included; evenly in the logarithm where `log`.

    Raises:
        UsageError: there is none.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        spelt = f"interval({self.low}, {self.high})"
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UsageError(f"{spelt}: the first bound has to be below the second, and neither infinite.")
        if self.log and self.low <= 0:
            raise UsageError(f"{spelt}: with tag(log, ...) both bounds have to be above 0.")
        if self.integer and math.ceil(self.low) > math.floor(self.high):
            raise UsageError(f"{spelt}: there is no whole number in it.")

    def sample(self, generator: random.Random) -> float | int:
        """One of them, in six significant digits, so that it is spelt as it is stored."""
        if self.integer:
            low, high = math.ceil(self.low), math.floor(self.high)
            if not self.log:
                return generator.randint(low, high)
            drawn = math.exp(generator.uniform(math.log(low - 0.5), math.log(high + 0.5)))
            return min(max(round(drawn), low), high)
        if self.log:
            value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = generator.uniform(self.low, self.high)
        return min(max(float(f"{value:.6g}"), self.low), self.high)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """One of these values."""

    values: Sequence[Any]

    def sample(self, generator: random.Random) -> Any:
        """One of them."""
        return generator.choice(list(self.values))


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """What may become of one key.

    Attributes:
        key: as an override spells it, such as `optimizer.lr`.
        grid: its values for a grid; empty where it has none.
        values: what is sampled from.
        when: the key counts only where each of these keys has one of these values; elsewhere it stays as it is.
    """

    key: str
    grid: Sequence[Any]
    values: Range | Choices
    when: Mapping[str, Sequence[Any]]

    def counts(self, point: Point, base: Mapping[str, Any]) -> bool:
        """Whether the key counts at a point, of which only the keys are chosen that its `when` names.

        Args:
            point: as far as it is chosen.
            base: the config, for the values of keys that the point leaves as they are.
        """
        return all((point[key] if key in point else select(base, key)) in values for key, values in self.when.items())


@dataclass(frozen=True, kw_only=True)
class Study:
    """One search: an optimizer, on a task, with all else fixed.

    Attributes:
        name: tells it from all other studies, such as `optimizer=lion task=mnist_mlp budget.num_steps=100`.
        dimensions: what is searched; a key comes after those that its `when` names.
        configs: the configs of one point, by key and value: one for each seed.
    """

    name: str
    dimensions: Sequence[Dimension]
    configs: Callable[[Mapping[str, Any]], Sequence[dict[str, Any]]]


def grid(dimensions: Sequence[Dimension], base: Mapping[str, Any], point: Point | None = None) -> Iterator[Point]:
    """Every combination of the grids' values, the last key varying fastest; a key that does not count is left out.

    Args:
        dimensions: of a study.
        base: its config where nothing is searched.
        point: where to begin.
    """
    point = point or {}
    if not dimensions:
        yield point
        return
    first, *rest = dimensions
    if not first.counts(point, base):
        yield from grid(rest, base, point)
        return
    for value in first.grid:
        yield from grid(rest, base, {**point, first.key: value})


def spell(value: Any) -> str:
    """A value in one spelling, in which equal values are equal."""
    return json.dumps(json_safe(value), sort_keys=True)


def read_block(block: Any, *, parse_range: Callable[[str, Any], Range | Choices]) -> list[Dimension]:
    """The dimensions of an optimizer's `search` block, each after those that its `when` names.

    Args:
        block: as its YAML has it.
        parse_range: from a key and what stands under `range`.

    Raises:
        UsageError: an entry is none.
    """
    block = parse_mapping(block, where="optimizer.search")
    dimensions = [_read_entry(str(name), entry, parse_range=parse_range) for name, entry in block.items()]
    ordered: list[Dimension] = []
    waiting = {dimension.key: dimension for dimension in dimensions}
    while waiting:
        ready = [dimension for dimension in waiting.values() if not dimension.when.keys() & waiting.keys()]
        if not ready:
            raise UsageError(f"optimizer.search: {' and '.join(waiting)} have conditions on each other.")
        ordered += ready
        for dimension in ready:
            del waiting[dimension.key]
    return ordered


def _read_entry(name: str, entry: Any, *, parse_range: Callable[[str, Any], Range | Choices]) -> Dimension:
    where = f"optimizer.search.{name}"
    if name.endswith("_target_"):
        raise UsageError(f"{where}: a class is chosen, and not searched.")
    entry = parse_mapping(entry, where=where)
    for key in entry:
        if key not in ("grid", "range", "when"):
            raise unknown("key", str(key), ("grid", "range", "when"), prefix=f"{where}.")
    values = list(parse_list(entry.get("grid") or [], where=f"{where}.grid"))
    if not values and "range" not in entry:
        raise UsageError(f"{where}: it needs a grid (a list of values), a range, or both.")
    key = f"optimizer.{name}"
    when = parse_mapping(entry.get("when") or {}, where=f"{where}.when")
    return Dimension(
        key=key,
        grid=values,
        values=parse_range(key, entry["range"]) if "range" in entry else Choices(values=values),
        when={f"optimizer.{other}": _several(allowed) for other, allowed in when.items()},
    )


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
