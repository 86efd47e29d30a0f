"""Slurm: whatever becomes of workers and of the command that submitted them, every trial is stored once."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from optbench import lease
from optbench.component import component
from optbench.errors import UsageError
from optbench.execution import Context, Job, Limits
from optbench.executors import Listed, allocation, queue
from optbench.executors.queue import Queue, SharedSource
from optbench.executors.slurm import SlurmExecutor
from optbench.executors.watch import Watch, folder_of
from optbench.measurement import Measurement, Status
from optbench.store import Store
from optbench.trial import Trial
from tests import slurm_cluster as slurm
from tests.faulty import Slow
from tests.handmade import config, result

ROOT = Path(__file__).parent.parent
SETTINGS: dict[str, Any] = {
    "num_workers": 1,
    "slots_per_worker": None,
    "jobs_per_gpu": 1,
    "cpus_per_worker": 1,
    "gpus_per_worker": 0,
    "memory_gb": None,
    "partition": None,
    "account": None,
    "qos": None,
    "timeout_minutes": 10,
    "warning_seconds": 60,
    "max_requeues": 3,
    "idle_minutes": None,
    "setup": [],
    "sbatch": {},
    "poll_seconds": 0.1,
}


class Gated(Slow):
    """Takes its time for each step until a file is there."""

    def __init__(self, *, gate: str, pause: float, seed: int, device: torch.device) -> None:
        super().__init__(pause=pause, seed=seed, device=device)
        self.gate = Path(gate)

    def at_step(self, step: int) -> None:
        if not self.gate.exists():
            super().at_step(step)


def make(target: str = "faulty.Line", *, seed: int = 0, num_steps: int = 5, **arguments: Any) -> Trial:
    task = {
        "name": target.rpartition(".")[2].lower(),
        "_target_": f"tests.{target}",
        "num_steps": num_steps,
        "evaluate_every_num_steps": 1,
        "metrics": {"test_loss": "min"},
        **arguments,
    }
    return Trial.from_config(config({"task": task, "data": None, "hardware.device": "auto", "seed": seed}))


def context(results: Path) -> Context:
    return Context(
        results=str(results),
        sweep="test",
        logger=component({"name": "none", "_target_": "optbench.loggers.NullLogger"}, group="logger"),
        allowed=("tests",),
        limits=Limits(trial_seconds=None, no_progress_seconds=60.0, sweep_seconds=None, grace_seconds=20.0),
        checkpoint_seconds=None,
        hardware=(make().hardware,),
    )


@dataclass
class Driver:
    """The command that submits workers and watches them, in a thread of its own; an observer that remembers."""

    trials: list[Trial]
    results: Path
    executor: SlurmExecutor
    is_requested: bool = False
    is_urgent: bool = False
    finished_with: dict[str, Status] = field(default_factory=dict)
    started_on: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.store = Store(self.results, "test")
        self._thread = threading.Thread(target=self._execute)
        self._thread.start()

    def _execute(self) -> None:
        source = Listed([Job(trial=trial) for trial in self.trials])
        try:
            self.executor.execute(source, context=context(self.results), observer=self, interruption=self)
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        self._thread.join(180.0)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error

    def said(self, pattern: str) -> re.Match[str] | None:
        return next((found for text in self.messages if (found := re.search(pattern, text))), None)

    def started(self, slot: str, trial: Trial) -> None:
        self.started_on[trial.id] = slot

    def progressed(self, slot: str, step: int, loss: float | None) -> None: ...

    def measured(self, slot: str, measurement: Measurement) -> None: ...

    def finished(self, slot: str, trial: Trial, status: Status, **others: Any) -> None:
        assert trial.id not in self.finished_with
        self.finished_with[trial.id] = status

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(scope="module")
def slurm_is_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if (reason := slurm.missing()) is not None:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs Slurm: {reason}")
        pytest.skip(reason)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    with slurm.cluster(tmp_path_factory.mktemp("slurm")):
        yield
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


@dataclass(frozen=True)
class Process:
    """A process that runs a trial, and the worker that owns it."""

    pid: int

    @property
    def worker(self) -> "Process":
        return Process(int(Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[1]))

    def born_with(self, variable: str) -> str | None:
        born_with = Path(f"/proc/{self.pid}/environ").read_bytes().decode().split("\0")
        return next((line.partition("=")[2] for line in born_with if line.startswith(f"{variable}=")), None)


@dataclass
class Struck:
    """A sweep over three workers, and the GPU of each."""

    driver: Driver
    gpus: dict[str | None, str | None]

    def record(self, number: int) -> dict[str, Any]:
        record = self.driver.store.read(self.driver.trials[number].id)
        assert record is not None
        return record


@pytest.fixture(scope="module")
def struck(slurm_is_up: None, tmp_path_factory: pytest.TempPathFactory) -> Struck:  # noqa: ARG001
    """Of three workers, one is cancelled, one is killed, and one is preempted, each in the middle of a trial."""
    folder = tmp_path_factory.mktemp("struck")
    trials = [
        make("test_slurm.Gated", seed=seed, num_steps=1000, gate=str(folder / "gate"), pause=0.05)
        if seed % 3 == 0
        else make(seed=seed)
        for seed in range(9)
    ]
    driver = Driver(trials, folder, SlurmExecutor(**{**SETTINGS, "num_workers": 3, "gpus_per_worker": 1}))
    slurm.wait_for(lambda: len(driver.started_on) == 3 or driver.error)
    processes = [Process(holder.pid) for holder in lease.held(driver.store.folder).values()]
    workers = {process.worker.born_with("SLURM_ARRAY_TASK_ID"): process for process in processes}
    found = driver.said(r"scancel (\d+)")
    assert found is not None
    gpus = {number: process.born_with("CUDA_VISIBLE_DEVICES") for number, process in workers.items()}
    time.sleep(1.0)  # until they have done some steps
    slurm.cancel(f"{found[1]}_0")
    os.kill(workers["1"].worker.pid, signal.SIGKILL)
    slurm.signal_task(f"{found[1]}_2", "USR2")
    slurm.wait_for(lambda: driver.said("pending") or driver.error)
    (folder / "gate").touch()
    driver.end()
    return Struck(driver, gpus)


def test_each_worker_has_a_gpu_of_its_own(struck: Struck) -> None:
    assert sorted(struck.gpus.items()) == [("0", "0"), ("1", "1"), ("2", "2")]


def test_workers_that_are_cancelled_killed_and_preempted_cost_no_result(struck: Struck) -> None:
    assert struck.driver.finished_with == {trial.id: Status.COMPLETED for trial in struck.driver.trials}
    assert [struck.record(number)["status"] for number in range(9)] == ["completed"] * 9


def test_a_preempted_worker_comes_back_and_its_trial_goes_on(struck: Struck) -> None:
    assert 0 < struck.record(6)["summary"]["resumed_at_step"] < 1000
    assert len(list((struck.driver.store.folder / "queue").glob("*.submitted.json"))) == 1
    assert struck.driver.said(r"no worker runs now: 1 pending \(\w+\)")


def test_another_worker_goes_on_with_the_trial_of_one_that_was_cancelled(struck: Struck) -> None:
    assert 0 < struck.record(0)["summary"]["resumed_at_step"] < 1000


def test_a_trial_whose_worker_was_killed_runs_again(struck: Struck) -> None:
    assert "resumed_at_step" not in struck.record(3)["summary"]


def test_no_worker_is_left_once_all_is_stored(struck: Struck) -> None:
    slurm.wait_for(lambda: not slurm.queue())
    assert not lease.held(struck.driver.store.folder)


def command(folder: Path, *, once: Mapping[str, Callable[["subprocess.Popen[str]", str], object]]) -> tuple[int, str]:
    """A sweep from the command line, its exit code and what it says; does something once it has said something."""
    words = ["sweep", "task=quadratic", "budget.num_steps=20", "seed=range(12)", f"results={folder}"]
    words += ["executor=slurm", "executor.num_workers=1", "executor.poll_seconds=0.2", "+executor.sbatch.hold=true"]
    text = ""
    with subprocess.Popen(
        [str(Path(sys.executable).with_name("optbench")), *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            text += line
            for said, do in once.items():
                if said in line:
                    do(process, line)
    return process.returncode, text


@pytest.mark.usefixtures("slurm_is_up")
def test_a_command_that_is_left_comes_back_to_its_workers_and_submits_nothing_anew(tmp_path: Path) -> None:
    code, text = command(tmp_path, once={"is submitted": lambda process, _: process.send_signal(signal.SIGINT)})
    assert code == 130, text
    assert re.search(r"goes on without this command.*`scancel \d+` ends it", text)
    assert [state for _, state in slurm.queue()] == ["PENDING"]

    jobs = {task.partition("_")[0] for task, _ in slurm.queue()}
    code, text = command(tmp_path, once={"is watched again": lambda *_: slurm.release(*jobs)})
    assert code == 0, text
    assert len(jobs) == 1
    assert "is submitted" not in text
    records = [json.loads(path.read_text()) for path in (tmp_path / "default" / "trials").iterdir()]
    assert sorted(record["config"]["seed"] for record in records) == list(range(12))
    assert {record["status"] for record in records} == {"completed"}


@pytest.mark.usefixtures("slurm_is_up")
def test_without_workers_the_command_says_what_is_missing(tmp_path: Path) -> None:
    driver = Driver([make()], tmp_path, SlurmExecutor(**{**SETTINGS, "sbatch": {"begin": "now+1hour"}}))
    slurm.wait_for(lambda: driver.said(r"no worker runs now: 1 pending \(BeginTime\)") or driver.error)
    found = driver.said(r"scancel (\d+)")
    assert found is not None
    slurm.cancel(found[1])
    driver.end()
    assert driver.said("has ended, and 1 of its trials have no result")


@pytest.mark.usefixtures("slurm_is_up")
def test_what_slurm_refuses_is_explained(tmp_path: Path) -> None:
    driver = Driver([make()], tmp_path, SlurmExecutor(**{**SETTINGS, "partition": "nowhere"}))
    with pytest.raises(UsageError, match=r"(?s)Slurm refuses the workers.*invalid partition"):
        driver.end()


# --- Without Slurm ------------------------------------------------------------------------------------------------


def test_a_queue_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path, "test")
    jobs = [Job(trial=make(seed=0)), Job(trial=make("faulty.Slow", pause=0.5), replaces=17)]
    path = queue.write(Queue(context=context(tmp_path), jobs=jobs), store)
    assert queue.read(path) == Queue(context=context(tmp_path), jobs=jobs)
    assert path == queue.write(Queue(context=context(tmp_path), jobs=jobs), store)


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=muon", "param_groups=no_decay"],
        ["optimizer='null'", "task=mnist_mlp"],
        ["optimizer=preset/gpt3", "schedule=gpt3"],
        ["divergence.max_loss=inf", "lr_scaling.rule=sqrt", "lr_scaling.base_batch_size=8"],
    ],
)
def test_a_trial_passes_through_a_queue(overrides: list[str], make_trial: Callable[..., Trial], tmp_path: Path) -> None:
    trial = make_trial(*overrides)
    path = queue.write(Queue(context=context(tmp_path), jobs=[Job(trial=trial)]), Store(tmp_path, "test"))
    assert [job.trial for job in queue.read(path).jobs] == [trial]


@pytest.mark.parametrize("place", [0, 100, -1])
def test_a_queue_that_was_damaged_is_refused(place: int, tmp_path: Path) -> None:
    path = queue.write(Queue(context=context(tmp_path), jobs=[Job(trial=make())]), Store(tmp_path, "test"))
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="does not hold what was written"):
        queue.read(path)


def source_of(trials: list[Trial], store: Store, **changes: Any) -> SharedSource:
    jobs = [Job(trial=trial) for trial in trials]
    return SharedSource(jobs, **{"store": store, "offset": 0, "idle_seconds": None, **changes})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(queue, "SECONDS_BETWEEN_LOOKS", 0.0)
    return Store(tmp_path, "test")


def test_a_worker_begins_at_its_own_place_and_comes_round(store: Store) -> None:
    trials = [make(seed=seed) for seed in range(5)]
    source = source_of(trials, store, offset=3)
    given = []
    while (job := source.next()) is not None:
        given.append(job.trial.seed)
    assert given == [3, 4, 0, 1, 2]
    assert source.is_exhausted
    assert source.num_trials == 5


def test_what_is_stored_or_under_way_elsewhere_is_not_given(store: Store) -> None:
    stored, held, free = trials = [make(seed=seed) for seed in range(3)]
    store.publish(stored, result())
    taken = lease.take(store.folder, held.id)
    assert taken is not None
    source = source_of(trials, store)
    assert source.next() == Job(trial=free)
    assert source.next() is None
    assert not source.is_exhausted
    taken.release()
    assert source.next() == Job(trial=held)
    assert source.is_exhausted


def test_a_trial_that_was_preempted_is_given_again_to_be_gone_on_with(store: Store) -> None:
    trial = make()
    source = source_of([trial], store)
    assert source.next() == Job(trial=trial)
    path = store.publish(trial, result(status=Status.PREEMPTED))
    source.finished(trial, Status.PREEMPTED, summary={}, timing={})
    assert source.next() == Job(trial=trial, replaces=path.stat().st_mtime_ns)
    source.put_back(Job(trial=trial))
    store.publish(trial, result(), replaces=path.stat().st_mtime_ns)
    assert source.next() is None
    assert source.is_exhausted


def test_a_result_to_be_replaced_is_no_result_until_it_is_another(store: Store) -> None:
    trial = make()
    old = store.publish(trial, result(0.5)).stat().st_mtime_ns
    job = Job(trial=trial, replaces=old)
    assert queue.left(job, store) == job
    store.publish(trial, result(0.25), replaces=old)
    assert queue.left(job, store) is None


def test_a_damaged_result_is_made_again(store: Store) -> None:
    trial = make()
    store.publish(trial, result()).write_text("{")
    assert queue.left(Job(trial=trial), store) == Job(trial=trial)
    assert store.quarantined


def test_a_worker_ends_that_has_had_nothing_to_do_for_long(store: Store) -> None:
    trial = make()
    taken = lease.take(store.folder, trial.id)
    assert taken is not None
    assert source_of([trial], store, idle_seconds=0.0).is_exhausted
    assert not source_of([trial], store, idle_seconds=60.0).is_exhausted


def test_a_search_that_goes_by_results_is_refused(tmp_path: Path) -> None:
    driver = Driver([], tmp_path, SlurmExecutor(**SETTINGS))
    driver.end()
    source: Any = type("Search", (), {"next": lambda _: pytest.fail("it was asked")})()
    with pytest.raises(UsageError, match="sweep=random"):
        driver.executor.execute(source, context=context(tmp_path), observer=driver, interruption=driver)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_workers", 0),
        ("slots_per_worker", "2"),
        ("cpus_per_worker", True),
        ("gpus_per_worker", -1),
        ("memory_gb", 0),
        ("timeout_minutes", 1.5),
        ("warning_seconds", 600),
        ("poll_seconds", 0.0),
        ("idle_minutes", "1"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"executor.{name}"):
        SlurmExecutor(**{**SETTINGS, name: value})


@pytest.mark.parametrize(
    ("settings", "num_threads", "num_slots"),
    [
        ({"num_workers": 3, "cpus_per_worker": 8}, 2, 12),
        ({"num_workers": 3, "cpus_per_worker": 1}, 2, 3),
        ({"num_workers": 3, "gpus_per_worker": 2, "jobs_per_gpu": 2}, 1, 12),
        ({"num_workers": 3, "gpus_per_worker": 2, "slots_per_worker": 5}, 1, 15),
    ],
)
def test_slots_are_those_of_all_workers(
    settings: dict[str, Any], num_threads: int, num_slots: int, tmp_path: Path
) -> None:
    where = replace(context(tmp_path), hardware=(replace(make().hardware, num_threads=num_threads),))
    assert SlurmExecutor(**{**SETTINGS, **settings}).num_slots(where) == num_slots


def test_the_grace_of_trials_is_within_the_warning_of_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(UsageError, match="grace_seconds"):
        SlurmExecutor(**{**SETTINGS, "warning_seconds": 20}).check([make()], context(tmp_path))
    assert not SlurmExecutor(**SETTINGS).check([make()], context(tmp_path))


def test_without_slurm_or_submitit_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match="no sbatch is found"):
        SlurmExecutor(**SETTINGS).check([make()], context(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'optbench\[slurm\]'"):
        SlurmExecutor(**SETTINGS).check([make()], context(tmp_path))


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_slurm_that_does_not_answer_is_asked_again_and_in_the_end_it_is_said_what_workers_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    program(tmp_path, "squeue", f"echo >> {calls}; [ $(wc -l < {calls}) != 1 ] || {{ echo busy >&2; exit 1; }}")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    driver = Driver([], tmp_path, SlurmExecutor(**SETTINGS))
    driver.end()
    log = folder_of(driver.store) / "7_0_0_log.err"
    log.parent.mkdir(parents=True)
    log.write_text("optbench: no module of that name\nsrun: error: task 0 failed\n")
    watch = Watch([Job(trial=make())], source=Listed([]), store=driver.store, observer=driver)
    watch.watch(["7"], interruption=driver, poll_seconds=0.001)
    assert driver.said("Slurm does not answer: busy. The workers go on")
    assert driver.said("(?s)7 has ended, and 1 of its trials have no result.*no module of that name$")


@pytest.mark.parametrize(
    ("state", "num_requeues", "variables", "asked"),
    [
        ("RUNNING", 0, {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}, "requeue 7_2"),
        ("RUNNING", 1, {}, "requeue 8"),
        ("RUNNING", 2, {}, None),
        ("COMPLETING", 0, {}, None),
    ],
)
def test_a_worker_goes_back_into_the_queue_unless_it_was_cancelled_or_came_back_too_often(
    state: str,
    num_requeues: int,
    variables: dict[str, str],
    asked: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program(tmp_path, "squeue", f"echo {state}")
    program(tmp_path, "scontrol", f"echo $* > {tmp_path}/asked")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": str(num_requeues), **variables}.items():
        monkeypatch.setenv(name, value)
    allocation._requeue(2)
    said = tmp_path / "asked"
    assert (said.read_text().strip() if said.exists() else None) == asked
