"""Times of a step on two sides, in rounds of fresh processes.

The rule was chosen on measured noise: a mean or a significance test of step times alarms at the noise of a shared
machine, and the tenth percentile of a process hardly does, since contention only adds time. What differs from process
to process is the same within one, so processes are what is repeated.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from optbench.regress.findings import Answer, Finding
from optbench.regress.presence import presence
from optbench.regress.readings import Readings, Sample

# A step that takes so many times as long is slower; and a round in which the same code differs so much from itself is
# noise.
MAX_RATIO = 1.10
# Up to here there is no need to look again.
SUSPICIOUS = 1.05
# The rounds of fresh processes that it takes to call a step slower, each by itself, and those after which nobody knows.
# Two rounds that said so together called 1 of 254 steps slower that were held against themselves on a busy machine; put
# together anew from the same processes, 1 of 560. With three, each by itself, it is 1 of 6,600.
NUM_ROUNDS = 3
MAX_ROUNDS = 8
TIME = "step time"


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of processes that timed a step, in turn.

    Attributes:
        old: of the baseline: seconds of a process where it ran beside the others, else in multiples of the kernel.
        new: of this side, in the same unit.
        control: of this side once more: the same code in other processes.
        is_paired: whether the old ones ran beside the new ones.
        kernel_ratio: of the kernel's own seconds, now over then, where they did not: how much else the machine has to
            do now, or less. What slows it down does not slow all down alike.
    """

    old: Sequence[float]
    new: Sequence[float]
    control: Sequence[float]
    is_paired: bool
    kernel_ratio: float = 1.0

    @property
    def current(self) -> list[float]:
        """All of this side: what the control has measured is as good as the rest."""
        return [*self.new, *self.control]

    @property
    def ratio(self) -> float:
        """New over old, by the medians; where they ran in pairs, by the pairs if that says less."""
        if not self.is_paired:
            return _divided(median(self.current), median(self.old))
        return min(_ratios(self.current, [*self.old, *self.old]), key=_distance)

    @property
    def control_ratio(self) -> float:
        """The same code's ratio to itself, by the medians or by the pairs, whichever says more."""
        return max(_ratios(self.control, self.new), key=_distance)

    @property
    def is_noisy(self) -> bool:
        """Whether nothing can be told by this round."""
        return not all(1.0 / MAX_RATIO <= ratio <= MAX_RATIO for ratio in (self.control_ratio, self.kernel_ratio))

    @property
    def is_whole(self) -> bool:
        """Whether every process has a figure."""
        return all(map(_is_whole, (self.old, self.new, self.control)))

    @property
    def is_hopeless(self) -> bool:
        """Whether not a single process of this side has a figure: more of them would have none either."""
        return not any(_is_whole([value]) for value in self.current)

    @property
    def tells(self) -> bool:
        """Whether it counts."""
        return self.is_whole and not self.is_noisy


def joined(rounds: Sequence[Round]) -> Round | None:
    """All rounds that count as one; None where none does."""
    telling = [one for one in rounds if one.tells]
    if not telling:
        return None
    return Round(
        # Against a stored baseline each round has the same old ones.
        old=[value for one in telling for value in one.old] if telling[0].is_paired else telling[0].old,
        new=[value for one in telling for value in one.new],
        control=[value for one in telling for value in one.control],
        is_paired=telling[0].is_paired,
        kernel_ratio=telling[-1].kernel_ratio,
    )


def time_answer(rounds: Sequence[Round]) -> Answer | None:
    """What these rounds say; None where one more has to.

    A step is slower where at least three rounds of fresh processes say so, each by itself, all of them do together, and
    the last is at least suspicious; faster in the same way. It passes as soon as the rounds together are neither
    suspicious nor faster. Rounds that are noisy do not count.
    """
    if any(one.is_hopeless for one in rounds):
        return Answer.BROKEN
    if rounds and not any(_is_whole([value]) for one in rounds for value in one.old):
        return Answer.UNCOMPARED
    telling = [one for one in rounds if one.tells]
    overall = joined(rounds)
    if overall is not None:
        if 1.0 / MAX_RATIO <= overall.ratio <= SUSPICIOUS:
            return Answer.PASS
        ratios = [one.ratio for one in telling]
        if _is_slower(overall.ratio, ratios):
            return Answer.FAIL
        if _is_slower(1.0 / overall.ratio, [1.0 / ratio for ratio in ratios]):
            return Answer.IMPROVED
    if len(rounds) < MAX_ROUNDS:
        return None
    if overall is not None and len(telling) >= NUM_ROUNDS and overall.ratio <= MAX_RATIO:
        return Answer.PASS
    return Answer.UNKNOWN if any(one.is_whole for one in rounds) else Answer.BROKEN


