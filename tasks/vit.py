"""Vision transformers on images with labels, of any size that data and model have."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from optbench.data import (
    ImageData,
    check_batch_size,
    draw_flips_and_crops,
    flip_and_crop,
    full_batches,
    passes,
)
from optbench.errors import UsageError
from optbench.parsing import parse_value
from optbench.seeding import stream

EVALUATION_BATCH_SIZE = 1_000
MODELS = ("vit_tiny", "vit_cifar10", "vit_s16", "vit_b16")
DATA = ("cifar10", "mnist", "fashion_mnist", "digits", "hub_images", "image_folder")
INIT_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class VisionTransformerConfig:
    """What a vision transformer is made of; the size of the images and the number of classes come from the data.

    Attributes:
        patch_size: pixels on each side of a patch.
        dim: width.
        depth: how many blocks.
        num_heads: of the attention; they share the width.
        mlp_dim: width of the hidden layer in each block.
        dropout: of the embedded patches, the attention's weights, and what attention and both layers of the MLP give.
        qkv_bias: whether queries, keys and values have biases.
        patch_norm: whether patches are normalised before and after they are embedded.
        init: `truncated_normal` has weights and positions with a standard deviation of 0.02 and biases of zero;
            `pytorch` is what its layers come with, and a class token from N(0, 1) like the positions.
    """

    patch_size: int
    dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    dropout: float
    qkv_bias: bool
    patch_norm: bool
    init: Literal["truncated_normal", "pytorch"]

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            parse_value(getattr(self, field.name), hints[field.name], where=f"model.{field.name}")
        for name in ("patch_size", "dim", "depth", "num_heads", "mlp_dim"):
            if getattr(self, name) < 1:
                raise UsageError(f"model.{name}={getattr(self, name)}: expected 1 or more.")
        if self.dim % self.num_heads:
            raise UsageError(
                f"model.num_heads={self.num_heads} does not divide model.dim={self.dim}: each head has the same width."
            )
        if not 0 <= self.dropout < 1:
            raise UsageError(f"model.dropout={self.dropout}: expected a number from 0 to below 1.")


class Attention(nn.Module):
    """Scaled dot products of queries and keys, in several heads.

    Args:
        config: of the transformer.
    """

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=config.qkv_bias)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Of (batch, tokens, dim), the same shape."""
        queries, keys, values = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        found = functional.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
        mixed: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm and beside a residual connection.

    Args:
        config: of the transformer.
    """

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = Attention(config)
        self.attention_dropout = nn.Dropout(config.dropout)
        self.mlp_norm = nn.LayerNorm(config.dim)
        self.mlp = nn.Sequential(
            nn.Linear(config.dim, config.mlp_dim),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.mlp_dim, config.dim),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Of (batch, tokens, dim), the same shape."""
        x = x + self.attention_dropout(self.attention(self.attention_norm(x)))
        mixed: Tensor = x + self.mlp(self.mlp_norm(x))
        return mixed


