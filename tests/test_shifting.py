"""The quadratic that changes: when, how, and what theory says of the noise that it has."""

import itertools
import statistics
from typing import Any

import pytest
import torch
from optbench.tasks.shifting import ShiftingQuadratic

from optbench.errors import UsageError
from tests.conftest import RunTrial

CPU = torch.device("cpu")


def shifting(seed: int = 0, **changes: Any) -> ShiftingQuadratic:
    shape = {"dimension": 3, "condition_number": 100.0, "change_at": 2, "factor": 0.5, "jump": 4.0, "noise": 0.0}
    return ShiftingQuadratic(**{**shape, **changes}, seed=seed, device=CPU)


def test_the_last_axis_changes_after_so_many_steps_and_stays_so() -> None:
    batches = list(itertools.islice(shifting().batches(), 4))
    for step, (curvatures, minimum) in enumerate(batches):
        assert curvatures.tolist() == pytest.approx([0.01, 0.1, 1.0 if step < 2 else 0.5])
        assert minimum.tolist() == [0.0, 0.0, 0.0 if step < 2 else 4.0]


def test_without_a_change_it_is_the_same_throughout() -> None:
    batches = itertools.islice(shifting(change_at=None).batches(), 10)
    assert all(curvatures[-1] == 1.0 and not minimum.any() for curvatures, minimum in batches)


def test_it_is_measured_as_the_last_step_met_it() -> None:
    task = shifting()
    start = {"test_loss": 0.5 * (0.01 + 0.1 + 1.0), "distance": 1.0}
    assert task.evaluate() == pytest.approx(start)
    batches = task.batches()
    for _ in range(2):
        next(batches)
    assert task.evaluate() == pytest.approx(start)
    next(batches)
    assert task.evaluate() == pytest.approx({"test_loss": 0.5 * (0.01 + 0.1 + 0.5 * 9.0), "distance": 3.0})


def test_whoever_goes_through_the_batches_again_measures_the_same() -> None:
    task, resumed = shifting(), shifting()
    for _ in itertools.islice(task.batches(), 3):
        task.evaluate()
    for _ in itertools.islice(resumed.batches(), 3):
        pass
    assert resumed.evaluate() == task.evaluate()
    next(task.batches())
    assert task.evaluate()["distance"] == 1.0, "a new stream begins before the change"


def test_samples_are_around_the_minimum_and_differ_by_seed() -> None:
    first, again, other = (
        torch.stack([minimum for _, minimum in itertools.islice(shifting(seed, noise=2.0).batches(), 2002)][2:])
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.mean(0).tolist() == pytest.approx([0.0, 0.0, 4.0], abs=0.2)
    assert first.std(0).tolist() == pytest.approx([2.0, 2.0, 2.0], rel=0.1)


def test_the_gradient_is_that_of_the_quadratic() -> None:
    task = shifting()
    task.loss(next(task.batches())).backward()
    gradient = task.model.theta.grad
    assert gradient is not None
    assert gradient.tolist() == pytest.approx([0.01, 0.1, 1.0])


def test_sgd_keeps_the_loss_that_theory_says(run_trial: RunTrial) -> None:
    """On one axis of curvature 1: noise^2 lr / (2 (2 - lr)); 200 of them have the same."""
    problem = ["task=shifting_quadratic", "task.change_at=null", "task.condition_number=1.0", "task.dimension=200"]
    result = run_trial(
        *problem, "task.noise=1.0", "optimizer=sgd", "optimizer.lr=0.5", "budget.num_steps=400", "hardware=cpu"
    )
    losses = [loss for step, loss in zip(result.curve["step"], result.curve["test_loss"], strict=True) if step >= 100]
    assert statistics.fmean(losses) == pytest.approx(200 * 0.5 / (2 * 1.5), rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dimension": 0}, r"task.dimension=0, task.condition_number=100.0: both are at least 1"),
        ({"condition_number": 0.5}, r"task.condition_number=0.5: both are at least 1"),
        ({"factor": 0.0}, r"task.factor=0.0, task.noise=0.0: the first is above 0"),
        ({"noise": -1.0}, r"task.noise=-1.0: the first is above 0, the other at least 0"),
        ({"change_at": -1}, r"task.change_at=-1: it is a number of steps, at least 0, or null for no change"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        shifting(**changes)