def _is_slower(overall: float, ratios: Sequence[float]) -> bool:
    return overall > MAX_RATIO and ratios[-1] > SUSPICIOUS and sum(one > MAX_RATIO for one in ratios) >= NUM_ROUNDS


def value_of(sample: Sample, *, on_gpu: bool, in_kernels: bool) -> float:
    """The figure of a process: a quick step on a CPU, where others only add time; the median on a GPU.

    Not the very quickest, which chance gives to some processes and not to others.
    """
    step, kernel = (sample.median, sample.kernel_median) if on_gpu else (sample.p10, sample.kernel_p10)
    return _divided(step, kernel) if in_kernels else step


def is_on_gpu(readings: Readings) -> bool:
    """Whether the device was one."""
    return readings.environment.get("device_type") == "cuda"


def times(
    old: Readings, new: Readings, *, rounds: Mapping[str, Sequence[Round]], expected: Sequence[str]
) -> Iterator[Finding]:
    """A finding for each subject whose steps were timed, or had to be."""
    for subject in dict.fromkeys([*expected, *new.samples, *old.samples]):
        before, now = old.samples.get(subject), new.samples.get(subject)
        answer, note = presence(subject, before or None, now or None, old=old, new=new)
        if answer is None:
            yield _time_finding(subject, rounds.get(subject, ()))
            continue
        if answer is Answer.NEW and time_answer(own := rounds.get(subject, ())) is Answer.UNKNOWN:
            answer, note = Answer.UNKNOWN, _time_note(Answer.UNKNOWN, own)  # no figure that a baseline could keep
        values = [value_of(one, on_gpu=is_on_gpu(new), in_kernels=True) for one in now or ()]
        yield Finding(
            kind="time",
            subject=subject,
            figure=TIME,
            answer=answer,
            new=median(values) if values else None,
            new_samples=values,
            note=note,
        )


def _time_finding(subject: str, rounds: Sequence[Round]) -> Finding:
    answer = (time_answer(rounds) if rounds else None) or Answer.UNKNOWN
    whole = [one for one in rounds if one.is_whole]
    shown = joined(rounds) or (whole[-1] if whole else None)
    return Finding(
        kind="time",
        subject=subject,
        figure=TIME,
        answer=answer,
        old=median(shown.old) if shown else None,
        new=median(shown.current) if shown else None,
        ratio=shown.ratio if shown else None,
        control=shown.control_ratio if shown else None,
        old_samples=shown.old if shown else (),
        new_samples=shown.current if shown else (),
        note=_time_note(answer, rounds),
        is_beside=shown is not None and shown.is_paired,
    )


def _time_note(answer: Answer, rounds: Sequence[Round]) -> str:
    whole = [one for one in rounds if one.is_whole]
    ratios = ", ".join(f"{one.ratio:.3f}{' (noisy)' if one.is_noisy else ''}" for one in whole)
    controls = ", ".join(f"{one.control_ratio:.3f}" for one in whole)
    match answer:
        case Answer.FAIL:
            return f"slower in {len(rounds)} rounds of fresh processes: {ratios}"
        case Answer.UNKNOWN:
            kernels = ", ".join(f"{one.kernel_ratio:.3f}" for one in whole if not one.is_paired)
            now = f", and the kernel took {kernels} times what it did then" if kernels else ""
            return (
                f"too noisy: over {len(rounds)} rounds {ratios or 'no figure'}, while the same code's ratio to itself "
                f"was {controls or 'not measured'}{now}"
            )
        case Answer.BROKEN:
            return "processes that were to time it have no figure"
        case Answer.UNCOMPARED:
            return "the other side has no figure"
        case _ if len(rounds) > 1:
            return f"over {len(rounds)} rounds of fresh processes: {ratios}"
        case _:
            return ""


def _ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, float]:
    """Of the medians, and the median of those of pairs: chance seldom leads both astray, a change shows in both."""
    pairs = [_divided(one, two) for one, two in zip(above, below, strict=False)]
    return _divided(median(above), median(below)), median(pairs)


def _distance(ratio: float) -> float:
    """How far it is from 1."""
    return abs(math.log(ratio)) if 0.0 < ratio < math.inf else math.inf


def _is_whole(values: Sequence[float]) -> bool:
    return bool(values) and all(0.0 < value < math.inf for value in values)


def _divided(one: float, two: float) -> float:
    return one / two if two else math.nan
