"""What a stored baseline leaves in doubt is measured once more, beside the environment that the baseline is of.

For minutes a machine can slow one step down and not another, nor the calibration kernel: against figures of another
night that looks like a slower step, in fresh processes again and again. Side by side, both meet it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from optbench.errors import UsageError
from optbench.regress import sides, timing
from optbench.regress.findings import Answer
from optbench.regress.measuring import Measuring
from optbench.regress.readings import Readings
from optbench.regress.rounds import joined, time_answer
from optbench.regress.sides import Side
from optbench.regress.timing import Timed

_DOUBTFUL = (Answer.FAIL, Answer.UNKNOWN, Answer.IMPROVED)
# What has to be the same for an environment to be the baseline's.
_OF_AN_ENVIRONMENT = ("python", "packages")


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Times, and what there is to say of how they were settled.

    Attributes:
        timed: with the rounds beside the baseline's environment in place of those that left a doubt.
        remarks: by subject, a sentence each.
    """

    timed: Timed
    remarks: Mapping[str, str]


def settle(
    measuring: Measuring,
    timed: Timed,
    *,
    here: Side,
    baseline: Readings,
    make: Callable[[str], Side] = sides.make,
) -> Settled:
    """Time what is in doubt beside the baseline's environment; what cannot be settled stays as it was.

    Args:
        measuring: asks sides.
        timed: against the baseline's stored times.
        here: this side.
        baseline: what was accepted.
        make: the environment of a commit.
    """
    doubtful = [
        subject
        for subject, rounds in timed.rounds.items()
        if baseline.samples.get(subject)
        and baseline.asked.get(subject) == measuring.plan.asked.get(subject)
        and time_answer(rounds) in _DOUBTFUL
    ]
    if not doubtful:
        return Settled(timed=timed, remarks={})
    try:
        there = _environment_of(baseline, measuring, make=make, subject=doubtful[0])
    except UsageError as error:
        reason = f"the baseline's environment could not be measured beside this one: {error}"
        measuring.say(reason)
        return Settled(timed=timed, remarks=dict.fromkeys(doubtful, reason))
    measuring.say(f"{len(doubtful)} in doubt: once more, beside {there.name}")
    again = timing.take(measuring, here=here, there=there, baseline=None, only=doubtful)
    return Settled(
        timed=replace(
            timed,
            rounds={**timed.rounds, **again.rounds},
            here={**timed.here, **again.here},
            failures={**timed.failures, **again.failures},
        ),
        remarks={subject: _remark(timed, subject, there) for subject in doubtful},
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


def _remark(timed: Timed, subject: str, there: Side) -> str:
    rounds = timed.rounds[subject]
    overall = joined(rounds)
    ratio = "too noisy to tell" if overall is None else f"{overall.ratio:.3f}"
    return f"beside {there.name}; against its stored times it was {ratio}"
