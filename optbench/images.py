"""Images of any size: a classification data set of the Hugging Face hub by its name, or folders of image files."""

import hashlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from optbench import hub
from optbench.data import ImageData, on_device
from optbench.errors import UsageError

TEST_FOLDERS = ("test", "val", "validation", "valid")
# Part of what a cached array is known by: another way of making it is another number.
_VERSION = 1
# What there is without a network and without a copy.
OTHERWISE = "data=digits has images that come with scikit-learn."
_MAX_NAMED = 10

Arrays = tuple[NDArray[Any], NDArray[Any]]


def load_hub_images(
    *,
    repo: str,
    revision: str,
    config: str,
    train_split: str,
    test_split: str,
    image_column: str,
    label_column: str,
    image_size: int,
    order_seed: int,
    mean: Sequence[float],
    std: Sequence[float],
    path: str | None,
    device: torch.device,
) -> ImageData:
    """Any image-classification data set of the hub, by its name and columns.

    The hub keeps every data set as Parquet files, too: `<config>/<split>/*.parquet` in the branch refs/convert/parquet.
    They are read from the folder `path`, or else from the one that the environment variable OPTBENCH_DATA names, or
    else downloaded. A folder holds them in the same layout, directly or below a folder named like the data set; the one
    named like the config may be left out, and `<split>.parquet` do as well. Images become RGB; the middle is cut out
    and resized to `image_size`. Decoded images are cached under the user's cache folder.

    Args:
        repo: the data set on the hub, `owner/name`.
        revision: the branch or commit that holds the Parquet files.
        config: of the data set; `default` where it has no names for them.
        train_split: what it is trained on.
        test_split: what it is evaluated on.
        image_column: holds the encoded image, as a struct with `bytes`.
        label_column: holds the class, as an index or as a name.
        image_size: pixels on each side.
        order_seed: of the order in which images are kept, since many data sets come sorted by class.
        mean: per channel (red, green, blue), of pixels scaled to [0, 1].
        std: the same.
        path: a local folder.
        device: where the tensors go.

    Raises:
        UsageError: the data are not there or cannot be downloaded, a column is missing, or a row holds no image.
    """
    _check_size(image_size)
    columns = (image_column, label_column)
    files = {
        split: hub.split_files(repo, split, config=config, revision=revision, path=path, otherwise=OTHERWISE)
        for split in (train_split, test_split)
    }
    key = _key("hub", *columns, image_size, contents=chain.from_iterable(files.values()))

    def make() -> list[NDArray[Any]]:
        _tell(f"{repo}: images are decoded and resized to {image_size} x {image_size}, once.")
        found = [_read(files[split], columns, image_size=image_size) for split in (train_split, test_split)]
        names = sorted({str(label) for _, labels in found for label in labels}) if _are_names(found[0][1]) else None
        return [array for images, labels in found for array in (images, _indices(labels, names))]

    images, labels, test_images, test_labels = hub.cached_arrays(key, make)
    for split, given in ((train_split, labels), (test_split, test_labels)):
        if len(given) == 0 or given.min() < 0 or given.max() > labels.max():
            raise UsageError(
                f"{repo}: the split {split} "
                + ("is empty" if len(given) == 0 else "has labels that the training split lacks, or none (-1)")
                + ".\nChoose another: data.train_split=... or data.test_split=...; many data sets have a `validation`."
            )
    return _shuffled((images, labels), (test_images, test_labels), seed=order_seed, mean=mean, std=std, device=device)


def load_image_folder(
    *,
    path: str | None,
    image_size: int,
    test_fraction: float,
    split_seed: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
) -> ImageData:
    """Image files in one folder for each class.

    Either `<path>/train/<class>/...` with `<path>/test/<class>/...` (or val, validation, valid), or
    `<path>/<class>/...`, of which a part is held out at random within each class. Classes are numbered in the order of
    their names. Hidden files are passed over; all others must be images. They become RGB; the middle is cut out and
    resized to `image_size`. Decoded images are cached under the user's cache folder.

    Args:
        path: the folder.
        image_size: pixels on each side.
        test_fraction: of each class's images, in (0, 1), where the folder has no test split; at least one image.
        split_seed: of that choice, and of the order in which images are kept.
        mean: per channel (red, green, blue), of pixels scaled to [0, 1].
        std: the same.
        device: where the tensors go.

    Raises:
        UsageError: the folder or a class is missing or empty, a file is no image, or the splits differ in classes.
    """
    _check_size(image_size)
    if not 0 < test_fraction < 1:
        raise UsageError(f"data.test_fraction={test_fraction}: expected a number between 0 and 1, such as 0.2.")
    if path is None:
        raise UsageError("data.path is missing: data.path=<folder>, which holds a folder of images for each class.")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UsageError(f"data.path={folder}: there is no such folder.")
    if _subfolders(folder / "train"):
        test = next((folder / name for name in TEST_FOLDERS if (folder / name).is_dir()), None)
        if test is None:
            raise UsageError(
                f"data.path={folder} has a folder train and no folder {', '.join(TEST_FOLDERS)}.\n"
                "Add one, or name the folder of the classes itself, so that a part of them is held out: "
                f"data.path={folder / 'train'}"
            )
        train_files, test_files = _class_files(folder / "train"), _class_files(test)
        if train_files.keys() != test_files.keys():
            differing = sorted(train_files.keys() ^ test_files.keys())
            raise UsageError(
                f"data.path={folder}: the classes of train and {test.name} differ; in one of them alone: "
                f"{', '.join(differing[:_MAX_NAMED])}."
            )
        train, held_out = (_decoded(files, image_size=image_size) for files in (train_files, test_files))
    else:
        files = _class_files(folder)
        if short := [name for name, paths in files.items() if len(paths) < 2]:
            raise UsageError(
                f"data.path={folder}: one image cannot be in both splits, and there is no other of: {', '.join(short)}."
            )
        train, held_out = _split(_decoded(files, image_size=image_size), fraction=test_fraction, seed=split_seed)
    return _shuffled(train, held_out, seed=split_seed, mean=mean, std=std, device=device)


