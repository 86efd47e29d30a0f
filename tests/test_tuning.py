"""Searches for the best point, with objectives that are computed instead of trained."""

import errno
import fcntl
import math
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optbench import lease
from optbench.errors import UsageError
from optbench.execution import Job
from optbench.exploration import TuningBudget
from optbench.journal import Lock
from optbench.measurement import Measurement, Status
from optbench.samplers import Told
from optbench.search import Choices, Dimension, Range, Study
from optbench.store import Store
from optbench.trial import Trial
from optbench.tuning import Method, TuningSource
from tests import handmade

LR = Range(low=1e-5, high=1.0, log=True)
DECAY = Range(low=0.0, high=0.2)
Objective = Callable[[Trial], float]


def dimension(name: str, values: Range | Choices, when: Mapping[str, Sequence[Any]] | None = None) -> Dimension:
    keys = {f"optimizer.{key}": list(allowed) for key, allowed in (when or {}).items()}
    return Dimension(key=f"optimizer.{name}", grid=[], values=values, when=keys)


def study(
    *dimensions: Dimension, name: str = "adamw", seeds: Sequence[int] = (0,), changes: Mapping[str, Any] | None = None
) -> Study:
    fixed = {"optimizer.name": name, **(changes or {})}

    def configs(point: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [handmade.config({**fixed, **point, "seed": seed}) for seed in seeds]

    return Study(
        name=f"optimizer={name} task=blobs",
        dimensions=dimensions or (dimension("lr", LR), dimension("weight_decay", DECAY)),
        configs=configs,
    )


def bowl(trial: Trial) -> float:
    """Least at lr=0.01 and weight_decay=0.1."""
    lr, decay = (trial.optimizer.arguments[key] for key in ("lr", "weight_decay"))
    return float((math.log10(lr) + 2.0) ** 2 + (10.0 * decay - 1.0) ** 2)


class Driver:
    """What runs the trials of a source: it computes, stores, and tells."""

    def __init__(self, folder: Path, *, objective: Objective = bowl, seconds: float = 2.0) -> None:
        self.store = Store(folder, "tuned")
        self.objective = objective
        self.seconds = seconds
        self.trained: Counter[str] = Counter()
        self.messages: list[str] = []

    def source(
        self,
        *studies: Study,
        n: int | None = None,
        seconds: float | None = None,
        method: Method = "optuna",
        rerun: Sequence[str] = (),
        seed: int = 0,
        prunes: bool = True,
    ) -> TuningSource:
        return TuningSource(
            studies or [study()],
            store=self.store,
            budget=TuningBudget(num_settings=n, seconds=seconds),
            method=method,
            rerun=rerun,
            seed=seed,
            prunes=prunes,
            message=self.messages.append,
        )

    def train(self, source: TuningSource, job: Job, status: Status = Status.COMPLETED) -> None:
        """Run a trial to its end; a loss that is not finite is a divergence."""
        loss = self.objective(job.trial)
        if status is Status.COMPLETED and not math.isfinite(loss):
            status = Status.DIVERGED
        for step in range(0, 101, 10):
            metrics = {"test_loss": loss + (1.0 - step / 100)}
            if status is Status.COMPLETED and not source.measured(job.trial, measurement(step, metrics)):
                status = Status.PRUNED
        self.trained[job.trial.id] += 1
        result = replace(
            handmade.result(loss if math.isfinite(loss) else None, status=status),
            timing={"train_seconds": self.seconds},
        )
        self.store.publish(job.trial, result, replaces=job.replaces)
        source.finished(job.trial, result.status, summary=result.summary, timing=result.timing)

    def run(self, source: TuningSource) -> TuningSource:
        """Run all, one at a time."""
        while (job := source.next()) is not None:
            self.train(source, job)
        assert source.is_exhausted
        return source


def measurement(step: int, metrics: Mapping[str, float]) -> Measurement:
    return Measurement(step=step, seconds=0.1, lr=0.1, gradient_evaluations=step, metrics=metrics)


def told(source: TuningSource, index: int = 0) -> list[Told]:
    return sorted(source._explorations[index].sampler.told.values(), key=lambda each: each.number)


def journal_of(driver: Driver) -> Path:
    (path,) = driver.store.folder.glob("studies/*.journal")
    return path


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path)


