"""The methods that no library has: equal to one where the papers make them equal, and different where they differ."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lion_pytorch import Lion
from torch import Tensor, nn

from optbench.optim.adafactor_unfactored import AdafactorUnfactored
from optbench.optim.adam_tf import AdamTF
from optbench.optim.adam_uncorrected import AdamUncorrected
from optbench.optim.decoupled import DecoupledAdamW, DecoupledSGDW
from optbench.optim.nesterov_lookahead import NesterovLookahead
from optbench.optim.sam import SAM
from optbench.optim.signum import Signum

OWN: list[type[torch.optim.Optimizer]] = [
    AdafactorUnfactored,
    AdamTF,
    AdamUncorrected,
    DecoupledAdamW,
    DecoupledSGDW,
    NesterovLookahead,
    SAM,
    Signum,
]
NUM_STEPS = 30
Optimizer = torch.optim.Optimizer
Make = Callable[[list[nn.Parameter]], Optimizer]


class Run:
    """A small net in double precision, and an optimizer that trains it on one batch."""

    def __init__(self, make: Make, *, dtype: torch.dtype = torch.float64) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)
        self.inputs, self.outputs = torch.randn(16, 4, dtype=dtype), torch.randn(16, 2, dtype=dtype)
        self.optimizer = make(list(self.model.parameters()))

    def loss(self) -> Tensor:
        self.optimizer.zero_grad()
        loss: Tensor = (self.model(self.inputs) - self.outputs).square().mean()
        loss.backward()
        return loss

    def step(self) -> Tensor:
        """The parameters after a step, as one vector."""
        self.loss()
        if isinstance(self.optimizer, SAM):
            self.optimizer.step(self.loss)  # type: ignore[arg-type]
        else:
            self.optimizer.step()
        return self.point

    @property
    def point(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()])


def path(make: Make, *, factor: Callable[[int], float] = lambda _: 1.0) -> Tensor:
    """Where the parameters are after each step, under a schedule."""
    run = Run(make)
    peak = run.optimizer.param_groups[0]["lr"]
    points = []
    for step in range(NUM_STEPS):
        for group in run.optimizer.param_groups:
            group["lr"] = peak * factor(step)
        points.append(run.step())
    return torch.stack(points)


def falling(step: int) -> float:
    return 1.0 - 0.9 * step / NUM_STEPS


def differ(one: Tensor, other: Tensor) -> bool:
    return not torch.allclose(one, other, rtol=1e-6, atol=0.0)


def one_parameter(value: float, *, gradient: float, make: Make) -> tuple[nn.Parameter, Optimizer]:
    parameter = nn.Parameter(torch.full((3,), value, dtype=torch.float64))
    parameter.grad = torch.full_like(parameter, gradient)
    return parameter, make([parameter])


# Nesterov's momentum


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_in_training_the_look_ahead_form_holds_the_iterates_of_pytorch(weight_decay: float) -> None:
    ahead = path(lambda p: NesterovLookahead(p, 0.1, momentum=0.9, weight_decay=weight_decay))
    pytorch = path(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=weight_decay))
    torch.testing.assert_close(ahead, pytorch, rtol=1e-12, atol=1e-14)


def test_a_schedule_parts_the_look_ahead_form_from_pytorch_which_has_the_rate_outside_the_velocity() -> None:
    ahead = path(lambda p: NesterovLookahead(p, 0.1, momentum=0.9), factor=falling)
    pytorch = path(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True), factor=falling)
    assert differ(ahead, pytorch)


def test_in_evaluation_the_look_ahead_form_holds_the_iterate_of_the_paper() -> None:
    lr, momentum = 0.1, 0.9
    run = Run(lambda p: NesterovLookahead(p, lr, momentum=momentum))
    theta, velocity = run.point, torch.zeros_like(run.point)
    for _ in range(NUM_STEPS):
        torch.nn.utils.vector_to_parameters(theta + momentum * velocity, run.model.parameters())
        run.loss()
        gradient = torch.cat([p.grad.flatten() for p in run.model.parameters() if p.grad is not None])
        velocity = momentum * velocity - lr * gradient
        theta = theta + velocity
    trained = Run(lambda p: NesterovLookahead(p, lr, momentum=momentum))
    for _ in range(NUM_STEPS):
        trained.step()
    assert isinstance(trained.optimizer, NesterovLookahead)
    ahead = trained.point
    trained.optimizer.eval()
    torch.testing.assert_close(trained.point, theta, rtol=1e-12, atol=1e-14)
    trained.optimizer.eval()
    torch.testing.assert_close(trained.point, theta, rtol=1e-12, atol=1e-14)
    trained.optimizer.train()
    torch.testing.assert_close(trained.point, ahead, rtol=1e-12, atol=1e-14)


def test_a_step_from_the_paper_s_iterate_is_refused_as_gradients_are_not_taken_there() -> None:
    run = Run(NesterovLookahead)
    assert isinstance(run.optimizer, NesterovLookahead)
    run.optimizer.eval()
    with pytest.raises(RuntimeError, match=r"call train\(\) first"):
        run.step()
    run.optimizer.train()
    run.step()


# Adam's relatives


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_with_eps_0_tensorflow_s_adam_is_pytorch_s(weight_decay: float) -> None:
    tensorflow = path(lambda p: AdamTF(p, 0.01, eps=0.0, weight_decay=weight_decay))
    pytorch = path(lambda p: torch.optim.Adam(p, 0.01, eps=0.0, weight_decay=weight_decay))
    torch.testing.assert_close(tensorflow, pytorch, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("gradient", "ratios"),
    [(1e-6, {1: 28.8, 10: 9.2, 100: 3.0, 1000: 1.23}), (1e-4, {1: 3.8, 10: 1.8, 100: 1.2, 1000: 1.02})],
)
def test_pytorch_s_adam_moves_further_than_tensorflow_s_where_gradients_are_as_small_as_eps_and_less_so_later(
    gradient: float, ratios: dict[int, float]
) -> None:
    """The ratio is (g + eps / sqrt(1 - beta2^t)) / (g + eps), 1 in the long run."""
    pytorch, theirs = one_parameter(0.0, gradient=gradient, make=lambda p: torch.optim.Adam(p, 1.0, eps=1e-5))
    tensorflow, ours = one_parameter(0.0, gradient=gradient, make=lambda p: AdamTF(p, 1.0, eps=1e-5))
    measured = {}
    for step in range(1, 1001):
        before = pytorch[0].item(), tensorflow[0].item()
        theirs.step()
        ours.step()
        measured[step] = (pytorch[0].item() - before[0]) / (tensorflow[0].item() - before[1])
        exact = (gradient + 1e-5 / math.sqrt(1.0 - 0.999**step)) / (gradient + 1e-5)
        assert measured[step] == pytest.approx(exact, rel=1e-6)
    assert {step: measured[step] for step in ratios} == pytest.approx(ratios, rel=0.03)


@pytest.mark.parametrize(("betas", "first", "largest"), [((0.9, 0.999), 3.16, 6.57), ((0.9, 0.95), 0.447, 1.10)])
def test_without_correction_adam_s_steps_are_off_by_what_the_correction_would_be(
    betas: tuple[float, float], first: float, largest: float
) -> None:
    corrected, theirs = one_parameter(0.0, gradient=1.0, make=lambda p: torch.optim.Adam(p, 1.0, betas=betas, eps=0.0))
    uncorrected, ours = one_parameter(0.0, gradient=1.0, make=lambda p: AdamUncorrected(p, 1.0, betas=betas, eps=0.0))
    ratios = []
    for step in range(1, 200):
        before = corrected[0].item(), uncorrected[0].item()
        theirs.step()
        ours.step()
        ratios.append((uncorrected[0].item() - before[1]) / (corrected[0].item() - before[0]))
        assert ratios[-1] == pytest.approx((1.0 - betas[0] ** step) / math.sqrt(1.0 - betas[1] ** step), rel=1e-6)
    assert ratios[0] == pytest.approx(first, rel=0.01)
    assert max(ratios) == pytest.approx(largest, rel=0.01)


@pytest.mark.parametrize("own", [AdamTF, AdamUncorrected])
def test_the_decay_of_adam_s_relatives_is_in_the_gradient(own: Any) -> None:
    parameter, optimizer = one_parameter(2.0, gradient=0.0, make=lambda p: own(p, 0.01, eps=0.0, weight_decay=0.1))
    with_gradient, other = one_parameter(2.0, gradient=0.2, make=lambda p: own(p, 0.01, eps=0.0))
    optimizer.step()
    other.step()
    torch.testing.assert_close(parameter, with_gradient)


# Decay that does not depend on the size of lr


def test_without_decay_decoupled_adamw_is_adam_to_the_last_bit() -> None:
    ours = path(lambda p: DecoupledAdamW(p, 0.01, betas=(0.9, 0.999), weight_decay=0.0), factor=falling)
    pytorch = path(lambda p: torch.optim.Adam(p, 0.01, betas=(0.9, 0.999), foreach=False), factor=falling)
    assert torch.equal(ours, pytorch)


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.9}, {"momentum": 0.9, "nesterov": True}]
)
def test_without_decay_decoupled_sgdw_is_sgd_to_the_last_bit(options: dict[str, Any]) -> None:
    ours = path(lambda p: DecoupledSGDW(p, 0.1, **options), factor=falling)
    pytorch = path(lambda p: torch.optim.SGD(p, 0.1, foreach=False, **options), factor=falling)
    assert torch.equal(ours, pytorch)


def test_at_one_rate_decoupled_adamw_is_adamw_with_the_decay_over_the_rate() -> None:
    ours = path(lambda p: DecoupledAdamW(p, 0.001, betas=(0.9, 0.999), weight_decay=0.00001), factor=falling)
    pytorch = path(lambda p: torch.optim.AdamW(p, 0.001, betas=(0.9, 0.999), weight_decay=0.01), factor=falling)
    torch.testing.assert_close(ours, pytorch, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("own", [DecoupledAdamW, DecoupledSGDW])
def test_decay_halves_with_the_schedule_and_not_with_the_rate(own: Any) -> None:
    def shrinkage(lr: float, factor: float) -> float:
        parameter, optimizer = one_parameter(1.0, gradient=0.0, make=lambda p: own(p, lr, weight_decay=0.01))
        optimizer.param_groups[0]["lr"] = lr * factor
        optimizer.step()
        return 1.0 - parameter[0].item()

    assert shrinkage(0.1, 1.0) == pytest.approx(0.01)
    assert shrinkage(0.1, 0.5) == pytest.approx(0.005)
    assert shrinkage(0.05, 1.0) == pytest.approx(0.01)
    assert shrinkage(0.05, 0.5) == pytest.approx(0.005)


@pytest.mark.parametrize("own", [DecoupledAdamW, DecoupledSGDW])
def test_each_group_decays_by_its_own_peak_rate_also_one_that_is_added_later_or_reloaded(own: Any) -> None:
    first, second, third = (nn.Parameter(torch.ones(1)) for _ in range(3))
    optimizer = own([{"params": [first]}, {"params": [second], "lr": 0.01}], 0.1, weight_decay=0.01)
    optimizer.add_param_group({"params": [third], "lr": 0.5, "initial_lr": 1.0})
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.1, 0.01, 1.0]
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    again = own([{"params": [first]}, {"params": [second]}, {"params": [third]}], 0.7)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [group["initial_lr"] for group in again.param_groups] == [0.1, 0.01, 1.0]


def test_a_peak_rate_of_0_counts_as_the_full_decay() -> None:
    parameter, optimizer = one_parameter(1.0, gradient=1.0, make=lambda p: DecoupledSGDW(p, 0.0, weight_decay=0.01))
    optimizer.step()
    assert parameter.tolist() == pytest.approx([0.99] * 3)


# Signum


def test_without_momentum_signum_steps_along_the_sign_of_the_gradient_and_keeps_nothing() -> None:
    run = Run(lambda p: Signum(p, 0.01, momentum=0.0))
    for _ in range(3):
        before = run.point
        after = run.step()
        gradient = torch.cat([p.grad.flatten() for p in run.model.parameters() if p.grad is not None])
        torch.testing.assert_close(after - before, -0.01 * gradient.sign())
    assert not run.optimizer.state


def test_signum_steps_along_the_sign_of_the_average_and_decays_by_lr_times_decay() -> None:
    parameter, optimizer = one_parameter(1.0, gradient=1.0, make=lambda p: Signum(p, 0.1, weight_decay=0.5))
    optimizer.step()
    assert parameter.tolist() == pytest.approx([1.0 * 0.95 - 0.1] * 3)
    parameter.grad = torch.full_like(parameter, -0.5)  # the average stays above 0: 0.9 * 0.1 - 0.1 * 0.5
    optimizer.step()
    assert parameter.tolist() == pytest.approx([0.85 * 0.95 - 0.1] * 3)


def test_signum_is_lion_with_equal_betas() -> None:
    ours = path(lambda p: Signum(p, 0.01, momentum=0.9, weight_decay=0.1))
    torch.testing.assert_close(ours, path(lambda p: Lion(p, 0.01, betas=(0.9, 0.9), weight_decay=0.1)))


def test_with_nesterov_signum_has_the_direction_of_pytorch_s_nesterov() -> None:
    torch.manual_seed(0)
    one, another = (nn.Parameter(torch.zeros(50, dtype=torch.float64)) for _ in range(2))
    ours = Signum([one], 1.0, momentum=0.9, nesterov=True)
    pytorch = torch.optim.SGD([another], 1.0, momentum=0.9, nesterov=True)
    for step in range(NUM_STEPS):
        before = one.detach().clone(), another.detach().clone()
        one.grad = another.grad = torch.randn(50, dtype=torch.float64)
        ours.step()
        pytorch.step()
        assert torch.equal((one - before[0]).round(), (another - before[1]).sign()), step


# SAM


@pytest.mark.parametrize("options", [{"momentum": 0.0}, {"weight_decay": 0.1}, {"nesterov": True}])
def test_with_rho_0_sam_is_sgd(options: dict[str, Any]) -> None:
    pytorch = {"momentum": 0.9, **options}
    assert torch.equal(
        path(lambda p: SAM(p, 0.1, rho=0.0, **options)),
        path(lambda p: torch.optim.SGD(p, 0.1, foreach=False, **pytorch)),
    )


def test_sam_takes_its_gradient_rho_uphill_and_steps_from_where_it_was() -> None:
    run = Run(lambda p: SAM(p, 0.1, rho=0.05, momentum=0.0))
    start = run.point
    seen: list[Tensor] = []

    def closure() -> Any:
        seen.append(run.point)
        return run.loss()

    assert isinstance(run.optimizer, SAM)
    run.loss()
    uphill = torch.cat([p.grad.flatten() for p in run.model.parameters() if p.grad is not None])
    run.optimizer.step(closure)
    second = torch.cat([p.grad.flatten() for p in run.model.parameters() if p.grad is not None])
    (climbed,) = seen
    torch.testing.assert_close(climbed - start, 0.05 * uphill / uphill.norm())
    assert torch.equal(run.point, start.sub(second, alpha=0.1))


def test_a_closure_that_fails_leaves_sam_where_it_was() -> None:
    run = Run(SAM)
    start = run.point

    def closure() -> float:
        raise KeyboardInterrupt

    assert isinstance(run.optimizer, SAM)
    run.loss()
    with pytest.raises(KeyboardInterrupt):
        run.optimizer.step(closure)
    assert torch.equal(run.point, start)


# PaLM's Adafactor


def test_the_step_of_palm_s_adafactor_is_in_proportion_to_the_weights_down_to_a_floor() -> None:
    def moved(size: float) -> float:
        make = lambda p: AdafactorUnfactored(p, 0.01, beta1=0.0, weight_decay=0.0)  # noqa: E731
        parameter, optimizer = one_parameter(size, gradient=3.0, make=make)
        optimizer.step()
        return size - parameter[0].item()

    assert moved(1.0) == pytest.approx(0.01)
    assert moved(50.0) == pytest.approx(0.5)
    assert moved(0.00001) == pytest.approx(0.01 * 0.001)
    assert moved(0.0) == pytest.approx(0.01 * 0.001)


def test_the_decay_of_palm_s_adafactor_is_lr_squared() -> None:
    parameter, optimizer = one_parameter(1.0, gradient=0.0, make=lambda p: AdafactorUnfactored(p, 0.1))
    optimizer.step()
    assert parameter.tolist() == pytest.approx([0.99] * 3)
    optimizer.param_groups[0]["lr"] = 0.05
    optimizer.step()
    assert parameter.tolist() == pytest.approx([0.99 * 0.9975] * 3)


def test_without_momentum_palm_s_adafactor_is_pytorch_s_on_vectors_which_that_does_not_factor() -> None:
    """Up to the cap of 1/sqrt(t) on PyTorch's rate, which 0.01 does not meet in these steps."""

    def run(make: Make) -> list[float]:
        torch.manual_seed(1)
        parameter = nn.Parameter(torch.randn(7, dtype=torch.float64))
        optimizer = make([parameter])
        for _ in range(NUM_STEPS):
            parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        return [float(value) for value in parameter.detach()]

    ours = run(lambda p: AdafactorUnfactored(p, 0.01, beta1=0.0, weight_decay=0.0))
    assert ours == pytest.approx(run(lambda p: torch.optim.Adafactor(p, 0.01, eps=(1e-30, 0.001))), rel=1e-9)


