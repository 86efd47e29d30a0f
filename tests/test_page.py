"""The page of a report, as text and in a browser."""

import io
import itertools
import json
import re
from collections.abc import Sequence
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from optbench.page import MAX_LABELLED_POINTS, Page, Section, render
from optbench.pictures.picture import Panel, Picture, Series
from optbench.sheet import Sheet
from tests import browser as browsers
from tests.browser import Log, OpenPage

browser, open_page = browsers.browser, browsers.open_page

COLOURS = ["#4477aa", "#cc6644", "#228833", "#aa3377", "#997700", "#3399aa", "#7755bb", "#888888"]
NAMES = ["adamw", "lion", "sgd_momentum", "prodigy", "adafactor", "muon", "schedule_free_adamw", "null"]
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(2)</script>",
    "'><svg onload=alert(3)>",
    "{{7*7}}",
    "javascript:alert(4)",
    "http://example.org/x",
    "a\nb\u2028c",
    "& 🙂 &lt;b&gt;",
    "x" * 200,
]


@cache
def make_picture(
    name: str = "curves",
    *,
    num_series: int = 3,
    num_points: int = 20,
    num_panels: int = 1,
    names: Sequence[str] = tuple(NAMES),
) -> Picture:
    """Curves that fall, drawn as reports draw them: a line and a band for each series in each panel."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(
        {
            "svg.hashsalt": name,
            "svg.fonttype": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "font.size": 9,
        }
    ):
        figure = Figure(figsize=(4.6 * num_panels + 1.8, 3.8))
        FigureCanvasAgg(figure)
        figure.subplots_adjust(left=0.14 / num_panels, bottom=0.22, right=0.98, top=0.98)
        axes = list(figure.subplots(1, num_panels, squeeze=False)[0])
        steps = np.arange(1.0, num_points + 1.0) * 10.0
        elements: list[list[str]] = [[] for _ in range(num_series)]
        points: list[list[list[tuple[float, float]]]] = [[] for _ in range(num_series)]
        for panel, own in enumerate(axes):
            for series in range(num_series):
                values = 2.0 * (steps / 10.0) ** (-0.4 - 0.1 * series)
                (line,) = own.plot(steps, values, color=COLOURS[series])
                band = own.fill_between(
                    steps, values * 0.9, values * 1.1, color=COLOURS[series], alpha=0.2, linewidth=0
                )
                for place, artist in enumerate((line, band)):
                    artist.set_gid(f"s{series}-p{panel}-{place}")
                    elements[series].append(f"s{series}-p{panel}-{place}")
                points[series].append(list(zip(steps.tolist(), values.tolist(), strict=True)))
            own.set(xlabel="step", ylabel="test loss", yscale="log")
            own.grid(visible=True, alpha=0.25)
        drawn_legend = figure.legend(["drawn legend"], loc="lower center")
        drawn_legend.set_gid("legend")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        width, height = figure.get_size_inches() * 72.0
        panels = [
            Panel(
                box=(box.x0 * width, (1.0 - box.y1) * height, box.width * width, box.height * height),
                x_label="step",
                y_label="test loss",
                x_limits=own.get_xlim(),
                y_limits=own.get_ylim(),
                x_scale="linear",
                y_scale="log",
            )
            for own in axes
            for box in [own.get_position()]
        ]
    return Picture(
        name=name,
        title=f"Test loss of {name}",
        caption="The mean over 3 seeds; the band is the interval at 95 %. 1 trial of lion failed.",
        task="digits_mlp",
        svg=buffer.getvalue(),
        png=b"",
        numbers=pd.DataFrame(),
        panels=panels,
        series=[
            Series(label=label, colour=colour, elements=own, points=values)
            for label, colour, own, values in zip(itertools.cycle(names), COLOURS, elements, points, strict=False)
        ],
    )


def make_sheet(num_rows: int = 8, *, title: str = "Tuned, over 3 seeds", num_notes: int = 2) -> Sheet:
    """A ranking whose last row has no metric, and whose accuracies fall but are not in the order of their text."""
    words, keys = [], []
    for place in range(num_rows):
        accuracy = None if place == num_rows - 1 else 1.0 - 0.97**2 * (place + 1) / (num_rows + 1)
        spelt = "—" if accuracy is None else f"{accuracy:.1%} [{accuracy - 0.01:.1%}, {accuracy + 0.01:.1%}]"
        name = f"{NAMES[place % len(NAMES)]}" if num_rows <= len(NAMES) else f"{NAMES[place % len(NAMES)]}_{place}"
        mark = "★" if place == 0 else "=" if place == 1 else ""
        lr = 10.0 ** -((place * 3) % 7)
        setting = f"lr={lr:g} betas=[0.9, 0.99] weight_decay=0.{place}"
        words.append([mark, name, setting, f"{lr:g}", spelt, f"{3 + place * 7 % 11}.0 ms", str(place % 3)])
        keys.append([None, name, setting, lr, accuracy, 3.0 + place * 7 % 11, place % 3])
    columns = ["", "optimizer", "setting", "lr", "test accuracy", "time of a step", "failed"]
    return Sheet(
        name="ranking",
        title=title,
        words=pd.DataFrame(words, columns=columns),
        keys=pd.DataFrame(keys, columns=columns, dtype=object),
        numbers=pd.DataFrame(),
        notes=[f"Note {place}: what this is over, and what it is not." for place in range(num_notes)],
    )


def make_page(*sections: Section, title: str = "Optimizers on three tasks") -> Page:
    return Page(
        title=title,
        summary=["435 trials", "3 tasks", "9 optimizers", "12 failed"],
        warnings=["digits_mlp: the best lr of lion is the lowest that was tried."],
        sections=sections or [make_section()],
        version="0.1.0",
    )


def make_section(section_id: str = "digits", **changes: Any) -> Section:
    given: dict[str, Any] = {
        "id": section_id,
        "heading": f"{section_id}_mlp",
        "label": "discriminating",
        "label_reason": "sgd_untuned ends 3.1 points below the best, over 5 seeds.",
        "answers": [
            "adamw is best with 97.9 % [97.1, 98.2]; lion cannot be told from it.",
            "With the values of their files, prodigy is best.",
        ],
        "sheets": [make_sheet()],
        "pictures": [make_picture()],
        "remarks": ["Intervals are bootstrapped over seeds."],
        "left_out": ["curves_lion_all.svg"],
    }
    return Section(**{**given, **changes})


def write(page: Page, folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text(render(page), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a short and a long table, and pictures of one and of three panels."""
    section = make_section(
        sheets=[make_sheet(), make_sheet(60, title="All settings", num_notes=5)],
        pictures=[make_picture(), make_picture("wide", num_series=5, num_panels=3)],
    )
    return write(make_page(section, make_section("mnist", label="saturated")), tmp_path_factory.mktemp("page"))


