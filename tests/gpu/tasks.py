"""Models of the sizes that people train, on random data, for a GPU; and small ones of the same kind."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from optbench.captions import CaptionedImages

Size = Literal["full", "small"]


class Random:
    """The same random minibatch in each step, for a model that `make` makes."""

    def __init__(self, *, size: Size, seed: int, device: torch.device) -> None:
        self.size = size
        self.device = device
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = self.make().to(device)

    def make(self) -> nn.Module:
        raise NotImplementedError

    def batch(self) -> Any:
        raise NotImplementedError

    def loss(self, batch: Any) -> Tensor:
        raise NotImplementedError

    def batches(self) -> Iterator[Any]:
        return itertools.repeat(self.batch())

    def evaluate(self) -> Mapping[str, float]:
        return {"test_loss": 0.0}


class Mlp(Random):
    """784-8192-8192-10 with ReLU: 74 million parameters, 1,024 examples."""

    def make(self) -> nn.Module:
        width = 8192 if self.size == "full" else 32
        return nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))

    def batch(self) -> tuple[Tensor, Tensor]:
        num_examples = 1024 if self.size == "full" else 8
        inputs = torch.randn(num_examples, 784, device=self.device)
        return inputs, torch.randint(10, (num_examples,), device=self.device)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, labels = batch
        return functional.cross_entropy(self.model(inputs), labels)


class VitB16(Random):
    """ViT-B/16 (Dosovitskiy et al., 2021, https://arxiv.org/abs/2010.11929): 86 million parameters, 32 images."""

    def make(self) -> nn.Module:
        from transformers import ViTConfig, ViTForImageClassification

        small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        sizes: dict[str, Any] = {} if self.size == "full" else {**small, "image_size": 32}
        return ViTForImageClassification(ViTConfig(num_labels=1000, **sizes)).train()

    def batch(self) -> tuple[Tensor, Tensor]:
        num_images, width = (32, 224) if self.size == "full" else (2, 32)
        images = torch.randn(num_images, 3, width, width, device=self.device)
        return images, torch.randint(1000, (num_images,), device=self.device)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return functional.cross_entropy(self.model(images).logits, labels)


class UnetLora(Random):
    """The UNet of Stable Diffusion 1.5 with adapters of rank 4 in all attention: 797,184 of 860 million are trained.

    https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5/blob/main/unet/config.json; the latents of one
    image of 512 pixels, and the error of the noise.
    """

    def make(self) -> nn.Module:
        from diffusers import UNet2DConditionModel
        from peft import LoraConfig, get_peft_model

        small = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 2}
        blocks = {
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        }
        full = {"block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "attention_head_dim": 8}
        sizes: dict[str, Any] = full if self.size == "full" else {**small, **blocks}
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, **sizes)
        lora = LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
        return get_peft_model(unet, lora)

    def batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        width = 64 if self.size == "full" else 8
        noisy, noise = (torch.randn(1, 4, width, width, device=self.device) for _ in range(2))
        return noisy, torch.randint(1000, (1,), device=self.device), torch.randn(1, 77, 768, device=self.device), noise

    def loss(self, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        noisy, times, prompt, noise = batch
        return functional.mse_loss(self.model(noisy, times, prompt).sample, noise)


def dots(*, size: int, device: torch.device) -> CaptionedImages:  # noqa: ARG001  they are encoded where they are wanted
    """Eight images of random dots, each with a caption."""
    images = torch.randint(256, (8, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    captions = tuple(f"dots {number}" for number in range(8))
    return CaptionedImages(
        train_images=images, train_captions=captions, test_images=images[:1], test_captions=captions[:1]
    )