METHODS: Sequence[Method] = ("optuna", "random")


@pytest.mark.parametrize("method", METHODS)
def test_every_study_gets_as_many_settings_as_the_budget_says(driver: Driver, method: Method) -> None:
    source = driver.source(study(), study(name="lion"), n=12, method=method)
    assert source.num_trials == 24
    driver.run(source)
    assert [found.num_settings for found in source.found] == [12, 12]
    assert source.num_trials == len(driver.trained) == 24


def test_the_best_point_is_the_one_with_the_least_loss(driver: Driver) -> None:
    (found,) = driver.run(driver.source(n=20, prunes=False)).found
    losses = {each.outcome.value: each.point for each in told(driver.source(n=20, prunes=False))}
    assert found.best_value == min(value for value in losses if value is not None)
    assert found.best == losses[found.best_value]
    assert (found.metric, found.direction, found.num_seeds, found.seconds) == ("test_loss", "min", 1, 40.0)


def test_tpe_finds_a_lower_loss_than_random_points(tmp_path: Path) -> None:
    best: dict[Method, list[float]] = {"optuna": [], "random": []}
    for method, values in best.items():
        for seed in range(3):
            driver = Driver(tmp_path / f"{method}{seed}")
            (found,) = driver.run(driver.source(n=40, method=method, seed=seed, prunes=False)).found
            assert found.best_value is not None
            values.append(found.best_value)
    assert sum(best["optuna"]) < 0.5 * sum(best["random"])


def test_a_metric_that_is_better_the_higher_is_searched_for_its_maximum(tmp_path: Path) -> None:
    driver = Driver(tmp_path, objective=lambda trial: -bowl(trial))
    higher = study(changes={"task.metrics": {"test_loss": "max"}})
    (found,) = driver.run(driver.source(higher, n=40, prunes=False)).found
    assert found.direction == "max"
    assert found.best is not None
    assert found.best_value is not None
    assert found.best_value > -0.2
    assert found.best["optimizer.lr"] == pytest.approx(0.01, rel=2.0)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_chooses_the_same_points_and_another_one_others(tmp_path: Path, method: Method) -> None:
    points = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        driver = Driver(tmp_path / folder)
        points.append([each.point for each in told(driver.run(driver.source(n=15, method=method, seed=seed)))])
    assert points[0] == points[1] != points[2]


@pytest.mark.parametrize("method", METHODS)
def test_a_key_is_searched_only_where_its_condition_holds(driver: Driver, method: Method) -> None:
    conditional = study(
        dimension("lr", LR),
        dimension("amsgrad", Choices(values=[True, False])),
        dimension("weight_decay", DECAY, {"amsgrad": [True]}),
    )
    points = [each.point for each in told(driver.run(driver.source(conditional, n=25, method=method)))]
    assert all(("optimizer.weight_decay" in point) == point["optimizer.amsgrad"] for point in points)
    assert {point["optimizer.amsgrad"] for point in points} == {True, False}


@pytest.mark.parametrize("method", METHODS)
def test_a_condition_on_a_key_that_is_not_searched_goes_by_its_value(driver: Driver, method: Method) -> None:
    conditional = study(
        dimension("lr", LR),
        dimension("eps", LR, {"weight_decay": [0.5]}),
        dimension("foreach", Choices(values=[True, False]), {"weight_decay": [0.01]}),
    )
    points = [each.point for each in told(driver.run(driver.source(conditional, n=5, method=method)))]
    assert all(point.keys() == {"optimizer.lr", "optimizer.foreach"} for point in points)


