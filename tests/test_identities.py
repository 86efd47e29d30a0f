"""What is said of optimizers, checked with the rules, as far as no paper's file computes it."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optbench.optim.rules import RULES, State
from optbench.parity import record

ADAM = {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-8}


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def steps(name: str, values: Mapping[str, Any], grads: list[Tensor], start: Tensor | None = None) -> Iterator[Tensor]:
    """What each step of a rule subtracts from one tensor."""
    param = torch.zeros_like(grads[0]) if start is None else start
    state: State = {}
    for grad in grads:
        (moved,), state = RULES[name](values, state, (param,), (grad,))
        yield param - moved
        param = moved


# Adam's bias correction: Kingma and Ba (2015), section 3.


def losses_on_digits(name: str, **values: Any) -> list[float]:
    """Sixty steps of an MLP on normalised digits."""
    from sklearn.datasets import load_digits

    images, labels = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    images = ((images - images.mean()) / images.std()).float()
    order = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))
    params = tuple(model.parameters())
    state: State = {}
    losses = []
    for _ in range(60):
        batch = torch.randint(len(labels), (128,), generator=order)
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        losses.append(loss.item())
        grads = torch.autograd.grad(loss, params)
        moved, state = RULES[name](values, state, [param.detach() for param in params], grads)
        with torch.no_grad():
            for param, new in zip(params, moved, strict=True):
                param.copy_(new)
    return losses


def test_without_bias_correction_and_with_a_long_memory_training_on_digits_blows_up() -> None:
    values = {"lr": 0.01, "betas": (0.9, 0.9999), "eps": 1e-8}
    corrected = losses_on_digits("adam", **values)
    assert max(corrected) == corrected[0]
    assert max(losses_on_digits("adam_uncorrected", **values)) > 10


def test_at_a_low_rate_training_without_bias_correction_is_stable_and_even_faster() -> None:
    corrected, uncorrected = losses_on_digits("adam", **ADAM), losses_on_digits("adam_uncorrected", **ADAM)
    assert max(uncorrected) == uncorrected[0]
    assert sum(uncorrected[50:]) < sum(corrected[50:])


# State: what a method keeps, in units of the parameters.


@pytest.mark.parametrize(("name", "states"), [("adam", 2), ("adamw", 2), ("amsgrad", 3), ("sgd", 1), ("lion", 1)])
def test_adam_keeps_twice_its_parameters_amsgrad_three_times_and_momentum_and_lion_once(name: str, states: int) -> None:
    """So that Adam takes 3 times the memory of its parameters, and 4 times with the gradients."""
    params, grads = record().params, record().grads[0]
    values = {**ADAM, "momentum": 0.9, "weight_decay": 0.0}
    _, state = RULES[name](values, {}, params, grads)
    kept = [tensor for one in state["tensors"] for key, tensor in one.items() if key != "step"]
    assert sum(tensor.numel() for tensor in kept) == states * sum(param.numel() for param in params)


# Adafactor: Shazeer and Stern (2018).

ADAFACTOR = {"lr": None, "eps": (1e-30, 0.001), "clip_threshold": 1.0, "decay_rate": -0.8}


def test_adafactors_first_moment_is_a_memory_of_direction() -> None:
    grads = [grads[1] for grads in record().grads[:20]]
    with_memory = steps("adafactor", {**ADAFACTOR, "beta1": 0.9}, grads, start=record().params[1])
    assert any(not torch.equal(step.sign(), grad.sign()) for grad, step in zip(grads, with_memory, strict=True))


# Snippets that are copied around, and what they do.


def test_momentum_that_is_assigned_to_one_name_and_read_from_another_never_moves() -> None:
    x, vx = 1.0, 0.0
    for _ in range(10):
        vs = 0.9 * vx + 2 * x  # noqa: F841  the slip: `vs`, where the next line reads `vx`
        x -= 0.1 * vx
    assert x == 1.0
    correct, state = (doubles(1.0),), {}
    for _ in range(10):
        correct, state = RULES["sgd"]({"lr": 0.1, "momentum": 0.9}, state, correct, (2 * correct[0],))
    assert abs(float(correct[0])) < 1.0


def test_adagrad_without_the_gradient_in_its_step_climbs_where_the_gradient_is_negative() -> None:
    x, total = 0.0, 0.0  # of (x - 1)^2
    for _ in range(10):
        grad = 2 * (x - 1)
        total += grad**2
        x -= 0.1 / (math.sqrt(total) + 1e-10)  # the slip: times grad
    assert x < 0.0
    correct, state = (doubles(0.0),), {}
    for _ in range(10):
        correct, state = RULES["adagrad"]({"lr": 0.1, "eps": 1e-10}, state, correct, (2 * (correct[0] - 1),))
    assert 0.0 < float(correct[0]) < 1.0


def test_a_preconditioner_with_the_momentum_in_it_forgets_which_way_is_down() -> None:
    grads = [doubles(0.5, -0.5)] * 10
    state: State = {}
    for t, (grad, adam) in enumerate(zip(grads, steps("adam", ADAM, grads), strict=True), start=1):
        _, state = RULES["adam"](ADAM, state, (torch.zeros_like(grad),), (grad,))
        m, v = (state["tensors"][0][key] / (1 - beta**t) for key, beta in (("m", 0.9), ("v", 0.999)))
        torch.testing.assert_close(0.001 * (1 / (v.sqrt() + 1e-8)) * m, adam)  # the paper's, applied to m
        wrong = 0.001 * (m / (v.sqrt() + 1e-8)) * m  # applied to m as a preconditioner is
        assert (wrong > 0).all()  # down in both coordinates, whatever the sign of the gradient
