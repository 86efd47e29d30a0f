"""Tracking: what a logger hears, what it writes, and that its failures cost no trial."""

import gc
import math
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml

from optbench.checks import build_logger, check_all
from optbench.cli import main
from optbench.component import Component
from optbench.control import Control
from optbench.errors import UsageError
from optbench.execution import Event, Finished, Job, Message
from optbench.executors.attempt import attempt
from optbench.loggers import CsvLogger, Logger, TensorBoardLogger, Tolerant, WandbLogger, tolerant
from optbench.loggers.logger import plain_name
from optbench.measurement import Measurement, Result, Status
from optbench.patience import within
from optbench.store import Store
from optbench.tracking import Publication, build, publish
from optbench.trial import Trial
from tests import reports
from tests.conftest import MakeTrial
from tests.handmade import context
from tests.test_security import CANARIES, leaks
from tests.tracked import Run, runs

ROOT = Path(__file__).parent.parent
QUICK = ["task=quadratic", "budget.num_steps=20", "evaluation.every_num_steps=10"]
DIVERGING = [*QUICK, "optimizer=sgd", "optimizer.lr=10.0"]

FAILURES: list[str] = []


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder and a home of one's own, and no settings of wandb's from outside."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    FAILURES.clear()
    yield folder
    if wandb := sys.modules.get("wandb"):
        wandb.teardown()  # it remembers the working folder and the environment
    while SERVICES:
        SERVICES.pop().wait(10)


class Recorder:
    """Writes down what it hears."""

    remark = "It is written down."

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.environments: list[Mapping[str, Any]] = []

    def start(self, trial: Trial, *, folder: Path, environment: Mapping[str, Any]) -> None:
        self.heard.append(f"start {trial.seed} in {folder.name}")
        self.environments.append(environment)

    def log(self, measurement: Measurement) -> None:
        self.heard.append(f"step {measurement.step}")

    def finish(self, result: Result) -> None:
        assert result.summary
        self.heard.append(f"finish {result.status}")

    def abandon(self) -> None:
        self.heard.append("abandon")

    def publish(self, publication: Publication) -> None:
        self.heard.append(f"publish {publication.name}")


def run(trials: list[Trial], logger: Logger, results: Path) -> list[Status]:
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
    assert len(list(results.glob("default/trials/*.json"))) == len(trials)
    return [event.status for event in events if isinstance(event, Finished)]


def reasons() -> list[str]:
    return [text.rpartition(" it: ")[2] for text in FAILURES]


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- What a logger hears -------------------------------------------------------------------------------------------


def test_a_logger_hears_of_every_trial_in_order(make_trial: MakeTrial, tmp_path: Path) -> None:
    recorder = Recorder()
    trials = [make_trial(*QUICK, "seed=0"), make_trial(*DIVERGING, "seed=1")]
    assert run(trials, recorder, tmp_path) == [Status.COMPLETED, Status.DIVERGED]
    assert recorder.heard[:5] == ["start 0 in default", "step 0", "step 10", "step 20", "finish completed"]
    assert recorder.heard[-1] == "finish diverged"
    assert {"packages", "commit", "device", "num_threads"} <= recorder.environments[0].keys()


class Broken(Recorder):
    """Loses its connection at the second measurement of a trial."""

    def log(self, measurement: Measurement) -> None:
        super().log(measurement)
        if measurement.step == 10:
            raise ConnectionError("no route to host")


def test_a_logger_that_fails_costs_the_tracking_and_not_the_trial(make_trial: MakeTrial, tmp_path: Path) -> None:
    broken = Broken()
    trials = [make_trial(*QUICK, "seed=0"), make_trial(*QUICK, "seed=1")]
    assert run(trials, broken, tmp_path) == [Status.COMPLETED] * 2
    assert reasons() == ["ConnectionError: no route to host"] * 2
    assert broken.heard == [
        f"{line}" for seed in (0, 1) for line in (f"start {seed} in default", "step 0", "step 10", "abandon")
    ]


