"""What can be chosen, in the terminal and on the page of docs/."""

from pathlib import Path

import pytest

from optbench.catalogue import entries
from optbench.cli import main
from optbench.pages import optimizers_page

DOCS = Path(__file__).parent.parent / "docs"


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["list", *arguments])
    assert caught.value.code in (0, None), capsys.readouterr().err
    return capsys.readouterr().out


def test_the_page_of_optimizers_is_what_the_files_say() -> None:
    stored = (DOCS / "optimizers.md").read_text()
    assert stored == optimizers_page(), "stale: make docs"


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
