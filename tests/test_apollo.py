"""APOLLO: steps along the whole gradient, as large as Adam's moments of its random projection say."""

import copy
import io
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optbench.memory import state_bytes
from optbench.optim.apollo import APOLLO

UNLIMITED: dict[str, Any] = {"max_norm_growth": math.inf}
MINI: dict[str, Any] = {"rank": 1, "scale_type": "tensor", "scale": 128.0}


def matrix(*shape: int, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype))


def gradients(*shape: int, num_steps: int, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(num_steps)]


def updates(optimizer: torch.optim.Optimizer, grads: Sequence[Tensor]) -> list[Tensor]:
    """What each step adds to the optimizer's only parameter."""
    (parameter,) = optimizer.param_groups[0]["params"]
    found = []
    for grad in grads:
        before = parameter.detach().clone()
        parameter.grad = grad.to(parameter.dtype)
        optimizer.step()
        found.append(parameter.detach() - before)
    return found


def apollo(parameter: nn.Parameter, lr: float = 0.01, *, rank: int = 4, seed: int = 0, **options: Any) -> APOLLO:
    return APOLLO([{"params": [parameter], "rank": rank}], lr, seed=seed, **options)


def correction(step: int, *, beta1: float = 0.9) -> float:
    """Adam's correction of its rate, where beta2 is 0.999."""
    return math.sqrt(1.0 - 0.999**step) / (1.0 - beta1**step)


# The update


@pytest.mark.parametrize("options", [{"rank": 2}, MINI])
def test_an_update_has_the_rank_of_the_gradient_and_not_of_the_projection(options: dict[str, Any]) -> None:
    for update in updates(apollo(matrix(12, 8), **options), gradients(12, 8, num_steps=3)):
        assert int(torch.linalg.matrix_rank(update)) == 8


@pytest.mark.parametrize(("shape", "channels_are"), [((6, 10), 1), ((10, 6), 0), ((8, 8), 0)])
def test_each_channel_of_the_larger_side_steps_along_its_gradient(shape: tuple[int, int], channels_are: int) -> None:
    (grad,) = gradients(*shape, num_steps=1)
    (update,) = updates(apollo(matrix(*shape)), [grad])
    factors = -(update / grad).movedim(channels_are, 0)
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    assert factors.min() > 0.0
    assert factors[:, 0].unique().numel() == shape[channels_are]


def test_mini_has_one_factor_for_the_tensor() -> None:
    (grad,) = gradients(6, 10, num_steps=1)
    (update,) = updates(apollo(matrix(6, 10), **MINI), [grad])
    factors = update / grad
    torch.testing.assert_close(factors, factors[:1, :1].expand_as(factors))


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_at_the_first_step_adam_s_moments_are_the_sign_so_that_the_size_of_a_projection_is_all_there_is(
    rank: int,
) -> None:
    """|sign(R)_j| = sqrt(rank): the step is lr sqrt(rank) / |R_j| along each channel, R of one generator's making."""
    (grad,) = gradients(10, 6, num_steps=1)
    lr = 0.01
    (update,) = updates(apollo(matrix(10, 6), lr, rank=rank, eps=0.0), [grad])
    sizes = lr * math.sqrt(rank) * grad.norm(dim=1) / update.norm(dim=1)  # |R_j| for each channel
    (again,) = updates(apollo(matrix(10, 6), lr, rank=rank, eps=0.0), [2.0 * grad])
    torch.testing.assert_close(again, update, rtol=0.001, atol=0.0)  # |R_j| + 1e-8 in the denominator
    (kept,) = (state["exp_avg"] for state in apollo_state(rank, grad).values())
    torch.testing.assert_close(sizes, kept.norm(dim=1) / 0.1, rtol=0.001, atol=0.0)


def apollo_state(rank: int, grad: Tensor) -> Mapping[Any, dict[str, Tensor]]:
    optimizer = apollo(matrix(*grad.shape), rank=rank)
    updates(optimizer, [grad])
    return optimizer.state


