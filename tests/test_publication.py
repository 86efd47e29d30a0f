"""A whole report: real trials in, files out; in a browser without a network, twice the same, and with hostile names."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

import optbench
from optbench.cli import main
from optbench.costs import Costs, cost_id
from optbench.errors import UsageError
from optbench.folder import MANIFEST
from optbench.gallery import MIN_FOR_PROCESSES
from optbench.measurement import Status
from optbench.publication import MAX_PICTURES
from optbench.reporting import split
from optbench.store import Store
from tests import browser as browsers
from tests.browser import OpenPage
from tests.costs import cost
from tests.hostile import NAMES
from tests.reports import analysis_of, fill, optimizer

browser, open_page = browsers.browser, browsers.open_page

PICTURES = ["best_of_k", "curves", "heat_map", "lr_free", "memory", "sensitivity", "trade_off"]


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real tasks, rates at which SGD diverges, two weight decays, Prodigy and controls; costs made by hand."""
    folder = tmp_path_factory.mktemp("real") / "results"
    for task in ("quadratic_deep", "digits_mlp"):
        quick = [f"results={folder}", f"task={task}", "budget.num_steps=44", "seed=range(2)", "executor=serial"]
        call(
            *("sweep", *quick, f"sweep.name={task}", "optimizer=adamw,sgd"),
            *("optimizer.lr=0.03,0.3,30.0", "optimizer.weight_decay=0.0,0.1"),
        )
        call("sweep", *quick, f"sweep.name={task}_others", "optimizer=prodigy,null,sgd_untuned")
        store = Store(folder, f"{task}_others")
        for record in (store.read(trial_id) for trial_id in store.index()["id"]):
            assert record is not None
            asked = record["config"]
            found = replace(cost(device=record["environment"]["device"]), id=cost_id(asked), config=asked)
            Costs(store).write(found)
    return folder


@pytest.fixture(scope="module")
def report(results: Path) -> Path:
    assert call("report", str(results)) == 0
    return results / "report"


# What is written


def test_a_report_has_a_page_tables_and_pictures(report: Path) -> None:
    assert {path.name for path in report.iterdir()} == {"report.html", "report.md", "tables", "figures", MANIFEST}
    tables = {path.stem for path in (report / "tables").iterdir()}
    for name in ("best", "default", "settings"):
        assert {f"{name}_digits_mlp_budget_num_steps_44", f"{name}_quadratic_deep_budget_num_steps_44"} <= tables or {
            f"{name}_digits_mlp",
            f"{name}_quadratic_deep",
        } <= tables
    assert {"hyperparameters", "over_tasks", "failures"} <= tables
    assert any(name.startswith("memory_") for name in tables)
    assert any(name.startswith("time_") for name in tables)
    for name in tables:
        assert {path.suffix for path in (report / "tables").glob(f"{name}.*")} == {".md", ".csv", ".tex"}


