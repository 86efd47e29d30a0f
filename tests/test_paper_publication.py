"""A reproduction as files: a page with both tables and the pictures, and what came out; names are but names."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml

from optbench.folder import MANIFEST
from optbench.papers.publication import answers, publish
from optbench.papers.words import MARKS
from tests import browser as browsers
from tests.browser import OpenPage
from tests.hostile import NAMES
from tests.reproductions import LOSSES, PAPER, STATES, made, pairs, trials

browser, open_page = browsers.browser, browsers.open_page

FACTS = ["45 trials", "Abacus 3"]
SHEETS = [*(f"{table}_{kind}" for table in ("final", "sizes") for kind in ("published", "measured", "cells")), "claims"]
PICTURES = ["by_rate", "course", "departures", "pairs"]
ALL_WELL: dict[tuple[str, float], Any] = {
    ("sgd", 0.01): (0.49, 0.5, 0.51),
    ("sgd", 0.1): (0.39, 0.4, 0.41),
    ("sgd", 1.0): ("diverged",),
    ("adam", 0.01): (0.29, 0.3, 0.31),
    ("adam", 0.1): (0.25, 0.25),
    ("adam", 1.0): (0.9, 0.9),
    ("lion", 0.01): (0.21, 0.22, 0.2),
    ("lion", 1.0): (0.8, 0.81, 0.79),
}
WITHOUT_FIGURES = PAPER.partition("figures:")[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "reproduction"
    assert publish(made(), path, facts=FACTS) == path / "reproduction.html"
    return path


class _Elements(HTMLParser):
    """How many elements of each name there are, which attributes run something, and all that is to be read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.handlers: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.handlers += [name for name, value in attrs if name.startswith("on") or "javascript:" in (value or "")[:11]]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def text_of(path: Path) -> str:
    return " ".join(" ".join(_Elements(path.read_text()).words).split())


# What is written


def test_there_are_a_page_a_text_tables_and_pictures(folder: Path) -> None:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        *(f"reproduction.{kind}" for kind in ("html", "md", "tex")),
        *(f"tables/{name}.{kind}" for name in SHEETS for kind in ("md", "csv", "tex")),
        *(f"figures/{name}.{kind}" for name in PICTURES for kind in ("svg", "png", "csv")),
        MANIFEST,
    }
    for name in SHEETS:
        assert len(pd.read_csv(folder / "tables" / f"{name}.csv")) > 0
    for name in PICTURES:
        assert ElementTree.parse(folder / "figures" / f"{name}.svg").getroot().tag.endswith("svg")
        assert len(pd.read_csv(folder / "figures" / f"{name}.csv")) > 0


def test_written_again_it_is_the_same_to_the_last_byte(folder: Path, tmp_path: Path) -> None:
    publish(made(), tmp_path / "again", facts=FACTS)
    first, second = (
        {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (folder, tmp_path / "again")
    )
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_what_an_earlier_one_left_is_deleted(tmp_path: Path) -> None:
    publish(made(WITHOUT_FIGURES), tmp_path, facts=FACTS)
    assert len(list((tmp_path / "figures").iterdir())) == 3
    bounds = {**yaml.safe_load(WITHOUT_FIGURES), "claims": []}
    bounds["tables"] = [{**bounds["tables"][0], "published": {"Lion": {0.01: {"at_most": 0.4}}}}]
    publish(made(yaml.safe_dump(bounds, sort_keys=False), said=()), tmp_path, facts=FACTS)
    assert not list((tmp_path / "figures").iterdir())
    assert not list((tmp_path / "tables").glob("claims.*"))


def test_the_page_has_both_tables_the_pictures_and_every_verdict(folder: Path) -> None:
    page = folder / "reproduction.html"
    found = _Elements(page.read_text())
    assert found.count["table"] == len(SHEETS)
    assert found.count["svg"] == len(PICTURES)
    text = text_of(page)
    for title in ("Test loss after 100 steps, as published", "Test loss after 100 steps, as measured here"):
        assert title in text
    assert "0.5 ±0.02" in text
    assert "0.5100 ✗ [0.4852, 0.5348]" in text
    for words in ("reproduced", "not reproduced", "underpowered: 9 more seeds", "not run: no trials"):
        assert words in text
    for words in ("confirmed", "refuted", "diverged ✓", *MARKS.values(), *FACTS):
        assert words in text


def test_the_page_says_where_the_figures_are_from_what_is_open_and_what_it_costs(folder: Path) -> None:
    for text in (text_of(folder / "reproduction.html"), (folder / "reproduction.md").read_text()):
        assert "Roe et al. (2019): Of rates, table 2. https://example.org/rates" in text
        assert "The claim: Lion needs a tenth of Adam's rate." in text
        assert "It does not say how weights begin." in text
        assert "It takes 3 minutes on two cores, and 30 seconds with --quick." in text
        assert "Two spreads of the source." in text


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        ({"minutes": 1.0}, "It takes 1 minute on two cores."),
        ({"minutes": 0.2, "quick_minutes": 0.2}, "It takes 12 seconds on two cores."),
        ({"minutes": None}, "How long it takes on two cores was not measured."),
        ({"minutes": None, "quick_minutes": 2.5}, "was not measured; 2.5 minutes with --quick."),
    ],
)
def test_the_cost_is_said_as_far_as_it_is_known(cost: dict[str, Any], words: str, tmp_path: Path) -> None:
    paper = {**yaml.safe_load(WITHOUT_FIGURES), "cost": {**cost, "machine": "two cores"}}
    assert words in text_of(publish(made(yaml.safe_dump(paper, sort_keys=False)), tmp_path, facts=[]))


