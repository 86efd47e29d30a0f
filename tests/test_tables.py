"""From stored trials to rows: who is merged, who ranks where, and what a reader can see."""

import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from optbench import cells, tables
from optbench.measurement import Status
from optbench.run import Result
from optbench.store import Store
from optbench.tables import Row
from tests.handmade import FAILURES, result, trial

Trials = Iterable[tuple[Mapping[str, Any], Result]]
MakeIndex = Callable[[Trials], pd.DataFrame]
MakeRows = Callable[[Trials], list[Row]]

ADAMW, LION = {"optimizer.name": "adamw"}, {"optimizer.name": "lion"}
DIVERGED = result(status=Status.DIVERGED)


@pytest.fixture
def make_index(tmp_path: Path) -> MakeIndex:
    def make(trials: Trials) -> pd.DataFrame:
        store = Store(tmp_path, "sweep")
        for changes, found in trials:
            store.publish(trial(changes), found)
        return store.index()

    return make


@pytest.fixture
def make_rows(make_index: MakeIndex) -> MakeRows:
    return lambda trials: tables.rows(make_index(trials))


def seeds(changes: Mapping[str, Any], *found: float | Result) -> list[tuple[dict[str, Any], Result]]:
    """One trial for each result or test loss, with the seeds 0, 1, 2, ..."""
    return [
        ({**changes, "seed": seed}, each if isinstance(each, Result) else result(each))
        for seed, each in enumerate(found)
    ]


def names(table: Iterable[Row]) -> list[str]:
    return [row.optimizer for row in table]


def cell(row: Row, column: str) -> str:
    return str(cells.words([row])[column][0])


# Which trials make a row


def test_the_seeds_of_a_setting_make_one_row_with_their_mean(make_rows: MakeRows) -> None:
    (row,) = make_rows(seeds({}, 1.0, 2.0, 6.0))
    assert (row.task, row.optimizer, row.num_trials, row.mark) == ("blobs", "adamw", 3, "")
    estimate = row.metrics["test_loss"]
    assert (estimate.mean, estimate.low, estimate.high, estimate.num_values) == (3.0, 1.0, 6.0, 3)


def test_each_optimizer_and_each_setting_has_its_row(make_rows: MakeRows) -> None:
    table = make_rows(
        [*seeds(ADAMW, 1.0, 1.1), *seeds({**ADAMW, "optimizer.lr": 0.01}, 2.0, 2.1), *seeds(LION, 3.0, 3.1)]
    )
    assert [(row.optimizer, row.setting["lr"], row.num_trials) for row in table] == [
        ("adamw", 0.001, 2),
        ("adamw", 0.01, 2),
        ("lion", 0.001, 2),
    ]


def test_the_order_of_the_index_does_not_matter(make_index: MakeIndex) -> None:
    index = make_index(
        [*seeds(ADAMW, 1.0, 5.0, 3.0), *seeds(LION, 2.0, DIVERGED, 2.5), *seeds({"optimizer.lr": 1.0}, 9.0)]
    )
    before = index.copy(deep=True)
    table = tables.rows(index)
    assert tables.rows(index.iloc[::-1]) == table
    assert tables.rows(index.sample(frac=1.0, random_state=0)) == table
    pd.testing.assert_frame_equal(index, before)


def test_an_empty_index_is_an_empty_table(make_index: MakeIndex) -> None:
    index = make_index([])
    table = tables.rows(index)
    assert table == []
    assert len(cells.numbers(table)) == len(cells.words(table)) == 0
    assert cells.notes(table, index) == []


# Failures


@pytest.mark.parametrize("status", FAILURES)
def test_a_setting_with_a_failed_seed_ranks_below_all_without(make_rows: MakeRows, status: Status) -> None:
    lucky = seeds(LION, 0.001, result(status=status), 0.001)
    table = make_rows([*lucky, *seeds(ADAMW, 5.0, 5.0, 5.0), *seeds({"optimizer.lr": 1.0}, 9.0, 9.0, 9.0)])
    assert [(row.optimizer, row.mark) for row in table] == [("adamw", "best"), ("adamw", ""), ("lion", "")]
    assert table[-1].failures == {status: 1}
    assert table[-1].metrics["test_loss"].mean == 0.001
    assert table[-1].metrics["test_loss"].num_values == 2


