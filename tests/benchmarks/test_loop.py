"""What the loop costs over a hand-written one that does the same steps and evaluations."""

import itertools
import os
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from optbench import components
from optbench.clock import Clock
from optbench.optim.build import build
from optbench.task import Task
from optbench.train import train
from optbench.trial import Trial
from tests.conftest import MakeTrial

CPU = torch.device("cpu")
ROUNDS = 9


@pytest.mark.parametrize(("name", "num_steps", "most"), [("digits_mlp", 550, 1.05), ("mnist_mlp", 468, 1.03)])
def test_the_loop_against_a_bare_one(
    name: str, num_steps: int, most: float, make_trial: MakeTrial, benchmark: BenchmarkFixture
) -> None:
    if name == "mnist_mlp" and "OPTBENCH_DATA" not in os.environ:
        pytest.skip("OPTBENCH_DATA names no folder with MNIST")
    trial = make_trial(f"task={name}", f"budget.num_steps={num_steps}")
    assert trial.data is not None
    data = components.build(trial.data, group="data", device=CPU)

    def make() -> Task:
        task: Task = components.build(trial.task, group="task", seed=0, device=CPU, data=data)
        return task

    bare_seconds: list[float] = []

    def before_each_round() -> tuple[tuple[()], dict[str, Task]]:
        bare_seconds.append(timed(lambda: bare(make(), trial)))  # in turn, so that both see the same machine
        return (), {"task": make()}

    bare(make(), trial)
    benchmark.pedantic(lambda task: ours(task, trial), setup=before_each_round, rounds=ROUNDS)
    ratio = min(benchmark.stats.stats.data) / min(bare_seconds)
    benchmark.extra_info["ratio_to_bare_loop"] = ratio
    print(f"\n{name}: {ratio:.3f} times the bare loop (minimum of {ROUNDS} each)")
    assert ratio <= most


def ours(task: Task, trial: Trial) -> None:
    optimizer = build(trial.optimizer, task.model)
    for _ in train(
        task,
        optimizer,
        components.build(trial.schedule, group="schedule"),
        budget=trial.budget,
        every_num_steps=trial.evaluation.every_num_steps,
        max_loss=trial.max_loss,
        target=None,
        clock=Clock(CPU),
    ):
        pass


def bare(task: Task, trial: Trial) -> None:
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=0.001)
    task.evaluate()
    assert trial.budget.num_steps is not None
    for step, batch in enumerate(itertools.islice(task.batches(), trial.budget.num_steps), start=1):
        optimizer.zero_grad()
        loss = task.loss(batch)
        loss.backward()
        optimizer.step()
        if step % trial.evaluation.every_num_steps == 0:
            task.evaluate()


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