@pytest.mark.parametrize("kind", [*PICTURES, "ranks", "profile"])
def test_every_kind_of_picture_is_drawn_of_real_trials(report: Path, kind: str) -> None:
    drawn = {path.stem for path in (report / "figures").glob(f"{kind}*.svg")}
    assert drawn
    for name in drawn:
        assert ET.parse(report / "figures" / f"{name}.svg").getroot().tag.endswith("svg")
        assert (report / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len(pd.read_csv(report / "figures" / f"{name}.csv")) > 0


def test_every_picture_is_on_the_page_or_named_there(report: Path) -> None:
    page = (report / "report.html").read_text()
    drawn = [path.stem for path in (report / "figures").glob("*.svg")]
    named = [name for name in drawn if f"figures/{name}.svg" in page]
    assert page.count("<svg") == len(drawn) - len(named) <= MAX_PICTURES


def test_the_page_answers_first(report: Path) -> None:
    text = re.sub(r"<[^>]*>", " ", (report / "report.html").read_text().partition("<main")[2])
    assert re.search(r"On\s+digits_mlp", text)
    assert "failed" in text
    markdown = (report / "report.md").read_text()
    assert "## Over all tasks" in markdown
    assert "diverged" in markdown


def test_a_second_report_is_the_same_to_the_last_byte(results: Path, report: Path, tmp_path: Path) -> None:
    assert call("report", str(results), "--out", str(tmp_path / "again")) == 0
    first, second = (
        {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (report, tmp_path / "again")
    )
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_pictures_are_the_same_whether_one_process_draws_or_several(
    results: Path, report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(list((report / "figures").glob("*.svg"))) >= MIN_FOR_PROCESSES - 5, "several processes drew the first"
    monkeypatch.setattr("optbench.gallery.MIN_FOR_PROCESSES", 10_000)
    assert call("report", str(results), "--out", str(tmp_path)) == 0
    for path in (report / "figures").iterdir():
        assert path.read_bytes() == (tmp_path / "figures" / path.name).read_bytes(), path.name


def test_what_an_earlier_report_left_is_deleted_and_nothing_else(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("report", str(results), "--out", str(out)) == 0
    (out / "figures" / "mine.svg").write_text("<svg/>")
    assert (out / "tables" / "over_tasks.csv").is_file()
    assert call("report", str(results / "quadratic_deep"), "optimizer=adamw", "--out", str(out)) == 0
    assert not (out / "tables" / "over_tasks.csv").exists()
    assert (out / "figures" / "mine.svg").is_file()
    assert set(json.loads((out / MANIFEST).read_text())) == {
        path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()
    } - {MANIFEST, "figures/mine.svg"}


def test_a_list_of_files_that_leads_elsewhere_deletes_nothing(results: Path, tmp_path: Path) -> None:
    keep = tmp_path / "keep.txt"
    keep.touch()
    out = tmp_path / "out"
    out.mkdir()
    (out / "tables").mkdir()
    (out / "notes.csv").touch()
    names = ["../keep.txt", str(keep), 3, "figures/../../keep.txt", "notes.csv", "tables/..", "tables/../notes.csv"]
    (out / MANIFEST).write_text(json.dumps(names))
    assert call("report", str(results / "quadratic_deep"), "optimizer=adamw", "--out", str(out)) == 0
    assert keep.is_file()
    assert (out / "notes.csv").is_file()
    (out / MANIFEST).write_text("1")
    assert call("report", str(results / "quadratic_deep"), "optimizer=adamw", "--out", str(out)) == 0


# In a browser


def test_the_page_works_in_a_browser_without_a_network(report: Path, open_page: OpenPage) -> None:
    with open_page(report / "report.html") as (page, log):
        rows = page.locator("table").first.locator("tbody tr")
        before = rows.all_text_contents()
        header = page.locator("table").first.locator("th button", has_text="optimizer")
        header.click()
        names = page.locator("table").first.locator("tbody tr").all_text_contents()
        assert sorted(names) == sorted(before)
        assert names != before or len(before) < 2
        assert page.locator("table").first.locator("th[aria-sort=ascending]").count() == 1
        search = page.locator("input[type=search]").last
        search.fill("sgd")
        assert page.locator("figure svg").count() > 5
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert log.errors == []
    assert log.messages == []
    assert log.dialogs == []
    assert log.requests == [(report / "report.html").as_uri()]


def test_the_page_can_be_read_on_a_phone(report: Path, open_page: OpenPage) -> None:
    with open_page(report / "report.html", viewport={"width": 360, "height": 740}, has_touch=True) as (page, log):
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.locator("text=On digits_mlp").first.is_visible()
    assert log.errors == []


# Names


class _Elements(HTMLParser):
    """The elements of a page, and what could run or be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.handlers += [
            value
            for name, value in attrs
            if name in ("src", "href") and value and value[0] != "#" and value != "data:,"
        ]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on optimizers, a task, settings, metrics and reasons that are called so."""
    results = tmp_path_factory.mktemp("hostile")
    store = Store(results, "sweep")
    for place, name in enumerate(name for name in NAMES if name):
        task = {"task.name": NAMES[place % 3], "optimizer.kind": name}
        fill(store, {**task, **optimizer(name, 0.1)}, [1.0 + place, 2.0 + place])
        fill(store, {**task, **optimizer(name, 0.01)}, [Status.CRASHED, 2.0], reason=name, warnings=name)
    assert call("report", str(results)) == 0
    return results / "report"


def test_no_name_becomes_an_element_of_the_page(hostile: Path) -> None:
    found = _Elements()
    found.feed((hostile / "report.html").read_text())
    assert found.count.get("script") == 2, "the data and ours"
    assert not found.handlers
    assert not found.count.keys() & {"img", "iframe", "object", "embed", "base", "form", "audio", "video"}


def test_no_name_runs_in_a_browser(hostile: Path, open_page: OpenPage) -> None:
    with open_page(hostile / "report.html") as (page, log):
        page.wait_for_timeout(200)
        assert "<script>alert(1)</script>" in page.locator("body").inner_text()
    assert (log.errors, log.messages, log.dialogs) == ([], [], [])
    assert log.requests == [(hostile / "report.html").as_uri()]


def test_no_name_is_markup_in_any_file(hostile: Path) -> None:
    for path in [hostile / "report.md", *(hostile / "tables").glob("*.md")]:
        text = path.read_text()
        assert not re.search(r"<[a-zA-Z/!]", text), path
        links = re.findall(r"(?<!\\)\]\((.*?)\)", text)
        assert all(link.startswith("figures/") for link in links), path
    for path in [*(hostile / "tables").glob("*.csv"), *(hostile / "figures").glob("*.csv")]:
        cells = pd.read_csv(path, dtype=str, keep_default_na=False).to_numpy().ravel().tolist()
        number = re.compile(r"-?(\d|inf|nan)[\d.e+-]*\Z")
        formulas = [
            cell for cell in cells if cell.lstrip(" ").startswith(("=", "+", "-", "@")) and not number.match(cell)
        ]
        assert formulas == [], path
    for path in (hostile / "figures").glob("*.svg"):
        tags = {element.tag.rpartition("}")[2] for element in ET.parse(path).iter()}
        assert not tags & {"script", "img", "image", "foreignObject", "a"}, path


def test_names_of_files_are_plain(hostile: Path) -> None:
    names = [path.relative_to(hostile).as_posix() for path in hostile.rglob("*") if path.is_file()]
    assert all(re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name, flags=re.ASCII) for name in names)
    assert len({name.lower() for name in names}) == len(names)


# The command


def test_words_are_folders_or_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1").mkdir()
    assert split([]) == ([Path("results")], [])
    assert split(["a", "results=b", "optimizer=lion", "lr=0.1", "+seed=0"]) == (
        [Path("a"), Path("b"), Path("lr=0.1")],
        ["optimizer=lion", "+seed=0"],
    )


def test_filters_reach_the_tables(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["optimizer=adamw,prodigy", "task=digits_mlp"]
    assert call("report", str(results), *words, "--out", str(tmp_path)) == 0
    table = pd.read_csv(tmp_path / "tables" / "hyperparameters.csv")
    assert sorted(table["optimizer"]) == ["adamw", "prodigy"]
    assert "fulfil optimizer=adamw,prodigy task=digits_mlp" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["optimizer=adamx"], "Did you mean optimizer=adamw"),
        (["optimzer=adamw"], "Did you mean 'optimizer'"),
    ],
)
def test_a_mistake_is_explained(
    results: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("report", *([str(results)] if "=" in words[0] else []), *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_folder_that_cannot_be_written_to_is_said(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert call("report", str(results / "quadratic_deep"), "--out", str(tmp_path / "file")) == 2
    assert "name another folder with --out" in capsys.readouterr().err


# pandas


def test_load_gives_every_trial_and_every_table(results: Path, report: Path) -> None:
    trials = optbench.load(results)
    assert len(trials) == 2 * (2 * 6 * 2 + 3 * 2)
    assert {"id", "task", "optimizer", "seed", "status", "test_loss", "sweep"} <= set(trials)
    best = optbench.load(results, table="best")
    written = pd.concat([pd.read_csv(path) for path in (report / "tables").glob("best_*.csv")])
    assert sorted(best["test_loss"]) == pytest.approx(sorted(written["test_loss"]))
    curves = optbench.load(results, "optimizer=prodigy", "task=quadratic_deep", table="curves")
    assert curves["id"].nunique() == 2
    assert {"step", "seconds", "test_loss", "d", "seed"} <= set(curves)
    for table in ("default", "settings", "hyperparameters", "cost", "failures", "over_tasks"):
        assert len(optbench.load(results, table=table)) > 0  # type: ignore[arg-type]


def test_a_table_that_there_is_not_names_the_nearest(results: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'failures'"):
        optbench.load(results, table="failure")  # type: ignore[arg-type]


def test_several_folders_are_loaded_as_one(results: Path) -> None:
    both = optbench.load([results / "digits_mlp", str(results / "quadratic_deep")])
    assert set(both["sweep"]) == {"digits_mlp", "quadratic_deep"}


def test_an_analysis_without_two_tasks_says_nothing_over_tasks(results: Path) -> None:
    assert analysis_of(results / "digits_mlp").over_tasks() is None