class Elements(HTMLParser):
    """All elements of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def hostile_page() -> Page:
    columns = [*HOSTILE, *HOSTILE[:2]]
    table = pd.DataFrame([columns, ["", *columns[1:]]], columns=columns)
    sheet = Sheet(
        name="x", title=HOSTILE[0], words=table, keys=table.map(lambda text: text + "'\""), numbers=table, notes=HOSTILE
    )
    drawn = make_picture(num_series=8, names=tuple(HOSTILE))
    picture = Picture(**{**vars(drawn), "title": HOSTILE[1], "caption": HOSTILE[2]})
    sections = [
        make_section(
            f"part-{place}",
            heading=text,
            label=text,
            label_reason=text,
            answers=HOSTILE,
            sheets=[sheet],
            pictures=[picture],
            remarks=HOSTILE,
            left_out=HOSTILE,
        )
        for place, text in enumerate(HOSTILE)
    ]
    return Page(title=HOSTILE[2], summary=HOSTILE, warnings=HOSTILE, sections=sections, version=HOSTILE[0])


def test_a_name_that_is_markup_stays_text() -> None:
    elements = Elements(render(hostile_page()))
    assert len(elements.named("script")) == 2, "the data and the script of the page"
    assert elements.named("img") == []
    assert len(elements.named("svg")) == len(HOSTILE), "a picture for each section"
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    addresses = [attributes.get(name) for _, attributes in elements.found for name in ("href", "src")]
    assert {address[0] for address in addresses if address} == {"#", "d"}, "places on the page, and the icon"


def test_a_template_in_a_name_is_not_evaluated() -> None:
    text = render(hostile_page())
    assert "{{7*7}}" in text
    assert ">49<" not in text


def test_the_page_holds_no_address_of_anything_elsewhere(page_file: Path) -> None:
    text = page_file.read_text()
    assert not re.search(r"(?:src|href|action|data)\s*=\s*[\"']?\s*(?:https?:)?//", text)
    assert not re.search(r"url\(\s*[\"']?(?!#)", text)
    assert "@import" not in text


def test_a_page_is_the_same_the_second_time() -> None:
    assert render(make_page()) == render(make_page())


def test_half_a_character_does_not_keep_the_page_from_being_written(tmp_path: Path) -> None:
    path = write(make_page(Section(id="x", heading="a\ud800b")), tmp_path)
    assert "<h2>a?b</h2>" in path.read_text(encoding="utf-8")


def test_ids_are_unique_within_the_page(page_file: Path) -> None:
    ids = [attributes["id"] for _, attributes in Elements(page_file.read_text()).found if "id" in attributes]
    assert len(ids) == len(set(ids)) > 100


def test_each_id_that_is_referred_to_is_there(page_file: Path) -> None:
    text = page_file.read_text()
    ids = {attributes.get("id") for _, attributes in Elements(text).found}
    referred = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", text))
    assert len(referred) > 10
    assert {name for pair in referred for name in pair if name} <= ids
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text)[0])
    assert {name for own in data.values() for series in own["series"] for name in series["elements"]} <= ids


@pytest.mark.parametrize("section_id", ["", "a b", "<b>", "ä"])
def test_the_id_of_a_section_has_to_be_plain(section_id: str) -> None:
    with pytest.raises(ValueError, match="make the id of a section"):
        render(make_page(Section(id=section_id, heading="x")))


def test_two_sections_cannot_share_an_id() -> None:
    with pytest.raises(ValueError, match="'a' is the id of 2 sections"):
        render(make_page(Section(id="a", heading="x"), Section(id="a", heading="y")))


def test_a_page_of_nothing_is_a_page() -> None:
    empty = Page(title="Nothing yet", summary=[], warnings=[], sections=[], version="0.1.0")
    assert "Nothing yet" in render(empty)


def test_points_that_are_not_numbers_are_left_out_and_very_many_are_thinned() -> None:
    drawn = make_picture(num_series=1)
    many = [(float(x), 1.0 / (x + 1.0)) for x in range(5000)]
    series = Series(
        label="x", colour="#000000", elements=[], points=[[(0.0, float("nan")), *many, (1.0, float("inf"))]]
    )
    text = render(make_page(make_section(pictures=[Picture(**{**vars(drawn), "series": [series]})])))
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text)[0])
    flat = data["picture-1"]["series"][0]["points"][0]
    assert len(flat) == 2 * MAX_LABELLED_POINTS
    assert flat[:2] == [0, 1]
    assert flat[-2:] == [4999, 0.0002]


def test_a_picture_is_drawn_in_the_colours_of_the_page(page_file: Path) -> None:
    text = page_file.read_text()
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert "currentColor" in drawings
    assert "#000000" not in drawings
    assert "#ffffff" not in drawings
    assert "#b0b0b0" in drawings, "grey stays grey"
    assert COLOURS[0] in drawings
    assert "<metadata" not in drawings
    assert "drawn legend" not in drawings, "the page has a legend of its own"


def test_a_drawing_ends_where_its_legend_was(page_file: Path, open_page: OpenPage) -> None:
    script = """(svg) => {
      const label = [...svg.querySelectorAll("text")].find((text) => text.textContent === "step");
      return [svg.viewBox.baseVal.height, label.getBBox().y + label.getBBox().height];
    }"""
    with open_page(page_file) as (page, _):
        end, end_of_label = page.locator("#picture-1 svg").evaluate(script)
    assert end < 0.95 * 3.8 * 72.0
    assert end_of_label <= end < end_of_label + 10.0, "nothing is cut, and nothing is left blank"


def test_many_tasks_leave_the_first_answer_of_each_to_the_first_screen() -> None:
    few = make_page(*(Section(id=f"t{place}", heading="x", answers=["first", "second"]) for place in range(4)))
    many = make_page(*(Section(id=f"t{place}", heading="x", answers=["first", "second"]) for place in range(5)))
    assert (render(few).count(">first<"), render(few).count(">second<")) == (8, 8)
    assert (render(many).count(">first<"), render(many).count(">second<")) == (10, 5)


def test_white_text_stays_white() -> None:
    svg = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 5"><g id="figure_1">
        <g id="patch_1"><path d="M 0 0" style="fill: #ffffff"/></g>
        <path d="M 1.23456 0.0001" style="fill: #ffffff; stroke: #000000" onclick="alert(1)"/>
        <text style="fill: #ffffff">white</text><script>alert(1)</script></g></svg>"""
    picture = Picture(name="x", title="x", caption="", task=None, svg=svg, png=b"", numbers=pd.DataFrame())
    text = render(make_page(make_section(pictures=[picture])))
    assert '<text style="fill: #ffffff">white</text>' in text
    assert '<path d="M 1.23 0.00" style="fill: var(--paper); stroke: currentColor" />' in text
    assert "picture-1-patch_1" not in text, "the white sheet below all is gone"
    assert "alert(1)" not in text


