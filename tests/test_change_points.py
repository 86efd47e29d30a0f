"""Where series of nights change: false ones in noise, true ones of 5 and 10 %, and those without any noise."""

import numpy as np
import pytest
from numpy.typing import NDArray

from optbench.regress.change_points import ChangePoint, change_points, exact_changes

NUM_NIGHTS = 60


def noise(spread: float, seed: int, size: int = NUM_NIGHTS) -> NDArray[np.float64]:
    """Nights without a change, with this coefficient of variation."""
    return np.asarray(1.0 + spread * np.random.default_rng(seed).standard_normal(size))


def share_found(spread: float, step: float, *, place: int, num_series: int = 100, near: int = 3) -> float:
    """In how many series a step is found within so many nights of its place."""
    found = 0
    for seed in range(num_series):
        values = noise(spread, seed)
        values[place:] *= 1.0 + step
        found += any(abs(change.place - place) <= near for change in change_points(values.tolist()))
    return found / num_series


@pytest.mark.parametrize("spread", [0.02, 0.05])
def test_of_twenty_shuffled_series_at_most_one_has_a_false_change(spread: float) -> None:
    nights = noise(spread, seed=0)
    shuffled = [np.random.default_rng(seed).permutation(nights).tolist() for seed in range(20)]
    assert sum(bool(change_points(values)) for values in shuffled) <= 1


@pytest.mark.parametrize(("spread", "most"), [(0.02, 0.03), (0.05, 0.05)])
def test_of_many_series_without_a_change_few_have_one(spread: float, most: float) -> None:
    assert np.mean([bool(change_points(noise(spread, seed).tolist())) for seed in range(500)]) <= most


@pytest.mark.parametrize(
    ("spread", "step", "place", "least"),
    [
        (0.02, 0.10, 30, 0.98),
        (0.02, 0.05, 30, 0.95),
        (0.05, 0.10, 30, 0.90),
        (0.05, 0.05, 30, 0.40),  # the step is as large as the noise
        (0.02, 0.10, 54, 0.90),
        (0.02, -0.10, 30, 0.98),
    ],
)
def test_a_step_is_found_where_it_is(spread: float, step: float, place: int, least: float) -> None:
    assert share_found(spread, step, place=place) >= least


def test_a_step_has_its_place_its_levels_and_its_ratio() -> None:
    (change,) = change_points([10.0] * 20 + [11.0] * 20)
    assert change == ChangePoint(place=20, before=10.0, after=11.0)
    assert change.ratio == pytest.approx(1.1)


def test_what_went_up_and_came_back_is_two_changes() -> None:
    values = noise(0.01, seed=1)
    values[20:40] *= 1.1
    assert [change.place for change in change_points(values.tolist())] == [20, 40]


def test_a_staircase_is_found_step_by_step() -> None:
    values = [1.0] * 12 + [1.2] * 12 + [1.5] * 12
    assert [(change.place, change.before, change.after) for change in change_points(values)] == [
        (12, 1.0, 1.2),
        (24, 1.2, 1.5),
    ]


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 9, [0.1] * 60, [0.0] * 60, [1.0, 2.0] * 30, [1.0] * 5 + [2.0]])
def test_nothing_changed(values: list[float]) -> None:
    assert change_points(values) == []


def test_one_odd_night_is_no_change() -> None:
    values = noise(0.02, seed=2).tolist()
    values[30] = 3.0
    assert change_points(values) == []


def test_a_change_is_seen_when_there_are_enough_nights_after_it() -> None:
    values = [*noise(0.01, seed=3, size=30), *(1.3 * noise(0.01, seed=4, size=5))]
    assert change_points(values[:-1]) == []
    assert [change.place for change in change_points(values)] == [30]


def test_what_is_too_small_to_matter_is_no_change_however_sure_it_is() -> None:
    values = [1.0] * 30 + [1.01] * 30
    assert change_points(values) == []
    assert len(change_points(values, least_effect=0.005)) == 1


def test_from_zero_anything_is_a_change_without_a_ratio() -> None:
    (change,) = change_points([0.0] * 10 + [1e-9] * 10)
    assert (change.place, change.ratio) == (10, None)


def test_the_same_series_has_the_same_changes_and_the_unit_does_not_matter() -> None:
    values = noise(0.02, seed=5)
    values[25:] *= 1.07
    places = [change.place for change in change_points(values.tolist())]
    assert places == [change.place for change in change_points(values.tolist())]
    assert places == [change.place for change in change_points((1e-6 * values).tolist())]
    assert places == [change.place for change in change_points((1e12 * values).tolist())]


def test_exact_figures_change_wherever_they_are_others() -> None:
    assert exact_changes([4.0, 4.0, 5.0, 4.0]) == [
        ChangePoint(place=2, before=4.0, after=5.0),
        ChangePoint(place=3, before=5.0, after=4.0),
    ]
    assert exact_changes([]) == exact_changes([7.0]) == exact_changes([7.0] * 60) == []