def _check_size(image_size: int) -> None:
    if type(image_size) is not int or image_size < 1:
        raise UsageError(f"data.image_size={image_size}: expected a whole number of pixels, 1 or more.")


def _tell(what: str) -> None:
    logging.getLogger("optbench").info(what)


def _key(*parts: Any, contents: Iterator[Path]) -> str:
    """A hash of these parts and of what is in the files."""
    digest = hashlib.sha256(repr((_VERSION, *parts)).encode())
    for file in contents:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _read(files: Sequence[Path], columns: tuple[str, str], *, image_size: int) -> Arrays:
    """The images of a split, and its labels as they stand there."""
    images, labels = [], []
    for file in files:
        found = hub.read_columns(file, columns)
        for row, (cell, label) in enumerate(zip(*(found[column].to_pylist() for column in columns), strict=True)):
            if not isinstance(cell, Mapping) or not cell.get("bytes"):
                raise UsageError(f"{file}: row {row} of column {columns[0]!r} holds no image bytes.")
            image = fitted(cell["bytes"], image_size)
            if image is None:
                raise UsageError(f"{file}: row {row} of column {columns[0]!r} is no image that can be read.")
            if label is None:
                raise UsageError(f"{file}: row {row} of column {columns[1]!r} holds no label.")
            images.append(image)
            labels.append(label)
    if not images:
        return np.empty((0, image_size, image_size, 3), dtype=np.uint8), np.empty(0, dtype=np.int64)
    return np.stack(images), np.array(labels)


def _are_names(labels: NDArray[Any]) -> bool:
    return labels.dtype.kind not in "iub"


def _indices(labels: NDArray[Any], names: Sequence[str] | None) -> NDArray[np.int64]:
    if names is None:
        return labels.astype(np.int64)
    place = {name: index for index, name in enumerate(names)}
    return np.array([place[str(label)] for label in labels], dtype=np.int64)


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _class_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each class, by its name; both sorted."""
    classes = _subfolders(folder)
    if not classes:
        raise UsageError(
            f"data.path: {folder} holds no folders.\n"
            "Expected one for each class, named like it, with its images inside."
        )
    found = {
        each.name: sorted(file for file in each.rglob("*") if file.is_file() and not file.name.startswith("."))
        for each in classes
    }
    if empty := [str(folder / name) for name, files in found.items() if not files]:
        raise UsageError(f"data.path: a class without images: {', '.join(empty[:_MAX_NAMED])}.")
    return found


def _decoded(files: Mapping[str, Sequence[Path]], *, image_size: int) -> Arrays:
    """All images, class by class, and the number of each one's class."""
    paths = [path for each in files.values() for path in each]
    labels = np.repeat(np.arange(len(files), dtype=np.int64), [len(each) for each in files.values()])

    def make() -> list[NDArray[Any]]:
        _tell(f"{len(paths)} images are decoded and resized to {image_size} x {image_size}, once.")
        images = [fitted(path.read_bytes(), image_size) for path in paths]
        if bad := [str(path) for path, image in zip(paths, images, strict=True) if image is None]:
            named = "\n".join(f"  {path}" for path in bad[:_MAX_NAMED])
            more = f"\n  and {len(bad) - _MAX_NAMED} more" if len(bad) > _MAX_NAMED else ""
            raise UsageError(f"data.path: no image that can be read; repair or remove:\n{named}{more}")
        return [np.stack([image for image in images if image is not None])]

    (images,) = hub.cached_arrays(_key("folder", image_size, contents=iter(paths)), make)
    return images, labels


def fitted(encoded: bytes, size: int) -> NDArray[np.uint8] | None:
    """The middle of an image file, as large a square as there is, resized: RGB, uint8, (size, size, 3).

    None where the bytes are no image that can be read.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as file:
            image = file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    side = min(image.size)
    left, top = ((length - side) / 2 for length in image.size)
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def _split(arrays: Arrays, *, fraction: float, seed: int) -> tuple[Arrays, Arrays]:
    """A part of each class held out at random."""
    images, labels = arrays
    generator = np.random.default_rng(seed)
    is_held_out = np.zeros(len(labels), dtype=bool)
    for index in range(labels.max() + 1):
        members = np.flatnonzero(labels == index)
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        is_held_out[generator.permutation(members)[:count]] = True
    return (images[~is_held_out], labels[~is_held_out]), (images[is_held_out], labels[is_held_out])


def _shuffled(
    train: Arrays, test: Arrays, *, seed: int, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> ImageData:
    """Both splits in an order by chance, so that the first few images are of all classes."""
    arrays = []
    for images, labels in (train, test):
        order = np.random.default_rng(seed).permutation(len(labels))
        arrays += [np.moveaxis(images[order], -1, 1), labels[order]]
    return on_device(arrays, mean=mean, std=std, device=device)
