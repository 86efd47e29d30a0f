"""LoRA on a diffusion model of Stable Diffusion's kind: the training of diffusers' text-to-image script."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from optbench.captions import CaptionedImages
from optbench.data import check_batch_size, full_batches, has_values, passes
from optbench.errors import UsageError
from optbench.lora.adapters import Lora, add_adapters
from optbench.lora.pipeline import Prompts, draw, encode_images, encode_prompts
from optbench.lora.saving import save_adapters, save_grid, starts, without_adapters
from optbench.lora.stable_diffusion import DTYPES, BaseDtype, DiffusionModel, load_scheduler, load_unet
from optbench.seeding import stream

# The same for every trial, so that what is left between two of them is the model.
EVALUATION_SEED = 0
EVALUATION_BATCH_SIZE = 64  # of the small model; of one with a VAE a minibatch
SAMPLING_SEED = 0
MAX_SAMPLES = 9


class LoraSd:
    """Adapters on a frozen UNet that learn to predict the noise on images, given their captions.

    Ho et al. (2020), https://arxiv.org/abs/2006.11239, equation 14, with adapters of Hu et al. (2021),
    https://arxiv.org/abs/2106.09685. Captions and, where there is a VAE, images are encoded once, before training; in
    each step a latent is drawn from its distribution, and a time and noise for it.

    Args:
        data: images and captions; without test images it is evaluated on those for training.
        model: what `model=` chose.
        lora: the adapters: see `optbench.lora.adapters.Lora`.
        base_dtype: the frozen weights' precision: fp32, bf16, fp16, or nf4 for those of linear layers.
        prediction: of the noise (epsilon) or of v (Salimans and Ho, 2022, https://arxiv.org/abs/2202.00512); None is
            what the model was trained for.
        min_snr_gamma: weights of times as in Hang et al. (2023), https://arxiv.org/abs/2303.09556; None weights all
            alike.
        loss_scale: the training loss is multiplied by it.
        batch_size: images in a minibatch; a last, smaller one is dropped.
        num_test_times: times at which each test image is tried, spread evenly.
        num_sampling_steps: of each sample that is drawn in the end; 0 draws none.
        seed: the trial's seed.
        device: where to train.

    Raises:
        UsageError: a value is wrong, or the model's weights cannot be had.
    """

    def __init__(
        self,
        *,
        data: CaptionedImages,
        model: DiffusionModel,
        lora: Mapping[str, Any],
        base_dtype: BaseDtype,
        prediction: Literal["epsilon", "v_prediction"] | None,
        min_snr_gamma: float | None,
        loss_scale: float,
        batch_size: int,
        num_test_times: int,
        num_sampling_steps: int,
        seed: int,
        device: torch.device,
    ) -> None:
        adapters = Lora.parse(lora)
        _check(data, model, base_dtype=base_dtype, prediction=prediction, min_snr_gamma=min_snr_gamma)
        check_batch_size(batch_size, len(data.train_images))
        if num_test_times < 1 or num_sampling_steps < 0 or not loss_scale > 0:
            raise UsageError(
                f"task.num_test_times={num_test_times}, task.num_sampling_steps={num_sampling_steps}, "
                f"task.loss_scale={loss_scale}: the first is at least 1, the second at least 0, the last above 0."
            )
        self._source = model
        self._batch_size = batch_size
        self._loss_scale = loss_scale
        self._min_snr_gamma = min_snr_gamma
        self._num_sampling_steps = num_sampling_steps
        self._dtype = DTYPES[base_dtype]
        self._device = device
        self._seeds = stream(seed, "order"), stream(seed, "diffusion")

        scheduler = load_scheduler(model)
        self._prediction = prediction or scheduler.config.prediction_type
        self._num_times = int(scheduler.config.num_train_timesteps)
        kept = scheduler.alphas_cumprod.float().to(device)
        self._signal, self._noise = kept.sqrt(), (1.0 - kept).sqrt()

        captions = tuple(dict.fromkeys([*data.train_captions, *data.test_captions, ""]))  # each encoded once
        places = {caption: place for place, caption in enumerate(captions)}
        self._captions = captions
        self._prompts = encode_prompts(model, captions, device=device)
        self._mean, self._std = encode_images(model, data.train_images, device=device)
        self._captions_of_train = torch.tensor([places[caption] for caption in data.train_captions], device=device)
        has_test = len(data.test_images) > 0
        self._test_captions = list(dict.fromkeys(data.test_captions if has_test else data.train_captions))
        test = encode_images(model, data.test_images, device=device)[0] if has_test else self._mean
        of_test = [places[caption] for caption in data.test_captions] if has_test else self._captions_of_train
        self._test = self._test_examples(test, torch.as_tensor(of_test, device=device), num_test_times)

        unet = load_unet(model, dtype=base_dtype, seed=seed, device=device)
        add_adapters(unet, adapters, seed=seed)
        self._start = starts(unet, adapters) if has_values() else {}
        self.model: nn.Module = unet.to(device).train()

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        """Latents, noise, times and what the UNet is told of the captions, in the DataLoader's order."""
        order, chance = self._seeds
        generator = torch.Generator().manual_seed(chance)
        shape = (self._batch_size, *self._mean.shape[1:])
        for indices in passes(len(self._mean), seed=order, device=self._device):
            for batch in full_batches(indices, self._batch_size):
                drawn, noise = torch.randn(2, *shape, generator=generator).to(self._device)
                times = torch.randint(self._num_times, (self._batch_size,), generator=generator).to(self._device)
                latents = self._mean[batch] + self._std[batch] * drawn
                yield (latents, noise, times, *self._prompts.of(self._captions_of_train[batch]))

    def loss(self, batch: tuple[Tensor, ...]) -> Tensor:
        """Mean squared error of what is predicted, weighted by time where that is asked."""
        errors = self._errors(batch)
        if self._min_snr_gamma is not None:
            times = batch[2]
            snr = (self._signal[times] / self._noise[times]) ** 2
            weights = snr.clamp(max=self._min_snr_gamma) / (snr if self._prediction == "epsilon" else snr + 1.0)
            errors = errors * weights
        return errors.mean() * self._loss_scale

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """`test_loss`, the mean squared error on the test images, at times and with noise that are always the same."""
        self.model.eval()
        size = self._batch_size if self._source.has_vae else EVALUATION_BATCH_SIZE
        parts = zip(*(tensor.split(size) for tensor in self._test), strict=True)
        total = torch.stack([self._errors((*part[:3], *self._prompts.of(part[3]))).sum() for part in parts]).sum()
        self.model.train()
        return {"test_loss": total.item() / len(self._test[0])}

    def save(self, folder: Path) -> None:
        """Leave the adapters, which diffusers loads with `load_lora_weights`, and samples without and with them."""
        save_adapters(self.model, folder, start=self._start, architecture=self._source.architecture)
        if not self._num_sampling_steps or self._source.folder() is None:
            return
        self.model.eval()
        shown = self._test_captions[:MAX_SAMPLES]
        places = torch.tensor([self._captions.index(caption) for caption in shown], device=self._device)
        empty = torch.tensor([self._captions.index("")], device=self._device)

        def samples() -> Tensor:
            return draw(
                self._source,
                self.model,
                Prompts.from_tuple(self._prompts.of(places)),
                empty=Prompts.from_tuple(self._prompts.of(empty)),
                num_steps=self._num_sampling_steps,
                seed=SAMPLING_SEED,
            )

        with without_adapters(self.model):
            before = samples()
        save_grid({"base": before, "with LoRA": samples()}, shown, folder / "samples.png")
        self.model.train()

    def _errors(self, batch: tuple[Tensor, ...]) -> Tensor:
        """The squared error of each example, in float32."""
        latents, noise, times, embeddings, *added = batch
        shape = (-1, 1, 1, 1)
        signal, spread = self._signal[times].view(shape), self._noise[times].view(shape)
        noisy = signal * latents + spread * noise
        wanted = noise if self._prediction == "epsilon" else signal * noise - spread * latents
        told = {"added_cond_kwargs": {"text_embeds": added[0].to(self._dtype), "time_ids": added[1]}} if added else {}
        predicted: Tensor = self.model(noisy.to(self._dtype), times, embeddings.to(self._dtype), **told).sample
        return (predicted.float() - wanted).square().mean((1, 2, 3))

    def _test_examples(self, latents: Tensor, captions: Tensor, num_times: int) -> tuple[Tensor, ...]:
        """Latents, noise, times and captions: each image at times spread evenly, between those of other images."""
        num = len(latents) * num_times
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        noise = torch.randn(num, *latents.shape[1:], generator=generator).to(self._device)
        # The k-th of all examples has the k-th of as many times.
        times = (torch.arange(num) * self._num_times + self._num_times // 2) // num
        own = torch.arange(num) % len(latents)
        return latents[own.to(self._device)], noise, times.to(self._device), captions[own.to(self._device)]


def _check(
    data: object, model: object, *, base_dtype: str, prediction: str | None, min_snr_gamma: float | None
) -> None:
    if not hasattr(model, "folder") or not hasattr(model, "architecture"):
        raise UsageError(
            f"task=lora_sd trains a diffusion model, and {type(model).__name__} is none: model=tiny, model=sd15 or "
            "model=sdxl."
        )
    if not isinstance(data, CaptionedImages):
        raise UsageError(
            "task=lora_sd needs images with captions: data=digits_rotated, data=digits_inverted, data=digits_held_out, "
            "or yours with data=captioned_folder data.path=<folder>."
        )
    if base_dtype not in DTYPES:
        raise UsageError(f"task.base_dtype={base_dtype}: it is one of {', '.join(DTYPES)}.")
    if prediction not in (None, "epsilon", "v_prediction"):
        raise UsageError(f"task.prediction={prediction}: it is epsilon or v_prediction, or null for the model's own.")
    if min_snr_gamma is not None and not min_snr_gamma > 0:
        raise UsageError(f"task.min_snr_gamma={min_snr_gamma}: it must be above 0; null weights all times alike.")
    sizes = {tuple(images.shape[-2:]) for images in (data.train_images, data.test_images) if len(images)}
    wanted = (model.resolution, model.resolution)  # type: ignore[attr-defined]
    if sizes != {wanted}:
        raise UsageError(f"the images are {sorted(sizes)}, and the model takes {wanted}: data.size={wanted[0]}.")
