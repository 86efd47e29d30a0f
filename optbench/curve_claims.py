"""What is said of how trainings go, beside how those that were asked for went: of curves, over settings."""

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from optbench.errors import UsageError
from optbench.keys import select
from optbench.measurement import Status
from optbench.parsing import parse, parse_list, parse_mapping
from optbench.settings import spelt

Record = Mapping[str, Any]
Expectation = Literal["falls", "rises", "same", "power", "equals", "never_falls", "near_best_lr"]
SUCCESSES = frozenset(status.value for status in Status if status.succeeded)
# Figures that are no column of a curve, whose last value is its figure.
STATE = "state_over_parameters"
RISE = "steps_to_90_percent"
RISE_OF = "d"


@dataclass(frozen=True, kw_only=True)
class CurveClaim:
    """A statement about trainings.

    Attributes:
        id: of the claim.
        text: in a few words.
        figure: a column of the curve, of which the last value counts; or state_over_parameters, the bytes of the
            optimizer's state over those of what is trained; or steps_to_90_percent, the steps until d is at nine tenths
            of its last value.
        where: keys of the config, with the values that they have in those trials; a list allows any of its values.
        along: the key that varies among them; None for never_falls and equals.
        against: as `where`, of the trials that a near_best_lr is looked for in.
        expected: of the figure, the mean over seeds: that it falls or rises with each value of `along`, is the same
            for all, or goes as a power of it; that it equals a number; that it never falls, in the curve of each trial;
            or that it is near the rate at which the trials of `against` do best by their task's first metric.
        published: the power, or the number; None for others.
        tolerance: of power and equals, how far it may be off; of same, the largest departure from the middle, in parts
            of it; of near_best_lr, a factor. None for others.
        source: who says so.
    """

    id: str
    text: str
    figure: str
    where: Mapping[str, Any]
    along: str | None
    against: Mapping[str, Any] | None
    expected: Expectation
    published: float | None
    tolerance: float | None
    source: str

    def verdict(self, records: Sequence[Record]) -> tuple[str, str, str]:
        """What was measured, in words; over how many trials; and whether the claim holds.

        Args:
            records: of all trials that were asked for.
        """
        own = [record for record in records if _matches(record["config"], self.where)]
        ended = [record for record in own if record["status"] in SUCCESSES]
        trials = f"{len(ended)}" + (f", {len(own) - len(ended)} failed" if len(own) > len(ended) else "")
        if not ended:
            return "-", trials, "not measured"
        measured, holds = _CHECKS[self.expected](self, ended, records)
        return measured, trials, "not measured" if holds is None else "holds" if holds else "does not hold"


def curve_claims(config: Any) -> list[CurveClaim]:
    """The claims of an experiment that are about trainings: those that have `expected`.

    Raises:
        UsageError: one lacks a key, has one that no claim has, or lacks the number that it needs.
    """
    found = []
    for number, claim in enumerate(parse_list(config or [], where="claims")):
        where = f"claims[{number}]"
        given = parse_mapping(claim, where=where)
        if "expected" not in given:
            continue
        conditions = {
            key: None if given.get(key) is None else parse_mapping(given[key], where=f"{where}.{key}")
            for key in ("where", "against")
        }
        optional = dict.fromkeys(("along", "published", "tolerance"))
        plain = {**optional, **{key: value for key, value in given.items() if key not in conditions}}
        parsed = parse(_Plain, plain, where=where)
        for key in _NEEDED.get(parsed.expected, ()):
            if {**plain, **conditions}.get(key) is None:
                raise UsageError(f"{where}.{key} is missing: expected={parsed.expected} needs it.")
        found.append(CurveClaim(**vars(parsed), where=conditions["where"] or {}, against=conditions["against"]))
    return found


def table(claims: Sequence[CurveClaim], records: Sequence[Record]) -> pd.DataFrame:
    """Each claim with what was measured."""
    lines = []
    for claim in claims:
        measured, trials, verdict = claim.verdict(records)
        published = "-" if claim.published is None else f"{claim.published:g}"
        what = {"claim": claim.id, "says": claim.text, "figure": claim.figure, "published": published}
        lines.append({**what, "measured": measured, "trials": trials, "verdict": verdict})
    return pd.DataFrame(lines)


@dataclass(frozen=True, kw_only=True)
class _Plain:
    id: str
    text: str
    figure: str
    along: str | None
    expected: Expectation
    published: float | None
    tolerance: float | None
    source: str


def grouped(records: Sequence[Record], key: str | None) -> list[tuple[Any, list[Record]]]:
    """The trials of each value of a key, numbers in their order and others as they come."""
    groups: dict[str, tuple[Any, list[Record]]] = {}
    for record in records:
        value = None if key is None else select(record["config"], key)
        groups.setdefault(repr(value), (value, []))[1].append(record)
    found = list(groups.values())
    if all(isinstance(value, (int, float)) for value, _ in found):
        found.sort(key=lambda group: float(group[0]))
    return found


def matching(records: Sequence[Record], where: Mapping[str, Any]) -> list[Record]:
    """Those whose configs have these values."""
    return [record for record in records if _matches(record["config"], where)]


def column(record: Record, name: str) -> list[float]:
    """A column of a curve, with NaN where it has no value; empty where there is none of that name."""
    return [math.nan if value is None else float(value) for value in record["curve"].get(name, [])]


