"""A small diffusion model on pixels, of Stable Diffusion's classes, trained here on MNIST: it knows what it draws."""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from optbench.captions import DIGITS, load_mnist, mnist_config, shrunk
from optbench.errors import UsageError
from optbench.imports import quiet
from optbench.lora.recipes import cached
from optbench.lora.tokenizer import make_tokenizer
from optbench.parsing import json_safe, parse, parse_list, parse_mapping

# Part of what a trained base is known by: another way of making it is another number.
_VERSION = 1
_RESOLUTIONS = (8, 16, 32)

_log = logging.getLogger("optbench")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the base is trained: AdamW, a linear warm-up, then a half cosine to zero.

    Attributes:
        num_steps: optimizer steps.
        batch_size: images in each, drawn with replacement.
        lr: the peak learning rate.
        beta1: AdamW's.
        beta2: AdamW's.
        weight_decay: AdamW's, times the rate.
        num_warmup_steps: before the rate is at its peak.
        max_grad_norm: longer gradients are scaled down to it.
        caption: of an image, with {digit} where the English word for its class goes.
        empty_share: of captions that are left empty, in [0, 1): what guidance needs.
        seed: of the weights and of all that is drawn.
        num_threads: with another number sums are rounded in another order.
    """

    num_steps: int
    batch_size: int
    lr: float
    beta1: float
    beta2: float
    weight_decay: float
    num_warmup_steps: int
    max_grad_norm: float
    caption: str
    empty_share: float
    seed: int
    num_threads: int

    def __post_init__(self) -> None:
        for key in ("num_steps", "batch_size", "num_threads"):
            if getattr(self, key) < 1:
                raise UsageError(f"model.recipe.{key}={getattr(self, key)}: it is at least 1.")
        if self.num_warmup_steps < 0 or not self.lr > 0 or not self.max_grad_norm > 0:
            raise UsageError(
                f"model.recipe: lr={self.lr} and max_grad_norm={self.max_grad_norm} must be above 0, "
                f"num_warmup_steps={self.num_warmup_steps} at least 0."
            )
        if "{digit}" not in self.caption:
            raise UsageError(f"model.recipe.caption={self.caption!r}: it must hold {{digit}}, where the word goes.")
        if not 0 <= self.empty_share < 1:
            raise UsageError(f"model.recipe.empty_share={self.empty_share}: it is at least 0 and below 1.")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warmup = min(1.0, (step + 1) / (self.num_warmup_steps + 1))
        return self.lr * warmup * 0.5 * (1.0 + math.cos(math.pi * step / self.num_steps))


@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """A UNet with cross-attention on pixels, a text encoder and its tokenizer, trained once by a recipe and then kept.

    Its captions are those of the recipe. Each of their words is one token, and so is the word for every digit; other
    words are spelled in letters, as a byte-level encoding does.

    Attributes:
        resolution: height and width of an image: 8, 16 or 32.
        guidance_scale: for samples.
        unet: the config of a diffusers `UNet2DConditionModel`.
        text_encoder: the config of a transformers `CLIPTextModel`; the tokenizer gives the rest of it.
        scheduler: the config of a diffusers `DDPMScheduler`.
        recipe: the keys of `Recipe`, and `digits`, the classes of MNIST that it is trained on.
        data_path: a local folder with MNIST; None is the one of OPTBENCH_DATA, or the hub.

    Raises:
        UsageError: a value is none that it can have.
    """

    resolution: int
    guidance_scale: float
    unet: Mapping[str, Any]
    text_encoder: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    recipe: Mapping[str, Any]
    data_path: str | None

    has_vae = False

    def __post_init__(self) -> None:
        if self.resolution not in _RESOLUTIONS:
            raise UsageError(f"model.resolution={self.resolution}: it is one of {', '.join(map(str, _RESOLUTIONS))}.")
        for key in ("unet", "text_encoder", "scheduler", "recipe"):
            parse_mapping(getattr(self, key), where=f"model.{key}")
        for key, expected in (
            ("sample_size", self.resolution),
            ("in_channels", 1),
            ("out_channels", 1),
            ("cross_attention_dim", self.text_encoder.get("hidden_size")),
        ):
            if self.unet.get(key) != expected:
                raise UsageError(
                    f"model.unet.{key}={self.unet.get(key)}: it must be {expected}, as the images and text are."
                )
        self.parsed_recipe  # noqa: B018  raises where a value is wrong
        self.digits  # noqa: B018

    @property
    def architecture(self) -> Literal["sd", "sdxl"]:
        """That of Stable Diffusion 1."""
        return "sd"

    @cached_property
    def parsed_recipe(self) -> Recipe:
        """The recipe, checked."""
        values = {key: value for key, value in self.recipe.items() if key != "digits"}
        return parse(Recipe, values, where="model.recipe")

    @cached_property
    def digits(self) -> tuple[int, ...]:
        """The classes that it is trained on."""
        digits = parse_list(self.recipe.get("digits"), where="model.recipe.digits")
        if not digits or any(type(digit) is not int or not 0 <= digit <= 9 for digit in digits):
            raise UsageError(f"model.recipe.digits={list(digits)}: expected one or more of 0 to 9.")
        return tuple(digits)

    def folder(self) -> Path:
        """The trained model in the layout of diffusers' pipelines: unet, text_encoder, tokenizer, scheduler.

        It is trained where it is not in the user's cache, which takes minutes.

        Raises:
            UsageError: MNIST cannot be had, the cache cannot be written to, or a config is wrong.
        """
        keys = {
            "resolution": self.resolution,
            "unet": self.unet,
            "text_encoder": self.text_encoder,
            "scheduler": self.scheduler,
            "recipe": self.recipe,
        }
        data = {"version": _VERSION, "mnist": mnist_config()["sha256"]}
        folder: Path = cached("tiny", json_safe({**keys, **data}), self._make)
        return folder

    def _make(self, folder: Path) -> None:
        """Train it, and fill the folder."""
        with quiet(extra="lora"):
            import diffusers
        scheduler_class: Any = diffusers.DDPMScheduler
        recipe = self.parsed_recipe
        images, labels = self._images()
        captions = [recipe.caption.format(digit=word) for word in DIGITS]
        with _alone(recipe.num_threads), torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(recipe.seed)
            tokenizer = make_tokenizer(captions, max_length=self._num_tokens)
            unet, text_encoder = self._untrained(tokenizer)
            scheduler = scheduler_class(**self.scheduler)
            prompts = tokenizer([*captions, ""], padding="max_length", truncation=True, return_tensors="pt").input_ids
            _train((unet, text_encoder), recipe, scheduler=scheduler, images=images, labels=labels, prompts=prompts)
        with quiet(extra="lora"), _no_progress_bars():
            for name, part in (("unet", unet), ("text_encoder", text_encoder), ("scheduler", scheduler)):
                part.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / "tokenizer")

    @property
    def _num_tokens(self) -> int:
        return int(self.text_encoder["max_position_embeddings"])

    def _images(self) -> tuple[Tensor, Tensor]:
        """Those that it is trained on, float32 in [-1, 1], (images, 1, resolution, resolution), and their classes."""
        images, labels, _, _ = load_mnist(path=self.data_path)
        is_wanted = torch.isin(labels, torch.tensor(self.digits))
        return shrunk(images[is_wanted], self.resolution).float() / 127.5 - 1.0, labels[is_wanted]

    def _untrained(self, tokenizer: Any) -> tuple[Any, Any]:
        with quiet(extra="lora"):
            import diffusers
            from transformers import CLIPTextConfig, CLIPTextModel
        unet_class: Any = diffusers.UNet2DConditionModel
        given = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id}
        given |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        try:
            unet = unet_class(**self.unet)
            text_encoder = CLIPTextModel(CLIPTextConfig(**self.text_encoder, **given))
        except (TypeError, ValueError) as error:
            raise UsageError(f"model.unet or model.text_encoder is refused: {error}.") from error
        return unet.train(), text_encoder.train()


def _train(
    parts: tuple[nn.Module, nn.Module],
    recipe: Recipe,
    *,
    scheduler: Any,
    images: Tensor,
    labels: Tensor,
    prompts: Tensor,
) -> None:
    """Predict the noise, or v, at times drawn evenly: Ho et al. (2020), equation 14.

    Args:
        parts: the UNet and the text encoder, both trained.
        recipe: how.
        scheduler: the noise, and what is predicted.
        images: float32 in [-1, 1], (images, 1, height, width).
        labels: the class of each.
        prompts: tokens of the caption of each class and, last, of the empty one, (11, tokens).
    """
    unet, text_encoder = parts
    weights = [*unet.parameters(), *text_encoder.parameters()]
    optimizer = torch.optim.AdamW(
        weights, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), weight_decay=recipe.weight_decay
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    num_times, size = int(scheduler.config.num_train_timesteps), recipe.batch_size
    progress = _Progress(recipe.num_steps)
    for step in range(recipe.num_steps):
        chosen = torch.randint(len(images), (size,), generator=generator)
        is_empty = torch.rand(size, generator=generator) < recipe.empty_share
        times = torch.randint(num_times, (size,), generator=generator)
        noise = torch.randn((size, *images.shape[1:]), generator=generator)
        clean = images[chosen]
        wanted = noise
        if scheduler.config.prediction_type == "v_prediction":
            wanted = scheduler.get_velocity(clean, noise, times)
        # All captions are encoded once, however many images share one. The gradient of an index with brackets is summed
        # in an order by chance where there are several threads; that of index_select is not.
        places = torch.where(is_empty, len(prompts) - 1, labels[chosen])
        told = text_encoder(prompts).last_hidden_state.index_select(0, places)
        predicted = unet(scheduler.add_noise(clean, noise, times), times, told).sample
        loss = functional.mse_loss(predicted, wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, recipe.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        optimizer.step()
        progress.tell(step, loss)


class _Progress:
    """Says in the log how far the training is, ten times, with the mean loss since the last time.

    Args:
        num_steps: of the training.
    """

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._start = time.monotonic()
        self._losses: list[Tensor] = []
        _log.info("training the base model of model=tiny, once, which takes minutes: %d steps", num_steps)

    def tell(self, step: int, loss: Tensor) -> None:
        """Note a step, counted from 0."""
        self._losses.append(loss.detach())
        done = step + 1
        if 10 * done // self._num_steps > 10 * step // self._num_steps:
            left = (time.monotonic() - self._start) * (self._num_steps - done) / done
            mean = torch.stack(self._losses).mean().item()
            _log.info("model=tiny: step %d of %d, loss %.4f, %.0f s left", done, self._num_steps, mean, left)
            self._losses.clear()


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Of transformers, which draws one for each file."""
    import transformers

    bars: Any = transformers.utils.logging
    was_enabled = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            bars.enable_progress_bar()


@contextmanager
def _alone(num_threads: int) -> Iterator[None]:
    """So many threads, and no autocast of whoever needs the model."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        with torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_num_threads(before)
