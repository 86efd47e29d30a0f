"""Where people read: one console for everything that is printed."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from optbench.catalogue import SUITE, Entry

WIDTH_OF_ALL_COLUMNS = 120
WIDTH_OF_A_FILE = 160  # where output is no terminal, nothing is gained by folding lines


def console(*, stderr: bool = False) -> Console:
    """The terminal, or a wide page where the output goes to a file or pipe."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=WIDTH_OF_A_FILE, height=100)


def warn(message: str) -> None:
    """A line on standard error."""
    console(stderr=True).print(f"[yellow]warning:[/] {escape(message)}", soft_wrap=True)


def note(message: str) -> None:
    """A line on standard error of what is being done."""
    console(stderr=True).print(f"[dim]{escape(message)}[/]", soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A column of the catalogue of optimizers."""

    title: str
    cell: Callable[[Entry], str]
    justify: Literal["left", "right"] = "left"
    no_wrap: bool = False
    overflow: Literal["ellipsis", "fold"] = "ellipsis"
    is_essential: bool = False


def _convention(name: str) -> Callable[[Entry], str]:
    return lambda entry: _without_parentheses(entry.conventions.get(name, ""))


def _state(entry: Entry) -> str:
    return "" if entry.state_bytes_per_parameter is None else f"{entry.state_bytes_per_parameter:.4g}"


_COLUMNS = (
    _Column(title="optimizer", cell=lambda entry: entry.name, no_wrap=True, is_essential=True),
    _Column(title="package", cell=lambda entry: entry.package, overflow="fold", is_essential=True),
    _Column(title="state\n(B/param)", cell=_state, justify="right", is_essential=True),
    _Column(title="momentum", cell=_convention("momentum")),
    _Column(title="weight decay", cell=_convention("weight_decay")),
    _Column(title="eps", cell=_convention("eps")),
    _Column(title="needs", cell=lambda entry: ", ".join(entry.capabilities).replace("_", " "), is_essential=True),
    _Column(
        title="source",
        cell=lambda entry: entry.source.replace("https://arxiv.org/abs/", "arXiv:").removeprefix("https://"),
        overflow="fold",
    ),
)


def show_optimizers(entries: Sequence[Entry]) -> None:
    """The catalogue of optimizers: what each is, keeps, means and needs; without what it means on a narrow page."""
    page = console()
    columns = [column for column in _COLUMNS if column.is_essential or page.width >= WIDTH_OF_ALL_COLUMNS]
    table = Table(title="optimizer=", title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column.title, justify=column.justify, no_wrap=column.no_wrap, overflow=column.overflow)
    for entry in entries:
        table.add_row(*(escape(column.cell(entry)) for column in columns))
    page.print(table)
    page.print(
        "state: bytes of optimizer state per trained parameter, in float32, on an MLP 784-100-100-10.\n"
        "needs: what the training loop does for it. docs/optimizers.md says more.",
        soft_wrap=True,
    )


def _without_parentheses(text: str) -> str:
    return re.sub(r" *\([^)]*\)", "", text)


def show_choices(group: str, entries: Sequence[Entry]) -> None:
    """The options of a config group, or the suites, a line each."""
    key = "suite" if group == SUITE else group
    table = Table(title=f"{key}=", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(key, no_wrap=True)
    table.add_column("what")
    for entry in entries:
        table.add_row(escape(entry.name), escape(entry.description))
    console().print(table)
