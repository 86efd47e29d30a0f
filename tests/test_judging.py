"""What two sides' readings say of each other: exact figures, losses, and that nothing that is no number ever passes."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from optbench.parsing import finite
from optbench.regress import readings as reading
from optbench.regress.findings import Answer, Finding
from optbench.regress.judging import Expected, judge
from optbench.regress.readings import Final, Readings
from optbench.regress.rounds import MAX_ROUNDS, Round
from tests.nights import ENVIRONMENT, sample

LOSSES = (0.50, 0.52, 0.48, 0.55, 0.51)


def side(
    losses: Any = LOSSES, exact: Mapping[str, Any] | None = None, status: str = "completed", **changes: Any
) -> Readings:
    finals = {str(seed): Final(status=status, loss=loss) for seed, loss in enumerate(losses)}
    figures = {"state_bytes": 800, "num_operations": 90, "peak_bytes": 4000} if exact is None else dict(exact)
    found = Readings(
        environment=ENVIRONMENT,
        asked={"adamw": "a", "digits adamw": "b"},
        exact={"adamw": figures},
        finals={"digits adamw": finals},
    )
    return replace(found, **changes)


def findings(old: Readings | None, new: Readings) -> dict[str, Finding]:
    return {finding.name: finding for finding in judge(old, new, rounds={})}


def loss(old: Readings, new: Readings) -> Finding:
    return findings(old, new)["final loss of digits adamw"]


def test_the_same_readings_pass_in_everything() -> None:
    assert {finding.answer for finding in judge(side(), side(), rounds={})} == {Answer.PASS}


@pytest.mark.parametrize("name", ["state_bytes", "num_operations", "peak_bytes"])
def test_one_byte_or_operation_more_is_a_regression_and_one_less_a_change(name: str) -> None:
    figures = {"state_bytes": 800, "num_operations": 90, "peak_bytes": 4000}
    for difference, answer in ((1, Answer.FAIL), (-1, Answer.CHANGED), (0, Answer.PASS)):
        changed = side(exact={**figures, name: figures[name] + difference})
        found = [one for one in judge(side(), changed, rounds={}) if one.kind == "exact" and one.old == figures[name]]
        assert [one.answer for one in found] == [answer]


def test_other_bits_are_reported_and_left_to_the_losses() -> None:
    others = [value * (1.0 + 1e-7) for value in LOSSES]
    found = findings(side(), side(others))
    assert found["final loss bits of digits adamw"].answer is Answer.CHANGED
    assert found["final loss of digits adamw"].answer is Answer.PASS


@pytest.mark.parametrize("key", ["num_threads", "cpu_capability", "device"])
def test_bits_of_other_threads_or_processors_are_not_compared(key: str) -> None:
    elsewhere = side([value * (1.0 + 1e-7) for value in LOSSES], environment={**ENVIRONMENT, key: "another"})
    assert "final loss bits of digits adamw" not in findings(side(), elsewhere)
    assert loss(side(), elsewhere).answer is Answer.PASS


def test_bits_of_another_torch_are_not_compared() -> None:
    elsewhere = side(environment={**ENVIRONMENT, "packages": {"torch": "2.14.0"}})
    assert "final loss bits of digits adamw" not in findings(side(), elsewhere)


def test_a_loss_is_worse_beyond_two_percent_and_half_the_spread_of_its_seeds() -> None:
    tight = (0.500, 0.501, 0.499, 0.5005, 0.4995)
    assert loss(side(tight), side([value * 1.03 for value in tight])).answer is Answer.FAIL
    assert loss(side(tight), side([value * 1.01 for value in tight])).answer is Answer.PASS
    wide = (0.3, 0.9, 0.5, 0.7, 0.4)
    assert loss(side(wide), side([value * 1.03 for value in wide])).answer is Answer.PASS
    assert loss(side(wide), side([value * 1.5 for value in wide])).answer is Answer.FAIL


def test_a_loss_whose_interval_holds_no_change_passes() -> None:
    noisy = (0.500 * 1.2, 0.501 * 0.85, 0.499 * 1.15, 0.5005 * 0.9, 0.4995 * 1.1)
    found = loss(side((0.500, 0.501, 0.499, 0.5005, 0.4995)), side(noisy))
    assert found.answer is Answer.PASS
    assert found.low is not None
    assert found.high is not None
    assert found.low < 1.0 < found.high


def test_a_better_loss_is_reported_and_fails_nothing() -> None:
    assert loss(side(), side([value * 0.5 for value in LOSSES])).answer is Answer.IMPROVED


def test_a_seed_that_has_come_to_diverge_is_a_regression_whatever_the_others_say() -> None:
    better = side([value * 0.5 for value in LOSSES])
    finals = {**better.finals["digits adamw"], "3": Final(status="diverged", loss=None)}
    found = loss(side(), replace(better, finals={"digits adamw": finals}))
    assert found.answer is Answer.FAIL
    assert found.note == "diverged, and did not before, with seed 3"


def finals(*each: float | str) -> Readings:
    """A side whose seeds end with these losses, or statuses."""
    known = {
        str(seed): Final(status="completed", loss=end) if isinstance(end, float) else Final(status=end, loss=None)
        for seed, end in enumerate(each)
    }
    return side(finals={"digits adamw": known})


GOOD = (0.50, 0.51, 0.52, 0.53)


@pytest.mark.parametrize(
    ("before", "now", "answer", "said"),
    [
        (["diverged"] * 3, ["diverged"] * 3, Answer.PASS, ""),
        (["diverged"] * 3, GOOD[:3], Answer.IMPROVED, "no longer diverges with seeds 0, 1, 2"),
        (["diverged", *GOOD], [0.5, *(10.0 * loss for loss in GOOD)], Answer.FAIL, "above the least effect"),
        (["diverged", *GOOD], [0.5, *GOOD], Answer.IMPROVED, "no longer diverges with seed 0"),
        (["diverged", *GOOD], [0.5, "diverged", *GOOD[1:]], Answer.FAIL, "diverged, and did not before, with seed 1"),
        (["timed_out", *GOOD], [0.5, "diverged", *GOOD[1:]], Answer.FAIL, "diverged, and did not before, with seed 1"),
        (GOOD, ["timed_out", "diverged", *GOOD[2:]], Answer.FAIL, "diverged, and did not before, with seed 1"),
        (GOOD, ["timed_out", *GOOD[1:]], Answer.BROKEN, "timed out with seed 0"),
        (["crashed"] * 3, ["crashed"] * 3, Answer.BROKEN, "crashed with seeds 0, 1, 2"),
        (GOOD, GOOD[:2], Answer.BROKEN, "no result with seeds 2, 3"),
        (GOOD[:2], GOOD, Answer.UNCOMPARED, "the other side has no result with seeds 2, 3"),
        (["crashed", *GOOD], [0.5, *GOOD], Answer.UNCOMPARED, "the other side has no loss with seed 0"),
        ([0.0, 0.0], [0.0, 0.0], Answer.PASS, ""),
        ([0.0, 0.0], [0.0, 0.1], Answer.UNCOMPARED, "the other side has no loss with seed 1"),
        ([0.1, 0.1], [0.1, 0.0], Answer.UNCOMPARED, "a loss that is not above 0 with seed 1"),
    ],
)
def test_of_several_things_to_say_of_seeds_the_worst_decides(before: Any, now: Any, answer: Answer, said: str) -> None:
    found = loss(finals(*before), finals(*now))
    assert (found.answer, found.note.partition(" of 1.")[0]) == (answer, said)


def test_a_target_that_is_missed_now_is_compared_by_its_loss() -> None:
    reached = side([0.10, 0.11, 0.12], status="reached_target")
    assert loss(reached, side([0.50, 0.55, 0.60])).answer is Answer.FAIL
    assert loss(reached, side([0.10, 0.11, 0.12])).answer is Answer.PASS


def test_what_no_side_has_is_broken_where_the_suite_asks_for_it() -> None:
    empty = Readings(environment=ENVIRONMENT, asked={"adamw": "a", "digits adamw": "b"})
    expected = Expected(trials=["digits adamw"], steps=["adamw"], is_timed=True)
    found = {one.name: one.answer for one in judge(empty, empty, rounds={}, expected=expected)}
    assert found == dict.fromkeys(
        ("state bytes of adamw", "final loss of digits adamw", "step time of adamw"), Answer.BROKEN
    )


def test_what_the_other_side_could_not_measure_is_not_new() -> None:
    failed = replace(side(), exact={}, finals={}, failures={"adamw": "ImportError: Training"})
    found = judge(failed, side(), rounds={})
    assert {one.answer for one in found} == {Answer.UNCOMPARED}
    assert {one.note for one in found if one.kind == "exact"} == {"the other side has no figure: ImportError: Training"}


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_never_a_pass(value: float | None) -> None:
    losses = [*LOSSES[:4], value]
    assert loss(side(), side(losses)).answer is Answer.FAIL
    assert loss(side(losses), side()).answer is Answer.UNCOMPARED
    assert loss(side(losses), side(losses)).answer is Answer.UNCOMPARED
    assert loss(side(losses), side(LOSSES[:4])).answer is Answer.BROKEN


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "90", True, 90.5])
def test_an_exact_figure_that_is_no_whole_number_is_never_a_pass(value: Any) -> None:
    broken = side(exact={"state_bytes": 800, "num_operations": value, "peak_bytes": 4000})
    assert findings(side(), broken)["dispatched operations of adamw"].answer is Answer.BROKEN
    assert findings(broken, side())["dispatched operations of adamw"].answer is Answer.UNCOMPARED


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
@pytest.mark.parametrize("place", ["old", "new", "control"])
def test_a_time_that_is_no_number_is_never_a_pass(value: float, place: str) -> None:
    timed = side(samples={"adamw": [sample()] * 3})
    for figures in ([0.001, value, 0.001], [value] * 3):
        sides = {name: [0.001] * 3 for name in ("old", "new", "control")} | {place: figures}
        rounds = {"adamw": [Round(**sides, is_paired=True)] * MAX_ROUNDS}  # type: ignore[arg-type]
        found = {one.name: one for one in judge(timed, timed, rounds=rounds)}
        assert found["step time of adamw"].answer in (Answer.BROKEN, Answer.UNCOMPARED)


def test_a_loss_of_another_question_is_not_compared() -> None:
    asked = {"adamw": "a", "digits adamw": "another"}
    found = findings(side(), side([value * 2.0 for value in LOSSES], asked=asked))
    assert found["final loss of digits adamw"].answer is Answer.UNCOMPARED
    assert "final loss bits of digits adamw" not in found


def test_one_seed_cannot_tell_noise_from_a_change() -> None:
    assert loss(side([0.5]), side([0.5])).answer is Answer.PASS
    assert loss(side([0.5]), side([0.7])).answer is Answer.UNKNOWN


def test_what_only_one_side_has_is_listed() -> None:
    empty = Readings(environment=ENVIRONMENT)
    assert {one.answer for one in judge(empty, side(), rounds={})} == {Answer.NEW}
    assert {one.answer for one in judge(side(), empty, rounds={})} == {Answer.MISSING}
    gone = replace(side(), exact={}, finals={}, failures={"adamw": "RuntimeError: no kernel"})
    found = judge(side(), gone, rounds={})
    assert {one.answer for one in found} == {Answer.BROKEN}
    assert {one.note for one in found if one.kind == "exact"} == {"RuntimeError: no kernel"}


def test_readings_travel_through_json_and_no_nan_does() -> None:
    found = side([0.5, None], samples={"adamw": [sample()]})
    assert reading.from_json(json.loads(json.dumps(reading.as_json(found), allow_nan=False))) == found
    broken = reading.as_json(side([math.nan]))
    assert reading.from_json(finite(broken)).finals["digits adamw"]["0"].loss is None
