"""What can be chosen, in the terminal and on the page of docs/."""

from pathlib import Path

import pytest

from optbench.catalogue import Entry, entries
from optbench.cli import main
from optbench.pages import optimizers_page
from optbench.papers.claims import listed as listed_claims

DOCS = Path(__file__).parent.parent / "docs"


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["list", *arguments])
    assert caught.value.code in (0, None), capsys.readouterr().err
    return capsys.readouterr().out


def test_the_page_of_optimizers_is_what_the_files_say() -> None:
    stored = (DOCS / "optimizers.md").read_text()
    assert stored == optimizers_page(), "stale: make docs"


def test_the_page_of_papers_is_what_the_files_say(capsys: pytest.CaptureFixture[str]) -> None:
    stored = (DOCS / "papers.md").read_text()
    assert stored == listed(capsys, "papers", "--markdown"), "stale: make docs"


def test_the_page_of_claims_has_each_with_the_command_that_measures_it(tmp_path: Path) -> None:
    lines = {line.split("|")[1].strip(): line for line in (DOCS / "claims.md").read_text().splitlines() if "|" in line}
    for claim in listed_claims(tmp_path):
        assert claim.command in lines[claim.id], f"{claim.id}: optbench claims --markdown > docs/claims.md"


def test_the_page_has_a_row_for_every_optimizer_and_preset() -> None:
    page = optimizers_page()
    for entry in entries("optimizer"):
        assert f"`{entry.name}`" in page
    assert all(
        line.count("|") - line.count(chr(92) + "|") == 9 for line in page.splitlines() if line.startswith("| [`")
    )


def test_the_list_of_optimizers_says_what_each_is_keeps_means_and_needs(capsys: pytest.CaptureFixture[str]) -> None:
    output = listed(capsys, "optimizers")
    for column in ("optimizer", "package", "(B/param)", "momentum", "weight decay", "eps", "needs", "source"):
        assert column in output
    (adamw,) = [line for line in output.splitlines() if line.split()[:1] == ["adamw"]]
    for word in ("torch.optim", " 8 ", "averages", "times lr", "arXiv:1711"):
        assert word in adamw
    (muon,) = [line for line in output.splitlines() if line.split()[:1] == ["muon"]]
    assert "matrices only" in muon
    assert "preset/llama2" in output


def test_the_same_page_is_printed_as_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys, "optimizers", "--markdown") == optimizers_page()


def test_presets_are_listed_after_the_optimizers(capsys: pytest.CaptureFixture[str]) -> None:
    output = listed(capsys, "optimizer")
    assert output.index("sophia") < output.index("preset/bloom")


@pytest.mark.parametrize("columns", ["80", "100", "119"])
def test_on_a_narrow_terminal_every_name_package_and_need_is_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", columns)
    output = listed(capsys, "optimizers").partition("state: bytes")[0]
    for column in ("optimizer", "package", "(B/param)", "needs"):
        assert column in output
    for column in ("averages", "weight decay", "source", "…"):
        assert column not in output
    for entry in entries("optimizer"):
        if "/" not in entry.name:
            (line,) = [line for line in output.splitlines() if line.split()[:1] == [entry.name]]
            assert entry.package in line
            assert line.rstrip().endswith(", ".join(entry.capabilities).replace("_", " "))


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (
            "Polyak (1964), https://doi.org/10.1016/0041-5553(64)90137-5. Then",
            "https://doi.org/10.1016/0041-5553(64)90137-5",
        ),
        ("Some (2020, https://arxiv.org/abs/1234.56789), and", "https://arxiv.org/abs/1234.56789"),
        ("None at all", ""),
    ],
)
def test_a_source_ends_where_its_address_does(header: str, source: str) -> None:
    assert Entry(name="x", description="", header=header, config={}).source == source


def test_a_link_of_the_page_has_no_bare_parenthesis() -> None:
    assert "[source](https://doi.org/10.1016/0041-5553%2864%2990137-5)" in optimizers_page()
