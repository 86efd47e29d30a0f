"""The pictures of a report: what is drawn is what was measured, failures are there, and names are but names."""

import itertools
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from optbench.aggregate import Aggregate, Profile
from optbench.contest import Contest
from optbench.curves import Curve, Curves
from optbench.effort import efforts
from optbench.measurement import Status
from optbench.pictures import (
    best_of_k,
    heat_map,
    learning,
    lr_free,
    memory,
    profile,
    ranks,
    sensitivity,
    trade_off,
)
from optbench.pictures.averages import average
from optbench.pictures.drawing import Palette, shown_name
from optbench.pictures.labels import Label, places
from optbench.pictures.phrases import CROSS
from optbench.pictures.picture import Panel, Picture
from optbench.pictures.scales import Extent, extent, plain
from optbench.stats import Estimate
from tests.contests import contender, contest, cost, curves, record, row
from tests.contests import memory as parts_of

HOSTILE = [
    "$x_{1}",
    "_hidden",
    "<b>bold</b><script>alert(1)</script>",
    "🦁 emoji & \x00 \u202e",
    "n" * 200,
    "=1+1\n]]>",
]
PLAIN = ["adamw", "lion", "sgd", "muon", "prodigy", "null"]
SVG = "{http://www.w3.org/2000/svg}"
RATES = (0.001, 0.01, 0.1)
DECAYS = (0.0, 0.1)
KINDS = ["learning", "sensitivity", "heat_map", "lr_free", "trade_off", "best_of_k", "memory", "ranks", "profile"]


def field(names: Sequence[str] = PLAIN[:3], *, task: str = "blobs") -> tuple[Contest, Curves, Palette]:
    """Optimizers with three rates and two decays each; the highest rate fails for a seed, or for all."""
    contenders, records = [], {}
    for number, name in enumerate(names):
        rows = []
        for rate, decay in itertools.product(RATES, DECAYS):
            is_high = rate == RATES[-1]
            values = [
                0.9 - 0.02 * number - abs(math.log10(rate) + 2.0) / 10.0 - decay / 10.0 + 0.01 * seed
                for seed in range(3)
            ]
            values = [] if is_high and number == len(names) - 1 else values[:2] if is_high else values
            failures = {"diverged": 3 - len(values)} if is_high else {}
            keys = {"weight_decay": decay, "capabilities": ["lr_free"]}
            own = row(
                *(name, rate, values),
                failures=failures,
                keys=keys,
                peak_bytes=2**20 * (number + 1.0),
                step_seconds=0.001 * (len(names) - number),
                cost=cost(
                    measured=parts_of({"parameters": 2**19, "gradients": 2**18 * (number + 1), "state": number * 2**19})
                ),
            )
            rows.append(own)
            for seed, trial_id in enumerate(own.ids):
                end = values[seed] if seed < len(values) else None
                records[trial_id] = _record(seed, end, scale=1.0 + 0.1 * number)
        rows.sort(key=lambda one: (len(one.failures), -one.metrics["test_accuracy"].mean if one.metrics else 0.0))
        contenders.append(contender(rows))
    return contest(contenders, task=task), curves(records), Palette(names)


def _record(seed: int, end: float | None, *, scale: float) -> dict[str, Any]:
    """Twelve points up to this accuracy, or five until it diverges."""
    count = 12 if end is not None else 5
    return record(
        seed,
        {
            "test_accuracy": [0.1 + ((end or 0.5) - 0.1) * (1.0 - 0.5**point) for point in range(count)],
            "train_loss": [None, *(scale * 0.3**point for point in range(1, count))],
            "effective_lr": [1e-6 * 3.0**point for point in range(count)],
            "d": [1e-5 * 3.0**point for point in range(count)],
        },
        status="completed" if end is not None else "diverged",
    )