@pytest.mark.parametrize("method", METHODS)
def test_lists_integers_numbers_and_null_are_values_like_any_other(driver: Driver, method: Method) -> None:
    values: dict[str, Range | Choices] = {
        "betas": Choices(values=[[0.9, 0.999], [0.95, 0.98]]),
        "maximize": Choices(values=[None, "yes"]),
        "weight_decay": Choices(values=[0.1, 0.0, 0.01]),
        "steps": Range(low=1, high=4, integer=True),
        "lr": LR,
    }
    source = driver.run(driver.source(study(*(dimension(*item) for item in values.items())), n=25, method=method))
    for each in told(source):
        for name, allowed in values.items():
            value = each.point[f"optimizer.{name}"]
            if isinstance(allowed, Choices):
                assert value in allowed.values
            else:
                assert allowed.low <= value <= allowed.high
        assert type(each.point["optimizer.steps"]) is int
        assert each.point["optimizer.lr"] == float(f"{each.point['optimizer.lr']:.6g}")
    assert {str(each.point["optimizer.betas"]) for each in told(source)} == {"[0.9, 0.999]", "[0.95, 0.98]"}


@pytest.mark.parametrize("method", METHODS)
def test_a_search_of_few_values_tries_each_once_and_ends(driver: Driver, method: Method) -> None:
    few = study(
        dimension("lr", Choices(values=[0.1, 0.01, 0.001])), dimension("betas", Choices(values=[[0, 1], [1, 1]]))
    )
    (found,) = driver.run(driver.source(few, n=50, method=method)).found
    assert found.num_settings == len(driver.trained) == 6
    assert driver.run(driver.source(few, n=50, method=method)).found == [found]
    assert set(driver.trained.values()) == {1}


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_in_seconds_is_spent_and_the_same_for_all(tmp_path: Path, method: Method) -> None:
    driver = Driver(tmp_path, seconds=2.0)
    source = driver.source(study(), study(name="lion"), seconds=9.0, method=method)
    driver.run(source)
    assert [found.seconds for found in source.found] == [10.0, 10.0]
    again = driver.source(study(), study(name="lion"), seconds=9.0, method=method)
    assert driver.run(again).found == source.found
    assert set(driver.trained.values()) == {1}
    longer = driver.source(study(), study(name="lion"), seconds=15.0, method=method)
    assert [found.num_settings for found in driver.run(longer).found] == [8, 8]


def test_what_is_under_way_counts_in_a_budget_of_seconds(driver: Driver) -> None:
    source = driver.source(seconds=10.0)
    first = source.next()
    assert first is not None
    driver.train(source, first)
    started = [job for _ in range(10) if (job := source.next()) is not None]
    assert len(started) == 4
    assert not source.is_exhausted
    assert source.num_trials == 5
    for job in started:
        driver.train(source, job)
    assert source.is_exhausted


@pytest.mark.parametrize("method", METHODS)
def test_a_study_whose_trials_all_crash_at_once_ends_though_no_seconds_are_spent(
    driver: Driver, method: Method
) -> None:
    source = driver.source(seconds=10.0, method=method)
    while (job := source.next()) is not None:
        driver.seconds = 0.0
        driver.train(source, job, Status.CRASHED)
    assert source.is_exhausted
    assert 5 < source.found[0].num_failed < 50


@pytest.mark.parametrize("budget", [{"n": 10}, {"seconds": 20.0}])
def test_an_interrupted_sweep_has_spent_about_as_much_on_every_study(driver: Driver, budget: dict[str, Any]) -> None:
    studies = [study(name=name) for name in ("adamw", "lion", "sgd")]
    source = driver.source(*studies, **budget)
    for number in range(30):
        job = source.next()
        assert job is not None
        driver.train(source, job)
        counts = [found.num_settings for found in source.found]
        assert max(counts) - min(counts) <= 1
        if number % 7 == 0:
            source = driver.source(*studies, **budget)


