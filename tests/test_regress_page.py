"""The page of a night, and the history that it is shown with."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from optbench.folder import MANIFEST
from optbench.regress import drawing, history
from optbench.regress.findings import Answer
from optbench.regress.history import History, read
from optbench.regress.night import Against, Night, as_json
from optbench.regress.page import publish
from optbench.regress.readings import Final, Readings
from tests import browser as browsers
from tests.browser import OpenPage
from tests.hostile import NAMES
from tests.nights import ENVIRONMENT, every_answer, finding, night, passing, sample, simulated, started

browser, open_page = browsers.browser, browsers.open_page

FEW = ("adamw foreach", "lion fused", "soap foreach")
ANSWERS = [f"answer_{answer.value}" for answer in Answer if answer is not Answer.PASS]


def of(nights: Sequence[Night], **changes: int) -> History:
    return History(suite="quick", machine="f1n6e4", nights=nights, **changes)


def write(folder: Path, nights: Sequence[Night]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for one in nights:
        (folder / f"{one.started.replace(':', '')}.json").write_text(json.dumps(as_json(one)))


def values(nights: Sequence[Night], name: str) -> list[float | None]:
    (track,) = [track for track in of(nights).tracks() if track.name == name]
    return [point.value for point in track.points]


@pytest.fixture(scope="module")
def sixty() -> list[Night]:
    """60 nights of 140 metrics; in the last one of them something has each answer."""
    nights = simulated(
        60,
        steps={"adamw foreach": (40, 1.1), "lion fused": (55, 1.2)},
        bytes_from={"soap foreach": (45, 16), "came fused": (30, 8)},
        losses_from={"adamw foreach": (33, 1.05)},
        diverged={"sgd_momentum foreach": 50},
    )
    own = every_answer()
    names = {one.name for one in own}
    others = [one for one in nights[-1].findings if one.name not in names]
    return [*nights[:-1], replace(nights[-1], findings=[*own, *others], exit_code=1)]


@pytest.fixture(scope="module")
def folder(sixty: list[Night], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "regression"
    known = of(sixty[:-1], num_unreadable=1, num_elsewhere=4)
    assert publish(sixty[-1], known, path) == path / "regression.html"
    return path


def text_of(path: Path) -> str:
    return " ".join(re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", path.read_text(), flags=re.DOTALL).split())


# The history


def test_nights_are_read_in_their_order_and_those_of_others_are_counted(tmp_path: Path) -> None:
    nights = simulated(4, subjects=FEW)
    write(tmp_path, nights[::-1])
    write(tmp_path, [night([], machine="another", started=started(70)), night([], suite="full", started=started(71))])
    (tmp_path / "cut.json").write_text(json.dumps(as_json(nights[0]))[:-9])
    (tmp_path / "later.json").write_text(json.dumps({**as_json(nights[0]), "schema": 99}))
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "binary.json").write_bytes(b"\xff\x00")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "folder.json").mkdir()
    found = read(tmp_path, suite="quick", machine="f1n6e4")
    assert [one.started for one in found.nights] == [one.started for one in nights]
    assert (found.num_unreadable, found.num_elsewhere) == (6, 2)
    assert found.nights[0].readings == nights[0].readings


def test_of_very_many_nights_the_last_are_read(tmp_path: Path) -> None:
    write(tmp_path, simulated(6, subjects=FEW[:1]))
    found = read(tmp_path, suite="quick", machine="f1n6e4", most=2)
    assert [one.started for one in found.nights] == [started(5), started(6)]


def test_without_a_folder_there_are_no_nights(tmp_path: Path) -> None:
    found = read(tmp_path / "none", suite="quick", machine="f1n6e4")
    assert (found.nights, found.tracks(), found.failed()) == ([], [], [])


def test_a_night_joins_once() -> None:
    nights = simulated(3, subjects=FEW)
    assert of(nights[:2]).joined(nights[2]).nights == nights
    again = replace(nights[1], exit_code=7)
    assert [one.exit_code for one in of(nights).joined(again).nights] == [0, 7, 0]


def test_each_metric_has_its_figure_of_each_night() -> None:
    nights = simulated(3, subjects=FEW, bytes_from={"lion fused": (3, 8)})
    assert values(nights, "state bytes of lion fused") == [4096, 4096, 4104]
    assert values(nights, "final loss of adamw foreach") == pytest.approx([0.101] * 3)
    times = values(nights, "step time of lion fused")
    assert times == pytest.approx([6.0] * 3, rel=0.1), "multiples of the kernel"
    assert len(set(times)) == 3


def test_a_time_is_the_quickest_step_on_a_cpu_and_the_usual_one_on_a_gpu() -> None:
    samples = [replace(sample(step, 1e-4), median=2 * step) for step in (1e-3, 9e-3, 2e-3)]
    for kind, expected in (("cpu", 20.0), ("cuda", 2 * 20.0 / 1.1)):
        readings = Readings(environment={**ENVIRONMENT, "device_type": kind}, samples={"x": samples})
        assert values([night([], readings=readings)], "step time of x") == pytest.approx([expected])


def test_a_night_in_which_a_seed_diverged_is_marked_and_changes_nothing() -> None:
    nights = simulated(20, subjects=FEW, diverged={"adamw foreach": 12})
    (track,) = [track for track in of(nights).tracks() if track.name == "final loss of adamw foreach"]
    assert [point.night for point in track.points if point.is_partial] == [12]
    assert len(track.whole) == 19
    assert track.changes() == []


def test_where_every_seed_diverged_there_is_no_value() -> None:
    finals = {seed: Final(status="diverged", loss=None) for seed in "012"}
    assert values([night([], readings=Readings(finals={"x": finals}))], "final loss of x") == [None]


def test_means_are_over_the_seeds_of_the_last_night() -> None:
    more, fewer = ({str(seed): Final(status="completed", loss=float(seed)) for seed in range(n)} for n in (5, 3))
    readings = [Readings(finals={"x": finals}) for finals in (more, fewer)]
    nights = [night([], readings=own, started=started(place)) for place, own in enumerate(readings, 1)]
    assert values(nights, "final loss of x") == [1.0, 1.0]
    (track,) = of(nights[::-1]).tracks()
    assert [point.is_partial for point in track.points] == [True, False]


def test_what_was_asked_differently_is_left_out() -> None:
    nights = simulated(4, subjects=FEW[:1])
    old = [replace(one, readings=replace(one.readings, asked={FEW[0]: "other"})) for one in nights[:2]]
    assert {point.night for track in of([*old, *nights[2:]]).tracks() for point in track.points} == {3, 4}


def test_changes_have_the_night_from_which_on_it_was_different(sixty: list[Night]) -> None:
    found = {
        (track.name, point.night): change.ratio for track in of(sixty).tracks() for point, change in track.changes()
    }
    assert found["step time of adamw foreach", 40] == pytest.approx(1.1, abs=0.02)
    assert found["step time of lion fused", 55] == pytest.approx(1.2, abs=0.03)
    assert found["final loss of adamw foreach", 33] == pytest.approx(1.05)
    assert found["state bytes of soap foreach", 45] == pytest.approx(4112 / 4096)
    assert found["state bytes of came fused", 30] is None, "it was 0"
    assert len(found) <= 5 + 3, "a few false ones among the 60 noisy metrics"


def test_the_nights_that_failed(sixty: list[Night]) -> None:
    assert [one.started for one in of(sixty).failed()] == [started(60)]


# What is written


def test_there_are_a_page_a_summary_tables_and_pictures(folder: Path) -> None:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    tables = ["exact", "loss", "time", "change_points", "nights", *ANSWERS]
    pictures = ["history_exact", "history_loss", "history_time"]
    assert names == {
        *("regression.html", "regression.md", MANIFEST),
        *(f"tables/{name}.csv" for name in tables),
        *(f"figures/{name}.{kind}" for name in pictures for kind in ("svg", "csv")),
    }
    for name in tables:
        assert len(pd.read_csv(folder / "tables" / f"{name}.csv")) > 0
    for name in pictures:
        assert ElementTree.parse(folder / "figures" / f"{name}.svg").getroot().tag.endswith("svg")
    figures = pd.read_csv(folder / "tables" / "time.csv").set_index("subject")
    assert figures.loc["lion fused", ["answer", "unit", "ratio"]].tolist() == ["fail", "kernels", 1.2]
    assert (folder / "regression.md").read_text().startswith("## Regression: 2 of ")


def test_sixty_nights_of_many_metrics_make_a_small_page(folder: Path) -> None:
    assert (folder / "regression.html").stat().st_size < 1_500_000 / 3


def test_the_page_says_what_came_out_and_what_the_history_says(folder: Path) -> None:
    text = text_of(folder / "regression.html")
    for words in (
        "It was held against the stored baseline: 2026-11-20: the pins were raised.",
        "Step time of lion fused is worse: 20 kernels before, 24 kernels now, ratio 1.200 [1.150, 1.250]",
        "60 nights on this machine, 2026-10-01 to 2026-11-29: in 1 a metric was worse, the last on 2026-11-29.",
        "the last since 2026-11-24: step time of lion fused, 1.2",
        "Passed over, for they are no nights that can be read: 1 file.",
        "Passed over, for they are of another machine or suite: 4 nights.",
        "Could not be measured",
        "A time is a multiple of the calibration kernel",
        "Abacus 3, 2 cores",
    ):
        assert words in text
    assert "secret-host" not in text


def test_written_again_it_is_the_same_to_the_last_byte(folder: Path, sixty: list[Night], tmp_path: Path) -> None:
    publish(sixty[-1], of(sixty, num_unreadable=1, num_elsewhere=4), tmp_path)
    for path in folder.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path.name


def test_the_first_night_has_no_history_and_no_picture(tmp_path: Path) -> None:
    (only,) = simulated(1, subjects=FEW)
    text = publish(only, of([]), tmp_path).read_text()
    assert "There is no history yet: this is the first night on this machine." in text
    assert "<figure" not in text
    assert "No regression: none of 7 metrics is worse." in text
    assert not (tmp_path / "figures").exists()
    assert sorted(path.stem for path in (tmp_path / "tables").iterdir()) == ["exact", "loss", "time"]


def test_where_nothing_changed_times_alone_are_drawn(tmp_path: Path) -> None:
    nights = simulated(3, subjects=FEW)
    text = publish(nights[-1], of(nights), tmp_path).read_text()
    assert [path.name for path in sorted((tmp_path / "figures").glob("*.svg"))] == ["history_time.svg"]
    assert "None of 7 metrics changed its level." in text
    assert "in none was a metric worse" in text


def test_a_night_of_nothing_is_a_page(tmp_path: Path) -> None:
    against = Against(kind="stored", name="", state="corrupt", note="The file is cut; accept a night again")
    text = text_of(publish(night([], against=against), of([]), tmp_path))
    assert "No usable baseline: The file is cut; accept a night again." in text


def test_what_could_not_be_measured_is_said_with_the_reason(tmp_path: Path) -> None:
    failures = {f"method {place}": "no CUDA here" for place in range(20)}
    text = text_of(publish(night([], readings=Readings(failures=failures)), of([]), tmp_path))
    assert "method 11: no CUDA here" in text
    assert "8 more subjects could not be measured." in text


def test_the_worst_are_named_and_the_others_counted(tmp_path: Path) -> None:
    own = [finding(Answer.FAIL, subject=f"method {place}", ratio=1.0 + place / 10) for place in range(1, 11)]
    text = text_of(publish(night(own), of([]), tmp_path))
    assert "4 more are worse, which the table has." in text


def test_a_subject_without_a_colour_is_counted() -> None:
    subjects = [f"method {place:02}" for place in range(20)]
    nights = simulated(4, subjects=subjects, bytes_from={name: (3, 8) for name in subjects if name != subjects[7]})
    lines = [drawing.Line(track=one, changes=one.changes(), is_worse=False) for one in of(nights).tracks()]
    picture = drawing.picture("exact", lines, of(nights))
    assert picture is not None
    assert [series.label for series in picture.series][-1] == drawing.OTHERS
    assert len(picture.series) == drawing.MOST_NAMED + 1
    assert "Without a colour, though they changed: 7 subjects." in picture.caption
    assert "Without a ratio, for they began with 0: 5 metrics." in picture.caption


def test_the_figures_of_a_class_have_a_panel_each() -> None:
    def more(one: Night) -> Night:
        exact = {
            name: {**figures, "num_operations": 40, "peak_bytes": 10**6 + len(one.started) * (one.started > started(2))}
            for name, figures in one.readings.exact.items()
        }
        return replace(one, readings=replace(one.readings, exact=exact))

    nights = [more(one) for one in simulated(4, subjects=FEW, bytes_from={"lion fused": (3, 8)})]
    lines = [drawing.Line(track=one, changes=one.changes(), is_worse=False) for one in of(nights).tracks()]
    picture = drawing.picture("exact", lines, of(nights))
    assert picture is not None
    assert [panel.y_label for panel in picture.panels] == ["state bytes, ratio", "predicted peak bytes, ratio"]
    assert {len(series.points) for series in picture.series} == {2}
    assert history.MOST_NIGHTS >= 60


# Names and the browser


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [*NAMES, drawing.OTHERS, "half \ud800 of one"]
    nights = simulated(
        12,
        subjects=names,
        steps=dict.fromkeys(names[:14], (7, 1.5)),
        bytes_from=dict.fromkeys(names, (5, 8)),
        diverged=dict.fromkeys(names, 4),
    )
    own = [finding(Answer.FAIL, subject=name, note=name) for name in names]
    last = replace(
        nights[-1],
        suite=names[0],
        machine_words=names[1],
        findings=[*own, *(one for one in passing(nights[-1].readings) if one.kind != "time")],
        against=Against(kind="stored", name=names[2], note=names[8]),
        readings=replace(nights[-1].readings, failures={name: name for name in names}),
    )
    folder = tmp_path_factory.mktemp("hostile")
    return publish(last, of(nights), folder)


def test_no_name_is_markup(hostile: Path) -> None:
    text = hostile.read_text()
    assert "<script>alert" not in text
    assert "<img" not in text
    assert not re.search(r"<[^>]*\son\w+\s*=", text)
    assert len(re.findall("<script", text)) == 2
    for path in (hostile.parent / "tables").glob("*.csv"):
        cells = pd.read_csv(path, dtype=str, keep_default_na=False).to_numpy().ravel().tolist()
        assert not [cell for cell in cells if cell.lstrip(" ").startswith(("=", "@", "+"))]


def test_no_name_runs_in_a_browser(hostile: Path, open_page: OpenPage) -> None:
    with open_page(hostile) as (page, log):
        page.wait_for_timeout(200)
        assert "<script>alert(1)</script>" in (page.locator("body").text_content() or "")
    assert (log.errors, log.messages, log.dialogs) == ([], [], [])
    assert log.requests == [hostile.as_uri()]


@pytest.mark.parametrize("width", [1280, 420])
def test_the_page_opens_in_a_browser_at_any_width(folder: Path, open_page: OpenPage, width: int) -> None:
    path = folder / "regression.html"
    with open_page(path, viewport={"width": width, "height": 900}) as (page, log):
        assert page.locator("h1").inner_text() == "Nightly regression: quick"
        assert page.locator("#history figure svg").count() == 3
        page.locator("#history .legend button", has_text="lion fused").first.click()
        assert page.locator("#history figure svg .off").count() > 0
        page.locator("#time input").fill("unknown")
        assert page.locator("#time tbody tr:visible").count() == 1
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0
    assert (log.errors, log.messages, log.dialogs) == ([], [], [])
    assert log.requests == [path.as_uri()]
