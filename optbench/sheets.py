"""The tables of one task: each optimizer at its best setting, and as it comes."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from optbench import cells, edges
from optbench.contest import Contender, Contest
from optbench.sheet import Sheet
from optbench.stats import Difference, difference
from optbench.tables import Row
from optbench.units import in_bytes, in_milliseconds

# Overrides that say where and on what, and not how it is optimized.
_KEPT = ("results", "task", "data", "model", "budget", "target", "seed", "hardware", "evaluation", "divergence")
_BEST, _TIE, _FAILED = "★", "=", "✕"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of a sheet: words and sort keys by column, and numbers by columns of their own."""

    words: Mapping[str, str]
    keys: Mapping[str, Any]
    numbers: Mapping[str, Any]


def sheet(lines: Sequence[Line], *, name: str, title: str, notes: Sequence[str] = ()) -> Sheet:
    """A sheet of these lines; a column that a line lacks is `-` there, and one without any content is left out."""
    columns = list(dict.fromkeys(column for line in lines for column in line.words))
    filled = [column for column in columns if any(line.words.get(column, "-") not in ("", "-") for line in lines)]
    return Sheet(
        name=name,
        title=title,
        words=pd.DataFrame([[line.words.get(column, "-") for column in filled] for line in lines], columns=filled),
        keys=pd.DataFrame(
            [[line.keys.get(column) for column in filled] for line in lines], columns=filled, dtype=object
        ),
        numbers=pd.DataFrame([dict(line.numbers) for line in lines]),
        notes=notes,
    )


def best(contest: Contest, *, slug: str) -> Sheet:
    """Each optimizer at its best setting: what it reaches and costs, how much it was tuned, how often it failed."""
    metrics = cells.metrics_of([contender.best for contender in contest.contenders])
    metrics.sort(key=lambda name: name != contest.metric)  # what ranks comes first
    timed = _reference(contest)
    lines = [_best_line(contest, contender, metrics=metrics, timed=timed) for contender in contest.contenders]
    compared = sum(one.difference is not None and one.difference.p_value is not None for one in contest.contenders)
    notes = [
        f"{_BEST} best of all but controls, {_TIE} not told apart from it over the seeds that both have: paired t, at "
        f"95 % for all {compared} comparison(s) together (Holm); the intervals of differences are at 95 % each."
        if compared
        else "No two optimizers could be compared: it takes two seeds that both have, and no failures.",
        *_time_notes([contender.best for contender in contest.contenders]),
        *_edge_notes(contest),
        *_budget_notes(contest),
    ]
    return sheet(lines, name=f"best_{slug}", title=f"{contest.task}: the best setting of each optimizer", notes=notes)


def default(contest: Contest, *, slug: str, overrides: Callable[[str], Sequence[str] | None]) -> Sheet | None:
    """Each optimizer as its file has it, untuned; None where none was run so.

    Args:
        contest: of the task.
        slug: of its name.
        overrides: of a trial, for the command that runs those missing.
    """
    with_default = [contender for contender in contest.contenders if contender.default is not None]
    if not with_default:
        return None
    metrics = cells.metrics_of([contender.default for contender in with_default if contender.default is not None])
    metrics.sort(key=lambda name: name != contest.metric)
    lines = [
        _default_line(contender, contender.default, metrics=metrics, contest=contest)
        for contender in sorted(with_default, key=lambda contender: _place(contest, contender.default))
        if contender.default is not None
    ]
    missing = [contender.optimizer for contender in contest.contenders if contender.default is None]
    notes = ["As the optimizer's file has it, at a constant rate. tuning gains: its best setting minus this one."]
    if missing:
        asked = overrides(contest.contenders[0].best.ids[0])
        command = "" if asked is None else f": {_default_command(asked, missing)}"
        notes.append(f"Not run untuned, or no optimizer of the catalogue: {', '.join(missing)}{command}")
    return sheet(lines, name=f"default_{slug}", title=f"{contest.task}: each optimizer untuned", notes=notes)


