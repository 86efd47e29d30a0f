"""What is to be run, and what is known of it beforehand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optbench import machine
from optbench.errors import UsageError
from optbench.forecast import Capacity, Forecast, History, groups, num_fitting, wall_seconds
from optbench.measurement import Status
from optbench.plan import Plan, make
from optbench.store import Store
from tests.handmade import result, trial


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, "sweep")


SEEDS = {status: seed for seed, status in enumerate(Status)}
FAILED = {Status.DIVERGED, Status.OUT_OF_MEMORY, Status.TIMED_OUT, Status.CRASHED}


@pytest.fixture
def mixed(store: Store) -> Store:
    """A store with a trial of each status, by its seed."""
    for status, seed in SEEDS.items():
        store.publish(trial({"seed": seed}), result(status=status))
    return store


def planned(store: Store, *rerun: str, **options: Any) -> Plan:
    return make((trial({"seed": seed}) for seed in (*SEEDS.values(), 99)), store=store, rerun=rerun, **options)


def statuses(plan: Plan) -> set[Status | None]:
    """Of what is to be run: the status that is stored of it."""
    return {plan.stored[job.trial.id].status if job.trial.id in plan.stored else None for job in plan.jobs}


# What is to be run


def test_what_has_no_result_is_run(mixed: Store) -> None:
    plan = planned(mixed)
    assert statuses(plan) == {None, Status.PREEMPTED, Status.PRUNED}
    assert (len(plan.jobs), plan.num_done, plan.num_failed, len(plan.trials)) == (3, 2, 4, 9)


def test_to_the_search_that_gave_a_trial_up_this_is_its_result(mixed: Store) -> None:
    plan = planned(mixed, pruned_counts=True)
    assert statuses(plan) == {None, Status.PREEMPTED}
    assert plan.num_done == 3


@pytest.mark.parametrize("status", list(Status))
def test_a_status_can_be_run_again(mixed: Store, status: Status) -> None:
    assert statuses(planned(mixed, status)) == {None, Status.PREEMPTED, Status.PRUNED, status}


def test_failed_is_any_status_that_says_so(mixed: Store) -> None:
    plan = planned(mixed, "failed")
    assert statuses(plan) == {None, Status.PREEMPTED, Status.PRUNED, *FAILED}
    assert (plan.num_done, plan.num_failed) == (2, 0)


@pytest.mark.parametrize(("word", "nearest"), [("faild", "failed"), ("stael", "stale"), ("crash", "crashed")])
def test_an_unknown_word_names_the_nearest_before_anything_is_composed(store: Store, word: str, nearest: str) -> None:
    def trials() -> Any:
        pytest.fail("composed")
        yield

    with pytest.raises(UsageError, match=rf"unknown status '{word}' for sweep.rerun. Did you mean '{nearest}'"):
        make(trials(), store=store, rerun=["failed", word])


def test_a_job_says_which_result_it_replaces(mixed: Store) -> None:
    for job in planned(mixed, "crashed").jobs:
        assert job.replaces == mixed.modified_ns(job.trial.id)


def test_what_is_spelt_differently_and_asks_the_same_is_one(store: Store) -> None:
    first, second = trial({"optimizer.lr": 0.001}), trial({"optimizer.lr": float("1e-3")})
    plan = make([first, trial({"seed": 1}), second, first], store=store)
    assert [found.seed for found in plan.trials] == [0, 1]
    assert plan.num_merged == 2


def test_trials_are_run_in_the_order_in_which_they_were_given(mixed: Store) -> None:
    seeds = [99, 3, 50, SEEDS[Status.PREEMPTED], 2, 77, 60]
    plan = make([trial({"seed": seed}) for seed in seeds], store=mixed)
    assert [found.seed for found in plan.trials] == seeds
    assert [job.trial.seed for job in plan.jobs] == [
        seed for seed in seeds if seed not in set(SEEDS.values()) - {SEEDS[Status.PREEMPTED], SEEDS[Status.PRUNED]}
    ]


def test_results_of_other_trials_do_not_count(mixed: Store) -> None:
    plan = make([trial({"seed": 99})], store=mixed)
    assert (plan.stored, plan.num_done, plan.num_failed) == ({}, 0, 0)


def test_a_damaged_result_is_planned_again(mixed: Store) -> None:
    mixed.path(trial().id).write_bytes(b"{")
    plan = planned(mixed)
    assert plan.jobs[0].trial.seed == 0
    assert plan.jobs[0].replaces is None
    assert len(mixed.quarantined) == 1


# What is stale


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The versions that are installed, on a machine like that of the results."""
    versions = {"optbench": "0.1.0", "torch": "2.10.0", "lion-pytorch": "0.2.5"}
    monkeypatch.setattr(machine, "version", versions.get)
    monkeypatch.setattr(machine, "commit", lambda: "a" * 40)
    monkeypatch.setattr(machine, "device_names", lambda asked: frozenset({"Abacus 3"} if asked != "cuda" else ()))
    return versions


