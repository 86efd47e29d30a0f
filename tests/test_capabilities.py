"""The one loop and what optimizers need of it: closures, extra passes, swapped weights, graphs, clipped gradients."""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optbench.clock import Clock
from optbench.component import Capability
from optbench.measurement import Measurement
from optbench.optim.combined import Combined
from optbench.train import train
from optbench.trial import Budget
from tests.conftest import RunTrial


class Bowl:
    """Minimise |theta|^2 / 2 from (3, 4)."""

    def __init__(self) -> None:
        self.model = nn.Linear(2, 1, bias=False)
        self.model.weight.data = torch.tensor([[3.0, 4.0]])
        self.num_losses = 0

    def batches(self) -> Iterator[int]:
        return itertools.count(1)

    def loss(self, batch: int) -> Tensor:
        del batch
        self.num_losses += 1
        return 0.5 * (self.model.weight**2).sum()

    def evaluate(self) -> Mapping[str, float]:
        return {"test_loss": 0.5 * (self.model.weight.detach() ** 2).sum().item()}


def trained(
    task: Bowl, optimizer: torch.optim.Optimizer, *capabilities: Capability, **options: Any
) -> list[Measurement]:
    rows = train(
        task,
        optimizer,
        options.pop("schedule", lambda _: 1.0),
        capabilities=frozenset(capabilities),
        budget=Budget(num_steps=options.pop("num_steps", 4), seconds=None),
        every_num_steps=options.pop("every_num_steps", 2),
        max_loss=1e6,
        target=None,
        clock=Clock(torch.device("cpu")),
        **options,
    )
    return list(rows)


def test_a_closure_may_be_called_as_often_as_the_optimizer_likes_and_each_call_counts() -> None:
    task = Bowl()
    optimizer = torch.optim.LBFGS(task.model.parameters(), lr=0.1, max_iter=5)
    rows = trained(task, optimizer, Capability.CLOSURE)
    assert rows[-1].step == 4
    assert rows[-1].gradient_evaluations == task.num_losses > 4
    assert rows[-1].metrics["test_loss"] < rows[0].metrics["test_loss"]


def test_the_loss_of_a_step_with_a_closure_is_the_one_before_the_step() -> None:
    task = Bowl()
    optimizer = torch.optim.LBFGS(task.model.parameters(), lr=0.1, max_iter=5)
    rows = trained(task, optimizer, Capability.CLOSURE, num_steps=1, every_num_steps=1)
    assert rows[-1].metrics["train_loss"] == 12.5


class Midpoint(torch.optim.Optimizer):
    """Takes the gradient once more, half a step further, and steps by that."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> None:  # type: ignore[override]
        group = self.param_groups[0]
        before = [parameter.clone() for parameter in group["params"]]
        for parameter in group["params"]:
            parameter -= 0.5 * group["lr"] * parameter.grad
        with torch.enable_grad():
            closure()
        for parameter, start in zip(group["params"], before, strict=True):
            parameter.copy_(start - group["lr"] * parameter.grad)


def test_an_extra_pass_takes_the_gradient_of_the_same_minibatch_again() -> None:
    task = Bowl()
    rows = trained(task, Midpoint(task.model.parameters(), lr=0.1), Capability.EXTRA_PASS, num_steps=1)
    assert task.model.weight[0, 0].item() == pytest.approx(3.0 * (1 - 0.1 + 0.1**2 / 2))
    assert rows[-1].gradient_evaluations == 2


class Averaged(torch.optim.SGD):
    """Evaluates at the origin; says when it is stepped while it does."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr=lr)
        self.is_training = False
        self.kept: list[Tensor] = []

    def train(self) -> None:
        for parameter, value in zip(self.param_groups[0]["params"], self.kept, strict=False):
            parameter.data.copy_(value)
        self.kept, self.is_training = [], True

    def eval(self) -> None:
        self.kept = [parameter.data.clone() for parameter in self.param_groups[0]["params"]]
        for parameter in self.param_groups[0]["params"]:
            parameter.data.zero_()
        self.is_training = False

    def step(self, closure: Any = None) -> Any:
        assert self.is_training
        return super().step(closure)


