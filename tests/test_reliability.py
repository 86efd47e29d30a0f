"""Nothing that happens to a sweep makes it lose a result: each test makes it happen to a real command."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from optbench import lease
from optbench.store import Store

ROOT = Path(__file__).parent.parent
NUM_KILLS = int(os.environ.get("OPTBENCH_NUM_KILLS", "2"))

TASKS = {
    "slow": "_target_: tests.faulty.Slow\npause: 0.02\nnote: null",
    "hangs": "_target_: tests.faulty.Hangs\nnote: null",
    "raises": "_target_: tests.faulty.Raises",
}


class Sweep:
    """A command on a results folder of its own, to be started, and started again."""

    def __init__(self, folder: Path, *overrides: str, variables: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.store = Store(folder / "results", "default")
        self.notes = folder / "notes"
        conf = folder / "conf" / "task"
        conf.mkdir(parents=True, exist_ok=True)
        for name, lines in TASKS.items():
            (conf / f"{name}.yaml").write_text(
                f"name: {name}\n{lines}\nnum_steps: 5\nevaluate_every_num_steps: 1\nmetrics: {{test_loss: min}}\n"
            )
        self.command = [
            *(sys.executable, "-m", "optbench", "sweep", "--config-dir", str(conf.parent), "allow=tests"),
            *("hardware=cpu", "executor.num_slots=2", "cost.seconds=null", *overrides),
        ]
        self.variables = {**os.environ, "PYTHONPATH": str(ROOT), **(variables or {})}

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def finish(self, *, seconds: float = 120.0) -> tuple[int, str]:
        process = self.start()
        output, _ = process.communicate(timeout=seconds)
        return process.returncode, output

    def stored(self) -> dict[str, int]:
        """When each result was last changed, by its file."""
        return {path.name: path.stat().st_mtime_ns for path in self.store.folder.glob("trials/*.json")}

    def statuses(self) -> list[str]:
        return sorted(stored.status for stored in self.store.statuses().values())

    def workers(self) -> list[int]:
        """The processes that are at a trial."""
        return [holder.pid for holder in lease.held(self.store.folder).values()]


def wait_until(happened: Callable[[], Any], *, seconds: float = 60.0) -> None:
    begun = time.monotonic()
    while not happened():
        assert time.monotonic() - begun < seconds, "it did not happen"
        time.sleep(0.01)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_after_any_number_of_kills_the_same_command_ends_with_every_trial_stored_once(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "task=slow", "task.note=notes", "seed=range(40)")
    chance = random.Random(0)
    lost = 0
    for turn in range(NUM_KILLS):
        victim = ("worker", "driver", "everything")[turn % 3]
        before = sweep.stored()
        process = sweep.start()
        wait_until(lambda before=before: len(sweep.stored()) >= len(before) + chance.randrange(1, 4))
        time.sleep(chance.uniform(0.0, 0.3))
        assert process.poll() is None
        workers = sweep.workers()
        if victim != "worker":
            kill(process.pid)
        if victim != "driver":
            for pid in workers if victim == "everything" else workers[:1]:
                kill(pid)
        if victim == "worker":
            lost += bool(workers)
            time.sleep(0.5)
            kill(process.pid)
        process.communicate()
        wait_until(lambda: not sweep.workers(), seconds=5.0)
        after = sweep.stored()
        assert before.items() <= after.items(), "a stored result was lost or made again"
    before = sweep.stored()
    assert len(before) < 40, "the kills came too late to test anything"
    code, output = sweep.finish()
    assert code in (0, 11), output
    assert before.items() <= sweep.stored().items()
    statuses = sweep.statuses()
    assert len(statuses) == 40
    assert set(statuses) <= {"completed", "crashed"}
    assert statuses.count("crashed") <= lost
    assert not list(sweep.store.folder.glob("quarantine/*"))
    code, output = sweep.finish()
    assert "nothing to run, 40 stored already" in output


def test_two_sweeps_on_one_folder_run_no_trial_twice(tmp_path: Path) -> None:
    one = Sweep(tmp_path, "task=slow", "task.note=notes", "seed=range(24)")
    other = Sweep(tmp_path, "task=slow", "task.note=notes", "seed=shuffle(range(8,32))")
    processes = [one.start(), other.start()]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    started = [line.split()[1] for line in one.notes.read_text().splitlines()]
    built_to_check = 2  # each command builds the task once before anything trains
    assert len(started) == 32 + built_to_check
    assert one.statuses() == ["completed"] * 32


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGUSR2, 143, marks=pytest.mark.verify)]
)
def test_a_signal_preempts_and_the_same_command_goes_on(number: int, code: int, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "task=slow", "budget.num_steps=150", "seed=0,1,2")
    process = sweep.start()
    wait_until(lambda: len(sweep.workers()) == 2)
    time.sleep(1.0)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert sweep.statuses() == ["preempted", "preempted"]
    assert "3 planned trial(s) have no result yet" in output
    assert "the same command runs the rest" in output
    if number != signal.SIGINT:
        return
    code, output = sweep.finish()
    assert code == 0, output
    assert sweep.statuses() == ["completed"] * 3
    records = [json.loads(path.read_bytes()) for path in sweep.store.folder.glob("trials/*.json")]
    assert sum(record["summary"].get("resumed_at_step", 0) > 0 for record in records) == 2
    assert len(list(sweep.store.folder.glob("superseded/*"))) == 2


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "task=hangs", "task.note=pids", "seed=0", "limits.grace_seconds=300")
    process = sweep.start()
    wait_until((tmp_path / "pids").exists)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert process.poll() is None, "it waits for the grace"
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert time.monotonic() - begun < 10.0
    assert process.returncode == 130
    assert sweep.statuses() == []
    for pid in (tmp_path / "pids").read_text().split():
        assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


def test_the_time_of_a_sweep_ends_it_and_the_same_command_goes_on(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "task=slow", "budget.num_steps=500", "seed=0,1,2,3", "limits.sweep_seconds=14")
    code, output = sweep.finish()
    assert code == 11, output
    assert "have no result yet" in output
    assert "completed" not in sweep.statuses()[:1]


def test_a_failed_trial_is_seen_at_once_with_its_log_and_shows_in_the_exit_code(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "task=slow,raises", "seed=0")
    code, output = sweep.finish()
    assert code == 11
    (line,) = [line for line in output.splitlines() if line.startswith("crashed")]
    assert "ValueError: a fault of its own" in line
    log = Path(line.rpartition("log: ")[2].rstrip(")"))
    assert "the last thing that was printed" in log.read_text()


CLOCK = """
import itertools, time
_now, _jumps = time.time, itertools.cycle((0.0, 86400.0, -86400.0))
time.time = lambda: _now() + next(_jumps)
"""


@pytest.mark.verify
def test_a_clock_that_jumps_changes_no_duration_and_no_limit(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    overrides = ("task=slow", "seed=0,1", "limits.trial_seconds=60", "limits.sweep_seconds=100")
    sweep = Sweep(tmp_path, *overrides, variables=variables)
    code, output = sweep.finish()
    assert code == 0, output
    for path in sweep.store.folder.glob("trials/*.json"):
        record = json.loads(path.read_bytes())
        assert 0.0 < record["timing"]["train_seconds"] < 60.0
        assert record["curve"]["seconds"] == sorted(record["curve"]["seconds"])


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs the right to mount a small disk")
def test_a_full_disk_ends_the_sweep_with_a_clear_message_and_keeps_what_is_stored(tmp_path: Path) -> None:
    disk = tmp_path / "results"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a small disk here")
    try:
        sweep = Sweep(tmp_path, "task=slow", "seed=range(60)")
        code, output = sweep.finish()
        assert code == 2, output
        assert "cannot be written to" in output
        assert "No space left on device" in output
        assert "Traceback" not in output
        paths = list(sweep.store.folder.glob("trials/*.json"))
        assert 0 < len(paths) < 60
        for path in paths:
            assert sweep.store.read(path.stem) is not None
        assert not sweep.store.quarantined
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
