"""Data sets: loaded once, checked, and kept on the device as tensors."""

import hashlib
import io
import logging
import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optbench.errors import UsageError

DATA_VARIABLE = "OPTBENCH_DATA"


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """Labelled images on one device, normalised.

    Attributes:
        train_inputs: float32, (num_train, channels, height, width).
        train_labels: int64, (num_train,).
        test_inputs: float32, (num_test, channels, height, width).
        test_labels: int64, (num_test,).
        num_classes: labels are 0 to num_classes - 1.
    """

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    num_classes: int


def load_digits(
    *, test_size: int, split_seed: int, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> ImageData:
    """Scikit-learn's 1,797 scans of handwritten digits (8 x 8), split at random within each class.

    Source: E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI repository, 1998.
    """
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    digits = load()
    images = (digits.images * (255 / 16)).astype(np.float32)[:, np.newaxis]
    train, test, train_labels, test_labels = train_test_split(
        images, digits.target, test_size=test_size, random_state=split_seed, stratify=digits.target
    )
    return _on_device((train, train_labels, test, test_labels), mean=mean, std=std, device=device)


def load_parquet(
    *,
    repo: str,
    revision: str,
    train_file: str,
    test_file: str,
    image_column: str,
    label_column: str,
    mean: Sequence[float],
    std: Sequence[float],
    sha256: str | None,
    path: str | None,
    device: torch.device,
) -> ImageData:
    """An image-classification data set in the Parquet layout of the Hugging Face hub.

    Read from the folder `path`, or else from the one that the environment variable OPTBENCH_DATA names, or else
    downloaded. A folder holds `train.parquet` and `test.parquet`, or the hub's file names, directly or below a
    folder named like the data set. Decoded images are cached under the user's cache folder.

    Args:
        repo: the data set on the hub, `owner/name`.
        revision: the commit to download.
        train_file: path of the training split in the repository.
        test_file: path of the test split.
        image_column: holds the encoded image, as a struct with `bytes`.
        label_column: holds the class index.
        mean: per channel, of pixels scaled to [0, 1].
        std: per channel, of pixels scaled to [0, 1].
        sha256: of the decoded arrays (training images as bytes, training labels as int64, the same for test); None
            accepts anything.
        path: a local folder.
        device: where the tensors go.

    Raises:
        UsageError: the data are not there, cannot be downloaded, or are not the expected ones.
    """
    folder = path or os.environ.get(DATA_VARIABLE)
    if folder:
        files = [
            _find(Path(folder).expanduser(), repo=repo, file=name, split=split, asked=path is not None)
            for split, name in (("train", train_file), ("test", test_file))
        ]
    else:
        files = _download(repo, revision, (train_file, test_file))
    arrays = _decode(files, image_column=image_column, label_column=label_column)
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    if sha256 is not None and digest.hexdigest() != sha256:
        raise UsageError(
            f"{repo}: the images decoded from {files[0].parent} are not the expected ones:\n"
            f"their sha256 is {digest.hexdigest()}, expected {sha256}.\n"
            "Use the original files, or accept these with data.sha256=null."
        )
    images, labels, test_images, test_labels = arrays
    return _on_device(
        (_channels_first(images), labels, _channels_first(test_images), test_labels),
        mean=mean,
        std=std,
        device=device,
    )


def _find(folder: Path, *, repo: str, file: str, split: str, asked: bool) -> Path:
    name = repo.rpartition("/")[2]
    candidates = [
        folder / name / f"{split}.parquet",
        folder / f"{split}.parquet",
        folder / file,
        folder / Path(file).name,
    ]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    source = f"data.path={folder}" if asked else f"{DATA_VARIABLE}={folder}"
    looked = "\n".join(f"  {candidate}" for candidate in candidates)
    raise UsageError(f"{source} has no {split} split of {repo}. Looked for:\n{looked}")


def _download(repo: str, revision: str, files: Sequence[str]) -> list[Path]:
    from huggingface_hub import hf_hub_download

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings of retries end in our error
    try:
        return [Path(hf_hub_download(repo, file, repo_type="dataset", revision=revision)) for file in files]
    except Exception as error:  # the hub's client raises errors of several libraries
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"{repo} could not be downloaded from the Hugging Face hub ({type(error).__name__}: {reason}).\n"
            f"With a local copy: data.path=<folder>, or {DATA_VARIABLE}=<folder> in the environment "
            "(train.parquet and test.parquet in the hub's layout).\n"
            "Without network or copy: task=digits_mlp trains the same model on digits that come with scikit-learn."
        ) from error


def _decode(files: Sequence[Path], *, image_column: str, label_column: str) -> list[NDArray[np.generic]]:
    key = hashlib.sha256(f"{image_column}/{label_column}".encode())
    for file in files:
        key.update(file.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "optbench" / f"{key.hexdigest()}.npz"
    with suppress(OSError, ValueError, zipfile.BadZipFile), np.load(cache) as stored:  # absent, or cut off
        return [stored[name] for name in sorted(stored.files)]
    arrays = [array for file in files for array in _read(file, image_column=image_column, label_column=label_column)]
    with suppress(OSError):  # the cache only saves time
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, *arrays)
        partial.replace(cache)
    return arrays


def _read(file: Path, *, image_column: str, label_column: str) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    import pyarrow.parquet
    from PIL import Image

    try:
        table = pyarrow.parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise UsageError(f"{file} cannot be read as Parquet: {error}.") from error
    for column in (image_column, label_column):
        if column not in table.column_names:
            raise UsageError(f"{file} has no column {column!r}. It has: {', '.join(table.column_names)}.")
    images = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in table[image_column].to_pylist()]
    return np.stack(images), table[label_column].to_numpy().astype(np.int64)


def _channels_first(images: NDArray[np.generic]) -> NDArray[np.generic]:
    return images[:, np.newaxis] if images.ndim == 3 else np.moveaxis(images, -1, 1)


def _on_device(
    arrays: Sequence[NDArray[np.generic]],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
) -> ImageData:
    def inputs(images: NDArray[np.generic]) -> Tensor:
        scaled = torch.as_tensor(images, device=device).float().div_(255)
        shape = (1, -1, 1, 1)
        return scaled.sub_(torch.tensor(mean, device=device).view(shape)).div_(
            torch.tensor(std, device=device).view(shape)
        )

    train, train_labels, test, test_labels = arrays
    return ImageData(
        train_inputs=inputs(train),
        train_labels=torch.as_tensor(train_labels, device=device),
        test_inputs=inputs(test),
        test_labels=torch.as_tensor(test_labels, device=device),
        num_classes=int(train_labels.max()) + 1,
    )
