"""Schedules against their closed forms."""

import math
from collections.abc import Callable

import pytest

from optbench import schedule
from optbench.errors import UsageError
from optbench.schedule import Schedule

NUM_STEPS = 1000
PROGRESS = [step / NUM_STEPS for step in range(NUM_STEPS)]
WARMUPS = [0.0, 0.001, 0.1, 1 / 3, 0.9]

SHAPES: dict[str, Callable[[float], Schedule]] = {
    "constant": lambda warmup: schedule.constant(warmup=warmup),
    "linear to 0": lambda warmup: schedule.linear(final_factor=0.0, warmup=warmup),
    "linear to 0.1": lambda warmup: schedule.linear(final_factor=0.1, warmup=warmup),
    "cosine to 0": lambda warmup: schedule.cosine(final_factor=0.0, warmup=warmup),
    "cosine to 0.1": lambda warmup: schedule.cosine(final_factor=0.1, warmup=warmup),
    "step": lambda warmup: schedule.step(milestones=[0.5, 0.75], gamma=0.1, warmup=warmup),
    "inverse_sqrt": lambda warmup: schedule.inverse_sqrt(timescale=0.1, warmup=warmup),
    "flat_inverse_sqrt": lambda warmup: schedule.flat_inverse_sqrt(flat=0.1, warmup=warmup),
}


def test_constant_is_the_peak_rate_from_the_first_step() -> None:
    assert {schedule.constant(warmup=0.0)(progress) for progress in PROGRESS} == {1.0}


