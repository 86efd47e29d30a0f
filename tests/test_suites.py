"""Every suite of regression runs in conf/nightly: sound, described, and together with every optimizer there is."""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from optbench import building
from optbench.catalogue import SUITE, describe, entries
from optbench.component import Limit
from optbench.compose import Composer
from optbench.regress import benchmarks, losses, measuring, rounds, suite
from optbench.regress.measuring import Plan
from optbench.regress.sides import Side
from optbench.trial import Trial

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "conf" / SUITE
NAMES = suite.names()
CATALOGUE = {entry.name: entry for entry in entries("optimizer") if "/" not in entry.name}
# Why an optimizer is in no suite.
LEFT_OUT = {"custom": "a frame for a class that the command line names"}
# Why the other implementations of an optimizer's step are timed with another one only.
SAME_STEP = {
    "null": "sgd with a rate of 0",
    "sgd_untuned": "sgd with another rate",
    "momentum_averaging": "momentum with dampening",
}
# Measured by nobody, and why.
NOT_MEASURED = {"gpu": "there was no GPU to run it on", "bench": "on a busy machine alone"}


@pytest.fixture(scope="module")
def plans(composer: Composer) -> Mapping[str, Plan]:
    """All suites, composed, which refuses two figures with one name."""

    def composed(lines: Any) -> Iterator[Mapping[str, Any]]:
        return iter(composer.configs(lines, one_trial=False))

    return {name: measuring.compose(suite.find(name), composed, folder=None) for name in NAMES}


def configs(plan: Plan) -> Iterator[Mapping[str, Any]]:
    for own in (*plan.trials.values(), *plan.steps.values()):
        yield from own


def optimizers(parts: Mapping[str, Any]) -> set[str]:
    return {config["optimizer"]["name"] for own in parts.values() for config in own}


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_opens_with_what_it_is_and_how_to_run_it(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    assert describe(text).endswith("."), "the first line is a sentence: `optbench list nightly` shows it"
    header = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    _, found, command = header.partition("Run: ")
    assert found, "it says `Run: optbench regress ...`"
    assert shlex.split(command)[:3] == ["optbench", "regress", f"suite={name}"]
    assert not re.search(r"\d[eE]-?\d", re.sub(r"#.*", "", text)), "write 0.001, not 1e-3"


@pytest.mark.parametrize("name", NAMES)
def test_what_a_suite_asks_for_can_be_built(name: str, plans: Mapping[str, Plan]) -> None:
    for config in configs(plans[name]):
        assert config["optimizer"]["name"] in CATALOGUE
        building.optimizer_component(Trial.from_config(config))  # which has the implementation that is asked for


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_names_its_device(name: str, plans: Mapping[str, Plan]) -> None:
    device = suite.find(name).needs or "cpu"
    assert {config["hardware"]["device"] for config in configs(plans[name])} == {device}


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_says_how_long_it_takes_and_on_what(name: str) -> None:
    found = suite.find(name)
    assert found.machine
    if name in NOT_MEASURED:
        assert found.minutes is None
        assert name != "gpu" or "not yet run" in found.title
    else:
        assert found.minutes is not None
        assert found.minutes < 30, "what takes longer is not run every night"


@pytest.mark.parametrize("name", NAMES)
def test_trials_of_a_suite_have_seeds_for_statistics(name: str, plans: Mapping[str, Plan]) -> None:
    for sweep, own in plans[name].trials.items():
        assert len({config["seed"] for config in own}) >= 3, sweep


@pytest.mark.parametrize("name", [name for name in NAMES if suite.find(name).benchmarks])
def test_the_benchmarks_of_a_suite_are_there(name: str) -> None:
    file = suite.find(name).benchmarks
    assert file is not None
    assert benchmarks.file_of(file) == ROOT / file


def test_every_optimizer_trains_and_steps_each_night_or_is_left_out_with_a_reason(plans: Mapping[str, Plan]) -> None:
    nightly = plans["nightly"]
    assert optimizers(nightly.trials) == set(CATALOGUE) - set(LEFT_OUT)
    assert optimizers(nightly.steps) == set(CATALOGUE) - set(LEFT_OUT)


@pytest.mark.parametrize("implementation", ["foreach", "fused"])
def test_every_implementation_that_an_optimizer_has_is_measured_each_night(
    implementation: str, plans: Mapping[str, Plan]
) -> None:
    subjects = {measuring.step_subject(config) for own in plans["nightly"].steps.values() for config in own}
    for name, entry in CATALOGUE.items():
        if implementation in entry.config and name not in SAME_STEP:
            assert f"{name} {implementation}" in subjects


def test_what_is_compiled_can_be(plans: Mapping[str, Plan]) -> None:
    for name in ("nightly", "gpu"):
        for config in plans[name].steps["compiled"]:
            assert Limit.COMPILED_STEP not in CATALOGUE[config["optimizer"]["name"]].limits


def test_what_pytest_benchmark_times_is_what_the_night_times(plans: Mapping[str, Plan]) -> None:
    assert suite.find("bench").steps == suite.find("nightly").steps
    assert not plans["bench"].trials


def test_what_pull_requests_are_held_to_is_a_part_of_what_nights_are(plans: Mapping[str, Plan]) -> None:
    quick, nightly = plans["quick"], plans["nightly"]
    assert set(quick.asked) <= set(nightly.asked)


def test_the_page_gives_the_numbers_of_the_rules_and_the_minutes_of_the_suites() -> None:
    page = (ROOT / "docs/nightly.md").read_text()
    words = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}
    for number in (f"{rounds.MAX_RATIO:.2f}", f"{rounds.SUSPICIOUS:.2f}", f"{losses.MIN_EFFECT:.2f}"):
        assert number in page
    assert f"{100 * (losses.MIN_EFFECT - 1):.0f} % and half" in page
    assert losses.MIN_SHARE_OF_SPREAD == 0.5
    assert f"{words[rounds.MAX_ROUNDS]} rounds without an answer" in page
    assert f"at least {words[rounds.NUM_ROUNDS]} rounds that count say" in page
    for name in NAMES:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        minutes = suite.find(name).minutes
        assert minutes is None or row.split("|")[3].strip() == f"{minutes:g}"


