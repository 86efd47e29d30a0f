"""How long a training step takes once it is warm, beside that of a reference in the same process."""

import gc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Protocol

import numpy as np
import torch

from optbench import building
from optbench.component import Capability
from optbench.cost import Phase, Spread, Time
from optbench.energy import MIN_SECONDS, Energy
from optbench.run import is_out_of_memory
from optbench.stepper import Stepper, take_until_unskipped
from optbench.task import Task
from optbench.trial import Trial

# A block is at least so long, far above the grain of a clock and what a synchronise takes.
MIN_BLOCK_SECONDS = 0.02
MIN_BLOCKS = 5
MAX_BLOCKS = 20
# Two blocks of a warm-up agree when the longer one is longer by no more than this.
AGREEMENT = 1.05
# Quick steps that never agree are given up.
MAX_WARMUP_BLOCKS = 50
# Of the budget, for the warm-up of each of both; the rest is for the blocks.
_WARMUP_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of steps, closed by one synchronise.

    Attributes:
        num_steps: that it holds.
        phases: seconds of the mean step in each phase; they add up to the step.
    """

    num_steps: int
    phases: Mapping[Phase, float]

    @property
    def step(self) -> float:
        """Seconds of the mean step."""
        return sum(self.phases.values())

    @property
    def seconds(self) -> float:
        """Of the whole block."""
        return self.num_steps * self.step


class Stopwatch(Protocol):
    """Tells apart what the phases take."""

    def mark(self, phase: Phase) -> None:
        """A phase begins, and the one before it ends."""

    def close(self) -> dict[Phase, float]:
        """Wait for the device; the seconds in each phase since the first mark, or the one after the last closing."""


class Course:
    """A training under way, taken in blocks of steps at its own constant rate.

    Args:
        task: what is trained.
        optimizer: of its model.
        trial: what both were made from.
        device: where.

    Attributes:
        trial: what it was made from.
    """

    def __init__(self, task: Task, optimizer: torch.optim.Optimizer, *, trial: Trial, device: torch.device) -> None:
        self.trial = trial
        self._stopwatch: Stopwatch = EventStopwatch(device) if device.type == "cuda" else ClockStopwatch()
        self._batches = task.batches()
        self._step_on = Stepper(
            task.loss,
            optimizer,
            capabilities=trial.optimizer.capabilities,
            max_grad_norm=trial.max_grad_norm,
            hardware=trial.hardware,
            mark=self._stopwatch.mark,
        )
        if Capability.TRAIN_EVAL in trial.optimizer.capabilities:
            getattr(optimizer, "train")()  # noqa: B009  # of such optimizers alone

    @property
    def period(self) -> int:
        """Of the optimizer: any so many steps in succession do the same work."""
        return self.trial.optimizer.period

    def first(self) -> Block:
        """Take the first step; and in half precision those after it that are skipped, so that no later one is."""
        block = self.take(1)
        take_until_unskipped(self._step_on, lambda: self.take(1))
        return block

    def take(self, num_steps: int) -> Block:
        """Take so many steps."""
        mark, batches, step_on = self._stopwatch.mark, self._batches, self._step_on
        for _ in range(num_steps):
            mark(Phase.DATA)
            batch = next(batches)
            mark(Phase.OPTIMIZER)
            step_on(batch)
        phases = self._stopwatch.close()
        return Block(num_steps=num_steps, phases={phase: seconds / num_steps for phase, seconds in phases.items()})

    def num_steps(self, seconds: float, *, step_seconds: float) -> int:
        """The steps of a block that takes at least so long, in whole periods."""
        period_seconds = step_seconds * self.period
        return self.period * max(1, math.ceil(seconds / period_seconds) if period_seconds else 1)


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """What came before the blocks.

    Attributes:
        first: the very first step.
        blocks: the others.
        is_steady: whether the last two of them agree.
    """

    first: Block
    blocks: Sequence[Block]
    is_steady: bool

    @property
    def num_steps(self) -> int:
        """All that were taken."""
        return sum(block.num_steps for block in (self.first, *self.blocks))

    @property
    def seconds(self) -> float:
        """That they took."""
        return sum(block.seconds for block in (self.first, *self.blocks))


def measure(trial: Trial, reference: Trial, device: torch.device, *, seconds: float = 2.0) -> Time:
    """Time the steps of a trial, and those of a reference in turn with them.

    Args:
        trial: its step is timed.
        reference: the same trial with another optimizer.
        device: where; it should be idle.
        seconds: to be spent on steps, besides the first ones; five blocks of each are taken whatever they take.

    Where the memory does not hold both, the trial is timed alone.

    Raises:
        UsageError: a trial is wrong.
        RuntimeError: in half precision no step is taken; and whatever a step raises, such as `torch.OutOfMemoryError`.
    """
    try:
        return _timed(trial, reference, device=device, seconds=seconds)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    gc.collect()  # out of the handler, since the error holds on to what was built
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return replace(_timed(trial, device=device, seconds=seconds), reference=reference.optimizer.name)


def _timed(*trials: Trial, device: torch.device, seconds: float) -> Time:
    courses = [
        Course(*building.build(one, device), trial=one, device=device)  # each from its own seed, as in training
        for one in trials
    ]
    return compare(*courses, seconds=seconds, energy=Energy(device))


def compare(course: Course, other: Course | None = None, *, seconds: float, energy: Energy) -> Time:
    """Time one course beside another.

    Args:
        course: the one that is timed.
        other: the reference; None is none.
        seconds: as in `measure`.
        energy: of the device.
    """
    both = (course,) if other is None else (course, other)
    for_warmup, for_blocks = _WARMUP_SHARE * seconds, (1.0 - 2.0 * _WARMUP_SHARE) * seconds
    block_seconds = max(MIN_BLOCK_SECONDS, for_blocks / (2 * MAX_BLOCKS))
    firsts = [one.first() for one in both]
    warmups = [
        warm_up(one, first, seconds=for_warmup, block_seconds=block_seconds)
        for one, first in zip(both, firsts, strict=True)
    ]
    sizes = [
        one.num_steps(block_seconds, step_seconds=warmup.blocks[-1].step)
        for one, warmup in zip(both, warmups, strict=True)
    ]
    gc.collect()  # what building and compiling left would be collected in a block
    blocks, *others = _in_turn(both, sizes, seconds=for_blocks)
    step = spread([block.step for block in blocks])
    pairs = [pair for two in others for pair in zip(blocks, two, strict=True)]
    optimizers = [(one.phases[Phase.OPTIMIZER], two.phases[Phase.OPTIMIZER]) for one, two in pairs]
    excess = warmups[0].seconds - warmups[0].num_steps * step.median
    return Time(
        step=step,
        phases=_phases(blocks),
        steps_per_block=sizes[0],
        period=course.period,
        num_warmup_steps=warmups[0].num_steps,
        is_steady=all(warmup.is_steady for warmup in warmups),
        first_step_seconds=firsts[0].step,
        compile_seconds=max(0.0, excess) if course.trial.hardware.compiles else None,
        reference=both[-1].trial.optimizer.name,
        reference_step=spread([two.step for _, two in pairs]) if pairs else None,
        reference_phases=_phases(others[0]) if pairs else None,
        ratio=spread([one.step / two.step for one, two in pairs]) if pairs else None,
        optimizer_ratio=spread([one / two for one, two in optimizers]) if pairs else None,
        joules_per_step=_joules_per_step(course, sizes[0], step_seconds=step.median, energy=energy),
    )


def warm_up(course: Course, first: Block, *, seconds: float, block_seconds: float) -> Warmup:
    """Take blocks until two in succession agree, or the time is spent; at least two.

    Args:
        course: whose first step was taken.
        first: that step.
        seconds: that may be spent.
        block_seconds: that a block should take.
    """
    blocks = [course.take(course.period)]
    while len(blocks) < MAX_WARMUP_BLOCKS:
        before = blocks[-1]
        block = course.take(course.num_steps(block_seconds, step_seconds=before.step))
        blocks.append(block)
        # One that is far shorter than it should be tells little: the first of quick steps.
        if before.seconds >= block_seconds / 2 and _agree(before.step, block.step):
            return Warmup(first=first, blocks=blocks, is_steady=True)
        # At the latest pace, so that a step that compiles again does not use up the time.
        if sum(one.num_steps for one in blocks) * block.step >= seconds:
            break
    return Warmup(first=first, blocks=blocks, is_steady=False)


def spread(values: Sequence[float]) -> Spread:
    """Of repeated measurements."""
    p10, median, p90 = (float(value) for value in np.percentile(values, [10, 50, 90]))
    return Spread(median=median, p10=p10, p90=p90, n=len(values))


class ClockStopwatch:
    """By the processor's clock, for a device that does its work at once."""

    def __init__(self) -> None:
        self._phase: Phase | None = None
        self._since = 0.0
        self._seconds = dict.fromkeys(Phase, 0.0)

    def mark(self, phase: Phase) -> None:
        """A phase begins."""
        now = perf_counter()
        if self._phase is not None:
            self._seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now

    def close(self) -> dict[Phase, float]:
        """The seconds in each phase."""
        assert self._phase is not None, "nothing was marked"
        self.mark(self._phase)
        found, self._seconds, self._phase = self._seconds, dict.fromkeys(Phase, 0.0), None
        return found