def test_a_budget_is_needed_and_above_0() -> None:
    with pytest.raises(UsageError, match="a search needs a budget"):
        TuningBudget(num_settings=None, seconds=None)
    with pytest.raises(UsageError, match="n=0: it must be above 0"):
        TuningBudget(num_settings=0, seconds=None)
    with pytest.raises(UsageError, match=r"sweep\.seconds=nan"):
        TuningBudget(num_settings=5, seconds=math.nan)


@pytest.mark.parametrize("method", METHODS)
def test_a_point_with_several_seeds_is_told_with_their_mean_when_all_have_ended(tmp_path: Path, method: Method) -> None:
    driver = Driver(tmp_path, objective=lambda trial: bowl(trial) + trial.seed)
    source = driver.source(study(seeds=range(3)), n=10, method=method)
    jobs = [source.next() for _ in range(3)]
    for number, job in enumerate(jobs):
        assert job is not None
        assert source.found[0].num_settings == 0
        assert job.trial.seed == number
        driver.train(source, job)
    (first,) = told(source)
    assert jobs[0] is not None
    assert first.outcome.value == pytest.approx(bowl(jobs[0].trial) + 1.0)
    assert first.outcome.seconds == 6.0
    driver.run(source)
    assert (source.found[0].num_settings, source.found[0].num_pruned, len(driver.trained)) == (10, 0, 30)


def test_a_bad_curve_is_pruned_once_there_are_others_to_compare_it_with(driver: Driver) -> None:
    source = driver.source(n=40)
    driver.run(source)
    (found,) = source.found
    assert 10 <= found.num_pruned <= 30
    pruned = [each for each in told(source) if each.outcome.status is Status.PRUNED]
    assert pruned[0].number >= 5
    stored = [driver.store.read(trial_id) for trial_id in driver.trained]
    assert sum(record is not None and record["status"] == "pruned" for record in stored) == found.num_pruned
    assert found.best_value is not None
    assert found.best_value < 0.5


def test_a_trial_is_not_pruned_early_nor_at_its_end_nor_without_a_number(driver: Driver) -> None:
    source = driver.source(n=40)
    for _ in range(8):
        job = source.next()
        assert job is not None
        driver.train(source, job)
    job = source.next()
    assert job is not None
    assert source.measured(job.trial, measurement(10, {"test_loss": 1e9}))
    assert source.measured(job.trial, measurement(50, {"test_loss": math.inf}))
    assert source.measured(job.trial, measurement(50, {"train_loss": 1e9}))
    last = Measurement(
        step=100, seconds=1, lr=1, gradient_evaluations=1, metrics={"test_loss": 1e9}, status=Status.COMPLETED
    )
    assert source.measured(job.trial, last)
    assert not source.measured(job.trial, measurement(50, {"test_loss": 1e9}))


def test_the_pruner_looks_at_few_rows_of_a_long_curve(driver: Driver) -> None:
    long = study(changes={"budget.num_steps": 10_000, "evaluation.every_num_steps": 10})
    (exploration,) = driver.source(long, n=1)._explorations
    looks = [step for step in range(10_001) if exploration.is_looked_at(step)]
    assert looks[0] >= 2000
    assert 10 < len(looks) < 40


def test_points_that_diverge_are_kept_away_from(tmp_path: Path) -> None:
    driver = Driver(
        tmp_path, objective=lambda trial: math.inf if trial.optimizer.arguments["lr"] > 1e-3 else bowl(trial)
    )
    source = driver.run(driver.source(n=60, prunes=False))
    assert source.found[0].num_failed > 0
    late = told(source)[30:]
    assert sum(each.outcome.value is None for each in late) < len(late) / 3
    assert source.found[0].best_value is not None
    assert source.found[0].best_value < 1.5


