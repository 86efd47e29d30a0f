"""The store under everything that can go wrong: kills, full disks, damaged files, later versions."""

import errno
import json
import math
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from optbench import store as store_module
from optbench.errors import UsageError
from optbench.measurement import Status
from optbench.store import SCHEMA, Store, sweeps
from optbench.stored import Conditions
from tests.handmade import config, result, trial

Damage = Callable[[bytes], bytes]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, "sweep")


def published(store: Store, num_trials: int = 3) -> list[str]:
    """The ids of so many stored trials, which differ by their seed."""
    trials = [trial({"seed": seed}) for seed in range(num_trials)]
    for seed, each in enumerate(trials):
        store.publish(each, result(0.1 * (seed + 1)))
    return [each.id for each in trials]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# What is written is what is read


def test_a_result_is_read_as_it_was_written(store: Store) -> None:
    found = result(0.25, test_accuracy=0.75, reason=None)
    path = store.publish(trial(), found)
    assert path == store.folder / "trials" / f"{trial().id}.json"
    record = store.read(trial().id)
    assert record is not None
    assert record == {
        "schema": SCHEMA,
        "id": trial().id,
        "config": dict(trial().config),
        "status": "completed",
        "summary": found.summary,
        "curve": found.curve,
        "environment": found.environment,
        "timing": found.timing,
    }
    assert files(store.folder) == [path.name], "nothing is left in tmp/"


