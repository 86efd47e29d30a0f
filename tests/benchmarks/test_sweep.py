"""What a sweep costs besides the training: against Hydra's own multirun, against one core, against a bare loop."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from optbench.component import component
from optbench.execution import Context, Job, Limits
from optbench.executors import Listed
from optbench.executors.local import LocalExecutor
from optbench.measurement import Measurement, Status
from optbench.run import run
from optbench.store import Store
from optbench.trial import Trial
from tests.conftest import MakeTrial

NUM_TRIALS = int(os.environ.get("OPTBENCH_NUM_TRIALS", "1000"))
NUM_HYDRA_JOBS = int(os.environ.get("OPTBENCH_NUM_HYDRA_JOBS", "100"))
# As little training as there can be: one step on a quadratic in a few dimensions.
EMPTY = ("task=quadratic", "task.dimension=2", "budget.num_steps=1", "evaluation.every_num_steps=1", "hardware=cpu")
NUM_CORES = len(os.sched_getaffinity(0))

HYDRA_APPLICATION = """
import hydra
@hydra.main(config_path="pkg://optbench.conf", config_name="config", version_base="1.3")
def main(config):
    pass
from optbench.sweeper import register
register()
main()
"""


def timed(command: Sequence[str], folder: Path) -> tuple[float, list[tuple[float, str]]]:
    """Seconds of a command, and each line that it printed with the seconds until then."""
    begun = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines = [(time.perf_counter() - begun, line) for line in process.stdout]
    assert process.returncode == 0, "".join(line for _, line in lines[-20:])
    return time.perf_counter() - begun, lines


def seconds_to_import(module: str) -> float:
    return min(timed([sys.executable, "-c", f"import {module}"], Path.cwd())[0] for _ in range(2))


@pytest.mark.skipif(NUM_CORES < 2, reason="needs two cores")
def test_a_thousand_empty_trials_against_hydras_own_multirun(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(HYDRA_APPLICATION)
    plain = ("hydra/sweeper=basic", "hydra/launcher=basic", f"seed=range({NUM_HYDRA_JOBS})")
    hydra, _ = timed([sys.executable, "app.py", "-m", *EMPTY, "sweep=once", *plain], tmp_path)
    command = [sys.executable, "-m", "optbench", "sweep", *EMPTY, f"seed=range({NUM_TRIALS})", "executor.num_slots=2"]
    ours, lines = timed(command, tmp_path)
    assert len(list((tmp_path / "results/default/trials").iterdir())) == NUM_TRIALS
    first = next(seconds for seconds, line in lines if line.startswith("[1/"))
    torch = seconds_to_import("torch._dynamo")
    again, _ = timed(command, tmp_path)
    each, theirs = ours / NUM_TRIALS, hydra / NUM_HYDRA_JOBS
    print(
        f"\n{NUM_TRIALS} empty trials: {ours:.1f} s, {each * 1e3:.1f} ms each; Hydra's multirun of {NUM_HYDRA_JOBS} "
        f"jobs that do nothing: {theirs * 1e3:.1f} ms each, {theirs / each:.1f} times as long.\n"
        f"First trial done after {first:.1f} s, of which {torch:.1f} s is what importing torch takes by itself. "
        f"The same command again: {again:.1f} s."
    )
    assert theirs / each >= 8.0
    assert first - torch < 2.0 + 0.5 * torch  # two processes import it at once, beside the planning
    assert again < 5.0 * max(1.0, torch)


@pytest.mark.skipif(NUM_CORES < 2, reason="needs two cores")
def test_64_short_trials_on_two_cores_against_one(tmp_path: Path) -> None:
    trials = ("task=digits_mlp", "hardware=cpu", "optimizer=sgd,adam,adamw,lion", "seed=range(16)")
    command = [sys.executable, "-m", "optbench", "sweep", *trials]
    one, _ = timed([*command, "executor=serial", "results=one"], tmp_path)
    two, _ = timed([*command, "executor.num_slots=2", "results=two"], tmp_path)
    print(f"\n64 trials in a row on one core: {one:.1f} s; on two: {two:.1f} s, {one / two:.2f} times as fast")
    assert one / two >= 1.8


class Silent:
    """Watches, and does nothing."""

    is_requested = is_urgent = False

    def __init__(self) -> None:
        self.begun = 0.0
        self.ended = 0.0

    def started(self, slot: str, trial: Trial) -> None:
        self.begun = self.begun or time.perf_counter()

    def progressed(self, slot: str, step: int, loss: float | None) -> None: ...

    def measured(self, slot: str, measurement: Measurement) -> None: ...

    def finished(self, slot: str, trial: Trial, status: Status, *, reason: str | None, log: str | None) -> None:
        self.ended = time.perf_counter()

    def message(self, text: str) -> None: ...


def test_a_trial_in_a_sweep_against_its_bare_training(make_trial: MakeTrial, tmp_path: Path) -> None:
    trials = [make_trial(*EMPTY, f"seed={seed}") for seed in range(300)]
    context = Context(
        results=str(tmp_path),
        sweep="test",
        logger=component({"name": "none", "_target_": "optbench.loggers.NullLogger"}, group="logger"),
        allowed=(),
        limits=Limits(trial_seconds=None, no_progress_seconds=None, sweep_seconds=None, grace_seconds=1.0),
        checkpoint_seconds=900.0,
        hardware=(trials[0].hardware,),
    )
    for trial in trials[:20]:
        run(trial, on_measurement=lambda _: None)
    begun = time.perf_counter()
    for trial in trials:
        run(trial, on_measurement=lambda _: None)
    bare = (time.perf_counter() - begun) / len(trials)
    executor, watch = LocalExecutor(num_slots=1, jobs_per_gpu=1), Silent()
    try:
        executor.check(trials[:1], context)
        jobs = Listed(Job(trial=trial) for trial in trials)
        executor.execute(jobs, context=context, observer=watch, interruption=watch)
    finally:
        executor.close()
    assert len(Store(tmp_path, "test").statuses()) == len(trials)
    swept = (watch.ended - watch.begun) / len(trials)
    print(f"\na trial: {bare * 1e3:.1f} ms by itself, {(swept - bare) * 1e3:.1f} ms more to be handed over and stored")
    assert swept - bare < 0.015


MEMORY = """
import json, re, sys
from pathlib import Path
from optbench.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(json.dumps(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])))
"""


def test_the_memory_of_the_command_grows_by_less_than_10_kb_for_each_trial(tmp_path: Path) -> None:
    peaks = {}
    for num_trials in (1000, 10_000):
        command = [sys.executable, "-c", MEMORY, "plan", *EMPTY, f"seed=range({num_trials})"]
        _, lines = timed(command, tmp_path)
        peaks[num_trials] = json.loads(lines[-1][1]) * 1024
    each = (peaks[10_000] - peaks[1000]) / 9000
    print(f"\nthe command takes {each / 1024:.1f} KiB of memory more for each trial")
    assert 0 < each < 10_000