@pytest.mark.parametrize("status", [status for status in Status if status.failed])
@pytest.mark.parametrize("method", METHODS)
def test_a_failed_trial_uses_up_its_setting(driver: Driver, method: Method, status: Status) -> None:
    source = driver.source(n=4, method=method)
    for each in (status, Status.COMPLETED, status, Status.COMPLETED):
        job = source.next()
        assert job is not None
        driver.train(source, job, each)
    assert source.is_exhausted
    assert (source.found[0].num_failed, source.found[0].num_settings) == (2, 4)
    assert driver.run(driver.source(n=4, method=method)).found == source.found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_seeds", [1, 2])
def test_a_search_that_is_dropped_at_random_moments_ends_as_if_it_had_not_been(
    tmp_path: Path, method: Method, num_seeds: int
) -> None:
    """The driver is gone between any two of: asking, measuring, storing, telling."""
    driver, dice = Driver(tmp_path), random.Random(num_seeds)
    studies = [study(seeds=range(num_seeds)), study(name="lion", seeds=range(num_seeds))]
    source, num_drops = driver.source(*studies, n=15, method=method), 0
    while not source.is_exhausted:
        jobs = [job for _ in range(dice.randint(1, 4)) if (job := source.next()) is not None]
        for job in jobs:
            what = dice.random()
            if what < 0.15:
                break
            if what < 0.3:  # stored, and not told
                driver.trained[job.trial.id] += 1
                driver.store.publish(job.trial, handmade.result(bowl(job.trial)), replaces=job.replaces)
                break
            driver.train(source, job)
        else:
            continue
        source, num_drops = driver.source(*studies, n=15, method=method), num_drops + 1
    assert num_drops > 5
    assert [found.num_settings for found in source.found] == [15, 15]
    assert set(driver.trained.values()) == {1}
    assert len(driver.trained) == 30 * num_seeds
    assert driver.messages == []


def test_a_search_that_is_resumed_after_each_trial_chooses_the_points_that_it_would_have_chosen(tmp_path: Path) -> None:
    whole, parts = Driver(tmp_path / "whole"), Driver(tmp_path / "parts")
    expected = [each.point for each in told(whole.run(whole.source(n=20)))]
    while not (source := parts.source(n=20)).is_exhausted:
        job = source.next()
        assert job is not None
        parts.train(source, job)
    assert [each.point for each in told(source)] == expected


@pytest.mark.parametrize("method", METHODS)
def test_what_the_store_has_is_not_trained_again(tmp_path: Path, method: Method) -> None:
    first, second = Driver(tmp_path), Driver(tmp_path)
    first.run(first.source(n=8, method=method, prunes=False))
    for path in tmp_path.glob("*/studies/*"):
        path.unlink()
    source = second.run(second.source(n=8, method=method, prunes=False))
    assert source.found[0].num_settings == 8
    assert not second.trained
    assert source.num_trials == 0


def test_more_settings_go_on_from_those_there_are(driver: Driver) -> None:
    driver.run(driver.source(n=5))
    driver.run(driver.source(n=9))
    assert len(driver.trained) == 9


def test_another_question_is_another_study(driver: Driver) -> None:
    driver.run(driver.source(n=3))
    driver.run(driver.source(study(changes={"budget.num_steps": 7}), n=3))
    driver.run(driver.source(study(dimension("lr", DECAY)), n=3))
    driver.run(driver.source(n=3, seed=1))
    assert len(list(driver.store.folder.glob("studies/*.journal"))) == 4
    assert len(driver.trained) == 12


def test_a_preempted_trial_is_run_again_in_place_of_what_was_stored(driver: Driver) -> None:
    source = driver.source(n=1)
    job = source.next()
    assert job is not None
    driver.train(source, job, Status.PREEMPTED)
    assert not source.is_exhausted
    for resumed in (source, driver.source(n=1)):
        again = resumed.next()
        assert again is not None
        assert again.trial.id == job.trial.id
        assert again.replaces == driver.store.modified_ns(job.trial.id)
        job = again
    driver.train(resumed, job)
    record = driver.store.read(job.trial.id)
    assert record is not None
    assert record["status"] == "completed"
    assert resumed.is_exhausted


