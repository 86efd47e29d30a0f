"""The pictures of a reproduction: what is drawn is what was measured and published, and each verdict has its look."""

import math
import re
import statistics
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml

from optbench.papers import drawing_curves, drawing_departures, drawing_lines, drawing_maps
from optbench.papers.drawing import pictures
from optbench.papers.drawing_departures import EDGE, STYLES
from optbench.papers.outcome import Outcome
from optbench.pictures.drawing import shown_name
from optbench.pictures.phrases import CROSS
from optbench.pictures.picture import Picture
from optbench.pictures.scales import Extent
from tests.hostile import NAMES
from tests.reproductions import DECAYS, LOSSES, PAPER, RATES, START, made, pairs, record, trials

SVG = "{http://www.w3.org/2000/svg}"
T_OF_THREE = 4.302652729911275  # 97.5 % of Student's distribution with two degrees of freedom
KINDS = ["departures", "by_rate", "course", "pairs"]


def drawn_of(outcome: Outcome) -> dict[str, Picture]:
    return {picture.name: picture for picture in pictures(outcome)}


@pytest.fixture(scope="module")
def drawn() -> dict[str, Picture]:
    return drawn_of(made())


def picture_of(outcome: Outcome, name: str) -> Picture:
    """One of the paper's figures."""
    modules: dict[str, Any] = {"lines": drawing_lines, "curves": drawing_curves, "heat_map": drawing_maps}
    (figure,) = (figure for figure in outcome.paper.figures if figure.name == name)
    picture: Picture = modules[figure.kind].picture(outcome, figure)
    return picture


def tree(picture: Picture) -> ElementTree.Element:
    return ElementTree.fromstring(picture.svg)


def written(picture: Picture) -> list[str]:
    return ["".join(element.itertext()) for element in tree(picture).iter(f"{SVG}text")]


def by_id(picture: Picture, name: str) -> ElementTree.Element:
    (found,) = (element for element in tree(picture).iter() if element.get("id") == name)
    return found


def uses(picture: Picture, name: str) -> list[tuple[float, float]]:
    """The places of the markers within the element."""
    found = by_id(picture, name).iter(f"{SVG}use")
    return [(float(one.get("x") or "nan"), float(one.get("y") or "nan")) for one in found]


def on_paper(picture: Picture, x: float, y: float) -> tuple[float, float]:
    """Where a page puts this point."""
    (panel,) = picture.panels
    left, top, width, height = panel.box
    across = Extent(low=panel.x_limits[0], high=panel.x_limits[1], scale=panel.x_scale).part(x)
    upwards = Extent(low=panel.y_limits[0], high=panel.y_limits[1], scale=panel.y_scale).part(y)
    return left + across * width, top + (1.0 - upwards) * height


def changed(**changes: Any) -> str:
    """The paper with other values for keys of its first figure."""
    paper = yaml.safe_load(PAPER)
    paper["figures"] = [{**paper["figures"][0], **changes}]
    text: str = yaml.safe_dump(paper, sort_keys=False, allow_unicode=True)
    return text


def test_there_are_the_departures_and_each_figure_of_the_paper(drawn: dict[str, Picture]) -> None:
    assert list(drawn) == KINDS
    for picture in drawn.values():
        assert picture.png.startswith(b"\x89PNG")
        assert picture.title
        assert picture.caption.endswith(".")
        assert len(picture.numbers) > 0


def test_pictures_are_the_same_to_the_last_byte_when_they_are_drawn_again(drawn: dict[str, Picture]) -> None:
    again = drawn_of(made())
    for name, picture in drawn.items():
        assert (again[name].svg, again[name].png) == (picture.svg, picture.png)
        assert again[name].caption == picture.caption
        pd.testing.assert_frame_equal(again[name].numbers, picture.numbers)


