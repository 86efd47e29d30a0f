"""Doubts about stored times: settled beside the environment of the baseline, where that can be had."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from optbench.errors import UsageError
from optbench.regress.findings import Answer
from optbench.regress.judging import judge
from optbench.regress.measuring import Found, Measuring, Plan
from optbench.regress.readings import Readings, Sample
from optbench.regress.rounds import time_answer
from optbench.regress.settling import take
from optbench.regress.sides import Side
from optbench.regress.suite import read
from optbench.regress.talking import Taken
from optbench.regress.timing import Timed
from tests.nights import sample

SUITE = """
name: two
title: Two steps
cost: {minutes: null, machine: any}
steps: {plain: [task=digits_mlp, "optimizer=adamw,lion"]}
time: {num_pairs: 3, seconds: 0.1}
"""
NAMES = ("adamw", "lion")
ENVIRONMENT = {"commit": "0123456789abcdef", "modified": False, "python": "3.12.1", "packages": {"torch": "2.13.0"}}
HERE, THERE = Side(name="here"), Side(name="there")


@dataclass(frozen=True, kw_only=True)
class Simulated(Measuring):
    """A machine on which steps take as long as is said, by side and subject."""

    steps: Mapping[tuple[str, str], float]
    environment: Mapping[str, Any]
    asked: list[str]

    def samples(self, sides: Sequence[Side], only: Sequence[str]) -> list[Taken]:
        beside = "beside" if any(side.name != HERE.name for side in sides) else "here+here"
        self.asked.append(f"{beside} {' '.join(only)}")
        return [Taken({name: self._sample(side, name) for name in only}, ENVIRONMENT, {}) for side in sides]

    def _sample(self, side: Side, name: str) -> Sample:
        return sample(self.steps.get((side.name[:4], name), 0.002))

    def exact(self, side: Side, *, only: Sequence[str] | None = None) -> Found[dict[str, int]]:
        return Found(environment=self.environment)


def machine(
    tmp_path: Path, environment: Mapping[str, Any] = ENVIRONMENT, **steps: tuple[float | None, float]
) -> Simulated:
    """Seconds of steps: of the baseline's side, and of this one."""
    plan = Plan(
        suite=read(SUITE, where="two.yaml"),
        trials={},
        steps={"plain": [{"optimizer": {"name": name}, "hardware": {"num_threads": 1}} for name in NAMES]},
        folder=None,
    )
    sides = {("the ", name): there for name, (there, _) in steps.items() if there is not None}
    sides |= {("here", name): here for name, (_, here) in steps.items()}
    return Simulated(plan=plan, work=tmp_path, steps=sides, environment=environment, asked=[])


def accepted(measuring: Simulated, **changes: Any) -> Readings:
    """Of a night in which both steps took 2 ms."""
    return Readings(
        environment={**ENVIRONMENT, **changes},
        asked=measuring.plan.asked,
        samples={name: [sample(0.002)] * 3 for name in NAMES},
    )


def taken(measuring: Simulated, **changes: Any) -> tuple[Timed, Mapping[str, str]]:
    return take(measuring, here=HERE, baseline=accepted(measuring, **changes), make=lambda _: THERE)


def test_what_the_machine_does_to_one_step_is_no_regression(tmp_path: Path) -> None:
    measuring = machine(tmp_path, adamw=(0.0026, 0.0026))
    timed, remarks = taken(measuring)
    assert all(time_answer(rounds) is Answer.PASS for rounds in timed.rounds.values())
    assert remarks == {"adamw": "beside the baseline's commit 0123456789; against its stored times it was 1.300"}
    assert measuring.asked == ["here+here adamw lion"] * 3 + ["beside adamw"] * 3, "lion is in no doubt"


@pytest.mark.parametrize(("here", "answer"), [(0.0026, Answer.FAIL), (0.0014, Answer.IMPROVED)])
def test_what_the_code_does_is_found_beside_it_too(tmp_path: Path, here: float, answer: Answer) -> None:
    timed, _ = taken(machine(tmp_path, adamw=(0.002, here)))
    assert time_answer(timed.rounds["adamw"]) is answer


def test_what_it_says_is_in_seconds_and_beside_whom(tmp_path: Path) -> None:
    measuring = machine(tmp_path, adamw=(0.002, 0.0026))
    timed, remarks = taken(measuring)
    new = Readings(asked=measuring.plan.asked, samples=timed.here)
    adamw, lion = judge(accepted(measuring), new, rounds=timed.rounds, remarks=remarks)
    assert adamw.answer is Answer.FAIL
    assert adamw.is_beside
    assert adamw.old == pytest.approx(0.00204)
    assert adamw.note.endswith("against its stored times it was 1.300")
    assert not lion.is_beside
    assert lion.old == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("changes", "environment", "said"),
    [
        ({"commit": None}, ENVIRONMENT, "of no commit"),
        ({"modified": True}, ENVIRONMENT, "had changes that commit 0123456789 does not have"),
        ({"modified": None}, ENVIRONMENT, "had changes"),
        ({}, {**ENVIRONMENT, "packages": {"torch": "2.14.0"}}, "packages of commit 0123456789 would be others"),
        ({}, {**ENVIRONMENT, "python": "3.11.0"}, "python of commit"),
        ({}, {}, "would be others"),
    ],
)
def test_without_the_baselines_environment_its_stored_times_decide_and_that_is_said(
    tmp_path: Path, changes: Mapping[str, Any], environment: Mapping[str, Any], said: str
) -> None:
    measuring = machine(tmp_path, environment, adamw=(0.0026, 0.0026))
    timed, remarks = taken(measuring, **changes)
    assert time_answer(timed.rounds["adamw"]) is Answer.FAIL
    assert said in remarks["adamw"]
    assert set(measuring.asked) == {"here+here adamw lion", "here+here adamw"}


def test_a_commit_that_cannot_be_had_is_said_in_a_sentence(tmp_path: Path) -> None:
    measuring = machine(tmp_path, adamw=(0.0026, 0.0026))

    def make(commit: str) -> Side:
        raise UsageError(f"--against {commit}: git knows no such commit.\nGive another.")

    _, remarks = take(measuring, here=HERE, baseline=accepted(measuring), make=make)
    assert remarks["adamw"].endswith("could not be measured beside this one: git knows no such commit.")


def test_where_nothing_is_in_doubt_nothing_is_made(tmp_path: Path) -> None:
    measuring = machine(tmp_path)
    timed, remarks = taken(measuring)
    assert remarks == {}
    assert list(timed.rounds) == list(NAMES)
    assert measuring.asked == ["here+here adamw lion"] * 3


def test_what_the_baseline_does_not_have_is_timed_alone(tmp_path: Path) -> None:
    measuring = machine(tmp_path, adamw=(0.0026, 0.0026))
    baseline = replace(accepted(measuring), samples={"adamw": [sample(0.002)] * 3})
    timed, remarks = take(measuring, here=HERE, baseline=baseline, make=lambda _: THERE)
    assert list(remarks) == ["adamw"]
    assert time_answer(timed.rounds["lion"]) is Answer.PASS