def test_a_pruned_result_counts_for_optuna_and_not_for_random_points(driver: Driver) -> None:
    random_source = driver.source(n=1, method="random")
    job = random_source.next()
    assert job is not None
    driver.store.publish(job.trial, handmade.result(status=Status.PRUNED))
    again = driver.source(n=1, method="random").next()
    assert again is not None
    assert again.replaces == driver.store.modified_ns(job.trial.id)

    optuna_source = driver.source(n=1)
    asked = optuna_source.next()
    assert asked is not None
    driver.store.publish(asked.trial, handmade.result(status=Status.PRUNED))
    resumed = driver.source(n=1)
    assert resumed.is_exhausted
    assert (resumed.found[0].num_pruned, resumed.found[0].num_settings) == (1, 1)


@pytest.mark.parametrize("method", METHODS)
def test_results_that_are_to_be_made_again_are_and_take_the_place_of_the_old(driver: Driver, method: Method) -> None:
    source = driver.source(n=6, method=method, prunes=False)
    for status in [Status.COMPLETED, Status.DIVERGED, Status.CRASHED] * 2:
        job = source.next()
        assert job is not None
        driver.train(source, job, status)
    failed = [each for each in driver.trained if (driver.store.read(each) or {})["status"] != "completed"]
    again = driver.source(n=6, method=method, prunes=False, rerun=failed)
    assert again.num_trials <= 6
    driver.run(again)
    (found,) = again.found
    assert (found.num_settings, found.num_failed) == (6, 0)
    assert sorted(driver.trained.values()) == [1, 1, 2, 2, 2, 2]
    assert driver.source(n=6, method=method, prunes=False).found == [found]


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_that_was_put_back_is_given_again_after_the_others(driver: Driver, method: Method) -> None:
    source = driver.source(n=3, method=method)
    held = source.next()
    assert held is not None
    source.put_back(held)
    others = [source.next(), source.next()]
    assert held not in others
    assert None not in others
    assert source.next() == held
    assert source.next() is None
    assert not source.is_exhausted


def test_a_trial_that_two_studies_ask_for_is_run_once(driver: Driver) -> None:
    values = dimension("lr", Choices(values=[0.1, 0.01]))
    twin = Study(name="twin", dimensions=study(values).dimensions, configs=study(values).configs)
    source = driver.run(driver.source(study(values), twin, n=2))
    assert [found.num_settings for found in source.found] == [2, 2]
    assert sorted(driver.trained.values()) == [1, 1]


def test_two_drivers_share_a_study(tmp_path: Path) -> None:
    """Each sees what the other has asked, and a trial that the other is at comes back as stored."""
    drivers = [Driver(tmp_path), Driver(tmp_path)]
    sources = [driver.source(n=20) for driver in drivers]
    dice, running = random.Random(0), list[tuple[int, Job]]()
    while not all(source.is_exhausted for source in sources):
        number = dice.randrange(2)
        job = sources[number].next()
        if job is not None:
            record = drivers[number].store.read(job.trial.id)
            if record is not None:
                sources[number].finished(
                    job.trial, Status(record["status"]), summary=record["summary"], timing=record["timing"]
                )
            elif any(job.trial.id == other.trial.id for _, other in running):
                sources[number].put_back(job)
            else:
                running.append((number, job))
        if running and dice.random() < 0.6:
            number, job = running.pop(dice.randrange(len(running)))
            drivers[number].train(sources[number], job)
    assert all(source.found[0].num_settings == 20 for source in sources)
    assert sum((driver.trained for driver in drivers), Counter()).total() == 20
    assert all(driver.trained for driver in drivers)


def test_what_another_driver_was_at_when_it_was_killed_is_taken_over(tmp_path: Path) -> None:
    gone, left = Driver(tmp_path), Driver(tmp_path)
    source = left.source(n=3)
    lost = gone.source(n=3)
    assert lost.next() is not None
    assert lost.next() is not None
    left.run(source)
    assert source.found[0].num_settings == 3
    assert len(left.trained) == 3


