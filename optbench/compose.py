"""From overrides as they were typed to composed configs.

Hydra composes once for each set of group choices; the other keys are set afterwards, in plain containers. An override
is parsed once, however many configs it is in, and configs are made one by one as they are asked for.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, Transformer
from hydra.errors import OverrideParseException

from optbench.changes import Change, Choice, Config
from optbench.errors import UsageError
from optbench.loading import Files
from optbench.method import Given, Method, Strategy, Value, combinations, points, read_strategy, studies, zipped
from optbench.search import Choices, Range, Study, spell

CONFIG_NAME = "config"
SHARED = ("sweep", "n")  # a sweep has one of each


class Composer:
    """Composes configs from overrides. They share what they have in common, and are for reading only.

    Args:
        loader: Hydra's.
        hydra_overrides: such as `hydra.searchpath=...`, given to every composition.
        config_name: the primary config.
    """

    def __init__(self, loader: ConfigLoader, hydra_overrides: Sequence[str], *, config_name: str = CONFIG_NAME) -> None:
        self._files = Files(loader, hydra_overrides, config_name=config_name)
        self._parser = OverridesParser.create(config_loader=loader)
        self._ranges: dict[tuple[str, str], Range | Choices] = {}

    def configs(self, arguments: Sequence[str], *, one_trial: bool) -> Iterator[Config]:
        """The resolved configs that the overrides ask for, one by one; the first is composed before this returns.

        They are every combination of the values listed, the last one varying fastest, or what the `sweep.method` of the
        config makes of them. Of a search by Optuna, they are as many and of the same kind as it will choose.

        Args:
            arguments: overrides in Hydra's grammar; `sweep.params` of the config adds those of keys not given.
            one_trial: refuse lists of values, and leave `sweep.params` out.

        Raises:
            UsageError: a key, a value or an option is wrong; of later configs it is raised when they are asked for.
        """
        given = self._given(arguments)
        if one_trial:
            return iter([self._one(given, arguments)])
        strategy = self._strategy(given)
        if strategy.is_search and strategy.num_settings is None:
            raise UsageError("sweep.seconds: which trials these make shows when they run. Give n=50 to know it before.")
        configs = self._configs(given, strategy)
        return itertools.chain([next(configs)], configs)

    def strategy(self, arguments: Sequence[str]) -> Strategy:
        """How the trials of the sweep are chosen, and with which budget.

        Raises:
            UsageError: as for `configs`.
        """
        return self._strategy(self._given(arguments))

    def studies(self, arguments: Sequence[str]) -> list[Study]:
        """The studies of a grid or search, one for each combination of what is listed and not searched.

        Raises:
            UsageError: as for `configs`, but of the configs of a point only when they are asked for.
        """
        given = self._given(arguments)
        return list(self._studies(given, self._strategy(given)))

    def packages_named(self, arguments: Sequence[str]) -> list[str]:
        """The classes that overrides name as `<group>._target_=package.Class`: who types one allows it alone."""
        given = [override for override in self._given(arguments) if override.key.endswith("._target_")]
        return [str(value.value) for override in given for value in override.values if isinstance(value, Change)]

    def _one(self, given: Sequence[Given], arguments: Sequence[str]) -> Config:
        for override in given:
            if override.is_listed:
                raise UsageError(
                    f"{override.line}: `run` trains one trial, and this lists several values.\n"
                    f"Use: optbench sweep {' '.join(arguments)}"
                )
        config = self._compose([override.values[0] for override in given])
        if config.get("n") is not None:
            raise UsageError(f"n={config['n']}: `run` trains one trial; n is for sweep=random and sweep=optuna.")
        return config

    def _strategy(self, given: Sequence[Given]) -> Strategy:
        for override in given:
            if override.key.partition(".")[0] in SHARED and len(override.values) > 1:
                raise UsageError(
                    f"{override.key}: one sweep has one value for it, and {override.line} gives it several."
                )
        strategy = read_strategy(self._compose([override.values[0] for override in given if override.values]))
        if not strategy.is_search:
            for override in given:
                override.listed()
        return strategy

    def _configs(self, given: Sequence[Given], strategy: Strategy) -> Iterator[Config]:
        if strategy.has_studies:
            for study in self._studies(given, strategy):
                for point in points(study, strategy):
                    yield from study.configs(point)
            return
        params = self._params(given, strategy)
        if strategy.method is Method.ZIP:
            seeds = [override for override in given if override.key == "seed"]
            lists = [override for override in given if override.key != "seed"]
            chosen = zipped(lists, crossed=[*seeds, *params])
        elif strategy.settings:
            chosen = itertools.chain.from_iterable(
                combinations([*given, *self._setting(setting, given), *params]) for setting in strategy.settings
            )
        else:
            chosen = combinations([*given, *params])
        yield from map(self._compose, chosen)

    def _studies(self, given: Sequence[Given], strategy: Strategy) -> Iterator[Study]:
        if not strategy.has_studies:
            raise UsageError(f"sweep.method={strategy.method} has no studies; sweep=grid, random and optuna have.")
        given = [*given, *self._params(given, strategy)]
        return studies(given, strategy, compose=self._compose, parse_range=self._parse_range)

    def _params(self, given: Sequence[Given], strategy: Strategy) -> list[Given]:
        keys = {override.key for override in given}
        return self._given([f"{key}={value}" for key, value in strategy.params.items() if key not in keys])

    def _setting(self, setting: Mapping[str, Any], given: Sequence[Given]) -> list[Given]:
        """One of `sweep.settings`, less the keys that the command line gives."""
        keys = {override.key for override in given}
        lines = [
            f"{key}={value if _is_word(value) else spell(value)}" for key, value in setting.items() if key not in keys
        ]
        return self._given(lines)

    # From overrides to values.

    def _given(self, arguments: Sequence[str]) -> list[Given]:
        return [self._listed(override) for override in self._parse(arguments)]

    def _parse(self, arguments: Sequence[str]) -> list[Override]:
        try:
            return list(self._parser.parse_overrides(list(arguments)))
        except OverrideParseException as error:
            raise UsageError(
                f"{error.override}: not a valid override ({str(error.message).splitlines()[0]}).\n"
                "Write key=value, key=value,value or key=[value,value]; quote a value with blanks or brackets "
                "twice: 'key=\"a b\"'."
            ) from error

    def _listed(self, override: Override) -> Given:
        key, line = override.key_or_group, str(override.input_line)
        given = partial(Given, key=key, line=line, adds=_adds(override))
        if not override.is_sweep_override():
            return given(values=[self._value(override)], is_listed=False)
        swept: Any = override.value()
        if isinstance(swept, IntervalSweep):
            is_key = key != "seed" and not self._files.is_choice(override)
            return given(values=[], is_listed=True, searched=_range(swept, line=line) if is_key else None)
        values = list(self._values(override))
        if not values:
            raise UsageError(f"{line}: this lists no value.")
        is_searched = isinstance(swept, ChoiceSweep) and not swept.simple_form and key != "seed"
        options = [value.value for value in values if isinstance(value, Change)]
        searched = Choices(values=options) if is_searched and len(options) == len(values) else None
        return given(values=values, is_listed=True, searched=searched)

    def _values(self, override: Override) -> Iterator[Value]:
        """The override once for each value that it lists."""
        key = override.get_key_element()
        is_number = not override.is_delete() and not self._files.is_choice(override)
        for element in override.sweep_iterator():
            line = f"{key}={Transformer.str(element)}"
            if is_number and type(element) in (bool, int, float):  # spared the parser, of which there may be thousands
                yield Change(key=override.key_or_group, value=element, line=line, adds=_adds(override))
            else:
                yield self._value(self._parse([line])[0])

    def _value(self, override: Override) -> Value:
        if self._files.is_choice(override):
            return self._files.choice(override)
        return Change(
            key=override.key_or_group,
            value=override.value(),
            line=str(override.input_line),
            adds=_adds(override),
            deletes=override.is_delete(),
        )

    def _parse_range(self, key: str, value: Any) -> Range | Choices:
        """The space that a key's `range` in a search block describes, in Hydra's grammar."""
        if (key, str(value)) not in self._ranges:
            override = self._parse([f"{key}={value}"])[0]
            swept: Any = override.value()
            if not override.is_sweep_override():
                raise UsageError(f"optimizer.search: {key}={value} is no range. Write interval(0.1, 1.0), for example.")
            if isinstance(swept, IntervalSweep):
                self._ranges[key, str(value)] = _range(swept, line=f"optimizer.search: {key}={value}")
            else:
                listed = [value.value for value in self._values(override) if isinstance(value, Change)]
                self._ranges[key, str(value)] = Choices(values=listed)
        return self._ranges[key, str(value)]

    def _compose(self, values: Sequence[Value]) -> Config:
        composed = self._files.composed([value for value in values if isinstance(value, Choice)])
        return composed.changed([value for value in values if isinstance(value, Change)])


def _is_word(value: Any) -> bool:
    """Whether the value stands for itself in an override, such as the name of an option."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./-]*", value) is not None


def _adds(override: Override) -> bool:
    return override.is_add() or override.is_force_add()


def _range(swept: IntervalSweep, *, line: str) -> Range:
    """The range of an interval; Hydra makes its bounds floats unless they are cast, as in int(interval(1, 10))."""
    if unknown_tags := swept.tags - {"log"}:
        raise UsageError(f"{line}: {', '.join(sorted(unknown_tags))} says nothing about an interval; log does.")
    low, high = swept.start, swept.end
    assert low is not None
    assert high is not None
    return Range(low=low, high=high, log="log" in swept.tags, integer=type(low) is int and type(high) is int)