def aggregate_of(names: Sequence[str], tasks: Sequence[str] = ("a", "b")) -> Aggregate:
    """The first two share the first place on the first task, and the last one never reaches a target."""
    found = {name: dict.fromkeys(tasks, place + 1.0) for place, name in enumerate(names)}
    found[names[0]][tasks[0]] = found[names[1]][tasks[0]] = 1.5
    means = {
        name: Estimate(mean=statistics.mean(own.values()), low=1.0, high=3.0, num_values=2)
        for name, own in found.items()
    }
    steps = {name: [100.0 * (place + 1), 90.0 + 30.0 * place] for place, name in enumerate(names)}
    steps[names[-1]] = [math.inf, math.inf]
    return Aggregate(
        tasks=tasks,
        optimizers=names,
        left_out={"<i>other</i>": "ran on 1 of 2 tasks"},
        ranks=found,
        mean_ranks=means,
        scores=means,
        improvement={},
        reference=names[0],
        num_failed=dict.fromkeys(names, 0),
        num_trials=dict.fromkeys(names, 6),
        profile=Profile(
            problems=["a seed 0", "b seed 0"], targets=dict.fromkeys(tasks, "test_accuracy >= 0.9"), steps=steps
        ),
    )


def draw(kind: str, names: Sequence[str] = PLAIN[:3], *, task: str = "blobs") -> Picture:
    found, known, palette = field(names, task=task)
    match kind:
        case "learning":
            (picture,) = learning.pictures(found, slug="blobs", curves=known, palette=palette)
        case "lr_free":
            (picture,) = lr_free.pictures(found, slug="blobs", curves=known, palette=palette)
        case "sensitivity" | "trade_off" | "best_of_k":
            module: Any = {"sensitivity": sensitivity, "trade_off": trade_off, "best_of_k": best_of_k}[kind]
            (picture,) = module.pictures(found, slug="blobs", palette=palette)
        case "heat_map":
            (picture,) = heat_map.pictures(found, slug="blobs")
        case "memory":
            (picture,) = memory.pictures(found, slug="blobs")
        case "ranks":
            (picture,) = ranks.pictures(aggregate_of(names, (task, "b")), palette=palette)
        case _:
            (picture,) = profile.pictures(aggregate_of(names, (task, "b")), palette=palette)
    return picture


@pytest.fixture(scope="module")
def drawn() -> Mapping[str, Picture]:
    """One of each kind."""
    return {kind: draw(kind) for kind in KINDS}


def tree(picture: Picture) -> ElementTree.Element:
    return ElementTree.fromstring(picture.svg)


def written(picture: Picture) -> list[str]:
    """All that is written in a picture."""
    return ["".join(element.itertext()) for element in tree(picture).iter(f"{SVG}text")]


def by_id(picture: Picture, name: str) -> ElementTree.Element:
    (found,) = (element for element in tree(picture).iter() if element.get("id") == name)
    return found


def corners(picture: Picture, name: str) -> list[tuple[float, float]]:
    """The points of the first path within the element."""
    path = by_id(picture, name).find(f".//{SVG}path")
    assert path is not None
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path.get("d") or "")]


def uses(picture: Picture, name: str) -> list[tuple[float, float]]:
    """The places of the markers within the element."""
    found = by_id(picture, name).iter(f"{SVG}use")
    return [(float(one.get("x") or "nan"), float(one.get("y") or "nan")) for one in found]


def on_paper(panel: Panel, x: float, y: float) -> tuple[float, float]:
    """Where a page puts this point."""
    left, top, width, height = panel.box
    across = Extent(low=panel.x_limits[0], high=panel.x_limits[1], scale=panel.x_scale).part(x)
    upwards = Extent(low=panel.y_limits[0], high=panel.y_limits[1], scale=panel.y_scale).part(y)
    return left + across * width, top + (1.0 - upwards) * height


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_the_same_to_the_last_byte_when_it_is_drawn_again(kind: str, drawn: Mapping[str, Picture]) -> None:
    again = draw(kind)
    assert (again.svg, again.png) == (drawn[kind].svg, drawn[kind].png)
    assert (again.name, again.caption) == (drawn[kind].name, drawn[kind].caption)
    pd.testing.assert_frame_equal(again.numbers, drawn[kind].numbers)


