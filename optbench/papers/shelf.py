"""Where papers' files are: those that come with optbench, and those of a folder of configs."""

from collections.abc import Sequence
from pathlib import Path

from optbench import shelf
from optbench.catalogue import PAPER
from optbench.errors import UsageError
from optbench.papers.paper import Paper
from optbench.papers.reading import read


def names(folder: Path | None = None) -> list[str]:
    """The names of all papers.

    Args:
        folder: of configs, whose `paper/` counts too; None takes those that come with optbench.
    """
    return shelf.names(PAPER, folder)


def find(name: str, folder: Path | None = None) -> Paper:
    """A paper by its name; one of the folder comes before one of optbench.

    Raises:
        UsageError: there is none of that name, or its file is wrong.
    """
    return shelf.find(PAPER, name, lambda text, where: read(text, where=where), folder=folder)


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of papers, typed as `name`, `name,name` or `paper=name,name`, and what else was typed, such as overrides.

    Raises:
        UsageError: no name follows `paper=`.
    """
    found, others = [], []
    for word in words:
        key, equals, value = word.partition("=")
        if (equals and key != PAPER) or word.startswith(("+", "~")):
            others.append(word)
            continue
        named = [name for name in (value if equals else word).strip("[]").split(",") if name.strip()]
        if not named:
            raise UsageError(f"{word}: no name of a paper. optbench list papers shows them.")
        found += [name.strip() for name in named]
    return list(dict.fromkeys(found)), others


def all_papers() -> Sequence[Paper]:
    """Those that come with optbench."""
    return [find(name) for name in names()]
