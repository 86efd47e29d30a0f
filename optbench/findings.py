"""What an experiment says before its trials, and shows after them: claims with verdicts, and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from optbench import curve_claims, figures
from optbench.store import Store
from optbench.terminal import rich_table
from optbench.writing import csv, markdown_table, markdown_text

TITLE = "what is said, and what was measured"


def check(asked: Mapping[str, Any]) -> None:
    """Check the claims and figures of an experiment.

    Raises:
        UsageError: a key is missing or unknown, or has a value that it cannot have.
    """
    curve_claims.curve_claims(asked.get("claims"))
    figures.figures(asked.get("figures"))


def show(store: Store, asked: Mapping[str, Any], *, ids: Sequence[str], page: Console) -> list[Path]:
    """Print the claims about these trials, and draw the pictures of them.

    Args:
        store: where the trials are.
        asked: claims and figures.
        ids: of the trials.
        page: to print on.

    Returns:
        The files written.
    """
    records = [record for trial_id in ids if (record := store.read(trial_id)) is not None]
    written = []
    if claims := curve_claims.curve_claims(asked.get("claims")):
        content = curve_claims.table(claims, records)
        page.print(rich_table(content, title=TITLE))
        sources = list(dict.fromkeys(f"{claim.id}: {claim.source}." for claim in claims))
        for source in sources:
            page.print(f"[dim]{escape(source)}[/]")
        text = (
            "\n".join(
                [f"## {TITLE}\n", markdown_table(content), "", *(f"- {markdown_text(source)}" for source in sources)]
            )
            + "\n"
        )
        written += [store.write("claims.md", text), store.write("claims.csv", csv(content))]
    for figure in figures.figures(asked.get("figures")):
        written += figures.draw(figure, records, store)
    return written
