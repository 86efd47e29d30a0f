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
from optbench.regress.judging import judge
from optbench.regress.readings import Final, Readings
from optbench.regress.rounds import Round
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
    assert found.note == "diverged with seed 3, and did not before"


def test_seeds_that_diverge_on_both_sides_are_no_news() -> None:
    both = side([None] * 5, status="diverged")
    assert loss(both, both).answer is Answer.PASS
    assert loss(both, side()).answer is Answer.IMPROVED


@pytest.mark.parametrize("status", ["crashed", "out_of_memory", "timed_out"])
def test_a_trial_that_fails_is_broken_and_no_pass(status: str) -> None:
    found = loss(side(), side([None] * 5, status=status))
    assert found.answer is Answer.BROKEN
    assert status.replace("_", " ") in found.note


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_never_a_pass(value: float | None) -> None:
    losses = [*LOSSES[:4], value]
    assert loss(side(), side(losses)).answer in (Answer.FAIL, Answer.UNKNOWN)
    assert loss(side(losses), side()).answer is not Answer.PASS
    assert loss(side(losses), side(LOSSES[:4])).answer is not Answer.PASS


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "90", True, 90.5])
def test_an_exact_figure_that_is_no_whole_number_is_never_a_pass(value: Any) -> None:
    broken = side(exact={"state_bytes": 800, "num_operations": value, "peak_bytes": 4000})
    assert findings(side(), broken)["dispatched operations of adamw"].answer is Answer.BROKEN
    assert findings(broken, side())["dispatched operations of adamw"].answer is Answer.NEW


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_a_time_that_is_no_number_is_never_a_pass(value: float) -> None:
    timed = side(samples={"adamw": [sample()] * 3})
    for place in ("old", "new", "control"):
        figures = {name: [0.001] * 3 for name in ("old", "new", "control")} | {place: [0.001, value, 0.001]}
        rounds = {"adamw": [Round(**figures, is_paired=True)] * 4}  # type: ignore[arg-type]
        found = {one.name: one for one in judge(timed, timed, rounds=rounds)}
        assert found["step time of adamw"].answer is Answer.BROKEN


def test_a_loss_of_another_question_is_not_compared() -> None:
    asked = {"adamw": "a", "digits adamw": "another"}
    found = findings(side(), side([value * 2.0 for value in LOSSES], asked=asked))
    assert found["final loss of digits adamw"].answer is Answer.UNKNOWN
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