def drive(folder: str, name: str) -> None:
    """A driver in a process of its own, that takes leases as executors do, and says of each trial that it is stored."""
    driver = Driver(Path(folder))
    source = driver.source(study(), study(name="lion"), n=12)
    print("here", flush=True)
    while not source.is_exhausted:
        job = source.next()
        taken = None if job is None else lease.take(driver.store.folder, job.trial.id)
        if job is None or taken is None:
            if job is not None:
                source.put_back(job)
            time.sleep(0.01)
            continue
        record = driver.store.read(job.trial.id)
        if record is not None:
            source.finished(job.trial, Status(record["status"]), summary=record["summary"], timing=record["timing"])
        else:
            driver.train(source, job)
            with Path(folder, f"{name}.txt").open("a") as file:
                file.write(f"{job.trial.id}\n")
        taken.release()
    print("all done", driver.messages, flush=True)


def test_two_drivers_that_are_killed_again_and_again_lose_nothing_and_train_nothing_twice(tmp_path: Path) -> None:
    dice, ends = random.Random(0), []
    for number in range(3):
        script = "import sys; from tests.test_tuning import drive; drive(*sys.argv[1:])"
        pair = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(tmp_path), f"{number}{which}"],
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parent.parent,
            )
            for which in "ab"
        ]
        for process in pair:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
        if number < 2:
            time.sleep(dice.uniform(0.0, 0.3))
            for process in pair:
                process.kill()
        ends = [process.communicate()[0] for process in pair]
    assert ends == ["all done []\n"] * 2
    driver = Driver(tmp_path)
    source = driver.source(study(), study(name="lion"), n=12)
    assert source.is_exhausted
    assert [found.num_settings for found in source.found] == [12, 12]
    trained = [line for path in tmp_path.glob("*.txt") for line in path.read_text().split()]
    assert len(trained) == len(set(trained))
    assert len(driver.store.index()) == 24


def test_a_journal_that_was_cut_off_at_any_byte_ends_with_its_last_whole_line(driver: Driver) -> None:
    driver.run(driver.source(n=6))
    journal = journal_of(driver)
    whole = journal.read_bytes()
    for size in range(len(whole) - 700, len(whole)):
        journal.write_bytes(whole[:size])
        with Lock(journal):
            assert journal.read_bytes() == whole[: whole[:size].rfind(b"\n") + 1]


def test_a_journal_that_was_cut_off_in_any_of_its_last_lines_is_gone_on_with(driver: Driver) -> None:
    driver.run(driver.source(n=6))
    journal = journal_of(driver)
    whole = journal.read_bytes()
    expected = driver.source(n=6).found
    start = len(whole)
    for line in reversed(whole.splitlines(keepends=True)[-15:]):
        start -= len(line)
        for size in (start, start + 1, start + len(line) - 1):
            journal.write_bytes(whole[:size])
            assert driver.run(driver.source(n=6)).found == expected, size
    assert driver.messages == []
    assert set(driver.trained.values()) == {1}


@pytest.mark.parametrize("rest", [b"", b'{"op_code": 4', b"\0\0\0\0", b"\0\0\n", b"[1]\n", b"17\n", b'{"op_co\n'])
def test_what_a_killed_writer_left_at_the_end_of_a_journal_is_cut_off(driver: Driver, rest: bytes) -> None:
    driver.run(driver.source(n=3))
    journal = journal_of(driver)
    whole = journal.read_bytes()
    journal.write_bytes(whole + rest)
    source = driver.source(n=5)
    assert journal.read_bytes().startswith(whole)
    driver.run(source)
    assert driver.run(driver.source(n=5)).found[0].num_settings == 5
    assert len(driver.trained) == 5
    assert driver.messages == []


