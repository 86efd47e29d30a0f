"""Means, intervals and ties, against brute force and against what the words promise."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from optbench import stats
from optbench.stats import Difference, band, difference, estimate, ties

SAMPLES = [
    [1.0, 4.0],
    [0.3, 0.1, 0.2],
    [2.0, 2.0, 5.0],
    [0.9, 0.4, 0.7, 0.1],
    [-3.0, -1.0, -1.0, 8.0],
]


def _brute_force(values: Sequence[float]) -> tuple[float, float]:
    """The smallest mean that at least 2.5 % of all n^n resamples do not exceed, and the same for 97.5 %."""
    means = sorted(math.fsum(draw) / len(values) for draw in itertools.product(values, repeat=len(values)))
    low, high = (means[math.ceil(q * len(means)) - 1] for q in (0.025, 0.975))
    return low, high


@pytest.mark.parametrize("values", SAMPLES, ids=str)
def test_the_interval_of_few_values_is_the_one_over_all_resamples(values: list[float]) -> None:
    found = estimate(values)
    assert (found.low, found.high) == pytest.approx(_brute_force(values), abs=1e-15)
    assert found.mean == pytest.approx(math.fsum(values) / len(values), abs=1e-15)
    assert found.num_values == len(values)


@pytest.mark.parametrize("size", range(1, 12))
def test_the_resamples_are_a_distribution_with_the_mean_of_the_values(size: int) -> None:
    weights, probabilities = stats._resamples(size)
    assert probabilities.sum() == pytest.approx(1.0)
    assert weights.sum(axis=1) == pytest.approx(1.0)
    assert probabilities @ weights == pytest.approx(1.0 / size, rel=0.1 if size > 6 else 1e-12)


@pytest.mark.parametrize("values", [[1.0, 4.0], [0.3, 0.1, 0.2]], ids=str)
def test_with_two_or_three_seeds_the_interval_is_the_range(values: list[float]) -> None:
    found = estimate(values)
    assert (found.low, found.high) == (min(values), max(values))


def test_one_seed_has_a_mean_and_no_interval() -> None:
    found = estimate([0.1])
    assert (found.mean, found.low, found.high, found.num_values) == (0.1, None, None, 1)


@pytest.mark.parametrize("size", [2, 3, 5, 6, 7, 30])
@pytest.mark.parametrize("value", [0.1, -7.3, 1e-300, 1e300])
def test_the_interval_of_equal_values_is_the_value_to_the_last_bit(value: float, size: int) -> None:
    found = estimate([value] * size)
    assert (found.mean, found.low, found.high) == (value, value, value)


@pytest.mark.parametrize("values", SAMPLES, ids=str)
def test_the_order_of_the_seeds_does_not_matter(values: list[float]) -> None:
    found, turned = estimate(values), estimate(values[::-1])
    assert (turned.mean, turned.low, turned.high) == pytest.approx((found.mean, found.low, found.high), abs=1e-15)


@pytest.mark.parametrize("values", SAMPLES, ids=str)
def test_the_interval_favours_neither_end(values: list[float]) -> None:
    found, negated = estimate(values), estimate([-value for value in values])
    assert found.low is not None
    assert found.high is not None
    assert (negated.low, negated.high) == pytest.approx((-found.high, -found.low), abs=1e-15)


def test_many_values_are_resampled_the_same_way_each_time() -> None:
    values = np.random.default_rng(3).normal(size=50).tolist()
    first = estimate(values)
    stats._resamples.cache_clear()
    assert estimate(values) == first
    assert first.low is not None
    assert first.high is not None
    assert (first.low, first.high) == pytest.approx(
        (
            np.mean(values) - 1.96 * np.std(values) / 50**0.5,
            np.mean(values) + 1.96 * np.std(values) / 50**0.5,
        ),
        abs=0.1 * float(np.std(values)),
    )


@pytest.mark.parametrize(("size", "promised"), [*stats.COVERAGE.items(), (20, 0.94)])
def test_intervals_hold_the_true_mean_as_often_as_is_said(size: int, promised: float) -> None:
    samples = np.random.default_rng(size).normal(size=(500, size)).tolist()
    held = [found.low <= 0.0 <= found.high for found in map(estimate, samples) if found.low and found.high]
    assert sum(held) / len(samples) == pytest.approx(promised, abs=0.05)


def tied(best: Mapping[int, float], *others: Mapping[int, float]) -> list[bool]:
    return ties([difference(best, other) for other in others])


def test_ties_are_judged_by_paired_differences() -> None:
    best = {0: 1.0, 1: 2.0, 2: 3.0}
    always_a_little_worse = {0: 1.1, 1: 2.1, 2: 3.1}  # the ranges overlap, the seeds all agree
    sometimes_worse = {0: 1.1, 1: 1.9, 2: 3.1}
    assert tied(best, always_a_little_worse) == [False]
    assert tied(best, sometimes_worse) == [True]
    assert tied(always_a_little_worse, best) == [False], "nor is what is always better a tie"
    assert tied(best, dict(best)) == [True]


def test_three_seeds_that_agree_by_chance_are_no_proof() -> None:
    """One time in four three differences have the same sign where there is none."""
    assert tied({0: 1.0, 1: 2.0, 2: 3.0}, {0: 1.001, 1: 2.3, 2: 3.05}) == [True]


def test_ties_look_at_shared_seeds_alone_and_pair_them_by_number() -> None:
    best = {0: 1.0, 1: 2.0, 2: 3.0, 7: -100.0}
    assert tied(best, {2: 3.1, 1: 2.1, 0: 1.1, 9: 50.0}) == [False]
    assert tied(best, {4: 1.0, 5: 2.0}) == [False], "without a shared seed there is nothing to compare"
    assert difference(best, {4: 1.0, 5: 2.0}) is None


def test_one_shared_seed_ties_with_an_equal_value_alone() -> None:
    assert tied({0: 0.5}, {0: 0.5}, {0: 0.5000001}) == [True, False]
    assert tied({0: 0.5, 1: 0.5}, {1: 0.6}) == [False]


@pytest.mark.parametrize("size", [2, 3, 5, 20])
def test_a_difference_is_that_of_the_paired_t_test(size: int) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    drawn = np.random.default_rng(size).normal(size=(2, size))
    found = difference(dict(enumerate(drawn[0])), dict(enumerate(drawn[1])))
    expected = scipy_stats.ttest_rel(drawn[1], drawn[0])
    interval = expected.confidence_interval(0.95)
    assert found is not None
    assert (found.p_value, found.low, found.high) == pytest.approx((expected.pvalue, interval.low, interval.high))
    assert found.num_values == size


def test_differences_may_be_as_large_as_a_float() -> None:
    found = difference({0: 0.0, 1: 0.0}, {0: 1e300, 1: 2e300})
    assert found is not None
    assert found.mean == pytest.approx(1.5e300)
    assert found.p_value == pytest.approx(difference({0: 0.0, 1: 0.0}, {0: 1.0, 1: 2.0}).p_value)  # type: ignore[union-attr]


def test_differences_that_are_all_the_same_need_no_interval() -> None:
    found = difference({0: 1.0, 1: 2.0}, {0: 1.5, 1: 2.5})
    assert found == Difference(mean=0.5, low=0.5, high=0.5, p_value=0.0, num_values=2)
    same = difference({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0})
    assert same is not None
    assert same.p_value == 1.0


def with_p_value(p_value: float | None) -> Difference:
    return Difference(mean=1.0, low=0.0, high=2.0, p_value=p_value, num_values=5)


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([0.04], [False]),
        ([0.06], [True]),
        ([0.04, 0.03], [True, True]),  # 2 * 0.03 > 0.05, and none after it is told apart either
        ([0.04, 0.02], [False, False]),  # 2 * 0.02, then 1 * 0.04
        ([0.01, 0.04, 0.03, 0.005], [False, True, True, False]),  # Holm's own table (1979)
        ([0.013, None, 0.9, 0.9, 0.9], [True, False, True, True, True]),
        ([], []),
    ],
)
def test_of_many_comparisons_fewer_are_told_apart(p_values: list[float | None], expected: list[bool]) -> None:
    assert ties([with_p_value(p_value) for p_value in p_values]) == expected


def test_of_settings_that_are_as_good_as_the_best_hardly_any_is_told_apart_by_chance() -> None:
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        drawn = generator.normal(size=(11, 5))
        best, *others = (dict(enumerate(row.tolist())) for row in drawn)
        wrong += not all(tied(best, *others))
    assert wrong <= 20  # 5 % of 200 and some; without the correction it is about 60


def test_a_band_has_at_each_point_the_interval_of_an_estimate() -> None:
    values = np.random.default_rng(5).normal(size=(7, 6))
    values[4:, 1] = math.nan
    values[3:, 2] = math.nan
    values[1:, 3] = math.nan
    values[:, 4] = math.nan
    low, high = band(values)
    for point in range(values.shape[1]):
        known = values[~np.isnan(values[:, point]), point].tolist()
        if len(known) < 2:
            assert math.isnan(low[point])
            assert math.isnan(high[point])
        else:
            expected = estimate(known)
            assert (low[point], high[point]) == pytest.approx((expected.low, expected.high), abs=1e-12)
