"""The report of a sweep, and what its files may not do to those who open them."""

import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from optbench.measurement import Status
from optbench.report import report
from optbench.store import Store
from tests.handmade import result, trial


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, "sweep")


def publish(store: Store, *changes: Mapping[str, Any]) -> list[str]:
    """Store a trial for each of these configs; returns their ids."""
    for number, each in enumerate(changes, start=1):
        store.publish(trial(each), result(float(number)))
    return [trial(each).id for each in changes]


def rows_of(markdown: str) -> list[list[str]]:
    """The cells of the tables in a Markdown text, without the lines below the headers."""
    lines = [line for line in markdown.splitlines() if line.startswith("|") and "---" not in line]
    unescaped = "\0"
    return [
        [cell.strip().replace(unescaped, "|") for cell in line.replace("\\|", unescaped).split("|")[1:-1]]
        for line in lines
    ]


# Which trials a report is about


def test_a_report_is_about_the_last_command_and_everything_only_when_asked(store: Store) -> None:
    publish(store, {"optimizer.name": "adamw"}, {"optimizer.name": "lion"})
    store.write_plan([trial({"optimizer.name": "lion"})], ["optimizer=lion"])
    assert [row.optimizer for row in report(store).rows] == ["lion"]
    assert [row.optimizer for row in report(store, everything=True).rows] == ["adamw", "lion"]


def test_without_a_plan_a_report_is_about_everything(store: Store) -> None:
    publish(store, {"optimizer.name": "adamw"}, {"optimizer.name": "lion"})
    found = report(store)
    assert (len(found.rows), found.num_missing) == (2, 0)


def test_tasks_come_in_the_order_of_the_plan(store: Store) -> None:
    names = ["c", "a", "b"]
    trials = [trial({"task.name": name}) for name in names]
    publish(store, *({"task.name": name} for name in names))
    store.write_plan(trials, [])
    assert list(report(store).tasks) == names
    store.write_plan(trials[::-1], [])
    assert list(report(store).tasks) == names[::-1]


def test_trials_that_are_missing_are_said(store: Store) -> None:
    publish(store, {"seed": 0})
    store.write_plan([trial({"seed": seed}) for seed in range(3)], ["seed=range(3)"])
    found = report(store)
    assert found.num_missing == 2
    assert "2 planned trial(s) have no result yet: run the same command again." in found.failures()
    assert "2 planned trial(s)" in found.markdown()
    publish(store, {"seed": 1}, {"seed": 2})
    assert report(store).failures() == []


def test_a_damaged_trial_is_missing(store: Store) -> None:
    ids = publish(store, {"seed": 0}, {"seed": 1})
    store.write_plan([trial({"seed": 0}), trial({"seed": 1})], [])
    store.path(ids[0]).write_bytes(b"")
    assert report(store).num_missing == 1
    assert len(store.quarantined) == 1


def test_a_report_before_the_first_result_is_empty_and_can_be_written(store: Store) -> None:
    store.write_plan([trial()], [])
    found = report(store)
    assert (found.rows, found.tasks, found.num_missing, found.num_failed) == ([], {}, 1, 0)
    markdown, _ = found.write()
    assert markdown.read_text().strip() == "- 1 planned trial(s) have no result yet: run the same command again."


# Failures


def test_a_failure_is_told_with_its_reason_and_where_its_traceback_is(store: Store) -> None:
    failed = trial({"optimizer.name": "lion", "seed": 4})
    reason = "RuntimeError: shapes differ\nand a second line"
    store.publish(failed, result(status=Status.CRASHED, reason=reason, traceback="Traceback ..."))
    store.publish(trial(), result(status=Status.DIVERGED, diverged_at_step=7))
    publish(store, {"seed": 1})
    found = report(store)
    (line,) = found.failures()
    assert line == (f"blobs lion seed 4 crashed: RuntimeError: shapes differ (traceback in {store.path(failed.id)})")
    assert line in found.markdown()
    assert found.num_failed == 2, "a diverged trial has no error, and has failed all the same"


# The files


def test_the_table_is_written_beside_the_results(store: Store) -> None:
    publish(store, {"seed": 0}, {"seed": 1}, {"optimizer.name": "lion"})
    found = report(store)
    markdown, csv = found.write()
    assert (markdown, csv) == (store.folder / "table.md", store.folder / "table.csv")
    assert markdown.read_text(encoding="utf-8") == found.markdown()
    assert [cells[:5] for cells in rows_of(found.markdown())] == [
        ["", "optimizer", "setting", "seeds", "test loss"],
        ["★", "adamw", "lr=0.001", "2", "1.5 [1, 2]"],
        ["", "lion", "lr=0.001", "1", "3"],
    ]
    assert [line for line in found.markdown().splitlines() if line.startswith("## ")] == ["## blobs (sweep)"]
    table = pd.read_csv(csv)
    assert table[["optimizer", "test_loss"]].to_dict("records") == [
        {"optimizer": "adamw", "test_loss": 1.5},
        {"optimizer": "lion", "test_loss": 3.0},
    ]


