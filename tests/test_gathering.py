"""Several folders as one: what counts, what is left out, and that each of these is said."""

import shutil
from pathlib import Path

import pytest

from optbench import filters, tables
from optbench.errors import UsageError
from optbench.gathering import gather
from optbench.measurement import Status
from optbench.store import Store
from tests.handmade import trial
from tests.reports import fill, optimizer


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results", "one")


def other(store: Store, name: str = "two") -> Store:
    return Store(store.folder.parent, name)


# Merging


def test_the_sweeps_of_several_folders_are_one(store: Store, tmp_path: Path) -> None:
    elsewhere = Store(tmp_path / "laptop", "three")
    fill(store, optimizer("adamw"), [1.0, 2.0])
    fill(other(store), optimizer("lion"), [1.0])
    fill(elsewhere, optimizer("sgd"), [1.0])
    found = gather([tmp_path / "results", tmp_path / "laptop" / "three"])
    assert sorted(found.index["optimizer"]) == ["adamw", "adamw", "lion", "sgd"]
    assert dict(zip(found.index["optimizer"], found.index["sweep"], strict=True)) == {
        "adamw": "one",
        "lion": "two",
        "sgd": "three",
    }
    for trial_id in found.index["id"]:
        record = found.reader(trial_id)
        assert record is not None
        assert record["id"] == trial_id


def test_a_folder_that_is_named_twice_counts_once(store: Store) -> None:
    fill(store, {}, [1.0, 2.0])
    found = gather([store.folder, store.folder.parent, store.folder])
    assert len(found.index) == 2
    assert found.remarks == []


def test_a_trial_in_two_folders_counts_once_with_the_result_of_the_folder_named_first(store: Store) -> None:
    fill(store, {}, [1.0, 2.0])
    fill(other(store), {}, [7.0, Status.DIVERGED, 3.0])
    first = gather([store.folder, other(store).folder])
    assert sorted(first.index["test_loss"]) == [1.0, 2.0, 3.0]
    second = gather([other(store).folder, store.folder])
    assert sorted(second.index["test_loss"].dropna()) == [3.0, 7.0]
    for found in (first, second):
        (remark,) = found.remarks
        assert remark.startswith("2 trial(s) are in several of the folders")
        assert "1 of them ended otherwise" in remark


def test_figures_that_another_folder_does_not_have_are_kept(store: Store) -> None:
    fill(store, optimizer("adamw"), [1.0], peak_bytes=None, state_bytes=None)
    fill(other(store), optimizer("lion"), [1.0], peak_bytes=4096, state_bytes=8000)
    found = gather([store.folder.parent])
    rows = {row.optimizer: row for row in tables.rows(found.index)}
    assert (rows["lion"].peak_bytes, rows["lion"].state_bytes_per_parameter) == (4096, 8.0)
    assert (rows["adamw"].peak_bytes, rows["adamw"].state_bytes_per_parameter) == (None, None)


# What is left out


def test_the_last_command_is_what_counts_and_the_rest_is_said(store: Store) -> None:
    fill(store, optimizer("adamw"), [1.0, 2.0])
    fill(store, optimizer("lion"), [1.0])
    store.write_plan([trial(optimizer("lion"))], ["optimizer=lion"])
    found = gather([store.folder])
    assert found.index["optimizer"].tolist() == ["lion"]
    assert found.remarks == [f"{store.folder}: 2 trial(s) of earlier commands are left out; --all takes them in."]
    everything = gather([store.folder], everything=True)
    assert len(everything.index) == 3
    assert everything.remarks == []


def test_the_words_of_a_trials_command_are_known(store: Store) -> None:
    (lion,) = fill(store, optimizer("lion"), [1.0])
    (adamw,) = fill(store, optimizer("adamw"), [1.0])
    store.write_plan([trial(optimizer("lion"))], ["optimizer=lion"])
    found = gather([store.folder], everything=True)
    assert found.overrides(lion) == ["optimizer=lion"]
    assert found.overrides(adamw) is None


def test_what_has_no_result_yet_is_said(store: Store) -> None:
    fill(store, {}, [1.0, Status.PREEMPTED])
    store.write_plan([trial({"seed": seed}) for seed in range(4)], ["seed=range(4)"])
    found = gather([store.folder])
    assert len(found.index) == 1
    assert "3 of 4 trials that were asked for have no result yet" in found.remarks[0]


def test_a_damaged_file_is_said_and_what_to_do_about_it(store: Store) -> None:
    first, second = fill(store, {}, [1.0, 2.0])
    store.path(second).write_text("{ half")
    store.write_plan([trial({"seed": seed}) for seed in range(2)], [])
    found = gather([store.folder])
    assert found.index["id"].tolist() == [first]
    assert any("1 of 2 trials" in remark for remark in found.remarks)
    assert any("quarantine: 1 damaged file(s)" in remark and second in remark for remark in found.remarks)