def environment(**changes: Any) -> dict[str, Any]:
    versions = {"optbench": "0.1.0", "torch": "2.10.0", "lion-pytorch": "0.2.5", "numpy": "2.0.0"}
    return {**result().environment, "packages": versions, "commit": "a" * 40, **changes}


def differences(store: Store, changes: dict[str, Any], found: dict[str, Any], *, runs_here: bool = True) -> list[str]:
    store.publish(trial(changes), replace(result(), environment=found))
    plan = make([trial(changes)], store=store, rerun=["stale"], runs_here=runs_here)
    (stored,) = plan.stored.values()
    found_differences = stored.conditions.differences(runs_here=runs_here)
    assert bool(plan.jobs) is bool(found_differences)
    return found_differences


LION = {"optimizer.name": "lion", "optimizer._target_": "lion_pytorch.Lion"}


def test_the_same_versions_commit_and_device_are_not_stale(store: Store, here: dict[str, str]) -> None:
    assert here
    assert differences(store, LION, environment()) == []


@pytest.mark.parametrize(
    ("package", "version", "words"),
    [
        ("torch", "2.11.0", "torch 2.10.0 -> 2.11.0"),
        ("optbench", "0.2.0", "optbench 0.1.0 -> 0.2.0"),
        ("lion-pytorch", "0.3.0", "lion-pytorch 0.2.5 -> 0.3.0"),
        ("lion-pytorch", None, "lion-pytorch 0.2.5 -> not installed"),
    ],
)
def test_another_version_makes_stale(
    store: Store, here: dict[str, Any], package: str, version: str | None, words: str
) -> None:
    here[package] = version
    assert differences(store, LION, environment()) == [words]


def test_the_version_of_another_optimizers_package_does_not(store: Store, here: dict[str, str]) -> None:
    here["lion-pytorch"] = "0.3.0"
    assert differences(store, {}, environment()) == []


def test_that_of_a_companions_package_does(store: Store, here: dict[str, str]) -> None:
    here["lion-pytorch"] = "0.3.0"
    companion = {"name": "lion", "_target_": "lion_pytorch.Lion", "lr": 0.1}
    pair = {"optimizer.companion": companion, "optimizer.capabilities": ["matrices_only"]}
    assert differences(store, pair, environment()) == ["lion-pytorch 0.2.5 -> 0.3.0"]


@pytest.mark.parametrize(("then", "words"), [("b" * 40, ["commit bbbbbbb -> aaaaaaa"]), (None, [])])
def test_another_commit_makes_stale_if_both_are_known(
    store: Store, here: dict[str, str], then: str | None, words: list[str]
) -> None:
    assert here
    assert differences(store, {}, environment(commit=then)) == words


@pytest.mark.parametrize(
    ("asked", "device", "words"),
    [
        ("auto", "Abacus 4", ["device Abacus 4 -> Abacus 3"]),
        ("cpu", "Abacus 4", ["device Abacus 4 -> Abacus 3"]),
        ("cuda", "NVIDIA H200", ["device NVIDIA H200 -> no GPU"]),
        ("auto", "Abacus 3 MIG 1g.18gb", []),
        ("auto", "unknown", []),
    ],
)
def test_another_device_makes_stale(
    store: Store, here: dict[str, str], asked: str, device: str, words: list[str]
) -> None:
    assert here
    assert differences(store, {"hardware.device": asked}, environment(device=device)) == words


