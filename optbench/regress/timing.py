"""Rounds of processes that time steps: sides in turn, until every step has an answer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from optbench.regress.measuring import Measuring
from optbench.regress.readings import Readings, Sample
from optbench.regress.rounds import MAX_ROUNDS, Round, is_on_gpu, time_answer, value_of
from optbench.regress.sides import Side

_OLD, _NEW, _CONTROL = "old", "new", "control"


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What rounds have given.

    Attributes:
        rounds: by subject; of those that the baseline does not have, against themselves.
        here: samples of this side, by subject.
        there: samples of the other side, where it ran beside this one.
        environment: of this side.
        failures: why subjects have no times.
    """

    rounds: Mapping[str, Sequence[Round]]
    here: Mapping[str, Sequence[Sample]]
    there: Mapping[str, Sequence[Sample]]
    environment: Mapping[str, Any]
    failures: Mapping[str, str]


def take(
    measuring: Measuring,
    *,
    here: Side,
    there: Side | None,
    baseline: Readings | None,
    only: Sequence[str] | None = None,
    max_rounds: int = MAX_ROUNDS,
) -> Timed:
    """Time steps: at first all, then those that seem slower or met too much noise, each time in fresh processes.

    Args:
        measuring: asks sides.
        here: this side, which also runs once more as the control.
        there: the other side; None holds this one's multiples of the kernel against the baseline's.
        baseline: with the samples of an earlier night; None where there is none, or the other side is measured.
        only: the steps; None is all of the suite.
        max_rounds: after which those without an answer are left without one.
    """
    plan = measuring.plan
    waiting = plan.subjects if only is None else list(only)
    rounds: dict[str, list[Round]] = {}
    taken: dict[str, list[_Taken]] = {subject: [] for subject in waiting}
    failures: dict[str, str] = {}
    environment: Mapping[str, Any] = {}
    order = [(_NEW, here), (_CONTROL, here)] if there is None else [(_OLD, there), (_NEW, here), (_CONTROL, here)]
    for number in range(1, max_rounds + 1):
        what = f"{len(waiting)} steps" if len(waiting) > 3 else ", ".join(waiting)
        measuring.say(f"times of {what}: round {number}, {plan.suite.num_pairs * len(order)} processes")
        found: dict[str, list[Mapping[str, Sample]]] = {_OLD: [], _NEW: [], _CONTROL: []}
        for pair in range(plan.suite.num_pairs):
            turned = order if pair % 2 == 0 else order[::-1]
            for (who, side), own in zip(turned, measuring.samples([side for _, side in turned], waiting), strict=True):
                found[who].append(own.samples)
                if side is here:
                    environment = own.environment or environment
                    failures |= own.failures
        on_gpu = is_on_gpu(Readings(environment=environment))
        for subject in waiting:
            earlier = None if baseline is None else baseline.samples.get(subject)
            one = _round(subject, found, earlier=earlier, is_alone=there is None, on_gpu=on_gpu)
            rounds.setdefault(subject, []).append(one)
            taken[subject].append(_Taken(who=found, subject=subject, counts=one.tells))
        waiting = [subject for subject in waiting if time_answer(rounds[subject]) is None]
        if not waiting:
            break
    samples = {
        side: {subject: kept for subject, each in taken.items() if (kept := _kept(each, names))}
        for side, names in (("here", (_NEW, _CONTROL)), ("there", (_OLD,)))
    }
    return Timed(
        rounds=rounds,
        here=samples["here"],
        there=samples["there"],
        environment=environment,
        failures={subject: reason for subject, reason in failures.items() if subject not in samples["here"]},
    )


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """What one round has of a subject, and whether it counts."""

    who: Mapping[str, Sequence[Mapping[str, Sample]]]
    subject: str
    counts: bool

    def of(self, names: Sequence[str]) -> list[Sample]:
        return [own[self.subject] for name in names for own in self.who[name] if self.subject in own]


def _kept(rounds: Sequence[_Taken], names: Sequence[str]) -> list[Sample]:
    """The samples of the rounds that count; of all, where none does."""
    counting = [one for one in rounds if one.counts] or rounds
    return [sample for one in counting for sample in one.of(names)]


def _round(
    subject: str,
    found: Mapping[str, Sequence[Mapping[str, Sample]]],
    *,
    earlier: Sequence[Sample] | None,
    is_alone: bool,
    on_gpu: bool,
) -> Round:
    def values(who: str) -> list[float]:
        return [
            value_of(own[subject], on_gpu=on_gpu, in_kernels=is_alone) if subject in own else math.nan
            for own in found[who]
        ]

    new, control = values(_NEW), values(_CONTROL)
    if not is_alone:
        return Round(old=values(_OLD), new=new, control=control, is_paired=True)
    if earlier:
        old = [value_of(one, on_gpu=on_gpu, in_kernels=True) for one in earlier]
        kernels = [_kernel(own[subject], on_gpu=on_gpu) for own in found[_NEW] if subject in own]
        before = median(_kernel(one, on_gpu=on_gpu) for one in earlier)
        ratio = median(kernels) / before if kernels and before else math.nan
        return Round(old=old, new=new, control=control, is_paired=False, kernel_ratio=ratio)
    return Round(old=new, new=new, control=control, is_paired=True)  # all there is to find out is the noise


def _kernel(sample: Sample, *, on_gpu: bool) -> float:
    """Seconds of the kernel."""
    return sample.kernel_median if on_gpu else sample.kernel_p10