def test_where_every_projected_gradient_is_the_same_the_factors_are_adam_s() -> None:
    """A constant gradient: R~ is +-1 in every step, whatever was projected, and Adam's step is lr along the sign."""
    grad = torch.ones(10, 6, dtype=torch.float64)
    ours = updates(apollo(matrix(10, 6), eps=0.0, **UNLIMITED), [grad] * 20)
    adam = updates(torch.optim.Adam([matrix(10, 6)], 0.01, eps=0.0), [grad] * 20)
    for update, theirs in zip(ours, adam, strict=True):
        torch.testing.assert_close(update, ours[0])
        torch.testing.assert_close(theirs, adam[0])


@pytest.mark.parametrize(("smaller", "rank"), [(256, 64), (256, 16)])
def test_steps_are_adam_s_times_the_root_of_the_rank_over_the_smaller_side_which_scale_makes_up_for(
    smaller: int, rank: int
) -> None:
    grads = gradients(400, smaller, num_steps=12)
    adam = updates(torch.optim.Adam([matrix(400, smaller)], 0.01), grads)[-1].norm()
    plain = updates(apollo(matrix(400, smaller), rank=rank, **UNLIMITED), grads)[-1].norm()
    scaled = updates(apollo(matrix(400, smaller), rank=rank, scale=smaller / rank, **UNLIMITED), grads)[-1].norm()
    assert float(plain / adam) == pytest.approx(math.sqrt(rank / smaller), rel=0.1)
    assert float(scaled / adam) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("scale", [4.0, 128.0])
def test_the_root_of_scale_multiplies_steps_wherever_the_limiter_is(scale: float) -> None:
    grads = gradients(10, 6, num_steps=20)
    plain, scaled = (updates(apollo(matrix(10, 6), scale=value), grads) for value in (1.0, scale))
    for one, other in zip(plain, scaled, strict=True):
        torch.testing.assert_close(other, math.sqrt(scale) * one)


def test_decay_is_of_the_weights_before_the_step() -> None:
    decaying, plain = matrix(10, 6), matrix(10, 6)
    grads = gradients(10, 6, num_steps=1)
    (with_decay,) = updates(apollo(decaying, weight_decay=0.1), grads)
    (without,) = updates(apollo(plain), grads)
    torch.testing.assert_close(with_decay - without, -0.01 * 0.1 * matrix(10, 6).detach())


@pytest.mark.parametrize("shape", [(7,), (3, 2, 2), ()])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_what_is_no_matrix_is_adamw_s(shape: tuple[int, ...], weight_decay: float) -> None:
    grads = gradients(*shape, num_steps=20)
    ours, theirs = matrix(*shape), matrix(*shape)
    updates(apollo(ours, eps=0.0, weight_decay=weight_decay), grads)
    updates(torch.optim.AdamW([theirs], 0.01, eps=0.0, weight_decay=weight_decay), grads)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_a_matrix_in_a_group_without_a_rank_is_adamw_s_with_eps_inside_the_correction() -> None:
    ours, first = matrix(6, 4), gradients(6, 4, num_steps=1)
    (update,) = updates(APOLLO([ours], 0.01, eps=0.001), first)
    uncorrected = 0.1 * first[0] / (math.sqrt(0.001) * first[0].abs() + 0.001)
    torch.testing.assert_close(update, -0.01 * correction(1) * uncorrected)


# The limiter


