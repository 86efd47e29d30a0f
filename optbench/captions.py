"""Images with captions: digits in a style that a model has not seen, your own folder, or a data set of the hub."""

import hashlib
import importlib.resources
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional

from optbench import hub
from optbench.data import load_parquet
from optbench.errors import UsageError, unknown
from optbench.images import TEST_FOLDERS, fitted
from optbench.metadata import find_metadata, read_rows, refuse

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
Style = Literal["upright", "rotated", "inverted"]
_STYLES = ("upright", "rotated", "inverted")
_FRAMED = 32  # pixels on each side of an MNIST image with its frame: a power of two
# Part of what a cached array is known by: another way of making it is another number.
_VERSION = 1
# What there is without a network and without a copy.
OTHERWISE = "data=digits_rotated model=tiny, which need MNIST alone."


@dataclass(frozen=True, kw_only=True)
class CaptionedImages:
    """Images and what they show, on the CPU: a task encodes them before they go elsewhere.

    Attributes:
        train_images: bytes, (num_train, channels, height, width).
        train_captions: one for each.
        test_images: of the same kind; there may be none.
        test_captions: one for each.
        note: shown with every result made from these; empty where there is nothing to say.
    """

    train_images: Tensor
    train_captions: tuple[str, ...]
    test_images: Tensor
    test_captions: tuple[str, ...]
    note: str = ""


