"""Schedules: pure functions from progress to the factor of the peak rate.

Progress is the part of the budget that is spent, in [0, 1): steps done over steps allowed, or seconds for a
budget in seconds. A schedule therefore means the same for any length of training. Each can be preceded by a
linear warm-up: `warmup` is the part of the budget that it takes, and the shape is drawn over what remains. As
in Hugging Face's schedulers, the very first step of a warm-up has rate 0.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from optbench.errors import UsageError

Schedule: TypeAlias = Callable[[float], float]


def constant(*, warmup: float) -> Schedule:
    """The peak rate throughout."""
    return _warmed_up(warmup, lambda _: 1.0)


def linear(*, final_factor: float, warmup: float) -> Schedule:
    """A straight line from the peak rate to `final_factor` times it."""
    _check_factor("final_factor", final_factor)
    return _warmed_up(warmup, lambda progress: 1.0 + (final_factor - 1.0) * progress)


def cosine(*, final_factor: float, warmup: float) -> Schedule:
    """Half a cosine from the peak rate to `final_factor` times it (Loshchilov and Hutter, 2017, eq. 5)."""
    _check_factor("final_factor", final_factor)

    def factor(progress: float) -> float:
        return final_factor + (1.0 - final_factor) * 0.5 * (1.0 + math.cos(math.pi * progress))

    return _warmed_up(warmup, factor)


def step(*, milestones: Sequence[float], gamma: float, warmup: float) -> Schedule:
    """The rate times `gamma` at each of the `milestones`, given in progress."""
    _check_factor("gamma", gamma)
    if any(not 0.0 < milestone < 1.0 for milestone in milestones):
        raise UsageError(f"schedule.milestones={list(milestones)}: each lies between 0 and 1, as a part of the budget.")
    return _warmed_up(warmup, lambda progress: gamma ** sum(progress >= milestone for milestone in milestones))


def inverse_sqrt(*, timescale: float, warmup: float) -> Schedule:
    """1/sqrt(1 + progress/timescale).

    With `timescale = warmup/(1 - warmup)` this is the schedule of Vaswani et al. (2017, eq. 3).
    """
    if not timescale > 0.0:
        raise UsageError(f"schedule.timescale={timescale}: it must be above 0.")
    return _warmed_up(warmup, lambda progress: 1.0 / math.sqrt(1.0 + progress / timescale))


def flat_inverse_sqrt(*, flat: float, warmup: float) -> Schedule:
    """The peak rate for the part `flat`, and from there on it times sqrt(flat/progress).

    With `flat` of 10,000 steps at a rate of 0.01 this is the rate min(0.01, 1/sqrt(step)) of Chowdhery et al. (2022).
    """
    if not 0.0 < flat <= 1.0:
        raise UsageError(f"schedule.flat={flat}: a part of the budget, above 0 and at most 1.")
    return _warmed_up(warmup, lambda progress: math.sqrt(flat / max(flat, progress)))


def _check_factor(key: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise UsageError(f"schedule.{key}={value}: a factor of the peak rate, from 0 to 1.")


def _warmed_up(warmup: float, shape: Schedule) -> Schedule:
    if not 0.0 <= warmup < 1.0:
        raise UsageError(f"schedule.warmup={warmup}: a part of the budget, at least 0 and below 1.")

    def factor(progress: float) -> float:
        if progress < warmup:
            return progress / warmup
        return shape((progress - warmup) / (1.0 - warmup))

    return factor
