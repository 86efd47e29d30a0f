"""The tables of a reproduction: what was published beside what was measured, and a verdict in every cell."""

import csv as csv_module
import io
import math
import re
import statistics
from typing import Any

import pytest
import yaml

from optbench.papers.sheets import sheets
from optbench.papers.verdicts import Judgement, Verdict
from optbench.papers.words import (
    claim_verdict,
    figure_words,
    measured_words,
    published_words,
    said_verdict,
    verdict_words,
)
from optbench.sheet import Sheet
from optbench.writing import csv, latex, markdown
from tests.hostile import NAMES
from tests.reproductions import LOSSES, PAPER, made, record, trials

T_OF_THREE = 4.302652729911275  # 97.5 % of Student's distribution with two degrees of freedom
MINIMAL: dict[str, Any] = {
    "name": "small",
    "title": "Small",
    "claim": "It is small.",
    "source": {"authors": "Roe", "title": "Of it", "year": 2019, "url": "https://example.org", "where": "table 1"},
    "cost": {"minutes": 1.0, "machine": "two cores"},
    "tables": [],
}


def paper(*tables: dict[str, Any], **changes: Any) -> str:
    text: str = yaml.safe_dump({**MINIMAL, "tables": list(tables), **changes}, sort_keys=False, allow_unicode=True)
    return text


@pytest.fixture(scope="module")
def found() -> dict[str, Sheet]:
    return {sheet.name: sheet for sheet in sheets(made())}


def rows(sheet: Sheet) -> list[list[str]]:
    return [list(map(str, line)) for line in sheet.words.to_numpy().tolist()]


def cell(sheet: Sheet, row: str, column: str) -> dict[str, Any]:
    words = sheet.words
    (line,) = words[(words["row"] == row) & (words["column"] == column)].to_dict("records")
    return dict(line)


def judgement(verdict: Verdict | None = None, **changes: Any) -> Judgement:
    fields: dict[str, Any] = {"mean": 1.0, "low": 0.9, "high": 1.1, "num_values": 3, **changes}
    return Judgement(verdict=verdict, **fields)


def test_each_table_has_three_sheets_and_the_claims_have_one(found: dict[str, Sheet]) -> None:
    kinds = ("published", "measured", "cells")
    assert list(found) == [*(f"{table}_{kind}" for table in ("final", "sizes") for kind in kinds), "claims"]
    assert all(sheet.words.shape == sheet.keys.shape for sheet in found.values())
    assert all(list(sheet.words) == list(sheet.keys) for sheet in found.values())


def test_what_was_published_is_shown_in_the_shape_that_it_was_published_in(found: dict[str, Sheet]) -> None:
    assert list(found["final_published"].words) == ["row", "0.01", "0.1", "1"]
    assert rows(found["final_published"]) == [
        ["SGD", "0.5 ±0.02", "0.4", "diverges"],
        ["Adam", "0.3", "0.25", "0.9"],
        ["Lion", "0.2", "-", "0.8"],
    ]
    assert found["final_published"].notes == [
        "From table 2, Roe et al. (2019).",
        "±: standard deviation over the source's seeds.",
    ]


def test_what_was_measured_has_the_mean_with_students_interval_and_the_sign_of_its_verdict(
    found: dict[str, Sheet],
) -> None:
    losses = LOSSES["sgd", 0.1]
    values = [value for value in losses if isinstance(value, float)]
    mean, half = statistics.mean(values), T_OF_THREE * statistics.stdev(values) / math.sqrt(3)
    table = rows(found["final_measured"])
    assert table[0][:2] == ["SGD", "0.5000 ✓ [0.4752, 0.5248]"]
    assert table[0][2:] == [f"{mean:.4f} ✗ [{mean - half:.4f}, {mean + half:.4f}]", "diverged ✓"]
    assert table[1] == ["Adam", "0.305 ?", "0.2700 ? [0.1562, 0.3838]", "1 of 3 diverged ✗"]
    assert table[2] == ["Lion", "0.2100 ✓ [0.1852, 0.2348]", "0.3200 [0.2703, 0.3697]", "\N{EN DASH}"]
    assert "Measured on Abacus 3, torch 2.10.0." in found["final_measured"].notes
    assert rows(found["sizes_measured"]) == [["Adam", "2 ✓"], ["Lion", "1 ✗"]]
    assert list(found["sizes_measured"].words) == ["row", "measured"], "a table without columns"