def test_a_reader_sees_over_how_many_seeds_a_mean_is(make_rows: MakeRows) -> None:
    whole, part = make_rows([*seeds(ADAMW, 1.0, 1.0, 1.0), *seeds(LION, 0.5, DIVERGED, 0.5)])
    assert (cell(whole, "seeds"), cell(whole, "failed")) == ("3", "-")
    assert (cell(part, "seeds"), cell(part, "failed")) == ("2/3", "1 diverged")
    assert cell(part, "test loss") == "0.5 [0.5, 0.5]"


def test_a_setting_that_failed_more_often_ranks_lower(make_rows: MakeRows) -> None:
    once, twice = seeds(ADAMW, 2.0, 2.0, DIVERGED), seeds(LION, 1.0, DIVERGED, DIVERGED)
    assert names(make_rows([*twice, *once])) == ["adamw", "lion"]


def test_a_setting_whose_every_trial_failed_is_a_row_of_dashes(make_rows: MakeRows) -> None:
    crashed = Result(
        status=Status.CRASHED,
        summary={"num_steps": 0, "reason": "KeyError: 'x'"},
        curve={},
        timing={"train_seconds": 0.0, "step_seconds": None},
        environment=result().environment,
    )
    failed = [*seeds(LION, DIVERGED, DIVERGED), ({**LION, "seed": 2}, crashed)]
    table = make_rows([*seeds(ADAMW, 1.0, 1.0, 1.0), *failed, *seeds({"optimizer.name": "sgd"}, crashed)])
    assert names(table) == ["adamw", "lion", "sgd"]
    lion, sgd = table[1:]
    assert lion.metrics == sgd.metrics == {}
    assert lion.failures == {"diverged": 2, "crashed": 1}
    shown = cells.words(table)
    assert shown["test loss"].tolist() == ["1 [1, 1]", "-", "-"]
    assert shown["seeds"].tolist() == ["3", "0/3", "0/1"]
    assert shown["failed"].tolist() == ["-", "2 diverged, 1 crashed", "1 crashed"]
    assert shown.iloc[2][["step (ms)", "state (B/param)", "peak"]].tolist() == ["-", "-", "-"]


def test_nothing_is_best_where_every_setting_has_a_failure(make_rows: MakeRows) -> None:
    table = make_rows([*seeds(ADAMW, 1.0, DIVERGED), *seeds(LION, 2.0, DIVERGED)])
    assert [row.mark for row in table] == ["", ""]


def test_a_seed_that_ended_without_the_metric_is_no_reason_to_rank_first(make_rows: MakeRows) -> None:
    table = make_rows([*seeds(ADAMW, 1.0, 1.0, 1.0), *seeds(LION, 0.5, None, 0.5)])  # type: ignore[arg-type]
    assert [(row.optimizer, row.mark) for row in table] == [("adamw", "best"), ("lion", "")]
    assert (cell(table[1], "seeds"), cell(table[1], "test loss")) == ("3", "0.5 (2/3) [0.5, 0.5]")


# Ranks and ties


def test_the_best_is_the_best_by_the_direction_of_the_first_metric(make_rows: MakeRows) -> None:
    def accuracies(metrics: Mapping[str, str]) -> list[tuple[Mapping[str, Any], Result]]:
        low, high = result(1.0, test_accuracy=0.25), result(2.0, test_accuracy=0.5)
        return [({**ADAMW, "task.metrics": metrics}, low), ({**LION, "task.metrics": metrics}, high)]

    assert names(make_rows(accuracies({"test_accuracy": "max", "test_loss": "min"}))) == ["lion", "adamw"]


def test_the_lowest_loss_is_best(make_rows: MakeRows) -> None:
    table = make_rows([*seeds(LION, 2.0), *seeds(ADAMW, 1.0), *seeds({"optimizer.lr": 1.0}, 3.0)])
    assert [row.metrics["test_loss"].mean for row in table] == [1.0, 2.0, 3.0]
    assert [row.mark for row in table] == ["best", "", ""]


