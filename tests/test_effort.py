"""What tuning buys, against all draws there are."""

import itertools
import math
import random

import pytest

from optbench.effort import best_of, efforts
from tests.contests import contender, contest, row


def all_draws(scores: list[float], k: int, *, sign: float) -> list[float]:
    """The best of each draw of k scores, the best first."""
    return sorted(
        (min(draw, key=lambda score: sign * score) for draw in itertools.combinations(scores, k)),
        key=lambda score: sign * score,
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    "scores",
    [[0.5], [0.1, 0.9], [3.0, 1.0, 2.0], [1.0, 1.0, 2.0, 7.0, 7.0], [0.3, -0.2, 5.0, 4.0, 0.0, 9.0, 2.5]],
    ids=str,
)
def test_the_best_of_k_is_that_of_all_draws(scores: list[float], sign: float) -> None:
    expected, low, high = best_of(scores, sign=sign)
    for k in range(1, len(scores) + 1):
        draws = all_draws(scores, k, sign=sign)
        assert expected[k - 1] == pytest.approx(math.fsum(draws) / len(draws), abs=1e-12)
        fifth, ninety_fifth = (draws[math.ceil(level * len(draws) - 1e-9) - 1] for level in (0.05, 0.95))
        assert (low[k - 1], high[k - 1]) == ((fifth, ninety_fifth) if sign > 0 else (ninety_fifth, fifth))


def test_the_best_of_all_is_the_best_and_the_first_is_the_mean() -> None:
    scores = [random.Random(0).random() for _ in range(300)]
    expected, low, high = best_of(scores, sign=1.0)
    assert expected[0] == pytest.approx(math.fsum(scores) / len(scores))
    assert expected[-1] == low[-1] == high[-1] == min(scores)
    assert expected == sorted(expected, reverse=True)
    assert all(a <= b for a, b in zip(low, high, strict=True))


def test_a_setting_that_failed_counts_as_no_training() -> None:
    rows = [
        row("adamw", 0.1, [0.9, 0.9]),
        row("adamw", 0.2, [0.8, 0.8]),
        row("adamw", 0.3, [0.95], failures={"diverged": 1}),
    ]
    (found,) = efforts(contest([contender(rows)], start=0.1))
    assert found.scores == [0.9, 0.8, 0.1]
    assert found.num_failed == 1
    assert found.expected[0] == pytest.approx(0.6)


def test_without_a_start_a_setting_that_failed_counts_as_the_worst_of_the_task() -> None:
    rows = [row("adamw", 0.1, [0.9]), row("adamw", 0.2, [0.8]), row("adamw", 0.3, [], failures={"diverged": 2})]
    others = [row("sgd", 0.1, [0.25])]
    (found,) = efforts(contest([contender(rows), contender(others)], start=None))
    assert found.scores == [0.9, 0.8, 0.25]


def test_fewer_than_three_settings_say_nothing_of_tuning_nor_do_failures_alone() -> None:
    two = [row("adamw", 0.1, [0.9]), row("adamw", 0.2, [0.8])]
    failed = [row("sgd", rate, [], failures={"crashed": 1}) for rate in (0.1, 0.2, 0.3)]
    assert efforts(contest([contender(two), contender(failed)], start=0.1)) == []
    assert efforts(contest([contender(failed)], start=None)) == []
