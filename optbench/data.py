"""Data sets of images: loaded once, checked, kept on the device as tensors, and made into minibatches there."""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from optbench import hub
from optbench.errors import UsageError

# Images that would take more than this as float32 stay bytes on the device.
MAX_FLOAT_BYTES = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """Labelled images on one device.

    Attributes:
        train_inputs: (num_train, channels, height, width); float32 and normalised, or bytes where they are large, which
            `ready` makes the same of.
        train_labels: int64, (num_train,).
        test_inputs: of the same kind, (num_test, channels, height, width).
        test_labels: int64, (num_test,).
        num_classes: labels are 0 to num_classes - 1.
        mean: float32, (1, channels, 1, 1), of pixels in [0, 1]: by it images are normalised; None leaves them as they
            come.
        std: the same.
        note: shown with every result made from these; empty where there is nothing to say.
    """

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    num_classes: int
    mean: Tensor | None = None
    std: Tensor | None = None
    note: str = ""

    def ready(self, images: Tensor) -> Tensor:
        """Images of these as a model takes them: float32, and normalised; those that are so already are returned."""
        if images.dtype != torch.uint8:
            return images
        if self.mean is None or self.std is None:
            return images.float().div_(255)
        return _normalised(images, self.mean, self.std)

    def first(self, num: int | None, *, split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        """The first images of a split, with their labels; None takes all.

        Raises:
            UsageError: there are not so many.
        """
        inputs, labels = (
            (self.train_inputs, self.train_labels) if split == "train" else (self.test_inputs, self.test_labels)
        )
        if num is not None and not 1 <= num <= len(inputs):
            raise UsageError(
                f"task.num_{split}={num}: there are {len(inputs)}; expected 1 to {len(inputs)}, or null for all."
            )
        return inputs[:num], labels[:num]

    @property
    def black(self) -> Tensor:
        """A black pixel as these images have it, (1, channels, 1, 1)."""
        black = torch.zeros_like(self.train_inputs[:1, :, :1, :1])
        if black.dtype == torch.uint8 or self.mean is None or self.std is None:
            return black
        return (black - self.mean) / self.std


def has_values() -> bool:
    """Whether tensors that are made now hold numbers; they hold none while the memory of a step is predicted."""
    return not isinstance(torch.empty(0), FakeTensor)


def check_batch_size(batch_size: int, num_train: int) -> None:
    """Check that there is a minibatch.

    Raises:
        UsageError: it is larger than the training set, or empty.
    """
    if not 1 <= batch_size <= num_train:
        raise UsageError(f"task.batch_size={batch_size}: there are {num_train} training images.")


def passes(num_examples: int, *, seed: int, device: torch.device) -> Iterator[Tensor]:
    """An endless stream of orders of all examples, one for each pass, as int64 indices on the device.

    They are those of `DataLoader(shuffle=True, generator=...)`.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        # A DataLoader draws a seed for its workers before each pass, and an order that it does not use after it:
        # drawing both gives its order in every pass, so that figures found with one can be found again.
        torch.empty((), dtype=torch.int64).random_(generator=generator)
        yield torch.randperm(num_examples, generator=generator).to(device)
        torch.randperm(num_examples, generator=generator)


def full_batches(order: Tensor, batch_size: int) -> Iterator[Tensor]:
    """The minibatches of a pass; a last, smaller one is dropped."""
    for start in range(0, len(order) - batch_size + 1, batch_size):
        yield order[start : start + batch_size]


def flip_and_crop(images: Tensor, draws: Tensor, *, padding: int, black: Tensor) -> Tensor:
    """A window of each image's own size, anywhere in the image framed in black; the image is mirrored where drawn.

    Args:
        images: (num_images, channels, height, width).
        draws: int64, (num_images, 3): see `draw_flips_and_crops`.
        padding: pixels of black on each side.
        black: a pixel, (1, channels, 1, 1).

    Returns:
        Of the shape of `images`.
    """
    num_images, channels, height, width = images.shape
    framed = black.repeat(num_images, 1, height + 2 * padding, width + 2 * padding)
    framed[:, :, padding : padding + height, padding : padding + width] = images
    is_flipped, top, left = draws.unbind(1)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(num_images, width)
    columns = left[:, None] + torch.where(is_flipped[:, None] == 1, width - 1 - columns, columns)
    return framed[
        torch.arange(num_images, device=images.device)[:, None, None, None],
        torch.arange(channels, device=images.device)[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def draw_flips_and_crops(num_images: int, *, padding: int, generator: torch.Generator) -> Tensor:
    """For each image whether it is mirrored (0 or 1) and the window's top and left edge, each 0 to 2 * padding.

    They are drawn on the CPU, so that they are the same on every device.

    Returns:
        int64, (num_images, 3).
    """
    is_flipped = torch.randint(2, (num_images, 1), generator=generator)
    return torch.cat((is_flipped, torch.randint(2 * padding + 1, (num_images, 2), generator=generator)), dim=1)


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
    return on_device((train, train_labels, test, test_labels), mean=mean, std=std, device=device)


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
    copies: Mapping[str, str] | None = None,
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
        copies: such hashes of copies that are known not to be the originals, and accepted; with the note that results
            made from each are shown with.
        path: a local folder.
        device: where the tensors go.

    Raises:
        UsageError: the data are not there, cannot be downloaded, or are not the expected ones.
    """
    folder = hub.local_folder(path)
    if folder is not None:
        files = [
            _find(folder, repo=repo, file=name, split=split, source=hub.named(folder, path=path))
            for split, name in (("train", train_file), ("test", test_file))
        ]
    else:
        files = hub.download(
            repo,
            (train_file, test_file),
            revision=revision,
            ways_out=f"With a local copy: data.path=<folder>, or {hub.DATA_VARIABLE}=<folder> in the environment "
            "(train.parquet and test.parquet in the hub's layout).\n"
            "Without network or copy: task=digits_mlp trains the same model on digits that come with scikit-learn.",
        )
    arrays = _decode(files, image_column=image_column, label_column=label_column)
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    found, known = digest.hexdigest(), copies or {}
    if sha256 is not None and found not in (sha256, *known):
        raise UsageError(
            f"{repo}: the images decoded from {files[0].parent} are not the expected ones:\n"
            f"their sha256 is {found}, expected {sha256}.\n"
            "Use the original files, or accept these with data.sha256=null."
        )
    images, labels, test_images, test_labels = arrays
    return on_device(
        (_channels_first(images), labels, _channels_first(test_images), test_labels),
        mean=mean,
        std=std,
        note=known.get(found, ""),
        device=device,
    )


def on_device(
    arrays: Sequence[NDArray[Any]],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    note: str = "",
    device: torch.device,
) -> ImageData:
    """Images with their labels as tensors: normalised, or as bytes where float32 would take too much.

    Args:
        arrays: training images (num_train, channels, height, width) with pixels in [0, 255], their labels, and the same
            for test.
        mean: per channel, of pixels scaled to [0, 1].
        std: per channel, of pixels scaled to [0, 1].
        note: shown with every result made from these.
        device: where the tensors go.

    Raises:
        UsageError: mean or std do not fit the images.
    """
    train, train_labels, test, test_labels = arrays
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != train.shape[1]:
            raise UsageError(
                f"data.{name}={list(values)}: {len(values)} values, and the images have {train.shape[1]} channel(s).\n"
                "Give one value for each channel."
            )
    shape = (1, -1, 1, 1)
    shape = (1, -1, 1, 1)
    channel_mean = torch.tensor(mean, device=device).view(shape)
    channel_std = torch.tensor(std, device=device).view(shape)
    keeps_bytes = train.dtype == np.uint8 and 4 * (train.size + test.size) > MAX_FLOAT_BYTES

    def inputs(images: NDArray[Any]) -> Tensor:
        kept = torch.as_tensor(images, device=device).contiguous()
        return kept if keeps_bytes else _normalised(kept, channel_mean, channel_std)

    return ImageData(
        train_inputs=inputs(train),
        train_labels=torch.as_tensor(train_labels, device=device),
        test_inputs=inputs(test),
        test_labels=torch.as_tensor(test_labels, device=device),
        num_classes=int(train_labels.max()) + 1,
        mean=channel_mean,
        std=channel_std,
        note=note,
    )


def _normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return images.float().div_(255).sub_(mean).div_(std)


def _find(folder: Path, *, repo: str, file: str, split: str, source: str) -> Path:
    name = repo.rpartition("/")[2]
    candidates = [
        folder / name / f"{split}.parquet",
        folder / f"{split}.parquet",
        folder / file,
        folder / Path(file).name,
    ]
    return hub.find(candidates, what=f"{split} split of {repo}", source=source)


def _decode(files: Sequence[Path], *, image_column: str, label_column: str) -> list[NDArray[Any]]:
    key = hashlib.sha256(f"{image_column}/{label_column}".encode())
    for file in files:
        key.update(file.read_bytes())
    return hub.cached_arrays(
        key.hexdigest(),
        lambda: [
            array for file in files for array in _read(file, image_column=image_column, label_column=label_column)
        ],
    )


def _read(file: Path, *, image_column: str, label_column: str) -> tuple[NDArray[Any], NDArray[Any]]:
    from PIL import Image

    columns = hub.read_columns(file, (image_column, label_column))
    images = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in columns[image_column].to_pylist()]
    if len(shapes := {image.shape for image in images}) != 1:
        found = ", ".join(" x ".join(map(str, shape)) for shape in sorted(shapes)[:3])
        raise UsageError(
            f"{file}: the images differ in size or kind ({len(shapes)} of them, such as {found}).\n"
            "data=hub_images brings them to one size."
        )
    return np.stack(images), columns[label_column].to_numpy().astype(np.int64)


def _channels_first(images: NDArray[Any]) -> NDArray[Any]:
    return images[:, np.newaxis] if images.ndim == 3 else np.moveaxis(images, -1, 1)
