"""Where people read: one console for everything that is printed."""

import re
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from optbench.catalogue import Entry

WIDTH_OF_A_FILE = 160  # where output is no terminal, nothing is gained by folding lines


def console(*, stderr: bool = False) -> Console:
    """The terminal, or a wide page where the output goes to a file or pipe."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=WIDTH_OF_A_FILE, height=100)


def warn(message: str) -> None:
    """A line on standard error."""
    console(stderr=True).print(f"[yellow]warning:[/] {escape(message)}", soft_wrap=True)


def show_optimizers(entries: Sequence[Entry]) -> None:
    """The catalogue of optimizers: what each is, keeps, means and needs."""
    table = Table(title="optimizer=", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("optimizer", "package", "state\n(B/param)", "momentum", "weight decay", "eps", "needs", "source"):
        table.add_column(
            name,
            justify="right" if name.startswith("state") else "left",
            no_wrap=name == "optimizer",
            overflow="fold" if name == "source" else "ellipsis",
        )
    for entry in entries:
        state, conventions = entry.state_bytes_per_parameter, entry.conventions
        table.add_row(
            *map(escape, (entry.name, entry.package, "" if state is None else f"{state:.4g}")),
            *(escape(_without_parentheses(conventions.get(name, ""))) for name in ("momentum", "weight_decay", "eps")),
            ", ".join(entry.capabilities).replace("_", " "),
            escape(entry.source.replace("https://arxiv.org/abs/", "arXiv:").removeprefix("https://")),
        )
    console().print(table)
    console().print(
        "state: bytes of optimizer state per trained parameter, in float32, on an MLP 784-100-100-10.\n"
        "needs: what the training loop does for it. docs/optimizers.md says more.",
        soft_wrap=True,
    )


def _without_parentheses(text: str) -> str:
    return re.sub(r" *\([^)]*\)", "", text)


def show_choices(group: str, entries: Sequence[Entry]) -> None:
    """The options of a config group, a line each."""
    table = Table(title=f"{group}=", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(group, no_wrap=True)
    table.add_column("what")
    for entry in entries:
        table.add_row(escape(entry.name), escape(entry.description))
    console().print(table)
