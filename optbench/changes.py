"""Changes of a composed config, key by key, in plain containers.

A sweep changes few keys of the same config many times. Each config is made by copying the mappings on the way to what
changes and sharing everything else, and each part of it is made once for the same changes; so neither time nor memory
grows with what stays. Configs are therefore for reading only.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from optbench.errors import UsageError
from optbench.keys import check_settable, typed, unknown_key

Config = dict[str, Any]
EVERYTHING = ""  # as the path of what an interpolation reads
MAX_KEPT = 10_000  # changed parts, to be shared with the configs to come


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """What an override with a single value does to a config; told from another one by identity.

    Attributes:
        key: with dots.
        value: what the key becomes.
        line: the override, for messages.
        adds: the key may be new (`+` or `++`).
        deletes: the key goes (`~`).
    """

    key: str
    value: Any
    line: str
    adds: bool = False
    deletes: bool = False

    @property
    def part(self) -> str:
        """The top-level key that it is in."""
        return self.key.partition(".")[0]

    @property
    def parent(self) -> str:
        """The key of the mapping that it is in; empty for a top-level key."""
        return self.key.rpartition(".")[0]

    @property
    def names_class(self) -> bool:
        """Whether it names the class of a component, against whose signature the component's keys are then checked."""
        return self.key.rpartition(".")[2] == "_target_"


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """What an override chooses of a group.

    Attributes:
        key: the group.
        option: None where nothing is chosen of it.
        line: the override, for messages.
        hydra_line: the override, for Hydra.
    """

    key: str
    option: str | None
    line: str
    hydra_line: str


class Composed:
    """A config as it is composed from files, to be changed.

    Args:
        written: with its interpolations.
        resolve: returns it without; raises UsageError where that cannot be.
        check: raises UsageError if a change of a part that has this value makes no sense.
        free: mappings to which any key may be added without a `+`.
    """

    def __init__(
        self,
        written: Config,
        *,
        resolve: Callable[[Config], Config],
        check: Callable[[Change, Any], None],
        free: Collection[str] = (),
    ) -> None:
        self._written = written
        self._resolve = resolve
        self._check = check
        self._free = frozenset(free)
        self._is_plain = not any(True for _ in _interpolated(written))
        self._read = _paths_read(written)
        self._parts: dict[tuple[Change, ...], Config] = {}
        self._settled: dict[tuple[Change, ...], Composed] = {}

    def changed(self, changes: Sequence[Change]) -> Config:
        """The resolved config after these changes; it shares what it has in common with others.

        Raises:
            UsageError: a key does not exist, its value has another type, or an interpolation leads nowhere.
        """
        if any(change.names_class for change in changes):
            changes = sorted(changes, key=lambda change: not change.names_class)
        first = tuple(self._read_by_others(changes))
        if not first:
            return self._merged(changes)
        if first not in self._settled:
            if len(self._settled) >= MAX_KEPT:
                self._settled.clear()
            free = self._free | {change.parent for change in first if change.names_class}
            self._settled[first] = Composed(self._with(first), resolve=self._resolve, check=self._check, free=free)
        return self._settled[first]._merged([change for change in changes if change not in first])

    @cached_property
    def _resolved(self) -> Config:
        return self._written if self._is_plain else self._resolve(self._written)

    def _read_by_others(self, changes: Sequence[Change]) -> list[Change]:
        """The changes that interpolations depend on, or bring: those come first, and what follows is plain."""
        plain = [not any(True for _ in _interpolated(change.value)) for change in changes]
        if not self._read and all(plain):
            return []
        read = {*self._read, *(path for change in changes for path in _paths_read(change.value))}
        chosen: set[Change] = {change for change, is_plain in zip(changes, plain, strict=True) if not is_plain}
        while True:
            paths = read | {change.key for change in chosen}
            more = {change for change in changes if any(_overlap(change.key, path) for path in paths)}
            if more <= chosen:
                return [change for change in changes if change in chosen]
            chosen |= more

    def _merged(self, changes: Sequence[Change]) -> Config:
        """The config after changes that no interpolation depends on."""
        try:
            base = self._resolved
        except UsageError:  # unless what has no value is changed
            return self._resolve(self._with(changes))
        if not changes:
            return base
        by_part: dict[str, list[Change]] = {}
        for change in changes:
            by_part.setdefault(change.part, []).append(change)
        config = dict(base)
        for part, own in by_part.items():
            key = tuple(own)
            found = self._parts.get(key)
            if found is None:
                trees = [self._written] if self._is_plain else [self._written, base]
                own_trees = [{part: tree[part]} if part in tree else {} for tree in trees]
                if len(self._parts) >= MAX_KEPT:
                    self._parts.clear()
                found = self._parts[key] = self._applied(own, own_trees)[-1]
            if part in found:
                config[part] = found[part]
            else:
                config.pop(part, None)
        return config

    def _with(self, changes: Sequence[Change]) -> Config:
        """The config after these changes, as it is written."""
        return self._applied(changes, [self._written])[0]

    def _applied(self, changes: Sequence[Change], trees: Sequence[Config]) -> list[Config]:
        """These trees, changed alike; the first one, as it is written, says of which type a value has to be."""
        free = self._free | {change.parent for change in changes if change.names_class}
        for change in changes:
            self._check(change, trees[0].get(change.part))
            value = self._checked(change, trees[0], free=free)
            path = change.key.split(".")
            trees = [_put(tree, path, value) for tree in trees]
        return list(trees)

    def _checked(self, change: Change, written: Config, *, free: Collection[str]) -> Any:
        """The value that the key gets: of the type it has, if it exists; otherwise it has to be one that may be added.

        Args:
            change: what is asked for.
            written: the part of the config that it is in, or all of it.
            free: as above.
        """
        check_settable(change.key, line=change.line)
        *parents, last = change.key.split(".")
        node: Any = written
        for name in parents:
            node = node.get(name) if isinstance(node, dict) else None
        exists = isinstance(node, dict) and last in node
        adds = change.adds or (change.parent in free and not change.deletes)
        if not isinstance(node, dict) or not (exists or adds):
            raise unknown_key({**self._written, **written}, change.key, line=change.line)
        if change.deletes:
            return _GONE
        # The tables of a preset have no such size, and then it is said which they have.
        value = "null" if change.value is None and change.parent.endswith(".preset") else change.value
        return typed(value, node[last], key=change.key) if exists else value


