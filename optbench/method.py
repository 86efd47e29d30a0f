"""How the trials of a sweep are chosen: every combination, grids, lists walked together, or a search.

A search has studies. A study is one combination of all that the command line lists, other than seeds and what is
searched: `optimizer=lion,adamw task=digits_mlp,quadratic` are four.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any

from optbench.changes import Change, Choice, Config
from optbench.errors import UsageError, unknown
from optbench.keys import select
from optbench.parsing import parse_list, parse_mapping, parse_value
from optbench.samplers import random_points, spelling, unseen
from optbench.search import Choices, Dimension, Point, Range, Study, grid, read_block, spell
from optbench.trial import ELSEWHERE

Value = Change | Choice
Compose = Callable[[Sequence[Value]], Config]
ParseRange = Callable[[str, Any], Range | Choices]


class Method(StrEnum):
    """How the trials of a sweep are chosen: the `method` of a file in conf/sweep."""

    PRODUCT = "product"
    """Every combination of the values listed."""
    ZIP = "zip"
    """The first value of each list, then the second of each."""
    GRID = "grid"
    """Every combination of each optimizer's own grids."""
    RANDOM = "random"
    """Points by chance of each optimizer's own search space."""
    OPTUNA = "optuna"
    """Points of it that Optuna chooses by what it has seen."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """An override.

    Attributes:
        key: what it is about.
        line: as it was typed.
        values: the override once for each value that it lists; none if it is a range of numbers.
        is_listed: whether it can have several values.
        adds: the key may be new (`+` or `++`).
        searched: what random and optuna search in it; None where the values make studies.
    """

    key: str
    line: str
    values: Sequence[Value]
    is_listed: bool
    adds: bool = False
    searched: Range | Choices | None = None

    def listed(self) -> Sequence[Value]:
        """Its values.

        Raises:
            UsageError: it has none to run through.
        """
        if self.values:
            return self.values
        raise UsageError(
            f"{self.line}: an interval has no values to run through.\n"
            f"List them, as {self.key}=0.001,0.01 or {self.key}=range(5)"
            + ("." if self.searched is None else "; sweep=random and sweep=optuna search in it.")
        )


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """What the config says about how the trials are chosen.

    Attributes:
        method: how.
        num_settings: of a search: settings for each study; None where only time ends it.
        seconds: of a search: time for each study; None is no limit.
        seed: of the search itself.
        keys: of an optimizer that are searched; None is all that its file has a space for.
        params: swept unless the command line gives the key itself.
        settings: points of the sweep, each with keys of its own; of these, too, the command line may give some itself.
    """

    method: Method
    num_settings: int | None
    seconds: float | None
    seed: int
    keys: Sequence[str] | None
    params: Mapping[str, str]
    settings: Sequence[Mapping[str, Any]]

    @property
    def has_studies(self) -> bool:
        """Whether it takes points of each optimizer's own search space."""
        return self.is_search or self.method is Method.GRID

    @property
    def is_guided(self) -> bool:
        """Whether the trials show only while it runs: by what others gave, or by how long they took."""
        return self.method is Method.OPTUNA or self.seconds is not None

    @property
    def is_search(self) -> bool:
        """Whether it has a budget, and takes ranges."""
        return self.method in (Method.RANDOM, Method.OPTUNA)


