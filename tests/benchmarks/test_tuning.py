"""What a search adds to each of its trials: asking for it, looking at its curve, telling how it ended."""

import time
from pathlib import Path

import pytest

from optbench.exploration import TuningBudget
from optbench.measurement import Status
from optbench.search import Dimension, Range, Study
from optbench.store import Store
from optbench.tuning import Method, TuningSource
from tests import handmade
from tests.test_tuning import bowl, measurement

NUM_SETTINGS = 200


@pytest.mark.parametrize("method", ["optuna", "random"])
def test_the_cost_of_a_trial_that_a_search_chose(tmp_path: Path, method: Method) -> None:
    dimensions = [
        Dimension(key="optimizer.lr", grid=[], values=Range(low=1e-5, high=1.0, log=True), when={}),
        Dimension(key="optimizer.weight_decay", grid=[], values=Range(low=0.0, high=0.2), when={}),
    ]
    study = Study(name="adamw", dimensions=dimensions, configs=lambda point: [handmade.config(point)])
    budget = TuningBudget(num_settings=NUM_SETTINGS, seconds=None)
    store = Store(tmp_path, "tuned")
    source = TuningSource([study], store=store, budget=budget, method=method, message=print)
    spent = dict.fromkeys(("ask", "look", "tell"), 0.0)
    num_trials = 0
    while not source.is_exhausted:
        start = time.perf_counter()
        job = source.next()
        spent["ask"] += time.perf_counter() - start
        assert job is not None
        loss, goes_on = bowl(job.trial), True
        start = time.perf_counter()
        for step in range(0, 101, 10):
            goes_on = goes_on and source.measured(job.trial, measurement(step, {"test_loss": loss + 1 - step / 100}))
        spent["look"] += time.perf_counter() - start
        result = handmade.result(loss, status=Status.COMPLETED if goes_on else Status.PRUNED)
        start = time.perf_counter()
        source.finished(job.trial, result.status, summary=result.summary, timing=result.timing)
        spent["tell"] += time.perf_counter() - start
        num_trials += 1
    costs = ", ".join(f"{name} {1000 * seconds / num_trials:.2f} ms" for name, seconds in spent.items())
    print(f"\n{method}, {num_trials} trials: {costs}")
    start = time.perf_counter()
    again = TuningSource([study], store=store, budget=budget, method=method, message=print)
    print(f"resumed in {1000 * (time.perf_counter() - start):.0f} ms")
    assert again.is_exhausted or method == "random"
    assert num_trials == NUM_SETTINGS
