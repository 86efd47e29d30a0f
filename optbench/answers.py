"""What the trials of a task say, in a sentence or two: which optimizer, how sure, at what price."""

from collections.abc import Iterator, Sequence

from optbench import cells
from optbench.aggregate import Aggregate
from optbench.contest import Contender, Contest
from optbench.settings import spelt
from optbench.stats import Estimate

MAX_NAMED = 4
# Ratios that are said in words, and from where on a difference is worth saying.
_SAID = ((0.25, "a quarter of the"), (0.5, "half the"))
_NEAR = 0.04
_NOTABLE = 1.1


def answer(contest: Contest) -> list[str]:
    """What is to be known first about a task, a sentence each."""
    field = [contender for contender in contest.contenders if not contender.is_control] or list(contest.contenders)
    with_result = [contender for contender in field if contender.best.values]
    if not with_result:
        names = _listed([one.optimizer for one in field])
        return [f"On {contest.task} no trial of {names} has a result: {_ends(field)}."]
    return [_quality(contest, with_result), *_price(with_result), *_doubts(contest, field)]


def answer_over_tasks(found: Aggregate) -> list[str]:
    """What several tasks say together."""
    rank = found.mean_ranks[found.optimizers[0]]
    first = [name for name in found.optimizers if found.mean_ranks[name].mean == rank.mean]
    others = found.optimizers[len(first) :]
    verb = "share" if len(first) > 1 else "has"
    text = f"Over {len(found.tasks)} tasks {_listed(first)} {verb} the best mean rank of {len(found.optimizers)} "
    text += f"optimizers, {_ranked(rank)}"
    if others:
        text += f"; next is {others[0]} at {_ranked(found.mean_ranks[others[0]])}"
    lines = [f"{text}."]
    if found.left_out:
        listed = "; ".join(f"{name} {why}" for name, why in found.left_out.items())
        lines.append(f"Not comparable, and left out of it: {listed}.")
    return lines


def _ranked(rank: Estimate) -> str:
    if rank.low is None or rank.high is None:
        return f"{rank.mean:.2g}"
    return f"{rank.mean:.2g} [{rank.low:.2g}, {rank.high:.2g}]"


def _quality(contest: Contest, field: Sequence[Contender]) -> str:
    first, *others = field
    if first.best.num_reached == 0:
        names = _all_named(field)
        return f"On {contest.task} no optimizer reached the target: {names} did not, {_seeds(field)}."
    on = f"On {contest.task}"
    if not first.is_leader:
        return f"{on} no setting went without failures; {_named(first)} comes first with {_value(contest, first)}."
    if not others:
        text = f"{on} {_named(first)} reaches {_value(contest, first)}"
        return f"{text}; no other optimizer has a result to compare it with."
    if first.best.num_trials == 1:
        listed = f"{_named(first)} comes first with {_value(contest, first)}, {_named(others[0])} next"
        return f"{on} one seed cannot tell optimizers apart: {listed} with {_value(contest, others[0])}."
    leaders = [first, *(one for one in others if one.is_tied)]
    behind = next((one for one in others if not one.is_tied and one.difference is not None), None)
    if len(leaders) == 1:
        text = f"{on} {_named(first)} is best with {_value(contest, first)}"
        next_one = others[0]
        compared = "" if next_one.difference is not None else ", which was not compared: it has failures or other seeds"
        return f"{text}; next is {_named(next_one)} with {_value(contest, next_one)}{compared}."
    verb = "tie" if _are_close(contest, leaders) else "are not told apart"
    text = f"{on} {_all_named(leaders)} {verb} at {_range(contest, leaders)}, {_seeds(leaders)}"
    if behind is not None:
        text += f"; {_named(behind)} is worse, with {_value(contest, behind)}"
    return f"{text}."


def _price(field: Sequence[Contender]) -> Iterator[str]:
    """Of those that are as good as the best, which is the cheaper one."""
    leaders = [field[0], *(one for one in field[1:] if one.is_tied)]
    known = [(one, state) for one in leaders if (state := one.best.state_bytes_per_parameter) is not None]
    parts = []
    if len(known) > 1:
        (low, least), (high, most) = (
            min(known, key=lambda pair: pair[1]),
            max(known, key=lambda pair: pair[1]),
        )
        if most > least * _NOTABLE:
            parts.append(
                f"{low.optimizer} keeps {_said(least / most)} state of {high.optimizer}"
                if least
                else f"{low.optimizer} keeps no state, where {high.optimizer} keeps {most:.3g} B per parameter"
            )
    elif known:
        parts.append(f"{known[0][0].optimizer} keeps {known[0][1]:.3g} B of state per parameter")
    timed = [
        (one, time.ratio.median, time.reference)
        for one in leaders
        if one.best.cost and (time := one.best.cost.time) and time.ratio
    ]
    if len(timed) > 1:
        fast, slow = min(timed, key=lambda found: found[1]), max(timed, key=lambda found: found[1])
        if slow[1] > fast[1] * _NOTABLE:
            ratio = slow[1] / fast[1]
            parts.append(f"a step of {slow[0].optimizer} takes {ratio:.2g} times as long as one of {fast[0].optimizer}")
    elif len(leaders) == 1 and timed and timed[0][0].optimizer != timed[0][2]:
        parts.append(f"its step takes {timed[0][1]:.2f} times as long as one of {timed[0][2]}")
    if parts:
        whose = "Of these " if len(leaders) > 1 else ""
        text = f"{whose}{'; '.join(parts)}."
        yield text[0].upper() + text[1:] if whose else text


