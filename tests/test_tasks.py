"""The contract of every task in conf/, and what each one is."""

import itertools
import os

import numpy as np
import pytest
import torch
from optbench.tasks.mnist_mlp import ImageMlp
from optbench.tasks.quadratic import NoisyQuadratic, Quadratic, QuadraticFromOnes, Saddle
from torch.utils.data import DataLoader, TensorDataset

from optbench import building
from optbench.catalogue import entries
from optbench.data import ImageData
from optbench.device import resolve_device
from optbench.errors import UsageError
from optbench.run import check
from optbench.task import Task
from optbench.trial import Trial
from tests.conftest import MakeTrial, RunTrial

CPU = torch.device("cpu")
NAMES = [entry.name for entry in entries("task")]
# What takes minutes otherwise: the contract is the same for less of it.
SMALLER = {
    "vit": ["task.num_train=500", "task.num_test=100", "task.batch_size=50"],
    "lora_mlp": ["task.pretraining.num_steps=20"],
    "lora_sd": ["model.recipe.num_steps=3", "data.num_train=32", "data.num_test=8", "task.num_test_times=1"],
    # Dropout draws from torch's own generator, which a task leaves as it is.
    "cnn": ["task.num_test=200", "model.conv_dropout=0.0", "model.hidden_dropout=0.0"],
    # Any text does: this one.
    "char_gpt": [f"data.path={__file__}", "data.sha256=null", "model.depth=1", "model.dim=32"],
}
DOWNLOADED = ("mnist_mlp", "vit", "lora_mlp", "lora_sd", "cnn")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    if request.param in DOWNLOADED and not {"OPTBENCH_DATA", "CI"} & os.environ.keys():
        pytest.skip("OPTBENCH_DATA names no folder with MNIST and CIFAR-10")
    return str(request.param)


def asked(name: str, make_trial: MakeTrial) -> Trial:
    return make_trial(f"task={name}", "hardware=cpu", "seed=3", *SMALLER.get(name, ()))


def build(name: str, make_trial: MakeTrial) -> Task:
    return building.build_task(asked(name, make_trial), CPU)


def losses(task: Task, num_steps: int = 3) -> list[float]:
    return [task.loss(batch).item() for batch in itertools.islice(task.batches(), num_steps)]


def test_the_same_seed_gives_the_same_weights_and_batches(name: str, make_trial: MakeTrial) -> None:
    first, second = (build(name, make_trial) for _ in range(2))
    assert losses(first) == losses(second)
    assert first.evaluate() == second.evaluate()


def test_a_task_has_the_metrics_that_its_file_lists(name: str, make_trial: MakeTrial) -> None:
    trial = asked(name, make_trial)
    assert set(trial.config["task"]["metrics"]) == {"train_loss", *build(name, make_trial).evaluate()}


def test_evaluation_leaves_the_model_as_it_was(name: str, make_trial: MakeTrial) -> None:
    task = build(name, make_trial)
    before = [parameter.clone() for parameter in task.model.parameters()]
    task.evaluate()
    assert task.model.training
    assert all(torch.equal(a, b) for a, b in zip(before, task.model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in task.model.parameters())


def test_every_trainable_parameter_gets_a_gradient(name: str, make_trial: MakeTrial) -> None:
    task = build(name, make_trial)
    task.loss(next(task.batches())).backward()
    assert all(parameter.grad is not None for parameter in task.model.parameters() if parameter.requires_grad)


def test_a_trial_on_the_default_device_can_start(name: str, make_trial: MakeTrial) -> None:
    trial = make_trial(f"task={name}", *SMALLER.get(name, ()))
    check(trial)
    assert resolve_device(trial.hardware).type in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (["task=digits_mlp", "model=vit_tiny"], "task=digits_mlp takes no model: leave out model=vit_tiny"),
        (["task=quadratic", "data=digits"], "task=quadratic takes no data: leave out data=digits"),
    ],
)
def test_a_choice_that_a_task_does_not_have_is_an_error(
    choices: list[str], message: str, make_trial: MakeTrial
) -> None:
    with pytest.raises(UsageError, match=message):
        check(make_trial(*choices))


def image_data(num_train: int = 10) -> ImageData:
    inputs = torch.arange(num_train, dtype=torch.float32).view(-1, 1, 1, 1)
    labels = torch.arange(num_train) % 2
    return ImageData(train_inputs=inputs, train_labels=labels, test_inputs=inputs, test_labels=labels, num_classes=2)


def image_mlp(seed: int = 0, *, init_seed: int | None = None, order_seed: int | None = None) -> ImageMlp:
    return ImageMlp(
        data=image_data(),
        hidden_sizes=[5],
        batch_size=3,
        init_seed=init_seed,
        order_seed=order_seed,
        seed=seed,
        device=CPU,
    )


def test_the_order_is_that_of_a_data_loader_with_the_same_generator() -> None:
    data = image_data()
    generator = torch.Generator().manual_seed(456789 + 2)
    loader = DataLoader(
        TensorDataset(data.train_inputs, data.train_labels),
        batch_size=3,
        shuffle=True,
        drop_last=True,
        generator=generator,
    )
    expected = [inputs for _ in range(4) for inputs, _ in loader]
    batches = image_mlp(2, order_seed=456789).batches()
    assert all(torch.equal(next(batches)[0], inputs) for inputs in expected)


