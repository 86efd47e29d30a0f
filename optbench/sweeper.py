"""The Hydra sweeper: from raw overrides to trials, and from trials to stored results.

Hydra's own sweeper composes every config twice, checks overrides against the default optimizer, and has no notion of
a finished trial. This one gets the overrides as they were typed, composes once for each set of group choices, sets the
other keys, merges what is the same trial, and leaves out what the store has.
"""

import copy
import itertools
import re
import sys
import types
from collections.abc import Collection, Sequence
from typing import Any

import hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, OverrideParseException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationToMissingValueError, OmegaConfBaseException

from optbench.errors import UsageError, unknown
from optbench.keys import check_settable, typed, unknown_key
from optbench.sweep import carry_out

CONFIG_NAME = "config"
PLUGIN = "hydra_plugins.optbench"
ALLOW = "allow="


class OptbenchSweeper(Sweeper):
    """`hydra/sweeper: optbench`. Registered before `hydra.main`, so that no plugin has to be discovered.

    `arguments` and `num_failed` pass between this class and the command line, which Hydra stands between: Hydra would
    check the overrides of a sweep against the default config, where other optimizers' keys do not exist.
    """

    __module__ = PLUGIN

    arguments: Sequence[str] = ()
    one_trial: bool = False
    num_failed: int = 0

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what composes configs."""
        del task_function
        self._loader = hydra_context.config_loader
        self._hydra_overrides = list(config.hydra.overrides.hydra)
        self._config_name = str(config.hydra.job.config_name)

    def sweep(self, arguments: list[str]) -> None:
        """Plan, run what is missing, and show the table.

        Raises:
            UsageError: nothing has been trained.
        """
        del arguments  # Hydra's: without the overrides of the sweep
        given, prefixes = split_allowed(type(self).arguments)
        composer = Composer(self._loader, self._hydra_overrides, config_name=self._config_name)
        configs = composer.configs(given, one_trial=self.one_trial)
        prefixes += composer.packages_named(given)
        type(self).num_failed = carry_out(configs, overrides=type(self).arguments, allowed=prefixes)


def split_allowed(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides without `allow=package,...`, and the packages that these name: no config could allow any."""
    others = [argument for argument in arguments if not argument.startswith(ALLOW)]
    lists = [argument.removeprefix(ALLOW) for argument in arguments if argument.startswith(ALLOW)]
    return others, [name for given in lists for name in re.split(r"[\[\],\s]+", given) if name]


def hydra_version() -> dict[str, str]:
    """The argument by which Hydra is told what to be like: 1.4 warns where it is given, 1.3 where it is not."""
    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}


def register() -> None:
    """Make the sweeper known to Hydra.

    Hydra 1.3 takes plugins from the namespace `hydra_plugins` alone. This module gets a name there for this process,
    because a package that is really installed there is imported by every Hydra application on the machine.
    """
    plugins = Plugins.instance()
    namespace = sys.modules.setdefault("hydra_plugins", types.ModuleType("hydra_plugins"))
    sys.modules[PLUGIN] = sys.modules[__name__]
    setattr(namespace, PLUGIN.rpartition(".")[2], sys.modules[__name__])
    plugins.register(OptbenchSweeper)