def test_the_text_has_the_tables_and_the_pictures(folder: Path) -> None:
    text = (folder / "reproduction.md").read_text()
    assert re.findall(r"!\[[^]]*\]\(figures/(\w+)\.png\)", text) == ["departures", "pairs", "by_rate", "course"]
    assert re.search(r"\| SGD +\| 0\.5 ±0\.02 +\| 0\.4 +\| diverges +\|", text)
    assert re.search(r"\| SGD +\| 0\.5000 ✓ \[0\.4752, 0\.5248\] +\| 0\.5100 ✗ ", text)


def test_latex_has_all_tables_and_signs_that_it_knows(folder: Path) -> None:
    text = (folder / "reproduction.tex").read_text()
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert code.count(r"\begin{tabular}") == code.count(r"\end{tabular}") == code.count(r"\toprule") == len(SHEETS)
    assert code.count("{") == code.count("}")
    assert r"0.5100 $\times$ [0.4852, 0.5348]" in code
    assert r"0.5 $\pm$0.02" in code
    assert r"$\surd$" in code
    assert not [sign for sign in code if sign > "\x7f" and sign != "\N{EN DASH}"]


# What came out


def test_a_paper_whose_cells_all_agree_is_reproduced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STATES, "lion", 2.0)
    assert answers(made(records=trials(ALL_WELL))) == ["Reproduced: all 10 cells agree with Roe et al. (2019)."]


def test_a_table_whose_cells_all_agree_says_so_in_its_place_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STATES, "lion", 2.0)
    text = text_of(publish(made(WITHOUT_FIGURES), tmp_path, facts=[]))
    assert text.count("All 2 cells agree.") == 1
    assert text.count("3 of 8 cells agree; 2 do not, 2 cannot be told from these seeds, 1 was not run.") == 2


def test_where_no_cell_was_measured_nothing_is_said_to_agree() -> None:
    table = WITHOUT_FIGURES.partition("  - name: sizes")
    claims = "claims:" + table[2].partition("claims:")[2]
    assert answers(made(table[0] + claims, [])) == [
        "Not run: nothing was measured of 8 cells.",
        "Not run: 8 cells (no trials).",
    ]


def test_the_answers_name_each_cell_that_does_not_agree() -> None:
    assert answers(made()) == [
        "Not reproduced: 4 of 10 cells agree with Roe et al. (2019); 3 do not, 2 cannot be told from these seeds, "
        "1 was not run.",
        "Not reproduced: SGD at 0.1 in final measured 0.5100 [0.4852, 0.5348], published 0.4, allowed 0.35 to 0.45.",
        "Not reproduced: Adam at 1 in final: 1 of 3 diverged, published 0.9, allowed 0.85 to 0.95.",
        "Not reproduced: Lion in sizes measured 1, published 2, allowed exactly 2.",
        "Underpowered: Adam at 0.01 in final measured 0.305, published 0.3, allowed 0.25 to 0.35; a single seed has no "
        "spread.",
        "Underpowered: Adam at 0.1 in final measured 0.2700 [0.1562, 0.3838], published 0.25, allowed 0.2 to 0.3; it "
        "would take 9 more seeds.",
        "Not run: 1 cell (no trials).",
    ]


def test_a_reason_is_given_for_what_was_not_run() -> None:
    found = answers(made(records=[], reasons=["It needs a GPU."]))
    assert found[0].startswith("Not reproduced: 1 of 10 cells agree")
    assert found[-1] == "Not run: 8 cells (It needs a GPU)."


def test_a_quick_run_says_so(tmp_path: Path) -> None:
    found = answers(made(is_quick=True))
    assert found[-1] == "Quick: 10 of 11 cells; the others were left out by --quick."
    assert "not run" not in found[0]
    page = publish(made(WITHOUT_FIGURES, is_quick=True), tmp_path, facts=[])
    assert "left out" in text_of(page)
    assert found[-1] in text_of(page)
    full = made(records=trials({**LOSSES, ("lion", 1.0): (0.8, 0.8)}), is_quick=True)
    assert answers(full)[-1] == "Quick: 11 of 11 cells, with fewer seeds."