def test_what_another_writer_left_half_written_does_not_spoil_the_next_line(driver: Driver) -> None:
    source = driver.source(n=5)
    job = source.next()
    assert job is not None
    with journal_of(driver).open("ab") as file:
        file.write(b'{"op_code": 8, "wor')
    driver.train(source, job)
    driver.run(source)
    assert driver.run(driver.source(n=5)).found[0].num_settings == 5
    assert driver.messages == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [*lines[:5], b"no json\n", *lines[5:]],
        lambda lines: [*lines[:5], b'{"op_code": 99}\n', *lines[5:]],
        lambda lines: [line.replace(b'"outcome"', b'"outcomf"') for line in lines],
        lambda lines: [line.replace(b'"trial_id"', b'"trial_ie"') for line in lines],
        lambda lines: [os.urandom(5000) + b"\n{}\n" for _ in lines[:1]],
    ],
)
def test_a_damaged_journal_is_set_aside_and_made_anew_from_the_store(
    driver: Driver, damage: Callable[[list[bytes]], list[bytes]]
) -> None:
    conditional = study(
        dimension("lr", LR),
        dimension("betas", Choices(values=[[0.9, 0.999], [0.8, 0.9]])),
        dimension("weight_decay", Choices(values=[0.0, 0.1, 0.2]), {"betas": [[0.8, 0.9]]}),
        dimension("steps", Range(low=1, high=9, integer=True)),
    )
    expected = driver.run(driver.source(conditional, n=8)).found
    driver.run(driver.source(study(name="lion"), n=2))
    (journal,) = driver.store.folder.glob("studies/*adamw*.journal")
    journal.write_bytes(b"".join(damage(journal.read_bytes().splitlines(keepends=True))))
    source = driver.source(conditional, n=8)
    assert source.is_exhausted
    assert source.found == expected
    (message,) = driver.messages
    assert "could not be read" in message
    assert len(list(driver.store.folder.glob("studies/*.damaged"))) == 1
    assert driver.run(driver.source(conditional, n=10)).found[0].num_settings == 10
    assert set(driver.trained.values()) == {1}
    assert len(driver.messages) == 1


def test_a_journal_without_flock_is_locked_by_a_file(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    driver.run(driver.source(n=3))
    assert driver.run(driver.source(n=3)).found[0].num_settings == 3
    assert not list(driver.store.folder.glob("studies/*.journal.lock"))


def test_a_lock_is_held_against_others_and_may_be_taken_twice(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    with Lock(journal) as lock:
        with lock, (tmp_path / "study.lock").open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with (tmp_path / "study.lock").open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (tmp_path / "study.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_search_prints_nothing(driver: Driver, capfd: pytest.CaptureFixture[str]) -> None:
    driver.run(driver.source(n=15))
    driver.run(driver.source(n=15))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("method", METHODS)
def test_the_trials_are_those_asked_for_by_this_command_and_earlier_ones(driver: Driver, method: Method) -> None:
    driver.run(driver.source(study(), n=3, method=method))
    source = driver.source(study(), study(name="lion"), n=3, method=method)
    driver.run(source)
    assert {trial.id for trial in source.trials} == set(driver.trained)
    assert [trial.optimizer.name for trial in source.trials] == ["adamw"] * 3 + ["lion"] * 3


def test_a_study_without_anything_to_search_has_one_point(driver: Driver) -> None:
    fixed = Study(name="fixed", dimensions=(), configs=study().configs)
    assert driver.run(driver.source(fixed, n=5)).found[0].best == {}
    assert len(driver.trained) == 1


def test_an_example_of_each_study_can_be_checked_before_any_trial_starts(driver: Driver) -> None:
    source = driver.source(study(), study(name="lion"), n=1)
    assert [trial.optimizer.name for trial in source.examples] == ["adamw", "lion"]


def test_a_search_imports_optuna_only_where_it_is_used() -> None:
    script = (
        "import sys, optbench.tuning; print([name for name in ('optuna', 'torch', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
