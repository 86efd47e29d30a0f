"""The gate from end to end: runs of a small suite, some of them with faults, each of which has to be caught."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest
from filelock import FileLock

from optbench.cli import main
from optbench.composing import composing
from optbench.errors import UsageError
from optbench.regress import baselines, measuring, suite
from optbench.regress import readings as reading
from optbench.regress.gate import Asked, regress
from optbench.regress.measuring import Found, Measuring
from optbench.regress.readings import Final
from optbench.regress.sides import Side
from tests.nights import ENVIRONMENT
from tests.tracked import runs

FAULTS = Path(__file__).parent / "faults"
# What each fault breaks, and nothing else: a run with all of them says which it has found.
MINI = """\
# A suite for tests.
name: mini
title: A few optimizers, each for one fault
cost: {minutes: null, machine: any}
trials:
  digits:
    - task=digits_mlp
    - optimizer=adam,sgd,lion
    - seed=range(3)
    - budget.num_steps=60
    - hardware=cpu
  bowl: [task=quadratic, optimizer=adagrad, "seed=range(2)", budget.num_steps=20, hardware=cpu]
steps:
  plain: [task=digits_mlp, "optimizer=adagrad,radam,lion", hardware=cpu]
  foreach: [task=digits_mlp, optimizer=radam, hardware.implementation=foreach, hardware=cpu]
"""
CAUGHT = {
    "state bytes of adagrad": "extra_clone",
    "dispatched operations of radam foreach": "no_foreach",
    "final loss of digits adam": "wrong_bias_correction",
    "final loss of digits sgd": "diverging_seed",
    "final loss of bowl adagrad": "nan_metric",
}
Run = Callable[..., int]


@contextmanager
def gate(configs: Path) -> Iterator[Run]:
    """What runs the mini suite, with or without faults."""
    with composing(configs) as composer:
        found = suite.find("mini", configs)
        plan = measuring.compose(found, lambda lines: composer.configs(lines, one_trial=False), folder=configs)

        def run(results: Path, *faults: str, against: str | None = None) -> int:
            variables = {"PYTHONPATH": str(FAULTS), "OPTBENCH_FAULTS": ",".join(faults)} if faults else {}
            here = Side(name="this side", variables=variables)
            return regress(Asked(plan=plan, results=results, against=against, allows_unknown=False, here=here))

        yield run


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    (folder / "nightly").mkdir()
    (folder / "nightly" / "mini.yaml").write_text(MINI)
    return folder


@pytest.fixture(scope="module")
def accepted(configs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with an accepted baseline."""
    results = tmp_path_factory.mktemp("accepted")
    with gate(configs) as run:
        assert run(results) == 12, "the first run has nothing that it could be held against"
    accept(results, "--reason", "the first one")
    return results


@pytest.fixture
def results(accepted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(accepted, tmp_path / "results"))