class Hanging(Recorder):
    """Waits for ever in one of its methods."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    def _hang(self, where: str) -> None:
        if where == self._where:
            time.sleep(60.0)

    def start(self, trial: Trial, *, folder: Path, environment: Mapping[str, Any]) -> None:
        self._hang("start")

    def log(self, measurement: Measurement) -> None:
        self._hang("log")

    def finish(self, result: Result) -> None:
        self._hang("finish")

    def abandon(self) -> None:
        self._hang("finish")  # what does not end may not let itself be left either


@pytest.mark.parametrize("where", ["start", "log", "finish"])
def test_a_logger_that_hangs_costs_its_time_limit_and_no_more(
    where: str, make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("START_SECONDS", "LOG_SECONDS", "FINISH_SECONDS", "ABANDON_SECONDS"):
        monkeypatch.setattr(tolerant, name, 0.2)
    assert run([make_trial(*QUICK, "seed=0")], Hanging(where), tmp_path) == [Status.COMPLETED]
    assert reasons() == ["TimeoutError: no answer for 0.2 seconds"]


def test_a_mistake_in_the_start_is_raised_and_later_ones_are_not(make_trial: MakeTrial, tmp_path: Path) -> None:
    class Mistaken(Recorder):
        def start(self, trial: Trial, *, folder: Path, environment: Mapping[str, Any]) -> None:
            raise UsageError("no key")

    trial = make_trial(*QUICK)
    with pytest.raises(UsageError, match="no key"):
        Tolerant(Mistaken(), on_failure=FAILURES.append).start(trial, folder=tmp_path, environment={})
    Tolerant(Mistaken(), on_failure=FAILURES.append, passes_mistakes=False).start(
        trial, folder=tmp_path, environment={}
    )
    assert FAILURES == ["UsageError: no key"]


def test_waiting_gives_what_the_call_gives_or_raises() -> None:
    assert within(5.0, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(5.0, lambda: 1 // 0)
    with pytest.raises(TimeoutError, match=r"0\.1 seconds"):
        within(0.1, lambda: time.sleep(5.0))


def test_what_people_should_know_of_a_logger_is_noted_before_the_trials(
    make_trial: MakeTrial, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    offline = Component(name="wandb", target="optbench.loggers.WandbLogger", arguments={"mode": "offline"})
    with caplog.at_level("INFO", logger="optbench"):
        check_all([make_trial(*QUICK)], replace(context(tmp_path), logger=offline))
    assert [record.message for record in caplog.records] == [
        "Weights & Biases is offline: runs are written below wandb. To send them later: wandb sync wandb/offline-run-*"
    ]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("quadratic adamw lr=0.001 seed 0", "quadratic_adamw_lr=0.001_seed_0"),
        ("../../evil", "evil"),
        ("/tmp/evil", "tmp_evil"),
        ("..", "unnamed"),
        ("a\nb\\c", "a_b_c"),
        ("x" * 500, "x" * 120),
    ],
)
def test_a_title_becomes_a_name_that_is_part_of_no_path(text: str, name: str) -> None:
    assert plain_name(text) == name


# --- Weights & Biases ----------------------------------------------------------------------------------------------


def test_wandb_has_curves_config_environment_figures_and_status_of_each_trial(
    make_trial: MakeTrial, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["optbench", "sweep", "optimizer.note=canary7"])
    trials = [make_trial(*QUICK, "seed=0"), make_trial(*DIVERGING, "seed=1")]
    logger = WandbLogger(mode="offline", tags=["mine"], notes="a note")
    assert run(trials, logger, tmp_path) == [Status.COMPLETED, Status.DIVERGED]
    completed, diverged = runs(work)

    stored = Store(tmp_path, "default").read(trials[0].id)
    assert stored is not None
    assert [row["step"] for row in completed.history] == [row["_step"] for row in completed.history] == [0, 10, 20]
    for name in ("test_loss", "seconds", "gradient_evaluations", "lr"):
        assert [row[name] for row in completed.history] == pytest.approx(stored["curve"][name])
    assert completed.metrics["*"].step_metric == "step"
    for name in ("test_loss", "train_loss"):
        assert completed.metrics[name].step_metric == "step"
        assert completed.metrics[name].summary.min
    assert completed.summary["test_loss"]["min"] == min(stored["curve"]["test_loss"])

    assert completed.summary["final"] == stored["summary"]
    assert completed.summary["timing"] == stored["timing"]
    assert completed.summary["status"] == "completed"
    assert completed.exit_code == 0
    assert completed.config["trial_id"] == trials[0].id
    assert completed.config["optimizer"]["lr"] == 0.001
    environment = {key: value for key, value in stored["environment"].items() if key != "host"}
    assert completed.config["environment"] == environment
    assert (completed.run.run_group, completed.run.job_type) == ("default", "quadratic")
    assert (completed.run.project, completed.run.notes) == ("optbench", "a note")
    assert list(completed.run.tags) == ["mine", "quadratic", "adamw", "completed"]

    assert diverged.exit_code == 1
    assert diverged.summary["status"] == "diverged"
    assert diverged.summary["final"]["test_loss"] is None
    assert diverged.summary["final"]["diverged_at_step"] == diverged.history[-1]["step"]
    assert all(math.isfinite(value) for row in diverged.history for value in row.values())
    assert list(diverged.run.tags) == ["mine", "quadratic", "sgd", "diverged"]


def test_wandb_writes_no_secret_no_code_no_command_line_no_console_and_no_machine(
    make_trial: MakeTrial,
    tmp_path: Path,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["optbench", "sweep", "optimizer.note=canary7"])
    monkeypatch.setattr(platform, "node", lambda: "canary8")

    class Talking(WandbLogger):
        def log(self, measurement: Measurement) -> None:
            super().log(measurement)
            print("canary9")

    run([make_trial(*QUICK)], Talking(mode="offline"), tmp_path)
    assert "canary9" in capsys.readouterr().out
    assert leaks(work) == []
    assert leaks(tmp_path / "home") == []
    names = {Path(name).name for name in written(work)}
    assert {name for name in names if not name.startswith("debug") and not name.endswith(".wandb")} == set()
    (found,) = runs(work)
    assert found.kinds == {"header", "run", "telemetry", "metric", "history", "summary", "exit"}
    assert found.run.host == ""
    assert not found.run.HasField("git")


def test_a_traceback_stays_here_since_it_quotes_source_code(make_trial: MakeTrial, tmp_path: Path, work: Path) -> None:
    logger = WandbLogger(mode="offline")
    logger.start(make_trial(*QUICK), folder=tmp_path / "default", environment={})
    logger.finish(reports.ended(Status.CRASHED, seed=0, reason="ValueError: x", traceback="File a.py, line 3"))
    (found,) = runs(work)
    assert found.summary["final"]["reason"] == "ValueError: x"
    assert "traceback" not in found.summary["final"]
    assert found.exit_code == 1


@pytest.mark.parametrize(("status", "code"), [(Status.PRUNED, 0), (Status.OUT_OF_MEMORY, 1)])
def test_only_a_trial_that_has_failed_is_a_failed_run(
    status: Status, code: int, make_trial: MakeTrial, tmp_path: Path, work: Path
) -> None:
    logger = WandbLogger(mode="offline")
    logger.start(make_trial(*QUICK), folder=tmp_path / "default", environment={})
    logger.finish(reports.ended(status, seed=0))
    (found,) = runs(work)
    assert (found.exit_code, found.summary["status"]) == (code, status)


def test_wandb_takes_mode_project_entity_and_folder_from_the_environment(
    make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MODE": "offline", "PROJECT": "lab", "ENTITY": "people", "DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    logger = WandbLogger()
    assert f"wandb sync {tmp_path}/wandb/offline-run-*" in logger.remark
    assert run([make_trial(*QUICK)], logger, tmp_path / "results") == [Status.COMPLETED]
    (found,) = runs(tmp_path)
    assert (found.run.project, found.run.entity) == ("lab", "people")


def test_what_the_config_says_counts_more_than_the_environment(
    make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MODE": "online", "PROJECT": "lab", "DIR": "/nowhere"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    logger = WandbLogger(mode="offline", project="mine", dir=str(tmp_path))
    assert run([make_trial(*QUICK)], logger, tmp_path / "results") == [Status.COMPLETED]
    assert [found.run.project for found in runs(tmp_path)] == ["mine"]


@pytest.mark.parametrize("by", ["config", "environment"])
def test_disabled_writes_nothing(
    by: str, make_trial: MakeTrial, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "environment":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = WandbLogger(mode="disabled" if by == "config" else None)
    assert run([make_trial(*QUICK)], logger, tmp_path) == [Status.COMPLETED]
    assert FAILURES == []
    assert logger.remark == ""
    assert written(work) == set()


def test_a_mode_that_wandb_lacks_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"unknown mode 'offlin' .*Did you mean 'offline'"):
        WandbLogger(mode="offlin")
    monkeypatch.setenv("WANDB_MODE", "disable")
    with pytest.raises(UsageError, match=r"unknown mode 'disable' in WANDB_MODE .*Did you mean 'disabled'"):
        WandbLogger()
    with pytest.raises(UsageError, match=r"logger\.tags=\[mine\]"):
        WandbLogger(mode="offline", tags="mine")


def test_without_a_key_a_trial_does_not_start_and_the_message_says_what_to_do(
    make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match=r"(?s)cannot start: .*wandb login.*logger\.mode=offline"):
        WandbLogger(mode="online").start(make_trial(*QUICK), folder=tmp_path, environment={})


SERVICES: list["subprocess.Popen[bytes]"] = []


def signal_service(number: int) -> None:
    """Send a signal to wandb's process; what Python has of it is kept, since wandb forgets those that it has lost."""
    (service,) = [child for child in psutil.Process().children() if child.name() == "wandb-core"]
    opened = (each for each in gc.get_objects() if type(each) is subprocess.Popen)
    SERVICES.extend(each for each in opened if each.pid == service.pid)
    service.send_signal(number)
    if number == signal.SIGKILL:
        SERVICES[-1].wait(10)


