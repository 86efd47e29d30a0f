"""What can be chosen: the config files, described by the comment that each opens with."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import yaml

GROUPS = (
    "optimizer",
    "param_groups",
    "task",
    "data",
    "model",
    "schedule",
    "hardware",
    "executor",
    "logger",
    "sweep",
    "experiment",
)
# What `optbench reproduce` takes: no group that a config is composed of.
PAPER = "paper"
# The same of `optbench regress`.
SUITE = "nightly"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One option of a config group.

    Attributes:
        name: what follows `group=`.
        description: the first line of the file's comment.
        header: the whole comment, in one line.
        config: what the file sets in its group, before anything is filled in.
    """

    name: str
    description: str
    header: str
    config: Mapping[str, Any]

    @property
    def source(self) -> str:
        """The first address in the comment; empty where there is none."""
        found = re.search(r"https?://(?:[^\s,;()]|\([^\s,;()]*\))+", self.header)
        return found.group().rstrip(".:") if found else ""

    @property
    def package(self) -> str:
        """The package that the target comes from."""
        target = str(self.config.get("_target_", ""))
        return ".".join(target.split(".")[:2]) if target.startswith("torch.") else target.partition(".")[0]

    @property
    def conventions(self) -> Mapping[str, str]:
        """Of an optimizer: what its momentum, weight decay and eps mean."""
        return self.config.get("convention") or {}

    @property
    def capabilities(self) -> list[str]:
        """Of an optimizer: what it needs that SGD does not."""
        return list(self.config.get("capabilities") or [])

    @property
    def limits(self) -> Mapping[str, str]:
        """Of an optimizer: what does not work with it, and why."""
        return self.config.get("limits") or {}

    @property
    def state_bytes_per_parameter(self) -> float | None:
        """Of an optimizer: its state on an MLP 784-100-100-10 in float32; None where it has no entry."""
        return self.config.get("state_bytes_per_parameter")


def names(group: str) -> list[str]:
    """The names of a group's options, those in its folders last."""
    return [name for name, _ in _files(group)]


def entries(group: str) -> list[Entry]:
    """The options of a config group that come with optbench, by name."""
    return [_entry(name, file.read_text(), group=group) for name, file in _files(group)]


def entry(group: str, name: str) -> Entry | None:
    """One option that comes with optbench; None where there is none of that name."""
    found = next((file for other, file in _files(group) if other == name), None)
    return None if found is None else _entry(name, found.read_text(), group=group)


def describe(text: str) -> str:
    """The first line of the comment at the head of a YAML file, Hydra's directives aside."""
    comment = _comment(text)
    return comment[0] if comment else ""


def _files(group: str) -> list[tuple[str, Traversable]]:
    return sorted(_walk(files("optbench.conf").joinpath(group)), key=lambda found: (found[0].count("/"), found[0]))


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for file in folder.iterdir():
        if file.is_dir():
            yield from _walk(file, f"{prefix}{file.name}/")
        elif file.name.endswith(".yaml"):
            yield prefix + file.name.removesuffix(".yaml"), file


def _entry(name: str, text: str, *, group: str) -> Entry:
    config = yaml.safe_load(text) or {}
    own = config[group] if "@package _global_" in text and isinstance(config.get(group), dict) else config
    return Entry(name=name, description=describe(text), header=" ".join(_comment(text)), config=own)


def _comment(text: str) -> list[str]:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return [line for line in lines if not line.startswith("@")]