def test_palm_s_adafactor_scales_down_a_tensor_s_update_that_is_above_its_threshold() -> None:
    make = lambda p: AdafactorUnfactored(p, 0.01, beta1=0.0, weight_decay=0.0)  # noqa: E731
    parameter, optimizer = one_parameter(1.0, gradient=0.001, make=make)
    optimizer.step()
    before = parameter[0].item()
    parameter.grad = torch.full_like(parameter, 1000.0)  # far above the average so far: u = 1 / sqrt(2^-0.8) = 1.32
    optimizer.step()
    assert before - parameter[0].item() == pytest.approx(0.01 * before, rel=1e-6)


# All of them


@pytest.mark.parametrize("own", OWN)
def test_a_closure_is_called_with_gradients_on_and_its_loss_comes_back(own: Any) -> None:
    run = Run(own)
    run.loss()
    loss = run.optimizer.step(run.loss)  # type: ignore[arg-type]
    assert isinstance(loss, Tensor)
    assert loss.requires_grad


@pytest.mark.parametrize("own", OWN)
def test_a_parameter_without_a_gradient_stays_and_gets_no_state(own: Any) -> None:
    run = Run(lambda p: own([*p, nn.Parameter(torch.ones(2))]))
    run.step()
    left_out = run.optimizer.param_groups[0]["params"][-1]
    assert left_out.tolist() == [1.0, 1.0]
    assert left_out not in run.optimizer.state