def test_the_second_metric_decides_where_the_first_is_equal(make_rows: MakeRows) -> None:
    worse, better = result(1.0, test_accuracy=0.5), result(1.0, test_accuracy=0.75)
    assert names(make_rows([(ADAMW, worse), (LION, better)])) == ["lion", "adamw"]


def test_a_tie_is_what_the_shared_seeds_cannot_tell_apart(make_rows: MakeRows) -> None:
    table = make_rows(
        [
            *seeds({"optimizer.name": "best"}, 1.0, 2.0, 3.0),
            *seeds({"optimizer.name": "sometimes better"}, 1.5, 1.5, 3.5),
            *seeds({"optimizer.name": "always a little worse"}, 1.2, 2.2, 3.2),
            *seeds({"optimizer.name": "sometimes gone"}, 1.0, 2.0, DIVERGED),
        ]
    )
    assert {row.optimizer: row.mark for row in table} == {
        "best": "best",
        "sometimes better": "tie",
        "always a little worse": "",
        "sometimes gone": "",
    }
    assert sorted(cells.words(table)[""]) == ["", "", "=", "★"]


def test_a_setting_alone_is_not_called_best(make_rows: MakeRows) -> None:
    assert [row.mark for row in make_rows(seeds({}, 1.0, 2.0))] == [""]


def test_tasks_are_ranked_apart(make_rows: MakeRows) -> None:
    other = {"task.name": "rings"}
    table = make_rows(
        [
            *seeds(ADAMW, 1.0),
            *seeds(LION, 2.0),
            *seeds({**ADAMW, **other}, 200.0),
            *seeds({**LION, **other}, 100.0),
        ]
    )
    ranked = {task: [(row.optimizer, row.mark) for row in table if row.task == task] for task in ("blobs", "rings")}
    assert ranked == {
        "blobs": [("adamw", "best"), ("lion", "")],
        "rings": [("lion", "best"), ("adamw", "")],
    }


def test_a_task_of_another_size_or_other_data_is_another_task(make_rows: MakeRows) -> None:
    table = make_rows(
        [
            *seeds(ADAMW, 1.0),
            *seeds({**ADAMW, "task.batch_size": 8}, 0.1),
            *seeds({**ADAMW, "data.name": "stars"}, 0.2),
            *seeds({**LION, "data.name": "stars"}, 0.3),
        ]
    )
    assert {(row.task, row.optimizer, row.mark) for row in table} == {
        ("blobs batch_size=64 data=points", "adamw", ""),
        ("blobs batch_size=8 data=points", "adamw", ""),
        ("blobs batch_size=64 data=stars", "adamw", "best"),
        ("blobs batch_size=64 data=stars", "lion", ""),
    }


def test_a_task_with_and_without_data_are_told_apart(make_rows: MakeRows) -> None:
    table = make_rows([*seeds({}, 1.0), *seeds({"data": None}, 2.0), *seeds({**LION, "data": ...}, 3.0)])
    assert [(row.task, row.optimizer) for row in table if "null" in row.task] == [
        ("blobs data=null", "adamw"),
        ("blobs data=null", "lion"),
    ]
    assert {row.task for row in table} == {"blobs data=points", "blobs data=null"}


# Which keys are shown


def settings(table: Iterable[Row]) -> set[str]:
    return set(cells.words(list(table))["setting"])


def test_keys_that_differ_are_shown_and_equal_ones_are_not(make_rows: MakeRows) -> None:
    lower, other = {"optimizer.lr": 0.0001}, {"optimizer.betas": [0.9, 0.99], "schedule.warmup": 0.1}
    assert settings(make_rows([*seeds(lower, 1.0), *seeds(other, 2.0)])) == {
        "lr=0.0001 betas=[0.9,0.999] schedule.warmup=0",
        "lr=0.001 betas=[0.9,0.99] schedule.warmup=0.1",
    }


def test_the_learning_rate_is_always_shown(make_rows: MakeRows) -> None:
    (row,) = make_rows(seeds({}, 1.0))
    assert row.setting == {"lr": 0.001}


def test_an_optimizer_is_compared_with_its_own_settings_alone(make_rows: MakeRows) -> None:
    lion = {**LION, "optimizer.betas": [0.95, 0.98], "optimizer._target_": "lion_pytorch.Lion", "optimizer.lr": 0.0001}
    assert settings(make_rows([*seeds(ADAMW, 1.0), *seeds(lion, 2.0)])) == {"lr=0.001", "lr=0.0001"}