def test_twenty_pictures_and_a_thousand_trials_make_less_than_two_megabytes(
    tmp_path: Path, open_page: OpenPage
) -> None:
    picture = make_picture(num_series=8, num_points=60)
    sections = [
        make_section(f"task_{place}", sheets=[make_sheet(200)] * 1, pictures=[picture] * 4) for place in range(5)
    ]
    path = write(make_page(*sections), tmp_path)
    assert path.stat().st_size < 2e6
    with open_page(path) as (page, log):
        assert page.evaluate("document.readyState") == "complete"
        assert page.locator("figure").count() == 20
        assert page.locator("tbody tr").count() == 1000
        assert_quiet(log, path)


def assert_quiet(log: Log, path: Path) -> None:
    """The page asked for nothing but itself, and had nothing to complain of."""
    assert log == Log(requests=[path.as_uri()])


def column(page: Any, place: int, table: str = "#table-1") -> list[str]:
    """The text of a column's rows that are to be seen."""
    rows = page.locator(f"{table} tbody tr:visible")
    script = "(rows, place) => rows.map((row) => row.cells[place].textContent.trim())"
    found: list[str] = rows.evaluate_all(script, place)
    return found


def test_a_hostile_page_runs_nothing(tmp_path: Path, open_page: OpenPage) -> None:
    path = write(hostile_page(), tmp_path)
    with open_page(path, viewport={"width": 360, "height": 740}) as (page, log):
        page.locator("thead button").first.click()
        page.locator("[data-series]").nth(1).click()
        page.locator(".drawing").first.press("ArrowRight")
        assert page.locator("#tooltip strong").inner_text() == HOSTILE[0], "the name is text there as well"
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert_quiet(log, path)


