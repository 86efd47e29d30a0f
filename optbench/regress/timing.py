"""Rounds of processes that time steps: sides in turn, until every step has an answer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optbench.regress.measuring import Measuring, step_subject
from optbench.regress.readings import Readings, Sample
from optbench.regress.rounds import MAX_ROUNDS, Round, is_on_gpu, time_answer, value_of
from optbench.regress.sides import Side

_OLD, _NEW, _CONTROL = "old", "new", "control"


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What rounds have given.

    Attributes:
        rounds: by subject; none of those that the baseline does not have.
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


def take(measuring: Measuring, *, here: Side, there: Side | None, baseline: Readings | None) -> Timed:
    """Time steps: at first all, then those that seem slower or met too much noise, each time in fresh processes.

    Args:
        measuring: asks sides.
        here: this side, which also runs once more as the control.
        there: the other side; None holds this one's multiples of the kernel against the baseline's.
        baseline: with the samples of an earlier night; None where there is none, or the other side is measured.
    """
    plan = measuring.plan
    waiting = [step_subject(config) for configs in plan.steps.values() for config in configs]
    rounds: dict[str, list[Round]] = {}
    samples: dict[str, dict[str, list[Sample]]] = {_OLD: {}, _NEW: {}, _CONTROL: {}}
    failures: dict[str, str] = {}
    environment: Mapping[str, Any] = {}
    order = [(_NEW, here), (_CONTROL, here)] if there is None else [(_OLD, there), (_NEW, here), (_CONTROL, here)]
    for number in range(1, MAX_ROUNDS + 1):
        what = f"{len(waiting)} steps" if len(waiting) > 3 else ", ".join(waiting)
        measuring.say(f"times of {what}: round {number}, {plan.suite.num_pairs * len(order)} processes")
        found: dict[str, list[Mapping[str, Sample]]] = {_OLD: [], _NEW: [], _CONTROL: []}
        for pair in range(plan.suite.num_pairs):
            turned = order if pair % 2 == 0 else order[::-1]
            taken = measuring.samples([side for _, side in turned], waiting)
            for (who, side), own in zip(turned, taken, strict=True):
                found[who].append(own.samples)
                for subject, sample in own.samples.items():
                    samples[who].setdefault(subject, []).append(sample)
                if side is here:
                    environment = own.environment or environment
                    failures |= own.failures
        on_gpu = is_on_gpu(Readings(environment=environment))
        still = []
        for subject in waiting:
            earlier = None if baseline is None else baseline.samples.get(subject)
            if there is None and not earlier:
                continue  # nothing to hold it against
            one = _round(subject, found, earlier=earlier, on_gpu=on_gpu)
            rounds.setdefault(subject, []).append(one)
            if time_answer(rounds[subject]) is None:
                still.append(subject)
        waiting = still
        if not waiting:
            break
    both = {
        subject: [*samples[_NEW].get(subject, ()), *samples[_CONTROL].get(subject, ())]
        for subject in dict.fromkeys([*samples[_NEW], *samples[_CONTROL]])
    }
    return Timed(rounds=rounds, here=both, there=samples[_OLD], environment=environment, failures=failures)


def _round(
    subject: str,
    found: Mapping[str, Sequence[Mapping[str, Sample]]],
    *,
    earlier: Sequence[Sample] | None,
    on_gpu: bool,
) -> Round:
    in_kernels = earlier is not None

    def values(who: str) -> list[float]:
        return [
            value_of(own[subject], on_gpu=on_gpu, in_kernels=in_kernels) if subject in own else math.nan
            for own in found[who]
        ]

    old = values(_OLD) if earlier is None else [value_of(one, on_gpu=on_gpu, in_kernels=True) for one in earlier]
    return Round(old=old, new=values(_NEW), control=values(_CONTROL), is_paired=earlier is None)