def read_strategy(config: Mapping[str, Any]) -> Strategy:
    """The strategy that a config asks for.

    Raises:
        UsageError: a search without a budget, a budget without a search, or a value that is none.
    """
    sweep = parse_mapping(config.get("sweep") or {}, where="sweep")
    name = sweep.get("method") or Method.PRODUCT
    if name not in list(Method):
        raise unknown("value", str(name), [method.value for method in Method], where="for sweep.method")
    method = Method(name)
    num_settings = parse_value(config.get("n"), int | None, where="n")
    seconds = parse_value(sweep.get("seconds"), float | None, where="sweep.seconds")
    for key, value in (("n", num_settings), ("sweep.seconds", seconds)):
        if value is not None and not value > 0:
            raise UsageError(f"{key}={value}: it must be above 0.")
    if method in (Method.RANDOM, Method.OPTUNA):
        if num_settings is None and seconds is None:
            raise UsageError(
                f"sweep={method} has no budget: give n=50, the settings tried for each study, or sweep.seconds=600, "
                "the time for each."
            )
    else:
        for key, value in (("n", num_settings), ("sweep.seconds", seconds)):
            if value is not None:
                raise UsageError(
                    f"{key}={value}: this is the budget of sweep=random and sweep=optuna, and sweep.method={method} "
                    "has none. Leave it out, or choose one of them."
                )
    keys = list(parse_list(sweep.get("keys", ["all"]), where="sweep.keys"))
    params = parse_mapping(sweep.get("params") or {}, where="sweep.params")
    listed = parse_list(sweep.get("settings") or [], where="sweep.settings")
    settings = [parse_mapping(one, where=f"sweep.settings[{number}]") for number, one in enumerate(listed)]
    if settings and method is not Method.PRODUCT:
        raise UsageError(
            f"sweep.settings are the points of a sweep, and sweep.method={method} chooses its own. Use one of them."
        )
    return Strategy(
        method=method,
        num_settings=num_settings,
        seconds=seconds,
        seed=parse_value(sweep.get("seed") or 0, int, where="sweep.seed"),
        keys=None if "all" in keys else [str(key).removeprefix("optimizer.") for key in keys],
        params={str(key): str(value) for key, value in params.items()},
        settings=settings,
    )


def combinations(given: Sequence[Given]) -> Iterator[Sequence[Value]]:
    """Every combination of the values listed, the last one varying fastest."""
    return itertools.product(*(override.listed() for override in given))


def zipped(given: Sequence[Given], *, crossed: Sequence[Given]) -> Iterator[Sequence[Value]]:
    """The first value of each list, then the second of each; each of these with every combination of what is crossed.

    Raises:
        UsageError: the lists have different lengths.
    """
    lists = [override for override in given if override.is_listed]
    lengths = {override.line: len(override.listed()) for override in lists}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{line} ({number})" for line, number in lengths.items())
        raise UsageError(f"sweep=zip walks the lists together, so they need the same number of values: {counted}.")
    for index in range(max(lengths.values(), default=1)):
        chosen = [override.listed()[index if override.is_listed else 0] for override in given]
        for others in combinations(crossed):
            yield [*chosen, *others]


def points(study: Study, strategy: Strategy) -> Iterator[Point]:
    """The points of a study, as far as they can be told beforehand.

    Of Optuna's they are not known; random ones are as many, and of the same kind.
    """
    base = study.configs({})[0]
    if strategy.method is Method.GRID:
        yield from grid(study.dimensions, base)
        return
    drawn = random_points(study, base=base, seed=strategy.seed)
    seen: set[str] = set()
    while strategy.num_settings is None or len(seen) < strategy.num_settings:
        point = unseen(drawn, seen)
        if point is None:
            return
        seen.add(spelling(point))
        yield point