class Struck(WandbLogger):
    """A real run, whose service gets a signal in the middle of the first trial."""

    def __init__(self, number: int) -> None:
        super().__init__(mode="offline")
        self._number: int | None = number

    def log(self, measurement: Measurement) -> None:
        if measurement.step == 10 and self._number is not None:
            signal_service(self._number)
            self._number = None
        super().log(measurement)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hanging"])
def test_a_crash_of_wandb_never_harms_a_trial(
    number: int, make_trial: MakeTrial, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tolerant, "FINISH_SECONDS", 2.0)  # one that hangs would be waited for longer
    began = time.monotonic()
    trials = [make_trial(*QUICK, f"seed={seed}") for seed in (0, 1)]
    assert run(trials, Struck(number), tmp_path) == [Status.COMPLETED] * 2
    assert time.monotonic() - began < 30.0
    expected = "ConnectionResetError" if number == signal.SIGKILL else "TimeoutError: no answer for 2 seconds"
    (told,) = reasons()
    assert told.startswith(expected)
    lost, whole = runs(work)  # the next trial has a service of its own
    assert lost.exit_code is None
    assert (whole.exit_code, whole.summary["status"]) == (0, "completed")


def test_a_finish_of_wandb_that_raises_costs_nothing_that_is_stored(
    make_trial: MakeTrial, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def fail(*_: object, **__: object) -> None:
        raise TimeoutError("Timed out finishing run.")

    with monkeypatch.context() as patched:
        patched.setattr(wandb.Run, "finish", fail)
        assert run([make_trial(*QUICK)], WandbLogger(mode="offline"), tmp_path) == [Status.COMPLETED]
    assert reasons() == ["TimeoutError: Timed out finishing run."]
    (found,) = runs(work)  # all but the end is on the disk
    assert [row["step"] for row in found.history] == [0, 10, 20]


# --- TensorBoard ---------------------------------------------------------------------------------------------------


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def test_tensorboard_has_a_scalar_by_step_for_each_metric_and_the_hyperparameters(
    make_trial: MakeTrial, tmp_path: Path
) -> None:
    trials = [make_trial(*QUICK, "seed=0"), make_trial(*DIVERGING, "seed=1")]
    assert run(trials, TensorBoardLogger(), tmp_path) == [Status.COMPLETED, Status.DIVERGED]
    assert FAILURES == []
    folder = tmp_path / "default/tensorboard"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"quadratic_adamw_lr=0.001_seed_0-{trials[0].id}",
        f"quadratic_sgd_lr=10_seed_1-{trials[1].id}",
    ]
    found = events(folder / f"quadratic_adamw_lr=0.001_seed_0-{trials[0].id}")
    stored = Store(tmp_path, "default").read(trials[0].id)
    assert stored is not None
    for name in ("test_loss", "seconds", "lr", "gradient_evaluations"):
        assert [point.step for point in found.Scalars(name)] == [0, 10, 20]
        assert [point.value for point in found.Scalars(name)] == pytest.approx(stored["curve"][name])
    assert [point.step for point in found.Scalars("train_loss")] == [10, 20]
    assert found.Scalars("final/test_loss")[0].value == pytest.approx(stored["summary"]["test_loss"])
    assert abs(found.Scalars("test_loss")[0].wall_time - time.time()) < 600.0
    data = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"optimizer.lr" in data
    assert b"convention" not in data
    assert found.Tensors("status/text_summary")[0].tensor_proto.string_val == [b"completed"]
    diverged = events(folder / f"quadratic_sgd_lr=10_seed_1-{trials[1].id}")
    assert diverged.Tensors("status/text_summary")[0].tensor_proto.string_val == [b"diverged"]


