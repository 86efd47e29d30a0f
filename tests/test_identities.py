"""What is said of optimizers, checked with the rules: identities, exact figures, and statements that are wrong."""

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optbench.optim.rules import RULES, State
from optbench.parity import OfRule, compare, record
from optbench.schedule import constant
from tests.conftest import RunTrial

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


def under_a_constant_gradient(t: int, betas: tuple[float, float], grad: Tensor) -> State:
    """Adam's state before step t, all gradients having been this one."""
    m, v = (grad**power * (1 - beta ** (t - 1)) for power, beta in ((1, betas[0]), (2, betas[1])))
    return {"tensors": ({"step": doubles(t - 1)[0], "m": m, "v": v},)}


def relative_difference(one: OfRule, other: OfRule) -> float:
    return max(difference.relative for difference in compare(one, other, record()).differences)


def of_rule(name: str, **values: Any) -> OfRule:
    return OfRule(rule=RULES[name], hyperparameters=values, schedule=constant(warmup=0.0))


# Adam's bias correction: Kingma and Ba (2015), section 3.


def test_averages_without_correction_weigh_the_gradients_by_a_tenth_by_19_and_by_27_percent() -> None:
    state: State = {}
    sums = []
    for _ in range(10):
        _, state = RULES["adam_uncorrected"](ADAM, state, (doubles(0.0),), (doubles(1.0),))
        sums.append(float(state["tensors"][0]["m"]))
    assert sums[:3] == pytest.approx([0.1, 0.19, 0.271])
    assert sums[9] == pytest.approx(0.651, abs=5e-4)  # it takes ten steps to 65 %, and not three


def test_without_bias_correction_adams_first_steps_are_up_to_six_times_too_long() -> None:
    beta2 = doubles(0.999, 0.9999, 0.95)
    values = {"lr": 1.0, "betas": (0.9, beta2), "eps": 0.0}
    grads = [torch.ones_like(beta2)] * 2400
    ratios = torch.stack(list(steps("adam_uncorrected", values, grads)))  # the corrected step is 1 throughout
    assert torch.stack(list(steps("adam", values, grads[:50]))).sub(1).abs().max() < 1e-12
    default, longer, shorter = ratios.T
    assert default[0] == pytest.approx(math.sqrt(10))
    assert (int(default.argmax()) + 1, float(default.max())) == (12, pytest.approx(6.569, abs=5e-4))
    assert int((default > 1.05).nonzero().max()) + 2 == 2375  # the first step from which it stays below
    assert longer.max() == pytest.approx(20.7, abs=0.05)
    assert shorter[0] == pytest.approx(0.447, abs=5e-4)  # a warm-up, then hardly anything
    assert shorter.max() == pytest.approx(1.10, abs=0.005)


@pytest.mark.parametrize(
    ("beta2", "first"), [(0.999, "too long"), (0.99, "right"), (0.98, "too short"), (0.95, "too short")]
)
def test_the_first_uncorrected_step_is_too_short_only_with_a_beta2_below_99_percent(beta2: float, first: str) -> None:
    (ratio,) = steps("adam_uncorrected", {"lr": 1.0, "betas": (0.9, beta2), "eps": 0.0}, [doubles(1.0)])
    assert float(ratio) == pytest.approx(0.1 / math.sqrt(1 - beta2))
    assert {"too long": ratio > 1, "right": abs(ratio - 1) < 1e-9, "too short": ratio < 1}[first]


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


@pytest.mark.verify
@pytest.mark.skipif("OPTBENCH_DATA" not in os.environ, reason="OPTBENCH_DATA names no folder with MNIST")
@pytest.mark.parametrize(("lr", "beta2", "spike"), [("0.01", "0.999", 5.0), ("0.01", "0.9999", 30.0)])
def test_without_bias_correction_the_loss_of_the_mnist_mlp_spikes(
    run_trial: RunTrial, lr: str, beta2: str, spike: float
) -> None:
    def highest(optimizer: str) -> float:
        result = run_trial(
            "task=mnist_mlp",
            f"optimizer={optimizer}",
            f"optimizer.lr={lr}",
            f"optimizer.betas=[0.9,{beta2}]",
            "budget.num_steps=50",
            "evaluation.every_num_steps=1",
        )
        return max(loss for loss in result.curve["train_loss"] if loss is not None and math.isfinite(loss))

    assert highest("adam") < 2.5
    assert highest("adam_uncorrected") > spike  # measured with other seeds: 13.3 and 110.8


