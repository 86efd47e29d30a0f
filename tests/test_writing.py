"""Tables as Markdown, CSV and LaTeX: what is shown is what is there, and no name is more than a name."""

import csv as csv_module
import io
import re

import pandas as pd
import pytest

from optbench.sheet import Sheet
from optbench.writing import csv, inert, latex, markdown, markdown_table, markdown_text
from tests.hostile import NAMES


def sheet_of(*names: str) -> Sheet:
    """A table whose column, cells, title and notes are these names."""
    words = pd.DataFrame({"optimizer": list(names), names[0] or "empty": ["97.5 % [97.1, 98.0]"] * len(names)})
    keys = pd.DataFrame({name: words[name] for name in words}, dtype=object)
    return Sheet(name="best", title=names[0], words=words, keys=keys, numbers=words, notes=list(names))


@pytest.mark.parametrize("name", NAMES)
def test_no_name_becomes_markup_in_markdown(name: str) -> None:
    text = markdown(sheet_of(name))
    assert not re.search(r"<[a-zA-Z/!]", text), "an element"
    assert not re.search(r"(?<!\\)\]\(", text), "a link or a picture"
    assert not re.search(r"^[-\s]*\[[^\]]*\]:", text, flags=re.MULTILINE), "what a link refers to"
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", text)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 3
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {3}, "two columns in every line"


@pytest.mark.parametrize("name", NAMES)
def test_no_name_becomes_a_formula_in_a_spreadsheet(name: str) -> None:
    cells = [cell for row in csv_module.reader(io.StringIO(csv(sheet_of(name).numbers))) for cell in row]
    assert len(cells) == 4
    assert not [cell for cell in cells if cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n", "|", "%"))]


def test_a_number_below_zero_stays_a_number() -> None:
    assert [inert(-1.5), inert(-3), inert(None)] == [-1.5, -3, None]
    assert csv(pd.DataFrame({"difference": [-1.5, 2.0]})) == "difference\n-1.5\n2.0\n"


# Commands and signs that may be in a table of ours.
_OURS = r"\\(?:toprule|midrule|bottomrule|(?:begin|end)\{tabular\}|textbackslash|textasciitilde|textasciicircum|space)"
_SIGNS = r"\\(?:star|times|pm|textless|textgreater|[&%$#_{}\\])"


@pytest.mark.parametrize("name", NAMES)
def test_no_name_becomes_a_command_in_latex(name: str) -> None:
    text = latex(sheet_of(name))
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert all(line.startswith(("%", "\\", "}")) or " & " in line for line in text.splitlines()), "no line of its own"
    rest = re.sub(_SIGNS, "", re.sub(_OURS, "", code))
    assert "\\" not in rest, "a command of the name's"
    assert code.count(r"\begin{tabular}") == code.count(r"\end{tabular}") == 1
    bare = re.sub(r"\$\\[a-z]+\$", "", re.sub(r"\\[&%$#_{}]", "", code))
    assert not set("#$_%^~") & set(bare), "a sign with a meaning"
    assert len([line for line in code.splitlines() if line.endswith(r"\\")]) == 2


def test_latex_has_the_rules_of_booktabs_and_numbers_on_the_right() -> None:
    words = pd.DataFrame({"": ["★", "="], "optimizer": ["lion", "adam_w"], "loss": ["1.5 ±0.1", "<2"]})
    keys = pd.DataFrame({"": [0, 1], "optimizer": ["lion", "adam_w"], "loss": [1.5, 2.0]}, dtype=object)
    text = latex(Sheet(name="best", title="best", words=words, keys=keys, numbers=words))
    assert text.splitlines()[2:] == [
        r"\begin{tabular}{rlr}",
        r"\toprule",
        r" & optimizer & loss \\",
        r"\midrule",
        r"$\star$ & lion & 1.5 $\pm$0.1 \\",
        r"= & adam\_w & \textless{}2 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


@pytest.mark.parametrize("name", [name for name in NAMES if name.strip() and "\n" not in name and "\x1b" not in name])
def test_a_reader_of_markdown_sees_the_name(name: str) -> None:
    """As GitHub would show it: escapes and entities undone."""
    shown = re.sub(r"\\([\\|(:])", r"\1", markdown_text(name)).replace("&lt;", "<").replace("&amp;", "&")
    assert shown == " ".join(name.split())


def test_an_interval_is_left_as_it_is() -> None:
    assert markdown_text("97.5 % [97.1, 98.0]") == "97.5 % [97.1, 98.0]"


def test_columns_are_as_wide_as_what_is_in_them() -> None:
    text = markdown_table(pd.DataFrame({"a": ["1"], "optimizer": ["lion"]}))
    assert text == "| a | optimizer |\n| --- | --------- |\n| 1 | lion      |"