TINY = """\
# Two steps, one of them with a refresh. Run: optbench regress suite=tiny --config-dir FOLDER
name: tiny
title: Two steps
cost: {minutes: null, machine: any}
benchmarks: tests/benchmarks/test_step.py
steps:
  plain: [task=digits_mlp, "optimizer=sgd,sophia,lion", hardware=cpu]
time: {num_pairs: 3, seconds: 0.05}
"""


def test_a_process_of_pytest_times_the_steps_that_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / SUITE).mkdir()
    (tmp_path / SUITE / "tiny.yaml").write_text(TINY)
    only = ["sgd", "sophia", "none"]
    file = ROOT / "tests/benchmarks/test_step.py"
    found, environment, failures = benchmarks.samples(
        Side(name="here"), suite="tiny", file=file, only=only, configs=tmp_path
    )
    assert set(found) == {"sgd", "sophia"}
    assert list(failures) == ["none"]
    for one in found.values():
        assert 0.0 < one.best <= one.p10 <= one.median < 1.0
        assert 0.0 < one.kernel_best <= one.kernel_p10 <= one.kernel_median < 1.0
        assert one.num_steps >= 5
    assert found["sophia"].num_steps % CATALOGUE["sophia"].config["update_period"] == 0
    assert environment["device_type"] == "cpu"


@pytest.mark.parametrize("variable", [benchmarks.SUITE_VARIABLE, benchmarks.ONLY_VARIABLE, benchmarks.FOLDER_VARIABLE])
def test_the_benchmarks_hear_what_the_gate_says(variable: str) -> None:
    assert f'os.environ.get("{variable}")' in (ROOT / "tests/benchmarks/test_step.py").read_text()