def test_the_policy_refuses_another_script(page_file: Path, open_page: OpenPage, tmp_path: Path) -> None:
    path = tmp_path / "changed.html"
    path.write_text(page_file.read_text().replace("</body>", "<script>document.title = 'changed'</script></body>"))
    with open_page(path) as (page, log):
        assert page.title() == "Optimizers on three tasks"
        assert "Content Security Policy" in " ".join(log.messages)


def test_the_first_screen_answers_for_every_task(page_file: Path, open_page: OpenPage) -> None:
    with open_page(page_file, viewport={"width": 1280, "height": 800}) as (page, _):
        answers = page.locator(".answers dd p:first-child")
        assert answers.count() == 2
        for answer in answers.all():
            box = answer.bounding_box()
            assert box["y"] + box["height"] < 800
        page.locator(".answers a", has_text="mnist_mlp").click()
        assert page.locator("#mnist").bounding_box()["y"] < 100
        page.locator("nav [aria-current]", has_text="mnist_mlp").wait_for()


def test_a_column_is_sorted_up_down_and_back(page_file: Path, open_page: OpenPage) -> None:
    with open_page(page_file) as (page, log):
        head = page.locator("#table-1 th[scope=col]", has_text="time of a step")
        button = head.locator("button")
        before = column(page, 5)
        in_order = sorted(before, key=lambda text: float(text.split()[0]))
        button.click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert column(page, 5) == in_order
        assert in_order != sorted(in_order), "it is numbers that are sorted, not texts"
        button.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert column(page, 5) == in_order[::-1]
        button.click()
        assert head.get_attribute("aria-sort") is None
        assert column(page, 5) == before
        assert_quiet(log, page_file)