def test_a_key_that_one_setting_lacks_is_shown_by_the_other(make_rows: MakeRows) -> None:
    assert settings(make_rows([*seeds({}, 1.0), *seeds({"optimizer.maximize": True}, 2.0)])) == {
        "lr=0.001",
        "lr=0.001 maximize=true",
    }


def test_a_schedule_is_told_by_its_name_and_by_what_else_differs(make_rows: MakeRows) -> None:
    cosine = {"schedule.name": "cosine", "schedule._target_": "optbench.schedule.cosine", "schedule.final_factor": 0.0}
    assert settings(
        make_rows([*seeds({}, 1.0), *seeds(cosine, 2.0), *seeds({**cosine, "schedule.final_factor": 0.1}, 2.0)])
    ) == {
        "lr=0.001 schedule=constant",
        "lr=0.001 schedule=cosine schedule.final_factor=0",
        "lr=0.001 schedule=cosine schedule.final_factor=0.1",
    }


def test_parameter_groups_are_told_by_their_name_and_by_what_differs_under_it(make_rows: MakeRows) -> None:
    def grouped(name: str, *groups: Mapping[str, Any]) -> dict[str, Any]:
        target = "optbench.optim.param_groups.ordered"
        return {"param_groups": {"name": name, "_target_": target, "groups": list(groups)}}

    bias = {"match": "bias", "lr": 0.1}
    norm = {"match": "norm", "weight_decay": None}
    plain, no_decay = seeds({}, 0.5), seeds(grouped("no_decay", {"match": "vector"}), 1.0)
    assert settings(make_rows([*plain, *no_decay, *seeds(grouped("patterns", bias), 2.0)])) == {
        "lr=0.001 param_groups=null",
        "lr=0.001 param_groups=no_decay",
        "lr=0.001 param_groups=patterns",
    }
    both = [*seeds(grouped("patterns", bias), 2.0), *seeds(grouped("patterns", bias, norm), 2.0)]
    assert settings(make_rows([*plain, *no_decay, *both])) == {
        "lr=0.001 param_groups=null",
        "lr=0.001 param_groups=no_decay",
        "lr=0.001 param_groups=patterns param_groups.groups=[{match: bias, lr: 0.1}]",
        "lr=0.001 param_groups=patterns param_groups.groups=[{match: bias, lr: 0.1},{match: norm, weight_decay: null}]",
    }


def test_two_classes_under_one_name_are_told_apart(make_rows: MakeRows) -> None:
    assert settings(make_rows([*seeds({}, 1.0), *seeds({"optimizer._target_": "my_lab.AdamW"}, 2.0)])) == {
        "_target_=torch.optim.AdamW lr=0.001",
        "_target_=my_lab.AdamW lr=0.001",
    }


def test_whole_numbers_and_floats_are_told_apart_like_the_trials_are(make_rows: MakeRows) -> None:
    table = make_rows([*seeds({"optimizer.power": 1}, 1.0), *seeds({"optimizer.power": 1.0}, 2.0)])
    assert [row.setting["power"] for row in table] == [1, 1.0]
    assert [type(row.setting["power"]) for row in table] == [int, float]


def test_descriptions_are_no_difference(make_rows: MakeRows) -> None:
    table = make_rows(
        [
            *seeds({"seed": 0}, 1.0),
            ({"seed": 1, "data.path": "/elsewhere", "optimizer.convention": {"momentum": "?"}}, result(2.0)),
            ({"seed": 2, "task.num_steps": 50, "budget.num_steps": 100}, result(3.0)),
        ]
    )
    (row,) = table
    assert (row.num_trials, row.setting, row.task) == (3, {"lr": 0.001}, "blobs")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1e-8, "1e-08"),
        (0.1 + 0.2, "0.3"),
        (None, "null"),
        (True, "true"),
        ([0.9, 0.999], "[0.9,0.999]"),
        ("inf", "inf"),
    ],
)
def test_values_are_shown_as_an_override_spells_them(make_rows: MakeRows, value: object, shown: str) -> None:
    table = make_rows([*seeds({"optimizer.x": value}, 1.0), *seeds({"optimizer.x": "other"}, 2.0)])
    assert cell(table[0], "setting") == f"lr=0.001 x={shown}"


