"""What takes long and comes out the same each time, such as training a base model: made once, and kept in the cache."""

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from optbench.errors import UsageError
from optbench.hub import cache_folder

CONTENTS = "contents.json"

_log = logging.getLogger("optbench")


def cached(name: str, recipe: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """The folder that this recipe makes: made once, whole or absent, whatever happens meanwhile.

    It lies in the user's cache folder (`XDG_CACHE_HOME`, or else `~/.cache`) under the name and the hash of the
    recipe. A folder in which a file is missing or is not the one that was made is made again. Of several processes
    that ask at once one makes it, and the others wait.

    Args:
        name: for people; the first part of the folder's name.
        recipe: all that decides what comes out, as JSON has it.
        make: fills an empty folder; what it raises is raised here, and nothing is kept.

    Returns:
        The folder, with what `make` put there and a list of it, `contents.json`. It is not to be changed.

    Raises:
        UsageError: the cache cannot be written to.
    """
    written = json.dumps({"name": name, **recipe}, sort_keys=True, allow_nan=False)
    cache = cache_folder()
    folder = cache / f"{name}-{hashlib.sha256(written.encode()).hexdigest()[:16]}"
    if _is_whole(folder):  # looked at first without the lock: a cache that is there may be read-only
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f"{folder.name}.lock"), name):
            if not _is_whole(folder):
                _make(folder, make)
    except OSError as error:
        raise UsageError(
            f"{name} cannot be made in {cache}: {error}.\nName a folder with space that can be written to: "
            "XDG_CACHE_HOME=<folder> in the environment."
        ) from error
    return folder


def _locked(path: Path, name: str) -> AbstractContextManager[object]:
    """The lock, which is had until the `with` block ends."""
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        _log.info("waiting for another process, which is making %s", name)
        return lock.acquire()


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    """Fill a folder beside the one that is asked for, and rename it when it is whole."""
    for abandoned in folder.parent.glob(f"{folder.name}.*.partial"):  # who made them had the lock, and died
        shutil.rmtree(abandoned, ignore_errors=True)
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir()
    try:
        make(partial)
        (partial / CONTENTS).write_text(json.dumps(_contents(partial), indent=1, sort_keys=True))
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    with suppress(OSError, ValueError):
        return bool(json.loads((folder / CONTENTS).read_text()) == _contents(folder))
    return False


def _contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file, by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / CONTENTS
    }
