"""The contract of every optimizer in conf/: a new YAML is tested by being there."""

import inspect
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from optbench.catalogue import entries
from optbench.components import locate
from optbench.errors import UsageError
from optbench.optim.build import build, check
from optbench.trial import Component, component
from tests.conftest import MakeTrial, RunTrial

CONF = Path(__file__).parent.parent / "conf" / "optimizer"
NAMES = [entry.name for entry in entries("optimizer")]

# Arguments that are not offered: they turn the optimizer into something else, or do nothing.
NOT_OFFERED = {"maximize", "capturable", "differentiable"}
NOT_OFFERED_BY = {"adamw8bit": {"amsgrad", "optim_bits", "args"}}  # bitsandbytes refuses or ignores them

# Where a file departs from the class's own default, its header says why.
OWN_VALUES = {
    "momentum": {"momentum": 0.9},
    "momentum_averaging": {"momentum": 0.9, "dampening": "${optimizer.momentum}"},
    "nesterov": {"momentum": 0.9, "nesterov": True},
}


def load(name: str) -> Component:
    return component(yaml.safe_load((CONF / f"{name}.yaml").read_text()), group="optimizer")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_offers_every_hyperparameter_of_its_class_at_the_default_of_the_class(name: str) -> None:
    loaded = load(name)
    _, *parameters = inspect.signature(locate(loaded, group="optimizer")).parameters.values()
    offered = {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.name not in NOT_OFFERED | NOT_OFFERED_BY.get(name, set())
    }
    written = {key: tuple(value) if isinstance(value, list) else value for key, value in loaded.arguments.items()}
    assert written == offered | OWN_VALUES.get(name, {})


@pytest.mark.parametrize("name", NAMES)
def test_a_file_states_its_convention(name: str) -> None:
    convention = yaml.safe_load((CONF / f"{name}.yaml").read_text())["convention"]
    assert "weight_decay" in convention
    assert set(convention) <= {"momentum", "weight_decay", "eps"}


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls_on_real_digits_and_again_exactly_so(name: str, run_trial: RunTrial) -> None:
    overrides = [f"optimizer={name}", "budget.num_steps=220", "evaluation.every_num_steps=44"]
    first, second = (run_trial(*overrides) for _ in range(2))
    assert first.status == "completed", first.summary
    losses = first.curve["test_loss"]
    assert losses[-1] < losses[0]
    for metric in ("train_loss", "test_loss", "test_accuracy"):
        assert first.curve[metric] == second.curve[metric]


@pytest.mark.parametrize("name", NAMES)
def test_a_trial_says_what_the_optimizer_keeps(name: str, run_trial: RunTrial) -> None:
    summary = run_trial(f"optimizer={name}", "budget.num_steps=2", "evaluation.every_num_steps=2").summary
    assert summary["peak_bytes_are"] == "tensor bytes of a step"
    at_least = 2 * summary["parameter_bytes"] + summary["state_bytes"]  # with the gradients
    assert summary["peak_bytes"] > at_least


@pytest.mark.parametrize(
    ("name", "overrides", "bytes_per_parameter"),
    [
        ("sgd", [], 0.0),
        ("momentum", [], 4.0),
        ("nesterov", [], 4.0),
        ("adagrad", [], 4.0),
        ("rmsprop", [], 4.0),
        ("rmsprop", ["optimizer.momentum=0.9"], 8.0),
        ("adam", [], 8.0),
        ("adam", ["optimizer.amsgrad=true"], 12.0),
        ("adamw", [], 8.0),
        ("lion", [], 4.0),
        ("prodigy", [], 16.0),
    ],
)
def test_state_takes_the_bytes_that_its_method_needs(
    run_trial: RunTrial, name: str, overrides: list[str], bytes_per_parameter: float
) -> None:
    summary = run_trial(f"optimizer={name}", "budget.num_steps=2", *overrides).summary
    assert summary["state_bytes"] / summary["num_parameters"] == pytest.approx(bytes_per_parameter, abs=0.005)


def test_a_value_that_the_class_refuses_is_named() -> None:
    with pytest.raises(UsageError, match=r"adamw .*refuses lr=-1.0.*Invalid learning rate"):
        check(Component(name="adamw", target="torch.optim.AdamW", arguments={"lr": -1.0}))


def test_a_value_that_the_class_refuses_without_a_word_is_named_too() -> None:
    with pytest.raises(UsageError, match=r"lion .*refuses lr=-1.0"):
        check(Component(name="lion", target="lion_pytorch.Lion", arguments={"lr": -1.0}))


def test_a_hyperparameter_that_the_class_lacks_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"unknown key 'optimizer.beta' .*Did you mean 'optimizer.betas'") as caught:
        check(Component(name="adamw", target="torch.optim.AdamW", arguments={"lr": 0.1, "beta": 0.9}))
    assert "weight_decay" in str(caught.value)


def test_a_class_that_cannot_be_imported_is_an_error() -> None:
    with pytest.raises(UsageError, match="no_such_package"):
        check(Component(name="mine", target="no_such_package.Mine", arguments={}))


def no_optimizer(params: list[nn.Parameter]) -> int:
    return len(params)


def test_something_that_is_no_optimizer_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"not a torch\.optim\.Optimizer"):
        check(Component(name="mine", target="tests.test_optimizers.no_optimizer", arguments={}))


class Forgetful(torch.optim.SGD):
    """Leaves the last parameter out."""

    def __init__(self, params: list[nn.Parameter], lr: float) -> None:
        super().__init__(params[:-1] or [nn.Parameter(torch.zeros(1))], lr=lr)


class MatricesOnly(torch.optim.SGD):
    """Leaves biases out."""

    def __init__(self, params: list[nn.Parameter], lr: float) -> None:
        super().__init__([parameter for parameter in params if parameter.ndim == 2], lr=lr)


def test_an_optimizer_that_leaves_a_parameter_out_is_an_error() -> None:
    forgetful = Component(name="forgetful", target="tests.test_optimizers.Forgetful", arguments={"lr": 0.1})
    with pytest.raises(UsageError, match="leaves out 1 of 2 trainable parameters"):
        build(forgetful, nn.Linear(2, 2).parameters())


def test_frozen_parameters_are_not_handed_over() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = build(load("sgd"), model.parameters())
    assert [parameter for group in optimizer.param_groups for parameter in group["params"]] == [model.weight]


@pytest.mark.parametrize(("name", "rate_in_the_long_run"), [("momentum_averaging", 1.0), ("momentum", 10.0)])
def test_under_a_constant_gradient_momentum_goes_at_the_rate_of_its_convention(
    name: str, rate_in_the_long_run: float, make_trial: MakeTrial
) -> None:
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = build(make_trial(f"optimizer={name}", "optimizer.lr=1.0").optimizer, [parameter])
    parameter.grad = torch.ones_like(parameter)
    for _ in range(300):
        before = parameter.item()
        optimizer.step()
    assert before - parameter.item() == pytest.approx(rate_in_the_long_run)


def test_the_averaging_momentum_keeps_its_damping_when_beta_is_set(make_trial: MakeTrial) -> None:
    trial = make_trial("optimizer=momentum_averaging", "optimizer.momentum=0.5")
    assert trial.optimizer.arguments["dampening"] == 0.5
