"""Who runs trials: what a trial does to its process costs that trial alone, and leaves a row."""

import dataclasses
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from optbench import lease
from optbench.component import component
from optbench.errors import UsageError
from optbench.execution import Context, Finished, Job, Limits, Refused
from optbench.executors import Executor, Listed
from optbench.executors.local import LocalExecutor
from optbench.executors.serial import SerialExecutor
from optbench.executors.slot import Slot
from optbench.measurement import Measurement, Status
from optbench.store import Store
from optbench.trial import Trial
from tests.handmade import config

LIMITS = Limits(trial_seconds=None, no_progress_seconds=60.0, sweep_seconds=None, grace_seconds=20.0)


class Watch:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.started_on: dict[str, str] = {}
        self.reasons: dict[str, str | None] = {}
        self.logs: dict[str, str | None] = {}
        self.order: list[str] = []
        self.step = 0

    def started(self, slot: str, trial: Trial) -> None:
        self.started_on[trial.id] = slot

    def progressed(self, slot: str, step: int, loss: float | None) -> None: ...

    def measured(self, slot: str, measurement: Measurement) -> None:
        self.step = measurement.step

    def finished(self, slot: str, trial: Trial, status: Status, *, reason: str | None, log: str | None) -> None:
        self.order.append(trial.id)
        self.reasons[trial.id] = reason
        self.logs[trial.id] = log

    def message(self, text: str) -> None: ...


class Asked:
    """An interruption that comes when the test says so."""

    def __init__(self, *, when: Any = lambda: False, urgent: Any = lambda: False) -> None:
        self._when, self._urgent = when, urgent

    @property
    def is_requested(self) -> bool:
        return bool(self._when())

    @property
    def is_urgent(self) -> bool:
        return bool(self._urgent())


def make(task: str, *, seed: int = 0, num_steps: int = 5, every: int = 1, **arguments: Any) -> Trial:
    """A trial of one of the tasks in tests/faulty.py."""
    return Trial.from_config(
        config(
            {
                "task": {
                    "name": task.lower(),
                    "_target_": f"tests.faulty.{task}",
                    "num_steps": num_steps,
                    "evaluate_every_num_steps": every,
                    "metrics": {"test_loss": "min"},
                    **arguments,
                },
                "data": None,
                "hardware.device": "cpu",
                "seed": seed,
            }
        )
    )


def context(folder: Path, **changes: Any) -> Context:
    limits = dataclasses.replace(LIMITS, **changes)
    return Context(
        results=str(folder),
        sweep="test",
        logger=component({"name": "none", "_target_": "optbench.loggers.NullLogger"}, group="logger"),
        allowed=("tests",),
        limits=limits,
        checkpoint_seconds=None,
        hardware=(make("Line").hardware,),
    )


@dataclasses.dataclass
class Ran:
    """What was found after trials had been run."""

    store: Store
    watch: Watch
    trials: Mapping[str, Trial]

    def record(self, name: str) -> dict[str, Any]:
        record = self.store.read(self.trials[name].id)
        assert record is not None
        return record


def run(
    executor: Executor,
    trials: Mapping[str, Trial],
    where: Context,
    *,
    asked: Asked | None = None,
    watch: Watch | None = None,
) -> Ran:
    watch = watch or Watch()
    try:
        executor.execute(
            Listed(Job(trial=trial) for trial in trials.values()),
            context=where,
            observer=watch,
            interruption=asked or Asked(),
        )
    finally:
        executor.close()
    return Ran(store=Store(Path(where.results), where.sweep), watch=watch, trials=trials)


