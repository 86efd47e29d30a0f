"""Where papers' files are: those that come with optbench, and those of a folder of configs."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from optbench.catalogue import PAPER
from optbench.errors import UsageError, unknown
from optbench.papers.paper import Paper
from optbench.papers.reading import read


def names(folder: Path | None = None) -> list[str]:
    """The names of all papers.

    Args:
        folder: of configs, whose `paper/` counts too; None takes those that come with optbench.
    """
    return sorted({name for name, _ in _files(folder)})


def find(name: str, folder: Path | None = None) -> Paper:
    """A paper by its name; one of the folder comes before one of optbench.

    Raises:
        UsageError: there is none of that name, or its file is wrong.
    """
    for other, file in _files(folder):
        if other == name:
            where = str(file) if folder else f"conf/{PAPER}/{name}.yaml"
            try:
                paper = read(file.read_text(encoding="utf-8"), where=where)
            except UnicodeDecodeError as error:
                raise UsageError(f"{where}: it is no text in UTF-8 ({error.reason}).") from error
            if paper.name != name:
                raise UsageError(
                    f"{where}: name={paper.name} is another than that of the file; they have to be the same."
                )
            return paper
    raise unknown(PAPER, name, names(folder))


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


def _files(folder: Path | None) -> Iterator[tuple[str, Traversable]]:
    own: list[Traversable] = [] if folder is None else [folder]
    for place in (*own, files("optbench.conf")):
        shelf = place.joinpath(PAPER)
        if shelf.is_dir():
            for file in sorted(shelf.iterdir(), key=lambda file: file.name):
                if file.name.endswith(".yaml"):
                    yield file.name.removesuffix(".yaml"), file