def _doubts(contest: Contest, field: Sequence[Contender]) -> Iterator[str]:
    """What may change the answer."""
    better = [one.optimizer for one in contest.contenders if one.is_control and _is_ahead(contest, one, field[0])]
    if better:
        yield f"{_listed(better)}, which is there to be beaten, comes before all of them."
    if any(contender.failures for contender in field):
        yield f"Failed: {_ends(field)}."
    at_edge = [one for one in field if one.edges and (one.is_tied or one is field[0])]
    if at_edge:
        which = _listed([f"{one.optimizer} ({', '.join(edge.name for edge in one.edges)})" for one in at_edge])
        yield f"The best value lies at the edge of what was tried for {which}: a better one may lie beyond."
    if contest.label in ("saturated", "unsolved"):
        yield f"The task is {contest.label}, so this says little. {contest.label_reason}"


def _is_ahead(contest: Contest, control: Contender, other: Contender) -> bool:
    order = [contender.optimizer for contender in contest.contenders]
    return order.index(control.optimizer) < order.index(other.optimizer) and bool(control.best.values)


def _ends(field: Sequence[Contender]) -> str:
    """How many trials ended badly, by optimizer."""
    parts = []
    for contender in field:
        if contender.failures:
            counts = ", ".join(f"{count} {status}" for status, count in contender.failures.items())
            parts.append(f"{contender.optimizer} {counts} of {contender.num_trials} trials")
    return "; ".join(parts) or "no trial ended badly"


def _named(contender: Contender) -> str:
    """The optimizer with its setting: `lion (lr 0.0003)`."""
    setting = contender.best.setting
    listed = ", ".join(f"{key} {spelt(value)}" for key, value in setting.items())
    return f"{contender.optimizer} ({listed})" if setting else contender.optimizer


def _all_named(contenders: Sequence[Contender]) -> str:
    named = [_named(one) for one in contenders[:MAX_NAMED]]
    if len(contenders) > MAX_NAMED:
        named.append(f"{len(contenders) - MAX_NAMED} more")
    return _listed(named)


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _seeds(contenders: Sequence[Contender]) -> str:
    counts = sorted({one.best.num_trials for one in contenders})
    return "from one seed" if counts == [1] else f"over {' or '.join(map(str, counts))} seeds"


def _value(contest: Contest, contender: Contender) -> str:
    """What it reaches, with the longer side of its interval, and over how many seeds."""
    row = contender.best
    over = f" {_seeds([contender])}"
    if row.num_reached is not None:
        if row.steps_to_target is None:
            return f"the target never reached in {row.num_trials} trials"
        if row.num_reached < row.num_trials:
            over = f" from {row.num_reached} of {row.num_trials} seeds"
        return f"the target in {row.steps_to_target.mean:.0f} steps{_half(row.steps_to_target, scale=1.0)}{over}"
    found = row.metrics[contest.metric]
    if found.num_values < row.num_trials:
        over = f" from {found.num_values} of {row.num_trials} seeds"
    name = contest.metric.replace("_", " ")
    if cells.is_share(contest.metric):
        return f"{found.mean * 100:.1f} %{_half(found, scale=100.0)} {name}{over}"
    return f"{name} {found.mean:.4g}{_half(found, scale=1.0)}{over}"


def _half(found: Estimate, *, scale: float) -> str:
    if found.low is None or found.high is None:
        return ""
    half = max(found.high - found.mean, found.mean - found.low) * scale
    return f" ±{half:.2g}"


def _are_close(contest: Contest, contenders: Sequence[Contender]) -> bool:
    """Whether what they reach is no further apart than the widest of their intervals: else seeds are just too few."""
    if contenders[0].best.num_reached is not None:
        found = [steps for one in contenders if (steps := one.best.steps_to_target)]
    else:
        found = [one.best.metrics[contest.metric] for one in contenders]
    means = [one.mean for one in found]
    widths = [one.high - one.low for one in found if one.low is not None and one.high is not None]
    return max(means) - min(means) <= max(widths, default=0.0)


def _range(contest: Contest, contenders: Sequence[Contender]) -> str:
    """What several reach that are not told apart."""
    if contenders[0].best.num_reached is not None:
        steps = [one.best.steps_to_target.mean for one in contenders if one.best.steps_to_target]
        return f"{min(steps):.0f} to {max(steps):.0f} steps to the target"
    values = [one.best.metrics[contest.metric] for one in contenders]
    widest = max(values, key=lambda found: 0.0 if found.low is None or found.high is None else found.high - found.low)
    low, high = min(found.mean for found in values), max(found.mean for found in values)
    name = contest.metric.replace("_", " ")
    if cells.is_share(contest.metric):
        ends = list(dict.fromkeys([f"{low * 100:.1f}", f"{high * 100:.1f}"]))
        return f"{' to '.join(ends)} %{_half(widest, scale=100.0)} {name}"
    ends = list(dict.fromkeys([f"{low:.4g}", f"{high:.4g}"]))
    return f"{name} {' to '.join(ends)}{_half(widest, scale=1.0)}"


def _said(ratio: float) -> str:
    """A ratio in words: `half the`."""
    near = next((text for value, text in _SAID if abs(ratio - value) <= _NEAR * max(value, _NEAR)), None)
    return near or f"{ratio:.2g} times the"