def test_writing_again_replaces_the_files(store: Store) -> None:
    publish(store, {"optimizer.name": "lion"})
    report(store).write()
    publish(store, {"optimizer.name": "adamw"})
    store.write_plan([trial({"optimizer.name": "adamw"})], [])
    markdown, csv = report(store).write()
    assert "lion" not in markdown.read_text() + csv.read_text()
    assert not list((store.folder / "tmp").iterdir())


def test_a_folder_that_is_read_only_can_still_be_reported(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store, {})

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Store, "write", refuse)
    assert report(store).write() == []


HOSTILE = "a|b <img src=x onerror=alert(1)>\n| c | & \\| d"


def test_a_hostile_name_stays_within_its_cell_of_the_markdown(store: Store) -> None:
    publish(store, {"optimizer.name": HOSTILE, "task.name": "blobs", "optimizer.lr": 1.0}, {})
    markdown = report(store).markdown()
    table = rows_of(markdown)
    assert len({len(cells) for cells in table}) == 1
    assert len(table) == 3
    assert "<" not in markdown.replace("&lt;", "")
    (name,) = [cells[1] for cells in table if "img" in cells[1]]
    assert name == "a|b &lt;img src=x onerror=alert(1)> | c | &amp; \\\\| d"


def test_a_hostile_name_stays_in_the_heading_and_in_the_list_of_failures(store: Store) -> None:
    crashed = result(status=Status.CRASHED, reason="Error: <script>\n# not a heading")
    store.publish(trial({"task.name": "<b>\n\n# heading"}), crashed)
    lines = report(store).markdown().splitlines()
    assert [line for line in lines if line.startswith("#")] == ["## &lt;b> # heading (sweep)"]
    assert "<" not in "".join(lines)


def test_a_hostile_metric_stays_within_its_cell(store: Store) -> None:
    metrics = {"test_loss": "min", "a|b<c": "max"}
    store.publish(trial({"task.metrics": metrics}), result(**{"a|b<c": 0.5}))  # type: ignore[arg-type]
    header, row = rows_of(report(store).markdown())
    assert len(header) == len(row)
    assert "a|b&lt;c" in header


@pytest.mark.parametrize("name", ['=HYPERLINK("http://x","y")', "+1+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_text_in_the_csv_is_a_formula(store: Store, name: str) -> None:
    publish(store, {"optimizer.name": name, "task.name": name}, {"optimizer.name": "adam=w"})
    _, csv = report(store).write()
    with csv.open(newline="") as file:
        table = pd.read_csv(file, keep_default_na=False, lineterminator="\n")
    assert f"'{name}" in table["optimizer"].tolist()
    assert f"'{name}" in table["task"].tolist()
    assert "adam=w" in table["optimizer"].tolist(), "other text is left as it is"


def test_no_header_in_the_csv_is_a_formula_and_negative_numbers_stay_numbers(store: Store) -> None:
    metrics = {"test_loss": "min", "=cmd": "max"}
    store.publish(trial({"task.metrics": metrics}), result(-1.5, **{"=cmd": -0.5}))  # type: ignore[arg-type]
    _, csv = report(store).write()
    table = pd.read_csv(csv)
    assert table[["test_loss", "'=cmd"]].to_numpy().tolist() == [[-1.5, -0.5]]


def test_a_name_with_a_comma_a_quote_and_a_newline_is_one_csv_field(store: Store) -> None:
    publish(store, {"optimizer.name": 'a,"b"\nc'})
    _, csv = report(store).write()
    assert pd.read_csv(io.StringIO(csv.read_text()))["optimizer"].tolist() == ['a,"b"\nc']


def test_a_report_needs_no_torch(store: Store) -> None:
    publish(store, {})
    code = (
        "import sys; from pathlib import Path; from optbench.report import report; from optbench.store import Store;"
        "report(Store(Path(sys.argv[1]), 'sweep')).write(); print('torch' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, store.folder.parent], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "False\n"


def test_the_table_is_written_in_utf_8_whatever_the_locale(store: Store) -> None:
    publish(store, {"optimizer.name": "größer"}, {})
    code = (
        "import sys; from pathlib import Path; from optbench.report import report; from optbench.store import Store;"
        "report(Store(Path(sys.argv[1]), 'sweep')).write()"
    )
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, store.folder.parent], env=environment, check=True)
    for name in ("table.md", "table.csv"):
        assert "größer" in (store.folder / name).read_text(encoding="utf-8")


def test_a_note_says_how_much_of_the_state_is_in_few_bits_where_it_is_a_part(store: Store) -> None:
    shares = {"adamw8bit": 0.9305, "adamw": 0.0, "lion8bit": 1.0}
    for name, share in shares.items():
        store.publish(trial({"optimizer.name": name}), result(low_bit_share=share))
    lines = [line for line in report(store).markdown().splitlines() if "8 bits" in line]
    assert lines == [
        "- adamw8bit on blobs: state in 8 bits or fewer for 93.0 % of the parameters, the other tensors keep more."
    ]


def test_what_a_library_warned_of_is_said_once_for_each_optimizer(store: Store) -> None:
    for seed in range(2):
        store.publish(trial({"seed": seed}), result(warnings="unpaged\non the CPU"))
    text = report(store).markdown()
    assert text.count("adamw: unpaged") == 1
    assert text.count("adamw: on the CPU") == 1
