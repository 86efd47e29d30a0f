"""Final losses of two sides, seed by seed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import stdev

from optbench.regress.findings import Answer, Finding
from optbench.regress.presence import presence
from optbench.regress.readings import Final, Readings
from optbench.stats import estimate

# Of a final loss, as a factor.
MIN_EFFECT = 1.02
# Of the seeds' own standard deviation.
MIN_SHARE_OF_SPREAD = 0.5
BITS = "final loss bits"
LOSS = "final loss"


def bits(old: Readings, new: Readings) -> Iterator[Finding]:
    """Whether final losses are the same to the last bit, where both sides are such that they have to be."""
    if old.bits_key != new.bits_key:
        return
    for subject, finals in new.finals.items():
        before = old.finals.get(subject, {})
        seeds = [seed for seed in finals if seed in before]
        if not seeds or old.asked.get(subject) != new.asked.get(subject):
            continue
        others = [seed for seed in seeds if finals[seed] != before[seed]]
        yield Finding(
            kind="exact",
            subject=subject,
            figure=BITS,
            answer=Answer.CHANGED if others else Answer.PASS,
            note=f"changed with {len(others)} of {len(seeds)} seeds; the final loss tells whether it is worse"
            if others
            else "",
        )


def losses(old: Readings, new: Readings) -> Iterator[Finding]:
    """A finding for each subject that trains."""
    for subject in dict.fromkeys([*new.finals, *old.finals]):
        yield loss_finding(subject, old=old, new=new)


def loss_finding(subject: str, *, old: Readings, new: Readings) -> Finding:
    """The final losses of one subject: paired log-ratios over the seeds that both sides have.

    Worse is a bootstrap interval at 95 % of their mean that excludes 0, and a mean beyond `MIN_EFFECT` and beyond half
    the standard deviation of the baseline's seeds; or a seed that has come to diverge, or to a loss that is not finite.
    """
    before, now = old.finals.get(subject, {}), new.finals.get(subject, {})
    seeds = [seed for seed in now if seed in before]
    both = [[side[seed].loss for seed in seeds] for side in (before, now)]

    def found(answer: Answer, note: str = "", **figures: float | None) -> Finding:
        means = [_mean(side) for side in both]
        return Finding(
            kind="loss",
            subject=subject,
            figure=LOSS,
            answer=answer,
            **{"old": means[0], "new": means[1], **figures},
            old_samples=both[0],
            new_samples=both[1],
            note=note,
        )

    answer, note = presence(subject, before or None, now or None, old=old, new=new)
    if answer is not None:
        return found(answer, note)
    if trouble := _trouble(before, now):
        return found(*trouble)
    pairs = [(one, two) for one, two in zip(*both, strict=True) if one is not None and two is not None]
    if not pairs:
        return found(Answer.PASS, "it fails on both sides, with each seed in the same way")
    if all(one == two for one, two in pairs):
        return found(Answer.PASS, ratio=1.0, low=1.0, high=1.0)
    if any(not (0.0 < value < math.inf) for pair in pairs for value in pair):
        return found(Answer.UNKNOWN, "a loss is not above 0, so that there is no ratio")
    ratios = [math.log(two / one) for one, two in pairs]
    interval = estimate(ratios)
    figures = {
        "ratio": math.exp(interval.mean),
        "low": None if interval.low is None else math.exp(interval.low),
        "high": None if interval.high is None else math.exp(interval.high),
    }
    if interval.low is None or interval.high is None:
        return found(Answer.UNKNOWN, "changed, and one seed cannot tell whether that is noise", **figures)
    spread = stdev([math.log(one) for one, _ in pairs])
    least = max(math.log(MIN_EFFECT), MIN_SHARE_OF_SPREAD * spread)
    if interval.low > 0.0 and interval.mean > least:
        return found(Answer.FAIL, f"above the least effect of {math.exp(least):.3f}", **figures)
    if interval.high < 0.0 and interval.mean < -least:
        return found(Answer.IMPROVED, "", **figures)
    return found(Answer.PASS, "", **figures)


def _trouble(before: Mapping[str, Final], now: Mapping[str, Final]) -> tuple[Answer, str] | None:
    """What needs no statistics: seeds that are gone, have come to diverge, to crash, or to no loss at all."""
    if lost := [seed for seed in before if seed not in now]:
        return Answer.BROKEN, f"no result with {_seeds(lost)}"
    shared = {seed: (before[seed], now[seed]) for seed in now if seed in before}
    by_status: dict[str, list[str]] = {}
    for seed, (one, two) in shared.items():
        if two.status != one.status:
            by_status.setdefault(two.status, []).append(seed)
        elif two.loss is None and one.loss is not None:
            by_status.setdefault("not finite", []).append(seed)
        elif one.loss is None and two.loss is not None:
            return Answer.UNKNOWN, f"the baseline has no loss with {_seeds([seed])}"
    for status, seeds in by_status.items():
        if status == "diverged":
            return Answer.FAIL, f"diverged with {_seeds(seeds)}, and did not before"
        if status == "not finite":
            return Answer.FAIL, f"no finite loss with {_seeds(seeds)}, and there was one before"
        if status not in ("completed", "reached_target"):
            return Answer.BROKEN, f"{status.replace('_', ' ')} with {_seeds(seeds)}"
        if any(now[seed].loss is None for seed in seeds):
            return Answer.FAIL, f"no finite loss with {_seeds(seeds)}"
    if by_status:  # all that differ succeed now
        (seeds,) = (
            by_status.values() if len(by_status) == 1 else ([seed for own in by_status.values() for seed in own],)
        )
        return Answer.IMPROVED, f"succeeds with {_seeds(seeds)}, and did not before"
    return None


def _seeds(seeds: Sequence[str]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"


def _mean(losses: Sequence[float | None]) -> float | None:
    known = [loss for loss in losses if loss is not None]
    return math.fsum(known) / len(known) if known else None
