"""What an optimizer is seen to do at each measurement."""

import math

import pytest
import torch
from torch import nn

from optbench.view import View
from tests.conftest import RunTrial


def test_an_update_is_the_root_mean_square_of_what_one_step_changed() -> None:
    weights = nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([weights], lr=0.5)
    view = View(optimizer)
    weights.grad = torch.tensor([2.0, 0.0, 0.0, 0.0])
    view.before_step()
    optimizer.step()
    assert view.after_step(torch.tensor(2.0)) == {"update_rms": 0.5, "grad_norm": 2.0}
    assert view.after_step(torch.tensor(2.0)) == {}, "the step was not watched"


@pytest.mark.parametrize("optimizer", ["sgd", "lion", "adamw", "lbfgs", "sam", "schedulefree_adamw", "adafactor"])
def test_every_measurement_after_the_first_has_an_update_and_a_gradient(optimizer: str, run_trial: RunTrial) -> None:
    curve = run_trial(
        f"optimizer={optimizer}", "task=saddle", "budget.num_steps=6", "evaluation.every_num_steps=4"
    ).curve
    assert curve["step"] == [0, 4, 6]
    assert curve["update_rms"][0] is None
    assert all(value is not None for name in ("update_rms", "grad_norm") for value in curve[name][1:])
    assert all(
        curve[name][1] > 0 for name in ("update_rms", "grad_norm") if optimizer != "lbfgs"
    )  # it is there by then
    assert "d" not in curve


def test_a_sign_method_moves_every_weight_by_its_rate(run_trial: RunTrial) -> None:
    curve = run_trial("optimizer=lion", "optimizer.lr=0.01", "optimizer.weight_decay=0.0", "budget.num_steps=44").curve
    assert curve["update_rms"][-1] == pytest.approx(0.01, rel=0.05)  # those without a gradient stay


def test_a_gradient_is_measured_before_it_is_clipped(run_trial: RunTrial) -> None:
    asked = ("task=quadratic", "optimizer=sgd", "optimizer.lr=0.1", "budget.num_steps=1")
    free, clipped = (run_trial(*asked, f"max_grad_norm={norm}").curve for norm in ("null", "0.5"))
    assert clipped["grad_norm"][-1] == pytest.approx(free["grad_norm"][-1], rel=1e-5)
    assert free["grad_norm"][-1] > 0.5
    assert clipped["update_rms"][-1] == pytest.approx(0.1 * 0.5 / math.sqrt(100), rel=1e-4)


def test_prodigy_says_how_far_it_thinks_it_has_to_go(run_trial: RunTrial) -> None:
    asked = ("optimizer=prodigy", "optimizer.lr=0.5", "task=quadratic", "budget.num_steps=50", "schedule=cosine")
    curve = run_trial(*asked).curve
    assert curve["d"][0] == 1e-6
    assert sorted(curve["d"]) == curve["d"]
    assert curve["d"][-1] > 1e-3
    expected = [d * lr for d, lr in zip(curve["d"], curve["lr"], strict=True)]
    assert curve["effective_lr"] == pytest.approx(expected)


def test_a_view_changes_nothing(run_trial: RunTrial) -> None:
    often, seldom = (
        run_trial("task=quadratic", "budget.num_steps=20", f"evaluation.every_num_steps={every}") for every in (1, 20)
    )
    assert often.summary["test_loss"] == seldom.summary["test_loss"]
