"""What `optbench status` says of a sweep."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from optbench import lease, machine
from optbench.measurement import Status
from optbench.overview import MAX_LINES, show_status
from optbench.status import command, progress, shell_line
from optbench.store import Store
from optbench.trial import Trial
from tests.handmade import result, trial

SEEDS = {status: seed for seed, status in enumerate(Status)}
OVERRIDES = ["seed=range(10)", "optimizer=lion,adamw"]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine like that of the results."""
    monkeypatch.setattr(machine, "version", {"optbench": "0.1.0", "torch": "2.10.0"}.get)
    monkeypatch.setattr(machine, "device_names", lambda _: frozenset({"Abacus 3"}))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results", "sweep")


@pytest.fixture
def mixed(store: Store) -> Store:
    """A store with a trial of each status, and a plan with two more."""
    for status, seed in SEEDS.items():
        store.publish(trial({"seed": seed}), result(status=status, reason="ValueError: bad\nmore"))
    store.write_plan(seeds(*SEEDS.values(), 50, 51), OVERRIDES)
    return store


def seeds(*numbers: int) -> list[Trial]:
    return [trial({"seed": number}) for number in numbers]


def shown(store: Store, capsys: pytest.CaptureFixture[str], **options: bool) -> list[str]:
    show_status([str(store.folder)], **options)
    return capsys.readouterr().out.splitlines()


# What it finds


def test_each_planned_trial_is_in_one_part(mixed: Store) -> None:
    found = progress(mixed)
    titles = {
        "missing": ["blobs adamw lr=0.001 seed 50", "blobs adamw lr=0.001 seed 51"],
        "failed": [f"blobs adamw lr=0.001 seed {seed}" for status, seed in SEEDS.items() if status.failed],
        "preempted": [f"blobs adamw lr=0.001 seed {SEEDS[Status.PREEMPTED]}"],
        "pruned": [f"blobs adamw lr=0.001 seed {SEEDS[Status.PRUNED]}"],
        "running": [],
        "stale": [],
    }
    assert {part: [each.title for each in getattr(found, part)] for part in titles} == titles
    assert [each.status for each in found.done] == [Status.COMPLETED, Status.REACHED_TARGET]
    assert not found.is_complete


def test_a_sweep_is_complete_when_all_is_stored_and_nothing_has_failed(store: Store) -> None:
    store.write_plan(seeds(0, 1), [])
    store.publish(trial(), result())
    assert not progress(store).is_complete
    store.publish(trial({"seed": 1}), result(status=Status.PRUNED))
    assert progress(store).is_complete
    store.publish(trial({"seed": 2}), result(status=Status.CRASHED))
    assert progress(store).is_complete, "that one was not asked for"
    store.write_plan(seeds(0, 1, 2), [])
    assert not progress(store).is_complete


def test_before_the_first_result_all_is_missing(store: Store) -> None:
    store.write_plan(seeds(0, 1), [])
    assert len(progress(store).missing) == 2


def test_without_a_plan_it_is_about_all_that_is_stored(store: Store) -> None:
    store.publish(trial(), result())
    found = progress(store)
    assert found.is_complete
    assert [each.title for each in found.done] == ["blobs adamw seed 0"]
    assert found.command is None


def test_a_plan_of_an_earlier_optbench_has_ids_for_titles(mixed: Store) -> None:
    plan = mixed.read_plan()
    assert plan is not None
    del plan["titles"]
    mixed.write("plan.json", json.dumps(plan))
    assert [each.title for each in progress(mixed).missing] == [trial({"seed": seed}).id for seed in (50, 51)]


def test_a_trial_under_a_lease_is_running_and_nothing_else(mixed: Store) -> None:
    taken = [lease.take(mixed.folder, trial({"seed": seed}).id) for seed in (50, SEEDS[Status.CRASHED])]
    found = progress(mixed)
    assert [each.title for each in found.running] == [
        f"blobs adamw lr=0.001 seed {seed}" for seed in (SEEDS[Status.CRASHED], 50)
    ]
    assert [each.title for each in found.missing] == ["blobs adamw lr=0.001 seed 51"]
    assert Status.CRASHED not in [each.status for each in found.failed]
    for each in taken:
        assert each is not None
        each.release()
    assert progress(mixed).running == []


