"""A suite: what a regression run measures, as its file in conf/nightly declares it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optbench import shelf
from optbench.catalogue import SUITE
from optbench.entries import as_text, as_texts, as_word, check_keys, parsed_mapping
from optbench.errors import UsageError
from optbench.parsing import parse_mapping, parse_value

_KEYS = ("name", "title", "cost", "needs", "trials", "steps", "time", "benchmarks")
# What a run sets by itself.
_OURS = ("sweep", "results", "logger", "executor", "cost", "claims", "figures", "n")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What is measured each time.

    Attributes:
        name: of the file.
        title: what it is for, in a line.
        minutes: that a run takes against a stored baseline; None where nobody has measured it.
        machine: on which that was measured.
        needs: `cuda` where a GPU is needed.
        trials: sweeps by name, as overrides, whose final losses are compared seed by seed.
        steps: the same of trials whose optimizers take single steps: for bytes, operations and seconds.
        num_pairs: processes of each side that time the steps, in turn; 0 times nothing.
        seconds: for each step in each process.
        benchmarks: a file of pytest-benchmark that times the steps instead; None times them without it.
        digest: SHA-256 of the file.
    """

    name: str
    title: str
    minutes: float | None
    machine: str
    needs: Literal["cuda"] | None
    trials: Mapping[str, Sequence[str]]
    steps: Mapping[str, Sequence[str]]
    num_pairs: int
    seconds: float
    benchmarks: str | None
    digest: str


def names(folder: Path | None = None) -> list[str]:
    """The names of all suites.

    Args:
        folder: of configs, whose `nightly/` counts too; None takes those that come with optbench.
    """
    return shelf.names(SUITE, folder)


def find(name: str, folder: Path | None = None) -> Suite:
    """A suite by its name; one of the folder comes before one of optbench.

    Raises:
        UsageError: there is none of that name, or its file is wrong.
    """
    return shelf.find(SUITE, name, lambda text, where: read(text, where=where), folder=folder, kind="suite")


def read(text: str, *, where: str) -> Suite:
    """A suite from the text of its file.

    Raises:
        UsageError: it is no YAML, or a key is unknown, missing or of the wrong type; names it by its full path.
    """
    given = {**dict.fromkeys(("needs", "trials", "steps", "time", "benchmarks")), **parsed_mapping(text, where=where)}
    check_keys(given, _KEYS, where=where)
    for key in ("name", "title", "cost"):
        if key not in given:
            raise UsageError(f"{where}: {key} is missing.")
    cost = parse_mapping(given["cost"], where=f"{where}: cost")
    check_keys(cost, ("minutes", "machine"), where=f"{where}: cost")
    trials, steps = (_sweeps(given[key], where=f"{where}: {key}") for key in ("trials", "steps"))
    if not trials and not steps:
        raise UsageError(f"{where}: it declares neither trials nor steps, so that there is nothing to measure.")
    num_pairs, seconds = _time(given["time"], where=f"{where}: time")
    if num_pairs and not steps:
        raise UsageError(f"{where}: time is of steps, and it declares none.")
    return Suite(
        name=as_word(given["name"], where=f"{where}: name"),
        title=as_text(given["title"], where=f"{where}: title"),
        minutes=parse_value(cost.get("minutes"), float | None, where=f"{where}: cost.minutes"),
        machine=as_text(cost.get("machine"), where=f"{where}: cost.machine"),
        needs=parse_value(given["needs"], Literal["cuda"] | None, where=f"{where}: needs"),
        trials=trials,
        steps=steps,
        num_pairs=num_pairs,
        seconds=seconds,
        benchmarks=parse_value(given["benchmarks"], str | None, where=f"{where}: benchmarks"),
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def _sweeps(content: Any, *, where: str) -> dict[str, list[str]]:
    found = {}
    for name, lines in parse_mapping(content or {}, where=where).items():
        place = f"{where}.{name}"
        found[as_word(name, where=place)] = overrides = as_texts(lines, where=place)
        if not overrides:
            raise UsageError(f"{place}: it lists no override; at least the task and the optimizers are needed.")
        for line in overrides:
            if (key := line.lstrip("+~").partition("=")[0].partition(".")[0]) in _OURS:
                raise UsageError(f"{place}: {line}: a regression run sets {key} by itself; leave this out.")
    return found


def _time(content: Any, *, where: str) -> tuple[int, float]:
    if content is None:
        return 0, 0.0
    given = parse_mapping(content, where=where)
    check_keys(given, ("num_pairs", "seconds"), where=where)
    num_pairs: int = parse_value(given.get("num_pairs"), int, where=f"{where}.num_pairs")
    seconds: float = parse_value(given.get("seconds"), float, where=f"{where}.seconds")
    if num_pairs < 3:
        raise UsageError(f"{where}.num_pairs={num_pairs}: at least 3, since a single process may be unlucky.")
    if not 0.0 < seconds < 60.0:
        raise UsageError(f"{where}.seconds={seconds:g}: above 0 and below 60.")
    return num_pairs, seconds