def test_figures_are_read_to_the_last_bit(store: Store) -> None:
    generator = random.Random(0)
    floats = [math.ldexp(generator.random() - 0.5, generator.randrange(-1060, 1020)) for _ in range(2000)]
    floats += [5e-324, 1.7976931348623157e308, 0.1 + 0.2, -0.0, math.nextafter(1.0, 2.0)]
    store.publish(trial(), replace(result(), curve={"test_loss": floats}))
    record = store.read(trial().id)
    assert record is not None
    assert [value.hex() for value in record["curve"]["test_loss"]] == [value.hex() for value in floats]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_file_holds_a_number_that_json_lacks(store: Store, value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        store.publish(trial(), result(value))
    assert files(store.folder) == []
    store.publish(trial({"optimizer.clip": value}), result())
    (file,) = (store.folder / "trials").iterdir()
    record = json.loads(file.read_bytes(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert record["config"]["optimizer"]["clip"] == str(value)


def test_any_tool_can_check_the_seal(store: Store) -> None:
    file = store.publish(trial({"data.sha256": "0123"}), result())  # a config may have a key of that name
    script = r"""sed -E 's/, "sha256": "[0-9a-f]{64}"\}$/}/' "$1" | sha256sum"""
    shown = subprocess.run(["sh", "-c", script, "sh", file], capture_output=True, text=True, check=True).stdout
    assert shown.split()[0] == json.loads(file.read_bytes())["sha256"]


# A result is whole or absent, and never overwritten


def test_a_second_result_of_a_trial_is_dropped(store: Store) -> None:
    first = store.publish(trial(), result(0.25)).read_bytes()
    assert store.publish(trial(), result(0.75, status=Status.DIVERGED)).read_bytes() == first
    assert files(store.folder) == [f"{trial().id}.json"]


def test_of_many_who_publish_at_once_one_is_whole_and_the_others_leave_nothing(store: Store) -> None:
    trial_id, barrier = trial().id, threading.Barrier(8)

    def publish(loss: float) -> None:
        barrier.wait()
        Store(store.folder.parent, store.sweep).publish(trial(), result(loss))

    threads = [threading.Thread(target=publish, args=(float(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = store.read(trial_id)
    assert record is not None
    assert record["summary"]["test_loss"] in range(8)
    assert files(store.folder) == [f"{trial_id}.json"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("function", ["os.fsync", "os.link"])
def test_a_result_that_cannot_be_written_leaves_no_trace(
    store: Store, monkeypatch: pytest.MonkeyPatch, function: str, error: BaseException
) -> None:
    earlier, *_ = published(store, 1)

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(function, fail)
        with pytest.raises(type(error)):
            store.publish(trial({"seed": 7}), result())
    assert files(store.folder) == [f"{earlier}.json"]
    assert store.index()["id"].tolist() == [earlier]
    store.publish(trial({"seed": 7}), result())
    assert len(store.index()) == 2


@contextmanager
def full_disk(num_bytes: int) -> Iterator[None]:
    """Files that grow beyond so many bytes end in an OSError, after a part has been written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_earlier_results_readable_and_no_half_file(store: Store) -> None:
    earlier = published(store)
    store.write_plan([trial({"seed": seed}) for seed in range(3)], ["seed=range(3)"])
    plan = store.read_plan()
    before = files(store.folder)
    with full_disk(100):
        with pytest.raises(OSError, match="too large"):
            store.publish(trial({"seed": 7}), result())
        with pytest.raises(OSError, match="too large"):
            store.write_plan([trial({"seed": 7})] * 30, ["seed=range(4)"])
        index = store.index()
    assert index["id"].tolist() == sorted(earlier), "an index that cannot be stored is still returned"
    assert files(store.folder) == before
    assert store.read_plan() == plan is not None


PUBLISHER = """
import io, itertools, json, sys, time
from pathlib import Path
from types import SimpleNamespace
from optbench.store import Store
from optbench.trial import Trial

class SlowFile(io.FileIO):
    def write(self, content):
        for start in range(0, len(content), 1024):
            super().write(content[start : start + 1024])
            time.sleep(0.0002)

Path.open = lambda self, mode: SlowFile(self, mode)  # so that most kills come in the midst of a write
store, config = Store(Path(sys.argv[1]), "sweep"), json.loads(sys.argv[2])
for seed in itertools.count(int(sys.argv[3])):
    curve = {"step": list(range(1000)), "test_loss": [seed / 7 + step for step in range(1000)]}
    result = SimpleNamespace(status="completed", summary={"test_loss": 0.5}, curve=curve, timing={},
                             environment={"packages": {}, "commit": None, "device": "", "device_type": "cpu",
                                          "num_threads": 1})
    trial = Trial.from_config({**config, "seed": seed})
    store.publish(trial, result)
    print(trial.id, flush=True)
"""


def test_a_killed_process_leaves_whole_results_and_all_that_it_had_published(store: Store) -> None:
    generator = random.Random(0)
    confirmed: set[str] = set()
    for first_seed in range(0, 10_000, 1000):
        with subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, store.folder.parent, json.dumps(config()), str(first_seed)],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(generator.randrange(1, 6))]
            threading.Event().wait(generator.random() * 0.03)
            process.send_signal(signal.SIGKILL)
            confirmed |= {line.strip() for line in [*lines, *process.stdout] if line.endswith("\n")}
    assert any((store.folder / "tmp").iterdir()), "no kill came in the midst of a write: this test shows nothing"
    stored = {path.stem for path in (store.folder / "trials").iterdir()}
    assert confirmed <= stored
    assert all(store.read(trial_id) is not None for trial_id in stored)
    assert set(store.index()["id"]) == stored
    assert store.quarantined == []


# Damaged files


def flipped(content: bytes, place: int) -> bytes:
    """With one bit of the byte at this place changed."""
    return content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]


DAMAGES: dict[str, Damage] = {
    "empty": lambda _: b"",
    "one byte": lambda content: content[:1],
    "half": lambda content: content[: len(content) // 2],
    "last byte missing": lambda content: content[:-1],
    "without the seal": lambda content: content.rpartition(b', "sha256"')[0] + b"}",
    "one byte more": lambda content: content + b"\n",
    "another figure": lambda content: content.replace(b"0.1", b"0.2", 1),
    "zeros": lambda content: bytes(len(content)),
    "not UTF-8": lambda content: b"\xff" + content[1:],
    "other JSON": lambda _: b"[1, 2]",
    "twice": lambda content: content + content,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_set_aside_and_the_others_are_read(store: Store, damage: str) -> None:
    damaged, *others = published(store)
    content = DAMAGES[damage](store.path(damaged).read_bytes())
    store.path(damaged).write_bytes(content)
    assert store.index()["id"].tolist() == sorted(others)
    aside = store.folder / "quarantine" / f"{damaged}.1.json"
    assert store.quarantined == [aside]
    assert aside.read_bytes() == content, "what was damaged can still be looked at"
    assert not store.path(damaged).exists()


def test_a_trial_whose_file_was_damaged_can_be_stored_again(store: Store) -> None:
    for number in range(1, 4):
        store.publish(trial(), result()).write_bytes(f"damaged {number}".encode())
        assert store.index().empty
    assert [path.read_text() for path in store.quarantined] == ["damaged 1", "damaged 2", "damaged 3"]
    store.publish(trial(), result())
    assert len(store.index()) == 1


def test_no_byte_can_change_and_none_be_missing(store: Store) -> None:
    path = store.publish(trial(), result())
    content = path.read_bytes()
    damaged = [flipped(content, place) for place in range(len(content))]
    damaged += [content[:length] for length in range(0, len(content), 7)]
    for each in damaged:
        path.write_bytes(each)
        assert store.read(path.stem) is None, each
        store.quarantined.pop().unlink()


def test_a_result_under_the_name_of_another_trial_is_set_aside(store: Store) -> None:
    first, second = published(store, 2)
    store.path(second).write_bytes(store.path(first).read_bytes())
    assert store.index()["id"].tolist() == [first]
    assert [path.name for path in store.quarantined] == [f"{second}.1.json"]


# The index


def test_the_index_says_what_the_files_say(store: Store) -> None:
    store.publish(trial(), result(0.25, test_accuracy=0.75))
    store.publish(trial({"seed": 1}), result(status=Status.CRASHED, reason="KeyError: 'x'"))
    store.publish(trial({"optimizer.lr": 0.1, "data": None}), result(status=Status.DIVERGED, diverged_at_step=7))
    index = store.index().set_index("id", drop=False)
    assert len(index) == 3
    for path in (store.folder / "trials").iterdir():
        record, row = json.loads(path.read_bytes()), index.loc[path.stem].dropna()
        expected = {
            "id": path.stem,
            "task": "blobs",
            "optimizer": "adamw",
            "setting": row["setting"],
            "seed": record["config"]["seed"],
            "status": record["status"],
            **record["summary"],
            **record["timing"],
            "device": "Abacus 3",
            "device_type": "cpu",
            "num_threads": 1,
            "trials_at_a_time": 1,
            "torch": "2.10.0",
            "packages": '{"optbench": "0.1.0", "torch": "2.10.0"}',
            "modified_ns": path.stat().st_mtime_ns,
        }
        found = {key: value for key, value in row.items() if not str(key).startswith("config.")}
        assert found == {key: value for key, value in expected.items() if value is not None}
        parts = {part: value for part, value in record["config"].items() if part != "seed"}
        assert {part: json.loads(str(row[f"config.{part}"])) for part in parts} == parts


def test_no_metric_hides_a_column_of_the_index(store: Store) -> None:
    names = ("id", "task", "optimizer", "setting", "seed", "status", "device", "num_threads", "commit")
    store.publish(trial(), replace(result(), summary=dict.fromkeys(names, 0.5)))
    (row,) = store.index().to_dict("records")
    assert (row["id"], row["task"], row["status"], row["seed"]) == (trial().id, "blobs", "completed", 0)
    assert (row["device"], row["num_threads"]) == ("Abacus 3", 1)


def test_trials_that_differ_by_their_seed_alone_are_of_one_setting(store: Store) -> None:
    same: list[dict[str, Any]] = [
        {"seed": 1},
        {"seed": 2, "data.path": "/elsewhere"},
        {"seed": 3, "optimizer.convention": {"momentum": "averages", "source": "now known"}},
        {"seed": 4, "task.metrics": {"test_loss": "min"}},
        {"seed": 5, "budget.num_steps": 100},  # as the task advises
    ]
    other: list[dict[str, Any]] = [
        {"optimizer.lr": 0.1},
        {"optimizer.betas": [0.9, 0.99]},
        {"task.batch_size": 32},
        {"budget.num_steps": 99},
    ]
    for changes in ({}, *same, *other):
        store.publish(trial(changes), result())
    index = store.index().set_index("id")["setting"]
    setting = index[trial().id]
    assert [index[trial(changes).id] for changes in same] == [setting] * len(same)
    assert len({setting, *(index[trial(changes).id] for changes in other)}) == 1 + len(other)


def test_an_empty_store_has_an_empty_index_and_makes_no_folder(store: Store) -> None:
    assert store.index().empty
    assert {"id", "status"} <= set(store.index())
    assert not store.folder.exists()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the trials whose files are read from now on."""
    ids: list[str] = []
    read = Store.read

    def counted(self: Store, trial_id: str) -> dict[str, Any] | None:
        ids.append(trial_id)
        return read(self, trial_id)

    monkeypatch.setattr(Store, "read", counted)
    return ids


def test_the_index_reads_a_file_once(store: Store, reads: list[str]) -> None:
    first = published(store, 3)
    store.index()
    assert sorted(reads) == sorted(first)
    reads.clear()
    again = Store(store.folder.parent, store.sweep).index()
    assert reads == []
    assert again["id"].tolist() == sorted(first)
    new = sorted(set(published(store, 5)) - set(first))
    assert store.index()["id"].tolist() == sorted([*first, *new])
    assert sorted(reads) == new


def test_the_index_grown_in_steps_is_the_one_made_at_once(store: Store) -> None:
    store.publish(trial({"seed": 0}), result(status=Status.DIVERGED))
    store.index()
    store.publish(trial({"seed": 1}), result(0.5, test_accuracy=0.75))
    store.publish(trial({"seed": 2}), result(status=Status.CRASHED, reason="KeyError: 'x'"))
    store.index()
    store.publish(trial({"seed": 3, "data": None}), result(0.25))
    grown = store.index()
    (store.folder / "index" / "trials.parquet").unlink()
    pd.testing.assert_frame_equal(grown, store.index())
    pd.testing.assert_frame_equal(grown, store.index())


INDEX_DAMAGES: dict[str, Damage] = {
    "empty": lambda _: b"",
    "half": lambda content: content[: len(content) // 2],
    "no Parquet": lambda _: b"id,status\n",
    "another table": lambda _: bytes(pd.DataFrame({"id": ["a"], "loss": [0.5]}).to_parquet()),
}


@pytest.mark.parametrize("damage", INDEX_DAMAGES)
def test_an_index_that_is_damaged_is_made_again(store: Store, damage: str) -> None:
    published(store)
    before = store.index()
    file = store.folder / "index" / "trials.parquet"
    file.write_bytes(INDEX_DAMAGES[damage](file.read_bytes()))
    pd.testing.assert_frame_equal(store.index(), before)
    pd.testing.assert_frame_equal(pd.read_parquet(file), before)


def test_a_flipped_bit_in_the_index_changes_no_figure(store: Store) -> None:
    published(store, 2)
    before = store.index()
    file = store.folder / "index" / "trials.parquet"
    content = file.read_bytes()
    for place in random.Random(0).sample(range(len(content)), 40):
        file.write_bytes(flipped(content, place))
        pd.testing.assert_frame_equal(store.index(), before, obj=f"after a flip at byte {place}")


def test_a_trial_that_is_run_again_replaces_its_row_and_keeps_its_file(store: Store) -> None:
    published(store, 2)
    for number in range(1, 4):
        store.index()
        store.publish(trial(), result(float(number)), replaces=store.modified_ns(trial().id))
    index = store.index().set_index("id")
    assert index.loc[trial().id, "test_loss"] == 3.0
    assert len(index) == 2
    kept = [json.loads((store.folder / "superseded" / f"{trial().id}.{n}.json").read_bytes()) for n in (1, 2, 3)]
    assert [record["summary"]["test_loss"] for record in kept] == [0.1, 1.0, 2.0]


def test_a_superseded_file_stays_where_an_earlier_one_was_deleted(store: Store) -> None:
    for loss in (1.0, 2.0, 3.0):
        store.publish(trial(), result(loss), replaces=store.modified_ns(trial().id))
    first, second = sorted((store.folder / "superseded").iterdir())
    first.unlink()
    kept = second.read_bytes()
    for loss in (4.0, 5.0):
        store.publish(trial(), result(loss), replaces=store.modified_ns(trial().id))
    assert second.read_bytes() == kept
    assert len(files(store.folder / "superseded")) == 3


def test_an_index_of_another_optbench_is_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    published(store)
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "__version__", "0.0.1")
        patch.setattr(store_module, "_row", lambda record: {"id": record["id"], "as_it_was_called": 0.5})
        assert "as_it_was_called" in store.index()
    assert "as_it_was_called" not in store.index()


def test_a_deleted_trial_leaves_the_index(store: Store) -> None:
    first, *others = published(store)
    store.index()
    store.path(first).unlink()
    assert store.index()["id"].tolist() == sorted(others)


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Without the right to write to the folder, or to read others' private ones; root would have it."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for each in folders:
        each.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        for each in folders:
            each.chmod(0o755)


@pytest.mark.parametrize("indexed", [True, False])
def test_a_folder_that_cannot_be_written_to_can_be_read(indexed: bool) -> None:
    with tempfile.TemporaryDirectory() as results:  # tmp_path lies in a private folder
        Path(results).chmod(0o755)
        store = Store(Path(results), "sweep")
        damaged, *others = published(store)
        expected = store.index()
        if not indexed:
            (store.folder / "index" / "trials.parquet").unlink()
            store.path(damaged).write_bytes(b"{}")
            expected = expected[expected["id"].isin(others)].reset_index(drop=True)
        before = files(store.folder)
        with unprivileged(Path(results)):
            with pytest.raises(PermissionError):
                store.write_plan([], [])
            found = store.index()
        pd.testing.assert_frame_equal(found, expected)
        assert files(store.folder) == before
        assert store.quarantined == ([] if indexed else [store.path(damaged)]), "it is named where it lies"


# What planning reads


@pytest.fixture(params=["files", "index", "some of both", "too many files"])
def read_from(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where planning finds what is stored."""
    monkeypatch.setattr(store_module, "FEW", {"files": 200, "some of both": 1}.get(request.param, 0))
    return str(request.param)


def test_statuses_are_the_same_wherever_they_are_read(store: Store, read_from: str) -> None:
    ids = published(store, 2)
    if read_from in ("index", "some of both"):
        store.index()
    else:
        assert files(store.folder / "index") == []
    if read_from == "some of both":
        ids.append(trial({"seed": 9}).id)
        store.publish(trial({"seed": 9}), result(status=Status.CRASHED, reason="boom"))
    found = store.statuses()
    assert {trial_id: stored.status for trial_id, stored in found.items()} == dict.fromkeys(
        ids[:2], Status.COMPLETED
    ) | dict.fromkeys(ids[2:], Status.CRASHED)
    assert {trial_id: stored.modified_ns for trial_id, stored in found.items()} == {
        trial_id: store.modified_ns(trial_id) for trial_id in ids
    }
    (conditions,) = {stored.conditions for stored in found.values()}
    assert conditions == Conditions(
        asked_device="auto",
        asked_threads=1,
        device="Abacus 3",
        num_threads=1,
        commit=None,
        packages=(("optbench", "0.1.0"), ("torch", "2.10.0")),
    )
    if read_from == "too many files":
        assert files(store.folder / "index") == ["seal", "trials.parquet"], "the next time is faster"


def test_a_damaged_file_has_no_status_and_is_set_aside(store: Store, read_from: str) -> None:
    first, *others = published(store)
    if read_from in ("index", "some of both"):
        store.index()
    store.path(first).write_bytes(b"{}")
    assert sorted(store.statuses()) == sorted(others)
    assert store.quarantined == [store.folder / "quarantine" / f"{first}.1.json"]


def test_a_column_that_no_trial_has_is_none(store: Store, read_from: str) -> None:
    published(store, 2)
    if read_from in ("index", "some of both"):
        store.index()
    assert [(row["step_seconds"], row["reason"]) for row in store.rows(["step_seconds", "reason"])] == [
        (0.02, None)
    ] * 2


def test_a_trial_whose_process_was_killed_is_planned_like_any_other(store: Store, read_from: str) -> None:
    """Of such a trial little is known, not even where it ran."""
    nowhere = {"device": "unknown", "device_type": "unknown", "num_threads": None, "packages": {}, "commit": None}
    store.publish(trial(), replace(result(status=Status.CRASHED), environment=nowhere))
    store.publish(trial({"seed": 1}), result())
    if read_from in ("index", "some of both"):
        store.index()
    conditions = store.statuses()[trial().id].conditions
    assert (conditions.device, conditions.num_threads, conditions.packages) == (None, None, ())
    assert conditions.differences() == []


# Names, plans and versions


@pytest.mark.parametrize("name", ["default", "lr_grid", "2026-11-21", "a.b,c=1", "_", "x" * 100])
def test_a_plain_name_is_a_folder_of_its_own(tmp_path: Path, name: str) -> None:
    assert Store(tmp_path, name).folder == tmp_path / name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../elsewhere", "a/b", "/tmp/a", "a\\b", ".hidden", "-rf", "a b", "a\nb", "a\n", "ä", "~", "$HOME"],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"sweep\.name="):
        Store(tmp_path, name)


def test_the_plan_is_that_of_the_last_command(store: Store) -> None:
    assert store.read_plan() is None
    store.write_plan([trial(), trial({"seed": 1})], ["optimizer=adam"])
    store.write_plan([trial({"seed": 2})], ["optimizer=lion", "seed=2"], command=["run", "seed=2"])
    assert store.read_plan() == {
        "schema": SCHEMA,
        "overrides": ["optimizer=lion", "seed=2"],
        "command": ["run", "seed=2"],
        "ids": [trial({"seed": 2}).id],
        "titles": ["blobs adamw lr=0.001 seed 2"],
    }
    assert files(store.folder) == ["plan.json"]


def test_a_damaged_plan_is_set_aside(store: Store) -> None:
    store.write_plan([trial(), trial({"seed": 1})], ["optimizer=adam"])
    path = store.folder / "plan.json"
    path.write_bytes(path.read_bytes()[:20])
    assert store.read_plan() is None
    assert store.quarantined == [store.folder / "quarantine" / "plan.1.json"]


def test_a_result_of_a_later_optbench_is_refused_by_name_and_left_where_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(store, 1)
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "SCHEMA", SCHEMA + 1)
        path = store.publish(trial({"seed": 7}), result())
    with pytest.raises(UsageError, match=rf"{path}: written in schema {SCHEMA + 1} by optbench 0\.1\.0") as caught:
        store.index()
    assert "Install the later optbench" in str(caught.value)
    assert path.exists()
    assert store.quarantined == []


def test_a_plan_of_a_later_optbench_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "SCHEMA", SCHEMA + 1)
        store.write_plan([trial()], [])
    with pytest.raises(UsageError, match=r"plan\.json: written in schema"):
        store.read_plan()


def test_sweeps_are_found_in_a_results_folder_and_named_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b", "a"):
        Store(tmp_path / "results", name).publish(trial(), result())
    (tmp_path / "results" / "no sweep").mkdir()
    (tmp_path / "results" / "README.md").touch()

    def found(folder: str) -> list[tuple[str, Path]]:
        return [(store.sweep, store.folder) for store in sweeps(Path(folder))]

    monkeypatch.chdir(tmp_path)
    assert found("results") == [("a", Path("results/a")), ("b", Path("results/b"))]
    assert found("results/b/") == [("b", tmp_path / "results" / "b")]
    assert found("nowhere") == []
    Store(tmp_path / "results", "c").write_plan([trial()], [])
    assert [name for name, _ in found("results")] == ["a", "b", "c"], "one without a result yet is a sweep, too"
    monkeypatch.chdir(tmp_path / "results" / "a")
    assert found(".") == [("a", tmp_path / "results" / "a")]
    monkeypatch.chdir(tmp_path / "results" / "a" / "trials")
    assert found("..") == [("a", tmp_path / "results" / "a")]
