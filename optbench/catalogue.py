"""What can be chosen: the config files, described by the comment that each opens with."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import yaml

GROUPS = ("optimizer", "task", "data", "schedule", "hardware", "logger", "sweep", "experiment")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One option of a config group.

    Attributes:
        name: what follows `group=`.
        description: the first line of the file's comment.
        conventions: of an optimizer: what its momentum, weight decay and eps mean.
    """

    name: str
    description: str
    conventions: Mapping[str, str]


def names(group: str) -> list[str]:
    """The names of a group's options."""
    files_of_group = files("optbench.conf").joinpath(group).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files_of_group if file.name.endswith(".yaml"))


def entries(group: str) -> list[Entry]:
    """The options of a config group that come with optbench, by name."""
    found = []
    for name in names(group):
        text = files("optbench.conf").joinpath(group, f"{name}.yaml").read_text()
        conventions = (yaml.safe_load(text) or {}).get("convention") or {}
        found.append(Entry(name=name, description=describe(text), conventions=conventions))
    return found


def describe(text: str) -> str:
    """The first line of the comment at the head of a YAML file, Hydra's directives aside."""
    comment = [line for line in text.splitlines() if line.startswith("#") and not line.startswith("# @")]
    return comment[0].removeprefix("#").strip() if comment else ""
