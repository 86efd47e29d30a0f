"""The training loop: one generator, the same for every task and optimizer."""

import math
from collections.abc import Callable, Iterator, Set
from typing import Any

import torch
from torch import Tensor

from optbench.checkpoint import Keeper, restore_random
from optbench.clock import Clock
from optbench.component import Capability
from optbench.control import Control
from optbench.hardware import Hardware
from optbench.measurement import Measurement, Status
from optbench.schedule import Schedule
from optbench.stepper import Stepper
from optbench.task import Task
from optbench.trial import Budget, Target
from optbench.view import View

# Losses stay on the device until a block ends: fetching one at each step would make a GPU wait for the CPU.
MAX_BLOCK_STEPS = 100


def train(
    task: Task,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    *,
    capabilities: Set[Capability] = frozenset(),
    hardware: Hardware | None = None,
    max_grad_norm: float | None = None,
    budget: Budget,
    every_num_steps: int,
    max_loss: float,
    target: Target | None,
    clock: Clock,
    control: Control | None = None,
    keeper: Keeper | None = None,
) -> Iterator[Measurement]:
    """Train the task's model in place, and yield what is measured on the way.

    The clock runs while steps are taken and stands still during evaluation and while the caller holds a measurement.

    Args:
        task: gives minibatches, loss and test metrics.
        optimizer: holds the model's parameters; its groups' `lr` are the peak rates.
        schedule: factor of the peak rate for each progress.
        capabilities: what the optimizer needs that SGD does not.
        hardware: how a step is computed; None is in the plain way.
        max_grad_norm: the gradient is scaled down to this global norm where it is longer.
        budget: when to end.
        every_num_steps: steps from one measurement to the next.
        max_loss: a training or test loss above it, or not finite, is divergence.
        target: ends the training at the first measurement that meets it.
        clock: counts the seconds of training.
        control: hears how far the loop is, and may end it.
        keeper: keeps checkpoints, between two steps, when one is due and before a preemption; and says where to go on.

    Yields:
        A measurement at step 0, one after every `every_num_steps` steps, and a last one that has a status. One that
        ends the loop from outside has no metrics. After a
        divergence the last one is of the first step whose loss was bad, with that loss and no test metrics; its seconds
        and lr are those at the end of the block in which that was seen.
    """
    peak_rates = [rate(group) for group in optimizer.param_groups]
    step_on = Stepper(task.loss, optimizer, capabilities=capabilities, max_grad_norm=max_grad_norm, hardware=hardware)
    swap = _swapper(optimizer, capabilities)
    view = View(optimizer, is_lr_free=Capability.LR_FREE in capabilities)
    batches = task.batches()
    losses: list[Tensor] = []  # of the block under way, on the device
    fetched: list[float] = []  # since the last measurement
    step = 0
    status = None
    control = control or Control()

    def measured(metrics: dict[str, float], *, at: int, status: Status | None = None) -> Measurement:
        return Measurement(
            step=at,
            seconds=clock.seconds,
            lr=rate(optimizer.param_groups[0]),
            gradient_evaluations=step_on.num_gradient_evaluations,
            metrics=metrics,
            status=status,
        )

    if keeper is None or keeper.resumed is None:
        set_rates(optimizer, peak_rates, factor=schedule(0.0))
        yield measured({**view.rates(), **_evaluated(task)}, at=0)
    else:
        before = keeper.resumed
        step, fetched, peak_rates = before["step"], list(before["fetched"]), before["peak_rates"]
        # Kept before there was more to a step, it has the evaluations alone.
        step_on.load_state_dict(
            before.get("stepper") or {"gradient_evaluations": before["gradient_evaluations"], "scaler": None}
        )
        clock.restore(before["clock"])
        for control.step in range(1, step + 1):  # the stream is the same from the seed, and is gone through again
            next(batches)
            if control.stop is not None:
                yield measured({}, at=step, status=control.stop)
                return
        restore_random(before)
    while status is None:
        if step and keeper is not None and (keeper.is_due or control.stop is Status.PREEMPTED):
            keeper.save(
                {
                    "step": step,
                    "fetched": fetched,
                    "peak_rates": peak_rates,
                    "stepper": step_on.state_dict(),
                    "clock": clock.state,
                }
            )
        if control.stop is not None:
            yield measured({}, at=step, status=control.stop)
            return
        swap("train")
        clock.start()
        block_start = step
        block_end = min(step + _block_steps(budget, clock), (step // every_num_steps + 1) * every_num_steps)
        while step < block_end and ((progress := _progress(budget, step, clock)) < 1.0 or step == block_start):
            set_rates(optimizer, peak_rates, factor=schedule(progress))
            if is_last := (step + 1) % every_num_steps == 0 or step + 1 == budget.num_steps:  # before a measurement
                with clock.pause():
                    view.before_step()
            losses.append(step_on(next(batches), watched=is_last))
            step += 1
            control.step = step
            if control.stop is not None:
                break
        block = torch.stack(losses).tolist()
        clock.stop(num_steps=step - block_start)
        losses.clear()
        control.loss = block[-1]

        for index, value in enumerate(block, start=block_start + 1):
            if not value <= max_loss:
                yield measured({"train_loss": value}, at=index, status=Status.DIVERGED)
                return
        fetched += block

        spent = _progress(budget, step, clock) >= 1.0
        if not spent and step % every_num_steps:
            continue
        seen = {**view.after_step(step_on.grad_norm), **view.rates()}
        swap("eval")
        metrics = {"train_loss": math.fsum(fetched) / len(fetched), **seen, **_evaluated(task)}
        fetched.clear()
        if not metrics.get("test_loss", 0.0) <= max_loss:
            status = Status.DIVERGED
        elif target is not None and target.is_met(metrics):
            status = Status.REACHED_TARGET
        elif spent:
            status = Status.COMPLETED
        yield measured(metrics, at=step, status=status)


def rate(group: dict[str, Any]) -> float:
    """The rate of a parameter group; NaN where the optimizer chooses it by itself."""
    return math.nan if group["lr"] is None else float(group["lr"])


def set_rates(optimizer: torch.optim.Optimizer, peak_rates: list[float], *, factor: float) -> None:
    """Give each group its peak rate times the factor. A rate that is a tensor is filled in place, as it must be."""
    for group, peak_rate in zip(optimizer.param_groups, peak_rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(peak_rate * factor)
        elif group["lr"] is not None:
            group["lr"] = peak_rate * factor


def _swapper(optimizer: torch.optim.Optimizer, capabilities: Set[Capability]) -> Callable[[str], None]:
    """What changes between the weights that are trained and those that are evaluated."""
    if Capability.TRAIN_EVAL not in capabilities:
        return lambda _: None
    return lambda mode: getattr(optimizer, mode)()


def _evaluated(task: Task) -> dict[str, float]:
    return {name: float(value) for name, value in task.evaluate().items()}


def _block_steps(budget: Budget, clock: Clock) -> int:
    """Steps until the next fetch; with a budget in seconds at most 2 % of it, as a GPU only then says what is spent."""
    if budget.seconds is None:
        return MAX_BLOCK_STEPS
    if clock.step_seconds is None:
        return 1
    return max(1, min(MAX_BLOCK_STEPS, int(0.02 * budget.seconds / clock.step_seconds)))


def _progress(budget: Budget, step: int, clock: Clock) -> float:
    by_steps = step / budget.num_steps if budget.num_steps else 0.0
    by_seconds = clock.seconds / budget.seconds if budget.seconds else 0.0
    return max(by_steps, by_seconds)
