"""What `optbench plan` and `optbench status` print: what there is to do, and how far it is."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from optbench import allowlist, machine
from optbench.console import console, warn
from optbench.errors import UsageError
from optbench.forecast import Capacity, Group, History, capacity, groups, num_fitting, wall_seconds
from optbench.live import duration
from optbench.plan import Plan, make, runs_here
from optbench.probing import Probes
from optbench.status import Planned, Progress, progress, shell_line
from optbench.store import Store, sweeps
from optbench.sweep import Settings, same
from optbench.trial import Trial
from optbench.units import in_bytes

MAX_LINES = 20
MAX_PREDICTIONS = 100
MAX_PREDICTION_SECONDS = 120.0


def show_plan(configs: Iterable[Mapping[str, Any]], *, allowed: Sequence[str] = ()) -> int:
    """Print what a sweep of these configs would run, and what is known of its time and memory; nothing trains.

    Args:
        configs: composed and resolved.
        allowed: packages that the command line allows configs to call, besides those of the catalogue.

    Returns:
        0.

    Raises:
        UsageError: a config is wrong.
    """
    configs = iter(configs)
    if (first := next(configs, None)) is None:
        raise UsageError("the overrides make no trial: a list of values is empty.")
    settings = Settings.from_config(first)
    made = make(
        (Trial.from_config(same(config, first)) for config in itertools.chain([first], configs)),
        store=Store(settings.results, settings.name),
        rerun=settings.rerun,
        runs_here=runs_here(settings.executor),
    )
    for path in made.store.quarantined:
        warn(f"{path}: did not hold what was written; set aside, and planned again.")
    waiting = [job.trial for job in made.jobs]
    parts = {part.target: (group, part) for trial in waiting for group, part in allowlist.components_of(trial)}
    allowlist.check_names(parts.values(), allowed=allowed)

    method = str(first["sweep"].get("method") or "")
    page, history = console(), History(settings.results)
    if unpredicted := history.unpredicted(waiting):
        with page.status("predicting memory"):
            history.add(
                Probes(allowed=allowed, max_seconds=MAX_PREDICTION_SECONDS).predictions(unpredicted[:MAX_PREDICTIONS])
            )
    found = groups(made, history)
    page.print(f"{escape(str(made.store.folder))}: {_counts(made)}", soft_wrap=True)
    if method == "optuna":
        page.print(
            "Which settings these are shows as Optuna chooses them: of what it has asked for before, nothing is "
            "subtracted here."
        )
    room = capacity(settings, waiting) if waiting else None
    page.print(_plan_table(found, room))
    for line in _predictions(found, settings=settings, room=room) if room is not None else ():
        page.print(escape(line), soft_wrap=True)
    return 0


def _counts(made: Plan) -> str:
    to_run = _number(len(made.jobs), "trial") + " to run" if made.jobs else "nothing to run"
    failed = f"{made.num_failed} failed" + (" (--rerun failed runs them again)" if made.num_failed else "")
    merged = f", {_number(made.num_merged, 'duplicate')} merged" if made.num_merged else ""
    return f"{to_run}, {made.num_done} done, {failed}{merged}."


def _plan_table(found: Sequence[Group], room: Capacity | None) -> Table:
    table = Table(title="plan", title_justify="left", box=box.SIMPLE_HEAD, show_footer=len(found) > 1)
    known = list(itertools.chain(*(group.known_seconds for group in found)))
    num_to_run = sum(group.num_to_run for group in found)
    footers = {
        "trials": sum(group.num_trials for group in found),
        "to run": num_to_run,
        "done": sum(group.num_done for group in found),
        "failed": sum(group.num_failed for group in found),
        "training of all\n(predicted)": _total(known, num_to_run) if num_to_run else "",
    }
    for name in ("task", "optimizer"):
        table.add_column(name, footer="all" if name == "task" else "", no_wrap=name == "optimizer")
    for name in (
        *("trials", "to run", "done", "failed"),
        "training of one\n(predicted)",
        "training of all\n(predicted)",
        "peak memory\n(measured)",
        "peak memory\n(predicted)",
        "fits\n(predicted)",
    ):
        table.add_column(name, footer=str(footers.get(name, "")), justify="right")
    for group in found:
        numbers = (group.num_trials, group.num_to_run, group.num_done, group.num_failed)
        seconds, peaks = group.known_seconds, map(in_bytes, (group.peak_bytes, group.predicted_peak_bytes))
        table.add_row(
            escape(group.task),
            escape(group.optimizer),
            *map(str, numbers),
            *(
                [_each(seconds), _total(seconds, group.num_to_run), *peaks, _fit(group, room)]
                if group.num_to_run
                else ()
            ),
        )
    return table


def _predictions(found: Sequence[Group], *, settings: Settings, room: Capacity) -> Iterator[str]:
    """What the predictions add up to, on what they rest, and what is missing for others."""
    waiting = [group for group in found if group.num_to_run]
    forecasts = list(itertools.chain(*(group.forecasts for group in waiting)))
    known = [forecast.seconds for forecast in forecasts if forecast.seconds is not None]
    least = "at least " if len(known) < len(forecasts) else "about "
    if known and room.num_slots is not None:
        seconds = wall_seconds(known, num_slots=room.num_slots)
        yield (
            f"Predicted wall-clock of training: {least}{_seconds(seconds)} on {_number(room.num_slots, 'slot')}; "
            "evaluation and start come on top."
        )
    elif known:
        yield (
            f"Predicted training in all: {least}{_seconds(sum(known))}, shared by as many trials at a time as "
            f"executor={settings.executor.name} finds room for."
        )
    if known:
        devices = sorted({name for asked in ("auto", "cpu") for name in machine.device_names(asked)})
        yield (
            f"Times are predicted from what is stored below {settings.results} of the same task, optimizer and threads "
            f"on this device ({', '.join(devices)}): the median step time times the steps, or the seconds of the "
            "budget where it ends first."
        )
    if any(group.likely_peak_bytes for group in waiting):
        yield (
            "Peaks leave the data set out. Measured: in steps like these, stored before. Predicted: a step gone "
            "through without data, by the kernels of the CPU."
        )
    if room.device_bytes is not None:
        what = "of the GPU" if room.on_gpus else "available"
        yield f"Memory {what}: {in_bytes(room.device_bytes)}, for {_number(room.num_sharing, 'trial')} at a time."
    for group in waiting:
        number = None if (peak := group.likely_peak_bytes) is None else num_fitting(peak, room)
        if number == 0:
            yield f"{group.task} {group.optimizer}: would not fit."
        elif number is not None and number < min(room.num_sharing, group.num_to_run):
            yield f"{group.task} {group.optimizer}: only {_number(number, 'trial')} at a time would fit."
    unknown = [group for group in waiting if not group.is_known]
    if unknown:
        first = unknown[0]
        yield (
            f"-: nothing is stored that tells it, for {_number(len(unknown), 'group')}. "
            f"`optbench cost task={first.task} optimizer={first.optimizer}` with its other overrides measures it."
        )


def _each(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    low, high = min(seconds), max(seconds)
    return _seconds(low) if _seconds(low) == _seconds(high) else f"{_seconds(low)} to {_seconds(high)}"


def _total(seconds: Sequence[float], num_to_run: int) -> str:
    if not seconds:
        return "-"
    return f"{'' if len(seconds) == num_to_run else 'at least '}{_seconds(sum(seconds))}"


def _fit(group: Group, room: Capacity | None) -> str:
    peak = group.likely_peak_bytes
    if room is None or peak is None or (number := num_fitting(peak, room)) is None:
        return "-"
    if number == 0:
        return "[red]no[/]"
    return "yes" if number >= min(room.num_sharing, group.num_to_run) else f"[yellow]{number} at a time[/]"


def show_status(folders: Sequence[str], *, everything: bool = False, as_json: bool = False) -> bool:
    """Print how far each sweep in these folders is.

    Args:
        folders: results folders, or sweeps in them.
        everything: lists in full.
        as_json: for machines.

    Returns:
        Whether all that was planned is stored, and none of it has failed.

    Raises:
        UsageError: there is nothing, or a later optbench wrote it.
    """
    found: list[Progress] = []
    for name in folders:
        stores = sweeps(folder := _folder(name))
        if not stores:
            raise UsageError(f"{folder}: no results here. `optbench sweep optimizer=lion,adamw` makes some.")
        found += map(progress, stores)
    if as_json:
        print(json.dumps({"sweeps": [each.as_json() for each in found]}, indent=1))
    else:
        for each in found:
            _show_progress(each, max_lines=None if everything else MAX_LINES)
    return all(each.is_complete for each in found)


def _show_progress(found: Progress, *, max_lines: int | None) -> None:
    page = console()
    for path in found.store.quarantined:
        warn(f"{path}: did not hold what was written; set aside, and missing now.")
    counts = [f"{len(found.trials)} planned", f"{len(found.done)} done"]
    parts: dict[str, Sequence[Planned]] = {
        "missing": found.missing,
        "running": found.running,
        "failed": found.failed,
        "preempted": found.preempted,
        "pruned": found.pruned,
        "stale": found.stale,
    }
    counts += [f"{len(trials)} {name}" for name, trials in parts.items() if trials]
    page.print(f"[bold]{escape(str(found.store.folder))}[/]: {', '.join(counts)}.", soft_wrap=True)
    for name, trials in parts.items():
        for trial in trials[:max_lines]:
            page.print(f"  {escape(_line(name, trial))}", soft_wrap=True)
        if max_lines is not None and len(trials) > max_lines:
            page.print(f"  {name}: and {len(trials) - max_lines} more (--all shows all)")
    if found.command is None:
        return
    line = shell_line(found.command)
    if found.missing or found.preempted:
        page.print(f"To run what is missing:  {escape(line)}", soft_wrap=True)
    for name in ("failed", "stale"):
        if parts[name]:
            page.print(f"To run what is {name} again:  {escape(line)} --rerun {name}", soft_wrap=True)


def _line(name: str, trial: Planned) -> str:
    told = f"{name}: {trial.title} ({trial.id})" if trial.title != trial.id else f"{name}: {trial.id}"
    if name == "running" and trial.holder is not None:
        told += f", process {trial.holder.pid} on {trial.holder.host}"
    elif name == "failed":
        told += f", {trial.status}" + (f": {trial.reason}" if trial.reason else "")
        told += f" (log: {trial.log})" if trial.log else ""
    elif name == "stale":
        told += f", {', '.join(trial.differences)}"
    return "".join(char if char.isprintable() else " " for char in told)


def _folder(name: str) -> Path:
    return Path(name.removeprefix("results="))


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)