def test_where_trials_run_on_other_machines_their_devices_are_not_compared(store: Store, here: dict[str, str]) -> None:
    assert here
    assert differences(store, {}, environment(device="NVIDIA H200"), runs_here=False) == []


def test_another_number_of_threads_makes_stale(store: Store, here: dict[str, str]) -> None:
    assert here
    assert differences(store, {}, environment(num_threads=4)) == ["threads 4 -> 1"]


def test_what_is_stale_is_not_run_unless_that_is_asked(store: Store, here: dict[str, str]) -> None:
    store.publish(trial(), replace(result(), environment=environment()))
    here["torch"] = "3.0.0"
    assert make([trial()], store=store).jobs == []
    assert len(make([trial()], store=store, rerun=["crashed", "stale"]).jobs) == 1


# What is predicted


def ran(steps: float | None, peak_bytes: int | None = 2048, **found: Any) -> Any:
    timing = {"train_seconds": 2.0, "step_seconds": steps}
    return replace(result(peak_bytes=peak_bytes), timing=timing, environment=environment(**found))


def forecast(store: Store, changes: dict[str, Any] | None = None) -> Forecast:
    return History(store.folder.parent).forecast(trial(changes))


def test_time_is_the_median_step_times_the_steps_and_memory_the_largest(store: Store, here: dict[str, str]) -> None:
    assert here
    for seed, (seconds, peak) in enumerate([(0.02, 100), (0.9, 300), (0.03, 200)]):
        store.publish(trial({"seed": seed}), ran(seconds, peak))
    assert forecast(store, {"seed": 7}) == Forecast(seconds=pytest.approx(0.03 * 100), peak_bytes=300)
    assert forecast(store, {"optimizer.lr": 0.5, "budget.num_steps": 10}).seconds == pytest.approx(0.3)


def test_any_sweep_below_the_results_folder_tells(store: Store, here: dict[str, str]) -> None:
    assert here
    Store(store.folder.parent, "another").publish(trial(), ran(0.01))
    assert forecast(store).seconds == pytest.approx(1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"task.name": "moons"},
        {"task.batch_size": 65},
        {"optimizer.name": "adam"},
        {"hardware.num_threads": 2},
        {"data.name": "lines"},
    ],
)
def test_another_task_optimizer_or_number_of_threads_tells_nothing(
    store: Store, here: dict[str, str], changes: dict[str, Any]
) -> None:
    assert here
    store.publish(trial(), ran(0.01))
    assert forecast(store, changes) == Forecast(seconds=None, peak_bytes=None)


def test_nor_does_another_device(store: Store, here: dict[str, str]) -> None:
    assert here
    store.publish(trial(), ran(0.01, device="Abacus 4"))
    assert forecast(store) == Forecast(seconds=None, peak_bytes=None)


def test_what_was_not_measured_is_not_made_up(store: Store, here: dict[str, str]) -> None:
    assert here
    store.publish(trial(), ran(None, None))
    assert forecast(store) == Forecast(seconds=None, peak_bytes=None)
    store.publish(trial({"seed": 1}), ran(0.01, None))
    assert forecast(store) == Forecast(seconds=pytest.approx(1.0), peak_bytes=None)


def test_the_budgets_seconds_are_the_end_of_it(store: Store, here: dict[str, str]) -> None:
    assert here
    assert forecast(store, {"budget.seconds": 5.0}).seconds == 5.0, "known without any result"
    both = {"budget.seconds": 0.5, "budget.num_steps": 100}
    assert forecast(store, both).seconds is None
    store.publish(trial(), ran(0.01))
    assert forecast(store, both).seconds == 0.5
    assert forecast(store, {**both, "budget.num_steps": 10}).seconds == pytest.approx(0.1)


