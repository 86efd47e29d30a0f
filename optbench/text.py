"""Text as characters: one file, which is local or downloaded once, split into its beginning and its end."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from optbench import hub
from optbench.errors import UsageError

_log = logging.getLogger("optbench")


@dataclass(frozen=True, kw_only=True)
class TextData:
    """A text as numbers of its characters, on one device.

    Attributes:
        train: int32, (num_train,).
        test: of the same kind, what comes after it.
        characters: all that occur, sorted by code point; a character's number is its place.
    """

    train: Tensor
    test: Tensor
    characters: str


def load_characters(
    *,
    url: str,
    sha256: str | None,
    folder: str,
    file: str,
    train_fraction: float,
    path: str | None,
    device: torch.device,
) -> TextData:
    """A text file in UTF-8, character by character.

    It is the file `path`, or else in the folder `path`, or else in the one that the environment variable OPTBENCH_DATA
    names, or else downloaded and kept in the user's cache folder. Ends of lines become one character, as in every text
    file that Python reads.

    Args:
        url: where it is downloaded from.
        sha256: of the file's bytes; None accepts any text.
        folder: below `path` or OPTBENCH_DATA, where the file is looked for first.
        file: its name there.
        train_fraction: of the characters, rounded down, that are trained on; the others are for test.
        path: a local file or folder.
        device: where the tensors go.

    Raises:
        UsageError: the text is not there, cannot be downloaded, is not the expected one, or is no text.
    """
    if not 0 < train_fraction < 1:
        raise UsageError(f"data.train_fraction={train_fraction}: expected a number between 0 and 1, such as 0.9.")
    source, encoded = _read(url, sha256=sha256, folder=folder, file=file, path=path)
    _check(encoded, sha256=sha256, source=source)
    try:
        text = encoded.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is no text in UTF-8: {error.reason} at byte {error.start}.") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    points, numbers = np.unique(np.frombuffer(text.encode("utf-32-le"), dtype="<u4"), return_inverse=True)
    num_train = int(len(numbers) * train_fraction)
    if not 0 < num_train < len(numbers):
        raise UsageError(f"{source} has {len(numbers)} characters, too few for training and test.")
    tokens = torch.from_numpy(numbers.astype(np.int32)).to(device)
    return TextData(
        train=tokens[:num_train], test=tokens[num_train:], characters="".join(chr(point) for point in points)
    )


def _read(url: str, *, sha256: str | None, folder: str, file: str, path: str | None) -> tuple[Path, bytes]:
    """The file, and what is in it."""
    ways_out = (
        f"With a local copy: data.path=<the file, or a folder that holds {file}>, or {hub.DATA_VARIABLE}=<folder> in "
        f"the environment, which holds {folder}/{file}.\n"
        "With any other text: data.path=<file> data.sha256=null"
    )
    given = hub.local_folder(path)
    if given is None:
        return _download(url, sha256=sha256, ways_out=ways_out)
    if given.is_dir():
        candidates = [given / folder / file, given / file]
        try:
            found = hub.find(candidates, what=f"text {file}", source=hub.named(given, path=path))
        except UsageError as error:
            raise UsageError(f"{error}\n{ways_out}") from error
    elif given.is_file():
        found = given
    else:
        raise UsageError(f"{hub.named(given, path=path)}: there is no such file or folder.\n{ways_out}")
    try:
        return found, found.read_bytes()
    except OSError as error:
        raise UsageError(f"{found} cannot be read: {error}.") from error


def _download(url: str, *, sha256: str | None, ways_out: str) -> tuple[Path, bytes]:
    """The downloaded file, which is kept; one that was cut off or changed is downloaded again."""
    kept = hub.cache_folder() / f"{hashlib.sha256(url.encode()).hexdigest()}.txt"
    if kept.is_file() and sha256 in (None, hashlib.sha256(kept.read_bytes()).hexdigest()):
        return kept, kept.read_bytes()
    _log.info("downloading %s, once", url)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(kept), hash_prefix=sha256, progress=False)
        return kept, kept.read_bytes()
    except Exception as error:  # errors of the network, of the file system, and of a hash that differs
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(f"{url} could not be downloaded ({type(error).__name__}: {reason}).\n{ways_out}") from error


def _check(encoded: bytes, *, sha256: str | None, source: Path) -> None:
    found = hashlib.sha256(encoded).hexdigest()
    if sha256 is not None and found != sha256:
        raise UsageError(
            f"{source} is not the expected text: its sha256 is {found}, expected {sha256}.\n"
            "Use the original file, or accept this one with data.sha256=null."
        )
