"""The time of a step: what belongs to which phase, what a block holds, and what it is compared with."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import groupby, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optbench import timing
from optbench.cost import Phase, Time
from optbench.costs import time_from_json
from optbench.energy import Energy
from optbench.optim.sam import SAM
from optbench.timing import Block, Course, EventStopwatch
from optbench.trial import Trial
from tests import handmade
from tests.conftest import MakeTrial

CPU = torch.device("cpu")
DATA, FORWARD, BACKWARD, OPTIMIZER = 0.001, 0.002, 0.003, 0.004


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the stopwatch tells, to be moved by hand."""
    time = [0.0]
    monkeypatch.setattr(timing, "perf_counter", lambda: time[0])
    return time


class _Late(torch.autograd.Function):
    """The number itself, with a gradient that is late."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, now: list[float]) -> Tensor:
        ctx.now = now
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.now[0] += BACKWARD
        return gradients[0], None


class Parabola:
    """Minimise theta^2 / 2: data, loss and gradient each take their time of `now`."""

    def __init__(self, now: list[float]) -> None:
        self.model = nn.Linear(1, 1, bias=False)
        self._now = now

    def batches(self) -> Iterator[int]:
        for number in itertools.count():
            self._now[0] += DATA
            yield number

    def loss(self, batch: int) -> Tensor:
        self._now[0] += FORWARD
        return _Late.apply(0.5 * self.model.weight**2, self._now).sum()

    def evaluate(self) -> Mapping[str, float]:
        return {}


class Timed(torch.optim.SGD):
    """SGD whose step takes as long as `seconds` says of its number, from 0."""

    def __init__(self, task: Parabola, now: list[float], seconds: Callable[[int], float]) -> None:
        super().__init__(task.model.parameters(), lr=0.01)
        self.num_steps = 0
        self._now, self._seconds = now, seconds

    def step(self, closure: Any = None) -> Any:
        self._now[0] += self._seconds(self.num_steps)
        self.num_steps += 1
        return super().step(closure)


def course(
    now: list[float], seconds: Callable[[int], float] = lambda _: OPTIMIZER, changes: Mapping[str, Any] | None = None
) -> Course:
    task = Parabola(now)
    return Course(task, Timed(task, now, seconds), trial=handmade.trial(changes), device=CPU)


def compare(one: Course, other: Course, *, seconds: float = 2.0) -> Time:
    return timing.compare(one, other, seconds=seconds, energy=Energy(CPU))


def test_each_phase_has_its_own_time_and_they_add_up_to_the_step(now: list[float]) -> None:
    block = course(now).take(7)
    expected = {
        Phase.DATA: DATA,
        Phase.FORWARD: FORWARD,
        Phase.BACKWARD: BACKWARD,
        Phase.OPTIMIZER: OPTIMIZER,
    }
    assert block.phases == pytest.approx(expected)
    assert block.step == pytest.approx(sum(expected.values()))
    assert block.seconds == pytest.approx(now[0])


def test_a_slower_step_shows_in_the_optimizers_phase_alone(now: list[float]) -> None:
    time = compare(course(now, lambda _: OPTIMIZER + 0.010), course(now))
    assert time.phases[Phase.OPTIMIZER].median - time.reference_phases[Phase.OPTIMIZER].median == pytest.approx(0.010)
    for phase in (Phase.DATA, Phase.FORWARD, Phase.BACKWARD):
        assert time.phases[phase].median == pytest.approx(time.reference_phases[phase].median)
    assert time.ratio.median == pytest.approx(2.0)
    assert time.optimizer_ratio.median == pytest.approx(3.5)
    assert time.optimizer_share == pytest.approx(0.7)


def test_passes_that_a_step_makes_by_itself_are_forward_and_backward(now: list[float]) -> None:
    task = Parabola(now)
    sam = SAM(task.model.parameters(), lr=0.1, rho=0.05, momentum=0.0, weight_decay=0.0)
    block = Course(task, sam, trial=handmade.trial({"optimizer.capabilities": ["extra_pass"]}), device=CPU).take(3)
    assert block.phases[Phase.FORWARD] == pytest.approx(2 * FORWARD)
    assert block.phases[Phase.BACKWARD] == pytest.approx(2 * BACKWARD)
    assert block.phases[Phase.DATA] == pytest.approx(DATA)
    assert block.phases[Phase.OPTIMIZER] == pytest.approx(0.0)

    task = Parabola(now)
    lbfgs = torch.optim.LBFGS(task.model.parameters(), lr=0.1, max_iter=4)
    block = Course(task, lbfgs, trial=handmade.trial({"optimizer.capabilities": ["closure"]}), device=CPU).take(1)
    assert block.phases[Phase.FORWARD] == pytest.approx(4 * FORWARD)
    assert block.phases[Phase.BACKWARD] == pytest.approx(4 * BACKWARD)
    assert block.phases[Phase.DATA] == pytest.approx(DATA)


def test_micro_batches_add_up_in_their_phases(now: list[float]) -> None:
    class Task(Parabola):
        def batches(self) -> Iterator[Any]:
            for _ in super().batches():
                yield torch.ones(4)

    task = Task(now)
    trial = handmade.trial({"hardware.num_micro_batches": 4})
    block = Course(task, Timed(task, now, lambda _: OPTIMIZER), trial=trial, device=CPU).take(2)
    assert block.phases[Phase.FORWARD] == pytest.approx(4 * FORWARD)
    assert block.phases[Phase.BACKWARD] == pytest.approx(4 * BACKWARD)
    assert block.phases[Phase.OPTIMIZER] == pytest.approx(OPTIMIZER)


@pytest.mark.parametrize("first", [0, 3, 6])
def test_a_block_holds_whole_periods(now: list[float], first: int) -> None:
    """A refresh in every seventh step takes 70 steps' time: blocks that held one more or fewer would differ."""
    seconds = 0.001
    time = compare(
        course(
            now,
            lambda step: 71 * seconds if step % 7 == first else seconds,
            {"optimizer.gap": 7, "optimizer.period": "gap"},
        ),
        course(now),
    )
    assert time.period == 7
    assert time.steps_per_block % 7 == 0
    assert time.phases[Phase.OPTIMIZER].p10 == pytest.approx(11 * seconds)
    assert time.phases[Phase.OPTIMIZER].p90 == pytest.approx(11 * seconds)
    assert time.is_steady