def test_nothing_is_drawn_of_nothing() -> None:
    paper = yaml.safe_load(PAPER)
    del paper["tables"][1], paper["claims"]
    assert pictures(made(yaml.safe_dump(paper, sort_keys=False), [], said=())) == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_page_shows_and_hides_is_in_the_svg_once(kind: str, drawn: dict[str, Picture]) -> None:
    picture = drawn[kind]
    ids = [element.get("id") for element in tree(picture).iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for series in picture.series:
        assert series.elements
        assert set(series.elements) <= set(ids)
        assert len(series.points) == len(picture.panels)


def test_no_name_of_a_paper_is_markup_in_a_picture() -> None:
    paper = yaml.safe_load(PAPER)
    names = [NAMES[place] for place in (0, 1, 3, 6, 7, 10, 12, 15, 17, 19, 20, 21, 22, 24)]
    table = paper["tables"][0]
    table["title"] = NAMES[0]
    table["rows"] = {name: {"where": {"optimizer.name": name}} for name in names}
    table["published"] = {name: {0.01: 0.5} for name in names}
    for figure in paper["figures"]:
        figure["title"] = NAMES[1]
        figure.pop("points", None)
    paper["figures"][0].update(x=NAMES[12], y=NAMES[0])
    paper["figures"][2]["slope"] = dict.fromkeys(names[:2], -1.0)
    losses: dict[tuple[str, float], Any] = {(name, 0.01): (0.5, 0.52, 0.7) for name in names}
    found = drawn_of(
        made(yaml.safe_dump(paper, sort_keys=False, allow_unicode=True), [*trials(losses), *pairs(names[:2])])
    )
    assert list(found) == KINDS
    for picture in found.values():
        tags = {element.tag.rpartition("}")[2] for element in tree(picture).iter()}
        assert not tags & {"script", "img", "image", "foreignObject", "a"}
        assert max(map(len, written(picture))) <= 60
        assert all(letter.isprintable() for letter in picture.caption)
    for name in names:
        assert any(shown_name(name)[:8] in text for text in written(found["departures"]))


# Departures.


def test_a_departure_is_in_parts_of_the_tolerance(drawn: dict[str, Picture]) -> None:
    numbers = drawn["departures"].numbers.set_index(["table", "row", "column"])
    values = [value for value in LOSSES["sgd", 0.1] if isinstance(value, float)]
    half = T_OF_THREE * statistics.stdev(values) / math.sqrt(3)
    line = numbers.loc[("final", "SGD", "0.1")]
    assert line["departure"] == pytest.approx((0.51 - 0.4) / 0.05)
    assert line["departure_low"] == pytest.approx((0.51 - half - 0.4) / 0.05)
    assert line["departure_high"] == pytest.approx((0.51 + half - 0.4) / 0.05)
    assert numbers.loc[("sizes", "Adam", "value"), "departure"] == 0.0
    assert numbers.loc[("sizes", "Lion", "value"), "departure"] == -math.inf, "without a tolerance"


def test_every_cell_with_a_tolerance_that_was_measured_has_a_line(drawn: dict[str, Picture]) -> None:
    picture = drawn["departures"]
    assert list(zip(picture.numbers["row"], picture.numbers["column"], strict=True)) == [
        *[("SGD", "0.01"), ("SGD", "0.1"), ("Adam", "0.01"), ("Adam", "0.1"), ("Adam", "1")],
        *[("Adam", "value"), ("Lion", "value")],
    ]
    words = written(picture)
    for text in ("SGD · 0.01", "Adam · 1", "Test loss after 100 steps", "State over parameters", "1 of 3 diverged"):
        assert text in words
    assert "Lion · 0.01" not in words, "a bound has no middle"
    assert "Not drawn, for nothing was measured: 1 cell." in picture.caption
    assert "over 1 to 3 seeds" in picture.caption


def test_verdicts_are_told_apart_without_colour(drawn: dict[str, Picture]) -> None:
    assert len({style.marker for style in STYLES.values()}) == len({style.colour for style in STYLES.values()}) == 3
    legend = "".join(by_id(drawn["departures"], "legend").itertext())
    for verdict in ("reproduced", "not reproduced", "underpowered", "allowed"):
        assert verdict in legend


def test_what_is_far_off_is_at_the_frame_with_its_distance() -> None:
    losses: dict[tuple[str, float], Any] = {("sgd", 0.1): (1.9, 1.91, 1.92), ("adam", 0.1): (-9.0, -9.01, -9.02)}
    (picture,) = drawing_departures.pictures(made(PAPER, trials(losses)))
    own = picture.numbers[picture.numbers["table"] == "final"]
    at = dict(zip(own["row"], own["departure"], strict=True))
    assert at["SGD"] == pytest.approx((1.91 - 0.4) / 0.05)
    assert min(abs(value) for value in (at["SGD"], at["Adam"])) > EDGE
    words = written(picture)
    assert "+30" in words
    assert "-190" in words or "\u2212190" in words
    assert f"further off than {EDGE:g}" in picture.caption


def test_many_cells_are_drawn_in_several_pictures_each_cell_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing_departures, "MOST_LINES", 8)
    columns = {f"c{place}": {"where": {"optimizer.lr": 0.01}} for place in range(5)}
    paper = yaml.safe_load(PAPER)
    table = paper["tables"][0]
    table["columns"] = columns
    table["published"] = {row: dict.fromkeys(columns, 0.5) for row in ("SGD", "Adam", "Lion")}
    paper["figures"] = []
    found = drawn_of(made(yaml.safe_dump(paper, sort_keys=False)))
    assert list(found) == ["departures", "departures_2", "departures_3"]
    numbers = pd.concat([picture.numbers for picture in found.values()])
    assert len(numbers) == len(numbers.drop_duplicates(["table", "row", "column"])) == 3 * 5 + 2
    assert [len(picture.numbers) for picture in found.values()] == [8, 7, 2]
    assert [picture.title[-8:] for picture in found.values()] == ["(1 of 3)", "(2 of 3)", "(3 of 3)"]


