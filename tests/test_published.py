"""Figures that others published, found again: the proof that task, loop and optimizers are what they say."""

import os

import pytest

from tests.conftest import RunTrial

# Final test loss on quadratic_deep: DeepOBS baselines (Schneider et al., 2019), Crowded Valley (Schmidt et al., 2021).
QUADRATIC_DEEP = [
    # (optimizer, overrides, published test loss, tolerance)
    ("sgd", ["lr=0.01585"], 87.3975, 0.3),
    ("momentum", ["momentum=0.99", "lr=0.002512"], 87.0450, 0.3),
    ("adam", ["lr=0.03981"], 87.1119, 0.3),
    ("adagrad", ["initial_accumulator_value=0.1"], 112.124, 0.3),  # TensorFlow's default accumulator
    ("rmsprop", ["lr=0.001", "alpha=0.9", "eps=0.0000000001"], 100.603, 0.7),  # TensorFlow's defaults
    ("adam", ["lr=0.001"], 106.639, 0.3),
]

# step-back records (Schaipp et al.): test accuracy of the MNIST MLP after 1 and 10 passes.
MNIST_MLP = [
    # (optimizer, lr, after 1 pass, after 10 passes)
    ("momentum_averaging", "0.1", 0.9400, 0.9773),
    ("momentum_averaging", "0.01", 0.8654, 0.9473),
    ("adam", "0.001", 0.9514, 0.9775),
    ("adam", "0.0001", 0.9039, 0.9598),
]
# Published are means over three seeds. After ten passes of Adam at 0.001 a seed varies by 0.002 from pass to pass, so
# that three of them say little about a difference of 0.003: there we take ten.
NUM_SEEDS = {("adam", "0.001"): 10}


@pytest.fixture
def mnist() -> None:
    """MNIST: CI has to find it, in OPTBENCH_DATA or on the hub; elsewhere nothing is downloaded for a test."""
    if "OPTBENCH_DATA" not in os.environ and "CI" not in os.environ:
        pytest.skip("OPTBENCH_DATA names no folder with MNIST")


def test_the_initial_test_loss_of_quadratic_deep_is_the_published_one(run_trial: RunTrial) -> None:
    result = run_trial("task=quadratic_deep", "optimizer=sgd", "budget.num_steps=7")
    assert result.curve["test_loss"][0] == pytest.approx(353.4468, abs=0.001)


@pytest.mark.parametrize(("optimizer", "overrides", "published", "tolerance"), QUADRATIC_DEEP)
def test_quadratic_deep_ends_at_the_published_test_loss(
    run_trial: RunTrial, optimizer: str, overrides: list[str], published: float, tolerance: float
) -> None:
    losses = [
        run_trial(
            "task=quadratic_deep",
            f"optimizer={optimizer}",
            f"seed={seed}",
            *(f"optimizer.{item}" for item in overrides),
        ).summary["test_loss"]
        for seed in range(3)
    ]
    assert sum(losses) / len(losses) == pytest.approx(published, abs=tolerance)


@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize(
    ("optimizer", "lr", "published", "_"),
    [*MNIST_MLP[:2], *(pytest.param(*cell, marks=pytest.mark.verify) for cell in MNIST_MLP[2:])],
)
def test_mnist_mlp_reaches_the_published_accuracy_in_one_pass(
    run_trial: RunTrial, optimizer: str, lr: str, published: float, _: float
) -> None:
    overrides = ["task=mnist_mlp", f"optimizer={optimizer}", f"optimizer.lr={lr}", "budget.num_steps=468"]
    accuracies = [run_trial(*overrides, f"seed={seed}").summary["test_accuracy"] for seed in range(3)]
    assert sum(accuracies) / len(accuracies) == pytest.approx(published, abs=0.003)


@pytest.mark.verify
@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize(("optimizer", "lr", "after_one", "after_ten"), MNIST_MLP)
def test_mnist_mlp_reaches_the_published_accuracy_in_ten_passes(
    run_trial: RunTrial, optimizer: str, lr: str, after_one: float, after_ten: float
) -> None:
    curves = [
        run_trial("task=mnist_mlp", f"optimizer={optimizer}", f"optimizer.lr={lr}", f"seed={seed}").curve[
            "test_accuracy"
        ]
        for seed in range(NUM_SEEDS.get((optimizer, lr), 3))
    ]
    for place, published in ((1, after_one), (10, after_ten)):
        mean = sum(curve[place] for curve in curves) / len(curves)
        assert mean == pytest.approx(published, abs=0.003), f"after {place} passes"
