"""What was run on a task, by optimizer: best settings, defaults, edges of grids, and what controls say."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from optbench import catalogue, edges
from optbench.compose import Composer
from optbench.contest import Contest
from optbench.contests import default_of
from optbench.measurement import Status
from optbench.store import Store
from tests.conftest import MakeTrial
from tests.reports import START, contests_of, ended, fill, normal, optimizer

Fields = Mapping[tuple[str, float], Sequence[float | Status]]


@pytest.fixture
def contest(tmp_path: Path) -> Callable[[Fields], Contest]:
    """The contest in which optimizers, each with a rate, end with these losses."""

    def make(fields: Fields) -> Contest:
        store = Store(tmp_path, "sweep")
        for (name, lr), losses in fields.items():
            fill(store, optimizer(name, lr), losses)
        (found,) = contests_of(store)
        return found

    return make


# Who is best


def test_each_optimizer_comes_with_its_best_setting(contest: Callable[[Fields], Contest]) -> None:
    found = contest({("adamw", 0.1): [3.0, 3.1], ("adamw", 0.01): [2.0, 2.1], ("lion", 0.1): [1.0, 1.1]})
    assert [(one.optimizer, one.best.setting["lr"], len(one.rows)) for one in found.contenders] == [
        ("lion", 0.1, 1),
        ("adamw", 0.01, 2),
    ]
    assert (found.metric, found.direction, found.start) == ("test_loss", "min", START)


def test_a_setting_with_a_failed_seed_is_not_the_best(contest: Callable[[Fields], Contest]) -> None:
    found = contest({("adamw", 0.1): [0.1, Status.DIVERGED], ("adamw", 0.01): [2.0, 2.1]})
    (adamw,) = found.contenders
    assert adamw.best.setting["lr"] == 0.01
    assert adamw.failures == {"diverged": 1}
    assert adamw.num_trials == 4


def test_optimizers_are_told_apart_seed_by_seed(contest: Callable[[Fields], Contest]) -> None:
    hard_and_easy = [1.0, 5.0, 3.0, 9.0, 2.0]
    found = contest(
        {
            ("adamw", 0.1): hard_and_easy,
            ("lion", 0.1): [loss + 0.1 + 0.001 * loss for loss in hard_and_easy],
            ("sgd", 0.1): [1.2, 4.9, 3.3, 8.9, 2.1],
        }
    )
    tied = {one.optimizer: one.is_tied for one in found.contenders}
    assert tied == {"adamw": True, "lion": False, "sgd": True}


def test_of_many_optimizers_fewer_are_told_apart(contest: Callable[[Fields], Contest]) -> None:
    best = normal(5, mean=1.0, deviation=0.1)
    noisy = [loss + 0.1 + wobble for loss, wobble in zip(best, [0.0, 0.1, 0.05, -0.05, 0.02], strict=True)]
    alone = contest({("adamw", 0.1): best, ("lion", 0.1): noisy})
    assert [one.is_tied for one in alone.contenders] == [True, False]
    among = contest({("adamw", 0.1): best, ("lion", 0.1): noisy, **{(f"other{i}", 0.1): noisy for i in range(9)}})
    assert all(one.is_tied for one in among.contenders), "eleven are compared with the best"


def test_budgets_and_targets_make_tasks_of_their_own(tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    fill(store, {"budget.num_steps": 10}, [5.0])
    fill(store, {"budget.num_steps": 1000}, [1.0])
    tasks = {found.task: len(found.rows) for found in contests_of(store)}
    assert tasks == {"blobs budget.num_steps=10": 1, "blobs budget.num_steps=1000": 1}


# Defaults


@pytest.mark.parametrize(
    "name", [name for name in catalogue.names("optimizer") if "/" not in name and name != "custom"]
)
def test_an_optimizer_as_its_file_has_it_is_its_default(name: str, make_trial: MakeTrial, tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    asked = make_trial("task=digits_mlp", f"optimizer={name}", "seed=0")
    store.publish(asked, ended(1.0, seed=0, test_accuracy=0.5))
    (found,) = contests_of(store)
    assert found.contenders[0].default is found.contenders[0].best


@pytest.mark.parametrize(
    "changed",
    [
        "optimizer.lr=0.5",
        "optimizer.betas=[0.8,0.9]",
        "schedule=cosine",
        "max_grad_norm=1.0",
        "param_groups=no_decay",
    ],
)
def test_an_optimizer_with_anything_changed_is_tuned(changed: str, make_trial: MakeTrial, tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    store.publish(make_trial("task=digits_mlp", "optimizer=adamw", changed), ended(1.0, seed=0, test_accuracy=0.5))
    (found,) = contests_of(store)
    assert found.contenders[0].default is None


def test_an_optimizer_that_is_not_in_the_catalogue_has_no_default(contest: Callable[[Fields], Contest]) -> None:
    (mine,) = contest({("mine", 0.1): [1.0]}).contenders
    assert default_of(mine.rows) is None


# Edges


@pytest.mark.parametrize(
    ("losses", "side"),
    [([3.0, 2.0, 1.0], "highest"), ([1.0, 2.0, 3.0], "lowest"), ([2.0, 1.0, 3.0], None), ([3.0, 1.0, 2.0], None)],
)
def test_a_best_rate_at_the_end_of_the_grid_is_an_edge(
    contest: Callable[[Fields], Contest], losses: list[float], side: str | None
) -> None:
    rates = [0.001, 0.01, 0.1]
    found = contest({("adamw", lr): [loss, loss] for lr, loss in zip(rates, losses, strict=True)})
    assert [(edge.key, edge.side) for edge in found.contenders[0].edges] == ([("optimizer.lr", side)] if side else [])


def test_one_rate_alone_has_no_edge_and_neither_has_a_decay_of_zero(tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    fill(store, optimizer("adamw", weight_decay=0.0), [1.0])
    fill(store, optimizer("adamw", weight_decay=0.1), [2.0])
    (found,) = contests_of(store)
    assert found.contenders[0].edges == []


def test_a_control_has_no_edges(contest: Callable[[Fields], Contest]) -> None:
    found = contest({("sgd_untuned", 0.01): [1.0], ("sgd_untuned", 0.1): [2.0]})
    assert found.contenders[0].edges == []


Command = Callable[..., tuple[list[str], list[dict[str, Any]]]]


@pytest.fixture
def widened(composer: Composer, tmp_path: Path) -> Command:
    """The words of the command that widens a search for the first of `rates`, and the configs that they make."""

    def make(rates: Sequence[float], overrides: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
        store = Store(tmp_path, "sweep")
        for place, lr in enumerate(rates):
            fill(store, optimizer("adamw", lr), [1.0 + place])
        (found,) = contests_of(store)
        (edge,) = edges.edges(found.contenders[0].rows, lambda _: overrides)
        assert edge.command is not None
        verb, *words = shlex.split(edge.command)[1:]
        assert verb == "sweep"
        return words, list(composer.configs(words, one_trial=False))

    return make


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([0.1, 0.01, 0.001], {1.0, 10.0}),
        ([0.00001, 0.0001, 0.001], {0.000001, 0.0000001}),
        ([0.03, 0.01], {0.09, 0.27}),
    ],
)
@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=lion,adamw", "optimizer.lr=0.001,0.01,0.1", "seed=0,1", "task=digits_mlp"],
        ["sweep=grid", "optimizer=adamw,lion", "seed=range(2)"],
        ["experiment=lr_grid", "optimizer=adamw", "seed=0,1"],
    ],
    ids=lambda words: words[0],
)
def test_the_command_widens_the_grid_of_that_optimizer_alone(
    widened: Command, rates: list[float], expected: set[float], overrides: list[str]
) -> None:
    words, configs = widened(rates, overrides)
    assert {config["optimizer"]["name"] for config in configs} == {"adamw"}
    assert {config["optimizer"]["lr"] for config in configs} == expected
    assert {config["seed"] for config in configs} == {0, 1}
    assert not any("lion" in word for word in words)


def test_the_command_of_a_search_looks_in_the_next_decade(widened: Command) -> None:
    _, configs = widened([0.1, 0.01], ["sweep=random", "n=5", "optimizer=adamw,lion"])
    rates = [config["optimizer"]["lr"] for config in configs]
    assert len(rates) == 5
    assert all(0.1 <= lr <= 1.0 for lr in rates)


@pytest.mark.parametrize("overrides", [None, ["sweep=zip", "optimizer=lion,adamw", "optimizer.lr=0.1,0.2"]])
def test_where_no_command_can_be_told_the_edge_is_said_all_the_same(
    tmp_path: Path, overrides: list[str] | None
) -> None:
    store = Store(tmp_path, "sweep")
    for lr in (0.1, 0.2):
        fill(store, optimizer("adamw", lr), [1.0 / lr])
    (found,) = contests_of(store)
    (edge,) = edges.edges(found.contenders[0].rows, lambda _: overrides)
    assert edge.command is None
    assert edges.words(edge) == "optimizer.lr=0.2 is the highest of 2 tried"


def test_the_rates_of_a_companion_have_edges_too() -> None:
    config = {"name": "muon", "lr": 0.1, "companion": {"name": "adamw", "lr": 0.01}}
    assert dict(edges._numbers(config, prefix="optimizer."))["optimizer.companion.lr"] == 0.01


# Controls

GOOD, CLOSE, BAD = [1.0, 1.1, 1.2, 1.1, 0.9], [1.1, 1.0, 1.25, 1.05, 0.95], [START + 0.01 * seed for seed in range(5)]


@pytest.mark.parametrize(
    ("losses", "label"),
    [
        ({"adamw": GOOD, "sgd_untuned": [5.0, 5.1, 5.2, 5.3, 5.1], "null": BAD}, "discriminating"),
        ({"adamw": GOOD, "sgd_untuned": CLOSE, "null": BAD}, "saturated"),
        ({"adamw": GOOD, "sgd_untuned": [0.5, 0.6, 0.5, 0.6, 0.5], "null": BAD}, "saturated"),
        ({"adamw": [10.1, 9.9, 10.2, 9.9, 10.0], "sgd_untuned": BAD, "null": BAD}, "unsolved"),
        ({"adamw": [12.0, 13.0, 12.0, 13.0, 12.5], "sgd_untuned": BAD, "null": BAD}, "unsolved"),
        ({"adamw": GOOD, "null": BAD}, None),
        ({"adamw": GOOD}, None),
        ({"adamw": [Status.DIVERGED], "null": BAD, "sgd_untuned": GOOD}, None),
        ({"adamw": [1.0, *[Status.DIVERGED] * 4], "null": BAD, "sgd_untuned": [5.0] * 5}, None),
        ({"adamw": [1.0], "null": [START], "sgd_untuned": [5.0]}, None),
        (
            {
                "noisy": [0.1, 5.0, 0.2, 4.0, 0.3],
                "adamw": [2.0, 2.1, 2.0, 2.1, 2.0],
                "null": BAD,
                "sgd_untuned": [3.0] * 5,
            },
            "discriminating",
        ),
    ],
)
def test_controls_label_a_task(
    contest: Callable[[Fields], Contest], losses: Mapping[str, Sequence[float | Status]], label: str | None
) -> None:
    found = contest({(name, 0.01): own for name, own in losses.items()})
    assert found.label == label
    assert found.label_reason


def test_without_controls_it_is_said_which_to_run(contest: Callable[[Fields], Contest]) -> None:
    assert "optimizer=null,sgd_untuned" in contest({("adamw", 0.1): GOOD}).label_reason
    assert "optimizer=sgd_untuned" in contest({("adamw", 0.1): GOOD, ("null", 0.0): BAD}).label_reason


def test_controls_are_in_the_catalogue() -> None:
    from optbench.controls import CONTROLS

    assert set(CONTROLS) <= set(catalogue.names("optimizer"))
