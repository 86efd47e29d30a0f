"""What is kept of adapters after a training: a file that diffusers loads, and samples without and with them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from optbench.imports import quiet
from optbench.lora.adapters import Lora
from optbench.lora.stable_diffusion import pipeline_class

MARGIN = 2
LABEL_HEIGHT = 12


def save_adapters(unet: nn.Module, folder: Path, *, start: Mapping[str, Tensor], architecture: str) -> None:
    """Leave `pytorch_lora_weights.safetensors`, with rank and alpha among its metadata.

    Args:
        unet: with adapters.
        folder: where it goes.
        start: what the adapters started from, by name, where peft has taken that off the frozen weights: then those
            that are left have twice the rank, B A - B0 A0, and go with the weights as they were before.
        architecture: sd or sdxl.
    """
    with quiet(extra="lora"):
        from diffusers.training_utils import _collate_lora_metadata
        from peft import get_peft_model_state_dict
    weights = {name: value.detach().cpu() for name, value in get_peft_model_state_dict(unet).items()}
    metadata = _collate_lora_metadata({"unet": unet})
    if start:
        told = metadata["unet_lora_adapter_metadata"]
        told["init_lora_weights"] = True  # who loads them shall not start anew
        told["r"] *= 2
        told["lora_alpha"] *= math.sqrt(2) if told["use_rslora"] else 2
        for name, began in start.items():
            rows = ".lora_A." in name
            weights[name] = torch.cat((weights[name], began if rows else -began), dim=0 if rows else 1)
    pipeline_class(architecture).save_lora_weights(folder, unet_lora_layers=weights, **metadata)


def starts(unet: nn.Module, adapters: Lora) -> Mapping[str, Tensor]:
    """A and B as they are, on the CPU, where peft has taken their product off the frozen weights; else nothing."""
    if not adapters.changes_base:
        return {}
    with quiet(extra="lora"):
        from peft import get_peft_model_state_dict
    return {
        name: value.detach().cpu().clone()
        for name, value in get_peft_model_state_dict(unet).items()
        if ".lora_A." in name or ".lora_B." in name
    }


@contextmanager
def without_adapters(unet: Any) -> Iterator[None]:
    """Have the model as it was before it got adapters."""
    unet.disable_adapters()
    try:
        yield
    finally:
        unet.enable_adapters()


def save_grid(rows: Mapping[str, Tensor], captions: Sequence[str], path: Path) -> None:
    """Leave a picture: a row for each name, a column for each caption, both written beside them.

    Args:
        rows: images in [0, 1], (captions, channels, height, width).
        captions: of the columns.
        path: of the PNG.
    """
    from PIL import Image, ImageDraw, ImageFont

    size = next(iter(rows.values())).shape[-1]
    shown = max(size, 64)  # small ones are enlarged, each pixel a square
    left = 60
    width = left + len(captions) * (shown + MARGIN)
    height = LABEL_HEIGHT + len(rows) * (shown + MARGIN)
    page = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(9)
    for column, caption in enumerate(captions):
        pen.text(
            (left + column * (shown + MARGIN), 0), _end(caption, pen, font=font, width=shown), fill="black", font=font
        )
    for row, (name, images) in enumerate(rows.items()):
        top = LABEL_HEIGHT + row * (shown + MARGIN)
        pen.text((2, top + shown // 2 - 5), name, fill="black", font=font)
        for column, image in enumerate(images):
            values = (image.expand(3, -1, -1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            square = Image.fromarray(values).resize((shown, shown), Image.Resampling.NEAREST)
            page.paste(square, (left + column * (shown + MARGIN), top))
    page.save(path)


def _end(caption: str, pen: Any, *, font: Any, width: int) -> str:
    """As much of the end of a caption as fits: it is the end that tells captions of one kind apart."""
    words = caption.split()
    for start in range(len(words)):
        text = " ".join(words[start:])
        if pen.textlength(text, font=font) <= width:
            return text
    return words[-1] if words else ""