def test_a_paper_of_bounds_alone_has_no_departures() -> None:
    paper = yaml.safe_load(PAPER)
    paper["tables"] = [{**paper["tables"][0], "published": {"Lion": {0.01: {"at_most": 0.4}}}}]
    paper["figures"] = []
    assert pictures(made(yaml.safe_dump(paper, sort_keys=False))) == []


# Lines.


def test_a_line_has_what_was_measured_and_what_was_published(drawn: dict[str, Picture]) -> None:
    picture = drawn["by_rate"]
    assert [series.label for series in picture.series] == ["SGD", "Adam", "Lion"]
    sgd = picture.series[0]
    assert sgd.points == [[(0.01, pytest.approx(0.5)), (0.1, pytest.approx(0.51))]]
    assert uses(picture, "s0-p0-0") == [pytest.approx(on_paper(picture, *point), abs=0.02) for point in sgd.points[0]]
    hollow = [on_paper(picture, x, y) for x, y in ((0.01, 0.5), (0.1, 0.4))]
    assert uses(picture, "s0-p0-0-published") == [pytest.approx(point, abs=0.02) for point in hollow]
    looks = {name: by_id(picture, name).find(f".//{SVG}use") for name in ("s0-p0-0", "s0-p0-0-published")}
    is_hollow = {name: one is not None and "fill-opacity: 0" in (one.get("style") or "") for name, one in looks.items()}
    assert is_hollow == {"s0-p0-0": False, "s0-p0-0-published": True}
    numbers = picture.numbers.set_index(["row", "x"])
    half = T_OF_THREE * 0.01 / math.sqrt(3)
    assert numbers.loc[("SGD", 0.1), ["low", "high"]].tolist() == pytest.approx([0.51 - half, 0.51 + half])
    assert numbers.loc[("SGD", 0.01), "published_spread"] == 0.02
    assert numbers.loc[("Lion", 1.0), "verdict"] == "not run"
    assert picture.panels[0].x_scale == "log"


def test_what_diverged_is_a_cross_at_the_worse_edge(drawn: dict[str, Picture]) -> None:
    picture = drawn["by_rate"]
    top, height = picture.panels[0].box[1], picture.panels[0].box[3]
    for place in (0, 1):  # SGD, as published, and Adam, once
        ((x, y),) = uses(picture, f"s{place}-p0-0-failed")
        assert x == pytest.approx(on_paper(picture, 1.0, 0.5)[0], abs=0.02)
        assert top < y < top + 0.15 * height
    numbers = picture.numbers
    assert numbers[numbers["has_diverged"]][["row", "x"]].to_numpy().tolist() == [["SGD", 1.0], ["Adam", 1.0]]
    turned = picture_of(made(changed(best="max")), "by_rate")
    ((_, y),) = uses(turned, "s0-p0-0-failed")
    assert y > top + 0.85 * height


