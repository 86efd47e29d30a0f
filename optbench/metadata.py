"""A folder of images with a caption for each, in Hugging Face's convention: `metadata.jsonl` or `metadata.csv`."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optbench.errors import UsageError

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_NAMES = ("metadata.jsonl", "metadata.csv")
_MAX_NAMED = 10


def refuse(problems: Sequence[str], *, where: str) -> None:
    """Say what is wrong with rows and images, if anything is: the first ten, and how many more.

    Args:
        problems: a line for each.
        where: what they are in.

    Raises:
        UsageError: there are any.
    """
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems[:_MAX_NAMED])
        more = f"\n  and {len(problems) - _MAX_NAMED} more" if len(problems) > _MAX_NAMED else ""
        raise UsageError(f"{where}: images and captions do not match; repair or remove:\n{listed}{more}")


def find_metadata(folder: Path) -> Path | None:
    """The file with the captions, if the folder has one."""
    return next((folder / name for name in _NAMES if (folder / name).is_file()), None)


def read_rows(folder: Path, *, column: str, caption: str | None) -> list[tuple[Path, str]]:
    """The images of a folder with their captions, in the order of the metadata or, with one caption, of their names.

    Args:
        folder: hidden files and those that are no images are passed over.
        column: of the metadata, holds the captions.
        caption: of all images, whatever the metadata say; None takes theirs.

    Raises:
        UsageError: there is no image or no metadata, or a row and its image do not match; names the rows.
    """
    images = {
        file.relative_to(folder).as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in _SUFFIXES and file.is_file() and not file.name.startswith(".")
    }
    if not images:
        raise UsageError(f"data.path: {folder} holds no images ({', '.join(_SUFFIXES)}).")
    if caption is not None:
        return [(file, caption) for file in images.values()]
    metadata = find_metadata(folder)
    if metadata is None:
        raise UsageError(
            f"data.path: {folder} has no {' or '.join(_NAMES)}.\nAdd one, with a line for each image, such as\n"
            f'  {{"file_name": "{next(iter(images))}", "{column}": "a photo of a dog"}}\n'
            "or give all images one caption: data.caption='a photo of sks dog'."
        )
    problems: list[str] = []
    captions: dict[str, str] = {}
    columns: set[str] = set()
    for line, row in _lines(metadata, problems):
        name, text = row.get("file_name"), row.get(column)
        columns |= row.keys()
        place = f"{metadata.name} line {line}"
        if not isinstance(name, str) or not name:
            problems.append(f"{place} has no file_name")
        elif name not in images:
            problems.append(f"{place}: there is no image {name}")
        elif name in captions:
            problems.append(f"{place}: {name} has a caption already")
        else:
            captions[name] = text.strip() if isinstance(text, str) else ""
            if not captions[name]:
                problems.append(f"{place}: {name} has no caption in {column!r}")
    if captions and column not in columns:
        raise UsageError(
            f"{metadata} has no column {column!r}. It has: {', '.join(sorted(map(str, columns)))}.\n"
            "Name the one with the captions: data.caption_column=..."
        )
    problems += [f"{name} has no line in {metadata.name}" for name in images if name not in captions]
    refuse(problems, where=f"data.path={folder}")
    return [(images[name], text) for name, text in captions.items()]


def _lines(metadata: Path, problems: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows with the numbers of their lines; what is none is added to the problems."""
    try:
        text = metadata.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{metadata} is no text in UTF-8 ({error}).") from error
    if metadata.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        for values in reader:
            yield reader.line_num, values
        return
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except ValueError as error:
            problems.append(f"{metadata.name} line {line} is no JSON ({error})")
            continue
        if isinstance(row, Mapping):
            yield line, row
        else:
            problems.append(f"{metadata.name} line {line} is no object with file_name and a caption")
