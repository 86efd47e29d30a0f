"""Files of a group that no config is composed of, such as papers: of optbench, and of a folder of configs."""

from collections.abc import Callable, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Protocol, TypeVar

from optbench.errors import UsageError, unknown


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


def names(group: str, folder: Path | None = None) -> list[str]:
    """The names of all files of the group.

    Args:
        group: its folder's name.
        folder: of configs, whose group counts too; None takes those that come with optbench.
    """
    return sorted({name for name, _ in _files(group, folder)})


def find(group: str, name: str, read: Callable[[str, str], T], *, folder: Path | None = None, kind: str = "") -> T:
    """What is read from a file; one of the folder comes before one of optbench.

    Args:
        group: its folder's name.
        name: of the file.
        read: makes something of its text, and of the words that name it in messages.
        folder: of configs.
        kind: what it is called in messages; the group's name, unless it is given.

    Raises:
        UsageError: there is none of that name, or its file is wrong.
    """
    for other, file in _files(group, folder):
        if other == name:
            where = str(file) if folder else f"conf/{group}/{name}.yaml"
            try:
                found = read(file.read_text(encoding="utf-8"), where)
            except UnicodeDecodeError as error:
                raise UsageError(f"{where}: it is no text in UTF-8 ({error.reason}).") from error
            if found.name != name:
                raise UsageError(
                    f"{where}: name={found.name} is another than that of the file; they have to be the same."
                )
            return found
    raise unknown(kind or group, name, names(group, folder))


def _files(group: str, folder: Path | None) -> Iterator[tuple[str, Traversable]]:
    own: list[Traversable] = [] if folder is None else [folder]
    for place in (*own, files("optbench.conf")):
        shelf = place.joinpath(group)
        if shelf.is_dir():
            for file in sorted(shelf.iterdir(), key=lambda file: file.name):
                if file.name.endswith(".yaml"):
                    yield file.name.removesuffix(".yaml"), file
