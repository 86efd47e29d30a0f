"""Diffusion models of Stable Diffusion's kind: from the hub, a folder in diffusers' layout, or with random weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

from optbench import hub
from optbench.data import has_values
from optbench.errors import UsageError
from optbench.imports import quiet
from optbench.seeding import stream

BaseDtype = Literal["fp32", "bf16", "fp16", "nf4"]
DTYPES: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "nf4": torch.bfloat16,  # what its layers compute in
}
# Each has a tokenizer.
TEXT_ENCODERS: Mapping[str, Sequence[str]] = {"sd": ("text_encoder",), "sdxl": ("text_encoder", "text_encoder_2")}


class DiffusionModel(Protocol):
    """What `model=` chooses for `task=lora_sd`.

    Attributes:
        architecture: sd, or sdxl with its two text encoders and the sizes among its conditions.
        resolution: height and width of an image.
        has_vae: whether the UNet works on latents; on pixels otherwise.
        guidance_scale: for samples.
        unet: its config, in diffusers' keys, for where its weights are not needed.
        text_encoder: its config, in transformers' keys; of a hub's model only how many tokens it takes.
        scheduler: the config of the noise.
    """

    @property
    def architecture(self) -> Literal["sd", "sdxl"]: ...  # noqa: D102
    @property
    def resolution(self) -> int: ...  # noqa: D102
    @property
    def has_vae(self) -> bool: ...  # noqa: D102
    @property
    def guidance_scale(self) -> float: ...  # noqa: D102
    @property
    def unet(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def text_encoder(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def scheduler(self) -> Mapping[str, Any]: ...  # noqa: D102

    def folder(self) -> Path | None:
        """Where the weights are, got or made where that is needed; None where they are random."""
        ...


@dataclass(frozen=True, kw_only=True)
class StableDiffusion:
    """A model of the hub, or a folder in the same layout.

    Attributes:
        architecture: sd or sdxl.
        repo: `owner/name` on the hub.
        revision: the commit.
        variant: of its files, such as fp16; None takes those without one.
        path: a local folder instead, as `hf download` or `save_pretrained` makes it; its own configs count.
        weights: pretrained; or random, which shows what a step costs and learns nothing of use.
        resolution: height and width of an image.
        guidance_scale: for samples.
        unet: its config, for random weights and where memory is predicted.
        text_encoder: how many tokens it takes, `max_position_embeddings`.
        scheduler: the config of the noise, for the same.

    Raises:
        UsageError: a value is none that it can have.
    """

    architecture: Literal["sd", "sdxl"]
    repo: str
    revision: str
    variant: str | None
    path: str | None
    weights: Literal["pretrained", "random"]
    resolution: int
    guidance_scale: float
    unet: Mapping[str, Any]
    text_encoder: Mapping[str, Any]
    scheduler: Mapping[str, Any]

    has_vae = True

    def __post_init__(self) -> None:
        for key, allowed in (("architecture", tuple(TEXT_ENCODERS)), ("weights", ("pretrained", "random"))):
            if getattr(self, key) not in allowed:
                raise UsageError(f"model.{key}={getattr(self, key)!r}: it is one of {', '.join(allowed)}.")
        if self.resolution < 8 or self.resolution % 8:
            raise UsageError(f"model.resolution={self.resolution}: it must be a multiple of 8, as the VAE needs it.")

    def folder(self) -> Path | None:
        """The local folder, or the hub's files in its client's cache; None where weights are random.

        Raises:
            UsageError: they are not there and cannot be had; names the ways out.
        """
        if self.weights == "random":
            return None
        if self.path is None:
            return hub.snapshot(self.repo, revision=self.revision, patterns=self._patterns, ways_out=self._ways_out)
        folder = Path(self.path).expanduser()
        parts = ("unet", "vae", "scheduler", *TEXT_ENCODERS[self.architecture])
        if missing := [part for part in parts if not any(folder.glob(f"{part}/*.json"))]:
            raise UsageError(
                f"model.path={folder}: it has no {', '.join(missing)}.\nIt is to be a folder as diffusers saves a "
                f"pipeline, with {', '.join(parts)}.\n{self._ways_out}"
            )
        return folder

    @property
    def _patterns(self) -> tuple[str, ...]:
        parts = ("unet", "vae", *TEXT_ENCODERS[self.architecture])
        ending = f".{self.variant}.safetensors" if self.variant else "el.safetensors"  # model..., not ...model.fp16
        return ("*.json", "*/*.json", "tokenizer*/*", *(f"{part}/*{ending}" for part in parts))

    @property
    def _ways_out(self) -> str:
        return (
            f"With a network: hf download {self.repo} --revision {self.revision}\n"
            "With a copy: model.path=<folder>\n"
            "Without either: model=tiny, which is trained here in minutes; or model.weights=random, for costs alone."
        )


def weights_of(model: DiffusionModel) -> Path | None:
    """The folder with the weights; None where they are random, and while memory is predicted, when none are read."""
    return model.folder() if has_values() else None


def pipeline_class(architecture: str) -> Any:
    """The pipeline of diffusers for this architecture."""
    with quiet(extra="lora"):
        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    return StableDiffusionXLPipeline if architecture == "sdxl" else StableDiffusionPipeline


def load_unet(model: DiffusionModel, *, dtype: BaseDtype, seed: int, device: torch.device) -> nn.Module:
    """The UNet, frozen, in this precision; random weights come from the trial's seed."""
    with quiet(extra="lora"):
        from diffusers import UNet2DConditionModel
    folder = weights_of(model)
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(stream(seed, "init"))
        if folder is None:
            unet = UNet2DConditionModel(**unet_config(model)).to(DTYPES[dtype])
        else:
            variant = getattr(model, "variant", None)
            unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=DTYPES[dtype], variant=variant)
        unet.requires_grad_(False)
        if dtype == "nf4":
            _quantise(unet)
    return unet.to(device)  # type: ignore[no-any-return, unused-ignore]


def unet_config(model: DiffusionModel) -> Mapping[str, Any]:
    """The UNet's config: that of a local folder, or else the one that the file of the model gives."""
    path = getattr(model, "path", None)
    file = Path(path).expanduser() / "unet" / "config.json" if path else None
    if file is None or not file.is_file():
        return model.unet
    with quiet(extra="lora"):
        from diffusers import UNet2DConditionModel
    config = UNet2DConditionModel.load_config(file)
    return {key: value for key, value in dict(config).items() if not key.startswith("_")}


def load_scheduler(model: DiffusionModel) -> Any:
    """How noise is added, as a `DDPMScheduler`."""
    with quiet(extra="lora"):
        from diffusers import DDPMScheduler
    folder = weights_of(model)
    if folder is None:
        return DDPMScheduler(**model.scheduler)
    return DDPMScheduler.from_pretrained(folder / "scheduler")


def _quantise(unet: nn.Module) -> None:
    """Linear layers in 4 bits, once on a device (QLoRA, Dettmers et al., 2023, https://arxiv.org/abs/2305.14314)."""
    import bitsandbytes as bnb

    for parent in list(unet.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                new: Any = bnb.nn.Linear4bit(  # type: ignore[attr-defined, no-untyped-call, unused-ignore]
                    layer.in_features, layer.out_features, compute_dtype=DTYPES["nf4"], quant_type="nf4", device="meta"
                )
                new.weight = bnb.nn.Params4bit(  # type: ignore[attr-defined, unused-ignore]
                    layer.weight.data, requires_grad=False, quant_type="nf4"
                )
                new.bias = layer.bias
                setattr(parent, name, new)
