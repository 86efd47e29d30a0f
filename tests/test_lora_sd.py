"""LoRA on diffusion models: the step, the evaluation and what is left, on models as small as can be."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from optbench.tasks.lora_sd import LoraSd
from torch import Tensor

from optbench import hub, memory, prediction
from optbench.building import build
from optbench.captions import CaptionedImages
from optbench.device import configured
from optbench.errors import UsageError
from optbench.imports import quiet
from optbench.lora import pipeline
from optbench.lora.adapters import Lora, adapter_parameters, add_adapters
from optbench.lora.stable_diffusion import StableDiffusion
from optbench.measurement import Status
from optbench.run import run
from optbench.trial import Trial
from tests import diffusion
from tests.handmade import config

CPU = torch.device("cpu")
CONF = Path(__file__).parent.parent / "conf"
CAPTIONS = ("a cat", "a dog", "a red cat", "a red dog")
ARCHITECTURES = ("sd", "sdxl")
LORA = {
    "rank": 2,
    "alpha": None,
    "targets": "attention",
    "init": "gaussian",
    "init_std": None,
    "dropout": 0.0,
    "rslora": False,
    "dora": False,
}
pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:DeprecationWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    with quiet():
        made = {name: diffusion.save(tmp_path_factory.mktemp(name), architecture=name) for name in ARCHITECTURES}
        made["v"] = diffusion.save(tmp_path_factory.mktemp("v"), prediction_type="v_prediction")
    return made


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def model_keys(architecture: str = "sd", path: Path | None = None, **keys: Any) -> dict[str, Any]:
    known = {
        "architecture": architecture,
        "repo": "nobody/nothing",
        "revision": "0" * 40,
        "variant": None,
        "path": None if path is None else str(path),
        "weights": "pretrained",
        "resolution": diffusion.SIZE,
        "guidance_scale": 2.0,
        "unet": diffusion.UNET_XL if architecture == "sdxl" else diffusion.UNET,
        "text_encoder": {"max_position_embeddings": 77},
        "scheduler": diffusion.SCHEDULER,
    }
    return {**known, **keys}


def images(num_test: int = 2, *, size: int = diffusion.SIZE, seed: int = 0) -> CaptionedImages:
    generator = torch.Generator().manual_seed(seed)
    train, test = (
        torch.randint(256, (num, 3, size, size), generator=generator, dtype=torch.uint8) for num in (8, num_test)
    )
    return CaptionedImages(
        train_images=train,
        train_captions=CAPTIONS * 2,
        test_images=test,
        test_captions=CAPTIONS[:num_test],
    )


def task_keys(**keys: Any) -> dict[str, Any]:
    known = {
        "lora": LORA,
        "base_dtype": "fp32",
        "prediction": None,
        "min_snr_gamma": None,
        "loss_scale": 1.0,
        "batch_size": 4,
        "num_test_times": 3,
        "num_sampling_steps": 2,
    }
    return {**known, **keys}


def make(
    path: Path | None, architecture: str = "sd", *, seed: int = 0, model: Mapping[str, Any] | None = None, **keys: Any
) -> LoraSd:
    source = StableDiffusion(**model_keys(architecture, path, **(model or {})))
    return LoraSd(data=images(), model=source, **task_keys(**keys), seed=seed, device=CPU)


def trial(path: Path | None, architecture: str = "sd", **keys: Any) -> Trial:
    target = "optbench.lora.stable_diffusion.StableDiffusion"
    weights = "random" if path is None else "pretrained"
    return Trial.from_config(
        config(
            {
                "task": {
                    "name": "lora_sd",
                    "_target_": "optbench.tasks.lora_sd.LoraSd",
                    **task_keys(),
                    "num_steps": 4,
                    "evaluate_every_num_steps": 2,
                    "metrics": {"test_loss": "min"},
                },
                "model": {"name": "small", "_target_": target, **model_keys(architecture, path, weights=weights)},
                "data": {"name": "images", "_target_": "tests.test_lora_sd.loaded", "num_test": 2},
                "hardware.device": "cpu",
                **keys,
            }
        )
    )


def loaded(*, num_test: int, device: torch.device) -> CaptionedImages:  # noqa: ARG001
    return images(num_test)


def trained(task: LoraSd, *, num_steps: int, lr: float = 0.02) -> LoraSd:
    optimizer = torch.optim.AdamW([p for p in task.model.parameters() if p.requires_grad], lr=lr)
    batch = next(task.batches())
    for _ in range(num_steps):
        optimizer.zero_grad()
        task.loss(batch).backward()
        optimizer.step()
    return task


@torch.no_grad()
def noise_of(unet: Any, task: LoraSd) -> Tensor:
    latents, _, times, embeddings, *added = next(task.batches())
    told = {"added_cond_kwargs": {"text_embeds": added[0], "time_ids": added[1]}} if added else {}
    return unet(latents, times, embeddings, **told).sample


# The step


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapters_alone_are_trained_and_the_loss_of_a_minibatch_falls(
    folders: Mapping[str, Path], architecture: str
) -> None:
    task = make(folders[architecture], architecture, lora={**LORA, "rank": 8, "targets": "all_linear_conv"})
    adapters = adapter_parameters(task.model)
    assert {name for name, p in task.model.named_parameters() if p.requires_grad} == adapters.keys()
    batch = next(task.batches())
    before = task.loss(batch).item()
    trained(task, num_steps=30)
    assert task.loss(batch).item() < 0.9 * before


@pytest.mark.parametrize(("folder", "gamma"), [("sd", None), ("sd", 5.0), ("v", None), ("v", 5.0)])
def test_the_loss_is_that_of_diffusers_own_parts(folders: Mapping[str, Path], folder: str, gamma: float | None) -> None:
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    task = make(folders[folder], min_snr_gamma=gamma)
    batch = next(task.batches())
    latents, noise, times, embeddings = batch
    scheduler = DDPMScheduler.from_pretrained(folders[folder] / "scheduler")
    is_v = scheduler.config.prediction_type == "v_prediction"
    wanted = scheduler.get_velocity(latents, noise, times) if is_v else noise
    with torch.no_grad():
        predicted = task.model(scheduler.add_noise(latents, noise, times), times, embeddings).sample
        errors = ((predicted - wanted) ** 2).mean((1, 2, 3))
        if gamma is not None:
            snr = compute_snr(scheduler, times)
            errors = errors * torch.minimum(snr, torch.full_like(snr, gamma)) / (snr + 1 if is_v else snr)
        torch.testing.assert_close(task.loss(batch), errors.mean())


def test_a_loss_is_scaled_and_its_evaluation_is_not(folders: Mapping[str, Path]) -> None:
    plain, scaled = make(folders["sd"]), make(folders["sd"], loss_scale=100.0)
    batch = next(plain.batches())
    torch.testing.assert_close(scaled.loss(batch), 100.0 * plain.loss(batch))
    assert scaled.evaluate() == plain.evaluate()


def test_the_seed_decides_order_times_and_noise_and_every_optimizer_meets_the_same(folders: Mapping[str, Path]) -> None:
    def first(seed: int) -> list[tuple[Tensor, ...]]:
        batches = make(folders["sd"], seed=seed).batches()
        return [next(batches) for _ in range(3)]

    again, other = zip(first(0), first(0), strict=True), zip(first(0), first(1), strict=True)
    assert all(torch.equal(a, b) for one, two in again for a, b in zip(one, two, strict=True))
    assert not any(torch.equal(one[1], two[1]) for one, two in other)


def test_latents_are_drawn_anew_in_each_pass_around_what_the_vae_gave(folders: Mapping[str, Path]) -> None:
    task = make(folders["sd"], batch_size=8)
    batches = task.batches()
    first, second = next(batches)[0], next(batches)[0]
    sums = [latents.sum((1, 2, 3)).sort().values for latents in (first, second)]
    assert not torch.allclose(*sums, atol=1e-6, rtol=0), "the same images, other draws"
    assert torch.allclose(*sums, atol=20.0, rtol=0)


# Evaluation


def test_evaluation_has_no_chance_in_it_and_leaves_the_model_as_it_was(folders: Mapping[str, Path]) -> None:
    lora = {**LORA, "dropout": 0.5}
    one, other = make(folders["sd"], seed=0, lora=lora), make(folders["sd"], seed=1, lora=lora)
    assert one.evaluate() == one.evaluate() == other.evaluate()  # adapters change nothing before the first step
    assert one.model.training
    trained(one, num_steps=3)
    assert one.evaluate() != other.evaluate()


def test_every_test_image_is_tried_at_times_over_the_whole_range(folders: Mapping[str, Path]) -> None:
    task = make(folders["sd"], num_test_times=50)
    _, _, times, captions = task._test
    assert len(times) == 2 * 50
    assert int(times.min()) < 10
    assert int(times.max()) > 989
    assert times.diff().min() > 0
    for caption in captions.unique():
        assert times[captions == caption].float().mean() == pytest.approx(500, abs=10)


def test_without_test_images_those_for_training_are_used(folders: Mapping[str, Path]) -> None:
    source = StableDiffusion(**model_keys("sd", folders["sd"]))
    task = LoraSd(data=images(0), model=source, **task_keys(), seed=0, device=CPU)
    assert len(task._test[0]) == 8 * 3
    assert task.evaluate()["test_loss"] > 0


# The base


def test_latents_are_encoded_once_and_kept(folders: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(folders["sd"])
    monkeypatch.setattr(pipeline, "_load_vae", lambda *_: pytest.fail("the VAE is not needed again"))
    assert torch.equal(make(folders["sd"])._mean, first._mean)


def test_latents_and_embeddings_are_those_of_diffusers(folders: Mapping[str, Path]) -> None:
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTokenizer

    task, data = make(folders["sd"]), images()
    vae = AutoencoderKL.from_pretrained(folders["sd"] / "vae")
    with torch.no_grad():
        expected = vae.encode(data.train_images.float() / 127.5 - 1).latent_dist.mean * vae.config.scaling_factor
        torch.testing.assert_close(task._mean, expected)
        tokenizer = CLIPTokenizer.from_pretrained(folders["sd"] / "tokenizer")
        tokens = tokenizer(["a red cat"], padding="max_length", max_length=77, return_tensors="pt").input_ids
        encoded = CLIPTextModel.from_pretrained(folders["sd"] / "text_encoder")(tokens)[0]
    torch.testing.assert_close(task._prompts.embeddings[task._captions.index("a red cat")], encoded[0])


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "nf4"])
def test_a_base_in_fewer_bits_has_adapters_in_32_and_nearly_the_same_loss(
    folders: Mapping[str, Path], dtype: str
) -> None:
    plain, task = make(folders["sd"]), make(folders["sd"], base_dtype=dtype)
    assert {p.dtype for p in adapter_parameters(task.model).values()} == {torch.float32}
    frozen = {p.dtype for p in task.model.parameters() if not p.requires_grad}
    assert frozen <= {torch.bfloat16, torch.float16, torch.uint8}
    assert (torch.uint8 in frozen) == (dtype == "nf4")
    batch = next(plain.batches())
    assert task.loss(batch).item() == pytest.approx(plain.loss(batch).item(), rel=0.15 if dtype == "nf4" else 0.02)
    before = task.loss(batch).item()
    assert trained(task, num_steps=20).loss(batch).item() < before


def test_random_weights_need_no_files_and_come_from_the_seed() -> None:
    one, again, other = (make(None, model={"weights": "random"}, seed=seed) for seed in (0, 0, 1))
    frozen = [next(p for p in task.model.parameters() if not p.requires_grad) for task in (one, again, other)]
    assert torch.equal(frozen[0], frozen[1])
    assert not torch.equal(frozen[0], frozen[2])


# What is left


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "keys", [{"alpha": 1.0}, {"targets": "all_linear_conv"}, {"dora": True}, {"init": "pissa"}], ids=str
)
def test_diffusers_loads_the_adapters_back(
    folders: Mapping[str, Path], architecture: str, keys: Mapping[str, Any], tmp_path: Path
) -> None:
    from diffusers import UNet2DConditionModel

    task = make(folders[architecture], architecture, lora={**LORA, **keys}, num_sampling_steps=0)
    untrained = noise_of(task.model, task)
    expected = noise_of(trained(task, num_steps=5).model, task)
    task.save(tmp_path)
    unet = UNet2DConditionModel.from_pretrained(folders[architecture] / "unet")
    loader = pipeline._pipeline(architecture, unet=unet)
    with quiet():
        loader.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    torch.testing.assert_close(noise_of(unet, task), expected)
    assert (expected - untrained).abs().max() > 0.01


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_samples_are_drawn_without_and_with_the_adapters(
    folders: Mapping[str, Path], architecture: str, tmp_path: Path
) -> None:
    from PIL import Image

    task = trained(make(folders[architecture], architecture), num_steps=5, lr=0.3)
    before = noise_of(task.model, task)
    task.save(tmp_path)
    assert torch.equal(noise_of(task.model, task), before), "the adapters are at work again"
    assert task.model.training
    page = Image.open(tmp_path / "samples.png")
    assert page.size == (60 + 2 * 66, 12 + 2 * 66)
    base, adapted = (page.crop((60, top, page.width, top + 64)).tobytes() for top in (12, 78))
    assert base != adapted


def test_a_trial_leaves_its_files_and_names_them(folders: Mapping[str, Path], tmp_path: Path) -> None:
    result = run(trial(folders["sd"]), on_measurement=lambda _: None, artifacts=tmp_path / "left")
    assert result.status is Status.COMPLETED, result.summary.get("traceback")
    assert result.summary["artifacts"] == ["pytorch_lora_weights.safetensors", "samples.png"]
    assert {path.name for path in (tmp_path / "left").iterdir()} == set(result.summary["artifacts"])


# Memory


@pytest.mark.parametrize(
    ("architecture", "hardware", "tolerance"),
    [
        ("sd", {}, 0.0),
        ("sdxl", {"hardware.gradient_checkpointing": True}, 0.0),
        # Without numbers, torch keeps the sums of a norm in the dtype of its input; the CPU's kernel keeps 32 bits.
        pytest.param("sd", {"hardware.precision": "bf16"}, 0.01, marks=pytest.mark.verify),
    ],
)
def test_memory_is_predicted_without_the_weights(
    folders: Mapping[str, Path],
    architecture: str,
    hardware: Mapping[str, Any],
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory.Training, "kernel_peak_bytes", lambda _: None)
    monkeypatch.setattr(memory, "NUM_FIRST_STEPS", 1)
    asked = trial(folders[architecture], architecture, **hardware)
    with configured(asked.hardware, CPU):
        measured = memory.measure(asked, CPU)
    monkeypatch.setattr(StableDiffusion, "folder", lambda _: pytest.fail("the weights are not needed"))
    predicted = prediction.predict(asked)
    for name in ("num_parameters", "parameter_bytes", "frozen_bytes", "gradient_bytes", "state_bytes"):
        assert getattr(predicted, name) == getattr(measured, name), name
    assert predicted.peak_bytes == pytest.approx(measured.peak_bytes, rel=tolerance)


@pytest.mark.parametrize(
    ("name", "num_frozen", "num_trained"), [("sd15", 859_520_964, 797_184), ("sdxl", 2_567_463_684, 5_806_080)]
)
def test_the_real_models_have_their_published_sizes(name: str, num_frozen: int, num_trained: int) -> None:
    from diffusers import UNet2DConditionModel

    written = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
    with torch.device("meta"):
        unet = UNet2DConditionModel(**written["unet"])
        assert sum(p.numel() for p in unet.parameters()) == num_frozen
        add_adapters(unet, Lora.parse({**LORA, "rank": 4}), seed=0)
    assert sum(p.numel() for p in adapter_parameters(unet).values()) == num_trained


# Mistakes


def test_a_model_that_cannot_be_had_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    hub.snapshot.cache_clear()
    with pytest.raises(UsageError) as told:
        make(None)
    for way in ("no route to host", "hf download nobody/nothing --revision 000", "model.path=", "model=tiny"):
        assert way in str(told.value)


def test_a_folder_that_is_no_model_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="it has no vae, scheduler, text_encoder"):
        make(tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"base_dtype": "int4"}, "fp32, bf16, fp16, nf4"),
        ({"prediction": "x0"}, "epsilon or v_prediction"),
        ({"min_snr_gamma": 0.0}, "it must be above 0"),
        ({"num_test_times": 0}, "at least 1"),
        ({"batch_size": 9}, "there are 8"),
        ({"lora": {**LORA, "init": "eva"}}, "eva"),
        ({"lora": {**LORA, "targets": ["to_w"]}}, "to_v"),
    ],
)
def test_a_value_that_cannot_be_is_refused(folders: Mapping[str, Path], keys: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(folders["sd"], **keys)


def test_data_and_models_of_other_tasks_are_refused(folders: Mapping[str, Path]) -> None:
    source = StableDiffusion(**model_keys("sd", folders["sd"]))
    with pytest.raises(UsageError, match="data=digits_rotated"):
        LoraSd(data=torch.zeros(3), model=source, **task_keys(), seed=0, device=CPU)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="model=tiny"):
        LoraSd(data=images(), model=object(), **task_keys(), seed=0, device=CPU)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"data\.size=16"):
        LoraSd(data=images(size=8), model=source, **task_keys(), seed=0, device=CPU)


@pytest.mark.parametrize("keys", [{"architecture": "flux"}, {"weights": "pickled"}, {"resolution": 100}], ids=str)
def test_a_model_whose_keys_cannot_be_is_refused(keys: Mapping[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"model.{next(iter(keys))}"):
        StableDiffusion(**model_keys(**keys))


def test_a_trial_goes_on_along_the_same_path_in_every_batch(folders: Mapping[str, Path]) -> None:
    asked = trial(folders["sd"])
    first, second = (build(asked, CPU)[0] for _ in range(2))
    assert dataclasses.is_dataclass(asked)
    for one, other in zip(next(first.batches()), next(second.batches()), strict=True):
        assert torch.equal(one, other)