def test_blocks_of_both_take_turns_and_each_goes_first_as_often(now: list[float]) -> None:
    order: list[str] = []

    def noted(name: str) -> Callable[[int], float]:
        def seconds(_: int) -> float:
            order.append(name)
            return OPTIMIZER

        return seconds

    time = compare(course(now, noted("a")), course(now, noted("b")))
    runs = ["".join(names) for names in (list(group) for _, group in groupby(order))]
    in_turn = "".join(name * (len(run) // time.steps_per_block) for run in runs for name in run[0])
    assert in_turn.endswith("abbaabbaabba")
    assert time.step.n == time.reference_step.n == time.ratio.n == timing.MAX_BLOCKS


def test_the_first_step_stands_apart(now: list[float]) -> None:
    time = compare(course(now, lambda step: OPTIMIZER if step else 5.0), course(now))
    assert time.first_step_seconds == pytest.approx(5.006)
    assert time.step.p90 == pytest.approx(0.010)
    assert time.compile_seconds is None


@pytest.mark.parametrize("seconds", [0.0, 2.0, 100.0])
def test_there_are_enough_blocks_whatever_the_budget(now: list[float], seconds: float) -> None:
    slow = compare(course(now, lambda _: 30.0), course(now), seconds=seconds)
    assert timing.MIN_BLOCKS <= slow.step.n <= timing.MAX_BLOCKS
    assert slow.steps_per_block == 1


def test_a_budget_gives_twenty_blocks_that_are_longer_than_the_clocks_grain(now: list[float]) -> None:
    for seconds in (1.0, 2.0, 10.0):
        started = now[0]
        time = compare(course(now), course(now), seconds=seconds)
        assert time.steps_per_block * time.step.median >= timing.MIN_BLOCK_SECONDS
        assert 10 <= time.step.n <= timing.MAX_BLOCKS
        assert now[0] - started < 1.5 * seconds


def test_steps_that_become_faster_are_waited_for(now: list[float]) -> None:
    time = compare(course(now, lambda step: OPTIMIZER + 0.020 * 0.9**step), course(now))
    assert time.is_steady
    assert time.step.p90 == pytest.approx(0.010, rel=0.1)
    assert time.num_warmup_steps > 15


def test_steps_that_never_agree_are_not_called_steady(now: list[float]) -> None:
    time = compare(course(now, lambda step: 0.001 * 1.1**step if step < 200 else OPTIMIZER), course(now))
    assert not time.is_steady
    assert not compare(course(now), course(now, lambda step: 1.0 + step), seconds=0.0).is_steady


def test_a_clock_that_stands_still_ends_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "perf_counter", lambda: 0.0)
    still = course([0.0])
    warmup = timing.warm_up(still, still.take(1), seconds=1.0, block_seconds=0.02)
    assert not warmup.is_steady
    assert len(warmup.blocks) == timing.MAX_WARMUP_BLOCKS


def test_what_compiling_takes_is_all_that_the_first_steps_took_longer(
    now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second step often compiles again; that neither is in the blocks nor uses up the warm-up's time."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    slow = {0: 9.0, 1: 5.0}
    compiled = {"hardware.compile_step": True}
    time = compare(course(now, lambda step: OPTIMIZER + slow.get(step, 0.0), compiled), course(now, changes=compiled))
    assert time.first_step_seconds == pytest.approx(9.010)
    assert time.compile_seconds == pytest.approx(14.0)
    assert time.is_steady
    assert time.step.p90 == pytest.approx(0.010)


def test_an_optimizer_that_swaps_weights_is_told_to_train(now: list[float]) -> None:
    class Swapping(Timed):
        is_training = False

        def train(self) -> None:
            self.is_training = True

    task = Parabola(now)
    optimizer = Swapping(task, now, lambda _: OPTIMIZER)
    Course(task, optimizer, trial=handmade.trial({"optimizer.capabilities": ["train_eval"]}), device=CPU)
    assert optimizer.is_training


def test_energy_is_of_the_steps_of_one_course_alone(now: list[float]) -> None:
    class Counter(Energy):
        """A GPU that takes 50 watts, by the clock of this test."""

        def __init__(self) -> None:
            super().__init__(CPU)
            self.is_known = True

        def __enter__(self) -> "Counter":
            self._then = now[0]
            return self

        def __exit__(self, *_: object) -> None:
            self.joules = 50.0 * (now[0] - self._then)
            assert now[0] - self._then >= 2.0

    time = timing.compare(course(now, lambda _: 0.094), course(now), seconds=2.0, energy=Counter())
    assert time.joules_per_step == pytest.approx(50.0 * 0.1)
    assert compare(course(now), course(now)).joules_per_step is None


class Gpu:
    """Stands in for torch's events: work takes the time of `now` in the queue, and marks take none."""

    def __init__(self, now: list[float]) -> None:
        self.now = now
        self.num_synchronized = 0
        self.num_events = 0

    def synchronize(self, device: torch.device) -> None:
        assert device.type == "cuda"
        self.num_synchronized += 1

    def event(self, *, enable_timing: bool) -> "Event":
        assert enable_timing
        self.num_events += 1
        return Event(self)


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._at = 0.0
        self._at_synchronization = -1

    def record(self) -> None:
        self._at = self._gpu.now[0]
        self._at_synchronization = self._gpu.num_synchronized

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: "Event") -> float:
        assert self._gpu.num_synchronized > self._at_synchronization, "read before the queue was through"
        return 1000.0 * (other._at - self._at)


def test_a_gpu_is_timed_by_events_that_are_read_after_one_synchronise(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    gpu = Gpu(now)
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    monkeypatch.setattr(torch.cuda, "synchronize", gpu.synchronize)
    monkeypatch.setattr(timing, "perf_counter", lambda: pytest.fail("the processor's clock was asked"))
    task = Parabola(now)
    on_gpu = Course(task, Timed(task, now, lambda _: OPTIMIZER), trial=handmade.trial(), device=torch.device("cuda", 0))
    block = on_gpu.take(5)
    assert gpu.num_synchronized == 1
    assert block.phases[Phase.FORWARD] == pytest.approx(FORWARD)
    assert block.phases[Phase.OPTIMIZER] == pytest.approx(OPTIMIZER)
    assert block.seconds == pytest.approx(now[0])
    num_events = gpu.num_events
    assert on_gpu.take(5).phases == pytest.approx(block.phases)
    assert (gpu.num_synchronized, gpu.num_events) == (2, num_events)


def test_work_in_another_queue_of_the_gpu_counts_in_the_last_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    gpu = Gpu(now)

    def synchronize(device: torch.device) -> None:
        now[0] += 1.0
        gpu.synchronize(device)

    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    stopwatch = EventStopwatch(torch.device("cuda", 0))
    stopwatch.mark(Phase.FORWARD)
    now[0] += 2.0
    stopwatch.mark(Phase.OPTIMIZER)
    assert stopwatch.close() == pytest.approx(
        {Phase.DATA: 0.0, Phase.FORWARD: 2.0, Phase.BACKWARD: 0.0, Phase.OPTIMIZER: 1.0}
    )


WAIT = 0.005


class Waiting(torch.optim.AdamW):
    """AdamW that keeps the processor busy for a while in every step."""

    def step(self, closure: Any = None) -> Any:
        done = timing.perf_counter() + WAIT
        while timing.perf_counter() < done:
            pass
        return super().step(closure)


def test_a_known_wait_in_the_step_is_found_in_the_optimizers_share(make_trial: MakeTrial) -> None:
    """By the real clock, beside the same optimizer without the wait."""
    plain = make_trial("hardware=cpu", "optimizer=adamw")
    waiting = make_trial("hardware=cpu", "optimizer=adamw", "optimizer._target_=tests.test_timing.Waiting")
    time = timing.measure(waiting, plain, CPU, seconds=0.6)
    longer = time.phases[Phase.OPTIMIZER].median - time.reference_phases[Phase.OPTIMIZER].median
    assert 0.5 * WAIT < longer < 3.0 * WAIT
    assert time.reference == "adamw"
    rest = sum(time.phases[phase].median for phase in Phase if phase is not Phase.OPTIMIZER)
    assert time.optimizer_share == pytest.approx(1.0 - rest / time.step.median, abs=0.1)
    assert time.optimizer_ratio.median > time.ratio.median > 1.0
    assert time.step.p10 <= time.step.median <= time.step.p90
    assert time.step.n >= timing.MIN_BLOCKS


def test_where_the_memory_does_not_hold_both_the_trial_is_timed_alone(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = [make_trial("hardware=cpu", f"optimizer={name}") for name in ("sgd", "adamw")]
    built: list[str] = []
    build = timing.building.build

    def build_one(asked: Trial, device: torch.device) -> Any:
        built.append(asked.optimizer.name)
        if built == ["sgd", "adamw"]:
            raise torch.OutOfMemoryError("no room for both")
        return build(asked, device)

    monkeypatch.setattr(timing.building, "build", build_one)
    time = timing.measure(*trials, CPU, seconds=0.1)
    assert built == ["sgd", "adamw", "sgd"]
    assert time.step.n >= timing.MIN_BLOCKS
    assert time.reference == "adamw"
    assert (time.reference_step, time.reference_phases, time.ratio, time.optimizer_ratio) == (None, None, None, None)
    assert time_from_json(asdict(time)) == time


def test_steps_that_half_precision_skips_are_not_timed(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    found = course(now)
    skipped = iter([True, True, False, True, False, False])
    scale = [2.0**16]

    def take(_: Course, num_steps: int) -> Block:
        assert num_steps == 1
        scale[0] /= 2.0 if next(skipped) else 1.0
        taken.append(1)
        return Block(num_steps=1, phases={})

    taken: list[int] = []
    monkeypatch.setattr(Course, "take", take)
    monkeypatch.setattr(type(found._step_on), "scale", property(lambda _: scale[0]))
    found.first()
    assert len(taken) == 6  # two in succession were taken


@pytest.mark.verify
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own compiler uses what torch deprecates
def test_a_compiled_step_is_timed_without_its_compilation(make_trial: MakeTrial) -> None:
    overrides = ("hardware=cpu", "hardware.compile_step=true", "optimizer.lr=0.0001")
    time = timing.measure(
        make_trial(*overrides, "optimizer=nadam"), make_trial(*overrides, "optimizer=adamw"), CPU, seconds=2.0
    )
    assert time.compile_seconds is not None
    assert time.compile_seconds > 20 * time.step.p90
    assert time.first_step_seconds > 20 * time.step.p90


def test_marks_are_in_the_order_of_a_step(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    marked: list[Phase] = []
    real = timing.ClockStopwatch.mark

    def mark(self: timing.ClockStopwatch, phase: Phase) -> None:
        marked.append(phase)
        real(self, phase)

    monkeypatch.setattr(timing.ClockStopwatch, "mark", mark)
    course(now).take(2)
    without_repeats = [marked[0], *(after for before, after in pairwise(marked) if after is not before)]
    step = [Phase.DATA, Phase.OPTIMIZER, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER]
    assert without_repeats == 2 * step