def test_rows_without_a_value_come_last_both_ways(page_file: Path, open_page: OpenPage) -> None:
    with open_page(page_file) as (page, _):
        button = page.locator("#table-1 thead button", has_text="test accuracy")
        button.click()
        up = column(page, 4)
        button.click()
        down = column(page, 4)
    assert up[-1] == down[-1] == "—"
    assert up[:-1] == down[:-1][::-1]


def test_sorting_keeps_the_order_of_equal_rows(page_file: Path, open_page: OpenPage) -> None:
    with open_page(page_file) as (page, _):
        before = list(zip(column(page, 6), column(page, 1), strict=True))
        button = page.locator("#table-1 thead button", has_text="failed")
        button.click()
        assert list(zip(column(page, 6), column(page, 1), strict=True)) == sorted(before, key=lambda row: row[0])
        button.click()
        after = list(zip(column(page, 6), column(page, 1), strict=True))
        assert after == sorted(before, key=lambda row: -int(row[0]))


def test_a_filter_wants_all_words_and_none_of_those_with_a_minus(page_file: Path, open_page: OpenPage) -> None:
    with open_page(page_file) as (page, log):
        search, status = page.locator("#table-2 input"), page.locator("#table-2 .status")
        assert status.text_content().strip() == "60 rows"
        search.fill("ADAM betas -schedule -adamw_0")
        assert status.text_content().strip() == "7 of 60 rows"
        assert {name.rpartition("_")[0] for name in column(page, 1, "#table-2")} == {"adamw"}
        search.fill("nothing is like this")
        assert status.text_content().strip() == "0 of 60 rows"
        search.fill("_59")
        assert len(column(page, 1, "#table-2")) == 1, "rows beyond the first 30 are looked at"
        search.fill("-")
        assert status.text_content().strip() == "60 rows"
        assert_quiet(log, page_file)


def test_a_long_table_shows_thirty_rows_until_all_are_asked_for(page_file: Path, open_page: OpenPage) -> None:
    with open_page(page_file) as (page, _):
        assert len(column(page, 1, "#table-2")) == 30
        button = page.locator("#table-2 .more")
        assert button.text_content().strip() == "Show all 60 rows"
        button.click()
        assert len(column(page, 1, "#table-2")) == 60
        button.click()
        assert len(column(page, 1, "#table-2")) == 30


def test_the_best_and_those_that_tie_are_marked(page_file: Path, open_page: OpenPage) -> None:
    weight_and_colour = "(cell) => [getComputedStyle(cell).fontWeight >= 600, getComputedStyle(cell).color]"
    with open_page(page_file) as (page, _):
        cells = [cell.evaluate(weight_and_colour) for cell in page.locator("#table-1 tbody th").all()[:3]]
    (best_bold, best_colour), (tie_bold, tie_colour), (rest_bold, rest_colour) = cells
    assert (best_bold, tie_bold, rest_bold) == (True, False, False)
    assert best_colour == tie_colour != rest_colour


def test_an_interval_stands_small_below_its_value(page_file: Path, open_page: OpenPage) -> None:
    with open_page(page_file) as (page, _):
        cell = page.locator("#table-1 tbody tr").first.locator("td, th").nth(4)
        page.wait_for_function("cell => cell.innerText.includes('\\n')", arg=cell.element_handle())
        assert cell.inner_text().split("\n") == ["89.5%", "[88.5%, 90.5%]"]
        assert column(page, 2)[0] == "lr=1 betas=[0.9, 0.99] weight_decay=0.0", "a list in a setting is no interval"


