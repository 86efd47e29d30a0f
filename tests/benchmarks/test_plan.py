"""Ten thousand stored trials: finding out that nothing is to be run, against reading the files."""

import json
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from optbench import plan
from optbench.store import Store
from optbench.trial import Trial
from tests.benchmarks.test_store import NUM_TRIALS, result, trial
from tests.conftest import MakeTrial


@pytest.fixture(scope="module")
def trials(make_trial: MakeTrial) -> list[Trial]:
    base = make_trial("task=quadratic_deep")
    made = [trial(base, number) for number in range(NUM_TRIALS)]
    assert len({each.id for each in made}) == NUM_TRIALS  # ids are kept, and not what is timed here
    return made


@pytest.fixture(scope="module")
def store(trials: list[Trial], tmp_path_factory: pytest.TempPathFactory) -> Store:
    filled = Store(tmp_path_factory.mktemp("results"), "many")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)  # durability is not what is timed here
        for number, each in enumerate(trials):
            filled.publish(each, result(number))
    filled.index()
    return filled


@pytest.mark.parametrize("rerun", [[], ["stale"]], ids=["as it is", "stale"])
def test_planning_against_reading_the_files(
    store: Store, trials: list[Trial], benchmark: BenchmarkFixture, rerun: list[str]
) -> None:
    made = benchmark.pedantic(lambda: plan.make(iter(trials), store=store, rerun=rerun), rounds=5, warmup_rounds=1)
    assert len(made.trials) == NUM_TRIALS
    assert len(made.jobs) == (NUM_TRIALS if rerun else 0), "these were stored on another device"
    start = time.perf_counter()
    for file in Path(store.folder, "trials").iterdir():
        json.loads(file.read_bytes())
    seconds = min(benchmark.stats.stats.data)
    ratio = seconds / (time.perf_counter() - start)
    benchmark.extra_info["ratio_to_reading_the_files"] = ratio
    print(f"\n{NUM_TRIALS} trials: {seconds:.2f} s, {seconds / NUM_TRIALS * 1e6:.0f} us each, {ratio:.2f} of reading")
    assert ratio < 0.7