# Targets and costs

TARGET = {"target.metric": "test_loss", "target.value": 0.1}


def reached(step: int) -> Result:
    return result(0.1, status=Status.REACHED_TARGET, steps_to_target=step, seconds_to_target=step / 10)


def test_steps_to_target_are_over_the_trials_that_reached_it(make_rows: MakeRows) -> None:
    (row,) = make_rows(seeds(TARGET, reached(10), reached(30), 0.2, DIVERGED))
    assert (row.num_reached, row.num_trials) == (2, 4)
    assert row.steps_to_target is not None
    assert row.seconds_to_target is not None
    assert (row.steps_to_target.mean, row.seconds_to_target.mean) == (20.0, 2.0)
    assert cell(row, "to target") == "20 steps, 2 s (2/4)"


def test_a_target_that_was_never_reached_says_so(make_rows: MakeRows) -> None:
    (row,) = make_rows(seeds(TARGET, 0.2, 0.2))
    assert (row.num_reached, row.steps_to_target, row.seconds_to_target) == (0, None, None)
    assert cell(row, "to target") == "never (0/2)"
    assert cells.numbers([row])["num_reached"].tolist() == [0]
    assert cells.numbers([row])["steps_to_target"].isna().all()


def test_without_a_target_no_column_speaks_of_one(make_rows: MakeRows) -> None:
    table = make_rows(seeds({}, 1.0, 2.0))
    assert table[0].num_reached is None
    assert not [name for name in (*cells.words(table), *cells.numbers(table)) if "target" in name or "reached" in name]


def test_a_setting_without_a_target_beside_one_with_it_has_a_dash(make_rows: MakeRows) -> None:
    table = make_rows([*seeds(TARGET, reached(10)), *seeds({}, 1.0)])
    assert cells.words(table)["to target"].tolist() == ["10 steps, 1 s (1/1)", "-"]


def test_costs_are_the_median_step_the_state_per_parameter_and_the_largest_peak(make_rows: MakeRows) -> None:
    found = [result(1.0, peak_bytes=peak) for peak in (1024, 3 * 2**20, None)]
    for each, step_seconds in zip(found, (0.001, 0.002, 0.009), strict=True):
        each.timing["step_seconds"] = step_seconds  # type: ignore[index]
    (row,) = make_rows(seeds({}, *found))
    assert (row.step_seconds, row.state_bytes_per_parameter, row.peak_bytes) == (0.002, 8.0, 3 * 2**20)
    assert [cell(row, name) for name in ("step (ms)", "state (B/param)", "peak")] == ["2", "8.00", "3 MiB"]


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1.5 * 2**20, "1.5 MiB"), (80 * 2**30, "80 GiB")],
)
def test_bytes_are_shown_in_binary_units(make_rows: MakeRows, count: float, shown: str) -> None:
    (row,) = make_rows(seeds({}, result(peak_bytes=count)))
    assert cell(row, "peak") == shown


def test_accuracies_are_shown_in_percent(make_rows: MakeRows) -> None:
    (row,) = make_rows(seeds({}, result(test_accuracy=0.5), result(test_accuracy=0.75)))
    assert cell(row, "test accuracy") == "62.50 % [50.0, 75.0]"


# Numbers and notes


def test_the_frame_is_read_back_from_csv_as_numbers(make_rows: MakeRows) -> None:
    table = make_rows(
        [*seeds(ADAMW, 0.1, 0.2, 0.4), *seeds(LION, 0.3, DIVERGED, 0.7), *seeds({"optimizer.lr": 1.0}, DIVERGED)]
    )
    csv = cells.numbers(table).to_csv(index=False)
    found = pd.read_csv(io.StringIO(csv))
    text = {"task", "optimizer", "setting", "mark"}
    assert all(pd.api.types.is_numeric_dtype(found[name]) for name in found if name not in text)
    means = [row.metrics["test_loss"].mean for row in table[:2]]
    assert found["test_loss"].tolist()[:2] == pytest.approx(means, rel=1e-15)
    assert found["test_loss_low"].tolist()[:2] == [0.1, 0.3]
    assert found["test_loss_high"].tolist()[:2] == [0.4, 0.7]
    assert found["test_loss_num_seeds"].tolist() == [3, 2, 0]
    assert found["num_trials"].tolist() == [3, 3, 1]
    assert found["num_succeeded"].tolist() == [3, 2, 0]
    assert found["num_diverged"].tolist() == [0, 1, 1]
    assert found["num_crashed"].tolist() == [0, 0, 0]
    assert found["test_loss"].isna().tolist() == [False, False, True]
    assert found["mark"].fillna("").tolist() == ["best", "", ""]