def test_adam_without_momentum_and_with_endless_memory_is_adagrad() -> None:
    grads = list(torch.randn(100, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    adagrad = list(steps("adagrad", {"lr": 0.1, "eps": 0.0}, grads))
    state: State = {}
    for t, (grad, expected) in enumerate(zip(grads, adagrad, strict=True), start=1):  # Kingma and Ba (2015), section 5
        values = {"lr": 0.1 / math.sqrt(t), "betas": (0.0, 1 - 1e-9), "eps": 0.0}
        (moved,), state = RULES["adam"](values, state, (torch.zeros_like(grad),), (grad,))
        torch.testing.assert_close(-moved, expected, rtol=1e-7, atol=0.0)


def test_pytorchs_eps_lets_adam_go_faster_than_tensorflows_while_gradients_are_small() -> None:
    grad = doubles(1e-6, 1e-5, 1e-4)
    published = {1: (28.8, 16.3, 3.8), 10: (9.2, 5.5, 1.8), 100: (3.0, 2.1, 1.2), 1000: (1.23, 1.13, 1.02)}
    values = {"lr": 1.0, "betas": (0.9, 0.999), "eps": 1e-5}
    for t, expected in published.items():
        state = under_a_constant_gradient(t, values["betas"], grad)
        (pytorch,), _ = RULES["adam"](values, state, (torch.zeros_like(grad),), (grad,))
        (tensorflow,), _ = RULES["adam_tf"](values, state, (torch.zeros_like(grad),), (grad,))
        ratio = (pytorch / tensorflow).tolist()
        assert ratio == pytest.approx(expected, abs=0.05 if t < 1000 else 0.005)
        assert ratio == sorted(ratio, reverse=True)
        assert min(ratio) > 1


# State: what a method keeps, in units of the parameters.


@pytest.mark.parametrize(("name", "states"), [("adam", 2), ("adamw", 2), ("amsgrad", 3), ("sgd", 1), ("lion", 1)])
def test_adam_keeps_twice_its_parameters_amsgrad_three_times_and_momentum_and_lion_once(name: str, states: int) -> None:
    """So that Adam takes 3 times the memory of its parameters, and 4 times with the gradients."""
    params, grads = record().params, record().grads[0]
    values = {**ADAM, "momentum": 0.9, "weight_decay": 0.0}
    _, state = RULES[name](values, {}, params, grads)
    kept = [tensor for one in state["tensors"] for key, tensor in one.items() if key != "step"]
    assert sum(tensor.numel() for tensor in kept) == states * sum(param.numel() for param in params)


# Decay: Loshchilov and Hutter (2019).


def test_decay_in_the_gradient_is_decoupled_decay_for_plain_sgd() -> None:  # their proposition 1
    coupled = of_rule("sgd", lr=0.1, weight_decay=0.05)
    decoupled = of_rule("sgdw_independent", lr=0.1, weight_decay=0.005)
    assert relative_difference(coupled, decoupled) < 1e-14


def test_decay_in_the_gradient_is_not_decoupled_decay_for_sgd_with_momentum() -> None:
    coupled = of_rule("sgd", lr=0.1, momentum=0.9, weight_decay=0.05)
    decoupled = of_rule("sgdw_independent", lr=0.1, momentum=0.9, weight_decay=0.005)
    assert relative_difference(coupled, decoupled) > 0.01


def test_decay_in_the_gradient_is_not_decoupled_decay_for_adam() -> None:  # their proposition 2
    coupled, decoupled = (of_rule(name, weight_decay=0.05, **ADAM) for name in ("adam", "adamw"))
    assert relative_difference(coupled, decoupled) > 0.01


def test_pytorchs_adamw_is_the_papers_with_the_decay_divided_by_the_rate() -> None:
    pytorch = of_rule("adamw", weight_decay=0.1, **ADAM)
    paper = of_rule("adamw_independent", weight_decay=0.1 * ADAM["lr"], **ADAM)
    assert relative_difference(pytorch, paper) == 0.0


def test_composers_decay_of_a_hundred_thousandth_is_pytorchs_of_a_hundredth() -> None:
    values = {"lr": 0.001, "betas": (0.9, 0.95), "eps": 1e-8}
    composer = of_rule("adamw_independent", weight_decay=0.00001, **values)
    assert relative_difference(composer, of_rule("adamw", weight_decay=0.01, **values)) < 1e-14


def test_under_mup_pytorchs_decay_falls_with_the_width_unless_it_is_raised_as_much() -> None:
    def shrink(name: str, *, lr: float, weight_decay: float) -> float:
        values = {**ADAM, "lr": lr, "initial_lr": lr, "weight_decay": weight_decay}
        (step,) = steps(name, values, [doubles(0.0)], start=doubles(1.0))
        return float(step)

    for width in (1, 2, 4, 64):
        lr = 0.01 / width  # of a hidden matrix, Yang et al. (2022), table 3
        assert shrink("adamw", lr=lr, weight_decay=0.1) == pytest.approx(0.001 / width)
        assert shrink("adamw", lr=lr, weight_decay=0.1 * width) == pytest.approx(0.001)
        assert shrink("adamw_independent", lr=lr, weight_decay=0.001) == pytest.approx(0.001)


# RAdam's rectifier: Liu et al. (2020), section 4.


def rectifier(t: int) -> float:
    """The step under a constant gradient of 1, where Adam's is 1."""
    values = {"lr": 1.0, "betas": (0.9, 0.999), "eps": 0.0}
    state = under_a_constant_gradient(t, values["betas"], doubles(1.0))
    (moved,), _ = RULES["radam"](values, state, (doubles(0.0),), (doubles(1.0),))
    return -float(moved)


def test_radams_rectifier_rises_from_3_percent_at_step_6_to_half_at_step_556() -> None:
    for t, published in ((6, 0.026), (10, 0.049), (100, 0.215), (1000, 0.645)):
        assert rectifier(t) == pytest.approx(published, abs=5e-4)
    assert rectifier(555) < 0.5 <= rectifier(556)
    assert rectifier(2736) < 0.9 <= rectifier(2737)


def test_radam_rectifies_from_step_6_in_code_and_from_step_5_on_paper() -> None:
    def rho(t: int) -> float:
        return 1999 - 2 * t * 0.999**t / (1 - 0.999**t)

    assert rho(4) < 4 < rho(5) < 5 < rho(6)
    assert rectifier(5) == pytest.approx(1.0)  # a step along the mean gradient, which is 1
    assert rectifier(6) < 0.03


def test_the_variance_of_adams_rate_falls_over_time_and_that_of_radams_does_not() -> None:
    draw = torch.Generator().manual_seed(0)
    variances: dict[int, tuple[float, float]] = {}
    state: State = {}
    for t in range(1, 1001):  # 5000 trajectories of gradients from N(0, 1), as in the paper's figure 9
        grad = torch.randn(5000, generator=draw, dtype=torch.float64)
        _, state = RULES["adam"]({**ADAM, "lr": 1.0}, state, (torch.zeros_like(grad),), (grad,))
        if t in (6, 20, 100, 1000):
            rate = ((1 - 0.999**t) / state["tensors"][0]["v"]).sqrt()
            variances[t] = (float(rate.var()), float((rectifier(t) * rate).var()))
    adam, radam = zip(*variances.values(), strict=True)
    assert list(adam) == sorted(adam, reverse=True)
    assert adam[0] > 100 * adam[-1]
    assert max(radam) < 3 * min(radam)


# Adafactor: Shazeer and Stern (2018).

ADAFACTOR = {"lr": None, "eps": (1e-30, 0.001), "clip_threshold": 1.0, "decay_rate": -0.8}


def test_adafactor_has_no_memory_of_direction_every_step_goes_against_its_own_gradient() -> None:
    grads = [grads[1] for grads in record().grads[:20]]
    for grad, step in zip(grads, steps("adafactor", ADAFACTOR, grads, start=record().params[1]), strict=True):
        assert torch.equal(step.sign(), grad.sign())


def test_adafactors_first_moment_is_a_memory_of_direction() -> None:
    grads = [grads[1] for grads in record().grads[:20]]
    with_memory = steps("adafactor", {**ADAFACTOR, "beta1": 0.9}, grads, start=record().params[1])
    assert any(not torch.equal(step.sign(), grad.sign()) for grad, step in zip(grads, with_memory, strict=True))


def test_adafactors_step_grows_with_the_weights_above_a_floor() -> None:
    grad = record().grads[0][1]
    weights = torch.ones_like(grad)
    (step,) = steps("adafactor", ADAFACTOR, [grad], start=weights)
    for size in (100.0, 0.1, 0.001):
        (scaled,) = steps("adafactor", ADAFACTOR, [grad], start=size * weights)
        torch.testing.assert_close(scaled, size * step, rtol=1e-9, atol=1e-12)
    for size in (0.0005, 0.0):  # below eps[1] = 0.001 the size counts as that
        (scaled,) = steps("adafactor", ADAFACTOR, [grad], start=size * weights)
        torch.testing.assert_close(scaled, 0.001 * step, rtol=1e-9, atol=1e-15)


# Lion: Chen et al. (2023), algorithm 2.


def test_lion_steps_by_the_sign_of_an_interpolation_and_not_by_that_of_its_momentum() -> None:
    values = {"lr": 1.0, "betas": (0.9, 0.99)}
    params, state = RULES["lion"](values, {}, (doubles(0.0),), (doubles(100.0),))  # the momentum is now 1
    (moved,), state = RULES["lion"](values, state, params, (doubles(-20.0),))
    assert float(state["tensors"][0]["m"]) == pytest.approx(0.99 * 1 - 0.01 * 20)  # above 0
    assert float(moved - params[0]) == 1.0  # up: c = 0.9 * 1 - 0.1 * 20 is below 0


# Prodigy: Mishchenko and Defazio (2024), algorithm 4.

PRODIGY = {"lr": 1.0, "betas": (0.9, 0.99), "eps": 1e-8}


def test_prodigys_s_and_v_are_two_states_as_in_prodigyopt() -> None:
    prodigyopt = pytest.importorskip("prodigyopt")
    model = record().model()
    params = list(model.parameters())
    library = prodigyopt.Prodigy(params, **PRODIGY)
    ours, state = record().params, {}
    for grads in record().grads[:20]:
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad.clone()
        library.step()
        ours, state = RULES["prodigy"](PRODIGY, state, ours, grads)
    assert float(state["d"]) == pytest.approx(library.param_groups[0]["d"], rel=1e-11)
    for param, s, v in zip(params, state["s"], state["v"], strict=True):
        torch.testing.assert_close(s.reshape(-1), library.state[param]["s"], rtol=1e-9, atol=1e-20)
        torch.testing.assert_close(v, library.state[param]["exp_avg_sq"], rtol=1e-9, atol=1e-20)
        assert not torch.allclose(s.reshape(-1), v.reshape(-1), rtol=0.5, atol=0.0)
        assert v.min() >= 0 > s.min()  # one averages squares, the other sums gradients


def test_the_papers_factor_1_minus_root_beta2_cancels_in_prodigys_estimate() -> None:
    beta3 = math.sqrt(0.99)
    (start, *_), first_grads = record().params, [grads[0] for grads in record().grads[:20]]
    param, state = start, {}
    r, s, d = 0.0, torch.zeros_like(start), 1e-6
    for grad in first_grads:
        r = beta3 * r + (1 - beta3) * d**2 * float((grad * (start - param)).sum())
        s = beta3 * s + (1 - beta3) * d**2 * grad
        d = max(d, r / float(s.abs().sum()))
        (param,), state = RULES["prodigy"](PRODIGY, state, (param,), (grad,))
        assert float(state["d"]) == pytest.approx(d, rel=1e-11)
    assert d > 1e-5


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