def test_columns_that_are_no_numbers_are_left_out_of_lines_and_named() -> None:
    paper = yaml.safe_load(PAPER)
    table = paper["tables"][0]
    table["columns"] = {"0": {"where": {"optimizer.lr": 0.1}}, "large": {"where": {"optimizer.lr": 0.1}}} | {
        "0.01": {"where": {"optimizer.lr": 0.01}}
    }
    table["published"] = {"SGD": {"0.01": 0.5, "0": 0.4, "large": 0.4}}
    found = picture_of(made(yaml.safe_dump(paper, sort_keys=False)), "by_rate")
    assert found.numbers["x"].tolist() == [0.01]
    assert "Not drawn, for their names are no numbers: columns 0 and large." in found.caption


# Curves.


def test_curves_are_means_over_seeds_with_the_published_points(drawn: dict[str, Picture]) -> None:
    picture = drawn["course"]
    numbers = picture.numbers
    sgd = numbers[(numbers["line"] == "SGD · 0.01") & numbers["published"].isna()]
    assert sgd["step"].tolist() == [0.0, 25.0, 50.0, 75.0, 100.0]
    assert sgd["mean"].tolist() == pytest.approx([START + part * (0.5 - START) for part in (0.0, 0.5, 0.8, 0.95, 1.0)])
    assert sgd["low"].tolist()[-1] == pytest.approx(0.49)
    assert sgd["num_seeds"].tolist() == [3] * 5
    points = numbers[numbers["published"].notna()]
    assert points[["row", "step", "published"]].to_numpy().tolist() == [["SGD", 50.0, 3.0], ["SGD", 100.0, 0.5]]
    hollow = [on_paper(picture, x, y) for x, y in ((50.0, 3.0), (100.0, 0.5))]
    assert uses(picture, "s0-p0-0-published") == [pytest.approx(point, abs=0.02) for point in hollow]
    assert "4 of 22 trials ended early" in picture.caption


def test_a_row_whose_cells_share_their_trials_has_one_curve_and_its_name() -> None:
    paper = yaml.safe_load(PAPER)
    table = paper["tables"][0]
    table["where"] = {"sweep.name": "rates", "optimizer.lr": 0.01}
    table["columns"] = {"start": {"at": "first"}, "end": {"at": "last"}}
    table["published"] = {"SGD": {"start": 10.0, "end": 0.5}, "Lion": {"end": 0.2}}
    paper["figures"] = paper["figures"][1:2]
    found = picture_of(made(yaml.safe_dump(paper, sort_keys=False)), "course")
    assert [series.label for series in found.series] == ["SGD", "Lion"]


def test_of_the_best_over_a_key_the_trials_that_are_best_are_drawn() -> None:
    paper = yaml.safe_load(PAPER)
    table = paper["tables"][0]
    del table["columns"]
    table["reduce"] = {"kind": "best", "along": "optimizer.lr"}
    table["published"] = {"Adam": 0.25}
    paper["figures"] = paper["figures"][1:2]
    found = picture_of(made(yaml.safe_dump(paper, sort_keys=False)), "course")
    (series,) = found.series
    assert series.label == "Adam"
    assert series.points[0][-1] == (100.0, pytest.approx(0.27)), "0.27 at 0.1 is below 0.305 at 0.01"


def test_the_start_of_curves_is_cut_off_where_it_leaves_no_room() -> None:
    records = []
    for seed in range(2):
        one = record({"optimizer": {"name": "sgd", "lr": 0.01}, "sweep": {"name": "rates"}}, 0.5, seed=seed)
        records.append({**one, "curve": {**one["curve"], "test_loss": [1000.0, 0.8, 0.7, 0.6, 0.5 + 0.01 * seed]}})
    paper = yaml.safe_load(PAPER)
    paper["tables"][0]["published"] = {"SGD": {0.01: 0.5}}
    del paper["figures"][1]["points"]
    paper["figures"] = paper["figures"][1:2]
    text = yaml.safe_dump(paper, sort_keys=False)
    found = picture_of(made(text, records), "course")
    assert found.panels[0].y_limits[1] < 1.0
    assert re.search(r"Values of test_loss above 0\.8\d* are not shown", found.caption)
    paper["figures"][0].update(log_y=True, log_x=True)
    whole = picture_of(made(yaml.safe_dump(paper, sort_keys=False), records), "course")
    assert whole.series[0].points[0][0] == (25.0, 0.8), "a logarithm has no 0"
    assert (whole.panels[0].x_scale, whole.panels[0].y_scale) == ("log", "log")