class Composer:
    """Composes configs from overrides.

    Args:
        loader: Hydra's.
        hydra_overrides: such as `hydra.searchpath=...`, given to every composition.
        config_name: the primary config.
    """

    def __init__(self, loader: ConfigLoader, hydra_overrides: Sequence[str], *, config_name: str = CONFIG_NAME) -> None:
        self._loader = loader
        self._config_name = config_name
        self._hydra_overrides = list(hydra_overrides)
        self._parser = OverridesParser.create(config_loader=loader)
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._groups = set(loader.list_groups(""))  # asked once: Hydra copies all its sources for an answer

    def configs(self, arguments: Sequence[str], *, one_trial: bool) -> list[dict[str, Any]]:
        """The resolved config of every combination of the values that the overrides list, the last one varying fastest.

        Args:
            arguments: overrides in Hydra's grammar; `sweep.params` of the config adds those of keys not given.
            one_trial: refuse lists of values, and leave `sweep.params` out.
        """
        overrides = self._parse(arguments)
        swept = [override for override in overrides if override.is_sweep_override()]
        if one_trial and swept:
            raise UsageError(
                f"{swept[0].input_line}: `run` trains one trial, and this lists several values.\n"
                f"Use: optbench sweep {' '.join(arguments)}"
            )
        if not one_trial:
            given = {override.key_or_group for override in overrides}
            first = self._compose([next(iter(_values(override))) for override in overrides])
            params = {str(key): value for key, value in (OmegaConf.select(first, "sweep.params") or {}).items()}
            overrides += self._parse([f"{key}={value}" for key, value in params.items() if key not in given])
        combinations = itertools.product(*(_values(override) for override in overrides))
        return [_resolved(self._compose(combination)) for combination in combinations]

    def packages_named(self, arguments: Sequence[str]) -> list[str]:
        """The classes that overrides name as `<group>._target_=package.Class`: who types one allows it alone."""
        targets = [
            self._parse([line])[0].value()
            for override in self._parse(arguments)
            if override.key_or_group.endswith("._target_")
            for line in _values(override)
        ]
        return [str(target) for target in targets]

    def _parse(self, arguments: Sequence[str]) -> list[Override]:
        try:
            return list(self._parser.parse_overrides(list(arguments)))
        except OverrideParseException as error:
            raise UsageError(
                f"{error.override}: not a valid override ({str(error.message).splitlines()[0]}).\n"
                "Write key=value, key=value,value or key=[value,value]; quote a value with blanks or brackets "
                "twice: 'key=\"a b\"'."
            ) from error

    def _compose(self, arguments: Sequence[str]) -> DictConfig:
        overrides = self._parse(arguments)
        groups = [override for override in overrides if self._is_group(override)]
        key = tuple(self._line(group) for group in groups)
        if key not in self._composed:
            self._composed[key] = self._load(groups)
        config = copy.deepcopy(self._composed[key])
        scalars = [override for override in overrides if not any(override is group for group in groups)]
        # Of a class that is named here, the keys are checked against its signature instead.
        free = {parent for override in scalars for parent, _, key in [_split(override)] if key == "_target_"}
        for override in sorted(scalars, key=lambda override: _split(override)[2] != "_target_"):
            self._check_chosen(override, config, groups)
            _set(config, override, free=free)
        return config

    def _load(self, groups: Sequence[Override]) -> DictConfig:
        for group in groups:
            self._check_option(group)
        lines = [*self._hydra_overrides, *(self._line(group) for group in groups)]
        try:
            config = self._loader.load_configuration(self._config_name, overrides=lines, run_mode=RunMode.RUN)
        except (HydraException, OmegaConfBaseException) as error:
            raise UsageError(f"{' '.join(self._line(group) for group in groups)}: {error}") from error
        _check_one_source(config)
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        return config

    def _check_option(self, group: Override) -> None:
        if group.is_delete():
            return
        name = group.key_or_group
        if group.value() is None and not self._is_option_null(group):
            if not self._is_optional(name):
                raise UsageError(f"{group.input_line}: a group is not set to null; leave it out with ~{name}.")
            return
        value = "null" if group.value() is None else str(group.value())
        folder, _, option = f"{name}/{value}".rpartition("/")
        options = self._options(folder)
        if option not in options:
            folders = [
                f"{child}/{other}" for child in self._folders(name) for other in self._options(f"{name}/{child}")
            ]
            raise unknown(name, value, [*self._options(name), *folders])

    def _check_chosen(self, override: Override, config: DictConfig, groups: Sequence[Override]) -> None:
        """Refuse a key of a group of which nothing is chosen."""
        name, _, key = str(override.key_or_group).partition(".")
        if not key or name not in self._groups or config.get(name) is not None:
            return
        if any(group.key_or_group == name and group.value() is not None for group in groups):
            return  # an option without a node of its own, such as an experiment
        options = self._options(name)
        raise UsageError(
            f"{override.input_line}: no {name} is chosen.\nChoose an option first, as in {name}={options[0]}. "
            f"Allowed: {', '.join(options)}."
        )

    def _options(self, folder: str) -> list[str]:
        return list(
            self._loader.get_group_options(folder, config_name=self._config_name, overrides=self._hydra_overrides)
        )

    def _folders(self, group: str) -> list[str]:
        return list(
            self._loader.get_group_options(
                group, ObjectType.GROUP, config_name=self._config_name, overrides=self._hydra_overrides
            )
        )

    def _is_option_null(self, group: Override) -> bool:
        return not group.is_delete() and group.value() is None and "null" in self._options(group.key_or_group)

    def _is_optional(self, group: str) -> bool:
        """Whether nothing is chosen of the group where no override says so."""
        default = self._loader.load_configuration(
            self._config_name, overrides=self._hydra_overrides, run_mode=RunMode.RUN
        )
        choices = default.hydra.runtime.choices
        return group in choices and choices[group] is None

    def _line(self, group: Override) -> str:
        """The override as Hydra is to read it: an option that is called null needs quotes there, and no option a ~."""
        line = str(group.input_line)
        if not group.is_delete() and group.value() is None and not self._is_option_null(group):
            return f"~{group.key_or_group}"
        return f"{line.partition('=')[0]}='null'" if self._is_option_null(group) else line

    def _is_group(self, override: Override) -> bool:
        name = override.key_or_group
        return (
            override.package is not None
            or "/" in name
            or (name in self._groups and not isinstance(override.value(), dict))
        )


