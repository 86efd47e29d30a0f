"""The training loop: one generator, the same for every task and optimizer."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from optbench.clock import Clock
from optbench.measurement import Measurement, Status
from optbench.schedule import Schedule
from optbench.task import Task
from optbench.trial import Budget, Target

# Losses stay on the device until a block ends: fetching one at each step would make a GPU wait for the CPU.
MAX_BLOCK_STEPS = 100


def train(
    task: Task,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    *,
    budget: Budget,
    every_num_steps: int,
    max_loss: float,
    target: Target | None,
    clock: Clock,
) -> Iterator[Measurement]:
    """Train the task's model in place, and yield what is measured on the way.

    The clock runs while steps are taken and stands still during evaluation and while the caller holds a measurement.

    Args:
        task: gives minibatches, loss and test metrics.
        optimizer: holds the model's parameters; its groups' `lr` are the peak rates.
        schedule: factor of the peak rate for each progress.
        budget: when to end.
        every_num_steps: steps from one measurement to the next.
        max_loss: a training or test loss above it, or not finite, is divergence.
        target: ends the training at the first measurement that meets it.
        clock: counts the seconds of training.

    Yields:
        A measurement at step 0, one after every `every_num_steps` steps, and a last one that has a status. After a
        divergence the last one is of the first step whose loss was bad, with that loss and no test metrics; its seconds
        and lr are those at the end of the block in which that was seen.
    """
    peak_rates = [group["lr"] for group in optimizer.param_groups]
    batches = task.batches()
    losses: list[Tensor] = []  # of the block under way, on the device
    fetched: list[float] = []  # since the last measurement
    step = 0
    status = None

    yield Measurement(step=0, seconds=0.0, lr=peak_rates[0] * schedule(0.0), metrics=_evaluated(task))
    while status is None:
        clock.start()
        block_start = step
        block_end = min(step + _block_steps(budget, clock), (step // every_num_steps + 1) * every_num_steps)
        while step < block_end and ((progress := _progress(budget, step, clock)) < 1.0 or step == block_start):
            factor = schedule(progress)
            for group, peak_rate in zip(optimizer.param_groups, peak_rates, strict=True):
                group["lr"] = peak_rate * factor
            optimizer.zero_grad()
            loss = task.loss(next(batches))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            step += 1
        block = torch.stack(losses).tolist()
        clock.stop(num_steps=step - block_start)
        losses.clear()

        for index, value in enumerate(block, start=block_start + 1):
            if not value <= max_loss:
                lr = optimizer.param_groups[0]["lr"]
                metrics = {"train_loss": value}
                yield Measurement(step=index, seconds=clock.seconds, lr=lr, metrics=metrics, status=Status.DIVERGED)
                return
        fetched += block

        spent = _progress(budget, step, clock) >= 1.0
        if not spent and step % every_num_steps:
            continue
        metrics = {"train_loss": math.fsum(fetched) / len(fetched), **_evaluated(task)}
        fetched.clear()
        if not metrics.get("test_loss", 0.0) <= max_loss:
            status = Status.DIVERGED
        elif target is not None and target.is_met(metrics):
            status = Status.REACHED_TARGET
        elif spent:
            status = Status.COMPLETED
        lr = optimizer.param_groups[0]["lr"]
        yield Measurement(step=step, seconds=clock.seconds, lr=lr, metrics=metrics, status=status)


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