class EventStopwatch:
    """By events in the GPU's own queue, read when it is through: marks do not hold it up.

    A phase is what the GPU works on, or waits for, from one mark's place in the queue to the next one's.

    Args:
        device: a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: list[torch.cuda.Event] = []  # kept, since making one takes longer than recording it
        self._phases: list[Phase] = []

    def mark(self, phase: Phase) -> None:
        """A phase begins."""
        self._record(len(self._phases))
        self._phases.append(phase)

    def close(self) -> dict[Phase, float]:
        """Wait for the GPU; the seconds in each phase."""
        assert self._phases, "nothing was marked"
        torch.cuda.synchronize(self._device)
        self._record(len(self._phases))  # after that, so that work in other queues counts too
        self._events[len(self._phases)].synchronize()
        seconds = dict.fromkeys(Phase, 0.0)
        for index, phase in enumerate(self._phases):
            seconds[phase] += self._events[index].elapsed_time(self._events[index + 1]) / 1000.0
        self._phases.clear()
        return seconds

    def _record(self, index: int) -> None:
        if index == len(self._events):
            self._events.append(torch.cuda.Event(enable_timing=True))
        self._events[index].record()


def _in_turn(courses: Sequence[Course], sizes: Sequence[int], *, seconds: float) -> list[list[Block]]:
    """Pairs of blocks, as many as the time allows, each in the other order than the one before; or one course's."""
    blocks: list[list[Block]] = [[] for _ in courses]
    spent = 0.0
    while len(blocks[0]) < MIN_BLOCKS or (len(blocks[0]) < MAX_BLOCKS and spent < seconds):
        order = range(len(courses))
        for index in order if len(blocks[0]) % 2 == 0 else reversed(order):
            blocks[index].append(courses[index].take(sizes[index]))
            spent += blocks[index][-1].seconds
    return blocks


def _phases(blocks: Sequence[Block]) -> dict[str, Spread]:
    return {phase.value: spread([block.phases[phase] for block in blocks]) for phase in Phase}


def _joules_per_step(course: Course, num_steps: int, *, step_seconds: float, energy: Energy) -> float | None:
    """Over more blocks in succession, as long as the counter needs: one of those in turn is too short for it."""
    if not energy.is_known:
        return None
    num_blocks = math.ceil(1.1 * MIN_SECONDS / (num_steps * step_seconds))
    with energy:
        for _ in range(num_blocks):
            course.take(num_steps)
    return None if energy.joules is None else energy.joules / (num_blocks * num_steps)


def _agree(one: float, two: float) -> bool:
    return max(one, two) <= AGREEMENT * min(one, two)