FAULTS = (
    "Killed",
    "LeavesChild",
    "Segfault",
    "Exits",
    "Hangs",
    "Stopped",
    "Endless",
    "OutOfMemory",
    "CudaError",
    "Raises",
    "Diverges",
)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Every way in which a trial goes wrong, with a good trial after each, all in one sweep over two slots."""
    folder = tmp_path_factory.mktemp("faulty")
    trials: dict[str, Trial] = {}
    for number, name in enumerate(FAULTS):
        arguments: dict[str, Any] = {"note": str(folder / "pids")} if name == "Hangs" else {}
        trials[name] = make(name, num_steps=10**6 if name == "Endless" else 5, **arguments)
        trials[f"good {number}"] = make("Line", seed=number)
    where = context(folder, no_progress_seconds=10.0, trial_seconds=20.0)
    return run(LocalExecutor(num_slots=2, jobs_per_gpu=1), trials, where)


def test_every_trial_of_a_sweep_with_faults_has_a_row(faulty: Ran) -> None:
    assert sorted(faulty.watch.order) == sorted(trial.id for trial in faulty.trials.values())
    for number in range(len(FAULTS)):
        assert faulty.record(f"good {number}")["status"] == "completed"


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("Killed", "crashed", "killed by SIGKILL"),
        ("LeavesChild", "crashed", "exit code 7"),
        ("Segfault", "crashed", "killed by SIGSEGV"),
        ("Exits", "crashed", "exit code 7"),
        ("Hangs", "timed_out", "limits.no_progress_seconds"),
        ("Stopped", "timed_out", "limits.no_progress_seconds"),
        ("Endless", "timed_out", "limits.trial_seconds"),
        ("OutOfMemory", "out_of_memory", "can't allocate memory"),
        ("CudaError", "crashed", "CUDA error"),
        ("Raises", "crashed", "a fault of its own"),
    ],
)
def test_a_fault_is_a_row_with_its_status_and_reason(faulty: Ran, name: str, status: str, reason: str) -> None:
    record = faulty.record(name)
    assert record["status"] == status
    assert reason in record["summary"]["reason"]
    assert reason in str(faulty.watch.reasons[record["id"]])


@pytest.mark.parametrize("name", FAULTS)
def test_the_last_step_of_a_fault_is_known(faulty: Ran, name: str) -> None:
    record = faulty.record(name)
    assert record["summary"]["num_steps"] >= 2
    assert record["curve"]["step"][:3] == [0, 1, 2]
    assert record["environment"]["packages"]["torch"]


def test_a_divergence_is_a_row_with_its_first_bad_step(faulty: Ran) -> None:
    assert faulty.record("Diverges")["status"] == "diverged"
    assert faulty.record("Diverges")["summary"]["diverged_at_step"] == 3


def test_of_a_trial_that_hangs_the_whole_process_group_is_gone(faulty: Ran) -> None:
    pids = (Path(faulty.store.folder).parent / "pids").read_text().split()
    assert len(pids) == 2
    for pid in pids:
        assert not _is_running(int(pid))


def test_what_a_faulty_trial_printed_is_in_its_log(faulty: Ran) -> None:
    log = Path(str(faulty.watch.logs[faulty.trials["Raises"].id]))
    assert "the last thing that was printed" in log.read_text()
    assert "ValueError: a fault of its own" in log.read_text()
    assert "Segmentation fault" in Path(str(faulty.watch.logs[faulty.trials["Segfault"].id])).read_text()


def test_a_trial_that_printed_nothing_leaves_no_log(faulty: Ran) -> None:
    assert faulty.watch.logs[faulty.trials["good 0"].id] is None
    names = {path.name for path in faulty.store.log("x").parent.iterdir()}
    assert not {f"{faulty.trials[f'good {number}'].id}.log" for number in range(len(FAULTS))} & names
    assert not [name for name in names if name.startswith("worker")]


def test_no_lease_is_left(faulty: Ran) -> None:
    assert not lease.held(faulty.store.folder)


def test_a_process_runs_many_trials_and_none_after_an_error_of_the_gpu(tmp_path: Path) -> None:
    trials = {f"before {seed}": make("WhichProcess", seed=seed) for seed in range(2)}
    trials["error"] = make("CudaError")
    trials["after"] = make("WhichProcess", seed=2)
    ran = run(LocalExecutor(num_slots=1, jobs_per_gpu=1), trials, context(tmp_path))
    first, second, after = (ran.record(name)["summary"]["pid"] for name in ("before 0", "before 1", "after"))
    assert first == second != after


def test_what_a_trial_changes_in_its_process_is_undone_for_the_next(tmp_path: Path) -> None:
    trials = {"traces": make("LeavesTraces"), "after": make("Line")}
    after = run(LocalExecutor(num_slots=1, jobs_per_gpu=1), trials, context(tmp_path / "one")).record("after")
    alone = run(SerialExecutor(), {"after": make("Line")}, context(tmp_path / "other")).record("after")
    for record in (after, alone):
        for part in ("curve", "summary"):
            record[part].pop("seconds")
    assert [after[part] for part in ("status", "curve", "summary")] == [
        alone[part] for part in ("status", "curve", "summary")
    ]


def test_a_module_that_ends_its_process_costs_its_own_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTBENCH_IS_DEADLY", "1")
    trials = {"deadly": make("Line", _target_="tests.deadly.Task"), "good": make("Line")}
    executor = LocalExecutor(num_slots=1, jobs_per_gpu=1)
    executor.check(list(trials.values()), context(tmp_path))
    ran = run(executor, trials, context(tmp_path))
    assert ran.record("deadly")["status"] == "crashed"
    assert "exit code 5" in ran.record("deadly")["summary"]["reason"]
    assert ran.record("good")["status"] == "completed"


def test_a_trial_that_another_sweep_preempted_is_taken_over(tmp_path: Path) -> None:
    slow, watch = make("Slow", pause=0.01, num_steps=100, every=1), Watch()
    asked = Asked(when=lambda: watch.step >= 5)
    run(SerialExecutor(), {"slow": slow}, context(tmp_path), asked=asked, watch=watch)
    ran = run(SerialExecutor(), {"slow": slow}, context(tmp_path))  # planned when there was no result
    assert ran.record("slow")["status"] == "completed"
    assert ran.record("slow")["summary"]["resumed_at_step"] >= 5


def test_a_worker_is_born_with_its_gpu_and_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optbench.executors.local.gpus", lambda: ["3", "5"])
    trials = {str(seed): make("Environment", seed=seed, num_steps=30) for seed in range(8)}
    where = dataclasses.replace(
        context(tmp_path), hardware=(dataclasses.replace(make("Line").hardware, device="auto", num_threads=2),)
    )
    executor = LocalExecutor(num_slots=None, jobs_per_gpu=2)
    assert executor.num_slots(where) == 4
    ran = run(executor, trials, where)
    for name, trial in trials.items():
        assert ran.watch.started_on[trial.id].startswith(f"cuda:{ran.record(name)['summary']['gpu']:.0f} ")
        assert ran.record(name)["summary"]["omp_threads"] == 2
    assert {"cuda:3", "cuda:5"} == {slot.partition(" ")[0] for slot in ran.watch.started_on.values()}


def test_cores_are_shared_out_by_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optbench.executors.local.num_cores", lambda: 9)
    hardware = make("Line").hardware
    for num_threads, num_slots in ((1, 9), (2, 4), (4, 2), (16, 1)):
        where = dataclasses.replace(
            context(tmp_path), hardware=(hardware, dataclasses.replace(hardware, num_threads=num_threads))
        )
        assert LocalExecutor(num_slots=None, jobs_per_gpu=1).num_slots(where) == num_slots


@pytest.mark.parametrize("arguments", [{"num_slots": 0}, {"jobs_per_gpu": 0}, {"num_slots": "2"}, {"num_slots": True}])
def test_a_number_of_slots_that_makes_no_sense_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"executor.{next(iter(arguments))}"):
        LocalExecutor(**{"num_slots": None, "jobs_per_gpu": 1, **arguments})


@pytest.mark.parametrize("executor", [SerialExecutor(), LocalExecutor(num_slots=1, jobs_per_gpu=1)])
def test_a_trial_that_is_asked_to_stop_is_preempted_and_goes_on_later(executor: Executor, tmp_path: Path) -> None:
    slow = make("Slow", pause=0.02, num_steps=200, every=1)
    where, watch = context(tmp_path), Watch()
    path = Store(tmp_path, "test").path(slow.id)
    asked = Asked(when=lambda: watch.step >= 5)
    ran = run(executor, {"slow": slow, "never": make("Line")}, where, asked=asked, watch=watch)
    assert ran.record("slow")["status"] == "preempted"
    assert not Store(tmp_path, "test").path(make("Line").id).exists()
    stopped_at = ran.record("slow")["summary"]["num_steps"]
    assert 0 < stopped_at < 200
    assert list((tmp_path / "test" / "checkpoints").iterdir())

    again = SerialExecutor()
    again.execute(
        Listed([Job(trial=slow, replaces=path.stat().st_mtime_ns)]),
        context=where,
        observer=Watch(),
        interruption=Asked(),
    )
    assert ran.record("slow")["status"] == "completed"
    assert ran.record("slow")["summary"]["resumed_at_step"] == stopped_at
    assert ran.record("slow")["curve"]["step"] == list(range(201))
    assert not list((tmp_path / "test" / "checkpoints").iterdir())


def _later(begun: float, seconds: float) -> bool:
    return time.monotonic() - begun > seconds


def test_a_trial_that_does_not_stop_within_the_grace_is_killed_and_preempted(tmp_path: Path) -> None:
    slot = _slot(context(tmp_path))
    trial = make("Hangs", note=str(tmp_path / "pids"))
    slot.give(Job(trial=trial))
    _wait_for(tmp_path / "pids", slot)
    slot.stop(Status.PREEMPTED)
    time.sleep(0.5)
    assert not slot.is_idle
    (event,) = [event for event in slot.kill() if isinstance(event, Finished)]
    assert event.status is Status.PREEMPTED
    for pid in (tmp_path / "pids").read_text().split():
        assert not _is_running(int(pid))
    record = Store(tmp_path, "test").read(trial.id)
    assert record is not None
    assert record["status"] == "preempted"


def test_workers_that_cannot_start_end_the_sweep_with_what_they_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('torch is broken here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    slot = _slot(context(tmp_path))
    slot.give(Job(trial=make("Line")))
    events = _events(slot)
    slot.close()
    (refused,) = [event for event in events if isinstance(event, Refused)]
    assert "torch is broken here" in refused.text
    assert not (tmp_path / "test" / "trials").exists()


def test_a_trial_that_is_stored_or_held_elsewhere_is_not_run(tmp_path: Path) -> None:
    where = context(tmp_path)
    line = {"line": make("Line", note=str(tmp_path / "notes"))}
    run(SerialExecutor(), line, where)
    ran = run(SerialExecutor(), line, where)
    assert len((tmp_path / "notes").read_text().splitlines()) == 1
    assert ran.watch.order == [line["line"].id]

    held = make("Line", seed=1)
    taken = lease.take(tmp_path / "test", held.id)
    assert taken is not None
    begun = time.monotonic()
    ran = run(SerialExecutor(), {"held": held}, where, asked=Asked(when=lambda: _later(begun, 0.5)))
    assert not ran.watch.order
    taken.release()


def _slot(where: Context) -> Slot:
    return Slot("cpu 0", context=where, environment={"OMP_NUM_THREADS": "1"})


def _events(slot: Slot) -> list[Any]:
    found: list[Any] = []
    begun = time.monotonic()
    while not slot.is_idle and not _later(begun, 60.0):
        found += slot.poll()
        time.sleep(0.05)
    return found + slot.poll()


def _wait_for(path: Path, slot: Slot) -> None:
    begun = time.monotonic()
    while not (path.exists() and len(path.read_text().split()) == 2):
        assert not _later(begun, 60.0)
        slot.poll()
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_process_that_asks_is_running() -> None:
    assert _is_running(os.getpid())
