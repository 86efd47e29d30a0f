"""Around a UNet: what captions and images are to it, and samples of it, by the pipelines of diffusers."""

import gc
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from optbench import hub
from optbench.imports import quiet
from optbench.lora.stable_diffusion import (
    TEXT_ENCODERS,
    DiffusionModel,
    load_scheduler,
    pipeline_class,
    unet_config,
    weights_of,
)

ENCODED_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What the UNet is told of captions.

    Attributes:
        embeddings: (captions, tokens, width).
        added: what sdxl wants besides: pooled embeddings (captions, width) and sizes (captions, 6); else empty.
    """

    embeddings: Tensor
    added: tuple[Tensor, ...]

    def of(self, captions: Tensor) -> tuple[Tensor, ...]:
        """The embeddings of these captions, by their places, and what is added."""
        return (self.embeddings[captions], *(tensor[captions] for tensor in self.added))

    @classmethod
    def from_tuple(cls, told: tuple[Tensor, ...]) -> Self:
        """Of what `of` gives."""
        return cls(embeddings=told[0], added=told[1:])


def encode_prompts(model: DiffusionModel, captions: Sequence[str], *, device: torch.device) -> Prompts:
    """What the text encoder makes of captions; random numbers where the model's weights are."""
    folder = weights_of(model)
    config = unet_config(model)
    num, resolution = len(captions), model.resolution
    sizes = torch.tensor([[resolution, resolution, 0, 0, resolution, resolution]], dtype=torch.float32)
    if folder is None:
        generator = torch.Generator().manual_seed(0)
        tokens = model.text_encoder["max_position_embeddings"]
        embeddings = torch.randn(num, tokens, config["cross_attention_dim"], generator=generator)
        pooled = None
        if model.architecture == "sdxl":
            width = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
            pooled = torch.randn(num, width, generator=generator)
    else:
        embeddings, pooled = _encoded(model, folder, captions, device=device)
    added = () if pooled is None else (pooled.to(device), sizes.repeat(num, 1).to(device))
    return Prompts(embeddings=embeddings.to(device), added=added)