def test_the_limiter_lets_the_norm_of_a_step_per_rate_grow_by_1_percent_and_fall_as_it_likes() -> None:
    sizes = [100.0, 1.0, 100.0, 100.0]
    grads = [size * grad for size, grad in zip(sizes, gradients(10, 6, num_steps=4), strict=True)]

    def run(**options: Any) -> tuple[list[Tensor], list[float]]:
        found = updates(apollo(matrix(10, 6), betas=(0.0, 0.999), **options), grads)
        norms = [float(update.norm()) / correction(step, beta1=0.0) for step, update in enumerate(found, start=1)]
        return found, [after / before for before, after in pairwise(norms)]

    found, growth = run()
    assert growth[0] < 0.1
    assert growth[1:] == pytest.approx([1.01, 1.01])
    free, growth = run(**UNLIMITED)
    assert growth[1] > 10.0
    for limited, unlimited in zip(found, free, strict=True):  # the direction stays
        torch.testing.assert_close(limited / limited.norm(), unlimited / unlimited.norm())


@pytest.mark.parametrize("where", [0, 3])
def test_a_gradient_of_0_does_not_stop_a_matrix_for_good(where: int) -> None:
    grads = gradients(10, 6, num_steps=8)
    grads[where] = torch.zeros(10, 6, dtype=torch.float64)
    found = updates(apollo(matrix(10, 6)), grads)
    assert not found[where].any()
    assert all(update.norm() > 0.001 for step, update in enumerate(found) if step != where)


# Projections


def test_a_projection_holds_for_so_many_steps_and_then_there_is_another() -> None:
    (grad,) = gradients(10, 6, num_steps=1)
    optimizer = apollo(matrix(10, 6), betas=(0.0, 0.999), update_proj_gap=3, **UNLIMITED)  # exp_avg is R
    projected = []
    for _ in range(7):
        updates(optimizer, [grad])
        projected += [state["exp_avg"].clone() for state in optimizer.state.values()]
    same = [torch.equal(one, other) for one, other in pairwise(projected)]
    assert same == [True, True, False, True, True, False]


def test_a_projection_keeps_squared_norms_on_average() -> None:
    grad = torch.ones(2000, 6, dtype=torch.float64)
    grad[:, 1:] = 0.0
    ratios = []
    for seed in range(200):
        optimizer = apollo(matrix(2000, 6), rank=3, betas=(0.0, 0.999), seed=seed)
        updates(optimizer, [grad])
        ratios += [float(state["exp_avg"].square().sum() / grad.square().sum()) for state in optimizer.state.values()]
    assert sum(ratios) / len(ratios) == pytest.approx(1.0, abs=0.2)  # 4 standard errors: sqrt(2 / 3 / 200) each


def test_projections_differ_between_matrices_and_seeds_and_are_otherwise_the_same() -> None:
    def ends(seed: int) -> list[Tensor]:
        parameters = [matrix(10, 6), matrix(10, 6)]
        optimizer = APOLLO([{"params": parameters, "rank": 2}], seed=seed)
        for parameter in parameters:
            (parameter.grad,) = gradients(10, 6, num_steps=1)
        optimizer.step()
        return [parameter.detach() for parameter in parameters]

    one, other = ends(0)
    assert not torch.allclose(one, other)
    assert torch.equal(one, ends(0)[0])
    assert not torch.allclose(one, ends(1)[0])


def test_without_a_seed_projections_follow_torch_s_and_leave_its_generator_alone() -> None:
    def end(torch_seed: int) -> Tensor:
        torch.manual_seed(torch_seed)
        parameter = matrix(10, 6)
        optimizer = APOLLO([{"params": [parameter], "rank": 2}])
        before = torch.get_rng_state()
        updates(optimizer, gradients(10, 6, num_steps=2))
        assert torch.equal(torch.get_rng_state(), before)
        return parameter.detach()

    assert torch.equal(end(0), end(0))
    assert not torch.allclose(end(0), end(1))


# State


@pytest.mark.parametrize(
    ("shape", "rank", "expected"),
    [((10, 6), 4, (10, 4)), ((6, 10), 4, (10, 4)), ((6, 10), 1, (10, 1)), ((6, 10), 25, (10, 6))],
)
def test_the_state_of_a_matrix_is_two_moments_of_its_projection_and_two_numbers(
    shape: tuple[int, int], rank: int, expected: tuple[int, int]
) -> None:
    optimizer = apollo(matrix(*shape, dtype=torch.float32), rank=rank)
    updates(optimizer, gradients(*shape, num_steps=2))
    (state,) = optimizer.state.values()
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        "step": (),
        "exp_avg": expected,
        "exp_avg_sq": expected,
        "norm": (),
    }
    assert state_bytes(optimizer) == 4 * (2 * math.prod(expected) + 2)