def _check_one_source(config: DictConfig) -> None:
    """Refuse an option that several folders have: Hydra would take the first one's, without a word."""
    runtime = config.hydra.runtime
    for group, option in runtime.choices.items():
        name = f"{str(group).partition('@')[0]}/{option}"
        found = []
        for place in runtime.config_sources:
            address = f"{place.schema}://{place.path}"
            source = SourcesRegistry.instance().resolve(place.schema)(provider=place.provider, path=address)
            if option is not None and source.is_config(name):
                found.append(f"{place.path}/{name}.yaml" if place.schema == "file" else f"{address}/{name}.yaml")
        if len(found) > 1:
            raise UsageError(
                f"{found[-1]}: {group}={option} is {found[0]} already, and this file would not be read.\n"
                "Rename it, and give it the same new name inside."
            )


def _values(override: Override) -> list[str]:
    """The override once for each value that it lists."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if not override.is_discrete_sweep():
        raise UsageError(
            f"{override.input_line}: an interval has no values to run through.\n"
            f"List them, as {override.key_or_group}=0.001,0.01 or {override.key_or_group}=range(5)."
        )
    values = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    if not values:
        raise UsageError(f"{override.input_line}: this lists no value.")
    return values


def _resolved(config: DictConfig) -> dict[str, Any]:
    try:
        return _plain(config, resolve=True)
    except InterpolationToMissingValueError as error:
        key = str(error.msg).splitlines()[0].rpartition(" ")[2]
        example = "my_package.MyClass" if key.endswith("._target_") else "..."
        raise UsageError(f"{key} has no value yet: give it one, as in {key}={example}") from error
    except InterpolationKeyError as error:
        path, _, last = (re.findall(r"'([^']+)' not found", str(error.msg)) or [""])[0].rpartition(".")
        table = OmegaConf.select(config, path) if "." in path else None
        if isinstance(table, DictConfig):  # a value chosen by another one, such as a rate by the size of a model
            raise unknown("value", last, map(str, table), where=f"for what {error.full_key} depends on") from error
        raise UsageError(f"{error.full_key}: {error.msg}") from error
    except OmegaConfBaseException as error:
        raise UsageError(f"{error.full_key}: {error.msg}") from error


def _plain(config: DictConfig, *, resolve: bool = False) -> dict[str, Any]:
    container = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _split(override: Override) -> tuple[str, str, str]:
    return str(override.key_or_group).rpartition(".")


def _set(config: DictConfig, override: Override, *, free: Collection[str] = ()) -> None:
    """Set, add or delete one key; a key that exists keeps its type, and one that does not needs a `+`.

    Args:
        config: changed in place.
        override: what is set.
        free: nodes to which any key may be added without the `+`.
    """
    key, value = override.key_or_group, override.value()
    check_settable(key, line=str(override.input_line))
    parent, _, last = _split(override)
    node: Any = OmegaConf.select(config, parent) if parent else config
    known = [str(name) for name in node] if isinstance(node, DictConfig) else []
    exists = last in known
    adds = override.is_add() or override.is_force_add() or (parent in free and not override.is_delete())
    if not isinstance(node, DictConfig) or (not exists and not adds):
        raise unknown_key(_plain(config), key, line=str(override.input_line))
    if override.is_delete():
        del node[last]
        return
    if value is None and parent.endswith(".preset"):
        value = "null"  # the tables have no such size, and say which they have
    node[last] = typed(value, _plain(node)[last], key=key) if exists else value
