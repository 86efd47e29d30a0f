"""The sentences that a report begins with: which, how sure, at what price; and the tables below them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from optbench import sheets, tables
from optbench.aggregate import aggregate
from optbench.answers import answer, answer_over_tasks
from optbench.contest import Contest
from optbench.contests import contests
from optbench.costs import Costs
from optbench.curves import Curves
from optbench.hyperparameters import hyperparameters, searched
from optbench.measurement import Status
from optbench.store import Store
from tests.conftest import MakeTrial
from tests.costs import ABACUS, cost
from tests.handmade import trial
from tests.reports import contests_of, ended, fill, optimizer

Losses = Sequence[float | Status]
Make = Callable[..., Contest]
ACCURACY = {"task.metrics": {"test_accuracy": "max"}}


@pytest.fixture
def contest(tmp_path: Path) -> Make:
    """The contest of optimizers with these losses; `changes` and `states` go to all and to each."""

    def make(fields: Mapping[str, Losses], *, states: Mapping[str, int] | None = None, **changes: Any) -> Contest:
        store = Store(tmp_path, "sweep")
        for name, losses in fields.items():
            fill(store, {**optimizer(name), **changes}, losses, state_bytes=(states or {}).get(name, 8000))
        (found,) = contests_of(store)
        return found

    return make


def test_the_best_is_named_with_its_setting_its_interval_and_the_next(contest: Make) -> None:
    found = contest({"lion": [1.0, 1.1, 1.2], "adamw": [2.0, 2.1, 2.2]})
    assert answer(found)[0] == (
        "On blobs lion (lr 0.001) is best with test loss 1.1 ±0.1 over 3 seeds; next is adamw (lr 0.001) with test "
        "loss 2.1 ±0.1 over 3 seeds."
    )


def test_those_that_are_not_told_apart_tie_and_the_cheaper_one_is_said(contest: Make) -> None:
    found = contest({"lion": [1.0, 1.1, 1.2], "adamw": [1.1, 1.0, 1.25]}, states={"lion": 4000, "adamw": 8000})
    first, price, *_ = answer(found)
    assert first == "On blobs lion (lr 0.001) and adamw (lr 0.001) tie at test loss 1.1 to 1.117 ±0.13, over 3 seeds."
    assert price == "Of these lion keeps half the state of adamw."


@pytest.mark.parametrize(
    ("lion", "words"),
    [
        (0, "Of these lion keeps no state, where adamw keeps 8 B per parameter."),
        (2000, "lion keeps a quarter of the state of adamw"),
        (3000, "lion keeps 0.38 times the state of adamw"),
    ],
)
def test_the_price_is_in_words(contest: Make, lion: int, words: str) -> None:
    found = contest({"lion": [1.0, 1.1], "adamw": [1.1, 1.0]}, states={"lion": lion, "adamw": 8000})
    assert words in answer(found)[1]


@pytest.mark.parametrize(
    ("muon", "words"),
    [
        ([5.0, 1.9], "tie at test loss 1.1 to 3.45 ±1.6, over 2 seeds."),
        ([5.0, 4.0], "are not told apart at test loss 1.1 to 4.5 ±0.5, over 2 seeds."),
    ],
)
def test_seeds_that_are_too_few_to_tell_make_no_tie(contest: Make, muon: list[float], words: str) -> None:
    found = contest({"sgd": [1.0, 1.2], "muon": muon})
    assert answer(found)[0] == f"On blobs sgd (lr 0.001) and muon (lr 0.001) {words}"


def test_a_time_that_was_not_measured_alone_is_marked(tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    for name in ("adamw", "lion"):
        fill(store, optimizer(name), [1.0, 1.1])
    Costs(store).write(cost(optimizer("lion"), device=ABACUS))
    (found,) = contests(tables.rows(store.index(), Costs(store).all()), curves=Curves(store.read))
    sheet = sheets.best(found, slug="x")
    assert dict(zip(sheet.words["optimizer"], sheet.words["step (ms)"], strict=True)) == {"adamw": "~20", "lion": "10"}
    assert any(note.startswith("~ as the trials ran") for note in sheet.notes)


def test_equal_prices_are_not_worth_a_sentence(contest: Make) -> None:
    assert len(answer(contest({"lion": [1.0, 1.1], "adamw": [1.1, 1.0]}))) == 1


def test_one_seed_is_said_to_tell_nothing_apart(contest: Make) -> None:
    assert answer(contest({"lion": [1.0], "adamw": [1.1]}))[0] == (
        "On blobs one seed cannot tell optimizers apart: lion (lr 0.001) comes first with test loss 1 from one seed, "
        "adamw (lr 0.001) next with test loss 1.1 from one seed."
    )


def test_a_setting_with_one_lucky_seed_is_not_the_best(tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    fill(store, optimizer("adamw", 0.1), [1.0, 1.1, 1.2])
    fill(store, optimizer("adamw", 0.2), [0.9])
    assert "lr 0.1" in answer(contests_of(store)[0])[0]


def test_optimizers_without_a_seed_in_common_are_not_compared(tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    for name, seeds in (("lion", (0, 1)), ("adamw", (2, 3))):
        for seed in seeds:
            store.publish(trial({**optimizer(name), "seed": seed}), ended(1.0 + seed, seed=seed))
    (found,) = contests_of(store)
    assert answer(found)[0].endswith("which was not compared: it has failures or other seeds.")
    assert not any(one.is_tied for one in found.contenders if not one.is_leader)


def test_of_seeds_that_failed_it_is_said_how_many_are_left(contest: Make) -> None:
    found = contest({"adamw": [1.0, Status.DIVERGED, Status.DIVERGED]})
    assert answer(found)[0].endswith("adamw (lr 0.001) comes first with test loss 1 from 1 of 3 seeds.")


def test_what_a_search_gave_up_has_not_failed(contest: Make) -> None:
    found = contest({"adamw": [1.0, Status.PRUNED], "lion": [1.0, 1.1]})
    assert found.contenders[-1].failures == {}
    assert found.contenders[-1].num_pruned == 1
    assert not any(line.startswith("Failed") for line in answer(found))


def test_a_single_optimizer_has_nothing_to_be_compared_with(contest: Make) -> None:
    assert answer(contest({"lion": [1.0, 1.2]}))[0] == (
        "On blobs lion (lr 0.001) reaches test loss 1.1 ±0.1 over 2 seeds; no other optimizer has a result to compare "
        "it with."
    )


def test_failures_are_said_with_their_denominator(contest: Make) -> None:
    found = contest({"lion": [1.0, 1.1], "adamw": [1.0, Status.DIVERGED], "sgd": [Status.CRASHED] * 2})
    text = " ".join(answer(found))
    assert "Failed: adamw 1 diverged of 2 trials; sgd 2 crashed of 2 trials." in text


def test_where_everything_failed_that_is_the_answer(contest: Make) -> None:
    assert answer(contest({"lion": [Status.DIVERGED], "adamw": [Status.OUT_OF_MEMORY]})) == [
        "On blobs no trial of adamw and lion has a result: adamw 1 out_of_memory of 1 trials; lion 1 diverged of 1 "
        "trials."
    ]


def test_where_no_setting_went_through_it_is_said(contest: Make) -> None:
    found = contest({"lion": [1.0, Status.DIVERGED], "adamw": [2.0, Status.DIVERGED]})
    assert answer(found)[0].startswith("On blobs no setting went without failures; lion (lr 0.001) comes first with")


def test_a_saturated_task_says_little(contest: Make) -> None:
    found = contest({"lion": [1.0, 1.1], "sgd_untuned": [1.1, 1.0], "null": [10.0, 10.1]})
    assert "The task is saturated, so this says little." in answer(found)[-1]


def test_controls_are_no_contenders(contest: Make) -> None:
    found = contest({"lion": [2.0, 2.1], "adamw": [2.5, 2.6], "sgd_untuned": [1.0, 1.1]})
    assert "sgd_untuned" not in answer(found)[0]
    assert [one.optimizer for one in found.contenders if one.is_leader] == ["lion"]
    assert any("sgd_untuned, which is there to be beaten, comes before all" in line for line in answer(found))


def test_steps_to_a_target_are_what_ranks(tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    target = {"target.metric": "test_loss", "target.value": 1.0}
    for name, steps in (("lion", 40), ("adamw", 80)):
        for seed in range(3):
            asked = {**optimizer(name), **target, "seed": seed}
            store.publish(trial(asked), ended(0.9, seed=seed, steps_to_target=steps + seed, seconds_to_target=1.0))
    (found,) = contests_of(store)
    first = answer(found)[0]
    assert "lion (lr 0.001) is best with the target in 41 steps ±1 over 3 seeds" in first
    assert "adamw (lr 0.001) with the target in 81 steps ±1" in first
    words = sheets.best(found, slug="blobs").words.to_dict("records")
    assert [row["minus the best"] for row in words] == ["-", "+40 [+40, +40]"]


def test_a_target_that_nobody_reached_is_the_answer(contest: Make) -> None:
    found = contest({"lion": [1.0, 1.1], "adamw": [2.0, 2.1]}, **{"target.metric": "test_loss", "target.value": 0.1})
    assert answer(found)[0] == (
        "On blobs no optimizer reached the target: lion (lr 0.001) and adamw (lr 0.001) did not, over 2 seeds."
    )


def test_the_edge_is_a_doubt(tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    for lr, loss in ((0.1, 3.0), (0.01, 2.0), (0.001, 1.0)):
        fill(store, optimizer("adamw", lr), [loss, loss])
    (found,) = contests_of(store)
    assert answer(found)[-1] == (
        "The best value lies at the edge of what was tried for adamw (lr): a better one may lie beyond."
    )
    sheet = sheets.best(found, slug="blobs")
    assert sheet.words["at the edge"].tolist() == ["lr"]
    assert any("optimizer.lr=0.001 is the lowest of 3 tried" in note for note in sheet.notes)


def test_over_tasks_the_best_mean_rank_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    for task in ("a", "b"):
        fill(store, {"task.name": task, **optimizer("adamw")}, [1.0, 1.1, 1.2])
        fill(store, {"task.name": task, **optimizer("lion")}, [2.0, 2.1, 2.2])
    fill(store, {"task.name": "a", **optimizer("muon")}, [1.5, 1.6, 1.7])
    found = aggregate(contests_of(store), curves=Curves(store.read))
    assert found is not None
    assert answer_over_tasks(found) == [
        "Over 2 tasks adamw has the best mean rank of 2 optimizers, 1; next is lion at 2.",
        "Not comparable, and left out of it: muon ran on 1 of 2 tasks.",
    ]


# Tables


def test_tuning_budgets_that_differ_are_said(tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    for lr in (0.1, 0.01):
        fill(store, optimizer("adamw", lr), [1.0])
    fill(store, optimizer("lion"), [1.0])
    (found,) = contests_of(store)
    (note,) = [note for note in sheets.best(found, slug="x").notes if note.startswith("Not tuned alike")]
    assert "adamw 2" in note
    assert "lion 1" in note


def test_the_default_is_beside_what_tuning_gains(make_trial: MakeTrial, tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    for lr, losses in ((0.001, [2.0, 2.2]), (0.01, [1.0, 1.1])):
        for seed, loss in enumerate(losses):
            words = ("task=quadratic", "optimizer=adamw", f"optimizer.lr={lr}", f"seed={seed}")
            store.publish(make_trial(*words), ended(loss, seed=seed))
    store.publish(make_trial("task=quadratic", "optimizer=sgd", "optimizer.lr=0.5"), ended(3.0, seed=0))
    (found,) = contests_of(store)
    asked = ["task=quadratic", "optimizer=adamw,sgd", "optimizer.lr=0.001,0.01", "sweep.name=mine"]
    sheet = sheets.default(found, slug="quadratic", overrides=lambda _: asked)
    assert sheet is not None
    (row,) = sheet.numbers.to_dict("records")
    assert (row["optimizer"], row["setting"], row["test_loss"]) == ("adamw", "lr=0.001", pytest.approx(2.1))
    assert row["gain"] == pytest.approx(-1.05)
    assert sheet.notes[-1].endswith("sgd: optbench sweep task=quadratic sweep.name=mine optimizer=sgd")


def test_without_a_default_there_is_no_such_table(contest: Make) -> None:
    assert sheets.default(contest({"mine": [1.0]}), slug="x", overrides=lambda _: None) is None


def test_hyperparameters_have_what_was_searched(tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    for lr in (0.1, 0.01, 0.001):
        for decay in (0.0, 0.1):
            fill(store, optimizer("adamw", lr, weight_decay=decay, amsgrad=True, foreach=False), [lr + decay])
    fill(store, {"optimizer.name": "sgd", "optimizer.betas": ..., "schedule.warmup": 0.1, "max_grad_norm": 1.0}, [1.0])
    found = contests_of(store)
    rows = {row["optimizer"]: row for row in hyperparameters(found).words.to_dict("records")}
    assert rows["adamw"]["searched"] == "lr: 0.001, 0.01, 0.1; weight_decay: 0, 0.1"
    assert rows["adamw"]["on"] == "amsgrad"
    assert (rows["adamw"]["betas"], rows["sgd"]["betas"]) == ("[0.9,0.999]", "-")
    assert rows["sgd"]["schedule"] == "constant warmup=0.1"
    assert rows["sgd"]["max grad norm"] == "1"
    assert "foreach" not in hyperparameters(found).words


def test_many_values_are_said_by_their_range(tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    for number in range(1, 13):
        fill(store, optimizer("adamw", number / 100), [1.0])
    (found,) = contests_of(store)
    assert list(searched(found.rows)) == [("lr", "12 values from 0.01 to 0.12")]