@pytest.mark.parametrize("options", [{"rank": 3}, MINI])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_goes_on_from_its_saved_state_to_the_last_bit_also_across_projections(
    options: dict[str, Any], dtype: torch.dtype
) -> None:
    grads = gradients(10, 6, num_steps=20)
    parameter = matrix(10, 6, dtype=dtype)
    optimizer = apollo(parameter, update_proj_gap=4, seed=5, **options)
    updates(optimizer, grads[:10])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again = nn.Parameter(parameter.detach().clone())
    torch.manual_seed(99)
    resumed = apollo(again, seed=6, **options)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    updates(optimizer, grads[10:])
    updates(resumed, grads[10:])
    assert torch.equal(parameter, again)


def test_moments_of_bfloat16_weights_are_float32_and_stay_so_when_loaded() -> None:
    def dtypes() -> list[set[torch.dtype]]:
        return [{value.dtype for value in state.values()} for state in optimizer.state.values()]

    matrices, vector = matrix(10, 6, dtype=torch.bfloat16), matrix(4, dtype=torch.bfloat16)
    groups: list[dict[str, Any]] = [{"params": [matrices], "rank": 2}, {"params": [vector]}]
    optimizer = APOLLO(groups, seed=0)
    for _ in range(2):
        matrices.grad, vector.grad = torch.ones_like(matrices), torch.ones_like(vector)
        optimizer.step()
    assert matrices.dtype == torch.bfloat16
    assert dtypes() == [{torch.float32}, {torch.float32}]
    saved = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(saved)
    assert dtypes() == [{torch.float32}, {torch.float32}]
    optimizer.step()
    assert all(state["step"] == 2.0 for state in saved["state"].values()), "what was loaded stays as it was"


def test_a_parameter_without_a_gradient_stays_and_gets_no_state() -> None:
    parameter = matrix(3, 2)
    optimizer = apollo(parameter)
    optimizer.step()
    assert torch.equal(parameter, matrix(3, 2))
    assert not optimizer.state


def test_a_closure_is_called_with_gradients_on_and_its_loss_comes_back() -> None:
    parameter = matrix(3, 2)
    optimizer = apollo(parameter)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == matrix(3, 2).square().sum()
    assert not torch.equal(parameter, matrix(3, 2))


# Arguments


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lr": -0.1}, r"lr=-0.1: it must be at least 0"),
        ({"lr": math.nan}, r"lr=nan"),
        ({"eps": -1.0}, r"eps=-1.0"),
        ({"weight_decay": -1.0}, r"weight_decay=-1.0"),
        ({"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\): two numbers, each at least 0 and below 1"),
        ({"rank": 0}, r"rank=0: a whole number, at least 1"),
        ({"rank": 0.25}, r"rank=0.25: a whole number"),
        ({"update_proj_gap": 0}, r"update_proj_gap=0: a whole number, at least 1"),
        ({"scale_type": "row"}, r"scale_type=row: choose channel or tensor"),
        ({"scale": 0.0}, r"scale=0.0: it must be above 0"),
        ({"max_norm_growth": 0.9}, r"max_norm_growth=0.9: it must be at least 1"),
    ],
)
def test_a_value_out_of_range_is_refused_in_words_for_a_group_too(arguments: dict[str, Any], words: str) -> None:
    group: dict[str, Any] = {"params": [matrix(3, 2)], **arguments}
    if "rank" not in arguments:
        with pytest.raises(ValueError, match=words):
            APOLLO(group["params"], **arguments)
    with pytest.raises(ValueError, match=words):
        APOLLO([group])