def measured(step: int, **metrics: float) -> Measurement:
    return Measurement(step=step, seconds=step / 10, lr=0.1, gradient_evaluations=step, metrics=metrics)


@pytest.mark.parametrize("make", [TensorBoardLogger, CsvLogger])
def test_a_trial_that_goes_on_has_one_curve_and_one_that_is_made_again_a_new_one(
    make: type[TensorBoardLogger] | type[CsvLogger], make_trial: MakeTrial, tmp_path: Path
) -> None:
    def steps() -> list[int]:
        if make is CsvLogger:
            return pd.read_csv(tmp_path / "csv" / trial.id / "metrics.csv")["step"].tolist()
        (folder,) = (tmp_path / "tensorboard").iterdir()
        return [point.step for point in events(folder).Scalars("test_loss")]

    def track(*measurements: Measurement) -> None:
        logger = make()
        logger.start(trial, folder=tmp_path, environment={})
        for measurement in measurements:
            logger.log(measurement)
        time.sleep(1.1)  # event files are told apart by the second

    trial = make_trial(*QUICK)
    track(*(measured(step, test_loss=1.0) for step in (0, 10, 20)))  # and is stopped
    track(*(measured(step, test_loss=1.0) for step in (20, 30)))
    assert steps() == [0, 10, 20, 30]
    track(measured(0, test_loss=1.0))
    assert steps() == [0]