def settings(contest: Contest, *, slug: str) -> Sheet:
    """Every setting that was tried, the best first."""
    metrics = cells.metrics_of(contest.rows)
    metrics.sort(key=lambda name: name != contest.metric)
    timed = _reference(contest)
    lines = []
    for row in contest.rows:
        mark = {"best": _BEST, "tie": _TIE, "": ""}[row.mark]
        words = {"": mark, "optimizer": row.optimizer, "setting": row.setting_text}
        keys: dict[str, Any] = {**words, "": {_BEST: 0, _TIE: 1}.get(mark, 2)}
        for title, text, key in [
            *_metric_cells(row, metrics),
            *_cost_cells(row, timed=timed),
            ("seeds", str(row.num_trials), row.num_trials),
            ("failed", _failures(row.failures), sum(row.failures.values())),
        ]:
            words[title], keys[title] = text, key
        lines.append(Line(words=words, keys=keys, numbers=_numbers(row, metrics)))
    notes = [
        f"{_TIE} not told apart from the best by the seeds they share, each by itself (paired t, 95 %).",
        *_time_notes(contest.rows),
    ]
    return sheet(lines, name=f"settings_{slug}", title=f"{contest.task}: all {len(lines)} settings", notes=notes)


def _place(contest: Contest, row: Row | None) -> int:
    return next(place for place, other in enumerate(contest.rows) if other is row)


def _best_line(contest: Contest, contender: Contender, *, metrics: Sequence[str], timed: str | None) -> Line:
    row = contender.best
    mark = _mark(contest, contender)
    failed = sum(contender.failures.values())
    words = {"": mark, "optimizer": contender.optimizer, "setting": row.setting_text}
    keys: dict[str, Any] = {
        "": {_BEST: 0, _TIE: 1}.get(mark, 2),
        **{key: words[key] for key in ("optimizer", "setting")},
    }
    first, *others = _metric_cells(row, metrics)
    behind = _difference_cell(contender.difference, contest, row=row)
    for title, text, key in [
        first,
        ("minus the best", behind, None if contender.difference is None else abs(contender.difference.mean)),
        *_cost_cells(row, timed=timed),
        ("seeds", str(row.num_trials), row.num_trials),
        ("failed", _failures(row.failures), sum(row.failures.values())),
        ("settings tried", str(len(contender.rows)), len(contender.rows)),
        ("failed of all", f"{failed}/{contender.num_trials}", failed / contender.num_trials),
        ("at the edge", ", ".join(found.name for found in contender.edges) or "no", len(contender.edges)),
        *others,
    ]:
        words[title], keys[title] = text, key
    found = contender.difference
    numbers = {
        **_numbers(row, metrics),
        "is_tied": contender.is_tied,
        "is_control": contender.is_control,
        **{f"difference{end}": getattr(found, name, None) for end, name in _DIFFERENCE.items()},
        "num_settings": len(contender.rows),
        "num_trials_of_all_settings": contender.num_trials,
        "num_failed_of_all_settings": failed,
        "edges": "; ".join(edges.words(edge) for edge in contender.edges),
    }
    return Line(words=words, keys=keys, numbers=numbers)


_DIFFERENCE = {"": "mean", "_low": "low", "_high": "high", "_p_value": "p_value", "_num_seeds": "num_values"}


def _default_line(contender: Contender, row: Row, *, metrics: Sequence[str], contest: Contest) -> Line:
    gain = None if row is contender.best else difference(row.values, contender.best.values)
    words = {"optimizer": contender.optimizer, "setting": row.setting_text}
    keys: dict[str, Any] = dict(words)
    first, *others = _metric_cells(row, metrics)
    gained = "is its best" if row is contender.best else _signed(gain, contest)
    for title, text, key in [
        first,
        ("tuning gains", gained, 0.0 if row is contender.best else None if gain is None else abs(gain.mean)),
        *others,
        ("seeds", str(row.num_trials), row.num_trials),
        ("failed", _failures(row.failures), sum(row.failures.values())),
    ]:
        words[title], keys[title] = text, key
    numbers = {
        **_numbers(row, metrics),
        **{f"gain{end}": getattr(gain, name, None) for end, name in _DIFFERENCE.items()},
    }
    return Line(words=words, keys=keys, numbers=numbers)


def _numbers(row: Row, metrics: Sequence[str]) -> dict[str, Any]:
    return cells.figures(row, metrics=metrics, with_target=row.num_reached is not None)