def accept(results: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["baseline", "accept", "suite=mini", f"results={results}", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def record(results: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((results / "regress" / "mini" / "regression.json").read_text())
    return found


def answers(results: Path) -> dict[str, str]:
    return {finding["name"]: finding["answer"] for finding in record(results)["findings"]}


def baseline(results: Path) -> Path:
    return baselines.path(results, "mini", baselines.this_machine().fingerprint)


def test_a_first_run_has_no_baseline_and_can_become_one(accepted: Path) -> None:
    found = record(accepted)
    assert found["against"]["state"] == "missing"
    assert set(answers(accepted).values()) == {"new"}
    kept = json.loads(baseline(accepted).read_text())
    assert kept["readings"] == found["readings"]
    assert [entry["reason"] for entry in kept["accepted"]] == ["the first one"]


def test_the_same_code_passes_to_the_last_bit_and_every_fault_is_caught(
    results: Path, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job_summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(job_summary))
    with gate(configs) as run:
        assert run(results) == 0
        assert set(answers(results).values()) == {"pass"}
        assert "final loss bits of digits adam" in answers(results)
        assert "No regression: none of" in capsys.readouterr().out

        assert run(results, *CAUGHT.values()) == 10
    found = answers(results)
    assert {name for name, answer in found.items() if answer == "fail"} >= CAUGHT.keys()
    others = {
        name: answer for name, answer in found.items() if not any(word in name for word in ("ada", "radam", "sgd"))
    }
    assert set(others.values()) == {"pass"}, "what no fault has touched passes"

    printed = capsys.readouterr().out
    assert "Regression: " in printed
    assert "diverged, and did not before, with seed 1" in printed
    folder = results / "regress" / "mini"
    cases = ElementTree.parse(folder / "junit.xml").getroot().iter("testcase")
    failed = {case.get("name") for case in cases if case.find("failure") is not None}
    assert failed == {name for name, answer in found.items() if answer == "fail"}
    assert "dispatched operations of radam foreach" in job_summary.read_text().lower()
    assert len(list((folder / "runs").glob("*.json"))) == 3
    assert "radam foreach" in (folder / "regression.html").read_text()


def test_a_process_that_is_killed_is_no_pass(
    results: Path, configs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with gate(configs) as run:
        monkeypatch.setattr(Measuring, "finals", lambda *_, **__: Found(failures={"digits adam": "killed"}))
        assert run(results, "dies") == 11
    found = answers(results)
    assert found["final loss of digits adam"] == "broken"
    assert found["state bytes of adagrad"] == "broken"
    assert "could not be measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage", ["a byte", "half of it", "all of it", "another machine", "another suite", "another instrument", "missing"]
)
def test_a_baseline_that_is_not_what_was_accepted_is_no_pass(
    damage: str, results: Path, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Measuring, "finals", lambda *_, **__: Found())
    monkeypatch.setattr(Measuring, "exact", lambda *_, **__: Found(found={"adagrad": {"state_bytes": 731548}}))
    file = baseline(results)
    content = file.read_text()
    match damage:
        case "a byte":
            file.write_text(content.replace("731548", "731549", 1))
        case "half of it":
            file.write_text(content[: len(content) // 2])
        case "all of it":
            file.write_text("")
        case "another machine":
            monkeypatch.setattr("optbench.machine.cpu_name", lambda: "Abacus 3")
            other = baseline(results)
            other.parent.mkdir()
            file.rename(other)
        case "another suite":
            other = file.with_name("mini2.json")
            file.rename(other)
            assert baselines.find(results, "mini2")[1].state == "other suite"
        case "another instrument":
            monkeypatch.setattr(reading, "VERSION", reading.VERSION + 1)
        case "missing":
            file.unlink()
    with gate(configs) as run:
        assert run(results) == 12
    against = record(results)["against"]
    states = {"missing": "missing", "another machine": "other machine", "another suite": "missing"}
    assert against["state"] == states.get(damage, "corrupt")
    assert "optbench baseline accept suite=mini --reason" in against["note"]


def test_what_has_no_figure_is_left_out_of_a_baseline_with_a_warning(
    results: Path, configs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {"digits adam": {"0": Final(status="crashed", loss=None)}}
    monkeypatch.setattr(Measuring, "finals", lambda *_, **__: Found(found=failed))
    monkeypatch.setattr(Measuring, "exact", lambda *_, **__: Found(found={"adagrad": {"state_bytes": 731548}}))
    with gate(configs) as run:
        assert run(results) == 11
        assert accept(results, "--reason", "for the test") == 0
        said = capsys.readouterr().err
        assert "left out" in said
        assert "final loss of digits adam" in said
        monkeypatch.undo()
        assert run(results) == 12, "what the baseline lacks is held against nothing"
    assert answers(results)["final loss of digits adam"] == "uncompared"
    assert answers(results)["state bytes of adagrad"] == "pass"


def test_one_run_of_a_suite_at_a_time(results: Path, configs: Path) -> None:
    before = (results / "regress" / "mini" / "regression.json").read_bytes()
    mistake = pytest.raises(UsageError, match="another run of mini is under way here")
    with FileLock(results / "regress" / "mini" / ".lock"), gate(configs) as run, mistake:
        run(results)
    assert (results / "regress" / "mini" / "regression.json").read_bytes() == before


def test_no_record_names_the_host(accepted: Path) -> None:
    written = [path.read_text() for path in accepted.glob("**/*") if path.suffix in (".json", ".xml", ".html", ".md")]
    of_nights = [text for text in written if '"readings"' in text]
    assert len(of_nights) == 3, "the last night, the same among the runs, the baseline"
    assert not any('"host"' in text for text in of_nights)


def test_sigterm_ends_the_sweep_that_it_waits_for(tmp_path: Path, configs: Path) -> None:
    command = [sys.executable, "-m", "optbench", "regress", "suite=mini", "--config-dir", str(configs)]
    with subprocess.Popen([*command, f"results={tmp_path}"], stderr=subprocess.DEVNULL) as process:
        started = tmp_path / "regress" / "mini" / "work" / "here" / "digits" / "trials"
        deadline = time.monotonic() + 120.0
        while not list(started.glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.1)
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        assert process.wait(timeout=60.0) == 143
    assert children
    _, left = psutil.wait_procs(children, timeout=30.0)
    assert not left


def test_a_baseline_is_accepted_with_a_reason_alone(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = baseline(results).read_bytes()
    assert accept(results) == 2
    assert accept(results, "--reason", "  ") == 2
    assert "say why this one is right" in capsys.readouterr().err
    assert baseline(results).read_bytes() == before
    assert accept(results, "--reason", "torch 2.14") == 0
    reasons = [entry["reason"] for entry in json.loads(baseline(results).read_text())["accepted"]]
    assert reasons == ["the first one", "torch 2.14"]


def test_a_run_that_is_not_there_cannot_be_accepted(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = record(results)["started"]
    assert accept(results, "--reason", "why", "--run", "2001-01-01T00:00:00Z") == 2
    assert f"There are: {started}" in capsys.readouterr().err
    assert accept(results, "--reason", "why", "--run", started) == 0
    shutil.rmtree(results / "regress")
    assert accept(results, "--reason", "why") == 2
    assert "First: optbench regress suite=mini" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["suite=nightli"], "Did you mean 'nightly'"),
        (["suit=quick"], "Did you mean 'suite'"),
        (["optimizer=adamw"], "What a suite measures stands in its file"),
        (["--against", "no-such-branch"], "git knows no such commit"),
        (["--against", "nowhere.whl"], "there is no such file"),
        (["logger=wanb"], "Did you mean 'wandb'"),
        (["--config-dir", "/nowhere"], "there is no such folder"),
        (["suite=gpu"], "needs a CUDA GPU"),
    ],
)
def test_a_mistake_is_said_before_anything_is_measured(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("optbench.executors.devices.gpus", list)
    with pytest.raises(SystemExit) as ended:
        main(["regress", *words])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not os.listdir(tmp_path)  # noqa: PTH208


def test_nights_are_a_history_in_wandb(
    results: Path, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[Any] = []

    def finals(self: Measuring, *_: Any, **__: Any) -> Found[Any]:
        asked.append(self.tracked)
        seeds = {str(seed): Final(status="completed", loss=0.5) for seed in range(3)}
        return Found(found={"digits adam": seeds}, environment=ENVIRONMENT)

    monkeypatch.setattr(Measuring, "finals", finals)
    monkeypatch.setattr(Measuring, "exact", lambda *_, **__: Found(found={"adagrad": {"state_bytes": 731549}}))
    words = ["suite=mini", f"results={results}", "--config-dir", str(configs), "logger=wandb", "logger.mode=offline"]
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main(["regress", *words])
        assert ended.value.code == 10, "a byte more"
    nights = runs(tmp_path)
    assert [night.run.job_type for night in nights] == ["nightly"] * 2
    assert [night.run.run_group for night in nights] == ["mini"] * 2
    assert [night.exit_code for night in nights] == [1] * 2
    assert nights[0].summary["exact/state bytes of adagrad"] == 731549
    assert nights[0].summary["loss/final loss of digits adam"] == 0.5
    assert nights[0].summary["count/fail"] == 1
    assert {entry.path for one in nights[0].artifacts for entry in one.manifest.contents} >= {
        "regression.html",
        "regression.json",
        "junit.xml",
    }
    assert asked == [["logger=wandb", "logger.mode=offline"]] * 2, "its trials are tracked, too"