# Maps.


def test_a_map_has_the_mean_at_each_pair_and_the_best_of_each_column(drawn: dict[str, Picture]) -> None:
    numbers = drawn["pairs"].numbers.set_index(["by", "x", "y"])
    assert len(numbers) == 2 * len(RATES) * len(DECAYS)
    assert numbers.loc[("adam", 0.001, 0.1), "mean"] == pytest.approx(0.2005)
    assert numbers.loc[("lion", 0.1, 0.0001), "mean"] == pytest.approx(0.2 + 0.2 + 0.04 + 0.0005)
    best = numbers[numbers["is_best_of_column"]].index.tolist()
    falling = [("adam", rate, decay) for rate, decay in zip(RATES, reversed(DECAYS), strict=True)]
    assert sorted(best) == sorted([*falling, *(("lion", rate, 0.01) for rate in RATES)])


def test_failures_of_a_map_are_crossed_and_counted(drawn: dict[str, Picture]) -> None:
    picture = drawn["pairs"]
    numbers = picture.numbers.set_index(["by", "x", "y"])
    assert numbers.loc[("adam", 1.0, 0.1), "num_failed"] == 2
    assert math.isnan(numbers.loc[("adam", 1.0, 0.1), "mean"])
    assert numbers.loc[("adam", 1.0, 0.01), ["num_failed", "num_seeds"]].tolist() == [1, 1]
    assert written(picture).count(CROSS) == 4
    assert "6 of 64 trials failed" in picture.caption


def test_the_slope_of_the_source_is_named_for_its_panel_alone(drawn: dict[str, Picture]) -> None:
    picture = drawn["pairs"]
    assert "slope of the source in logarithms, through the middle of these: -1 for adam." in picture.caption
    assert "slope of the source" in "".join(by_id(picture, "legend").itertext())
    slopes = picture.numbers.groupby("by")["source_slope"].first()
    assert slopes["adam"] == -1.0
    assert math.isnan(slopes["lion"])
    without = picture_of(made(PAPER.replace(", slope: {adam: -1.0}", "")), "pairs")
    assert "slope" not in "".join(by_id(without, "legend").itertext())


def test_a_map_of_one_panel_or_of_few_pairs_is_drawn() -> None:
    few = [one for one in pairs(["adam"]) if one["config"]["optimizer"]["lr"] in RATES[:2]]
    few = [one for one in few if one["config"]["optimizer"]["weight_decay"] != 0.001][:-2]
    picture = picture_of(made(PAPER, few), "pairs")
    assert len(picture.numbers) == 5
    assert "Other blank pairs were not tried." in picture.caption


def test_what_is_far_worse_than_most_does_not_take_the_colours_of_the_rest() -> None:
    records = pairs(["adam"])
    (high,) = [one for one in records if one["curve"]["test_loss"][-1] == pytest.approx(0.5)]
    high["curve"]["test_loss"][-1] = 100.0
    picture = picture_of(made(PAPER, records), "pairs")
    assert picture.numbers["mean"].max() == pytest.approx((100.0 + 0.501) / 2)
    found = re.search(r"Values of test_loss above ([\d.]+) have the last colour", picture.caption)
    assert found is not None
    distances = (picture.numbers["mean"].dropna() - picture.numbers["mean"].min()).tolist()
    assert float(found[1]) == pytest.approx(0.2005 + 4.0 * statistics.median(distances), abs=0.01)
    assert "have the last colour" not in picture_of(made(PAPER, pairs()), "pairs").caption


def test_maps_over_other_values_have_axes_of_their_own() -> None:
    records = pairs()
    for one in records:
        if one["config"]["optimizer"]["name"] == "lion":
            one["config"]["optimizer"]["weight_decay"] *= 1000.0
    picture = picture_of(made(PAPER, records), "pairs")
    assert {"0.0001", "0.001", "0.01", "100"} <= set(written(picture))
    assert "not tried" not in picture.caption
    assert written(picture_of(made(PAPER, pairs()), "pairs")).count("0.0001") == 1, "shared"
