"""The rule for times: what rounds of processes say, and how often it errs on noise like a shared machine's."""

import math

import numpy as np
import pytest

from optbench.regress.findings import Answer
from optbench.regress.rounds import MAX_ROUNDS, Round, time_answer

QUIET, SLOW, NOISY = (1.0, 1.0), (1.2, 1.0), (1.2, 1.3)


def round_of(ratio: float, control: float, *, is_paired: bool = True) -> Round:
    new = [0.001 * ratio] * 3
    return Round(old=[0.001] * 3, new=new, control=[value * control for value in new], is_paired=is_paired)


@pytest.mark.parametrize(
    ("rounds", "answer"),
    [
        ([QUIET], Answer.PASS),
        ([(0.8, 1.0)], None),
        ([(0.8, 1.0)] * 2, None),
        ([(0.8, 1.0)] * 3, Answer.IMPROVED),
        ([(0.8, 1.0), (0.92, 1.0), (0.92, 1.0)], Answer.PASS),
        ([(0.8, 1.0), QUIET], None),
        ([(0.8, 1.0), QUIET, QUIET], Answer.PASS),
        ([(1.04, 1.0)], Answer.PASS),
        ([(1.08, 1.0)], None),
        ([(1.08, 1.0)] * (MAX_ROUNDS - 1), None),
        ([(1.08, 1.0)] * MAX_ROUNDS, Answer.PASS),
        ([SLOW], None),
        ([SLOW, SLOW], None),
        ([SLOW, SLOW, SLOW], Answer.FAIL),
        ([SLOW, (1.07, 1.0), SLOW], None),
        ([SLOW, (1.07, 1.0), SLOW, SLOW], Answer.FAIL),
        ([SLOW, (1.08, 1.0), (1.08, 1.0)], None),
        ([SLOW, SLOW, (1.04, 1.0)], None),
        ([SLOW, SLOW, (1.04, 1.0), SLOW], Answer.FAIL),
        ([SLOW, QUIET], None),
        ([SLOW, QUIET, QUIET], Answer.PASS),
        ([NOISY], None),
        ([NOISY, QUIET], Answer.PASS),
        ([SLOW, NOISY], None),
        ([SLOW, NOISY, SLOW, NOISY, SLOW], Answer.FAIL),
        ([NOISY] * (MAX_ROUNDS - 1), None),
        ([NOISY] * MAX_ROUNDS, Answer.UNKNOWN),
        ([SLOW, *[NOISY] * (MAX_ROUNDS - 1)], Answer.UNKNOWN),
        ([(1.4, 1.0), *[QUIET] * (MAX_ROUNDS - 1)], Answer.PASS),
        ([(1.0, 0.8)] * MAX_ROUNDS, Answer.UNKNOWN),
    ],
)
@pytest.mark.parametrize("is_paired", [True, False])
def test_a_step_is_slower_where_three_rounds_of_fresh_processes_say_so(
    rounds: list[tuple[float, float]], answer: Answer | None, is_paired: bool
) -> None:
    assert time_answer([round_of(*one, is_paired=is_paired) for one in rounds]) is answer


def test_a_round_without_a_figure_says_nothing_and_without_any_ends_it() -> None:
    lost = Round(old=[1.0] * 3, new=[1.0, math.nan, 1.0], control=[1.0] * 3, is_paired=True)
    assert time_answer([lost]) is None
    assert time_answer([lost, round_of(*QUIET)]) is Answer.PASS
    none = Round(old=[1.0] * 3, new=[math.nan] * 3, control=[math.nan] * 3, is_paired=True)
    assert time_answer([none]) is Answer.BROKEN


def test_a_machine_that_is_busier_than_the_baselines_was_tells_nothing() -> None:
    for kernel_ratio in (0.8, 1.2, math.nan):
        one = Round(old=[5.0], new=[6.0] * 3, control=[6.0] * 3, is_paired=False, kernel_ratio=kernel_ratio)
        assert time_answer([one] * (MAX_ROUNDS - 1)) is None
        assert time_answer([one] * MAX_ROUNDS) is Answer.UNKNOWN


def test_the_control_is_taken_at_its_worst_and_the_ratio_at_its_best() -> None:
    one = Round(old=[1.0, 1.2, 1.0], new=[1.0, 1.3, 1.4], control=[1.0, 1.3, 1.1], is_paired=True)
    assert one.control_ratio == pytest.approx(1.1 / 1.3)
    assert one.is_noisy
    assert one.ratio == pytest.approx(1.3 / 1.2)


def test_one_process_that_was_unlucky_decides_nothing() -> None:
    unlucky = Round(old=[1.0, 1.0, 1.0], new=[1.0, 2.0, 1.01], control=[1.01, 1.0, 1.0], is_paired=True)
    assert time_answer([unlucky]) is Answer.PASS


@pytest.mark.parametrize(("ratio", "least", "most"), [(1.0, 0.0, 0.001), (1.05, 0.0, 0.05), (1.2, 0.95, 1.0)])
def test_on_noise_of_processes_it_hardly_alarms_and_sees_a_fifth(ratio: float, least: float, most: float) -> None:
    """The quickest step of a process varies by 5 %, and one process in ten meets a slow spell of up to half as much."""
    random = np.random.default_rng(0)

    def processes(factor: float) -> list[float]:
        slow = np.where(random.random(3) < 0.1, random.uniform(1.1, 1.5, 3), 1.0)
        return list(factor * slow * np.exp(random.normal(0.0, 0.05, 3)))

    def night() -> Answer:
        rounds: list[Round] = []
        while (answer := time_answer(rounds)) is None:
            rounds.append(Round(old=processes(1.0), new=processes(ratio), control=processes(ratio), is_paired=True))
        return answer

    answers = [night() for _ in range(1000)]
    told = [answer for answer in answers if answer is not Answer.UNKNOWN]
    assert len(told) > 900
    assert least <= sum(answer is Answer.FAIL for answer in told) / len(told) <= most