def _matches(config: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    for key, wanted in where.items():
        value = select(config, key)
        if not (any(value == one for one in wanted) if isinstance(wanted, list) else value == wanted):
            return False
    return True


def _value(record: Record, figure: str) -> float:
    """The figure of a trial; NaN where it has none."""
    summary = record["summary"]
    if figure == STATE:
        return float(summary.get("state_bytes") or math.nan) / float(summary.get("parameter_bytes") or math.nan)
    values = column(record, RISE_OF if figure == RISE else figure)
    points = zip(record["curve"]["step"], values, strict=False)  # a column that is not there has no value
    known = [(step, value) for step, value in points if not math.isnan(value)]
    if not known:
        return math.nan
    last = known[-1][1]
    return float(next(step for step, value in known if value >= 0.9 * last)) if figure == RISE else last


def _means(claim: CurveClaim, records: Sequence[Record]) -> list[tuple[Any, float]]:
    """For each value of `along`, the mean of the figure."""
    return [
        (value, statistics.fmean(_value(record, claim.figure) for record in own))
        for value, own in grouped(records, claim.along)
    ]


def _listed(claim: CurveClaim, means: Sequence[tuple[Any, float]]) -> str:
    if claim.along is None:
        return ", ".join(f"{mean:.4g}" for _, mean in means)
    name = claim.along.rpartition(".")[2]
    return ", ".join(f"{mean:.3g} ({name}={spelt(value)})" for value, mean in means)


_Checked = tuple[str, bool | None]


def _in_order(claim: CurveClaim, records: Sequence[Record], _: Sequence[Record]) -> _Checked:
    means = _means(claim, records)
    sign = 1.0 if claim.expected == "rises" else -1.0
    steps = [sign * (after - before) for (_, before), (_, after) in itertools.pairwise(means)]
    return _listed(claim, means), all(step > 0 for step in steps) if steps else None


def _same(claim: CurveClaim, records: Sequence[Record], _: Sequence[Record]) -> _Checked:
    means = _means(claim, records)
    if len(means) < 2:
        return _listed(claim, means), None
    assert claim.tolerance is not None
    middle = statistics.median(mean for _, mean in means)
    departure = max(abs(mean / middle - 1.0) for _, mean in means)
    return f"{_listed(claim, means)}: {departure:.1%} apart at most", departure <= claim.tolerance


def _power(claim: CurveClaim, records: Sequence[Record], _: Sequence[Record]) -> _Checked:
    means = _means(claim, records)
    if len(means) < 2:
        return _listed(claim, means), None
    exponent = float(np.polyfit(np.log([value for value, _ in means]), np.log([mean for _, mean in means]), 1)[0])
    assert claim.published is not None
    assert claim.tolerance is not None
    return f"{exponent:.3f}: {_listed(claim, means)}", abs(exponent - claim.published) <= claim.tolerance


def _equals(claim: CurveClaim, records: Sequence[Record], _: Sequence[Record]) -> _Checked:
    values = [_value(record, claim.figure) for record in records]
    assert claim.published is not None
    assert claim.tolerance is not None
    spread = f"{min(values):.4g}" + (f" to {max(values):.4g}" if max(values) > min(values) else "")
    return spread, all(abs(value - claim.published) <= claim.tolerance for value in values)


def _never_falls(claim: CurveClaim, records: Sequence[Record], _: Sequence[Record]) -> _Checked:
    curves = [[value for value in column(record, claim.figure) if not math.isnan(value)] for record in records]
    if not all(curves):
        return "-", None
    falls = sum(any(after < before for before, after in itertools.pairwise(curve)) for curve in curves)
    return f"falls in {falls} of {len(curves)} curves", falls == 0


def _near_best_lr(claim: CurveClaim, records: Sequence[Record], everything: Sequence[Record]) -> _Checked:
    assert claim.against is not None
    assert claim.tolerance is not None
    others = [record for record in matching(everything, claim.against) if record["status"] in SUCCESSES]
    if not others:
        return "-", None
    (metric, direction), *_ = (others[0]["config"]["task"].get("metrics") or {"test_loss": "min"}).items()
    reached = {
        lr: statistics.fmean(_value(record, metric) for record in own) for lr, own in grouped(others, "optimizer.lr")
    }
    best = (min if direction == "min" else max)(reached, key=lambda lr: reached[lr])
    figure = statistics.fmean(_value(record, claim.figure) for record in records)
    edge = ", at the edge of its grid" if best in (min(reached), max(reached)) else ""
    ratio = figure / best
    words = f"{claim.figure} {figure:.3g}, best lr {best:g} by {metric}{edge}: {ratio:.2f} times"
    return words, 1 / claim.tolerance <= ratio <= claim.tolerance


_CHECKS: Mapping[Expectation, Callable[[CurveClaim, Sequence[Record], Sequence[Record]], _Checked]] = {
    "falls": _in_order,
    "rises": _in_order,
    "same": _same,
    "power": _power,
    "equals": _equals,
    "never_falls": _never_falls,
    "near_best_lr": _near_best_lr,
}
_NEEDED: Mapping[Expectation, Sequence[str]] = {
    "falls": ("along",),
    "rises": ("along",),
    "same": ("along", "tolerance"),
    "power": ("along", "published", "tolerance"),
    "equals": ("published", "tolerance"),
    "near_best_lr": ("against", "tolerance"),
}
