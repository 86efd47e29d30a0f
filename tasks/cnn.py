"""Small convolutional networks on images with labels, as published comparisons of optimizers have them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional

from optbench.data import (
    ImageData,
    check_batch_size,
    draw_flips_and_crops,
    flip_and_crop,
    full_batches,
    has_values,
    passes,
)
from optbench.errors import UsageError
from optbench.parsing import parse_value
from optbench.seeding import stream

EVALUATION_BATCH_SIZE = 1_000
MODELS = ("cnn_mnist", "cnn_2c2d", "cnn_3c3d")
DATA = ("mnist", "fashion_mnist", "cifar10", "digits", "hub_images", "image_folder")
POOL_STRIDE = 2
# Of the initialisation `truncated_normal`: the normal distribution is cut off at two of its standard deviations.
INIT_STD = 0.05
INIT_BIAS = 0.05
# What a normal distribution that is cut off so has for a standard deviation, as a part of that of the whole one.
CUT_OFF_STD = 0.8796256610342398
# By which saturation and contrast are multiplied, evenly between the two.
SATURATION = (0.5, 1.5)
CONTRAST = (0.2, 1.8)

Augmentation = Literal["none", "flip_crop", "flip_crop_colour"]


@dataclass(frozen=True, kw_only=True)
class ConvNetConfig:
    """What a convolutional network is made of; the size of the images and the number of classes come from the data.

    Attributes:
        channels: that each convolution gives; a ReLU follows each.
        kernel_sizes: pixels on each side of each kernel; odd where the padding is `same`.
        paddings: of each convolution: `same` keeps the size of the image, `valid` has no padding.
        pool_sizes: pixels on each side of the window of which the largest is taken behind each convolution, at every
            second place, with padding such that half as many are left, rounded up; 2, 3, or 0 for none.
        hidden_sizes: widths of the layers between the convolutions and the last layer, with ReLU behind each.
        conv_dropout: of what the convolutions give.
        hidden_dropout: of what each hidden layer gives.
        init: `truncated_normal` has weights with a standard deviation of 0.05, cut off at two of them, and biases of
            0.05; `xavier` those of Glorot and Bengio (2010, https://proceedings.mlr.press/v9/glorot10a.html), normal
            and cut off at two standard deviations in convolutions, uniform elsewhere, and biases of zero; `pytorch` is
            what its layers come with.
        l2: half of it times the sum of all squared weights, biases aside, is added to the training loss.
    """

    channels: Sequence[int]
    kernel_sizes: Sequence[int]
    paddings: Sequence[Literal["same", "valid"]]
    pool_sizes: Sequence[Literal[0, 2, 3]]
    hidden_sizes: Sequence[int]
    conv_dropout: float
    hidden_dropout: float
    init: Literal["truncated_normal", "xavier", "pytorch"]
    l2: float

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            given, where = getattr(self, field.name), f"model.{field.name}"
            if field.name not in ("channels", "kernel_sizes", "paddings", "pool_sizes", "hidden_sizes"):
                parse_value(given, hints[field.name], where=where)
                continue
            if isinstance(given, str) or not isinstance(given, Sequence):
                raise UsageError(f"{where}={given!r}: expected a list, with one for each layer.")
            for value in given:
                parse_value(value, *get_args(hints[field.name]), where=where)
                if field.name != "pool_sizes" and isinstance(value, int) and value < 1:
                    raise UsageError(f"{where}={list(given)}: expected 1 or more of each.")
        for name in ("kernel_sizes", "paddings", "pool_sizes"):
            if len(getattr(self, name)) != len(self.channels):
                raise UsageError(
                    f"model.{name} has {len(getattr(self, name))} values and model.channels {len(self.channels)}: "
                    "each convolution has one of both."
                )
        if any(size % 2 == 0 and how == "same" for size, how in zip(self.kernel_sizes, self.paddings, strict=True)):
            raise UsageError(f"model.kernel_sizes={list(self.kernel_sizes)}: those with padding `same` must be odd.")
        for name in ("conv_dropout", "hidden_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"model.{name}={getattr(self, name)}: expected a number from 0 to below 1.")
        if not 0 <= self.l2 < math.inf:
            raise UsageError(f"model.l2={self.l2}: expected 0 or more.")


class Pool(nn.Module):
    """The largest value in a window at every second place, padded as TensorFlow's `same` is.

    Args:
        size: pixels on each side of the window, 2 or 3.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Of (batch, channels, height, width), half the height and width, rounded up."""
        # Behind an even number of pixels, which is what ceil_mode adds; around an odd one where the window is 3.
        padding = [length % POOL_STRIDE * (self.size - POOL_STRIDE) for length in x.shape[-2:]]
        return functional.max_pool2d(x, self.size, POOL_STRIDE, padding=padding, ceil_mode=True)


class ConvNet(nn.Module):
    """Convolutions with ReLU, then fully connected layers with ReLU, then one output for each class.

    Args:
        config: what it is made of.
        image_shape: channels, height and width.
        num_classes: outputs.

    Raises:
        UsageError: the images are too small for it.
    """

    def __init__(self, config: ConvNetConfig, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        inputs, *size = image_shape
        convolutions: list[nn.Module] = []
        for outputs, kernel_size, padding, pool_size in zip(
            config.channels, config.kernel_sizes, config.paddings, config.pool_sizes, strict=True
        ):
            if padding == "valid":
                size = [length - kernel_size + 1 for length in size]
            if min(size) < 1:
                raise UsageError(
                    f"images of {image_shape[1]} x {image_shape[2]} pixels are too small for this model: a kernel of "
                    f"{kernel_size} x {kernel_size} finds no place.\nChoose another model or data with larger images, "
                    f"such as model={MODELS[0]} data={DATA[0]}."
                )
            convolutions += [nn.Conv2d(inputs, outputs, kernel_size, padding=padding), nn.ReLU()]
            if pool_size:
                convolutions.append(Pool(pool_size))
                size = [-(-length // POOL_STRIDE) for length in size]
            inputs = outputs
        dropout = [nn.Dropout(config.conv_dropout)] if config.conv_dropout else []
        self.convolutions = nn.Sequential(*convolutions, *dropout)
        inputs *= math.prod(size)
        hidden: list[nn.Module] = []
        for outputs in config.hidden_sizes:
            dropout = [nn.Dropout(config.hidden_dropout)] if config.hidden_dropout else []
            hidden += [nn.Linear(inputs, outputs), nn.ReLU(), *dropout]
            inputs = outputs
        self.hidden = nn.Sequential(*hidden)
        self.head = nn.Linear(inputs, num_classes)
        if has_values():  # numbers outside of the bounds are drawn again, which would not end without any
            for module in self.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    _init(module, config.init)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images (batch, channels, height, width)."""
        logits: Tensor = self.head(self.hidden(self.convolutions(images).flatten(1)))
        return logits


class Cnn:
    """A convolutional network and cross-entropy.

    Minibatches go through a new permutation of the training set in each pass; a last, smaller one is dropped.

    Args:
        data: the images.
        model: what the network is made of.
        batch_size: images in a minibatch.
        augmentation: `flip_crop` mirrors half of the training images and takes a window of each in a black frame;
            `flip_crop_colour` changes their saturation and contrast, too.
        crop_padding: pixels of that frame on each side.
        standardize_images: bring each image by itself to a mean of 0 and a standard deviation of 1, all its channels
            together, in training and test.
        num_train: use the first training images alone; None uses all.
        num_test: the same of test images.
        init_seed: of the weights; None derives it from `seed`.
        order_seed: of the minibatches' order, with `seed` added to it; None derives it from `seed`.
        seed: the trial's seed.
        device: where to train.

    Raises:
        UsageError: a value is out of its range, the images are too small, or data or model are of another kind.
    """

    def __init__(
        self,
        *,
        data: ImageData,
        model: ConvNetConfig,
        batch_size: int,
        augmentation: Augmentation,
        crop_padding: int,
        standardize_images: bool,
        num_train: int | None,
        num_test: int | None,
        init_seed: int | None,
        order_seed: int | None,
        seed: int,
        device: torch.device,
    ) -> None:
        _check_kinds(data, model)
        parse_value(augmentation, Augmentation, where="task.augmentation")
        parse_value(standardize_images, bool, where="task.standardize_images")
        if crop_padding < 0:
            raise UsageError(f"task.crop_padding={crop_padding}: expected 0 or more pixels.")
        self._train_inputs, self._train_labels = data.first(num_train, split="train")
        self._test_inputs, self._test_labels = data.first(num_test, split="test")
        check_batch_size(batch_size, len(self._train_inputs))
        self._data = data
        self._batch_size = batch_size
        self._crop_padding = None if augmentation == "none" else crop_padding
        self._has_colours = augmentation == "flip_crop_colour"
        self._is_standardized = standardize_images
        self._l2 = model.l2
        self._seed = seed
        self._order_seed = stream(seed, "order") if order_seed is None else order_seed + seed
        channels, height, width = self._train_inputs.shape[1:]
        with torch.random.fork_rng(devices=[]):  # on the CPU first: the same weights on every device
            torch.manual_seed(stream(seed, "init") if init_seed is None else init_seed)
            network = ConvNet(model, image_shape=(channels, height, width), num_classes=data.num_classes)
        self.model = network.to(device)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels, in the order of `DataLoader(shuffle=True, drop_last=True, generator=...)`."""
        inputs, labels, padding = self._train_inputs, self._train_labels, self._crop_padding
        generator = torch.Generator().manual_seed(stream(self._seed, "augmentation"))
        black = self._data.black
        for order in passes(len(inputs), seed=self._order_seed, device=inputs.device):
            if padding is None:
                for batch in full_batches(order, self._batch_size):
                    yield self._ready(inputs[batch]), labels[batch]
                continue
            # For a whole pass at once, since a GPU stops for each transfer.
            draws = draw_flips_and_crops(len(inputs), padding=padding, generator=generator).to(inputs.device)
            colours = torch.rand(len(inputs), 2, generator=generator).to(inputs.device) if self._has_colours else None
            for batch in full_batches(order, self._batch_size):
                images = flip_and_crop(inputs[batch], draws[batch], padding=padding, black=black)
                yield self._ready(images, None if colours is None else colours[batch]), labels[batch]

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy of the minibatch, with the model's L2 term where it has one."""
        inputs, labels = batch
        loss = functional.cross_entropy(self.model(inputs), labels)
        if self._l2:
            weights = [parameter for parameter in self.model.parameters() if parameter.ndim > 1]
            loss = loss + 0.5 * self._l2 * torch.stack([weight.float().square().sum() for weight in weights]).sum()
        return loss

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """`test_loss`, the mean cross-entropy without any L2 term, and `test_accuracy`, in [0, 1]; no dropout."""
        labels = self._test_labels
        loss = torch.zeros((), device=labels.device)
        correct = torch.zeros((), device=labels.device)
        was_training = self.model.training
        self.model.eval()
        for start in range(0, len(labels), EVALUATION_BATCH_SIZE):
            part = slice(start, start + EVALUATION_BATCH_SIZE)
            outputs = self.model(self._ready(self._test_inputs[part]))
            loss += functional.cross_entropy(outputs, labels[part], reduction="sum")
            correct += (outputs.argmax(1) == labels[part]).sum()
        self.model.train(was_training)
        return {"test_loss": loss.item() / len(labels), "test_accuracy": correct.item() / len(labels)}

    def _ready(self, images: Tensor, colours: Tensor | None = None) -> Tensor:
        """Images as the model takes them; in other colours where numbers in [0, 1) for these are given."""
        images = self._data.ready(images)
        if colours is None and not self._is_standardized:
            return images
        mean, std = self._data.mean, self._data.std
        pixels = images if mean is None or std is None else images * std + mean  # in [0, 1]
        if colours is not None:
            pixels = recolour(pixels, colours)
        if self._is_standardized:
            return standardize(pixels)
        return pixels if mean is None or std is None else (pixels - mean) / std


def recolour(pixels: Tensor, draws: Tensor) -> Tensor:
    """Images in another saturation, then in another contrast: TensorFlow's adjust_saturation and adjust_contrast.

    Args:
        pixels: (num_images, channels, height, width), in [0, 1].
        draws: (num_images, 2), in [0, 1]: how far between the least and the largest factor.

    Returns:
        Of the shape of `pixels`; may leave [0, 1].
    """
    low, high = (torch.tensor(pair, device=draws.device) for pair in zip(SATURATION, CONTRAST, strict=True))
    saturation, contrast = (low + (high - low) * draws)[:, :, None, None, None].unbind(1)
    # In HSV the hue and the largest channel stay; a saturation, 1 - smallest / largest, is at most 1.
    largest, smallest = pixels.amax(1, keepdim=True), pixels.amin(1, keepdim=True)
    factor = torch.minimum(saturation, largest / (largest - smallest).clamp(min=torch.finfo(pixels.dtype).tiny))
    pixels = largest - (largest - pixels) * factor
    mean = pixels.mean((2, 3), keepdim=True)
    return (pixels - mean) * contrast + mean


def standardize(pixels: Tensor) -> Tensor:
    """Images in [0, 1], each with mean 0 and standard deviation 1: TensorFlow's per_image_standardization."""
    std, mean = torch.std_mean(pixels, (1, 2, 3), correction=0, keepdim=True)
    return (pixels - mean) / std.clamp(min=1 / (255 * math.sqrt(pixels[0].numel())))


def _init(layer: nn.Conv2d | nn.Linear, how: str) -> None:
    assert layer.bias is not None
    weight, bias = layer.weight, layer.bias
    if how == "truncated_normal":
        nn.init.trunc_normal_(weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
        nn.init.constant_(bias, INIT_BIAS)
    elif how == "xavier":
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(weight)
        else:
            fans = (weight.shape[0] + weight.shape[1]) * weight[0, 0].numel()
            std = math.sqrt(2 / fans) / CUT_OFF_STD
            nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(bias)


def _check_kinds(data: Any, model: Any) -> None:
    if not isinstance(data, ImageData):
        raise UsageError(
            f"task=cnn learns from images with labels, not from {type(data).__name__}: data={', '.join(DATA)}."
        )
    if not isinstance(model, ConvNetConfig):
        raise UsageError(f"task=cnn takes model={', '.join(MODELS)}, not a {type(model).__name__}.")