# Nothing to report


def test_a_folder_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such folder.*optbench sweep"):
        gather([tmp_path / "nothing"])


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"empty, no results here.*optbench sweep"):
        gather([tmp_path])


def test_a_foreign_folder_says_what_it_holds(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"photo{number}.jpg").touch()
    with pytest.raises(UsageError, match=r"It holds photo0.jpg.* and 3 more, but no folder with a plan.json"):
        gather([tmp_path])


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "table.csv").touch()
    with pytest.raises(UsageError, match=r"a file. Name a results folder"):
        gather([tmp_path / "table.csv"])


@pytest.mark.parametrize("wrong", ["one/trials", ".."])
def test_a_folder_nearby_is_named(store: Store, wrong: str) -> None:
    fill(store, {}, [1.0])
    with pytest.raises(UsageError, match=r"Did you mean .*(one|results)\?"):
        gather([store.folder.parent / wrong])


def test_a_sweep_that_was_stopped_before_its_first_result_says_so(store: Store) -> None:
    store.write_plan([trial()], [])
    with pytest.raises(UsageError, match=r"no trial has a result yet(.|\n)*1 of 1 trials that were asked for"):
        gather([store.folder])


def test_a_sweep_of_which_everything_is_damaged_says_so(store: Store) -> None:
    for trial_id in fill(store, {}, [1.0, 2.0]):
        store.path(trial_id).write_bytes(b"\0" * 100)
    store.write_plan([trial({"seed": seed}) for seed in range(2)], [])
    with pytest.raises(UsageError, match=r"no trial has a result yet(.|\n)*2 damaged file"):
        gather([store.folder])


@pytest.mark.parametrize("plan", ['{"foo": 1}', "[1]", '{"schema": 1, "ids": 3}'])
def test_a_plan_of_another_program_is_left_alone(tmp_path: Path, plan: str) -> None:
    (tmp_path / "plan.json").write_text(plan)
    with pytest.raises(UsageError, match=r"plan.json: not written by optbench"):
        gather([tmp_path])
    assert (tmp_path / "plan.json").read_text() == plan


def test_trials_of_another_program_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "7.json").write_text('{"objective": 0.1}')
    with pytest.raises(UsageError, match=r"trials: these files were not written by optbench"):
        gather([tmp_path])
    assert [path.name for path in tmp_path.rglob("*")] == ["trials", "7.json"]


def test_a_folder_without_its_index_can_be_read(store: Store) -> None:
    fill(store, {}, [1.0])
    shutil.rmtree(store.folder / "index", ignore_errors=True)
    assert len(gather([store.folder]).index) == 1


# Filters


@pytest.fixture
def mixed(store: Store) -> Store:
    fill(store, optimizer("adamw", 0.001), [1.0, 2.0])
    fill(store, optimizer("adamw", 0.01, betas=[0.9, 0.95]), [Status.DIVERGED])
    fill(store, optimizer("null", 0.0, foreach=None), [9.0])
    fill(other(store), {"task.name": "spirals", "task.batch_size": 128}, [1.0])
    return store


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["optimizer=null"], 1),
        (["optimizer=adamw,null"], 5),
        (["+optimizer=adamw"], 4),
        (["optimizer.name=adamw", "task=blobs"], 3),
        (["optimizer.lr=1e-3"], 3),
        (["optimizer.lr=0.001,0.01"], 4),
        (["optimizer.betas=[0.9,0.95]"], 1),
        (["task.batch_size=128"], 1),
        (["status=diverged"], 1),
        (["seed=0"], 4),
        (["sweep=two"], 1),
        (["optimizer=adamw", "seed=1"], 1),
        (["data.path=null"], 5),
    ],
)
def test_filters_choose_trials(mixed: Store, lines: list[str], expected: int) -> None:
    found = gather([mixed.folder.parent], conditions=filters.parse(lines))
    assert len(found.index) == expected
    assert found.is_filtered
    assert f"{expected} of 5 trials fulfil {' '.join(lines)}." in found.remarks
    assert any(remark.startswith("Filtered by status") for remark in found.remarks) == ("status=diverged" in lines)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("optimizr=adamw", "unknown key 'optimizr' to filter by. Did you mean 'optimizer'"),
        ("task.batch_sze=3", "Did you mean 'task.batch_size'"),
        ("optimizer=adam", "none of 5 trials has that. Did you mean optimizer=adamw"),
        ("optimizer=lion", "Of optimizer there is: adamw, null"),
        ("seed=99", "Of seed there is: 0, 1"),
        ("optimizer=", "a filter is key=value"),
        ("optimizer=[a", "is no list of values"),
    ],
)
def test_a_filter_that_finds_nothing_says_what_there_is(mixed: Store, line: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        gather([mixed.folder.parent], conditions=filters.parse([line]))
    assert message in str(raised.value)