def test_results_of_a_later_optbench_tell_nothing(
    store: Store, here: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert here
    with monkeypatch.context() as patch:
        patch.setattr("optbench.store.SCHEMA", 99)
        Store(store.folder.parent, "later").publish(trial(), ran(0.5))
    store.publish(trial(), ran(0.01))
    assert forecast(store).seconds == pytest.approx(1.0)


def test_groups_are_of_a_task_and_an_optimizer_and_predict_for_what_is_to_be_run(
    mixed: Store, here: dict[str, str]
) -> None:
    assert here
    mixed.publish(trial({"seed": 50}), ran(0.01, 512))
    adam = [trial({"optimizer.name": "adam", "seed": seed}) for seed in range(2)]
    plan = make([*(trial({"seed": seed}) for seed in (*SEEDS.values(), 99)), *adam], store=mixed)
    first, second = groups(plan, History(mixed.folder.parent))
    assert (first.task, first.optimizer, second.optimizer) == ("blobs", "adamw", "adam")
    assert (first.num_trials, first.num_to_run, first.num_done, first.num_failed) == (9, 3, 2, 4)
    assert first.known_seconds == pytest.approx([2.0] * 3)
    assert (first.peak_bytes, first.is_known) == (2048, True)
    assert (second.num_trials, second.num_to_run, second.known_seconds, second.peak_bytes) == (2, 2, [], None)
    assert not second.is_known


def test_trials_take_turns_on_the_slots() -> None:
    assert wall_seconds([3.0, 1.0, 1.0, 1.0, 4.0], num_slots=2) == 7.0
    assert wall_seconds([1.0] * 5, num_slots=1) == 5.0
    assert wall_seconds([], num_slots=3) == 0.0


@pytest.mark.parametrize(("peak", "number"), [(100, 2), (500, 2), (501, 1), (1000, 1), (1001, 0)])
def test_as_many_trials_fit_as_their_peaks_leave_room_for(peak: int, number: int) -> None:
    room = Capacity(num_slots=2, on_gpus=True, device_bytes=1000, num_sharing=2)
    assert num_fitting(peak, room) == number
    assert num_fitting(peak, replace(room, device_bytes=None)) is None


# This machine


def test_the_gpus_are_those_that_may_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho '0, GPU-aa, NVIDIA H200, 143771'\necho '1, GPU-bb, NVIDIA L4, 23034'\n"
        "echo '2, GPU-cc, NVIDIA X, [N/A]'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(machine, "torch_has_cuda", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for visible, names in ((None, ["NVIDIA H200", "NVIDIA L4"]), ("1", ["NVIDIA L4"]), ("GPU-aa", ["NVIDIA H200"])):
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [gpu.name for gpu in machine.gpus.__wrapped__()] == names
    assert machine.gpus.__wrapped__()[0].total_bytes == 143771 * 2**20
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.gpus.__wrapped__() == ()
    monkeypatch.setattr(machine, "torch_has_cuda", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert machine.gpus.__wrapped__() == (), "a torch without CUDA finds none"


def test_the_same_machine_is_told_with_and_without_torch() -> None:
    import torch

    from optbench.environment import environment as with_torch

    found = with_torch(torch.device("cpu"))
    assert machine.device_names("cpu") == {found["device"]}
    assert found["commit"] == machine.commit()
    assert all(machine.version(package) == version for package, version in found["packages"].items())
    assert machine.torch_has_cuda() is (torch.version.cuda is not None)


def test_a_groups_memory_limit_counts_if_less_is_left_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = machine.available_bytes()
    assert unlimited is not None
    limit, usage, cache = (tmp_path / name for name in ("max", "current", "stat"))
    monkeypatch.setattr(machine, "_memory_limits", lambda: iter([(limit, usage, cache)]))
    limit.write_text("max\n")
    usage.write_text("600\n")
    cache.write_text("anon 500\ninactive_file 100\n")
    assert machine.available_bytes() == pytest.approx(unlimited, rel=0.5)
    limit.write_text("1000\n")
    assert machine.available_bytes() == 500
