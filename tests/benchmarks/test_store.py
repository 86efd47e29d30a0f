"""Ten thousand stored trials: reading them back through the index, against reading the files."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from optbench import tables
from optbench.measurement import Status
from optbench.run import Result
from optbench.store import Store
from optbench.trial import Trial
from tests.conftest import MakeTrial

NUM_TRIALS = 10_000
NUM_SEEDS = 5


@pytest.fixture(scope="module")
def store(make_trial: MakeTrial, tmp_path_factory: pytest.TempPathFactory) -> Store:
    filled = Store(tmp_path_factory.mktemp("results"), "many")
    base = make_trial("task=quadratic_deep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)  # durability is not what is timed here
        for number in range(NUM_TRIALS):
            filled.publish(trial(base, number), result(number))
    filled.index()
    return filled


def trial(base: Trial, number: int) -> Trial:
    setting, seed = divmod(number, NUM_SEEDS)
    config: dict[str, Any] = json.loads(json.dumps(base.config))
    names = ("sgd", "adam", "adamw", "lion")
    config["optimizer"] |= {"name": names[setting % len(names)], "lr": 1e-6 * (1 + setting)}
    return Trial.from_config({**config, "seed": seed})


def result(number: int) -> Result:
    steps = list(range(0, 701, 7))
    losses = [100.0 / (1 + step) + number * 1e-6 for step in steps]
    return Result(
        status=Status.COMPLETED if number % 97 else Status.DIVERGED,
        summary={
            "num_steps": 700,
            "train_loss": losses[-1],
            "test_loss": losses[-1],
            "num_parameters": 100,
            "state_bytes": 800,
            "peak_bytes": 5000,
        },
        curve={
            "step": steps,
            "seconds": [step * 1e-3 for step in steps],
            "lr": [0.1] * len(steps),
            "test_loss": losses,
        },
        timing={"train_seconds": 0.7, "step_seconds": 0.001},
        environment={"device": "CPU", "device_type": "cpu", "num_threads": 1, "packages": {}, "commit": None},
    )


def test_the_index_against_the_files(store: Store, benchmark: BenchmarkFixture) -> None:
    table = benchmark.pedantic(lambda: tables.rows(store.index()), rounds=5, warmup_rounds=1)
    assert sum(row.num_trials for row in table) == NUM_TRIALS
    start = time.perf_counter()
    for file in Path(store.folder, "trials").iterdir():
        json.loads(file.read_bytes())
    ratio = min(benchmark.stats.stats.data) / (time.perf_counter() - start)
    benchmark.extra_info["ratio_to_reading_the_files"] = ratio
    print(f"\n{NUM_TRIALS} trials: {min(benchmark.stats.stats.data):.2f} s, {ratio:.2f} times reading the files")
    assert ratio < 1.0
