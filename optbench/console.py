"""Where people read: one console for everything that is printed."""

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


def show_choices(group: str, entries: Sequence[Entry]) -> None:
    """The options of a config group, a line each."""
    conventions = list(dict.fromkeys(name for entry in entries for name in entry.conventions))
    table = Table(title=f"{group}=", title_justify="left", box=box.SIMPLE_HEAD)
    for name in (group, "what", *(name.replace("_", " ") for name in conventions)):
        table.add_column(name, no_wrap=name in (group, "what"))
    for entry in entries:
        cells = (entry.name, entry.description, *(entry.conventions.get(name, "") for name in conventions))
        table.add_row(*map(escape, cells))
    console().print(table)