@torch.no_grad()
def encode_images(model: DiffusionModel, images: Tensor, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of images, which the UNet works on; without a VAE, their pixels and 0.

    Args:
        model: whose VAE encodes them; what it gives is kept in the user's cache.
        images: bytes, (images, channels, resolution, resolution).
        device: where to encode, and where the latents go.
    """
    config = unet_config(model)
    if not model.has_vae:
        pixels = _with_channels(images, config["in_channels"]).to(device).float() / 127.5 - 1.0
        return pixels, torch.zeros_like(pixels)
    folder = weights_of(model)
    if folder is None:
        latents = torch.randn(_shape(model, len(images)), generator=torch.Generator().manual_seed(0)).to(device)
        return latents, torch.zeros_like(latents)
    key = hashlib.sha256(images.numpy().tobytes())
    for file in sorted((folder / "vae").glob("*.safetensors")):
        with file.open("rb") as opened:
            key.update(hashlib.file_digest(opened, "sha256").digest())

    def encode() -> list[Any]:
        vae = _load_vae(model, folder, device)
        found = []
        for part in _with_channels(images, 3).split(ENCODED_AT_ONCE):
            spread = vae.encode(part.to(device).float() / 127.5 - 1.0).latent_dist
            found.append((spread.mean.cpu(), spread.std.cpu()))
        factor = float(vae.config.scaling_factor)
        del vae
        gc.collect()
        return [(torch.cat(parts) * factor).numpy() for parts in zip(*found, strict=True)]

    mean, std = (torch.from_numpy(array).to(device, copy=True) for array in hub.cached_arrays(key.hexdigest(), encode))
    return mean, std


@torch.no_grad()
def draw(
    model: DiffusionModel, unet: nn.Module, prompts: Prompts, *, empty: Prompts, num_steps: int, seed: int
) -> Tensor:
    """Samples for these prompts, by DDIM with guidance.

    Args:
        model: whose UNet it is.
        unet: as it stands.
        prompts: a sample for each.
        empty: the prompt that says nothing, for guidance.
        num_steps: of DDIM (Song et al., 2020, https://arxiv.org/abs/2010.02502).
        seed: of the noise that they start from.

    Returns:
        Values in [0, 1], (prompts, channels, height, width), on the CPU.
    """
    folder = model.folder()
    assert folder is not None
    with quiet(extra="lora"):
        from diffusers import DDIMScheduler
    is_xl = model.architecture == "sdxl"
    device = prompts.embeddings.device
    vae = _load_vae(model, folder, device) if model.has_vae else None
    scheduler = DDIMScheduler.from_config(load_scheduler(model).config)
    pipeline = _pipeline(model.architecture, vae=vae, unet=unet, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    num = len(prompts.embeddings)
    noise = torch.randn(_shape(model, num), generator=torch.Generator().manual_seed(seed))
    unet_dtype = next((p.dtype for p in unet.parameters() if p.is_floating_point()), torch.float32)
    told = {
        "prompt_embeds": prompts.embeddings,
        "negative_prompt_embeds": empty.embeddings.expand(num, -1, -1),
    }
    if is_xl:
        told |= {
            "pooled_prompt_embeds": prompts.added[0],
            "negative_pooled_prompt_embeds": empty.added[0].expand(num, -1),
        }
    with quiet(extra="lora"):
        images: Tensor = pipeline(
            **{name: tensor.to(unet_dtype) for name, tensor in told.items()},
            latents=noise.to(device, unet_dtype),
            height=model.resolution,
            width=model.resolution,
            guidance_scale=model.guidance_scale,
            num_inference_steps=num_steps,
            output_type="latent",
        ).images
    if vae is not None:
        images = vae.decode(images.float() / vae.config.scaling_factor).sample
    return ((images.float().cpu() + 1.0) / 2.0).clamp(0.0, 1.0)


def _shape(model: DiffusionModel, num: int) -> tuple[int, ...]:
    """Of what the UNet takes for so many images."""
    config = unet_config(model)
    size = model.resolution // 8 if model.has_vae else config["sample_size"]
    return num, config["in_channels"], size, size


def _load_vae(model: DiffusionModel, folder: Path, device: torch.device) -> Any:
    """In float32 whatever its files are in: half precision overflows in the one of sdxl."""
    with quiet(extra="lora"):
        from diffusers import AutoencoderKL

        vae = AutoencoderKL.from_pretrained(
            folder / "vae", torch_dtype=torch.float32, variant=getattr(model, "variant", None)
        )
    return vae.requires_grad_(False).to(device).eval()


@torch.no_grad()
def _encoded(
    model: DiffusionModel, folder: Path, captions: Sequence[str], *, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Embeddings, and pooled ones where the architecture has them, as the pipelines of diffusers make them."""
    with quiet(extra="lora"):
        from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # of reading a file
        variant = getattr(model, "variant", None)
        kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
        parts: dict[str, Any] = {}
        for name in TEXT_ENCODERS[model.architecture]:
            encoder = kinds[name].from_pretrained(folder / name, dtype=torch.float32, variant=variant)
            parts[name] = encoder.to(device).eval()
            tokenizer = name.replace("text_encoder", "tokenizer")
            parts[tokenizer] = CLIPTokenizer.from_pretrained(folder / tokenizer)
        is_xl = model.architecture == "sdxl"
        pipeline = _pipeline(model.architecture, **parts)
        found = []
        for start in range(0, len(captions), ENCODED_AT_ONCE):
            own = list(captions[start : start + ENCODED_AT_ONCE])
            encoded = pipeline.encode_prompt(
                prompt=own, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )
            found.append((encoded[0].float(), encoded[2].float() if is_xl else None))
    pooled = [part for _, part in found if part is not None]
    return torch.cat([part for part, _ in found]), torch.cat(pooled) if pooled else None


def _pipeline(architecture: str, **parts: Any) -> Any:
    """A pipeline of these parts alone."""
    names = ["vae", "text_encoder", "tokenizer", "unet", "scheduler"]
    if architecture == "sd":
        more = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    else:
        names += ["text_encoder_2", "tokenizer_2"]
        more = {"add_watermarker": False}
    return pipeline_class(architecture)(**{**dict.fromkeys(names), **parts, **more})


def _with_channels(images: Tensor, channels: int) -> Tensor:
    """Grey where one channel is wanted, the same three times where three are."""
    if images.shape[1] == channels:
        return images
    return images.float().mean(1, keepdim=True).round().to(images.dtype).expand(-1, channels, -1, -1)
