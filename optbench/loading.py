"""Configs from files: which options a group has, and what Hydra composes of those chosen."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationToMissingValueError, OmegaConfBaseException

from optbench.changes import Change, Choice, Composed, Config
from optbench.errors import UsageError, unknown
from optbench.secrets import check_config


class Files:
    """The config files that Hydra finds.

    Args:
        loader: Hydra's.
        hydra_overrides: such as `hydra.searchpath=...`, given to every composition.
        config_name: the primary config.
    """

    def __init__(self, loader: ConfigLoader, hydra_overrides: Sequence[str], *, config_name: str) -> None:
        self._loader = loader
        self._hydra_overrides = list(hydra_overrides)
        self._config_name = config_name
        self._groups = set(loader.list_groups(""))  # asked once: Hydra copies all its sources for an answer
        self._options: dict[tuple[str, ObjectType], list[str]] = {}
        self._composed: dict[tuple[str, ...], Composed] = {}

    def composed(self, choices: Sequence[Choice]) -> Composed:
        """The config of these choices, to be changed; composed once.

        Raises:
            UsageError: an option does not exist, or not alone; or the files do not go together.
        """
        key = tuple(choice.hydra_line for choice in choices)
        if key not in self._composed:
            check = partial(self._check_chosen, choices=choices)
            self._composed[key] = Composed(self._load(key), resolve=_resolved, check=check)
        return self._composed[key]

    def is_choice(self, override: Override) -> bool:
        """Whether the override chooses of a group, where another one sets a key."""
        name = override.key_or_group
        if override.package is not None or "/" in name:
            return True
        return name in self._groups and (override.is_sweep_override() or not isinstance(override.value(), dict))

    def choice(self, override: Override) -> Choice:
        """What the override chooses.

        Raises:
            UsageError: there is no such option.
        """
        name, line, value = override.key_or_group, str(override.input_line), override.value()
        if override.is_delete():
            return Choice(key=name, option=None, line=line, hydra_line=line)
        if value is None and "null" in self._names(name):  # to Hydra, an option that is called null needs quotes
            return Choice(key=name, option="null", line=line, hydra_line=f"{line.partition('=')[0]}='null'")
        if value is None:  # and no option a ~
            if not self._is_optional(name):
                raise UsageError(f"{line}: a group is not set to null; leave it out with ~{name}.")
            return Choice(key=name, option=None, line=line, hydra_line=f"~{name}")
        folder, _, option = f"{name}/{value}".rpartition("/")
        if option not in self._names(folder):
            folders = self._names(name, ObjectType.GROUP)
            nested = [f"{child}/{other}" for child in folders for other in self._names(f"{name}/{child}")]
            raise unknown(name, str(value), [*self._names(name), *nested])
        return Choice(key=name, option=str(value), line=line, hydra_line=line)

    def _load(self, lines: Sequence[str]) -> Config:
        overrides = [*self._hydra_overrides, *lines]
        try:
            config = self._loader.load_configuration(self._config_name, overrides=overrides, run_mode=RunMode.RUN)
        except (HydraException, OmegaConfBaseException) as error:
            raise UsageError(f"{' '.join(lines)}: {error}") from error
        _check_one_source(config)
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        written = _plain(config, resolve=False)
        check_config(written)  # as it is written, a config says which variables of the environment it asks for
        return written

    def _check_chosen(self, change: Change, node: Any, *, choices: Sequence[Choice]) -> None:
        """Refuse a key of a group of which nothing is chosen.

        Args:
            change: of the key.
            node: what the config has of the group.
            choices: those made.
        """
        name, _, key = change.key.partition(".")
        if not key or name not in self._groups or node is not None:
            return
        if any(choice.key == name and choice.option is not None for choice in choices):
            return  # an option without a node of its own, such as an experiment
        options = self._names(name)
        raise UsageError(
            f"{change.line}: no {name} is chosen.\nChoose an option first, as in {name}={options[0]}. "
            f"Allowed: {', '.join(options)}."
        )

    def _names(self, folder: str, kind: ObjectType = ObjectType.CONFIG) -> list[str]:
        if (folder, kind) not in self._options:
            found = self._loader.get_group_options(
                folder, kind, config_name=self._config_name, overrides=self._hydra_overrides
            )
            self._options[folder, kind] = list(found)
        return self._options[folder, kind]

    def _is_optional(self, group: str) -> bool:
        """Whether nothing is chosen of the group where no override says so."""
        default = self._loader.load_configuration(
            self._config_name, overrides=self._hydra_overrides, run_mode=RunMode.RUN
        )
        choices = default.hydra.runtime.choices
        return group in choices and choices[group] is None


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


def _resolved(written: Config) -> Config:
    config = OmegaConf.create(written)
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


def _plain(config: DictConfig, *, resolve: bool) -> Config:
    container = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