def test_every_cell_has_a_line_with_all_that_there_is_of_it(found: dict[str, Sheet]) -> None:
    sheet = found["final_cells"]
    assert cell(sheet, "SGD", "0.01") == {
        "": "✓",
        "row": "SGD",
        "column": "0.01",
        "published": "0.5 ±0.02",
        "measured": "0.5000 [0.4752, 0.5248]",
        "seeds": "3",
        "allowed": "0.45 to 0.55",
        "verdict": "reproduced",
    }
    verdicts = {(line["row"], line["column"]): line["verdict"] for line in sheet.words.to_dict("records")}
    assert verdicts == {
        ("SGD", "0.01"): "reproduced",
        ("SGD", "0.1"): "not reproduced",
        ("SGD", "1"): "reproduced (3 of 3 diverged)",
        ("Adam", "0.01"): "underpowered: 2 more seeds (a single seed has no spread)",
        ("Adam", "0.1"): "underpowered: 9 more seeds",
        ("Adam", "1"): "not reproduced (1 of 3 diverged)",
        ("Lion", "0.01"): "reproduced",
        ("Lion", "0.1"): "-",
        ("Lion", "1"): "not run: no trials",
    }
    assert sheet.words[""].tolist() == ["✓", "✗", "✓", "?", "?", "✗", "✓", "", "\N{EN DASH}"]
    assert cell(sheet, "Lion", "0.01")["allowed"] == "at most 0.4"
    assert sheet.notes[0] == "Two spreads of the source."
    assert found["sizes_cells"].words["seeds"].tolist() == ["computed", "computed"]
    assert found["sizes_cells"].words["allowed"].tolist() == ["exactly 2", "exactly 2"]


def test_numbers_are_those_of_the_words(found: dict[str, Sheet]) -> None:
    numbers = found["final_cells"].numbers.set_index(["row", "column"])
    assert numbers.loc[("SGD", "0.01"), ["published", "published_spread", "allowed_low", "num_seeds"]].tolist() == [
        *(0.5, 0.02, 0.45, 3)
    ]
    assert numbers.loc[("SGD", "0.1"), "mean"] == pytest.approx(0.51)
    assert numbers.loc[("SGD", "0.1"), "verdict"] == "not reproduced"
    assert bool(numbers.loc[("SGD", "1"), "diverges"])
    assert set(numbers["verdict"]) == {"reproduced", "not reproduced", "underpowered", "not run", ""}
    assert len(found["final_published"].numbers) == len(found["final_measured"].numbers) == 9


def test_claims_are_confirmed_or_refuted(found: dict[str, Sheet]) -> None:
    sheet = found["claims"]
    lines = {line["id"]: line for line in sheet.words.to_dict("records")}
    assert {name: line["verdict"] for name, line in lines.items()} == {
        "C01": "confirmed",
        "C02": "refuted",
        "C03": "underpowered: 81 more seeds",
        "C04": "not run: no trials",
        "C10": "confirmed",
        "C11": "refuted",
        "C12": "not run",
    }
    assert {name: line[""] for name, line in lines.items()} == {
        "C01": "✓",
        "C02": "✗",
        "C03": "?",
        "C04": "\N{EN DASH}",
        "C10": "✓",
        "C11": "✗",
        "C12": "\N{EN DASH}",
    }
    assert lines["C01"]["expected if true"] == "at most 0.4"
    assert lines["C02"]["measured"] == "0.5000 [0.4752, 0.5248]"
    assert lines["C10"]["measured"] == "falls in 0 of 3"
    assert lines["C11"]["source"] == "its authors"
    assert sheet.numbers["verdict"].tolist()[:4] == ["confirmed", "refuted", "underpowered", "not run"]


def test_a_paper_without_claims_has_no_sheet_of_them() -> None:
    table = {"name": "t", "title": "T", "rows": {"a": {}}, "compute": "x", "tolerance": 0.0, "published": {"a": 1.0}}
    assert [sheet.name for sheet in sheets(made(paper(table), [], said=()))] == ["t_published", "t_measured", "t_cells"]


def test_what_a_quick_run_leaves_out_is_named() -> None:
    found = {sheet.name: sheet for sheet in sheets(made(is_quick=True))}
    assert rows(found["final_measured"])[2][-1] == "left out"
    assert cell(found["final_cells"], "Lion", "1")["verdict"] == "left out"
    assert "left out: a quick run does not measure it." in found["final_measured"].notes
    assert found["final_cells"].numbers["verdict"].tolist()[-1] == "left out"
    claims = found["claims"].words.set_index("id")
    assert claims.loc["C04", ["measured", "verdict"]].tolist() == ["left out", "not run"]


def test_a_target_that_is_never_reached_is_never() -> None:
    table = {
        "name": "steps",
        "title": "Steps",
        "because": "seen",
        "figure": "steps_to_target",
        "tolerance": 10.0,
        "rows": {name: {"where": {"optimizer.name": name}} for name in ("sgd", "adam")},
        "published": {"sgd": 80.0, "adam": 50.0},
    }
    records = []
    for name, reached in (("sgd", (None, None)), ("adam", (40, None))):
        for seed, steps in enumerate(reached):
            one = record({"optimizer": {"name": name}}, 0.5, seed=seed)
            records.append({**one, "summary": {"steps_to_target": steps}})
    found = {sheet.name: sheet for sheet in sheets(made(paper(table), records, said=()))}
    assert rows(found["steps_measured"]) == [["sgd", "never ✗"], ["adam", "not by all ✗"]]