def test_a_paper_that_nothing_is_held_against_has_no_verdict() -> None:
    paper = yaml.safe_load(PAPER)
    paper["tables"] = [{**paper["tables"][0], "published": {"Lion": {0.1: None}}}]
    assert answers(made(yaml.safe_dump(paper, sort_keys=False))) == ["No verdict: nothing was published to hold it to."]
    assert answers(made(PAPER, [], is_quick=True))[0].startswith("Not reproduced: 1 of 2 cells agree")


def test_of_very_many_cells_that_do_not_agree_some_are_named() -> None:
    columns = {f"c{place}": {"where": {"optimizer.lr": 0.01}} for place in range(12)}
    paper = yaml.safe_load(PAPER)
    paper["tables"] = [{**paper["tables"][0], "columns": columns, "published": {"SGD": dict.fromkeys(columns, 9.0)}}]
    paper["figures"] = []
    found = answers(made(yaml.safe_dump(paper, sort_keys=False)))
    assert len(found) == 1 + 8 + 1
    assert found[-1] == "Not reproduced: 4 more, which the tables have."
    assert " in final" not in found[1], "there is one table"


# Names that try to be more


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    paper = yaml.safe_load(PAPER)
    names = [name for name in NAMES if name.strip()]
    paper.update(title=names[0], claim=names[1], gaps=names)
    paper["source"] = {**paper["source"], "authors": names[2], "title": names[7], "where": names[10], "url": names[0]}
    paper["cost"]["machine"] = names[0]
    table = paper["tables"][0]
    table.update(title=names[1], because=names[8])
    table["rows"] = {name: {"where": {"optimizer.name": name}} for name in names}
    table["columns"] = {name: {"where": {"optimizer.lr": 0.01}} for name in names[:3]}
    table["published"] = {name: {names[0]: 0.5, names[1]: {"value": name, "at_most": 0.6}} for name in names}
    paper["claims"] = [{**paper["claims"][0], "id": name, "text": name, "source": name} for name in names]
    for figure in paper["figures"]:
        figure["title"] = names[0]
        figure.pop("points", None)
    losses: dict[tuple[str, float], Any] = {(name, 0.01): (0.5, 0.8) for name in names[:8]}
    records = [*trials(losses), *pairs(names[:2])]
    for place, one in enumerate(records):
        one["environment"] = {"device": names[place % len(names)], "packages": {"torch": names[0]}}
    path = tmp_path_factory.mktemp("hostile") / "reproduction"
    text = yaml.safe_dump(paper, sort_keys=False, allow_unicode=True)
    publish(made(text, records, reasons=names), path, facts=names)
    return path


def test_no_name_becomes_an_element_of_the_page(hostile: Path) -> None:
    found = _Elements((hostile / "reproduction.html").read_text())
    assert found.count.get("script") == 2, "the data and ours"
    assert not found.handlers
    assert not found.count.keys() & {"img", "iframe", "object", "embed", "base", "form", "audio", "video"}


def test_no_name_is_markup_in_any_file(hostile: Path) -> None:
    for path in [hostile / "reproduction.md", *(hostile / "tables").glob("*.md")]:
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
        assert [cell for cell in formulas if cell != "-"] == [], path
    for path in (hostile / "figures").glob("*.svg"):
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.parse(path).iter()}
        assert not tags & {"script", "img", "image", "foreignObject", "a"}, path
    lines = (hostile / "reproduction.tex").read_text().splitlines()
    code = "\n".join(line for line in lines if not line.startswith("%"))
    assert not re.search(r"\\(?:input|write18|frac)\b", code)
    assert code.count(r"\begin{tabular}") == code.count(r"\end{tabular}")


def test_names_of_files_are_plain(hostile: Path) -> None:
    names = json.loads((hostile / MANIFEST).read_text())
    assert all(re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name, flags=re.ASCII) for name in names)


# In a browser


def test_the_page_opens_in_a_browser_and_says_what_came_out(folder: Path, open_page: OpenPage) -> None:
    with open_page(folder / "reproduction.html") as (page, log):
        assert "Rates of three optimizers" in page.locator("h1").inner_text()
        assert page.locator("#of-final table").count() == 3
        assert page.locator("#of-final figure svg").count() == 2
        assert page.locator("#verdict figure svg").count() == 2
        assert "0.5100 ✗" in (page.locator("#of-final table").nth(1).text_content() or "")
        page.locator("#of-final .legend button", has_text="Adam").first.click()
        assert page.locator("#of-final figure").first.locator("svg .off").count() > 0
        width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width <= 0
    assert (log.errors, log.messages, log.dialogs) == ([], [], [])
    assert log.requests == [(folder / "reproduction.html").as_uri()]


def test_no_name_runs_in_a_browser(hostile: Path, open_page: OpenPage) -> None:
    with open_page(hostile / "reproduction.html") as (page, log):
        page.wait_for_timeout(200)
        assert "<script>alert(1)</script>" in (page.locator("body").text_content() or "")
    assert (log.errors, log.messages, log.dialogs) == ([], [], [])
