"""What measured values say of a band: reproduced, not reproduced, or not to be told from so few seeds."""

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from optbench.papers.paper import Band
from optbench.papers.verdicts import Verdict, half_width, judge, overall, seeds_needed

BAND = Band(low=0.9, high=1.1)


def test_values_whose_interval_lies_within_the_band_reproduce_it() -> None:
    found = judge([0.98, 1.0, 1.01, 1.02], BAND, is_exact=False)
    assert found.verdict is Verdict.REPRODUCED
    expected = stats.t.interval(0.95, 3, loc=1.0025, scale=stats.sem([0.98, 1.0, 1.01, 1.02]))
    assert (found.low, found.high) == pytest.approx(expected)


def test_values_whose_interval_lies_outside_do_not() -> None:
    assert judge([1.29, 1.3, 1.31], BAND, is_exact=False).verdict is Verdict.NOT_REPRODUCED
    assert judge([0.59, 0.6, 0.61], BAND, is_exact=False).verdict is Verdict.NOT_REPRODUCED


def test_an_interval_with_an_end_on_each_side_is_underpowered_and_says_how_many_seeds_are_missing() -> None:
    values = [0.9, 1.0, 1.1]
    found = judge(values, BAND, is_exact=False)
    assert found.verdict is Verdict.UNDERPOWERED
    assert found.more_seeds is not None
    deviation = statistics.stdev(values)
    enough = len(values) + found.more_seeds
    assert half_width(deviation, enough) <= 0.1 < half_width(deviation, enough - 1)


def test_a_mean_at_the_edge_of_the_band_would_take_more_seeds_than_anyone_has() -> None:
    found = judge([1.0, 1.1, 1.2], BAND, is_exact=False)
    assert found.verdict is Verdict.UNDERPOWERED
    assert found.more_seeds is None
    assert seeds_needed(0.1, 0.0, at_least=2) is None


@pytest.mark.parametrize("value", [1.0, 5.0])
def test_a_single_seed_tells_nothing_however_near_it_is(value: float) -> None:
    found = judge([value], BAND, is_exact=False)
    assert found.verdict is Verdict.UNDERPOWERED
    assert found.more_seeds == 2
    assert "spread" in found.note


@pytest.mark.parametrize(("value", "verdict"), [(1.1, Verdict.REPRODUCED), (1.1001, Verdict.NOT_REPRODUCED)])
def test_what_no_seed_changes_is_told_by_one(value: float, verdict: Verdict) -> None:
    assert judge([value], BAND, is_exact=True).verdict is verdict


def test_what_is_said_to_be_exact_and_differs_from_seed_to_seed_is_not() -> None:
    assert judge([0.5, 1.0, 1.5], BAND, is_exact=True).verdict is Verdict.UNDERPOWERED


def test_bounds_are_bands_without_an_end() -> None:
    below, above = Band(low=-math.inf, high=0.6), Band(low=5.0, high=math.inf)
    assert judge([0.1, 0.2, 0.3], below, is_exact=False).verdict is Verdict.REPRODUCED
    assert judge([8.0, 14.0], above, is_exact=False).verdict is Verdict.UNDERPOWERED  # two seeds: t is 12.7
    assert judge([13.0, 13.2, 13.1], above, is_exact=False).verdict is Verdict.REPRODUCED
    assert below.text == "at most 0.6"
    assert above.text == "at least 5"


def test_targets_that_nobody_reaches_are_told_and_those_that_some_reach_are_not_reproduced() -> None:
    never = Band(low=2000.0, high=math.inf)
    assert judge([math.inf] * 3, never, is_exact=False).verdict is Verdict.REPRODUCED
    assert judge([2500.0, math.inf], never, is_exact=False).verdict is Verdict.REPRODUCED
    mixed = judge([100.0, math.inf], never, is_exact=False)
    assert mixed.verdict is Verdict.NOT_REPRODUCED
    assert mixed.low == 100.0


def test_without_a_band_there_is_no_verdict() -> None:
    assert judge([1.0, 2.0, 3.0], None, is_exact=False).verdict is None


def test_one_bad_cell_outweighs_all_good_ones() -> None:
    good, bad, unsure, absent = (
        Verdict.REPRODUCED,
        Verdict.NOT_REPRODUCED,
        Verdict.UNDERPOWERED,
        Verdict.NOT_RUN,
    )
    assert overall([good] * 40 + [bad, unsure, absent]) is bad
    assert overall([good, unsure, absent]) is unsure
    assert overall([good, absent]) is absent
    assert overall([good, good]) is good
    assert overall([]) is absent


def test_a_true_claim_is_refuted_in_no_more_than_one_study_of_forty() -> None:
    """At the edge of the band, where it is hardest: the other 95 % are reproduced or underpowered, never refuted."""
    random = np.random.default_rng(0)
    verdicts = [judge(list(random.normal(1.1, 0.1, 5)), BAND, is_exact=False).verdict for _ in range(2000)]
    refuted = verdicts.count(Verdict.NOT_REPRODUCED) / len(verdicts)
    confirmed = verdicts.count(Verdict.REPRODUCED) / len(verdicts)
    assert refuted == pytest.approx(0.025, abs=0.01)
    assert confirmed <= 0.035


def test_with_a_few_seeds_more_a_true_claim_is_reproduced() -> None:
    random = np.random.default_rng(1)
    few, many = (
        [judge(list(random.normal(1.0, 0.1, count)), BAND, is_exact=False).verdict for _ in range(300)]
        for count in (3, 20)
    )
    assert few.count(Verdict.REPRODUCED) < 100
    assert many.count(Verdict.REPRODUCED) > 240
