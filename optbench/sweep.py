"""A sweep from configs to a table: plan what the store lacks, run it, show all that was asked for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optbench.component import component
from optbench.errors import UsageError, unknown
from optbench.measurement import Status
from optbench.trial import Trial

if TYPE_CHECKING:
    from optbench.loggers import Logger
    from optbench.store import Store


def carry_out(configs: Sequence[Mapping[str, Any]], *, overrides: Sequence[str], allowed: Sequence[str] = ()) -> int:
    """Run the trials that these configs ask for and the store lacks, then show the table.

    Args:
        configs: composed and resolved, one for each combination of values.
        overrides: what they were composed from, to be noted in the store.
        allowed: packages that the command line allows configs to call, besides those of the catalogue.

    Returns:
        How many of the trials asked for have failed, in this run or in an earlier one.

    Raises:
        UsageError: a config is wrong, and nothing has been trained; or the store cannot be written to.
    """
    trials = list({trial.id: trial for trial in map(Trial.from_config, configs)}.values())
    if not trials:
        raise UsageError("the overrides make no trial: a list of values is empty.")
    shared = {key: _shared(configs, key) for key in ("results", "sweep", "logger")}
    if not isinstance(shared["results"], str):
        raise UsageError(f"results={shared['results']!r}: a folder is needed, such as results=results.")
    name, rerun = shared["sweep"].get("name"), _statuses(shared["sweep"].get("rerun"))
    if not isinstance(name, str):
        raise UsageError(f"sweep.name={name!r}: a plain folder name is needed, such as sweep.name=default.")

    # Only now, when the configs are known to be sound, is it worth the time to import pandas.
    from optbench import terminal
    from optbench.console import warn
    from optbench.store import Store

    store = Store(Path(shared["results"]), name)
    index = store.index()
    for path in store.quarantined:
        warn(f"{path}: did not hold what was written; set aside, and planned again.")
    stored = dict(zip(index["id"], index["status"], strict=True))
    todo = [trial for trial in trials if stored.get(trial.id) in (None, *rerun)]
    logger = _prepare(todo, logger=shared["logger"], allowed=allowed) if todo else None
    try:
        for trial in todo:
            if trial.id in stored:
                store.supersede(trial.id)
        store.write_plan([trial.id for trial in trials], overrides)
        progress = terminal.Progress(
            todo, num_stored=len(trials) - len(todo), num_merged=len(configs) - len(trials), store=store
        )
        if logger is not None:
            _run(todo, store=store, logger=logger, progress=progress)
        return terminal.show_trials(store, [trial.id for trial in trials])
    except OSError as error:
        raise UsageError(
            f"{store.folder} cannot be written to: {error}.\n"
            "What was stored before is kept. Make room, or choose another place with results=<folder>: the same "
            "command then runs what is missing."
        ) from error


def _prepare(trials: Sequence[Trial], *, logger: Mapping[str, Any], allowed: Sequence[str]) -> "Logger":
    """Check every trial, so that a mistake in the last one shows before the first one trains."""
    from optbench import advice, allowlist, components
    from optbench.console import warn
    from optbench.run import check

    tracker = component(logger, group="logger")
    parts = {part.target: (group, part) for trial in trials for group, part in allowlist.components_of(trial)}
    parts[tracker.target] = ("logger", tracker)
    allowlist.check_names(parts.values(), allowed=allowed)
    allowlist.check_targets(parts.values(), allowed=allowed)
    for trial in trials:
        check(trial)
    for sentence in dict.fromkeys(sentence for trial in trials for sentence in advice.against(trial)):
        warn(sentence)
    built: Logger = components.build(tracker, group="logger")
    return built


def _run(trials: Sequence[Trial], *, store: "Store", logger: "Logger", progress: Any) -> None:
    from optbench.console import warn
    from optbench.executors import serial

    with progress:
        serial.execute(
            trials,
            store=store,
            logger=logger,
            on_start=progress.start,
            on_measurement=progress.measured,
            on_result=progress.finished,
            on_logger_failure=lambda reason: warn(f"the logger has failed and this trial goes on without it: {reason}"),
        )


def _shared(configs: Sequence[Mapping[str, Any]], key: str) -> Any:
    """A part of the config that all trials of a sweep have in common."""
    first = configs[0].get(key)
    if first is None:
        raise UsageError(f"{key} is missing: a sweep needs it.")
    if any(config.get(key) != first for config in configs):
        raise UsageError(f"{key}: one sweep has one value for it, and these overrides give it several.")
    return first


def _statuses(rerun: Any) -> list[Status]:
    names = [rerun] if isinstance(rerun, str) else list(rerun or [])
    for name in names:
        if name not in list(Status):
            raise unknown("status", str(name), [status.value for status in Status], where="for sweep.rerun")
    return [Status(name) for name in names]