def test_columns_and_rows_may_have_any_names() -> None:
    columns = {"row": {"where": {"optimizer.lr": 0.01}}, "column": {"where": {"optimizer.lr": 0.1}}}
    table = {
        "name": "t",
        "title": "T",
        "because": "seen",
        "figure": "test_loss",
        "tolerance": 0.1,
        "columns": columns,
        "rows": {"": {"where": {"optimizer.name": "sgd"}}},
        "published": {"": {"row": 0.5, "column": 0.5}},
    }
    found = sheets(made(paper(table), trials(), said=()))
    assert list(found[0].words) == ["row", "row", "column"]
    for sheet in found:
        assert latex(sheet).count(r"\\") == len(sheet.words) + 1
        assert csv(sheet.numbers)
        assert markdown(sheet)


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_paper_is_more_than_a_name(name: str) -> None:
    table = {
        "name": "t",
        "title": name,
        "because": name or "-",
        "figure": "test_loss",
        "tolerance": 0.1,
        "rows": {name: {"where": {"optimizer.name": "sgd"}}},
        "columns": {name: {"where": {"optimizer.lr": 0.01}}},
        "published": {name: {name: {"value": name, "at_most": 1.0}}},
    }
    claim = {"id": name, "text": name, "source": name, "figure": "test_loss", "value": 1.0, "tolerance": 1.0}
    changes: dict[str, Any] = {"source": {**MINIMAL["source"], "authors": name, "where": name}, "claims": [claim]}
    for sheet in sheets(made(paper(table, **changes))):
        text = markdown(sheet)
        assert not re.search(r"<[a-zA-Z/!]", text)
        assert not re.search(r"(?<!\\)\]\(", text)
        code = "\n".join(line for line in latex(sheet).splitlines() if not line.startswith("%"))
        assert code.count(r"\begin{tabular}") == code.count(r"\end{tabular}") == 1
        assert not re.search(r"(?<!\\textbackslash )\\(?:input|write|frac)", code)
        fields = [field for line in csv_module.reader(io.StringIO(csv(sheet.numbers))) for field in line]
        assert not [field for field in fields if field.lstrip(" ").startswith(("=", "+", "@", "|", "%", "-S", "-2+"))]


@pytest.mark.parametrize(
    ("value", "digits", "words"),
    [
        *((0.9773, 4, "0.9773"), (0.5, 4, "0.5"), (87.3975, 5, "87.397"), (2.0, 4, "2"), (12345.0, 3, "12345")),
        *((0.000012, 3, "1.2e-5"), (-3.25, 3, "-3.25"), (None, 4, "-"), ("lower", 4, "lower"), (math.inf, 4, "never")),
        *((0.0, 4, "0"), (2.5e12, 3, "2.5e12")),
    ],
)
def test_a_figure_has_no_more_digits_than_are_asked_for(value: float | str | None, digits: int, words: str) -> None:
    assert figure_words(value, digits) == words


@pytest.mark.parametrize(
    ("mean", "low", "high", "words"),
    [
        (0.97731, 0.97602, 0.97859, "0.9773 [0.9760, 0.9786]"),
        (1.0, 0.9987, 1.0013, "1.000 [0.999, 1.001]"),
        (0.001, -5.0, 5.002, "0.001 [-5.000, 5.002]"),
        (12345.6, 12000.0, 12691.2, "12346 [12000, 12691]"),
        (0.0, -0.00001, 0.00001, "0.000 [-1.000e-5, 1.000e-5]"),
        (0.75257, 0.752569, 0.752571, "0.7526"),
        (1e-5, 0.0, 0.5, "0.0000 [0.0000, 0.5000]"),
        (-0.00001, -0.5, 0.49998, "0.0000 [-0.5000, 0.5000]"),
    ],
)
def test_the_ends_of_an_interval_have_the_decimals_of_the_mean(
    mean: float, low: float, high: float, words: str
) -> None:
    assert measured_words(judgement(mean=mean, low=low, high=high), 4) == words


def test_every_verdict_has_its_words() -> None:
    assert verdict_words(None) == "left out"
    assert verdict_words(judgement()) == "-"
    assert verdict_words(judgement(note="2 crashed")) == "2 crashed"
    assert verdict_words(judgement(Verdict.REPRODUCED, note="1 crashed")) == "reproduced (1 crashed)"
    assert verdict_words(judgement(Verdict.UNDERPOWERED)) == "underpowered: more than 1000 seeds"
    assert verdict_words(judgement(Verdict.UNDERPOWERED, more_seeds=1)) == "underpowered: 1 more seed"
    assert [claim_verdict(judgement(verdict)) for verdict in Verdict] == [
        *("confirmed", "refuted", "underpowered", "not run")
    ]
    assert claim_verdict(None) == "not run"
    assert [said_verdict(word) for word in ("holds", "does not hold", "not measured")] == [
        *("confirmed", "refuted", "not run")
    ]


def test_a_word_that_was_published_is_shown() -> None:
    own = [one.cell.check for one in made(PAPER.replace("0.1: 0.4,", "0.1: falls,")).cells]
    assert published_words(own[1], 4) == "falls"
