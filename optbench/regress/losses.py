"""Final losses of two sides, seed by seed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import stdev
from typing import Any

from optbench.regress.findings import WORST_FIRST, Answer, Finding
from optbench.regress.presence import presence
from optbench.regress.readings import Final, Readings
from optbench.stats import difference, estimate

# Of a final loss, as a factor.
MIN_EFFECT = 1.02
# Of the seeds' own standard deviation.
MIN_SHARE_OF_SPREAD = 0.5
DIVERGED = "diverged"
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


def losses(old: Readings, new: Readings, *, expected: Sequence[str]) -> Iterator[Finding]:
    """A finding for each subject that trains."""
    for subject in dict.fromkeys([*expected, *new.finals, *old.finals]):
        yield loss_finding(subject, old=old, new=new)


def loss_finding(subject: str, *, old: Readings, new: Readings) -> Finding:
    """The final losses of one subject: paired log-ratios over the seeds that both sides have.

    Worse are means beyond `MIN_EFFECT` and beyond half the standard deviation of the baseline's seeds, of which both
    the bootstrap interval and Student's, at 95 %, exclude 0: with few seeds the first is too narrow. So is a seed that
    has come to diverge, or to a loss that is not finite. Of several things to say, the worst decides.
    """
    before, now = old.finals.get(subject, {}), new.finals.get(subject, {})
    seeds = [seed for seed in now if seed in before]
    both = [[_loss(side[seed]) for seed in seeds] for side in (before, now)]
    answer, note = presence(subject, before or None, now or None, old=old, new=new)
    figures: dict[str, Any] = {}
    if answer is None:
        pairs = {seed: (one, two) for seed, one, two in zip(seeds, *both, strict=True) if one and two}
        (answer, note), figures = _compared(pairs)
        said = [(answer, note), *_trouble(before, now)]
        answer = min((its for its, _ in said), key=WORST_FIRST.index)
        note = "; ".join(text for its, text in said if its is answer and text)
    return Finding(
        kind="loss",
        subject=subject,
        figure=LOSS,
        answer=answer,
        **{"old": _mean(both[0]), "new": _mean(both[1]), **figures},
        old_samples=both[0],
        new_samples=both[1],
        note=note,
    )


def _trouble(before: Mapping[str, Final], now: Mapping[str, Final]) -> Iterator[tuple[Answer, str]]:
    """What needs no statistics: seeds that are gone, have come to diverge, to crash, to no loss at all, or to one."""
    kinds: dict[tuple[Answer, str], list[str]] = {}
    for seed in dict.fromkeys([*before, *now]):
        if (kind := _kind(before.get(seed), now.get(seed))) is not None:
            kinds.setdefault(kind, []).append(seed)
    for (answer, what), seeds in kinds.items():
        yield answer, f"{what} with seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"


def _kind(before: Final | None, now: Final | None) -> tuple[Answer, str] | None:
    """What there is to say of one seed besides the ratio of its losses."""
    if now is None:
        return Answer.BROKEN, "no result"
    if before is None:
        return Answer.UNCOMPARED, "the other side has no result"
    if now.status == DIVERGED:
        return None if before.status == DIVERGED else (Answer.FAIL, "diverged, and did not before,")
    if not now.succeeded:
        return Answer.BROKEN, now.status.replace("_", " ")
    if _loss(now) is None:
        return _without_loss(before, now)
    if before.status == DIVERGED:
        return Answer.IMPROVED, "no longer diverges"
    return None if _loss(before) is not None else (Answer.UNCOMPARED, "the other side has no loss")


def _without_loss(before: Final, now: Final) -> tuple[Answer, str] | None:
    if _is_finite(now.loss):
        return None if now.loss == before.loss else (Answer.UNCOMPARED, "a loss that is not above 0")
    return (Answer.FAIL, "no finite loss") if _is_finite(before.loss) else (Answer.UNCOMPARED, "no loss on either side")


def _is_finite(loss: float | None) -> bool:
    return isinstance(loss, float) and math.isfinite(loss)


def _compared(pairs: Mapping[str, tuple[float, float]]) -> tuple[tuple[Answer, str], dict[str, float | None]]:
    """What the ratios say, and the ratio with its interval."""
    if all(one == two for one, two in pairs.values()):
        return (Answer.PASS, ""), dict.fromkeys(("ratio", "low", "high"), 1.0) if pairs else {}
    old, new = (dict(enumerate(math.log(pair[side]) for pair in pairs.values())) for side in (0, 1))
    interval = estimate([new[seed] - old[seed] for seed in old])
    student = difference(old, new)
    figures = {
        "ratio": math.exp(interval.mean),
        "low": None if interval.low is None else math.exp(interval.low),
        "high": None if interval.high is None else math.exp(interval.high),
    }
    if interval.low is None or interval.high is None or student is None:
        return (Answer.UNKNOWN, "changed, and one seed cannot tell whether that is noise"), figures
    lows, highs = (
        [bound for bound in pair if bound is not None]
        for pair in ((interval.low, student.low), (interval.high, student.high))
    )
    least = max(math.log(MIN_EFFECT), MIN_SHARE_OF_SPREAD * stdev(old.values()))
    if min(lows) > 0.0 and interval.mean > least:
        return (Answer.FAIL, f"above the least effect of {math.exp(least):.3f}"), figures
    if max(highs) < 0.0 and interval.mean < -least:
        return (Answer.IMPROVED, ""), figures
    return (Answer.PASS, ""), figures


def _loss(final: Final) -> float | None:
    """A loss of which there is a logarithm; None where it is none."""
    found = final.loss
    return found if final.succeeded and isinstance(found, float) and 0.0 < found < math.inf else None


def _mean(losses: Sequence[float | None]) -> float | None:
    known = [loss for loss in losses if loss is not None]
    return math.fsum(known) / len(known) if known else None