@cache
def mnist_config() -> Mapping[str, Any]:
    """The keys of `data=mnist`: where MNIST is and what it must be."""
    file = importlib.resources.files("optbench.conf") / "data" / "mnist.yaml"
    config: Mapping[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return config


def load_mnist(*, path: str | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """MNIST on the CPU: images for training, bytes (60000, 1, 28, 28), their classes, and the same for test.

    Args:
        path: a local folder; None is the one that OPTBENCH_DATA names, or the hub.

    Raises:
        UsageError: it is not there, cannot be downloaded, or is not the expected one.
    """
    keys = {key: value for key, value in mnist_config().items() if key not in ("name", "_target_")}
    keys |= {"mean": [0.0], "std": [1.0], "path": path}  # pixels as they are
    data = load_parquet(**keys, device=torch.device("cpu"))
    train, test = (
        images if images.dtype == torch.uint8 else (images * 255.0).round_().to(torch.uint8)
        for images in (data.train_inputs, data.test_inputs)
    )
    return train, data.train_labels, test, data.test_labels


def shrunk(images: Tensor, size: int) -> Tensor:
    """MNIST's images framed in black to 32 x 32 and brought to another size, by the mean over squares where that goes.

    Args:
        images: bytes, (images, 1, 28, 28).
        size: pixels on each side; may be larger, too.

    Returns:
        Bytes, (images, 1, size, size).
    """
    frame = (_FRAMED - images.shape[-1]) // 2
    framed = functional.pad(images, (frame,) * 4).float()
    if _FRAMED % size == 0:
        found = functional.avg_pool2d(framed, _FRAMED // size)
    else:
        found = functional.interpolate(framed, size=(size, size), mode="bilinear", antialias=True)
    return found.round().clamp(0.0, 255.0).to(torch.uint8)


def load_digits_in_style(
    *,
    style: Style,
    digits: Sequence[int],
    caption: str,
    num_train: int,
    num_test: int,
    seed: int,
    size: int,
    path: str | None,
    device: torch.device,
) -> CaptionedImages:
    """Digits of MNIST in another style, as many of each class, in turn; training and test images of its own two splits.

    Args:
        style: upright as they are, rotated to the left by a quarter, or inverted to black on white.
        digits: the classes.
        caption: of an image, with {digit} where the English word for its class goes.
        num_train: images for training.
        num_test: for test; may be 0.
        seed: of which ones are taken.
        size: pixels on each side.
        path: a local folder with MNIST.
        device: where it will be trained; the images stay on the CPU.

    Raises:
        UsageError: a value is wrong, there are not so many images, or MNIST cannot be had.
    """
    del device
    if style not in _STYLES:
        raise unknown("value", str(style), _STYLES, where="for data.style")
    if not digits or len(set(digits)) < len(digits) or not set(digits) <= set(range(10)):
        raise UsageError(f"data.digits={list(digits)}: expected one or more of 0 to 9, each once.")
    if "{digit}" not in caption:
        raise UsageError(f"data.caption={caption!r}: it must hold {{digit}}, where the word for the digit goes.")
    if num_train < 1 or num_test < 0:
        raise UsageError(f"data.num_train={num_train}, data.num_test={num_test}: at least 1 and at least 0.")
    _check_size(size)
    train, train_labels, test, test_labels = load_mnist(path=path)
    parts = []
    for name, images, labels, num in (("train", train, train_labels, num_train), ("test", test, test_labels, num_test)):
        chosen = _in_turn(labels, digits, num=num, seed=seed, key=f"data.num_{name}")
        found = shrunk(images[chosen], size)
        if style == "rotated":
            found = found.rot90(1, (2, 3)).contiguous()
        parts.append((255 - found if style == "inverted" else found, labels[chosen].tolist()))
    captions = [tuple(caption.replace("{digit}", DIGITS[label]) for label in labels) for _, labels in parts]
    return CaptionedImages(
        train_images=parts[0][0], train_captions=captions[0], test_images=parts[1][0], test_captions=captions[1]
    )


def load_captioned_folder(
    *,
    path: str | None,
    caption_column: str,
    caption: str | None,
    size: int,
    test_fraction: float,
    split_seed: int,
    device: torch.device,
) -> CaptionedImages:
    """A folder of images with `metadata.jsonl` or `metadata.csv`, or with one caption for all.

    The metadata has a row for each image: `file_name`, relative to the folder, and the caption. Where the folder itself
    has no metadata and there is a folder train, its own are taken, and those of test (or val, validation, valid) for
    test. Otherwise a part is held out. Images become RGB; the shorter side is resized to `size` and the middle cut out.
    Decoded images are cached under the user's cache folder.

    Args:
        path: the folder.
        caption_column: of the metadata.
        caption: of all images, which then need no metadata, as in DreamBooth; None takes the metadata's.
        size: pixels on each side.
        test_fraction: of the images, rounded, where the folder has no test split; 0 keeps all for training.
        split_seed: of that choice.
        device: where it will be trained; the images stay on the CPU.

    Raises:
        UsageError: the folder is missing or empty, or its metadata and images do not match; names the rows.
    """
    del device
    _check_split(test_fraction, size)
    if path is None:
        raise UsageError(
            "data.path is missing: data.path=<folder>, which holds images and metadata.jsonl, or images alone with "
            "data.caption='a photo of sks dog'."
        )
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UsageError(f"data.path={folder}: there is no such folder.")
    train, test = folder, None
    if not find_metadata(folder) and (folder / "train").is_dir():
        train = folder / "train"
        test = next((folder / name for name in TEST_FOLDERS if (folder / name).is_dir()), None)
    rows = [read_rows(part, column=caption_column, caption=caption) for part in (train, test) if part is not None]
    names = [str(file) for part in rows for file, _ in part]
    images = _decoded([file.read_bytes() for part in rows for file, _ in part], names, size=size)
    captions = [text for part in rows for _, text in part]
    num_train = len(rows[0]) if test is not None else None
    return _split(images, captions, num_train=num_train, test_fraction=test_fraction, seed=split_seed)


def load_captioned_hub(
    *,
    repo: str,
    revision: str,
    config: str,
    split: str,
    image_column: str,
    caption_column: str | None,
    caption: str | None,
    size: int,
    test_fraction: float,
    split_seed: int,
    path: str | None,
    device: torch.device,
) -> CaptionedImages:
    """A data set of the hub with images and captions, or with one caption for all.

    The hub keeps every data set as Parquet files, too: `<config>/<split>/*.parquet` in the branch refs/convert/parquet.
    They are read from the folder `path`, or else from the one that the environment variable OPTBENCH_DATA names, or
    else downloaded. A folder holds them in the same layout, directly or below a folder named like the data set.

    Args:
        repo: the data set on the hub, `owner/name`.
        revision: the branch or commit that holds the Parquet files.
        config: of the data set; `default` where it has no names for them.
        split: what is read.
        image_column: holds the encoded image, as a struct with `bytes`.
        caption_column: holds the caption; None where it has none.
        caption: of all images; None takes the column's.
        size: pixels on each side: the shorter one is resized to it and the middle cut out.
        test_fraction: of the images, rounded, held out for test; 0 keeps all for training.
        split_seed: of that choice.
        path: a local folder.
        device: where it will be trained; the images stay on the CPU.

    Raises:
        UsageError: the data are not there or cannot be downloaded, a column is missing, or a row lacks its part.
    """
    del device
    _check_split(test_fraction, size)
    if caption is None and caption_column is None:
        raise UsageError("data.caption and data.caption_column are both null: one of them says what the images show.")
    encoded: list[bytes] = []
    captions: list[str] = []
    names, problems = [], []
    columns = [image_column] if caption is not None or caption_column is None else [image_column, caption_column]
    for file in hub.split_files(repo, split, config=config, revision=revision, path=path, otherwise=OTHERWISE):
        found = hub.read_columns(file, columns)
        cells = found[image_column].to_pylist()
        texts = [caption] * len(cells) if caption is not None else found[columns[-1]].to_pylist()
        for row, (cell, text) in enumerate(zip(cells, texts, strict=True)):
            place = f"{file}: row {row}"
            if not isinstance(cell, Mapping) or not cell.get("bytes"):
                problems.append(f"{place} of column {image_column!r} holds no image bytes")
            elif not isinstance(text, str) or not text.strip():
                problems.append(f"{place} has no caption in column {caption_column!r}")
            else:
                encoded.append(cell["bytes"])
                captions.append(text.strip())
                names.append(place)
    refuse(problems, where=repo)
    if not encoded:
        raise UsageError(f"{repo}: the split {split} is empty. Choose another with data.split=...")
    images = _decoded(encoded, names, size=size)
    return _split(images, captions, num_train=None, test_fraction=test_fraction, seed=split_seed)


def _check_size(size: int) -> None:
    if type(size) is not int or size < 1:
        raise UsageError(f"data.size={size}: expected a whole number of pixels, 1 or more.")


def _check_split(test_fraction: float, size: int) -> None:
    _check_size(size)
    if not 0 <= test_fraction < 1:
        raise UsageError(f"data.test_fraction={test_fraction}: expected at least 0 and below 1; 0 holds none out.")


def _in_turn(labels: Tensor, digits: Sequence[int], *, num: int, seed: int, key: str) -> Tensor:
    """Indices of so many images, of the classes in turn."""
    of_each = -(-num // len(digits))
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for digit in digits:
        members = (labels == digit).nonzero().flatten()
        if len(members) < of_each:
            raise UsageError(f"{key}={num}: MNIST has {len(members)} images of the digit {digit}, not {of_each}.")
        chosen.append(members[torch.randperm(len(members), generator=generator)[:of_each]])
    return torch.stack(chosen, dim=1).flatten()[:num]


def _decoded(encoded: Sequence[bytes], names: Sequence[str], *, size: int) -> Tensor:
    """All images, decoded once: bytes, (images, 3, size, size)."""
    key = hashlib.sha256(repr((_VERSION, "captions", size)).encode())
    for image in encoded:
        key.update(hashlib.sha256(image).digest())

    def make() -> list[Any]:
        logging.getLogger("optbench").info(
            "%d images are decoded and resized to %d x %d, once.", len(encoded), size, size
        )
        found = [fitted(image, size) for image in encoded]
        unreadable = [name for name, image in zip(names, found, strict=True) if image is None]
        refuse([f"{name} is no image that can be read" for name in unreadable], where="data")
        return [np.stack([image for image in found if image is not None])]

    (images,) = hub.cached_arrays(key.hexdigest(), make)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))


def _split(
    images: Tensor, captions: Sequence[str], *, num_train: int | None, test_fraction: float, seed: int
) -> CaptionedImages:
    """The first `num_train` for training and the others for test, or a part held out at random."""
    order = torch.arange(len(images))
    if num_train is None:
        num_test = min(round(test_fraction * len(images)), len(images) - 1)
        num_train = len(images) - num_test
        held_out = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:num_test]
        is_held_out = torch.isin(order, held_out)
        order = torch.cat((order[~is_held_out], order[is_held_out]))
    texts = [captions[index] for index in order.tolist()]
    return CaptionedImages(
        train_images=images[order[:num_train]],
        train_captions=tuple(texts[:num_train]),
        test_images=images[order[num_train:]],
        test_captions=tuple(texts[num_train:]),
    )
