"""Times against a stored baseline: what it leaves in doubt is settled beside the environment that it is of.

For minutes a machine can slow one step down and not another, nor the calibration kernel: against figures of another
night that looks like a slower step, in fresh processes again and again. Side by side, both meet it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from optbench.errors import UsageError
from optbench.regress import sides, timing
from optbench.regress.measuring import Measuring
from optbench.regress.presence import presence
from optbench.regress.readings import Readings
from optbench.regress.rounds import Round, time_answer
from optbench.regress.sides import Side
from optbench.regress.timing import Timed

# What has to be the same for an environment to be the baseline's.
_OF_AN_ENVIRONMENT = ("python", "packages")


def take(
    measuring: Measuring, *, here: Side, baseline: Readings, make: Callable[[str], Side] = sides.make
) -> tuple[Timed, Mapping[str, str]]:
    """Time steps against a stored baseline.

    One round tells which are in doubt. Those are timed anew: beside the baseline's environment, or against its stored
    times again where that cannot be had.

    Args:
        measuring: asks sides.
        here: this side.
        baseline: what was accepted.
        make: the environment of a commit.

    Returns:
        The times, and what there is to say of how a doubt was settled, by subject.
    """
    timed = timing.take(measuring, here=here, there=None, baseline=baseline, max_rounds=1)
    alone = [subject for subject, rounds in timed.rounds.items() if time_answer(rounds) is None]
    new = Readings(asked=measuring.plan.asked, samples=timed.here)
    known = [subject for subject in alone if _is_comparable(subject, baseline, new)]
    remarks: dict[str, str] = {}
    if known:
        try:
            there = _environment_of(baseline, measuring, make=make, subject=known[0])
        except UsageError as error:
            reason = f"the baseline's environment could not be measured beside this one: {error}"
            measuring.say(f"{len(known)} in doubt; {reason}")
            remarks = dict.fromkeys(known, reason)
        else:
            measuring.say(f"{len(known)} in doubt: once more, beside {there.name}")
            remarks = {subject: _remark(timed.rounds[subject][0], there) for subject in known}
            timed = _with(timed, timing.take(measuring, here=here, there=there, baseline=None, only=known))
            alone = [subject for subject in alone if subject not in known]
    if alone:
        timed = _with(timed, timing.take(measuring, here=here, there=None, baseline=baseline, only=alone))
    return timed, remarks


def _is_comparable(subject: str, old: Readings, new: Readings) -> bool:
    return presence(subject, old.samples.get(subject) or None, new.samples.get(subject), old=old, new=new)[0] is None


def _with(timed: Timed, again: Timed) -> Timed:
    return replace(
        timed,
        rounds={**timed.rounds, **again.rounds},
        here={**timed.here, **again.here},
        failures={**timed.failures, **again.failures},
    )


def _environment_of(baseline: Readings, measuring: Measuring, *, make: Callable[[str], Side], subject: str) -> Side:
    """The environment that the baseline was measured in, made again.

    Raises:
        UsageError: it cannot be had, or is another.
    """
    commit, is_modified = baseline.environment.get("commit"), baseline.environment.get("modified")
    if not commit:
        raise UsageError("it is of no commit")
    if is_modified is not False:
        raise UsageError(f"its checkout had changes that commit {commit[:10]} does not have")
    try:
        there = replace(make(commit), name=f"the baseline's commit {commit[:10]}")
        found = measuring.exact(there, only=[subject]).environment
    except UsageError as error:
        raise UsageError(str(error).removeprefix(f"--against {commit}: ").partition("\n")[0]) from error
    for key in _OF_AN_ENVIRONMENT:
        if found.get(key) != baseline.environment.get(key):
            raise UsageError(f"{key} of commit {commit[:10]} would be others than were installed then")
    return there


def _remark(first: Round, there: Side) -> str:
    stored = f"{first.ratio:.3f}{' (noisy)' if first.is_noisy else ''}"
    return f"beside {there.name}; against its stored times it was {stored}"
