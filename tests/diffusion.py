"""Diffusion models as small as can be, in diffusers' layout, with random weights."""

from pathlib import Path
from typing import Any

import torch

SIZE = 16  # of an image; latents are an eighth of it
WORDS = ("a", "photo", "of", "cat", "dog", "red")

UNET: dict[str, Any] = {
    "sample_size": SIZE // 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "cross_attention_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
UNET_XL = {
    **UNET,
    "cross_attention_dim": 16,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 32,
    "use_linear_projection": True,
}
TEXT: dict[str, Any] = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 77,
    "projection_dim": 8,
}
SCHEDULER = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def save(folder: Path, *, architecture: str = "sd", prediction_type: str = "epsilon") -> Path:
    """Make such a model."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    is_xl = architecture == "sdxl"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        UNet2DConditionModel(**(UNET_XL if is_xl else UNET)).save_pretrained(folder / "unet")
        vae = {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4, "latent_channels": 4, "sample_size": SIZE}
        kinds = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
        AutoencoderKL(**vae, **kinds).save_pretrained(folder / "vae")
        tokens = ["<|startoftext|>", "<|endoftext|>", *(f"{word}</w>" for word in WORDS)]
        letters = sorted({letter for word in WORDS for letter in word})
        known = dict.fromkeys([*tokens, *letters, *(f"{letter}</w>" for letter in letters)])
        vocabulary = {token: place for place, token in enumerate(known)}
        tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
        encoders = {"": CLIPTextModel, "_2": CLIPTextModelWithProjection} if is_xl else {"": CLIPTextModel}
        for suffix, kind in encoders.items():
            config = CLIPTextConfig(**TEXT, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1)
            kind(config).save_pretrained(folder / f"text_encoder{suffix}")
            tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
    DDPMScheduler(**SCHEDULER, prediction_type=prediction_type).save_pretrained(folder / "scheduler")
    return folder
