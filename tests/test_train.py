"""The loop: what it measures, when it ends, and what it leaves alone."""

import itertools
import math
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn

from optbench import train as train_module
from optbench.clock import Clock
from optbench.measurement import Measurement, Status
from optbench.train import train
from optbench.trial import Budget, Target

CPU = torch.device("cpu")


class Parabola:
    """Minimise theta^2 / 2 from 1; the test loss is theta^2 / 2, and the batch is the number of the step.

    A step takes a second of the time `now`, an evaluation a hundred.
    """

    def __init__(self, *, bad_step: int | None = None, now: list[float] | None = None) -> None:
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.model.weight)
        self._bad_step = bad_step
        self._now = [0.0] if now is None else now

    def batches(self) -> Iterator[int]:
        return itertools.count(1)

    def loss(self, batch: int) -> Tensor:
        self._now[0] += 1.0
        factor = math.nan if batch == self._bad_step else 0.5
        return factor * (self.model.weight**2).sum()

    def evaluate(self) -> Mapping[str, float]:
        self._now[0] += 100.0
        return {"test_loss": 0.5 * self.model.weight.item() ** 2}


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the clock tells, to be moved by hand."""
    time = [0.0]
    monkeypatch.setattr("optbench.clock.time.perf_counter", lambda: time[0])
    return time


def run(
    task: Parabola,
    *,
    lr: float = 0.1,
    num_steps: int | None = 250,
    seconds: float | None = None,
    every_num_steps: int = 100,
    max_loss: float = 1e6,
    target: Target | None = None,
    schedule: train_module.Schedule = lambda _: 1.0,
) -> list[Measurement]:
    optimizer = torch.optim.SGD(task.model.parameters(), lr=lr)
    return list(
        train(
            task,
            optimizer,
            schedule,
            budget=Budget(num_steps=num_steps, seconds=seconds),
            every_num_steps=every_num_steps,
            max_loss=max_loss,
            target=target,
            clock=Clock(CPU),
        )
    )


def test_it_measures_at_the_start_at_every_interval_and_at_the_end() -> None:
    rows = run(Parabola())
    assert [row.step for row in rows] == [0, 100, 200, 250]
    assert [row.status for row in rows] == [None, None, None, Status.COMPLETED]


@pytest.mark.parametrize("every_num_steps", [1, 7, 100, 1000])
def test_it_takes_exactly_the_steps_of_the_budget(every_num_steps: int) -> None:
    rows = run(Parabola(), every_num_steps=every_num_steps, num_steps=250)
    assert rows[-1].step == 250
    assert rows[-1].metrics["test_loss"] == pytest.approx(0.5 * 0.9**500, rel=1e-4)


def test_the_train_loss_is_the_mean_of_the_minibatches_since_the_row_before() -> None:
    rows = run(Parabola(), every_num_steps=2, num_steps=4)
    first, second = rows[1].metrics["train_loss"], rows[2].metrics["train_loss"]
    assert first == pytest.approx(0.5 * (1 + 0.81) / 2)
    assert second == pytest.approx(0.5 * (0.9**4 + 0.9**6) / 2)


@pytest.mark.parametrize("bad_step", [1, 99, 100, 101, 250])
def test_a_loss_that_is_not_finite_ends_the_run_at_its_step(bad_step: int) -> None:
    task = Parabola(bad_step=bad_step)
    last = run(task)[-1]
    assert (last.status, last.step) == (Status.DIVERGED, bad_step)
    assert math.isnan(last.metrics["train_loss"])


def test_a_loss_above_the_bound_is_divergence() -> None:
    last = run(Parabola(), lr=3.0, max_loss=100.0)[-1]  # theta doubles in every step
    assert (last.status, last.step) == (Status.DIVERGED, 5)
    assert last.metrics["train_loss"] == pytest.approx(128.0)


def test_a_test_loss_above_the_bound_is_divergence_too() -> None:
    last = run(Parabola(), lr=3.0, max_loss=100.0, num_steps=4)[-1]
    assert last.status is Status.DIVERGED
    assert last.metrics["test_loss"] == pytest.approx(128.0)


def test_a_target_that_is_met_ends_the_run() -> None:
    target = Target(metric="test_loss", value=0.25, direction="min")
    last = run(Parabola(), every_num_steps=1, target=target)[-1]
    assert (last.status, last.step) == (Status.REACHED_TARGET, 4)


def test_a_target_that_is_not_met_changes_nothing() -> None:
    target = Target(metric="test_loss", value=2.0, direction="max")
    assert run(Parabola(), target=target)[-1].status is Status.COMPLETED


def test_a_budget_in_seconds_ends_the_run_when_it_is_spent(now: list[float]) -> None:
    last = run(Parabola(now=now), num_steps=None, seconds=40.0, every_num_steps=10**9)[-1]
    assert (last.status, last.step, last.seconds) == (Status.COMPLETED, 40, 40.0)


def test_of_two_budgets_the_one_that_is_spent_first_ends_the_run() -> None:
    assert run(Parabola(), num_steps=50, seconds=1000.0)[-1].step == 50


def test_evaluation_and_the_holding_of_a_row_are_off_the_clock(now: list[float]) -> None:
    task = Parabola(now=now)
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1)
    clock = Clock(CPU)
    for _ in train(
        task,
        optimizer,
        lambda _: 1.0,
        budget=Budget(num_steps=10, seconds=None),
        every_num_steps=1,
        max_loss=1e6,
        target=None,
        clock=clock,
    ):
        now[0] += 1000.0
    assert clock.seconds == 10.0  # a second for each step
    assert clock.step_seconds == 1.0


def test_the_schedule_scales_the_peak_rate_of_every_step() -> None:
    seen: list[float] = []

    def schedule(progress: float) -> float:
        seen.append(progress)
        return 1.0 - progress

    rows = run(Parabola(), num_steps=4, schedule=schedule, lr=0.5, every_num_steps=4)
    assert seen[1:] == [0.0, 0.25, 0.5, 0.75]  # the first is asked for the row of step 0
    assert rows[-1].lr == pytest.approx(0.5 * 0.25)
    theta = math.prod(1 - 0.5 * factor for factor in (1.0, 0.75, 0.5, 0.25))
    assert rows[-1].metrics["test_loss"] == pytest.approx(0.5 * theta**2)


def test_losses_are_fetched_once_in_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    fetches = []
    stack = torch.stack
    monkeypatch.setattr(torch, "stack", lambda tensors: fetches.append(len(tensors)) or stack(tensors))
    run(Parabola(), every_num_steps=250, num_steps=250)
    assert [number for number in fetches if number > 1] == [100, 100, 50]  # the norm of one gradient aside


def test_the_clock_does_not_stand_still_for_a_zero_step_block() -> None:
    clock = Clock(CPU)
    assert clock.step_seconds is None
    clock.start()
    clock.stop(num_steps=1)
    assert clock.step_seconds is not None
    assert clock.seconds >= 0.0


def test_metrics_may_be_tensors() -> None:
    task = Parabola()
    evaluate = task.evaluate
    task.evaluate = lambda: {"test_loss": torch.tensor(evaluate()["test_loss"])}  # type: ignore[method-assign, dict-item]
    assert all(type(row.metrics["test_loss"]) is float for row in run(task))


def test_however_short_the_budget_one_step_is_taken() -> None:
    rows = run(Parabola(), num_steps=None, seconds=1e-9)
    assert rows[-1].step == 1
    assert rows[-1].metrics["train_loss"] == pytest.approx(0.5)


def test_with_a_budget_in_seconds_a_block_takes_a_small_part_of_it(
    now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a GPU is true only where a block ends."""
    blocks: list[int] = []
    stack = torch.stack
    monkeypatch.setattr(torch, "stack", lambda tensors: blocks.append(len(tensors)) or stack(tensors))
    last = run(Parabola(now=now), num_steps=None, seconds=200.0, every_num_steps=10**9)[-1]
    assert blocks[0] == 1
    assert set(blocks[1:-1]) == {4}  # 2 % of 200 seconds, a second for each step
    assert last.seconds == 200.0
