"""From the readings of two sides to a finding for each metric: bytes and counts exactly, others by their own rules."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from optbench.regress.findings import Answer, Finding
from optbench.regress.losses import bits, losses
from optbench.regress.presence import presence
from optbench.regress.readings import Readings
from optbench.regress.rounds import Round, times

STATE = "state_bytes"
FIGURES: Mapping[str, str] = {
    STATE: "state bytes",
    "num_operations": "dispatched operations",
    "peak_bytes": "predicted peak bytes",
}


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a suite is to measure, so that what neither side has is missed.

    Attributes:
        trials: subjects that train.
        steps: subjects that take steps.
        is_timed: whether the steps are timed.
    """

    trials: Sequence[str] = ()
    steps: Sequence[str] = ()
    is_timed: bool = False


NOTHING = Expected()


def judge(
    old: Readings | None,
    new: Readings,
    *,
    rounds: Mapping[str, Sequence[Round]],
    expected: Expected = NOTHING,
    remarks: Mapping[str, str] | None = None,
) -> list[Finding]:
    """A finding for each metric of either side.

    Args:
        old: the baseline; None where there is none, and all is new.
        new: of this side.
        rounds: of the times, by subject.
        expected: what there has to be a finding of.
        remarks: what else there is to say of the time of a step, by subject.
    """
    before = old or Readings()
    timed = expected.steps if expected.is_timed else ()
    return [
        *exact(before, new, expected=expected.steps),
        *bits(before, new),
        *losses(before, new, expected=expected.trials),
        *(_remarked(one, remarks or {}) for one in times(before, new, rounds=rounds, expected=timed)),
    ]


def _remarked(finding: Finding, remarks: Mapping[str, str]) -> Finding:
    said = [finding.note, remarks.get(finding.subject, "")]
    return replace(finding, note="; ".join(filter(None, said)))


def exact(old: Readings, new: Readings, *, expected: Sequence[str]) -> Iterator[Finding]:
    """Bytes and counts: more is worse, less is another number and no worse."""
    for subject in dict.fromkeys([*expected, *new.exact, *old.exact]):
        before, now = old.exact.get(subject, {}), new.exact.get(subject, {})
        for name in dict.fromkeys([*FIGURES, *now, *before]):
            # The state has bytes whatever the optimizer; the others cannot be had of each.
            if name in before or name in now or (name == STATE and subject in expected):
                yield _exact_finding(subject, name, old=old, new=new)


def _exact_finding(subject: str, name: str, *, old: Readings, new: Readings) -> Finding:
    before, now = _number(old.exact, subject, name), _number(new.exact, subject, name)
    answer, note = presence(subject, before, now, old=old, new=new)
    if answer is None:
        assert before is not None
        assert now is not None
        difference = now - before
        answer = Answer.FAIL if difference > 0 else Answer.CHANGED if difference < 0 else Answer.PASS
    return Finding(
        kind="exact",
        subject=subject,
        figure=FIGURES.get(name, name.replace("_", " ")),
        answer=answer,
        old=before,
        new=now,
        ratio=now / before if before and now is not None else None,
        note=note,
    )


def _number(figures: Mapping[str, Mapping[str, int]], subject: str, name: str) -> int | None:
    found = figures.get(subject, {}).get(name)
    return found if type(found) is int else None  # whatever else it is, it is no count