def test_all_can_be_read_without_the_script(page_file: Path, open_page: OpenPage) -> None:
    with open_page(page_file, java_script_enabled=False) as (page, log):
        assert page.locator("#table-2 tbody tr:visible").count() == 60
        assert page.locator("figure svg:visible").count() == 3
        assert page.locator("[data-series]:visible").count() == 3 + 5 + 3
        assert page.locator(".script:visible").count() == 0, "what would do nothing is not shown"
        assert_quiet(log, page_file)


def shown(page: Any, figure: str = "#picture-1") -> list[str]:
    """The series whose button is pressed, after a look at the drawing: it has to show the very same."""
    script = """(buttons, figure) => buttons.map((button, place) => [
      button.textContent.trim(),
      button.getAttribute("aria-pressed") === "true",
      ...[0, 1].map((artist) => {
        const path = document.querySelector(`${figure}-s${place}-p0-${artist} path`);
        return getComputedStyle(path).visibility === "visible";
      }),
    ])"""
    found = page.locator(f"{figure} [data-series]").evaluate_all(script, figure)
    assert (
        [line for _, _, line, _ in found] == [band for _, _, _, band in found] == [pressed for _, pressed, *_ in found]
    )
    return [name for name, pressed, *_ in found if pressed]


def test_the_legend_shows_and_hides_lines_with_their_bands(page_file: Path, open_page: OpenPage) -> None:
    with open_page(page_file) as (page, log):
        lion = page.locator("#picture-1 [data-series]", has_text="lion")
        lion.scroll_into_view_if_needed()  # what is not on the screen is not laid out
        assert shown(page) == NAMES[:3]
        lion.click()
        assert shown(page) == ["adamw", "sgd_momentum"]
        lion.press("Enter")
        assert shown(page) == NAMES[:3]
        lion.dblclick()
        assert shown(page) == ["lion"]
        lion.dblclick()
        assert shown(page) == NAMES[:3], "alone once more: all again"
        lion.click(modifiers=["Alt"])
        assert shown(page) == ["lion"]
        page.locator("#picture-1 .all").click()
        assert shown(page) == NAMES[:3]
        lion.press("Shift+Enter")
        assert shown(page) == ["lion"]
        page.locator("#picture-2").scroll_into_view_if_needed()
        assert shown(page, "#picture-2") == NAMES[:5], "another picture is left alone"
        assert_quiet(log, page_file)


def where(page: Any, series: int, point: int, *, panel: int = 0, figure: str = "#picture-1") -> tuple[float, float]:
    """The place of a point on the screen, by the line that is drawn rather than by the axes."""
    line = page.locator(f"{figure}-s{series}-p{panel}-0 path")
    found = line.evaluate(
        """(path, place) => {
          const [x, y] = path.getAttribute("d").match(/-?[\\d.]+ -?[\\d.]+/g)[place].split(" ");
          const point = new DOMPoint(x, y).matrixTransform(path.getScreenCTM());
          return [point.x, point.y];
        }""",
        point,
    )
    return found[0], found[1]


@pytest.mark.parametrize(("figure", "panel"), [("#picture-1", 0), ("#picture-2", 2)])
def test_a_pointer_finds_the_nearest_point(page_file: Path, open_page: OpenPage, figure: str, panel: int) -> None:
    with open_page(page_file) as (page, log):
        page.locator(f"{figure} svg").scroll_into_view_if_needed()
        tooltip = page.locator("#tooltip")
        assert not tooltip.is_visible()
        x, y = where(page, 1, 9, panel=panel, figure=figure)
        page.mouse.move(x + 3, y - 3)
        assert tooltip.inner_text().split("\n") == ["lion", "step: 100", f"test loss: {2.0 * 10.0**-0.5:.5g}"]
        marker = page.locator(f"{figure} .pointed").bounding_box()
        assert marker["x"] + marker["width"] / 2 == pytest.approx(x, abs=1.0)
        assert marker["y"] + marker["height"] / 2 == pytest.approx(y, abs=1.0)
        page.mouse.move(x, y - 60)
        assert not tooltip.is_visible(), "far from all lines"
        page.mouse.move(x, y)
        assert tooltip.is_visible()
        page.mouse.move(2, 2)
        assert not tooltip.is_visible()
        assert_quiet(log, page_file)