def test_cosine_falls_from_the_peak_through_the_middle_to_its_end() -> None:
    to_zero = schedule.cosine(final_factor=0.0, warmup=0.0)
    assert [to_zero(progress) for progress in (0.0, 1 / 3, 0.5, 2 / 3, 1.0)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    to_a_fifth = schedule.cosine(final_factor=0.2, warmup=0.0)
    assert [to_a_fifth(progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.6, 0.2])


def test_linear_is_a_straight_line() -> None:
    factor = schedule.linear(final_factor=0.2, warmup=0.0)
    assert [factor(progress) for progress in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([1.0, 0.8, 0.6, 0.2])


def test_step_changes_at_its_milestones_and_nowhere_else() -> None:
    factor = schedule.step(milestones=[0.5, 0.75], gamma=0.1, warmup=0.0)
    assert [factor(progress) for progress in (0.0, 0.4999, 0.5, 0.7499, 0.75, 0.999)] == pytest.approx(
        [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    )


def test_step_takes_its_milestones_in_any_order() -> None:
    factor = schedule.step(milestones=[0.75, 0.5], gamma=0.1, warmup=0.0)
    assert [factor(progress) for progress in (0.4, 0.6, 0.8)] == pytest.approx([1.0, 0.1, 0.01])


def test_inverse_sqrt_halves_after_three_timescales() -> None:
    factor = schedule.inverse_sqrt(timescale=0.25, warmup=0.0)
    assert [factor(0.0), factor(0.75)] == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize("warmup_steps", [1, 40, 400])
def test_inverse_sqrt_is_the_schedule_of_vaswani_et_al(warmup_steps: int) -> None:
    """Equation 3 over its own peak: min(step^-0.5, step * warmup_steps^-1.5) * warmup_steps^0.5."""
    warmup = warmup_steps / NUM_STEPS
    factor = schedule.inverse_sqrt(timescale=warmup / (1.0 - warmup), warmup=warmup)
    for step in range(1, NUM_STEPS):
        published = min(step**-0.5, step * warmup_steps**-1.5) * warmup_steps**0.5
        assert factor(step / NUM_STEPS) == pytest.approx(published), f"step {step}"


def test_flat_inverse_sqrt_is_the_schedule_of_palm() -> None:
    """Chowdhery et al. (2022), section 5: 0.01 for 10,000 of 255,000 steps, and 1/sqrt(step) from there on."""
    factor = schedule.flat_inverse_sqrt(flat=10_000 / 255_000, warmup=0.0)
    for step in (1, 5_000, 10_000, 10_001, 40_000, 254_999):
        assert 0.01 * factor(step / 255_000) == pytest.approx(min(0.01, step**-0.5)), f"step {step}"


@pytest.mark.parametrize("warmup", WARMUPS[1:])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_warm_up_rises_in_a_line_from_0_and_meets_the_peak_without_a_jump(shape: str, warmup: float) -> None:
    factor = SHAPES[shape](warmup)
    assert [factor(part * warmup) for part in (0.0, 0.25, 0.5)] == pytest.approx([0.0, 0.25, 0.5])
    assert factor(math.nextafter(warmup, 0.0)) == pytest.approx(1.0)
    assert factor(warmup) == 1.0


@pytest.mark.parametrize("shape", SHAPES)
def test_after_a_warm_up_the_whole_shape_is_drawn_over_the_rest(shape: str) -> None:
    plain, warmed_up = SHAPES[shape](0.0), SHAPES[shape](0.2)
    for progress in (0.0, 0.1, 0.49, 0.51, 0.9):
        assert warmed_up(0.2 + 0.8 * progress) == pytest.approx(plain(progress))


@pytest.mark.parametrize("warmup", WARMUPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_factor_lies_between_0_and_1(shape: str, warmup: float) -> None:
    factor = SHAPES[shape](warmup)
    assert all(0.0 <= factor(progress) <= 1.0 for progress in [*PROGRESS, math.nextafter(1.0, 0.0)])


@pytest.mark.parametrize("shape", SHAPES)
def test_no_schedule_rises_after_its_warm_up(shape: str) -> None:
    factors = [SHAPES[shape](0.1)(progress) for progress in PROGRESS if progress >= 0.1]
    assert factors == sorted(factors, reverse=True)


@pytest.mark.parametrize("warmup", [-0.1, 1.0, 500.0, math.nan])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_warm_up_that_is_no_part_of_the_budget_is_refused(shape: str, warmup: float) -> None:
    with pytest.raises(UsageError, match=r"schedule\.warmup="):
        SHAPES[shape](warmup)


@pytest.mark.parametrize(
    ("key", "make"),
    [
        ("milestones", lambda: schedule.step(milestones=[0.5, 1.0], gamma=0.1, warmup=0.0)),
        ("milestones", lambda: schedule.step(milestones=[0.0], gamma=0.1, warmup=0.0)),
        ("milestones", lambda: schedule.step(milestones=[30.0, 60.0], gamma=0.1, warmup=0.0)),
        ("gamma", lambda: schedule.step(milestones=[0.5], gamma=10.0, warmup=0.0)),
        ("gamma", lambda: schedule.step(milestones=[0.5], gamma=-0.1, warmup=0.0)),
        ("timescale", lambda: schedule.inverse_sqrt(timescale=0.0, warmup=0.0)),
        ("timescale", lambda: schedule.inverse_sqrt(timescale=-1.0, warmup=0.0)),
        ("timescale", lambda: schedule.inverse_sqrt(timescale=math.nan, warmup=0.0)),
        ("flat", lambda: schedule.flat_inverse_sqrt(flat=0.0, warmup=0.0)),
        ("flat", lambda: schedule.flat_inverse_sqrt(flat=1.1, warmup=0.0)),
        ("flat", lambda: schedule.flat_inverse_sqrt(flat=math.nan, warmup=0.0)),
        ("final_factor", lambda: schedule.linear(final_factor=-0.1, warmup=0.0)),
        ("final_factor", lambda: schedule.cosine(final_factor=1.1, warmup=0.0)),
        ("final_factor", lambda: schedule.cosine(final_factor=math.nan, warmup=0.0)),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(key: str, make: Callable[[], Schedule]) -> None:
    with pytest.raises(UsageError, match=rf"schedule\.{key}="):
        make()