def test_a_trial_that_fails_before_it_can_measure_has_a_status_in_tensorboard(
    make_trial: MakeTrial, tmp_path: Path
) -> None:
    logger = TensorBoardLogger()
    logger.start(make_trial(*QUICK), folder=tmp_path, environment={})
    logger.finish(reports.ended(Status.CRASHED, seed=0, reason="ValueError: x"))
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert events(folder).Tensors("status/text_summary")[0].tensor_proto.string_val == [b"crashed"]


def test_without_tensorboard_the_extra_is_named_before_anything_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    part = Component(name="tensorboard", target="optbench.loggers.TensorBoardLogger", arguments={})
    with pytest.raises(UsageError, match=r"pip install 'optbench\[tensorboard\]'"):
        build_logger(replace(context(tmp_path), logger=part))


# --- CSV -----------------------------------------------------------------------------------------------------------


def test_csv_has_a_row_for_each_measurement_and_the_config_beside_it(make_trial: MakeTrial, tmp_path: Path) -> None:
    trials = [make_trial(*QUICK, "seed=0"), make_trial(*DIVERGING, "seed=1")]
    assert run(trials, CsvLogger(), tmp_path) == [Status.COMPLETED, Status.DIVERGED]
    assert FAILURES == []
    for trial in trials:
        stored = Store(tmp_path, "default").read(trial.id)
        assert stored is not None
        folder = tmp_path / "default/csv" / trial.id
        assert written(folder) == {"metrics.csv", "hparams.yaml", "result.yaml"}
        curve = pd.DataFrame(stored["curve"])
        found = pd.read_csv(folder / "metrics.csv").replace([math.inf, -math.inf], math.nan)
        pd.testing.assert_frame_equal(found[list(curve)], curve, check_dtype=False)
        asked = yaml.safe_load((folder / "hparams.yaml").read_text())
        assert asked["trial_id"] == trial.id
        assert asked["sweep"] == "default"
        assert asked["config"]["optimizer"]["name"] == trial.optimizer.name
        assert asked["environment"]["num_threads"] == 1
        ended = yaml.safe_load((folder / "result.yaml").read_text())
        assert ended["status"] == stored["status"]
        assert ended["summary"] == stored["summary"]


def test_a_column_that_comes_later_is_empty_before_and_no_column_is_a_formula(
    make_trial: MakeTrial, tmp_path: Path
) -> None:
    trial = make_trial(*QUICK)
    logger = CsvLogger()
    logger.start(trial, folder=tmp_path, environment={})
    logger.log(measured(0, a=1.0))
    logger.log(measured(10, a=-2.0, b=math.nan, **{"=1+2": 3.0}))
    logger.log(measured(20, b=4.0))
    text = (tmp_path / "csv" / trial.id / "metrics.csv").read_text()
    assert text.splitlines()[0] == "step,seconds,lr,gradient_evaluations,a,b,'=1+2"
    found = pd.read_csv(tmp_path / "csv" / trial.id / "metrics.csv")
    assert found["a"].fillna(0.0).tolist() == [1.0, -2.0, 0.0]
    assert found["b"].fillna(0.0).tolist() == [0.0, 0.0, 4.0]


