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


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What there is of a paper's trials.

    Attributes:
        records: of those that have a result.
        said: claims of the experiments that they are from.
        reasons: why some could not be run, a sentence each.
        missing: the configs of those, as records that have nothing else.
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


def run(paper: Paper, typed: Typed, compose: Compose, *, results: Path) -> Trials:
    """Run what is missing, and read all of it.

    Args:
        paper: what to reproduce.
        typed: how.
        compose: configs from overrides.
        results: the folder of all sweeps.

    Raises:
        UsageError: an override is wrong, and nothing has been trained; or the store cannot be written to.
        Interrupted: a signal ended it; what had finished is stored.
    """
    from optbench.store import Store

    for line in typed.overrides:
        if (key := key_of(line).partition(".")[0]) in _OURS and key_of(line) != RERUN:
            raise UsageError(f"{line}: a reproduction sets {key} by itself; leave this out.")
    has_gpu = _has_gpu() or any(key_of(line) == "hardware" for line in typed.overrides)
    runnable: list[Sequence[Config]] = []  # by sweep
    missing: list[Config] = []
    reasons: list[str] = []
    for sweep in paper.sweeps:
        if typed.is_quick and sweep.quick is None:
            continue
        configs = compose(overrides_of(sweep, typed))
        if sweep.needs == "cuda" and not has_gpu:
            missing += configs
            reasons.append(NO_GPU)
        else:
            runnable.append(configs)
    there, refused = _run(paper, runnable, typed) if runnable else ([], {})
    missing += [config for place in refused for config in runnable[place]]
    reasons += refused.values()
    store = Store(results, store_name(paper))
    records: dict[str, Record] = {}
    said, written = [], []
    for configs in there:
        ids = dict.fromkeys(Trial.from_config(config).id for config in configs)
        own = [record for one in ids if (record := store.read(one)) is not None]
        records |= {record["id"]: record for record in own}
        said += _said(configs[0], own)
        written += _drawn(configs[0], own, store)
    return Trials(
        records=list(records.values()),
        said=said,
        reasons=list(dict.fromkeys(reasons)),
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


def _said(config: Config, records: Sequence[Record]) -> list[SaidOutcome]:
    """The claims of the experiment that a config is from."""
    if not config.get("claims"):
        return []
    from optbench import claims as memory_claims
    from optbench.curve_claims import curve_claims
    from optbench.curve_claims import table as curve_table

    asked = curve_claims(config["claims"])
    lines = curve_table(asked, records).to_dict("records")
    found = [
        SaidOutcome(
            id=claim.id, text=claim.text, source=claim.source, measured=line["measured"], verdict=line["verdict"]
        )
        for claim, line in zip(asked, lines, strict=True)
    ]
    for claim in memory_claims.claims(config["claims"]):
        own = [record for record in records if record["config"]["optimizer"]["name"] == claim.optimizer]
        sizes = sorted(filter(None, map(memory_claims.sizes_of, own)), key=lambda size: size.num_parameters)
        told = [(size, claim.verdict(size)) for size in {size.num_parameters: size for size in sizes}.values()]
        said_of = [(size, verdict) for size, verdict in told if verdict in ("holds", "does not hold")]
        verdicts = {verdict for _, verdict in said_of}
        found.append(
            SaidOutcome(
                id=claim.id,
                text=claim.text,
                source=claim.source,
                measured=", ".join(f"{claim.measured(size):.4g} ({size.num_parameters:,})" for size, _ in said_of),
                verdict=verdicts.pop() if len(verdicts) == 1 else "depends" if verdicts else "not measured",
            )
        )
    return found


def _drawn(config: Config, records: Sequence[Record], store: Any) -> list[str]:
    """The figures of the experiment that a config is from."""
    if not config.get("figures"):
        return []
    from optbench import figures

    return [str(path) for figure in figures.figures(config["figures"]) for path in figures.draw(figure, records, store)]
