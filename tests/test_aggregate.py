"""Several tasks together: against brute force, and with the same denominators for all."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from optbench.aggregate import Aggregate, aggregate, interquartile_mean
from optbench.curves import Curves
from optbench.measurement import Status
from optbench.store import Store
from tests.handmade import trial
from tests.reports import START, STEPS, contests_of, ended, fill, normal, optimizer

Fields = Mapping[str, Mapping[str, Sequence[float | Status]]]
SEEDS = 5

# On a, adamw is first and the others tie; on b, lion and adamw tie; on c, lion fails once.
FIELDS: Fields = {
    "a": {
        "adamw": [1.0, 1.1, 1.2, 1.1, 0.9],
        "lion": [3.0, 3.1, 2.8, 3.2, 2.9],
        "sgd": [3.1, 2.9, 3.0, 3.1, 2.9],
    },
    "b": {
        "adamw": [2.0, 2.2, 2.1, 1.9, 2.0],
        "lion": [2.1, 2.1, 2.0, 2.0, 2.0],
        "sgd": [6.0, 6.1, 6.2, 6.3, 6.0],
    },
    "c": {
        "adamw": [4.0, 4.1, 4.2, 4.3, 4.0],
        "lion": [0.5, 0.6, 0.5, 0.4, Status.DIVERGED],
        "sgd": [8.0, 8.1, 8.2, 8.3, 8.0],
    },
}


def aggregate_of(fields: Fields, folder: Path) -> Aggregate | None:
    store = Store(folder, "sweep")
    for task, own in fields.items():
        for name, losses in own.items():
            fill(store, {"task.name": task, **optimizer(name)}, losses)
    return aggregate(contests_of(store), curves=Curves(store.read))


@pytest.fixture
def found(tmp_path: Path) -> Aggregate:
    made = aggregate_of(FIELDS, tmp_path)
    assert made is not None
    return made


def test_ranks_are_shared_by_those_that_are_not_told_apart(found: Aggregate) -> None:
    assert found.ranks == {
        "adamw": {"a": 1.0, "b": 1.5, "c": 1.0},
        "lion": {"a": 2.5, "b": 1.5, "c": 3.0},
        "sgd": {"a": 2.5, "b": 3.0, "c": 2.0},
    }


def test_a_failure_counts_in_every_rank(found: Aggregate) -> None:
    """Lion has the best losses on c, and the worst rank, since one of its seeds diverged."""
    assert found.ranks["lion"]["c"] == 3.0
    assert found.num_failed == {"adamw": 0, "lion": 1, "sgd": 0}
    assert found.num_trials == dict.fromkeys(("adamw", "lion", "sgd"), 15)


def test_optimizers_come_by_their_mean_rank(found: Aggregate) -> None:
    assert found.optimizers == ["adamw", "lion", "sgd"]
    for name, ranks in found.ranks.items():
        assert found.mean_ranks[name].mean == pytest.approx(sum(ranks.values()) / 3)
        assert found.mean_ranks[name].num_values == 3


def scores_by_hand(task: str, name: str) -> list[float]:
    """0 at the start, 1 at the best mean of the task, 0 for failures."""
    means = {
        other: np.mean([loss for loss in losses if not isinstance(loss, Status)])
        for other, losses in FIELDS[task].items()
    }
    best = min(means.values())
    losses = FIELDS[task][name]
    return [0.0 if isinstance(loss, Status) else max(0.0, (START - loss) / (START - best)) for loss in losses]


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd"])
def test_the_score_is_the_interquartile_mean_over_all_trials(found: Aggregate, name: str) -> None:
    trim_mean = pytest.importorskip("scipy.stats").trim_mean
    pooled = [score for task in FIELDS for score in scores_by_hand(task, name)]
    score = found.scores[name]
    assert score.mean == pytest.approx(trim_mean(pooled, 0.25))
    assert score.num_values == 15
    assert score.low is not None
    assert score.high is not None
    assert score.low <= score.mean <= score.high


@pytest.mark.parametrize("name", ["lion", "sgd"])
def test_the_probability_of_improvement_is_over_all_pairs_of_trials(found: Aggregate, name: str) -> None:
    by_task = []
    for task in FIELDS:
        pairs = list(itertools.product(scores_by_hand(task, name), scores_by_hand(task, "adamw")))
        by_task.append(np.mean([1.0 if own > other else 0.5 if own == other else 0.0 for own, other in pairs]))
    assert found.reference == "adamw"
    assert found.improvement[name].mean == pytest.approx(np.mean(by_task))
    assert "adamw" not in found.improvement


@pytest.mark.parametrize("size", range(1, 14))
def test_the_interquartile_mean_cuts_a_quarter_at_each_end(size: int) -> None:
    trim_mean = pytest.importorskip("scipy.stats").trim_mean
    values = np.random.default_rng(size).normal(size=(3, size))
    assert interquartile_mean(values) == pytest.approx(trim_mean(values, 0.25, axis=-1))


def test_the_interval_of_a_score_holds_what_more_seeds_would_say(tmp_path: Path) -> None:
    """Nine times in ten or more, over samples of seeds from a known distribution."""
    generator = np.random.default_rng(1)
    held = 0
    num_samples = 40
    for number in range(num_samples):
        fields = {task: {"adamw": [1.0] * 10, "sgd": generator.normal(5.0, 1.0, 10).tolist()} for task in ("a", "b")}
        made = aggregate_of(fields, tmp_path / str(number))
        assert made is not None
        score = made.scores["sgd"]
        assert score.low is not None
        assert score.high is not None
        held += score.low <= 5.0 / 9.0 <= score.high
    assert held >= 0.8 * num_samples


# Equal denominators


def test_who_did_not_run_everywhere_is_not_comparable(tmp_path: Path) -> None:
    fields = {**FIELDS, "a": {**FIELDS["a"], "muon": [0.1] * 5}}
    made = aggregate_of(fields, tmp_path)
    assert made is not None
    assert "muon" not in made.optimizers
    assert made.left_out == {"muon": "ran on 1 of 3 tasks"}


def test_controls_are_not_ranked(tmp_path: Path) -> None:
    made = aggregate_of({task: {**own, "null": [START] * 5} for task, own in FIELDS.items()}, tmp_path)
    assert made is not None
    assert "null" not in [*made.optimizers, *made.left_out]


@pytest.mark.parametrize(
    "fields",
    [
        {"a": FIELDS["a"]},
        {"a": {"adamw": [1.0]}, "b": {"adamw": [1.0]}},
        {"a": {"adamw": [1.0], "lion": [1.0]}, "b": {"sgd": [1.0], "muon": [1.0]}},
        {"a": {"adamw": [1.0], "lion": [1.0]}, "b": {"adamw": [1.0], "null": [1.0]}},
    ],
)
def test_without_two_tasks_in_common_nothing_is_compared(fields: Fields, tmp_path: Path) -> None:
    assert aggregate_of(fields, tmp_path) is None


# Profiles


def test_a_profile_has_the_first_step_at_which_the_target_was_reached(found: Aggregate) -> None:
    profile = found.profile
    assert profile is not None
    assert profile.targets == {"a": "test_loss <= 1.2", "b": "test_loss <= 2.2", "c": "test_loss <= 4.3"}
    assert sorted(profile.problems) == [f"{task} seed {seed}" for task in "abc" for seed in range(SEEDS)]
    reached = dict(zip(profile.problems, profile.steps["lion"], strict=True))
    assert all(reached[f"a seed {seed}"] == math.inf for seed in range(SEEDS))
    parts = dict(zip(STEPS, [0.0, 0.5, 0.8, 0.95, 1.0], strict=True))
    for seed, loss in enumerate(FIELDS["b"]["lion"]):
        assert isinstance(loss, float)
        first = next((step for step, part in parts.items() if START + part * (loss - START) <= 2.2), math.inf)
        assert reached[f"b seed {seed}"] == first


def test_who_sets_the_target_reaches_it_from_every_seed(found: Aggregate) -> None:
    assert found.profile is not None
    assert all(math.isfinite(step) for step in found.profile.steps["adamw"])


def test_a_trial_that_diverged_never_reaches_a_target_that_it_had_not_reached_before(tmp_path: Path) -> None:
    fields: Fields = {
        task: {"adamw": [0.1, 0.1], "lion": [0.1, Status.DIVERGED], "sgd": normal(2, mean=5.0, deviation=1.0)}
        for task in ("a", "b")
    }
    made = aggregate_of(fields, tmp_path)
    assert made is not None
    assert made.profile is not None
    assert made.profile.steps["lion"] == [100.0, math.inf, 100.0, math.inf]


def test_a_trial_that_diverged_after_the_target_has_not_reached_it(tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    for task in ("a", "b"):
        fill(store, {"task.name": task, **optimizer("adamw")}, [5.0, 5.0])
        for seed in range(2):
            asked = trial({"task.name": task, **optimizer("lion"), "seed": seed})
            store.publish(asked, replace(ended(0.1, seed=seed), status=Status.DIVERGED, summary={"num_steps": 100}))
    made = aggregate(contests_of(store), curves=Curves(store.read))
    assert made is not None
    assert made.profile is not None
    assert set(made.profile.steps["lion"]) == {math.inf}


def test_every_optimizer_counts_with_the_same_seeds(tmp_path: Path) -> None:
    """The same losses everywhere, from ten seeds here and two there, or the other way round."""
    losses = {"easy": [1.0] * 10, "hard": [9.0] * 10}
    fields: Fields = {
        "easy": {"adamw": losses["easy"], "lion": losses["easy"][:2], "sgd": [0.5] * 10},
        "hard": {"adamw": losses["hard"][:2], "lion": losses["hard"], "sgd": [0.5] * 10},
    }
    made = aggregate_of(fields, tmp_path)
    assert made is not None
    assert made.scores["adamw"] == made.scores["lion"]
    assert set(made.num_trials.values()) == {4}


def test_where_nobody_learns_nobody_scores(tmp_path: Path) -> None:
    fields: Fields = {task: {"adamw": [START + 1.0] * 2, "lion": [START + 9.0] * 2} for task in ("a", "b")}
    made = aggregate_of(fields, tmp_path)
    assert made is not None
    assert {score.mean for score in made.scores.values()} == {0.0}
    assert made.improvement["lion"].mean == 0.5


def test_a_task_on_which_everything_failed_counts_as_nothing_for_all(tmp_path: Path) -> None:
    fields: Fields = {
        "a": {"adamw": [1.0, 1.1], "lion": [2.0, 2.1]},
        "b": {"adamw": [Status.CRASHED] * 2, "lion": [Status.CRASHED] * 2},
    }
    made = aggregate_of(fields, tmp_path)
    assert made is not None
    assert made.ranks["adamw"]["b"] == made.ranks["lion"]["b"] == 1.5


def test_steps_to_a_target_are_what_is_scored_where_there_is_one(tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    for task, (name, steps) in itertools.product("ab", {"adamw": 20, "lion": 80}.items()):
        for seed in range(2):
            target = {"target.metric": "test_loss", "target.value": 1.0}
            asked = trial({"task.name": task, **optimizer(name), **target, "seed": seed})
            store.publish(asked, ended(0.9, seed=seed, steps_to_target=steps, seconds_to_target=1.0))
    made = aggregate(contests_of(store), curves=Curves(store.read))
    assert made is not None
    assert made.scores["adamw"].mean == 1.0
    assert made.scores["lion"].mean == 0.25
    assert made.improvement["lion"].mean == 0.0


def test_the_same_trials_give_the_same_figures(found: Aggregate, tmp_path: Path) -> None:
    assert aggregate_of(FIELDS, tmp_path / "again") == found