def test_names_of_files_come_from_the_kind_and_the_slug(drawn: Mapping[str, Picture]) -> None:
    names = [picture.name for picture in drawn.values()]
    assert names == [
        *("curves_blobs", "sensitivity_blobs", "heat_map_blobs", "lr_free_blobs", "trade_off_blobs"),
        *("best_of_k_blobs", "memory_blobs", "ranks", "profile"),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_names_are_but_names(kind: str) -> None:
    picture = draw(kind, HOSTILE, task="<script>alert(2)</script>")
    calm = draw(kind, PLAIN)
    assert {element.tag for element in tree(picture).iter()} == {element.tag for element in tree(calm).iter()}
    assert b"<script" not in picture.svg
    assert b"<b>" not in picture.svg
    assert picture.png.startswith(b"\x89PNG")
    words = written(picture)
    for name in HOSTILE[:1] if kind == "lr_free" else HOSTILE[:3]:  # of which eight settings are drawn
        seen = {shown_name(name, most) for most in (20, 28, 48)}
        assert any(part in text for part in seen for text in words), name
    assert max(map(len, words)) <= 48
    assert all(letter.isprintable() for letter in picture.caption)
    assert "optimizer" not in picture.numbers or set(picture.numbers["optimizer"]) <= set(HOSTILE)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_page_shows_and_hides_is_in_the_svg_once(kind: str, drawn: Mapping[str, Picture]) -> None:
    picture = drawn[kind]
    ids = [element.get("id") for element in tree(picture).iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for series in picture.series:
        assert series.elements
        assert set(series.elements) <= set(ids)
        assert len(series.points) == len(picture.panels)
    if picture.series and kind != "trade_off":
        legend = "".join(by_id(picture, "legend").itertext())
        assert all(shown_name(series.label) in legend for series in picture.series)


@pytest.mark.parametrize("kind", ["learning", "sensitivity", "lr_free", "best_of_k", "profile"])
def test_panels_tell_where_a_line_is(kind: str, drawn: Mapping[str, Picture]) -> None:
    picture = drawn[kind]
    num_lines = num_starts = 0
    for place, series in enumerate(picture.series):
        for number, (panel, points) in enumerate(zip(picture.panels, series.points, strict=True)):
            assert points
            if f"s{place}-p{number}-0" not in series.elements:
                continue
            path = corners(picture, f"s{place}-p{number}-0")
            first = on_paper(panel, *points[0])
            if panel.box[1] <= first[1] <= panel.box[1] + panel.box[3]:  # what is above the edge is cut off
                assert path[0] == pytest.approx(first, abs=0.02)
                num_starts += 1
            assert path[-1] == pytest.approx(on_paper(panel, *points[-1]), abs=0.02)
            num_lines += 1
    assert min(num_lines, num_starts) >= 3


def test_panels_tell_where_a_point_is(drawn: Mapping[str, Picture]) -> None:
    picture = drawn["trade_off"]
    for place, series in enumerate(picture.series):
        for number, (panel, (point,)) in enumerate(zip(picture.panels, series.points, strict=True)):
            assert uses(picture, f"s{place}-p{number}-0") == [pytest.approx(on_paper(panel, *point), abs=0.02)]


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_a_page_makes_readable_in_the_dark_is_black_or_white(kind: str, drawn: Mapping[str, Picture]) -> None:
    """Pages turn black into the colour of text and drop white paper: neither may stand on a coloured cell."""
    for text in tree(drawn[kind]).iter(f"{SVG}text"):
        assert "#ffffff" not in (text.get("style") or "")
    if kind in ("heat_map", "ranks"):
        inks = re.findall(rb"fill: (#161616|#fdfdfd)", drawn[kind].svg)
        assert len(inks) >= 4


def test_an_optimizer_has_one_colour_in_all_pictures(drawn: Mapping[str, Picture]) -> None:
    seen: dict[str, set[str]] = {}
    for kind, picture in drawn.items():
        for series in picture.series if kind != "lr_free" else ():
            seen.setdefault(series.label, set()).add(series.colour)
    assert set(seen) == set(PLAIN[:3])
    assert all(len(colours) == 1 for colours in seen.values())
    assert len(set.union(*seen.values())) == 3


def test_colours_read_on_white_and_on_dark() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    palette = Palette(map(str, range(40)))
    styles = [palette.style(str(place)) for place in range(40)]
    assert len({(style.colour, style.dashes, style.marker) for style in styles}) == 40
    assert len({style.colour for style in styles}) == 12
    for style in styles:
        light = luminance(style.colour)
        assert 1.05 / (light + 0.05) >= 3.0
        assert (light + 0.05) / (luminance("#14171c") + 0.05) >= 3.0


def test_the_mean_of_curves_is_over_the_seeds_that_still_run() -> None:
    steps = [0.0, 10.0, 20.0, 30.0]
    made = [
        Curve(seed=0, status=Status.COMPLETED, columns=_columns(steps, [4.0, 2.0, 1.0, 0.5], second=0.001)),
        Curve(seed=1, status=Status.COMPLETED, columns=_columns(steps, [6.0, 4.0, 2.0, 1.5], second=0.003)),
        Curve(
            seed=2,
            status=Status.DIVERGED,
            columns=_columns([0.0, 10.0, 13.0, 15.0], [5.0, 9.0, 90.0, math.nan], second=0.002),
        ),
    ]
    found = average(made, "loss")
    assert found is not None
    assert found.clocks["step"].tolist() == steps
    assert found.mean.tolist() == [5.0, 5.0, 1.5, 1.0]
    assert found.num_seeds.tolist() == [3, 3, 2, 2]
    assert found.low.tolist() == [4.0, 2.0, 1.0, 0.5]
    assert found.high.tolist() == [6.0, 9.0, 2.0, 1.5]
    assert found.clocks["seconds"].tolist() == pytest.approx([0.0, 0.02, 0.04, 0.06])
    (end,) = found.ends
    assert (end.seed, end.clocks["step"], end.value) == (2, 13.0, 90.0), "where its last finite value is"
    assert average(made, "accuracy") is None


def _columns(steps: list[float], values: list[float], *, second: float) -> dict[str, list[float]]:
    return {"step": steps, "seconds": [step * second for step in steps], "gradient_evaluations": steps, "loss": values}


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    steps = list(map(float, range(1000)))
    found = average([Curve(seed=0, status=Status.COMPLETED, columns=_columns(steps, steps, second=0.1))], "loss")
    assert found is not None
    assert found.is_thinned
    assert len(found.mean) == 101
    assert (found.mean[0], found.mean[-1]) == (0.0, 999.0)
    assert found.is_single


def test_the_numbers_of_learning_curves_are_those_of_the_trials(drawn: Mapping[str, Picture]) -> None:
    found, known, _ = field()
    numbers = drawn["learning"].numbers
    assert numbers["status"].isna().all(), "the best settings have no failures"
    for one in found.contenders:
        own = known.of(one.best)
        for metric in ("test_accuracy", "train_loss"):
            there = numbers[(numbers["optimizer"] == one.optimizer) & (numbers["metric"] == metric)]
            rows = list(zip(*(curve.columns[metric] for curve in own), strict=True))
            rows = rows[1:] if metric == "train_loss" else rows
            assert there["mean"].tolist() == pytest.approx([statistics.mean(values) for values in rows])
            assert there["low"].tolist() == pytest.approx([min(values) for values in rows])
            assert there["high"].tolist() == pytest.approx([max(values) for values in rows])
            assert there["n"].tolist() == [3] * len(rows)
        drawn_points = drawn["learning"].series[found.contenders.index(one)].points
        assert len(drawn_points) == len(drawn["learning"].panels) == 4, "two rows, against steps and seconds"


def test_a_diverged_trial_ends_in_a_cross() -> None:
    rows = [row("sgd", 1.0, [0.8, 0.8], failures={"diverged": 1})]
    records = {
        trial_id: _record(seed, 0.8 if seed < 2 else None, scale=1.0) for seed, trial_id in enumerate(rows[0].ids)
    }
    (picture,) = learning.pictures(
        contest([contender(rows)]), slug="x", curves=curves(records), palette=Palette(["sgd"])
    )
    (cross,) = uses(picture, "s0-p0-0-ends")
    ends = picture.numbers[picture.numbers["status"] == "diverged"]
    assert ends["seed"].tolist() == [2, 2]
    assert ends["step"].tolist() == [40.0, 40.0]
    assert cross[0] == pytest.approx(on_paper(picture.panels[0], 40.0, 1.0)[0], abs=0.02)
    assert "1 of 3 trials ended early (1 diverged)" in picture.caption
    means = picture.numbers[(picture.numbers["metric"] == "test_accuracy") & picture.numbers["status"].isna()]
    assert means["n"].tolist() == [3] * 5 + [2] * 7


def test_of_many_optimizers_the_best_are_drawn_and_the_others_named() -> None:
    names = [f"own_{number:02}" for number in range(14)]
    found, known, palette = field(names)
    (picture,) = learning.pictures(found, slug="x", curves=known, palette=palette)
    assert [series.label for series in picture.series] == names[:10]
    assert "Not drawn: own_10, own_11, own_12 and own_13." in picture.caption


def test_a_start_that_would_leave_no_room_is_cut_off_and_the_caption_says_so() -> None:
    losses = [1e5, 3.0, 2.0, 1.5, 1.2, 1.1, 1.05, 1.0, 1.0, 1.0]
    rows = [row("sgd", 0.1, [1.0], metrics={"test_loss": "min"})]
    records = {rows[0].ids[0]: record(0, {"test_loss": losses})}
    (picture,) = learning.pictures(
        contest([contender(rows)], start=1e5), slug="x", curves=curves(records), palette=Palette(["sgd"])
    )
    assert picture.panels[0].y_limits[1] < 5.0
    assert (
        f"Values of test_loss above {plain(picture.panels[0].y_limits[1], digits=3)} are not shown" in picture.caption
    )
    assert picture.numbers["mean"].tolist() == losses, "the numbers are whole"


def test_gradient_evaluations_have_a_panel_where_a_step_takes_several() -> None:
    rows = [row("lbfgs", 1.0, [0.8])]
    losses = {"test_accuracy": [0.1, 0.5, 0.8], "gradient_evaluations": [0.0, 37.0, 80.0]}
    records = {rows[0].ids[0]: record(0, losses)}
    (picture,) = learning.pictures(
        contest([contender(rows)]), slug="x", curves=curves(records), palette=Palette(["lbfgs"])
    )
    assert [panel.x_label for panel in picture.panels] == ["step", "training time (s)", "gradient evaluations"]
    assert picture.series[0].points[2] == [(0.0, 0.1), (37.0, 0.5), (80.0, 0.8)]


def test_sensitivity_takes_the_best_setting_at_each_rate(drawn: Mapping[str, Picture]) -> None:
    found, _, _ = field()
    numbers = drawn["sensitivity"].numbers.set_index(["optimizer", "lr"])
    for one in found.contenders:
        for rate in RATES:
            best = next(own for own in one.rows if own.config["optimizer"]["lr"] == rate)
            line = numbers.loc[(one.optimizer, rate)]
            assert line["num_settings"] == 2
            assert line["num_failed"] == sum(best.failures.values())
            if best.values:
                assert line["mean"] == pytest.approx(statistics.mean(best.values.values()))
            else:
                assert math.isnan(line["mean"])
                assert line["n"] == 0
    assert "Where several settings share a rate, it is the best of them." in drawn["sensitivity"].caption


def test_a_rate_that_fails_is_a_cross_at_the_worse_edge(drawn: Mapping[str, Picture]) -> None:
    picture = drawn["sensitivity"]
    (panel,) = picture.panels
    heights = []
    for place in range(3):
        ((x, y),) = uses(picture, f"s{place}-p0-0-failed")
        assert x == pytest.approx(on_paper(panel, RATES[-1], 0.5)[0], abs=0.02)
        heights.append(y)
    lowest_mean = min(y for series in picture.series for _, y in series.points[0])
    assert all(height > on_paper(panel, RATES[0], lowest_mean)[1] for height in heights), "y goes down: less is worse"
    assert len(set(heights)) == 3, "none covers another"
    assert f"{CROSS} at the bottom" in picture.caption
    assert "5 of 27 trials ended early (5 diverged)" in picture.caption


def test_a_loss_far_above_the_start_is_beyond_the_edge() -> None:
    metrics = {"test_loss": "min"}
    rows = [row("sgd", rate, [loss, loss], metrics=metrics) for rate, loss in ((0.1, 0.5), (0.01, 1.0), (1.0, 1e9))]
    (picture,) = sensitivity.pictures(contest([contender(rows)], start=2.3), slug="x", palette=Palette(["sgd"]))
    assert 2.3 <= picture.panels[0].y_limits[1] < 3.0
    assert "are not shown" in picture.caption
    assert picture.numbers["mean"].tolist() == [1.0, 0.5, 1e9]


def test_a_heat_map_has_the_mean_of_each_pair_and_its_failures(drawn: Mapping[str, Picture]) -> None:
    found, _, _ = field()
    picture = drawn["heat_map"]
    words = written(picture)
    numbers = picture.numbers.set_index(["optimizer", "lr", "weight_decay"])
    assert len(numbers) == 3 * len(RATES) * len(DECAYS)
    for one in found.contenders:
        for own in one.rows:
            line = numbers.loc[(one.optimizer, own.config["optimizer"]["lr"], own.config["optimizer"]["weight_decay"])]
            assert line["num_failed"] == sum(own.failures.values())
            if own.values:
                assert line["mean"] == pytest.approx(statistics.mean(own.values.values()))
                assert plain(line["mean"], digits=3, is_padded=True) in words
    assert words.count(f"1{CROSS}") == 4, "one of three seeds, for two optimizers and two decays"
    assert words.count(CROSS) == 2, "all seeds of the last optimizer"
    assert "10 of 54 trials ended early" in picture.caption


def test_a_search_at_random_makes_no_heat_map() -> None:
    rows = [row("sgd", 0.01 * number, [0.5], keys={"weight_decay": 0.001 * number}) for number in range(1, 9)]
    assert heat_map.pictures(contest([contender(rows)]), slug="x") == []


def test_rates_of_other_methods_are_not_shown_as_found_by_themselves() -> None:
    """Adafactor has a `d` as well: what it clips at."""
    rows = [row("adafactor", 0.01, [0.8])]
    records = {rows[0].ids[0]: _record(0, 0.8, scale=1.0)}
    assert (
        lr_free.pictures(contest([contender(rows)]), slug="x", curves=curves(records), palette=Palette(["adafactor"]))
        == []
    )


def test_a_rate_that_is_the_estimate_is_drawn_once() -> None:
    rows = [row("prodigy", 1.0, [0.8, 0.8], keys={"capabilities": ["lr_free"]})]
    columns = {"test_accuracy": [0.1, 0.8], "d": [1e-6, 0.01], "effective_lr": [1e-6, 0.01]}
    records = {trial_id: record(seed, columns) for seed, trial_id in enumerate(rows[0].ids)}
    (picture,) = lr_free.pictures(
        contest([contender(rows)]), slug="x", curves=curves(records), palette=Palette(["prodigy"])
    )
    assert [series.label for series in picture.series] == ["prodigy"]
    (panel,) = picture.panels
    assert panel.y_scale == "log"
    assert "drawn once" in picture.caption
    assert set(picture.numbers["column"]) == {"d", "effective_lr"}


def test_settings_of_lr_free_methods_are_told_apart_and_at_most_eight_drawn(drawn: Mapping[str, Picture]) -> None:
    picture = drawn["lr_free"]
    assert len(picture.series) == 8
    assert len({series.label for series in picture.series}) == 8
    assert len({series.colour for series in picture.series}) == 8
    assert "10 are not" in picture.caption
    first = picture.numbers[(picture.numbers["column"] == "d") & (picture.numbers["step"] == 0.0)]
    assert first["mean"].tolist() == pytest.approx([1e-5] * 8)


def test_the_front_is_of_those_that_nobody_beats_in_all(drawn: Mapping[str, Picture]) -> None:
    """The first is best and smallest, the last is fastest, and the one between is on the front by time and quality."""
    numbers = drawn["trade_off"].numbers
    figures = [(-line.mean, line.peak_bytes, line.step_seconds) for line in numbers.itertuples()]
    beaten = [
        any(other != own and all(b <= a for a, b in zip(own, other, strict=True)) for other in figures)
        for own in figures
    ]
    assert numbers["is_on_front"].tolist() == [not one for one in beaten]
    worse = [
        contender([row(name, 0.1, [mean], peak_bytes=size, step_seconds=0.001)])
        for name, mean, size in (("good", 0.9, 1e6), ("bad", 0.8, 2e6))
    ]
    (picture,) = trade_off.pictures(contest(worse), slug="x", palette=Palette(["good", "bad"]))
    assert picture.numbers["is_on_front"].tolist() == [True, False]
    assert "fill-opacity: 0;" in ElementTree.tostring(by_id(picture, "s1-p0-0")).decode()
    assert "fill-opacity: 0;" not in ElementTree.tostring(by_id(picture, "s0-p0-0")).decode()


def test_who_has_no_figures_or_learns_nothing_is_named_beside_the_trade_off() -> None:
    made = [
        contender([row("good", 0.1, [0.9], step_seconds=0.001)]),
        contender([row("slow", 0.1, [0.8], step_seconds=0.002)]),
        contender([row("null", 0.0, [0.1])], is_control=True),
        contender([row("wild", 9.0, [], failures={"diverged": 2})]),
    ]
    (picture,) = trade_off.pictures(contest(made), slug="x", palette=Palette(["good", "slow", "null", "wild"]))
    assert [panel.x_label for panel in picture.panels] == ["time of a step (ms)"], "the memory is the same for all"
    assert [point for series in picture.series for (point,) in series.points] == [(1.0, 0.9), (2.0, 0.8)]
    assert "no figures: wild." in picture.caption
    assert "no better than no training: null." in picture.caption


def test_state_stands_for_memory_where_peaks_are_alike() -> None:
    made = [
        contender([row(name, 0.1, [0.5 + bytes_ / 100], peak_bytes=1e6, state_bytes_per_parameter=bytes_)])
        for name, bytes_ in (("sgd", 0.0), ("adam", 8.0))
    ]
    (picture,) = trade_off.pictures(contest(made), slug="x", palette=Palette(["sgd", "adam"]))
    assert picture.panels[0].x_label == "optimizer state (bytes per parameter)"


def test_labels_cover_neither_points_nor_each_other() -> None:
    generator = np.random.default_rng(1)
    anchors = [tuple(map(float, point)) for point in generator.uniform((20, 20), (230, 180), size=(14, 2))]
    labels = [Label(text="optimizer", size=(40.0, 8.0), anchor=(x, y), bar=(y - 3.0, y + 3.0)) for x, y in anchors]
    boxes = [(x, y - 4.0, x + 40.0, y + 4.0) for x, y in places(labels, width=250.0, height=200.0)]
    for one, other in itertools.combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    for left, low, right, high in boxes:
        assert 0.0 <= left <= right <= 250.0
        assert not any(left < x < right and low < y < high for x, y in anchors)


def test_the_best_of_k_is_drawn_as_it_is_computed(drawn: Mapping[str, Picture]) -> None:
    found, _, _ = field()
    numbers = drawn["best_of_k"].numbers
    for one in efforts(found):
        own = numbers[numbers["optimizer"] == one.optimizer]
        assert own["k"].tolist() == [1, 2, 3, 4, 5, 6]
        assert own["expected"].tolist() == one.expected
        assert (own["low"].tolist(), own["high"].tolist()) == (one.low, one.high)
    assert "6 of 18 settings had trials that ended early and count as no training." in drawn["best_of_k"].caption


def test_ranks_that_are_shared_are_written_as_such(drawn: Mapping[str, Picture]) -> None:
    words = written(drawn["ranks"])
    assert words.count("1=") == 2
    assert (words.count("2"), words.count("3")) >= (1, 2)
    numbers = drawn["ranks"].numbers.set_index("optimizer")
    assert numbers.loc["adamw", "mean_rank"] == 1.25
    assert "<i>other</i> (ran on 1 of 2 tasks)" in drawn["ranks"].caption


def test_a_profile_counts_who_never_gets_there_as_infinitely_slow(drawn: Mapping[str, Picture]) -> None:
    picture = drawn["profile"]
    numbers = picture.numbers.pivot(index="optimizer", columns="problem", values="ratio")
    assert numbers.loc["adamw"].tolist() == [1.0, 1.0]
    assert numbers.loc["lion"].tolist() == pytest.approx([2.0, 120.0 / 90.0])
    assert numbers.loc["sgd"].tolist() == [math.inf, math.inf]
    assert picture.series[1].points[0] == [(1.0, 0.0), (pytest.approx(4.0 / 3.0), 0.5), (2.0, 1.0)]
    assert {share for _, share in picture.series[2].points[0]} == {0.0}
    assert "2 of 6 runs never reached it" in picture.caption
    assert picture.panels[0].x_scale == "log"


def test_the_bars_of_memory_are_the_parts_of_the_peak() -> None:
    parts = {"parameters": 3 * 2**20, "state": 6 * 2**20, "a new part": 2**20}
    made = [
        contender([row("big", 0.1, [0.9], cost=cost(measured=parts_of(parts)))]),
        contender(
            [row("guess", 0.1, [0.8], cost=cost(predicted=parts_of({"parameters": 3 * 2**20}, kind="predicted")))]
        ),
        contender([row("unknown", 0.1, [0.7])]),
    ]
    (picture,) = memory.pictures(contest(made), slug="x")
    words = written(picture)
    assert picture.numbers["optimizer"].tolist() == ["guess", "big"], "the smallest first"
    assert picture.numbers["peak_bytes"].tolist() == [3 * 2**20, 10 * 2**20]
    assert {"guess (predicted)", "big", "3", "10", "a new part", "peak memory of a step (MiB)"} <= set(words)
    assert "no cost is known: unknown." in picture.caption


def test_where_there_is_nothing_to_draw_there_is_no_picture() -> None:
    failed = contest(
        [contender([row("sgd", 0.1, [], failures={"crashed": 2}), row("sgd", 0.2, [], failures={"crashed": 2})])]
    )
    palette, known = Palette(["sgd"]), curves({})
    assert learning.pictures(failed, slug="x", curves=known, palette=palette) == []
    assert lr_free.pictures(failed, slug="x", curves=known, palette=palette) == []
    for module in (sensitivity, trade_off, best_of_k):
        assert module.pictures(failed, slug="x", palette=palette) == []
    assert heat_map.pictures(failed, slug="x") == []
    assert memory.pictures(failed, slug="x") == []
    made = aggregate_of(PLAIN[:2])
    nobody = Profile(problems=["a seed 0"], targets={"a": "x"}, steps={name: [math.inf] for name in PLAIN[:2]})
    for found in (None, nobody):
        changed = Aggregate(**{**vars(made), "profile": found})
        assert profile.pictures(changed, palette=Palette(PLAIN)) == []
    assert ranks.pictures(Aggregate(**{**vars(made), "optimizers": [], "tasks": []}), palette=palette) == []


@pytest.mark.parametrize("rate", [None, "auto", True, 0.0])
def test_a_rate_that_is_no_number_above_zero_has_no_place(rate: Any) -> None:
    rows = [row("own", rate, [0.5]), row("own", 0.1, [0.6])]
    assert sensitivity.pictures(contest([contender(rows)]), slug="x", palette=Palette(["own"])) == []


@pytest.mark.parametrize(
    ("shown", "most", "expected"),
    [
        (Extent(low=0.0, high=1.0), 5, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (Extent(low=-0.3, high=0.3), 3, ["-0.2", "0.0", "0.2"]),
        (Extent(low=0.0, high=1100.0), 6, ["0", "200", "400", "600", "800", "1000"]),
        (Extent(low=1.0, high=3.0, is_whole=True), 6, ["1", "2", "3"]),
        (Extent(low=0.0, high=3e6), 4, ["0", "1e6", "2e6", "3e6"]),
        (Extent(low=87.396012, high=87.396031), 2, ["87.39602", "87.39603"]),
        (Extent(low=1e-7, high=3.2e-7), 3, ["1e-7", "2e-7", "3e-7"]),
        (Extent(low=1e-5, high=1.0, scale="log"), 6, ["1e-5", "0.0001", "0.001", "0.01", "0.1", "1"]),
        (Extent(low=1e-8, high=1e8, scale="log"), 5, ["1e-8", "0.0001", "1", "10000", "1e8"]),
        (Extent(low=0.8, high=30.0, scale="log"), 6, ["1", "2", "5", "10", "20"]),
        (Extent(low=1.0, high=4.0, scale="log"), 4, ["1", "2", "3", "4"]),
    ],
    ids=str,
)
def test_numbers_along_an_axis_are_plain(shown: Extent, most: int, expected: list[str]) -> None:
    words = [word for _, word in shown.ticks(most)]
    assert words == expected
    assert all(float(word) == pytest.approx(value, abs=1e-12) for value, word in shown.ticks(most))


@pytest.mark.parametrize("values", [[], [math.nan], [0.0], [3.0, 3.0], [1.0, 2.0, math.inf], [-5.0], [1e308, -1e308]])
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_an_axis_has_a_length_whatever_there_is(values: list[float], scale: Any) -> None:
    shown = extent(values, scale=scale)
    assert math.isfinite(shown.low)
    assert shown.low < shown.high
    assert shown.ticks(5)
    middle = shown.at(0.5)
    assert shown.part(middle) == pytest.approx(0.5)
    assert shown.clip(1e30) == shown.high
