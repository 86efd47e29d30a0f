"""What a task leaves behind, and what is said of data and of long work."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from optbench import building
from optbench.artifacts import keep
from optbench.errors import UsageError
from optbench.imports import quiet
from optbench.notes import listen
from tests.conftest import RunTrial


def leaving(**files: str) -> Any:
    def save(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)

    return SimpleNamespace(save=save)


def test_what_a_task_leaves_is_there_under_its_names(tmp_path: Path) -> None:
    assert keep(leaving(**{"b/c.txt": "2", "a.txt": "1"}), tmp_path / "id") == ["a.txt", "b/c.txt"]
    assert (tmp_path / "id" / "b" / "c.txt").read_text() == "2"


def test_a_later_run_replaces_what_an_earlier_one_left(tmp_path: Path) -> None:
    keep(leaving(old="1"), tmp_path / "id")
    assert keep(leaving(new="2"), tmp_path / "id") == ["new"]
    assert [path.name for path in (tmp_path / "id").iterdir()] == ["new"]


@pytest.mark.parametrize("task", [SimpleNamespace(), leaving()], ids=["no method", "no files"])
def test_a_task_that_leaves_nothing_has_no_folder(task: Any, tmp_path: Path) -> None:
    assert keep(task, tmp_path / "id") == []
    assert not (tmp_path / "id").exists()


def test_files_that_cannot_be_saved_cost_no_result(tmp_path: Path) -> None:
    def save(folder: Path) -> None:
        (folder / "half").write_text("1")
        raise RuntimeError("the picture is too large")

    with pytest.warns(UserWarning, match="too large"):
        assert keep(SimpleNamespace(save=save), tmp_path / "id") == []  # type: ignore[arg-type]
    assert not (tmp_path / "id").exists()
    assert not list(tmp_path.iterdir())


def test_a_note_on_the_data_is_kept_with_every_result_of_them(
    run_trial: RunTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = building.load_data
    noted: list[Any] = []

    def loaded(*args: Any) -> Any:
        data = load(*args)
        noted.append(data)
        object.__setattr__(data, "note", "copies of copies")
        return data

    monkeypatch.setattr(building, "load_data", loaded)
    try:
        for _ in range(2):
            assert run_trial("budget.num_steps=1").summary["warnings"] == "copies of copies"
    finally:
        object.__setattr__(noted[0], "note", "")


def test_long_work_is_told_to_whoever_listened_last() -> None:
    first: list[str] = []
    last: list[str] = []
    listen(first.append)
    listen(last.append)
    try:
        logging.getLogger("optbench").info("training %s", "a base")
    finally:
        listen(lambda _: None)
    assert (first, last) == ([], ["training a base"])


def test_a_library_of_an_extra_that_is_not_there_is_named_with_its_extra() -> None:
    message = r"no_such_library is not installed.*pip install 'optbench\[lora\]'"
    with pytest.raises(UsageError, match=message), quiet(extra="lora"):
        import no_such_library
    with pytest.raises(ModuleNotFoundError), quiet():
        import no_such_library  # noqa: F401