def studies(
    given: Sequence[Given], strategy: Strategy, *, compose: Compose, parse_range: ParseRange
) -> Iterator[Study]:
    """The studies of what is given, each once.

    Args:
        given: the overrides, those of `sweep.params` among them.
        strategy: which keys are searched.
        compose: the config after overrides.
        parse_range: the space that a key's `range` in a file describes.

    Raises:
        UsageError: an optimizer's file does not say what is worth trying, or none has a key of `sweep.keys`.
    """
    searched = [override for override in given if strategy.is_search and override.searched is not None]
    seeds = [override for override in given if override.key == "seed"]
    crossed = [override for override in given if override not in searched and override not in seeds]
    taken = {override.key for override in (*crossed, *searched)}
    adding = {override.key for override in searched if override.adds}
    names: set[str] = set()
    known: set[str] = set()
    sweep: Any = None
    for combination in combinations(crossed):
        config = compose(combination)
        sweep = sweep or config.get("sweep")
        if config.get("sweep") != sweep:
            raise UsageError("sweep: one sweep has one value for it, and these overrides give it several.")
        name = _name(combination, config)
        if name in names:
            continue
        names.add(name)
        space = {override.key: _dimension(override, config) for override in searched}
        block = select(config, "optimizer.search")
        for dimension in read_block(block or {}, parse_range=parse_range):
            known.add(dimension.key)
            if dimension.key not in taken and _is_asked(dimension, strategy):
                space[dimension.key] = dimension
        if not space and block is None and not (strategy.method is Method.GRID and "optimizer.lr" in taken):
            raise _no_space(name, strategy)
        yield Study(
            name=name,
            dimensions=_settled(space, config),
            configs=partial(
                _configs, compose=compose, fixed=combination, seeds=list(combinations(seeds)), adding=adding
            ),
        )
    for key in strategy.keys or ():
        if key != "lr" and f"optimizer.{key}" not in known | taken:
            names_known = [other.removeprefix("optimizer.") for other in known]
            raise unknown("key", key, names_known, where="of sweep.keys: no optimizer here has it in its search block")


def _configs(
    point: Point, *, compose: Compose, fixed: Sequence[Value], seeds: Sequence[Sequence[Value]], adding: Collection[str]
) -> list[Config]:
    changes = [
        Change(key=key, value=value, line=f"{key}={spell(value)}", adds=key in adding) for key, value in point.items()
    ]
    return [compose([*fixed, *changes, *seed]) for seed in seeds]


def _name(combination: Sequence[Value], config: Config) -> str:
    """All that makes the study, in the order in which it was given; what was not given is as the files have it."""
    told = {key: str(select(config, f"{key}.name")) for key in ("optimizer", "task")}
    for value in combination:
        if value.key.partition(".")[0] in ELSEWHERE:
            continue
        if isinstance(value, Choice):
            told[value.key] = str(value.option or "null")
        elif value.deletes:
            told[f"~{value.key}"] = ""
        else:
            found = select(config, value.key)
            told[value.key] = found if isinstance(found, str) else spell(found)
    return " ".join(f"{key}={value}" if value else key for key, value in told.items())


def _dimension(override: Given, config: Config) -> Dimension:
    """The dimension that an override makes: of whole numbers, if that is what the key has."""
    values = override.searched
    assert values is not None
    if isinstance(values, Range) and type(select(config, override.key)) is int:
        values = replace(values, integer=True)
    return Dimension(key=override.key, grid=(), values=values, when={})


def _is_asked(dimension: Dimension, strategy: Strategy) -> bool:
    """Whether the key is among those searched; a grid passes over what has none, unless it is named."""
    has_grid = strategy.method is not Method.GRID or bool(dimension.grid)
    if strategy.keys is None:
        return has_grid
    name = dimension.key.removeprefix("optimizer.")
    if name in strategy.keys and not has_grid:
        raise UsageError(
            f"{dimension.key} has a range and no grid in its optimizer's search block.\n"
            f"Give values, as in {dimension.key}=0.001,0.01, or leave {name} out of sweep.keys."
        )
    return name in strategy.keys


def _settled(space: Mapping[str, Dimension], config: Config) -> list[Dimension]:
    """The dimensions, without conditions on keys that are fixed, and without those whose conditions fail there."""
    kept: dict[str, Dimension] = {}
    for key, dimension in space.items():
        fixed = {other: values for other, values in dimension.when.items() if other not in kept}
        if all(select(config, other) in values for other, values in fixed.items()):
            when = {other: values for other, values in dimension.when.items() if other in kept}
            kept[key] = replace(dimension, when=when)
    return list(kept.values())


def _no_space(name: str, strategy: Strategy) -> UsageError:
    example = "0.0003,0.001,0.003" if strategy.method is Method.GRID else "'tag(log, interval(0.0001, 0.01))'"
    return UsageError(
        f"{name}: the optimizer's file has no search block, which says what is worth trying.\n"
        f"Give values, as in optimizer.lr={example}, or add a search block to the file."
    )
