"""`optbench list papers`: what can be reproduced, from where, and what it costs."""

import pandas as pd

from optbench.console import console
from optbench.papers.claims import checks_of
from optbench.papers.paper import Paper
from optbench.papers.shelf import all_papers
from optbench.papers.words import cited
from optbench.terminal import rich_table
from optbench.writing import markdown_table


def show() -> None:
    """Print the list."""
    lines = [
        {"paper": paper.name, "what": paper.title, "cells": str(_num_cells(paper)), "cost": _cost(paper)}
        for paper in all_papers()
    ]
    console().print(rich_table(pd.DataFrame(lines), title="optbench reproduce <paper>"))


def page() -> str:
    """The list as docs/papers.md."""
    lines = [
        {
            "paper": f"[`{paper.name}`](../conf/paper/{paper.name}.yaml)",
            "what": paper.title,
            "source": f"[{cited(paper.source)}]({paper.source.url})",
            "cells": str(_num_cells(paper)),
            "claims": " ".join(sorted(set(checks_of(paper)))),
            "cost": _cost(paper),
        }
        for paper in all_papers()
    ]
    return "\n".join(
        [
            "# Papers\n",
            "`optbench reproduce <paper>` runs one, and holds its tables against ours: [reproduce.md](reproduce.md). "
            "This page is `optbench list papers --markdown`. *Cells* are those that are judged. Minutes were measured: "
            "by the clock where the whole was run on two idle cores, else as processor time over two; those of a quick "
            "subset are in brackets.\n",
            markdown_table(pd.DataFrame(lines)).replace("]\\(", "]("),
            "",
        ]
    )


def _num_cells(paper: Paper) -> int:
    return sum(cell.check.is_judged for table in paper.tables for cell in table.cells)


def _cost(paper: Paper) -> str:
    minutes = "not measured" if paper.minutes is None else f"{paper.minutes:g} min"
    quick = "" if paper.quick_minutes is None else f" ({paper.quick_minutes:g})"
    return f"{minutes}{quick}, {paper.machine}"
