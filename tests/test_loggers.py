"""Tracking: what a logger hears, and what it sends."""

import sys
from pathlib import Path

import pytest

from optbench.control import Control
from optbench.errors import UsageError
from optbench.execution import Event, Finished, Job, Message
from optbench.executors.attempt import attempt
from optbench.loggers import NullLogger, WandbLogger
from optbench.measurement import Measurement, Status
from optbench.store import Store
from optbench.trial import Trial
from tests.conftest import MakeTrial
from tests.handmade import context

QUICK = ["task=quadratic", "budget.num_steps=20", "evaluation.every_num_steps=10"]


FAILURES: list[str] = []


class Recorder:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def start(self, trial: Trial, *, sweep: str) -> None:
        self.heard.append(f"start {trial.seed} in {sweep}")

    def log(self, measurement: Measurement) -> None:
        self.heard.append(f"step {measurement.step}")

    def finish(self, summary: object, *, succeeded: bool) -> None:
        assert summary
        self.heard.append(f"finish {succeeded}")


def run(trials: list[Trial], logger: NullLogger | WandbLogger | Recorder, results: Path) -> list[Status]:
    events: list[Event] = []
    for trial in trials:
        attempt(
            Job(trial=trial),
            context=context(results),
            store=Store(results, "default"),
            logger=logger,
            control=Control(),
            report=events.append,
        )
    FAILURES.extend(event.text for event in events if isinstance(event, Message))
    return [event.status for event in events if isinstance(event, Finished)]


def test_a_logger_hears_of_every_trial_in_order(make_trial: MakeTrial, tmp_path: Path) -> None:
    recorder = Recorder()
    trials = [
        make_trial(*QUICK, "seed=0"),
        make_trial(*QUICK, "optimizer=sgd", "optimizer.lr=10.0", "seed=1"),
    ]
    assert run(trials, recorder, tmp_path) == [Status.COMPLETED, Status.DIVERGED]
    assert recorder.heard[:5] == ["start 0 in default", "step 0", "step 10", "step 20", "finish True"]
    assert recorder.heard[-1] == "finish False"


def test_wandb_writes_a_run_for_each_trial_offline(
    make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", "canary" * 6 + "0000")
    monkeypatch.setenv("HTTPS_PROXY", "http://someone:canary@127.0.0.1:9")
    monkeypatch.setattr(sys, "argv", ["optbench", "sweep", "optimizer.note=canary"])
    logger = WandbLogger(project="optbench", entity=None, mode="offline")
    assert run([make_trial(*QUICK, "seed=0"), make_trial(*QUICK, "seed=1")], logger, tmp_path) == [Status.COMPLETED] * 2
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"test_loss" in written
    assert b"canary" not in written


class Broken(Recorder):
    """Loses its connection at the second measurement of a trial."""

    def log(self, measurement: Measurement) -> None:
        super().log(measurement)
        if measurement.step == 10:
            raise ConnectionError("no route to host")


def test_a_logger_that_fails_costs_the_tracking_and_not_the_trial(make_trial: MakeTrial, tmp_path: Path) -> None:
    FAILURES.clear()
    broken = Broken()
    trials = [make_trial(*QUICK, "seed=0"), make_trial(*QUICK, "seed=1")]
    assert run(trials, broken, tmp_path) == [Status.COMPLETED] * 2
    assert [text.rpartition(" it: ")[2] for text in FAILURES] == ["ConnectionError: no route to host"] * 2
    assert broken.heard == [f"{line}" for seed in (0, 1) for line in (f"start {seed} in default", "step 0", "step 10")]


def test_a_mode_that_wandb_lacks_is_a_mistake() -> None:
    with pytest.raises(UsageError, match=r"unknown mode 'offlin' .*Did you mean 'offline'"):
        WandbLogger(project="optbench", entity=None, mode="offlin")
