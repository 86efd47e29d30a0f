"""The trials of a paper: composed, run as far as they are missing, and read back."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optbench.curve_claims import Record
from optbench.errors import UsageError
from optbench.papers.outcome import SaidOutcome
from optbench.papers.paper import Paper, PaperSweep
from optbench.trial import Trial

Config = Mapping[str, Any]
Compose = Callable[[Sequence[str]], Sequence[Config]]
NO_GPU = "a CUDA GPU is needed, and there is none here; hardware=cpu runs it all the same, and takes hours"
RERUN = "sweep.rerun"  # what --rerun stands for
# What a reproduction decides by itself.
_OURS = ("sweep", "claims", "figures", "n")
# What says where and how trials run, and not which: keys, and parts of the config.
_HOW = frozenset({"results", "executor", "hardware", "logger", "data.path", RERUN})
_HOW_PARTS = ("executor.", "limits.", "logger.", "checkpoint.")


@dataclass(frozen=True, kw_only=True)
class Typed:
    """What the command line says of a reproduction.

    Attributes:
        overrides: that take the place of the paper's own with the same keys, in all its sweeps.
        is_quick: whether the quick subset will do.
        command: what was typed after `optbench`.
        allowed: packages that configs may call besides those of the catalogue.
    """

    overrides: Sequence[str]
    is_quick: bool
    command: Sequence[str]
    allowed: Sequence[str]

    @property
    def changes(self) -> list[str]:
        """The overrides that make it another question than the paper's; where and how it is run does not."""
        keys = {line: key_of(line) for line in self.overrides}
        return [line for line, key in keys.items() if key not in _HOW and not key.startswith(_HOW_PARTS)]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What a reproduction asks for.

    Attributes:
        paper: which.
        sweeps: the configs of each sweep that can be run here.
        missing: those of the others.
        reasons: why not, a sentence each.
    """

    paper: Paper
    sweeps: Sequence[Sequence[Config]]
    missing: Sequence[Config]
    reasons: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What there is of a paper's trials.

    Attributes:
        records: of those that have a result.
        said: claims of the experiments that they are from.
        reasons: why some could not be run, a sentence each.
        missing: the configs of those without a result, as records that have nothing else.
        written: files that the experiments have drawn.
    """

    records: Sequence[Record]
    said: Sequence[SaidOutcome]
    reasons: Sequence[str]
    missing: Sequence[Record]
    written: Sequence[str]


def store_name(paper: Paper) -> str:
    """The sweep that a paper's trials are stored in."""
    return f"paper_{paper.name}"


def plan(paper: Paper, typed: Typed, compose: Compose) -> Planned:
    """Compose all that a reproduction asks for; nothing is run.

    Args:
        paper: what to reproduce.
        typed: how.
        compose: configs from overrides.

    Raises:
        UsageError: an override is wrong, or would change nothing.
    """
    for line in typed.overrides:
        if (key := key_of(line).partition(".")[0]) in _OURS and key_of(line) != RERUN:
            raise UsageError(f"{line}: a reproduction sets {key} by itself; leave this out.")
    if typed.changes and not paper.sweeps:
        raise UsageError(f"{typed.changes[0]}: {paper.name} is computed, without trials; leave this out.")
    has_gpu = _has_gpu() or any(key_of(line) == "hardware" for line in typed.overrides)
    sweeps: list[Sequence[Config]] = []
    missing: list[Config] = []
    for sweep in paper.sweeps:
        if typed.is_quick and sweep.quick is None:
            continue
        configs = compose(overrides_of(sweep, typed))
        if sweep.needs == "cuda" and not has_gpu:
            missing += configs
        else:
            sweeps.append(configs)
    return Planned(paper=paper, sweeps=sweeps, missing=missing, reasons=[NO_GPU] if missing else [])


def run(planned: Planned, typed: Typed, *, results: Path) -> Trials:
    """Run what is missing, and read all of it.

    Args:
        planned: what is asked for.
        typed: how.
        results: the folder of all sweeps.

    Raises:
        UsageError: the store cannot be written to.
        Interrupted: a signal ended it; what had finished is stored.
    """
    from optbench.papers import experiments
    from optbench.store import Store

    there, refused = _run(planned.paper, planned.sweeps, typed) if planned.sweeps else ([], {})
    missing = [*planned.missing, *(config for place in refused for config in planned.sweeps[place])]
    store = Store(results, store_name(planned.paper))
    records: dict[str, Record] = {}
    said, written = [], []
    for configs in there:
        by_id = {Trial.from_config(config).id: config for config in configs}
        found = {one: record for one in by_id if (record := store.read(one)) is not None}
        missing += [config for one, config in by_id.items() if one not in found]
        records |= found
        said += experiments.said(configs[0], list(found.values()))
        written += experiments.drawn(configs[0], list(found.values()), store)
    return Trials(
        records=list(records.values()),
        said=said,
        reasons=list(dict.fromkeys([*planned.reasons, *refused.values()])),
        missing=[{"config": config} for config in missing],
        written=written,
    )


def overrides_of(sweep: PaperSweep, typed: Typed) -> list[str]:
    """The overrides of a sweep, with those that take their places."""
    found = list(sweep.overrides)
    for others in (sweep.quick if typed.is_quick and sweep.quick else (), typed.overrides):
        taken = {key_of(line) for line in others}
        found = [line for line in found if key_of(line) not in taken] + list(others)
    return found


def key_of(line: str) -> str:
    """The key of an override."""
    return re.split(r"[=@]", line.lstrip("+~"))[0]


def _run(
    paper: Paper, composed: Sequence[Sequence[Config]], typed: Typed
) -> tuple[list[Sequence[Config]], Mapping[int, str]]:
    """Run all sweeps as one; where something that a machine may lack stops that, each by itself.

    Returns:
        The sweeps that could be run, and by their places why others could not.
    """
    ours = [[_ours(config, paper) for config in configs] for configs in composed]
    refused: dict[int, str] = {}
    try:
        _carry_out([config for configs in ours for config in configs], typed)
    except UsageError as error:
        if len(ours) == 1:
            return [], {0: _sentence(error)}
        for place, configs in enumerate(ours):
            try:
                _carry_out(configs, typed)
            except UsageError as its_error:
                refused[place] = _sentence(its_error)
        if left := [config for place, configs in enumerate(ours) if place not in refused for config in configs]:
            once = {**left[0]["sweep"], "rerun": []}
            _carry_out([{**config, "sweep": once} for config in left], typed)  # all is done, and in one plan
    return [configs for place, configs in enumerate(composed) if place not in refused], refused


def _carry_out(configs: Sequence[Config], typed: Typed) -> None:
    from optbench.sweep import carry_out

    carry_out(configs, overrides=typed.overrides, command=typed.command, allowed=typed.allowed, shows_table=False)


def _ours(config: Config, paper: Paper) -> Config:
    """The config in one sweep with the paper's others, without costs, which take longer than most of its trials."""
    sweep = {"name": store_name(paper), "rerun": config["sweep"].get("rerun") or []}
    return {**config, "sweep": sweep, "claims": None, "figures": None, "cost": {"seconds": None}}


def _has_gpu() -> bool:
    from optbench.executors.devices import gpus

    return bool(gpus())


def _sentence(error: UsageError) -> str:
    return " ".join(str(error).split()).rstrip(".")