class VisionTransformer(nn.Module):
    """A vision transformer whose class token is classified (Dosovitskiy et al., 2021, https://arxiv.org/abs/2010.11929).

    Args:
        config: what it is made of.
        image_shape: channels, height and width; the patch divides the last two.
        num_classes: outputs.
    """

    def __init__(self, config: VisionTransformerConfig, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        size = config.patch_size
        num_tokens = 1 + (height // size) * (width // size)
        self.patch_size = size
        self.is_checkpointing = False
        # The patches' embedding is a convolution that has no overlap, written as the product that it is.
        self.pixel_norm = nn.LayerNorm(channels * size**2) if config.patch_norm else nn.Identity()
        self.embedding = nn.Linear(channels * size**2, config.dim)
        self.embedding_norm = nn.LayerNorm(config.dim) if config.patch_norm else nn.Identity()
        self.class_token = nn.Parameter(torch.randn(config.dim))
        # An embedding, so that what tells weights apart, such as Muon, knows it for one; torch draws it from N(0, 1).
        self.positions = nn.Embedding(num_tokens, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, num_classes)
        if config.init == "truncated_normal":
            self._init_truncated_normal()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images (batch, channels, height, width)."""
        size = self.patch_size
        dtype = self.class_token.dtype  # autocast gives products in another, and what is added up needs this one
        tiles = images.to(dtype).unflatten(2, (-1, size)).unflatten(4, (-1, size))
        patches = self.pixel_norm(tiles.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))
        x = self.embedding_norm(self.embedding(patches).to(dtype))
        x = torch.cat((self.class_token.expand(len(x), 1, -1), x), dim=1)
        x = self.dropout(x + self.positions.weight)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.is_checkpointing and self.training else block(x)
        logits: Tensor = self.head(self.norm(x[:, 0]))
        return logits

    def gradient_checkpointing_enable(self) -> None:
        """Keep what goes into each block alone, and go through the block again in the backward pass."""
        self.is_checkpointing = True

    def _init_truncated_normal(self) -> None:
        nn.init.trunc_normal_(self.class_token, std=INIT_STD)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


class Vit:
    """A vision transformer and cross-entropy, on images that are mirrored and shifted anew in each pass.

    Minibatches go through a new permutation of the training set in each pass; a last, smaller one is dropped.

    Args:
        data: the images.
        model: what the transformer is made of.
        batch_size: images in a minibatch.
        augmentation: `flip_crop` mirrors half of the images and takes a window of each in a black frame; `none` leaves
            them as they are.
        crop_padding: pixels of that frame on each side.
        label_smoothing: share of the target that is spread over all classes, in [0, 1); the test loss has none.
        num_train: use the first training images alone; None uses all.
        num_test: the same of test images.
        seed: the trial's seed.
        device: where to train.

    Raises:
        UsageError: a value is out of its range, the patch does not divide the images, or data or model are of another
            kind.
    """

    def __init__(
        self,
        *,
        data: ImageData,
        model: VisionTransformerConfig,
        batch_size: int,
        augmentation: Literal["flip_crop", "none"],
        crop_padding: int,
        label_smoothing: float,
        num_train: int | None,
        num_test: int | None,
        seed: int,
        device: torch.device,
    ) -> None:
        _check_kinds(data, model)
        parse_value(augmentation, Literal["flip_crop", "none"], where="task.augmentation")
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"task.label_smoothing={label_smoothing}: expected a number from 0 to below 1.")
        if crop_padding < 0:
            raise UsageError(f"task.crop_padding={crop_padding}: expected 0 or more pixels.")
        self._train_inputs, self._train_labels = data.first(num_train, split="train")
        self._test_inputs, self._test_labels = data.first(num_test, split="test")
        check_batch_size(batch_size, len(self._train_inputs))
        self._data = data
        self._batch_size = batch_size
        self._crop_padding = crop_padding if augmentation == "flip_crop" else None
        self._label_smoothing = label_smoothing
        self._seed = seed
        channels, height, width = self._train_inputs.shape[1:]
        if height % model.patch_size or width % model.patch_size:
            raise UsageError(
                f"model.patch_size={model.patch_size} does not divide the images of the data, "
                f"which have {height} x {width} pixels.\n"
                "Choose another model.patch_size=..., or, of data that are resized, another data.image_size=..."
            )
        with torch.random.fork_rng(devices=[]):  # on the CPU first: the same weights on every device
            torch.manual_seed(stream(seed, "init"))
            transformer = VisionTransformer(model, image_shape=(channels, height, width), num_classes=data.num_classes)
        self.model = transformer.to(device)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels, in the order of `DataLoader(shuffle=True, drop_last=True, generator=...)`."""
        inputs, labels, padding = self._train_inputs, self._train_labels, self._crop_padding
        generator = torch.Generator().manual_seed(stream(self._seed, "augmentation"))
        black = self._data.black
        for order in passes(len(inputs), seed=stream(self._seed, "order"), device=inputs.device):
            if padding is None:
                for batch in full_batches(order, self._batch_size):
                    yield self._data.ready(inputs[batch]), labels[batch]
                continue
            # For a whole pass at once, since a GPU stops for each transfer.
            draws = draw_flips_and_crops(len(inputs), padding=padding, generator=generator).to(inputs.device)
            for batch in full_batches(order, self._batch_size):
                images = flip_and_crop(inputs[batch], draws[batch], padding=padding, black=black)
                yield self._data.ready(images), labels[batch]

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy of the minibatch, with smoothed labels where that is asked for."""
        inputs, labels = batch
        return functional.cross_entropy(self.model(inputs), labels, label_smoothing=self._label_smoothing)

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """`test_loss`, the mean cross-entropy, and `test_accuracy`, in [0, 1], over the test images; no dropout."""
        labels = self._test_labels
        loss = torch.zeros((), device=labels.device)
        correct = torch.zeros((), device=labels.device)
        was_training = self.model.training
        self.model.eval()
        for start in range(0, len(labels), EVALUATION_BATCH_SIZE):
            part = slice(start, start + EVALUATION_BATCH_SIZE)
            outputs = self.model(self._data.ready(self._test_inputs[part]))
            loss += functional.cross_entropy(outputs, labels[part], reduction="sum")
            correct += (outputs.argmax(1) == labels[part]).sum()
        self.model.train(was_training)
        return {"test_loss": loss.item() / len(labels), "test_accuracy": correct.item() / len(labels)}


def _check_kinds(data: Any, model: Any) -> None:
    if not isinstance(data, ImageData):
        raise UsageError(
            f"task=vit learns from images with labels, not from {type(data).__name__}: data={', '.join(DATA)}."
        )
    if not isinstance(model, VisionTransformerConfig):
        raise UsageError(f"task=vit takes model={', '.join(MODELS)}, not a {type(model).__name__}.")