def test_a_failed_trial_tells_the_first_line_of_its_reason_and_its_log(
    mixed: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    crashed = trial({"seed": SEEDS[Status.CRASHED]})
    log = mixed.log(crashed.id)
    log.parent.mkdir()
    log.write_text("Segmentation fault\n")
    lines = shown(mixed, capsys)
    assert f"  failed: {crashed.title} ({crashed.id}), crashed: ValueError: bad (log: {log})" in lines
    diverged = trial({"seed": SEEDS[Status.DIVERGED]})
    assert f"  failed: {diverged.title} ({diverged.id}), diverged: ValueError: bad" in lines


def test_a_stale_trial_tells_what_differs(
    mixed: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "version", {"optbench": "0.1.0", "torch": "2.13.0"}.get)
    found = progress(mixed)
    assert len(found.stale) == len(SEEDS)
    first = f"  stale: {trial().title} ({trial().id}), torch 2.10.0 -> 2.13.0"
    lines = shown(mixed, capsys)
    assert first in lines
    assert f"To run what is stale again:  {shell_line(['sweep', *OVERRIDES])} --rerun stale" in lines


def test_devices_of_other_machines_are_not_compared(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "device_names", lambda _: frozenset({"Laptop"}))
    store.publish(trial(), result())
    for runs_here in (True, False):
        store.write_plan([trial()], [], runs_here=runs_here)
        assert bool(progress(store).stale) is runs_here


def test_a_damaged_result_is_missing_and_named(mixed: Store, capsys: pytest.CaptureFixture[str]) -> None:
    mixed.path(trial().id).write_bytes(b"{}")
    assert show_status([str(mixed.folder)]) is False
    output = capsys.readouterr()
    assert f"  missing: {trial().title} ({trial().id})" in output.out
    assert "did not hold what was written" in output.err


# What it prints


def test_the_counts_come_first(mixed: Store, capsys: pytest.CaptureFixture[str]) -> None:
    counts = "10 planned, 2 done, 2 missing, 4 failed, 1 preempted, 1 pruned."
    assert shown(mixed, capsys)[0] == f"{mixed.folder}: {counts}"


def test_long_lists_are_cut_unless_all_is_asked_for(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.write_plan(seeds(*range(400)), [])
    lines = shown(store, capsys)
    assert sum(line.startswith("  missing: blobs") for line in lines) == MAX_LINES
    assert "  missing: and 380 more (--all shows all)" in lines
    assert sum(line.startswith("  missing: blobs") for line in shown(store, capsys, everything=True)) == 400


def test_the_command_that_goes_on_is_quoted_for_a_shell(mixed: Store, capsys: pytest.CaptureFixture[str]) -> None:
    awkward = ["optimizer=lion,adamw", "seed=range(10)", "results=it's $(touch x)", "task.note='a b'"]
    mixed.write_plan(seeds(50), [*awkward, "sweep.rerun=[crashed]"])
    (line,) = [line for line in shown(mixed, capsys) if line.startswith("To run what is missing:  ")]
    assert shlex.split(line.partition(":  ")[2]) == ["optbench", "sweep", *awkward], "without what was run again"


def test_the_command_is_the_one_that_was_typed_where_the_plan_has_it() -> None:
    plan = {"overrides": ["seed=1"], "command": ["run", "--config-dir", "my conf", "seed=1", "sweep.rerun=[failed]"]}
    assert command(plan) == ["run", "--config-dir", "my conf", "seed=1"]
    assert command({"overrides": ["seed=1"]}) == ["sweep", "seed=1"]


def test_nothing_in_a_plan_reaches_the_terminal_but_as_text(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.write_plan(seeds(0), ["a=\x1b[2J[red]x[/]\n"])
    plan = store.read_plan()
    assert plan is not None
    store.write("plan.json", json.dumps({**plan, "titles": ["\x1b]0;owned\x07 [bold]t[/]\r"]}))
    output = "\n".join(shown(store, capsys))
    assert "\x1b" not in output
    assert "\r" not in output
    assert "[red]x[/]" in output
    assert "[bold]t[/]" in output


def test_machines_get_the_same(mixed: Store, capsys: pytest.CaptureFixture[str]) -> None:
    taken = lease.take(mixed.folder, trial({"seed": 50}).id)
    assert taken is not None
    assert show_status([str(mixed.folder.parent)], as_json=True) is False
    taken.release()
    (found,) = json.loads(capsys.readouterr().out)["sweeps"]
    assert (found["sweep"], found["num_planned"], found["num_done"]) == ("sweep", 10, 2)
    assert {part: len(found[part]) for part in ("missing", "running", "failed", "preempted", "pruned", "stale")} == {
        "missing": 1, "running": 1, "failed": 4, "preempted": 1, "pruned": 1, "stale": 0,
    }  # fmt: skip
    assert found["missing"] == [{"id": trial({"seed": 51}).id, "title": trial({"seed": 51}).title, "status": None}]
    assert set(found["running"][0]) >= {"host", "pid", "since"}
    assert {each["reason"] for each in found["failed"]} == {"ValueError: bad"}
    assert found["command"] == ["optbench", "sweep", *OVERRIDES]


def test_what_is_stale_says_why_to_machines_too(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.publish(trial(), replace(result(), environment={**result().environment, "device": "Abacus 4"}))
    assert show_status([str(store.folder)], as_json=True) is True
    (found,) = json.loads(capsys.readouterr().out)["sweeps"]
    assert found["stale"][0]["differences"] == ["device Abacus 4 -> Abacus 3"]


def test_every_sweep_of_a_results_folder_is_shown(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("b", "a"):
        Store(store.folder.parent, name).publish(trial(), result())
    Store(store.folder.parent, "c").write_plan(seeds(0), [])
    assert show_status([str(store.folder.parent)]) is False
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines if " planned" in line] == [
        str(store.folder.parent / name) for name in ("a", "b", "c")
    ]