def test_a_pass_meets_no_image_twice_and_drops_the_rest() -> None:
    batches = image_mlp().batches()
    for _ in range(3):
        seen = torch.cat([next(batches)[0].flatten() for _ in range(3)])
        assert len(seen.unique()) == 9


def test_seeds_differ_in_weights_and_order_unless_one_is_fixed() -> None:
    free, other = image_mlp(0), image_mlp(1)
    assert not torch.equal(free.model[1].weight, other.model[1].weight)
    assert not torch.equal(next(free.batches())[0], next(other.batches())[0])
    fixed = [image_mlp(seed, init_seed=7) for seed in (0, 1)]
    assert torch.equal(fixed[0].model[1].weight, fixed[1].model[1].weight)


def test_the_weights_of_a_fixed_seed_are_those_of_torch() -> None:
    torch.manual_seed(7)
    expected = torch.nn.Linear(1, 5)
    assert torch.equal(image_mlp(init_seed=7).model[1].weight, expected.weight)


def test_making_a_task_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    image_mlp()
    assert torch.equal(torch.rand(1), expected)


def test_accuracy_and_loss_are_those_of_the_whole_test_set() -> None:
    task = image_mlp()
    logits = task.model(image_data().test_inputs)
    labels = image_data().test_labels
    metrics = task.evaluate()
    assert metrics["test_accuracy"] == (logits.argmax(1) == labels).float().mean().item()
    assert metrics["test_loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())


def test_the_deep_quadratic_has_the_published_spectrum() -> None:
    hessian = NoisyQuadratic(batch_size=128, seed=0, device=CPU)._hessian.double().numpy()
    eigenvalues = np.linalg.eigvalsh(hessian)
    assert eigenvalues[0] == pytest.approx(0.00552, abs=1e-5)
    assert eigenvalues[-1] == pytest.approx(53.13, abs=0.01)
    assert (eigenvalues < 1.0).sum() == 90
    assert (eigenvalues > 30.0).sum() == 10


def test_the_deep_quadratic_cannot_fall_below_its_floor() -> None:
    task = NoisyQuadratic(batch_size=128, seed=0, device=CPU)
    with torch.no_grad():
        task.model.theta.copy_(task._test.mean(0))
    assert task.evaluate()["test_loss"] == pytest.approx(86.87, abs=0.01)


def test_the_deep_quadratic_repeats_one_order_for_each_seed() -> None:
    batches = NoisyQuadratic(batch_size=128, seed=0, device=CPU).batches()
    passes = [[next(batches) for _ in range(7)] for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*passes, strict=True))
    other = next(NoisyQuadratic(batch_size=128, seed=1, device=CPU).batches())
    assert not torch.equal(passes[0][0], other)


@pytest.mark.parametrize("condition_number", [1.0, 100.0, 10_000.0])
def test_the_quadratic_has_the_condition_number_asked_for(condition_number: float) -> None:
    task = Quadratic(condition_number=condition_number, dimension=20, seed=0, device=CPU)
    hessian = torch.autograd.functional.hessian(
        lambda theta: 0.5 * (task._eigenvalues * theta**2).sum(), torch.zeros(20)
    )
    eigenvalues = torch.linalg.eigvalsh(hessian)
    assert (eigenvalues[-1] / eigenvalues[0]).item() == pytest.approx(condition_number, rel=1e-3)


def test_the_quadratic_from_ones_says_how_far_its_steepest_and_its_flattest_coordinate_are() -> None:
    task = QuadraticFromOnes(condition_number=100.0, dimension=2, seed=0, device=CPU)
    assert task.evaluate() == pytest.approx(
        {"test_loss": 0.505, "relative_loss": 1.0, "overshoot": 0.0, "flattest": 1.0}
    )
    with torch.no_grad():
        task.model.theta.copy_(torch.tensor([0.5, -0.25]))
    value = 0.5 * (0.01 * 0.5**2 + 0.25**2)
    assert task.evaluate() == pytest.approx(
        {"test_loss": value, "relative_loss": value / 0.505, "overshoot": 0.25, "flattest": 0.5}
    )


def test_nobody_leaves_the_ridge_of_the_saddle() -> None:
    task = Saddle(start=[1.0, 0.0], seed=0, device=CPU)
    task.loss(None).backward()
    assert task.model.theta.grad is not None
    assert task.model.theta.grad[1] == 0.0


@pytest.mark.parametrize(
    ("optimizer", "num_steps"),
    [
        ("sgd", 483),
        ("momentum", 96),
        ("nesterov", 90),
        ("adam", 80),
        ("rmsprop", 19),
        ("adagrad", 1505),  # slower than SGD: adaptive is not always faster away
    ],
)
def test_the_saddle_is_left_after_as_many_steps_as_counted_independently(
    run_trial: RunTrial, optimizer: str, num_steps: int
) -> None:
    """At lr 0.01 from y = 0.0001, steps until |y| > 1."""
    target = ["target.metric=distance", "target.value=1.0"]
    result = run_trial("task=saddle", f"optimizer={optimizer}", "optimizer.lr=0.01", *target)
    assert result.status == "reached_target"
    assert result.summary["steps_to_target"] == pytest.approx(num_steps, abs=max(2, 0.02 * num_steps))