_GONE = object()


def _put(tree: Config, path: Sequence[str], value: Any) -> Config:
    """The tree with another value at this path, or without it; only the mappings on the way are new."""
    first, *rest = path
    changed = dict(tree)
    if rest:
        changed[first] = _put(tree[first], rest, value)
    elif value is _GONE:
        del changed[first]
    else:
        changed[first] = value
    return changed


def _interpolated(node: Any) -> Iterator[str]:
    """The texts in a container, or the text itself, that have an interpolation."""
    if isinstance(node, str):
        if "${" in node:
            yield node
    elif isinstance(node, Mapping):
        for item in node.values():
            yield from _interpolated(item)
    elif isinstance(node, Sequence):
        for item in node:
            yield from _interpolated(item)


def _paths_read(node: Any) -> set[str]:
    """The keys on which the interpolations in a container depend, as far as they are spelt out."""
    found = set()
    for text in _interpolated(node):
        for match in _INTERPOLATION.finditer(text):
            path, end = match["path"], match["end"]
            if path == "oc.env" and end == ":":
                continue
            if end == "$":  # `${a.b_${c}}` is something in a
                found.add(path.rpartition(".")[0])
            else:
                found.add(path if end in ("}", ",") and not path.startswith(".") else EVERYTHING)
    return found


# `${a.b}`, `${a.${b}}`, `${oc.select:a.b,0.1}`; what other resolvers read is not known.
_INTERPOLATION = re.compile(r"\$\{\s*(?:oc\.select:\s*)?(?P<path>[\w./-]*)\s*(?=(?P<end>.?))", re.DOTALL)


def _overlap(key: str, path: str) -> bool:
    """Whether a change of the key changes what is read at the path."""
    return path == EVERYTHING or f"{key}.".startswith(f"{path}.") or f"{path}.".startswith(f"{key}.")