def test_weights_are_swapped_for_each_evaluation_and_back_for_the_next_step() -> None:
    task = Bowl()
    optimizer = Averaged(task.model.parameters(), lr=0.1)
    rows = trained(task, optimizer, Capability.TRAIN_EVAL)
    assert [row.metrics["test_loss"] for row in rows] == [12.5, 0.0, 0.0]
    assert rows[-1].metrics["train_loss"] == pytest.approx(12.5 * (0.9**4 + 0.9**6) / 2)


class SecondOrder(torch.optim.SGD):
    """Newton's step for a diagonal Hessian, from a gradient that can be differentiated."""

    def step(self, closure: Any = None) -> Any:
        for parameter in self.param_groups[0]["params"]:
            (curvature,) = torch.autograd.grad(parameter.grad.sum(), parameter)
            with torch.no_grad():
                parameter -= parameter.grad / curvature


def test_gradients_can_be_differentiated_again_and_leave_no_graph_behind() -> None:
    task = Bowl()
    trained(task, SecondOrder(task.model.parameters(), lr=0.1), Capability.CREATE_GRAPH, num_steps=1)
    assert task.model.weight.tolist() == [[0.0, 0.0]]
    assert task.model.weight.grad is None


@pytest.mark.parametrize(("most", "first"), [(1.0, 3.0 - 0.1 * 0.6), (5.0, 2.7), (100.0, 2.7)])
def test_a_gradient_is_clipped_to_the_norm_and_a_short_one_is_left(most: float, first: float) -> None:
    task = Bowl()
    trained(task, torch.optim.SGD(task.model.parameters(), lr=0.1), num_steps=1, max_grad_norm=most)
    assert task.model.weight[0, 0].item() == pytest.approx(first, abs=1e-5)


def test_a_rate_that_is_a_tensor_is_filled_in_place() -> None:
    task = Bowl()
    lr = torch.tensor(0.1)
    optimizer = torch.optim.SGD(task.model.parameters(), lr=lr)
    rows = trained(task, optimizer, schedule=lambda progress: 1.0 - progress, every_num_steps=1)
    assert optimizer.param_groups[0]["lr"] is lr
    assert [row.lr for row in rows] == pytest.approx([0.1, 0.1, 0.075, 0.05, 0.025])


def test_a_rate_that_the_optimizer_chooses_is_stored_as_no_number(run_trial: RunTrial) -> None:
    result = run_trial("optimizer=adafactor_transformers", "budget.num_steps=2")
    assert result.status == "completed"
    assert set(result.curve["lr"]) == {None}


def test_two_optimizers_as_one_keep_groups_and_state_together() -> None:
    def parts(model: nn.Sequential) -> Combined:
        first = torch.optim.SGD(model[0].parameters(), lr=0.1, momentum=0.9)
        return Combined([first, torch.optim.AdamW(model[1].parameters(), lr=0.01)])

    def step(model: nn.Sequential, optimizer: Combined) -> None:
        optimizer.zero_grad()
        model(torch.ones(3, 2)).square().sum().backward()
        optimizer.step()

    torch.manual_seed(0)
    model, other = (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2))
    optimizer = parts(model)
    optimizer.param_groups[0]["lr"] = 0.05
    for _ in range(3):
        step(model, optimizer)
    assert len(optimizer.state) == 4
    assert "momentum_buffer" in optimizer.state[model[0].weight]
    assert "exp_avg_sq" in optimizer.state[model[1].weight]
    other.load_state_dict(model.state_dict())
    resumed = parts(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch shares tensors otherwise
    assert resumed.param_groups[0]["lr"] == 0.05
    for pair in ((model, optimizer), (other, resumed)):
        step(*pair)
    assert all(map(torch.equal, model.parameters(), other.parameters()))