def test_a_pointer_does_not_find_what_is_hidden(page_file: Path, open_page: OpenPage) -> None:
    with open_page(page_file) as (page, _):
        page.locator("#picture-1 [data-series]", has_text="lion").click()
        page.mouse.move(*where(page, 1, 19))
        assert page.locator("#tooltip strong:visible").all_inner_texts() != ["lion"]


def test_a_touch_finds_a_point_as_well(page_file: Path, open_page: OpenPage) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with open_page(page_file, **phone) as (page, _):
        page.locator("#picture-1 svg").scroll_into_view_if_needed()
        page.touchscreen.tap(*where(page, 2, 19))
        assert page.locator("#tooltip strong").inner_text() == "sgd_momentum"
        box = page.locator("#tooltip").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360


def test_arrow_keys_go_from_point_to_point_and_from_line_to_line(page_file: Path, open_page: OpenPage) -> None:
    with open_page(page_file) as (page, log):
        drawing, said = page.locator("#picture-1 .drawing"), page.locator("#picture-1 .said")
        drawing.press("ArrowRight")
        assert said.text_content() == "adamw, step: 10, test loss: 2"
        drawing.press("ArrowRight")
        drawing.press("ArrowRight")
        assert said.text_content() == "adamw, step: 30, test loss: 1.2888"
        drawing.press("ArrowLeft")
        drawing.press("ArrowDown")
        assert said.text_content() == "lion, step: 20, test loss: 1.4142"
        drawing.press("ArrowUp")
        drawing.press("ArrowUp")
        assert said.text_content() == "sgd_momentum, step: 20, test loss: 1.3195"
        drawing.press("End")
        assert "step: 200," in said.text_content()
        assert page.locator("#tooltip strong").inner_text() == "sgd_momentum"
        drawing.press("Escape")
        assert not page.locator("#tooltip").is_visible()
        assert_quiet(log, page_file)


def test_keys_reach_all_panels(page_file: Path, open_page: OpenPage) -> None:
    with open_page(page_file) as (page, _):
        drawing = page.locator("#picture-2 .drawing")
        drawing.press("End")
        marker, box = page.locator("#picture-2 .pointed").bounding_box(), drawing.bounding_box()
        assert marker["x"] > box["x"] + box["width"] * 2 / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_axes_can_be_read_in_light_and_in_the_dark(page_file: Path, open_page: OpenPage, scheme: str) -> None:
    script = """() => {
      const style = (selector) => getComputedStyle(document.querySelector(selector));
      return [style("body").backgroundColor, style("body").color, style(".muted, .facts").color, style("td").color,
              style("svg text").fill];
    }"""
    with open_page(page_file, color_scheme=scheme) as (page, log):
        paper, *inks = (luminance(colour) for colour in page.evaluate(script))
        assert (paper > 0.5) == (scheme == "light")
        for ink in inks:
            assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) > 4.5, "contrast as WCAG asks for"
        assert_quiet(log, page_file)


def luminance(colour: str) -> float:
    """Relative, as WCAG has it, of `rgb(r, g, b)`."""
    parts = [int(part) / 255.0 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(page_file: Path, open_page: OpenPage, width: int) -> None:
    with open_page(page_file, viewport={"width": width, "height": 740}) as (page, _):
        page.locator("#table-2 .more").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#table-1 .scroll").evaluate("(x) => x.scrollWidth > x.clientWidth") == (width < 1280)


def test_paper_is_white_and_has_all_rows(page_file: Path, open_page: OpenPage) -> None:
    with open_page(page_file, color_scheme="dark") as (page, _):
        page.emulate_media(media="print")
        assert page.locator("#table-2 tbody tr:visible").count() == 60
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.locator("nav").is_visible()
