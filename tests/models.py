"""Tasks with models of several kinds, for tests of what a step costs; their minibatches are random."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optbench.errors import UsageError
from optbench.trial import Trial
from tests.handmade import trial as handmade


def trial(model: str, *, batch_size: int, **changes: Any) -> Trial:
    """A trial of one of these, with AdamW where `changes`, by dotted keys, do not say otherwise."""
    task = {key.removeprefix("task."): value for key, value in changes.items() if key.startswith("task.")}
    return handmade(
        {
            "task": {
                "name": model.lower(),
                "_target_": f"tests.models.{model}",
                "batch_size": batch_size,
                "num_steps": 5,
                "evaluate_every_num_steps": 1,
                "metrics": {"test_loss": "min"},
                **task,
            },
            "data": None,
            "hardware.device": "cpu",
            "optimizer": {"name": "tested", "_target_": "torch.optim.AdamW", "lr": 0.001},
            **{key: value for key, value in changes.items() if not key.startswith("task.")},
        }
    )


class Images:
    """Random images and labels; a model of them is made by `make`."""

    size: int

    def __init__(self, *, batch_size: int, seed: int, device: torch.device, num_images: int | None = None) -> None:
        if num_images is not None and batch_size > num_images:
            raise UsageError(f"task.batch_size={batch_size}: there are {num_images} images.")
        self.batch_size = batch_size
        self.device = device
        torch.manual_seed(seed)
        self.model = self.make().to(device)

    def make(self) -> nn.Module:
        raise NotImplementedError

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            images = torch.randn(self.batch_size, 3, self.size, self.size, device=self.device)
            yield images, torch.randint(10, (self.batch_size,), device=self.device)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return functional.cross_entropy(self.model(images), labels)

    def evaluate(self) -> Mapping[str, float]:
        return {"test_loss": 0.0}


class Mlp(Images):
    size = 8

    def make(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 256), nn.ReLU(), nn.Linear(256, 10))


class Choosy(Mlp):
    """Learns from a number of images that depends on what they show."""

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        bright = images.mean((1, 2, 3)) > -1.0
        return functional.cross_entropy(self.model(images[bright]), labels[bright])


class Looking(Mlp):
    """Makes its minibatches in ways that need data."""

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in super().batches():
            found = torch.nonzero(labels >= 0)[:, 0].numpy()
            yield images[found.tolist()], labels[found.tolist()]


class Cnn(Images):
    """Convolutions, whose kernels need workspace."""

    size = 16

    def make(self) -> nn.Module:
        blocks: list[nn.Module] = []
        for inputs, outputs in ((3, 64), (64, 128), (128, 128)):
            blocks += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


class Huge(Images):
    """Ten gigabytes of parameters."""

    size = 8

    def make(self) -> nn.Module:
        layers = [nn.Linear(16_000, 16_000) for _ in range(10)]
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 16_000), *layers, nn.Linear(16_000, 10))


class Vit(Images):
    """A vision transformer of the library that most use."""

    size = 32

    def make(self) -> nn.Module:
        from transformers import ViTConfig, ViTForImageClassification

        config = ViTConfig(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            image_size=self.size,
            patch_size=8,
            num_labels=10,
        )
        return ViTForImageClassification(config).train()

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return functional.cross_entropy(self.model(images).logits, labels)


class Gpt:
    """A language model whose embedding is its output layer, too."""

    def __init__(self, *, batch_size: int, seed: int, device: torch.device) -> None:
        torch.manual_seed(seed)
        self.batch_size = batch_size
        self.device = device
        self.model = Decoder(num_tokens=256, width=64, depth=2).to(device)

    def batches(self) -> Iterator[Tensor]:
        while True:
            yield torch.randint(256, (self.batch_size, 33), device=self.device)

    def loss(self, batch: Tensor) -> Tensor:
        logits = self.model(batch[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    def evaluate(self) -> Mapping[str, float]:
        return {"test_loss": 0.0}


class Decoder(nn.Module):
    def __init__(self, *, num_tokens: int, width: int, depth: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(num_tokens, width)
        self.positions = nn.Parameter(torch.zeros(32, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, num_tokens, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Any:
        x = self.tokens(tokens) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.qkv(self.norms[0](x)).chunk(3, dim=-1))
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))