@pytest.mark.parametrize("own", OWN)
def test_in_bfloat16_state_has_the_dtype_of_the_parameters_and_the_loss_falls(own: Any) -> None:
    lr = 0.1 if own in (DecoupledSGDW, SAM, NesterovLookahead) else 0.01
    run = Run(lambda p: own(p, lr), dtype=torch.bfloat16)
    first = run.loss().item()
    for _ in range(50):
        run.step()
    assert run.loss().item() < 0.9 * first
    tensors = [value for state in run.optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    assert all(tensor.dtype == torch.bfloat16 for tensor in tensors)


@pytest.mark.parametrize("own", OWN)
def test_what_the_state_holds_is_all_that_there_is_to_continue_with(own: Any) -> None:
    run = Run(own)
    for _ in range(5):
        run.step()
    resumed = Run(own)
    resumed.model.load_state_dict(run.model.state_dict())
    resumed.optimizer.load_state_dict(copy.deepcopy(run.optimizer.state_dict()))
    assert all(torch.equal(run.step(), resumed.step()) for _ in range(5))


@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_every_rate_below_0_is_refused(own: Any, value: float) -> None:
    with pytest.raises(ValueError, match=f"lr={value}: it must be at least 0"):
        own([nn.Parameter(torch.zeros(1))], value)


@pytest.mark.parametrize(
    ("own", "arguments", "words"),
    [
        (NesterovLookahead, {"momentum": 1.0}, r"momentum=1.0: it must be at least 0 and below 1"),
        (NesterovLookahead, {"weight_decay": -1.0}, r"weight_decay=-1.0"),
        (AdamTF, {"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\): two numbers, each at least 0 and below 1"),
        (AdamTF, {"eps": -1.0}, r"eps=-1.0"),
        (AdamTF, {"weight_decay": -1.0}, r"weight_decay=-1.0"),
        (AdamUncorrected, {"betas": (-0.1, 0.9)}, r"betas=\(-0.1, 0.9\)"),
        (AdamUncorrected, {"eps": math.nan}, r"eps=nan"),
        (AdamUncorrected, {"weight_decay": -1.0}, r"weight_decay=-1.0"),
        (DecoupledAdamW, {"betas": (0.9,)}, r"betas=\(0.9,\): two numbers"),
        (DecoupledAdamW, {"eps": -1.0}, r"eps=-1.0"),
        (DecoupledAdamW, {"weight_decay": 1.1}, r"weight_decay=1.1: the part that a step takes away"),
        (DecoupledSGDW, {"momentum": -0.1}, r"momentum=-0.1"),
        (DecoupledSGDW, {"weight_decay": -0.1}, r"weight_decay=-0.1: the part that a step takes away"),
        (DecoupledSGDW, {"nesterov": True}, r"nesterov needs momentum above 0"),
        (DecoupledSGDW, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, r"no dampening, got 0.9 and 0.1"),
        (Signum, {"momentum": 1.0}, r"momentum=1.0"),
        (Signum, {"weight_decay": -1.0}, r"weight_decay=-1.0"),
        (Signum, {"momentum": 0.0, "nesterov": True}, r"nesterov needs momentum above 0"),
        (SAM, {"rho": -0.1}, r"rho=-0.1"),
        (SAM, {"momentum": 1.0}, r"momentum=1.0"),
        (SAM, {"weight_decay": -1.0}, r"weight_decay=-1.0"),
        (SAM, {"momentum": 0.0, "nesterov": True}, r"nesterov needs momentum above 0"),
        (AdafactorUnfactored, {"beta1": 1.0}, r"beta1=1.0"),
        (AdafactorUnfactored, {"decay_rate": 0.8}, r"decay_rate=0.8: it must be below 0"),
        (AdafactorUnfactored, {"eps": (1e-30, -1.0)}, r"eps=\(1e-30, -1.0\): two numbers"),
        (AdafactorUnfactored, {"clip_threshold": 0.0}, r"clip_threshold=0.0: it must be above 0"),
        (AdafactorUnfactored, {"weight_decay": -1.0}, r"weight_decay=-1.0"),
    ],
)
def test_a_value_out_of_range_is_refused_in_words(own: Any, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        own([nn.Parameter(torch.zeros(1))], **arguments)
