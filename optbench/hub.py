"""Files of data sets: from a folder, or else from the Hugging Face hub; and what was decoded from them, kept."""

import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optbench.errors import UsageError

DATA_VARIABLE = "OPTBENCH_DATA"

_log = logging.getLogger("optbench")


def local_folder(path: str | None) -> Path | None:
    """The folder `path`, or else the one that the environment variable OPTBENCH_DATA names; None is the hub."""
    folder = path or os.environ.get(DATA_VARIABLE)
    return Path(folder).expanduser() if folder else None


def named(folder: Path, *, path: str | None) -> str:
    """How a local folder was given, for messages: `data.path=<folder>` or `OPTBENCH_DATA=<folder>`."""
    return f"data.path={folder}" if path is not None else f"{DATA_VARIABLE}={folder}"


def find(candidates: Sequence[Path], *, what: str, source: str) -> Path:
    """The first of these files that there is.

    Args:
        candidates: where it may be.
        what: it is, for the message: "train split of ylecun/mnist".
        source: what the user gave, see `named`.

    Raises:
        UsageError: there is none; names all of them.
    """
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = "\n".join(f"  {candidate}" for candidate in candidates)
    raise UsageError(f"{source} has no {what}. Looked for:\n{looked}")


def download(
    repo: str,
    files: Iterable[str],
    *,
    revision: str,
    ways_out: str,
    repo_type: Literal["dataset", "model"] = "dataset",
) -> list[Path]:
    """Files of a repository on the hub, which the hub's client keeps in its own cache.

    Args:
        repo: `owner/name`.
        files: their paths in it.
        revision: the commit, branch or tag.
        ways_out: what else the user can do, said after the reason.
        repo_type: what kind of repository.

    Raises:
        UsageError: it cannot be had; says why, and the ways out.
    """
    from huggingface_hub import hf_hub_download

    return [
        Path(file)
        for file in _asked(
            lambda: [hf_hub_download(repo, file, repo_type=repo_type, revision=revision) for file in files],
            repo=repo,
            ways_out=ways_out,
        )
    ]


def list_files(
    repo: str, pattern: str, *, revision: str, ways_out: str, repo_type: Literal["dataset", "model"] = "dataset"
) -> list[str]:
    """The paths in a repository on the hub that match a pattern such as `default/train/*.parquet`, sorted.

    Raises:
        UsageError: the hub cannot be asked, or has none that match; the message ends with what there is.
    """
    from huggingface_hub import HfApi

    names = _asked(
        lambda: HfApi().list_repo_files(repo, repo_type=repo_type, revision=revision), repo=repo, ways_out=ways_out
    )
    found = sorted(name for name in names if fnmatch(name, pattern))
    if not found:
        folders = sorted({str(Path(name).parent) for name in names if name.endswith(Path(pattern).suffix)})
        raise UsageError(
            f"{repo} at {revision} has no file {pattern}.\n"
            f"Folders with {Path(pattern).suffix} files: {', '.join(folders) or 'none'}."
        )
    return found


@cache
def snapshot(repo: str, *, revision: str, patterns: tuple[str, ...], ways_out: str) -> Path:
    """The folder of a model's repository, as the hub's client keeps it, with those files that match a pattern.

    Raises:
        UsageError: it cannot be had; says why, and the ways out.
    """
    from huggingface_hub import snapshot_download

    def ask() -> list[str]:
        get = partial(snapshot_download, repo, revision=revision, allow_patterns=list(patterns))
        try:
            get(local_files_only=True)
        except Exception:  # several libraries' errors, which say again what the next line finds
            _log.info("downloading %s from the Hugging Face hub, once", repo)
        return [get()]  # what is there is checked to be whole, as far as the hub can be asked

    return Path(_asked(ask, repo=repo, ways_out=ways_out)[0])


def split_files(repo: str, split: str, *, config: str, revision: str, path: str | None, otherwise: str) -> list[Path]:
    """The Parquet files of a split, in the layout of the hub's own conversion: `<config>/<split>/*.parquet`.

    Args:
        repo: the data set, `owner/name`.
        split: train, test, ...
        config: of the data set; most have `default` alone.
        revision: the commit or branch to download.
        path: a local folder; None is the one of OPTBENCH_DATA, or else the hub.
        otherwise: what the user can do without network and copy, for the message.

    Raises:
        UsageError: they are not there, or cannot be had; names the ways out.
    """
    ways_out = (
        f"With a local copy in the same layout (<folder>/{config}/{split}/*.parquet): data.path=<folder>, or "
        f"{DATA_VARIABLE}=<folder> in the environment.\n"
        f"To get one: hf download {repo} --repo-type dataset --revision {revision} --local-dir <folder>\n"
        f"Without network or copy: {otherwise}"
    )
    folder = local_folder(path)
    if folder is None:
        names = list_files(repo, f"{config}/{split}/*.parquet", revision=revision, ways_out=ways_out)
        return download(repo, names, revision=revision, ways_out=ways_out)
    name = repo.rpartition("/")[2]
    places = [f"{name}/{config}/{split}/*", f"{name}/{split}/*", f"{config}/{split}/*", f"{split}/*"]
    patterns = [f"{place}.parquet" for place in (*places, f"{name}/{split}", split)]
    for pattern in patterns:
        if found := sorted(folder.glob(pattern)):
            return found
    looked = "\n".join(f"  {folder / pattern}" for pattern in patterns)
    raise UsageError(f"{named(folder, path=path)} has no split {split} of {repo}. Looked for:\n{looked}\n{ways_out}")


def cache_folder() -> Path:
    """Where decoded and trained things are kept: `optbench` below the user's cache folder; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "optbench"


def cached_arrays(key: str, make: Callable[[], Sequence[NDArray[Any]]]) -> list[NDArray[Any]]:
    """The arrays that were kept under this key, or else those that `make` gives, which are kept.

    Args:
        key: a hash of all that they come from; fit for a file name.
        make: called where none are there.
    """
    cache = cache_folder() / f"{key}.npz"
    with (
        suppress(OSError, ValueError, zipfile.BadZipFile),  # absent, or cut off
        cache.open("rb") as file,
        np.load(file) as stored,
    ):
        return [stored[f"arr_{index}"] for index in range(len(stored.files))]
    arrays = list(make())
    with suppress(OSError):  # the cache only saves time
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, *arrays)
        partial.replace(cache)
    return arrays


def read_columns(file: Path, columns: Sequence[str]) -> Mapping[str, Any]:
    """Columns of a Parquet file, as arrow's chunked arrays.

    Raises:
        UsageError: it cannot be read, or lacks a column; names those there are.
    """
    import pyarrow.parquet

    try:
        present = pyarrow.parquet.read_schema(file).names
        for column in columns:
            if column not in present:
                raise UsageError(f"{file} has no column {column!r}. It has: {', '.join(present)}.")
        table = pyarrow.parquet.read_table(file, columns=list(columns))
    except (OSError, pyarrow.ArrowException) as error:
        raise UsageError(f"{file} cannot be read as Parquet: {error}.") from error
    return {column: table[column] for column in columns}


def _asked(ask: Callable[[], list[str]], *, repo: str, ways_out: str) -> list[str]:
    """What the hub answers."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings of retries end in our error
    try:
        return ask()
    except Exception as error:  # the hub's client raises errors of several libraries
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"{repo} could not be downloaded from the Hugging Face hub ({type(error).__name__}: {reason}).\n{ways_out}"
        ) from error