def test_no_file_of_a_logger_holds_a_secret_of_the_environment(make_trial: MakeTrial, tmp_path: Path) -> None:
    for logger in (CsvLogger(), TensorBoardLogger()):
        run([make_trial(*QUICK)], logger, tmp_path / type(logger).__name__)
    assert leaks(tmp_path) == []


# --- Through the command -------------------------------------------------------------------------------------------


def command(*arguments: str, folder: Path, code: int = 0) -> str:
    """What a command prints, on both outputs."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "optbench", *arguments]
    done = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_sweeps_are_tracked_by_each_logger_and_reports_too(tmp_path: Path, work: Path) -> None:
    shown = {}
    for name, words in {
        "wandb": ["logger.mode=offline"],
        "tensorboard": ["executor=serial"],
        "csv": ["executor=serial"],
    }.items():
        asked = ["sweep", *QUICK, "seed=0,1", f"logger={name}", f"sweep.name={name}", "cost.seconds=null", *words]
        shown[name] = command(*asked, folder=work)
    assert shown["wandb"].count("wandb sync wandb/offline-run-*") == 1
    assert "wandb" not in shown["csv"]
    found = runs(work)
    assert [(each.run.run_group, each.exit_code, len(each.history)) for each in found] == [("wandb", 0, 3)] * 2
    assert len(list(work.glob("results/tensorboard/tensorboard/*/events.out.*"))) == 2
    assert len(list(work.glob("results/csv/csv/*/metrics.csv"))) == 2

    shown["report"] = command("report", "results", "seed=0,1", "logger=wandb", "logger.mode=offline", folder=work)
    assert "wandb sync" in shown["report"]
    report = runs(work)[-1]
    assert (report.run.job_type, report.exit_code) == ("report", 0)
    assert report.summary["trials"] == 2
    assert {entry.path for entry in artifact_of(report).manifest.contents} >= {
        "report.html",
        "tables/best_quadratic.csv",
    }
    assert leaks(tmp_path) == []


def artifact_of(found: Run) -> Any:
    """The artifact of a publication; each table has one of wandb's own besides."""
    (artifact,) = [each for each in found.artifacts if each.type != "run_table"]
    return artifact


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (["logger=wanb"], r"unknown logger 'wanb'\. Did you mean 'wandb'"),
        (["logger=wandb", "logger.mode=offlin"], r"unknown mode 'offlin'.* Did you mean 'offline'"),
        (["logger=wandb", "logger.moed=offline"], r"unknown key 'logger\.moed'.* Did you mean 'logger\.mode'"),
        (["logger=wandb,csv"], r"one place at a time"),
        (["logger.api_key=x"], r"by its name this key holds a secret"),
    ],
)
def test_a_mistake_in_the_tracking_of_a_report_shows_before_it_is_made(
    words: list[str], pattern: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports.fill(Store(work / "results", "digits"), {}, [0.5, 0.6])
    with pytest.raises(SystemExit) as caught:
        main(["report", *words])
    assert caught.value.code == 2
    assert re.search(pattern, capsys.readouterr().err)
    assert not (work / "results/report").exists()


def test_the_help_of_report_tells_of_tracking(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    assert "logger=wandb" in capsys.readouterr().out


# --- Publications --------------------------------------------------------------------------------------------------


def publication(folder: Path, **changes: Any) -> Publication:
    """A night with a table of a report, and a page."""
    store = Store(folder / "results", "digits")
    reports.fill(store, {}, [0.5, 0.6])
    reports.fill(store, {"optimizer.name": "=lion"}, [0.4, Status.DIVERGED])
    sheets = reports.analysis_of(folder / "results").all_sheets()
    (folder / "page.html").write_text("<html></html>")
    return Publication(
        **{
            "name": "nightly 2026-11-28",
            "kind": "nightly",
            "group": "laptop",
            "config": {"suite": "nightly"},
            "figures": {"slower": 1, "ratio": 1.25, "verdict": "=worse"},
            "sheets": sheets,
            "files": [folder / "page.html"],
            "succeeded": False,
            "folder": folder / "nights",
            "step": 7,
            **changes,
        }
    )


OFFLINE = Component(name="wandb", target="optbench.loggers.WandbLogger", arguments={"mode": "offline"})


def test_a_publication_is_a_run_of_wandb_with_tables_figures_and_an_artifact(tmp_path: Path, work: Path) -> None:
    published = publication(tmp_path)
    publish(published, OFFLINE)
    (found,) = runs(work)
    assert (found.run.display_name, found.run.job_type, found.run.run_group) == (
        "nightly 2026-11-28",
        "nightly",
        "laptop",
    )
    assert found.config["suite"] == "nightly"
    assert found.exit_code == 1
    assert found.summary["ratio"] == 1.25
    assert found.summary["verdict"] == "=worse"
    (row,) = found.history
    assert (row["ratio"], row["_step"]) == (1.25, 7)
    for sheet in published.sheets:
        for kind, table in (("tables", sheet.words), ("numbers", sheet.numbers)):
            logged = found.summary[kind][sheet.name] if kind in found.summary else found.summary[f"{kind}/{sheet.name}"]
            assert (logged["_type"], logged["nrows"], logged["ncols"]) == ("table-file", *table.shape)
            (run_folder,) = work.glob("wandb/offline-run-*/files")
            content = yaml.safe_load((run_folder / logged["path"]).read_text())
            assert content["columns"] == [str(name) for name in table]
            if kind == "tables":
                assert content["data"] == table.to_numpy().tolist()
    artifact = artifact_of(found)
    assert (artifact.type, artifact.name) == ("nightly", "nightly-laptop")
    files = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
    assert {"page.html", *(f"tables/{sheet.name}.csv" for sheet in published.sheets)} == set(files)
    for path in files.values():
        assert path.is_file()
        assert path.is_relative_to(work / "wandb")  # to be sent with the run, and not from the home
    assert not [name for name in written(tmp_path / "home") if "artifacts" in name]
    assert "WANDB_DATA_DIR" not in os.environ


def test_publications_are_a_history_in_tensorboard(tmp_path: Path) -> None:
    part = Component(name="tensorboard", target="optbench.loggers.TensorBoardLogger", arguments={})
    publish(publication(tmp_path), part)
    time.sleep(1.1)  # event files are told apart by the second
    publish(publication(tmp_path, step=8), part)
    found = events(tmp_path / "nights/tensorboard/nightly_laptop")
    assert [(point.step, point.value) for point in found.Scalars("ratio")] == [(7, 1.25), (8, 1.25)]
    (tag,) = [tag for tag in found.Tags()["tensors"] if "best" in tag]
    assert b"| optimizer" in found.Tensors(tag)[0].tensor_proto.string_val[0]


def test_publications_are_files_for_csv_in_which_no_cell_is_a_formula(tmp_path: Path) -> None:
    published = publication(tmp_path)
    publish(published, Component(name="csv", target="optbench.loggers.CsvLogger", arguments={}))
    folder = tmp_path / "nights/csv/nightly_2026-11-28"
    assert written(folder) == {"metrics.csv", "hparams.yaml", *(f"{sheet.name}.csv" for sheet in published.sheets)}
    assert pd.read_csv(folder / "metrics.csv").loc[0, "verdict"] == "'=worse"
    for path in folder.glob("*.csv"):
        assert not any(cell.startswith("=") for line in path.read_text().splitlines() for cell in line.split(","))


def test_publishing_to_nobody_does_nothing(tmp_path: Path, work: Path) -> None:
    publish(publication(tmp_path), Component(name="none", target="optbench.loggers.NullLogger", arguments={}))
    assert written(work) == set()
    assert not (tmp_path / "nights").exists()


def test_a_publication_that_fails_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = publication(tmp_path)
    for error in (UsageError("no key"), OSError("disk full")):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(WandbLogger, "publish", fail)
        publish(published, OFFLINE)
        shown = " ".join(capsys.readouterr().err.split())
        assert shown == (
            f"warning: nightly 2026-11-28 could not be tracked with logger=wandb: {type(error).__name__}: {error}"
        )


def test_a_publication_goes_to_loggers_that_a_config_may_call_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not among the packages"):
        build(Component(name="mine", target="os.system", arguments={}))
    with pytest.raises(UsageError, match="not among the packages"):
        publish(publication(tmp_path), Component(name="mine", target="optbench.tracking.note", arguments={}))