def test_one_seed_has_no_interval_in_words_or_numbers(make_rows: MakeRows) -> None:
    (row,) = make_rows(seeds({}, 0.5))
    assert cell(row, "test loss") == "0.5"
    assert cells.numbers([row])[["test_loss_low", "test_loss_high"]].isna().all(axis=None)


def notes(make_index: MakeIndex, trials: Trials) -> str:
    index = make_index(trials)
    return "\n".join(cells.notes(tables.rows(index), index))


def test_the_notes_warn_of_one_seed(make_index: MakeIndex) -> None:
    assert "one seed has no interval" in notes(make_index, [*seeds(ADAMW, 1.0, 1.1), *seeds(LION, 2.0)])


def test_the_notes_say_how_little_few_seeds_promise(make_index: MakeIndex) -> None:
    found = notes(make_index, [*seeds(ADAMW, 1.0, 1.1, 1.2), *seeds(LION, 2.0, 2.1, 2.2)])
    assert "one seed" not in found
    assert "over 3 seeds 75 % of the time" in found
    assert "★" in found


def test_the_notes_of_many_seeds_and_no_failure_are_without_warnings(make_index: MakeIndex) -> None:
    step, peak = notes(make_index, seeds({}, *(float(seed) for seed in range(8)))).splitlines()
    assert step.startswith("step: ")
    assert peak.startswith("peak: ")


def test_the_notes_say_where_the_times_come_from(make_index: MakeIndex) -> None:
    on_gpu = result()
    on_gpu.environment.update({"device": "H200", "device_type": "cuda", "num_threads": 4})  # type: ignore[attr-defined]
    found = notes(make_index, seeds({}, 1.0, on_gpu))
    assert "on Abacus 3, H200 (1, 4 thread(s))" in found
    assert "as the trials ran" in found


def test_failures_are_explained(make_index: MakeIndex) -> None:
    assert "the means are over the others" in notes(make_index, seeds({}, 1.0, DIVERGED))


def test_an_equal_tuning_budget_is_stated(make_index: MakeIndex) -> None:
    trials = [
        *seeds(ADAMW, 1.0),
        *seeds({**ADAMW, "optimizer.lr": 0.01}, 1.1),
        *seeds(LION, 2.0),
        *seeds({**LION, "optimizer.lr": 0.01}, 2.0),
    ]
    assert "Tuning budget: 2 settings of each optimizer." in notes(make_index, trials)


def test_an_unequal_tuning_budget_is_stated_with_what_follows(make_index: MakeIndex) -> None:
    found = notes(make_index, [*seeds(ADAMW, 1.0), *seeds({**ADAMW, "optimizer.lr": 0.01}, 1.1), *seeds(LION, 2.0)])
    assert "Tuning budgets differ" in found
    assert "adamw 2, lion 1" in found


def test_one_setting_of_each_optimizer_is_no_tuning(make_index: MakeIndex) -> None:
    assert "uning" not in notes(make_index, [*seeds(ADAMW, 1.0), *seeds(LION, 2.0)])


def test_trials_that_ran_side_by_side_are_said_to_slow_each_other_down(make_index: MakeIndex) -> None:
    beside = result()
    beside.environment.update({"trials_at_a_time": 2})  # type: ignore[attr-defined]
    assert "up to 2 at a time" in notes(make_index, seeds({}, 1.0, beside))


def test_trials_that_ran_alone_are_not(make_index: MakeIndex) -> None:
    assert "at a time" not in notes(make_index, seeds({}, 1.0))