def _mark(contest: Contest, contender: Contender) -> str:
    if contender.is_leader:
        return _BEST if len(contest.contenders) > 1 else ""
    if not contender.best.values:
        return _FAILED
    return _TIE if contender.is_tied and len(contest.contenders) > 1 else ""


_Cell = tuple[str, str, Any]  # title, words, key


def _metric_cells(row: Row, metrics: Sequence[str]) -> list[_Cell]:
    found: list[_Cell] = []
    for name in metrics:
        estimate = row.metrics.get(name)
        text = cells.estimated(estimate, row, percent=cells.is_share(name))
        found.append((name.replace("_", " "), text, estimate.mean if estimate else None))
    if row.num_reached is not None:
        found.insert(0, ("to target", cells.to_target(row), row.steps_to_target.mean if row.steps_to_target else None))
    return found or [("result", "-", None)]


def _cost_cells(row: Row, *, timed: str | None) -> list[_Cell]:
    time = row.cost.time if row.cost else None
    ratio = time.ratio.median if time and time.ratio else None
    state = row.state_bytes_per_parameter
    mark = "~" if timed and time is None and row.step_seconds is not None else ""
    found: list[_Cell] = [("step (ms)", f"{mark}{in_milliseconds(row.step_seconds)}", row.step_seconds)]
    if timed:
        found.append((f"step / {timed}", f"{ratio:.2f}" if ratio is not None else "-", ratio))
    return [
        *found,
        ("state (B/param)", f"{state:.2f}" if state is not None else "-", state),
        ("peak", in_bytes(row.peak_bytes), row.peak_bytes),
    ]


def _reference(contest: Contest) -> str | None:
    return next((row.cost.time.reference for row in contest.rows if row.cost and row.cost.time), None)


def _failures(failures: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in failures.items()) or "0"


def _difference_cell(found: Difference | None, contest: Contest, *, row: Row) -> str:
    """The difference, and over how many seeds where that is not over all."""
    leader = next((one.best for one in contest.contenders if one.is_leader), row)
    if found is None:
        return "-"
    text = _signed(found, contest)
    if found.num_values >= min(leader.num_trials, row.num_trials) and leader.num_trials == row.num_trials:
        return text
    value, bracket, interval = text.partition(" [")
    return f"{value} ({found.num_values} seed{'s' if found.num_values > 1 else ''}){bracket}{interval}"


def _signed(found: Difference | None, contest: Contest) -> str:
    """A difference with its interval: of steps where the task has a target, or else of the first metric."""
    if found is None:
        return "-"
    percent = cells.is_share(contest.metric) and contest.rows[0].num_reached is None
    scale, unit, digits = (100.0, " pp", "+.2f") if percent else (1.0, "", "+.3g")
    text = f"{found.mean * scale:{digits}}{unit}"
    if found.low is not None and found.high is not None:
        text += f" [{found.low * scale:{digits}}, {found.high * scale:{digits}}]"
    return text


def _time_notes(rows: Sequence[Row]) -> list[str]:
    """That some times are not like the others."""
    measured = [row.cost is not None and row.cost.time is not None for row in rows]
    if any(measured) and not all(measured):
        return [
            "~ as the trials ran, several at a time perhaps: not to be compared with steps that were measured alone."
        ]
    return []


def _edge_notes(contest: Contest) -> list[str]:
    return [
        f"{contender.optimizer}: {edges.words(found)}, so that a better one may lie beyond"
        + (f": {found.command} (then report with --all)" if found.command else ".")
        for contender in contest.contenders
        for found in contender.edges
    ]


def _budget_notes(contest: Contest) -> list[str]:
    """Whether all were tuned alike: whoever tries more settings finds better ones by chance alone."""
    counts = {contender.optimizer: len(contender.rows) for contender in contest.contenders if not contender.is_control}
    if len(set(counts.values())) < 2:
        return []
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    return [f"Not tuned alike, and more settings find better ones by chance alone: settings tried are {listed}."]


def _default_command(asked: Sequence[str], missing: Sequence[str]) -> str:
    kept = [line for line in asked if line.lstrip("+~").partition("=")[0].split(".")[0] in _KEPT]
    named = [line for line in asked if line.startswith("sweep.name=")]
    return shlex.join(["optbench", "sweep", *kept, *named, f"optimizer={','.join(missing)}"])
