"""Costs: which trials share one, what is kept, what tables and claims make of them."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from optbench import cells, claims, cost_cells, tables
from optbench.cost import Cost
from optbench.costing import missing
from optbench.costs import Costs, cost_id
from optbench.errors import UsageError
from optbench.store import Store
from tests.conftest import MakeTrial
from tests.costs import ABACUS, cost, memory
from tests.handmade import config, result, trial

# Which trials share a cost


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 7},
        {"optimizer.lr": 0.3},
        {"optimizer.weight_decay": 0.5},
        {"optimizer.betas": [0.5, 0.5]},
        {"optimizer.search": {"lr": {"grid": [0.1]}}},
        {"budget.num_steps": 5},
        {"schedule.warmup": 0.5},
        {"task.num_steps": 5},
        {"target": {"metric": "test_loss", "value": 0.1}},
        {"data.path": "elsewhere"},
        {"optimizer.betas": [0.9, 1]},
        {"hardware.memory_limit_gb": None},
        {"hardware.precision": "fp32"},
    ],
)
def test_what_changes_no_tensor_and_no_kernel_changes_no_cost(changes: dict[str, Any]) -> None:
    assert cost_id(trial(changes).config) == cost_id(trial().config)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer.name": "other"},
        {"optimizer.weight_decay": 0.0},
        {"optimizer.fused": True},
        {"optimizer.rank": 8},
        {"optimizer.rank": 0.5},
        {"task.batch_size": 65},
        {"data.sha256": "1" * 64},
        {"max_grad_norm": 1.0},
        {"hardware.num_threads": 2},
        {"hardware.precision": "bf16"},
        {"hardware.num_micro_batches": 2},
    ],
)
def test_what_may_change_a_step_makes_another_cost(changes: dict[str, Any]) -> None:
    assert cost_id(config(changes)) != cost_id(config())


def test_a_stored_config_has_the_cost_that_it_had_when_it_was_asked(make_trial: MakeTrial, tmp_path: Path) -> None:
    asked = make_trial("optimizer=prodigy")  # it has an infinite number among its arguments, which JSON lacks
    store = Store(tmp_path, "sweep")
    store.publish(asked, result())
    (group,) = tables._groups(store.index())
    assert cost_id(group.config) == cost_id(asked.config)


# What is kept


def test_a_cost_is_read_as_it_was_written(tmp_path: Path) -> None:
    costs = Costs(Store(tmp_path, "sweep"))
    for found in (cost(), cost({"optimizer.name": "lion"}, memory=None, time=None, contended=None)):
        costs.write(found)
        assert costs.read(found.id) == found
    assert len(costs.all()) == 2


def test_a_cost_that_cannot_be_read_is_measured_again(tmp_path: Path) -> None:
    costs = Costs(Store(tmp_path, "sweep"))
    found = cost()
    costs.write(found)
    path = tmp_path / "sweep" / "costs" / f"{found.id}.json"
    for text in ("", "{}", path.read_text()[:-20], json.dumps({**json.loads(path.read_text()), "schema": 99})):
        path.write_text(text)
        assert costs.read(found.id) is None
        assert missing([found.config], costs) == [found.config]


def test_costs_are_missing_where_none_is_or_where_it_is_of_another_device_or_version(tmp_path: Path) -> None:
    costs = Costs(Store(tmp_path, "sweep"))
    found = cost()
    others = [trial({"seed": seed, "optimizer.lr": 0.1 * seed}).config for seed in (1, 2)]
    assert missing([found.config, *others], costs) == [others[-1]]
    costs.write(found)
    assert missing([found.config, *others], costs) == []
    for change in ({"device": "Abacus 3"}, {"packages": {**found.environment["packages"], "torch": "1.0"}}):
        costs.write(dataclasses.replace(found, environment={**found.environment, **change}))
        assert missing([found.config], costs) == [found.config]


# What tables make of it


def test_numbers_that_are_equal_are_one_however_they_are_spelt() -> None:
    for key, one, other in (
        ("optimizer.weight_decay", 0, 0.0),
        ("hardware.memory_limit_gb", 16, 16.0),
        ("optimizer.k", 1, 1.0),
    ):
        assert cost_id(config({key: one})) == cost_id(config({key: other}))
    assert cost_id(config({"optimizer.rank": 0.5})) != cost_id(config({"optimizer.rank": 0.25}))


def shown(costs: Sequence[Cost], tmp_path: Path) -> tuple[Any, Any, str]:
    store = Store(tmp_path, "sweep")
    for name in ("adamw", "lion"):
        for seed in range(2):
            store.publish(trial({"optimizer.name": name, "seed": seed}), result(float(name == "lion") + seed))
    index = store.index()
    rows = tables.rows(index, costs)
    return cells.words(rows), cells.numbers(rows), "\n".join(cells.notes(rows, index))


def test_the_table_of_a_sweep_has_the_costs_beside_the_quality(tmp_path: Path) -> None:
    adamw = cost({"optimizer.name": "adamw"}, device=ABACUS)
    lion = cost({"optimizer.name": "lion"}, device=ABACUS, memory=memory(peak_bytes=1024))
    words, numbers, notes = shown([adamw, lion], tmp_path)
    assert words["step (ms)"].tolist() == ["10", "10"]
    assert words["step / adamw"].tolist() == ["1.25", "1.25"]
    assert words["optimizer's share"].tolist() == ["40 %", "40 %"]
    assert words["peak"].tolist() == ["1.953 KiB", "1 KiB"]
    assert numbers["predicted_peak_bytes"].tolist() == [2000, 2000]
    assert numbers["is_contended"].tolist() == [False, False]
    assert "measured apart from trials on" in notes
    assert "as the trials ran" not in notes


def test_a_row_without_a_cost_says_that_its_step_is_of_the_trials(tmp_path: Path) -> None:
    adamw = cost({"optimizer.name": "adamw"}, device=ABACUS)
    words, numbers, notes = shown([adamw], tmp_path)
    assert words["step (ms)"].tolist() == ["10", "20"]
    assert words["step / adamw"].tolist() == ["1.25", "-"]
    assert numbers["optimizer_share"].isna().tolist() == [False, True]
    assert "step of lion: median seconds per training step" in notes


def test_a_cost_of_another_device_than_the_trials_ran_on_is_not_shown_with_them(tmp_path: Path) -> None:
    adamw = cost({"optimizer.name": "adamw"}, device="H200")
    words, _, notes = shown([adamw], tmp_path)
    assert words["step (ms)"].tolist() == ["20", "20"]
    assert "as the trials ran" in notes


def test_a_contended_step_is_marked(tmp_path: Path) -> None:
    busy = cost({"optimizer.name": "lion"}, device=ABACUS, contended=["other processes used 1.3 of 2 cores"])
    _, numbers, notes = shown([busy], tmp_path)
    assert "lion: its step was measured while the device was busy (other processes used 1.3 of 2 cores)." in notes
    assert numbers["is_contended"].tolist() == [None, True]
    assert "lion (contended)" in cost_cells.time_words([busy])["optimizer"].tolist()
    assert any("contended" in line for line in cost_cells.warnings([busy]))


def test_a_prediction_is_never_shown_as_a_measurement() -> None:
    only_predicted = cost(memory=None, failures={"memory": "out of memory: more than there is"})
    line = cost_cells.memory_words([only_predicted]).iloc[0]
    assert line["peak (measured)"] == "out of memory"
    assert line["peak (predicted)"] == "1.953 KiB"
    assert line["state"] == "(800 B)"


def test_totals_are_in_the_words_that_people_use() -> None:
    line = cost_cells.memory_words([cost()]).iloc[0]
    assert (line["parameters + state"], line["with gradients"]) == ("3.00x", "4.00x")


def test_workspace_inside_kernels_is_pointed_out() -> None:
    assert not any("events" in note for note in cost_cells.notes([cost(memory=memory(kernel_peak_bytes=2010))]))
    (note,) = [note for note in cost_cells.notes([cost(memory=memory(kernel_peak_bytes=2600))]) if "events" in note]
    assert "1.30 times that of the tensors" in note


def test_what_is_missing_is_said_with_its_reason() -> None:
    found = cost(time=None, failures={"time": "RuntimeError: no"})
    assert list(cost_cells.warnings([found])) == ["adamw on blobs: time is missing: RuntimeError: no"]
    assert cost_cells.time_words([found])["step (ms)"].tolist() == ["-"]


# What others say


CLAIM = {
    "id": "C15",
    "text": "three times the parameters",
    "optimizer": "adamw",
    "figure": "parameters_and_state",
    "published": 3.0,
    "tolerance": 0.02,
    "source": "somebody",
}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "holds"),
        ({"published": 3.5}, "does not hold"),
        ({"published": 3.05}, "holds"),
        ({"figure": "state_over_parameters"}, "does not hold"),
        ({"figure": "state_over_parameters", "published": 2.0}, "holds"),
        ({"figure": "parameters_state_and_gradients", "published": 4.0}, "holds"),
        ({"min_parameters": 101}, "not said of so small a model"),
        ({"optimizer": "lion"}, "not measured"),
    ],
)
def test_a_claim_holds_where_the_measurement_is_within_its_tolerance(changes: dict[str, Any], verdict: str) -> None:
    (line,) = claims.table(claims.claims([{**CLAIM, **changes}]), [cost()]).to_dict("records")
    assert line["verdict"] == verdict


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"publshed": 1.0}, r"unknown key 'claims\[0\].publshed'. Did you mean 'claims\[0\].published'"),
        ({"figure": "state"}, r"unknown value 'state' for claims\[0\].figure"),
    ],
)
def test_a_mistake_in_a_claim_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        claims.claims([{**CLAIM, **change}])


def test_every_claim_that_comes_with_optbench_is_of_an_optimizer_that_its_experiment_measures(composer: Any) -> None:
    configs = list(composer.configs(["experiment=memory_claims"], one_trial=False))
    measured = {config["optimizer"]["name"] for config in configs}
    asked = claims.claims(configs[0]["claims"])
    assert {claim.id for claim in asked} == {"C04", "C15", "C26", "C28", "C29", "C35", "C47"}
    assert {claim.optimizer for claim in asked} <= measured
