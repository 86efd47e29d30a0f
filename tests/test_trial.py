"""A trial: what names it, and what is refused before it starts."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from optbench.component import component
from optbench.errors import UsageError
from optbench.parsing import json_safe, parse
from optbench.store import Store
from optbench.trial import Budget, Target, Trial
from tests.conftest import MakeTrial
from tests.handmade import CONFIG, config, result, trial

# Of `trial()`: if it changes, every stored result is trained again, under another name.
ID = "12649c10a8c07fdf"

DIFFERENT: dict[str, Any] = {
    "task.name": "rings",
    "task._target_": "my_lab.tasks.Rings",
    "task.batch_size": 32,
    "task.new": None,
    "data": None,
    "data.name": "stars",
    "data._target_": "my_lab.data.other",
    "data.size": 10,
    "optimizer.name": "adamw2",
    "optimizer._target_": "my_lab.AdamW",
    "optimizer.lr": 0.0010000000000000002,
    "optimizer.betas": [0.9, 0.99],
    "optimizer.weight_decay": None,
    "schedule.name": "flat",
    "schedule._target_": "my_lab.flat",
    "schedule.warmup": 0.1,
    "budget.num_steps": 101,
    "budget.seconds": 10.0,
    "task.num_steps": 101,
    "evaluation.every_num_steps": 11,
    "task.evaluate_every_num_steps": 11,
    "divergence.max_loss": 1e5,
    "hardware.device": "cpu",
    "hardware.num_threads": 2,
    "seed": 1,
}

SAME: dict[str, dict[str, Any]] = {
    "the logger": {"logger": {"name": "wandb", "_target_": "optbench.loggers.WandbLogger", "project": "p"}},
    "the sweep": {"sweep": {"name": "another", "params": {}, "rerun": "crashed"}},
    "no logger, sweep or folder": {"logger": ..., "sweep": ..., "results": ...},
    "the results folder": {"results": "/elsewhere"},
    "the path of the data": {"data.path": "/elsewhere"},
    "no path of the data": {"data.path": ...},
    "the optimizer's convention": {"optimizer.convention": {"momentum": "accumulates"}},
    "a convention more": {"schedule.convention": "as in the paper", "task.convention": "?", "data.convention": "?"},
    "the metrics": {"task.metrics": {"test_accuracy": "max"}},
    "no metrics": {"task.metrics": ...},
    "advice spelt out": {"budget.num_steps": 100, "evaluation.every_num_steps": 10},
    "advice not taken": {
        "budget.num_steps": 100,
        "evaluation.every_num_steps": 10,
        "task.num_steps": 7,
        "task.evaluate_every_num_steps": 3,
    },
    "1e-3": {"optimizer.lr": 1e-3},
    "a whole number for a float": {"divergence.max_loss": 1000000},
    "a tuple for a list": {"optimizer.betas": (0.9, 0.999)},
}


# The id


def test_the_id_stays_what_it_is() -> None:
    assert trial().id == ID


def test_the_id_is_the_same_in_every_process_whatever_the_order_of_the_keys() -> None:
    code = (
        "import json, sys; from optbench.trial import Trial; c = json.loads(sys.argv[1]);"
        "print(Trial.from_config(dict(reversed(c.items()))).id, 'torch' in sys.modules)"
    )
    for salt in ("1", "2"):
        shown = subprocess.run(
            [sys.executable, "-c", code, json.dumps(CONFIG)],
            env={"PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert shown == f"{ID} False\n"


@pytest.mark.parametrize("key", DIFFERENT)
def test_another_question_has_another_id(key: str) -> None:
    assert trial({key: DIFFERENT[key]}).id != ID


def test_no_two_of_many_questions_share_an_id() -> None:
    # What the task advises and what the budget asks is one question in two spellings.
    spelt_twice = {"task.num_steps", "task.evaluate_every_num_steps"}
    questions = [{}, *({key: value} for key, value in DIFFERENT.items() if key not in spelt_twice)]
    questions += [{"target.metric": metric, "target.value": 0.5} for metric in ("test_loss", "test_accuracy")]
    questions += [{"target.metric": "test_loss", "target.value": 0.25}]
    assert len({trial(changes).id for changes in questions}) == len(questions)


@pytest.mark.parametrize("what", SAME)
def test_the_same_question_has_the_same_id(what: str) -> None:
    assert trial(SAME[what]).id == ID


@pytest.mark.parametrize(("key", "whole"), [("budget.seconds", 10), ("target.value", 1), ("divergence.max_loss", 100)])
def test_a_whole_number_is_as_good_as_the_float_that_is_expected(key: str, whole: int) -> None:
    target = {"target.metric": "test_loss", "target.value": 0.5}
    assert trial({**target, key: whole}).id == trial({**target, key: float(whole)}).id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["optimizer.lr=0.001"], ["optimizer.lr=1e-3"]),
        (["optimizer.lr=1"], ["optimizer.lr=1.0"]),
        (["optimizer.betas=[0.9,0.999]"], []),
        (["budget.num_steps=1100"], []),
        (["optimizer.lr=0.1", "seed=1"], ["seed=1", "optimizer.lr=0.1"]),
        (["logger=wandb", "results=elsewhere", "sweep.name=other"], []),
        (["divergence.max_loss=1000000"], []),
    ],
    ids=str,
)
def test_overrides_that_mean_the_same_make_the_same_trial(
    make_trial: MakeTrial, one: list[str], other: list[str]
) -> None:
    assert make_trial(*one).id == make_trial(*other).id


def test_an_id_is_a_plain_file_name() -> None:
    assert len(ID) == 16
    assert set(ID) <= set("0123456789abcdef")


# What a trial holds


def test_a_trial_takes_the_advice_of_its_task_where_nothing_is_asked() -> None:
    advised = trial()
    assert advised.budget == Budget(num_steps=100, seconds=None)
    assert advised.evaluation.every_num_steps == 10
    asked = trial({"budget.seconds": 3, "evaluation.every_num_steps": 7})
    assert asked.budget == Budget(num_steps=None, seconds=3.0)
    assert asked.evaluation.every_num_steps == 7


def test_a_component_keeps_what_is_an_argument_and_nothing_else() -> None:
    made = trial()
    assert made.task.arguments == {"batch_size": 64}
    assert made.optimizer.arguments == {"lr": 0.001, "betas": [0.9, 0.999], "weight_decay": 0.01}
    assert (made.optimizer.name, made.optimizer.target) == ("adamw", "torch.optim.AdamW")
    assert made.data is not None
    assert made.data.arguments == {"sha256": "0" * 64, "path": None}


def test_the_stored_config_says_what_was_run_and_can_be_run_again() -> None:
    made = trial({"logger.project": "secret"})
    assert {"logger", "sweep", "results"}.isdisjoint(made.config)
    assert made.config["budget"] == {"num_steps": 100, "seconds": None}
    assert made.config["evaluation"] == {"every_num_steps": 10}
    assert made.config["optimizer"]["convention"] == {"momentum": "averages"}
    again = Trial.from_config(json.loads(json.dumps(json_safe(made.config))))
    assert again.id == made.id


def test_making_a_trial_leaves_the_config_as_it_was() -> None:
    given = config()
    Trial.from_config(given)
    assert given == CONFIG


@pytest.mark.parametrize(
    ("direction", "met", "missed"), [("min", [0.4, 0.5], [0.6, math.inf]), ("max", [0.5, 0.6], [0.4, -math.inf])]
)
def test_a_target_is_met_on_its_side_of_the_value_and_never_by_nan(
    direction: Any, met: list[float], missed: list[float]
) -> None:
    target = Target(metric="x", value=0.5, direction=direction)
    assert all(target.is_met({"x": value}) for value in met)
    assert not any(target.is_met({"x": value}) for value in [*missed, math.nan])
    assert not target.is_met({"y": 0.5}), "a metric that was not measured is not met"


@pytest.mark.parametrize(("metric", "direction"), [("test_loss", "min"), ("test_accuracy", "max")])
def test_the_direction_of_a_target_is_its_metrics(metric: str, direction: Any) -> None:
    target = trial({"target.metric": metric, "target.value": 1}).target
    assert target == Target(metric=metric, value=1.0, direction=direction)


def test_without_a_metric_and_a_value_there_is_no_target() -> None:
    assert trial().target is None


def test_values_that_json_lacks_keep_their_names() -> None:
    value = {"a": math.inf, "b": (1.0, -math.inf, [math.nan]), 3: "text", "d": None, "e": True}
    assert json_safe(value) == {"a": "inf", "b": [1.0, "-inf", ["nan"]], "3": "text", "d": None, "e": True}


def test_an_infinite_hyperparameter_reaches_the_stored_file(tmp_path: Any) -> None:
    made = trial({"optimizer.clip": math.inf})
    assert made.id not in (ID, trial({"optimizer.clip": None}).id, trial({"optimizer.clip": -math.inf}).id)
    record = json.loads(Store(tmp_path, "sweep").publish(made, result()).read_bytes())
    assert record["config"]["optimizer"]["clip"] == "inf"


# What is refused

REFUSED: list[tuple[dict[str, Any], str]] = [
    # wrong types
    ({"seed": "0"}, "seed='0': expected int, got str"),
    ({"seed": 0.0}, "seed=0.0: expected int, got float"),
    ({"seed": True}, "seed=True: expected int, got bool"),
    ({"seed": None}, "seed=None: expected int"),
    ({"budget.num_steps": 10.0}, "budget.num_steps=10.0: expected int or null, got float"),
    ({"budget.num_steps": "10"}, "budget.num_steps='10'"),
    ({"budget.seconds": "1m"}, "budget.seconds='1m': expected float or null"),
    ({"budget.seconds": True}, "budget.seconds=True"),
    ({"evaluation.every_num_steps": 1.5}, "evaluation.every_num_steps=1.5"),
    ({"divergence.max_loss": None}, "divergence.max_loss=None"),
    ({"hardware.num_threads": "all"}, "hardware.num_threads='all'"),
    ({"target.metric": "test_loss", "target.value": "low"}, "target.value='low'"),
    ({"task.num_steps": "many"}, "task.num_steps='many'"),
    # values that are not among those allowed, with the nearest that is
    ({"hardware.device": "cudo"}, "unknown value 'cudo' for hardware.device. Did you mean 'cuda'?"),
    (
        {"target.metric": "test_los", "target.value": 1},
        "unknown metric 'test_los' for target.metric. Did you mean 'test_loss'?",
    ),
    # unknown keys, with the nearest that is known
    ({"optimiser": {}}, "unknown key 'optimiser'. Did you mean 'optimizer'?"),
    ({"budget.steps": 10}, "unknown key 'budget.steps'. Did you mean 'budget.num_steps'?"),
    ({"evaluation.every": 10}, "unknown key 'evaluation.every'.\nAllowed: evaluation.every_num_steps"),
    ({"divergence.max_los": 1.0}, "unknown key 'divergence.max_los'"),
    ({"hardware.threads": 1}, "unknown key 'hardware.threads'. Did you mean 'hardware.num_threads'?"),
    ({"target.metric": "test_loss", "target.value": 1, "target.values": 1}, "unknown key 'target.values'"),
    # missing keys
    ({"budget.seconds": ...}, "budget.seconds is missing"),
    ({"divergence.max_loss": ...}, "divergence.max_loss is missing"),
    ({"hardware.device": ...}, "hardware.device is missing"),
    ({"optimizer.name": ...}, "optimizer.name is missing"),
    ({"optimizer._target_": ...}, "optimizer._target_ is missing"),
    ({"task._target_": ...}, "task._target_ is missing"),
    ({"schedule.name": None}, "schedule.name is missing"),
    ({"data._target_": 3}, "data._target_ is missing"),
    ({"target.metric": "test_loss"}, "target.value"),
    ({"target.value": 0.1}, "target.metric"),
    # ranges
    ({"seed": -1}, "seed=-1: it must be 0 or above"),
    ({"budget.num_steps": 0}, "budget.num_steps=0: it must be above 0"),
    ({"budget.num_steps": -5}, "budget.num_steps=-5"),
    ({"budget.seconds": 0.0}, "budget.seconds=0.0"),
    ({"budget.seconds": math.nan}, "budget.seconds=nan"),
    ({"evaluation.every_num_steps": 0}, "evaluation.every_num_steps=0"),
    ({"hardware.num_threads": 0}, "hardware.num_threads=0"),
    ({"divergence.max_loss": 0.0}, "divergence.max_loss=0.0"),
    ({"divergence.max_loss": math.nan}, "divergence.max_loss=nan"),
    ({"task.num_steps": ...}, "budget.num_steps=<steps>"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"), REFUSED, ids=lambda value: str(value) if isinstance(value, str) else ""
)
def test_a_mistake_is_refused_by_name(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        trial(changes)
    assert message in str(caught.value)


WRONG_PARTS: list[tuple[dict[str, Any], str]] = [
    *(({key: ...}, key) for key in CONFIG if key not in ("data", "logger", "sweep", "results")),
    *(({key: None}, key) for key in CONFIG if key not in ("data", "logger", "sweep", "results", "seed")),
    ({"data": "mnist"}, "data"),
    ({"budget": 100}, "budget"),
    ({"target.metrc": "test_loss"}, "target.metrc"),
    ({"target.metric": "test_loss", "target.value": 1, "target.direction": "max"}, "target.direction"),
    ({"target.metric": 3, "target.value": 1}, "target.metric"),
    ({"task.metrics": {"test_loss": "lower"}}, "task.metrics"),
    ({"task.metrics": ["test_loss"]}, "task.metrics"),
    ({"task.metrics": {"seconds": "min"}}, "task.metrics"),
]


@pytest.mark.parametrize(("changes", "key"), WRONG_PARTS, ids=str)
def test_a_part_that_is_missing_or_misshapen_is_refused_by_name(changes: Mapping[str, Any], key: str) -> None:
    with pytest.raises(UsageError) as caught:
        trial(changes)
    assert key in str(caught.value)


def test_infinity_is_no_loss_that_is_refused() -> None:
    assert trial({"divergence.max_loss": math.inf}).max_loss == math.inf


def test_parse_names_the_place_of_the_mistake() -> None:
    with pytest.raises(UsageError, match=r"here\.num_steps=1\.5: expected int or null, got float"):
        parse(Budget, {"num_steps": 1.5, "seconds": None}, where="here")


def test_a_component_is_told_by_its_group() -> None:
    with pytest.raises(UsageError, match=r"logger\.name is missing"):
        component({"_target_": "x.Y"}, group="logger")
