"""The vision transformer: what it is made of, what it is trained on, and what that takes."""

import dataclasses
import io
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from optbench.tasks import vit
from optbench.tasks.vit import Attention, VisionTransformer, VisionTransformerConfig, Vit
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from optbench import components, data, hub, memory
from optbench.catalogue import entries, names
from optbench.cost import Memory
from optbench.data import ImageData, draw_flips_and_crops, flip_and_crop
from optbench.device import configured
from optbench.errors import UsageError
from optbench.memory import Training, measure
from optbench.optim.param_groups import hidden_matrices
from optbench.prediction import predict
from optbench.seeding import stream
from optbench.trial import Trial
from tests.conftest import MakeTrial, RunTrial

CPU = torch.device("cpu")
Build = Callable[..., Vit]
SMALL = {
    "patch_size": 4,
    "dim": 16,
    "depth": 2,
    "num_heads": 4,
    "mlp_dim": 24,
    "dropout": 0.0,
    "qkv_bias": True,
    "patch_norm": False,
    "init": "truncated_normal",
}
# Eight by eight pixels that come with scikit-learn, through a model of the published kind.
DIGITS = ["task=vit", "data=digits", "task.batch_size=16"]
NARROW = ["model.dim=32", "model.depth=2", "model.num_heads=4", "model.mlp_dim=32"]


def config(**changes: Any) -> VisionTransformerConfig:
    return VisionTransformerConfig(**{**SMALL, **changes})


def published(name: str) -> VisionTransformerConfig:
    (entry,) = (entry for entry in entries("model") if entry.name == name)
    return VisionTransformerConfig(
        **{key: value for key, value in entry.config.items() if key not in ("name", "_target_")}
    )


def images(num_train: int = 12, *, size: int = 8, channels: int = 3, dtype: torch.dtype = torch.float32) -> ImageData:
    """Every pixel of an image is another number, and so is every image."""
    inputs = torch.arange(1, 1 + num_train * channels * size**2).view(num_train, channels, size, size).to(dtype)
    labels = torch.arange(num_train) % 3
    return ImageData(train_inputs=inputs, train_labels=labels, test_inputs=inputs, test_labels=labels, num_classes=3)


def task(**changes: Any) -> Vit:
    defaults: dict[str, Any] = {
        "data": images(),
        "model": config(),
        "batch_size": 4,
        "augmentation": "none",
        "crop_padding": 2,
        "label_smoothing": 0.0,
        "num_train": None,
        "num_test": None,
        "seed": 0,
        "device": CPU,
    }
    return Vit(**{**defaults, **changes})


# The model.


@pytest.mark.parametrize(("name", "count"), [("vit_s16", 22_050_664), ("vit_b16", 86_567_656)])
def test_the_published_sizes_have_the_published_numbers_of_parameters(name: str, count: int) -> None:
    with torch.device("meta"):
        model = VisionTransformer(published(name), image_shape=(3, 224, 224), num_classes=1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize(("name", "count"), [("vit_cifar10", 9_524_842), ("vit_tiny", 142_026)])
def test_the_models_for_cifar10_have_the_numbers_of_parameters_that_their_files_say(name: str, count: int) -> None:
    with torch.device("meta"):
        model = VisionTransformer(published(name), image_shape=(3, 32, 32), num_classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_the_task_names_all_models_and_data_that_suit_it() -> None:
    assert set(vit.MODELS) == {
        entry.name for entry in entries("model") if entry.config["_target_"].startswith("optbench.tasks.vit.")
    }
    assert set(vit.DATA) <= set(names("data"))


def test_attention_is_the_textbook_formula() -> None:
    torch.manual_seed(0)
    attention = Attention(config(dim=12, num_heads=3))
    x = torch.randn(2, 5, 12)
    queries, keys, values = attention.qkv(x).chunk(3, dim=-1)
    heads = []
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        scores = queries[..., part] @ keys[..., part].transpose(1, 2) / 4**0.5
        heads.append(scores.softmax(-1) @ values[..., part])
    torch.testing.assert_close(attention(x), attention.out(torch.cat(heads, dim=-1)))


def test_the_embedding_of_patches_is_a_convolution_without_overlap() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(config(depth=1), image_shape=(3, 8, 12), num_classes=3)
    kept: list[Tensor] = []
    model.embedding.register_forward_hook(lambda _, __, output: kept.append(output))
    inputs = torch.randn(2, 3, 8, 12)
    model(inputs)
    expected = functional.conv2d(inputs, model.embedding.weight.view(16, 3, 4, 4), model.embedding.bias, stride=4)
    torch.testing.assert_close(kept[0], expected.flatten(2).transpose(1, 2))


def test_the_model_of_the_records_has_dropout_wherever_it_says() -> None:
    with torch.device("meta"):
        model = VisionTransformer(published("vit_cifar10"), image_shape=(3, 32, 32), num_classes=10)
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    rates += [module.dropout for module in model.modules() if isinstance(module, Attention)]
    assert rates == [0.1] * (1 + 3 * 6 + 6)
    assert isinstance(model.pixel_norm, nn.LayerNorm)
    assert isinstance(model.embedding_norm, nn.LayerNorm)
    assert model.blocks[0].attention.qkv.bias is None


def test_dropout_is_for_training_alone_attention_included() -> None:
    torch.manual_seed(0)
    attention = Attention(config(dropout=0.5))
    x = torch.randn(2, 5, 16)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_initialisations_differ_as_they_say() -> None:
    torch.manual_seed(0)
    normal = VisionTransformer(config(dim=256, mlp_dim=256), image_shape=(3, 8, 8), num_classes=3)
    default = VisionTransformer(config(dim=256, mlp_dim=256, init="pytorch"), image_shape=(3, 8, 8), num_classes=3)
    for weight in (normal.blocks[0].mlp[0].weight, normal.positions.weight, normal.class_token, normal.head.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.15)
    assert not normal.blocks[1].attention.qkv.bias.any()
    assert default.positions.weight.std().item() == pytest.approx(1.0, rel=0.1)
    assert default.class_token.std().item() == pytest.approx(1.0, rel=0.15)
    assert default.blocks[0].mlp[0].weight.abs().max().item() == pytest.approx(256**-0.5, rel=0.01)
    assert default.head.bias.any()


def test_checkpointing_changes_no_number_even_with_dropout() -> None:
    found = []
    for is_checkpointing in (False, True):
        model = task(model=config(dropout=0.3)).model
        assert isinstance(model, VisionTransformer)
        if is_checkpointing:
            model.gradient_checkpointing_enable()
        torch.manual_seed(1)
        loss = model(images().train_inputs / 1000).square().mean()
        loss.backward()
        found.append([loss, *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_muon_takes_the_matrices_of_the_blocks_and_nothing_else() -> None:
    model = VisionTransformer(config(depth=2), image_shape=(3, 8, 8), num_classes=3)
    taken = {name for name, _, is_hidden in hidden_matrices(model) if is_hidden}
    of_blocks = {
        name for name, parameter in model.named_parameters() if name.startswith("blocks.") and parameter.ndim > 1
    }
    assert taken == of_blocks
    assert len(taken) == 2 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 18}, r"model.num_heads=4 does not divide model.dim=18"),
        ({"depth": 0}, r"model.depth=0: expected 1 or more"),
        ({"dropout": 1.0}, r"model.dropout=1.0: expected a number from 0 to below 1"),
        ({"init": "truncated_norml"}, r"Did you mean 'truncated_normal'"),
        ({"patch_size": 4.0}, r"model.patch_size=4.0: expected int, got float"),
        ({"qkv_bias": 1}, r"model.qkv_bias=1: expected bool, got int"),
    ],
)
def test_a_model_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**changes)


# The task.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": images(size=10)}, r"model.patch_size=4 does not divide .* 10 x 10 pixels"),
        ({"data": "captions"}, r"task=vit learns from images with labels, not from str: data=cifar10, "),
        ({"model": "unet"}, r"task=vit takes model=vit_tiny, vit_cifar10, vit_s16, vit_b16, not a str"),
        ({"batch_size": 13}, r"task.batch_size=13: there are 12 training images"),
        ({"batch_size": 4, "num_train": 3}, r"task.batch_size=4: there are 3 training images"),
        ({"num_train": 13}, r"task.num_train=13: there are 12; expected 1 to 12, or null"),
        ({"num_test": 0}, r"task.num_test=0: there are 12"),
        ({"augmentation": "flip"}, r"Did you mean 'flip_crop'"),
        ({"crop_padding": -1}, r"task.crop_padding=-1: expected 0 or more pixels"),
        ({"label_smoothing": 1.0}, r"task.label_smoothing=1.0: expected a number from 0 to below 1"),
    ],
)
def test_a_task_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        task(**changes)


def test_the_order_is_that_of_a_data_loader_with_the_same_generator() -> None:
    given = images()
    loader = DataLoader(
        TensorDataset(given.train_inputs, given.train_labels),
        batch_size=5,
        shuffle=True,
        drop_last=True,
        generator=torch.Generator().manual_seed(stream(7, "order")),
    )
    expected = [batch for _ in range(3) for batch in loader]
    found = itertools.islice(task(batch_size=5, seed=7).batches(), 6)
    for (inputs, labels), (other_inputs, other_labels) in zip(found, expected, strict=True):
        assert torch.equal(inputs, other_inputs)
        assert torch.equal(labels, other_labels)


def test_a_crop_is_a_window_of_the_image_in_its_frame_mirrored_or_not() -> None:
    inputs = images(num_train=64, size=5).train_inputs
    draws = draw_flips_and_crops(64, padding=2, generator=torch.Generator().manual_seed(0))
    found = flip_and_crop(inputs, draws, padding=2, black=torch.full((1, 3, 1, 1), -7.0))
    framed = functional.pad(inputs, (2, 2, 2, 2), value=-7.0)
    assert draws[:, 1:].min() == 0
    assert draws[:, 1:].max() == 4
    for image, frame, (is_flipped, top, left) in zip(found, framed, draws.tolist(), strict=True):
        window = frame[:, top : top + 5, left : left + 5]
        assert torch.equal(image, window.flip(-1) if is_flipped else window)


def test_half_of_the_images_are_mirrored_and_every_window_is_as_likely() -> None:
    draws = draw_flips_and_crops(50_000, padding=4, generator=torch.Generator().manual_seed(0))
    assert draws[:, 0].float().mean().item() == pytest.approx(0.5, abs=0.01)
    for edge in (1, 2):
        shares = torch.bincount(draws[:, edge], minlength=9) / len(draws)
        assert len(shares) == 9
        assert shares.min().item() == pytest.approx(1 / 9, abs=0.01)
        assert shares.max().item() == pytest.approx(1 / 9, abs=0.01)
    assert abs(torch.corrcoef(draws.T.double())[0, 1].item()) < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_labels_stay_with_their_images_whatever_is_done_to_these(dtype: torch.dtype) -> None:
    inputs = torch.arange(12).view(12, 1, 1, 1).expand(12, 3, 8, 8).to(dtype)
    labels = torch.arange(12)
    given = ImageData(train_inputs=inputs, train_labels=labels, test_inputs=inputs, test_labels=labels, num_classes=12)
    for found, found_labels in itertools.islice(
        task(data=given, augmentation="flip_crop", crop_padding=2).batches(), 9
    ):
        brightest = found.amax((1, 2, 3)) * (255 if dtype == torch.uint8 else 1)
        torch.testing.assert_close(brightest, found_labels.float())


def test_each_pass_meets_other_windows_and_each_seed_too() -> None:
    def first_images(seed: int) -> list[Tensor]:
        """The image whose label comes first in order of number, in each of three passes of one minibatch."""
        passes = task(data=images(num_train=4), augmentation="flip_crop", seed=seed).batches()
        return [found[found.flatten(1).sum(1).argmax()] for found, _ in itertools.islice(passes, 3)]

    assert not torch.equal(*first_images(0)[:2])
    assert not all(torch.equal(a, b) for a, b in zip(first_images(0), first_images(1), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first_images(0), first_images(0), strict=True))


def test_the_seed_decides_the_weights_and_the_order() -> None:
    first, same, other = (task(seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), same.model.parameters(), strict=True))
    assert not torch.equal(first.model.head.weight, other.model.head.weight)
    assert not torch.equal(next(first.batches())[0], next(other.batches())[0])


def test_making_a_task_and_its_batches_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    next(task(augmentation="flip_crop").batches())
    assert torch.equal(torch.rand(1), expected)


def test_a_subset_is_the_first_images_of_each_split() -> None:
    small = task(num_train=5, num_test=7, batch_size=5)
    inputs, _ = next(small.batches())
    assert torch.equal(inputs.sort(dim=0).values, images().train_inputs[:5])
    correct = small.model.eval()(images().test_inputs[:7]).argmax(1) == images().test_labels[:7]
    assert small.evaluate()["test_accuracy"] == pytest.approx(correct.float().mean().item())


def test_smoothed_labels_are_for_the_training_loss_alone() -> None:
    plain, smoothed = task(), task(label_smoothing=0.2)
    batch = next(plain.batches())
    logits = plain.model(batch[0])
    target = 0.8 * functional.one_hot(batch[1], 3) + 0.2 / 3
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(smoothed.loss(batch), expected)
    assert not torch.equal(smoothed.loss(batch), plain.loss(batch))
    assert smoothed.evaluate() == plain.evaluate()


def test_evaluation_is_without_dropout_over_all_test_images_and_restores_the_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noisy = task(model=config(dropout=0.5))
    monkeypatch.setattr(vit, "EVALUATION_BATCH_SIZE", 5)
    metrics = noisy.evaluate()
    assert noisy.model.training
    assert noisy.evaluate() == metrics
    noisy.model.eval()
    noisy.evaluate()
    assert not noisy.model.training
    logits = noisy.model(images().test_inputs)
    assert metrics["test_loss"] == pytest.approx(functional.cross_entropy(logits, images().test_labels).item())
    assert metrics["test_accuracy"] == pytest.approx((logits.argmax(1) == images().test_labels).float().mean().item())


# Data that stay bytes.


def write(folder: Path, *, count: int) -> Path:
    """CIFAR-10 of chance, in the hub's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, split in enumerate(("train", "test")):
        cells = []
        for image in np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, format="png")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        table = pa.table({"img": cells, "label": [index % 3 for index in range(count)]})
        pq.write_table(table, folder / f"{split}.parquet")
    return folder


def made(trial: Trial) -> Vit:
    assert trial.data is not None
    assert trial.model is not None
    given = components.build(trial.data, group="data", device=CPU)
    model = components.build(trial.model, group="model")
    built = components.build(trial.task, group="task", data=given, model=model, seed=trial.seed, device=CPU)
    assert isinstance(built, Vit)
    return built


@pytest.mark.parametrize("augmentation", ["flip_crop", "none"])
def test_bytes_and_floats_give_the_same_minibatches_and_metrics_to_the_bit(
    augmentation: str, make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = make_trial(
        "task=vit",
        f"data.path={write(tmp_path, count=30)}",
        "task.batch_size=8",
        f"task.augmentation={augmentation}",
    )
    floats = made(asked)
    monkeypatch.setattr(data, "MAX_FLOAT_BYTES", 0)
    kept = made(asked)
    assert (floats._train_inputs.dtype, kept._train_inputs.dtype) == (torch.float32, torch.uint8)
    for (first, labels), (second, same) in itertools.islice(zip(floats.batches(), kept.batches(), strict=False), 7):
        assert second.dtype == torch.float32
        assert torch.equal(first, second)
        assert torch.equal(labels, same)
    assert floats.evaluate() == kept.evaluate()


# Training.


@pytest.fixture(scope="module")
def few_photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """2,000 training images of CIFAR-10 and 250 test images, in a folder of their own."""
    if not {"OPTBENCH_DATA", "CI"} & os.environ.keys():
        pytest.skip("OPTBENCH_DATA names no folder with CIFAR-10")
    (entry,) = (entry for entry in entries("data") if entry.name == "cifar10")
    folder = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 2000), ("test", 250)):
        if source := os.environ.get("OPTBENCH_DATA"):
            whole = Path(source) / "cifar10" / f"{split}.parquet"
        else:  # CI has to find it; elsewhere nothing is downloaded for a test
            name, revision = entry.config[f"{split}_file"], entry.config["revision"]
            (whole,) = hub.download(entry.config["repo"], [name], revision=revision, ways_out="")
        first = next(pq.ParquetFile(whole).iter_batches(batch_size=count))
        pq.write_table(pa.Table.from_batches([first]), folder / f"{split}.parquet")
    return str(folder)


@pytest.mark.parametrize(("num_train", "fall"), [(600, 0.02), pytest.param(2000, 0.1, marks=pytest.mark.verify)])
def test_in_one_pass_over_a_few_photos_the_loss_falls(
    num_train: int, fall: float, run_trial: RunTrial, few_photos: str
) -> None:
    num_steps = num_train // 50
    result = run_trial(
        "task=vit",
        f"data.path={few_photos}",
        "task.batch_size=50",
        f"task.num_train={num_train}",
        f"budget.num_steps={num_steps}",
        f"evaluation.every_num_steps={num_steps}",
        "optimizer=adamw",
        "max_grad_norm=1.0",
    )
    assert result.status == "completed"
    first, last = result.curve["test_loss"]
    assert first == pytest.approx(np.log(10), abs=0.05)
    assert last < first - fall


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_losses_bit_for_bit_and_another_seed_others(
    precision: str, run_trial: RunTrial
) -> None:
    def losses(seed: int) -> list[float]:
        overrides = [*DIGITS, *NARROW, "model.dropout=0.1", "budget.num_steps=6", "evaluation.every_num_steps=2"]
        result = run_trial(*overrides, "optimizer=adamw", f"seed={seed}", f"hardware.precision={precision}")
        return [*result.curve["train_loss"][1:], *result.curve["test_loss"]]

    first = losses(0)
    assert np.isfinite(first).all()
    assert losses(0) == first
    assert not set(losses(1)) & set(first)


@pytest.mark.verify
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's compiler, about itself
def test_a_compiled_model_trains_along_the_same_path(run_trial: RunTrial) -> None:
    overrides = [*DIGITS, *NARROW, "optimizer=adamw", "budget.num_steps=8", "evaluation.every_num_steps=4"]
    plain, compiled = (run_trial(*overrides, f"hardware.compile_model={asked}") for asked in ("false", "true"))
    assert compiled.status == "completed"
    for name in ("test_loss", "train_loss"):
        assert compiled.curve[name][1:] == pytest.approx(plain.curve[name][1:], rel=1e-3)


# Memory.


def figures(of: Memory) -> dict[str, Any]:
    """All but what tells the one from the other, and what only a step that is taken has."""
    found = dataclasses.asdict(of)
    return {key: value for key, value in found.items() if key not in ("kind", "kernel_peak_bytes")}


def assert_predicted(asked: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is predicted is what is measured, of all but what a profiler says."""
    monkeypatch.setattr(Training, "kernel_peak_bytes", lambda _: None)
    monkeypatch.setattr(memory, "NUM_FIRST_STEPS", 1)
    with configured(asked.hardware, CPU):
        taken = measure(asked, CPU)
    assert figures(predict(asked)) == figures(taken)
    assert taken.activation_bytes > 0


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["hardware.precision=bf16"],
        ["hardware.gradient_checkpointing=true"],
        pytest.param(["hardware.precision=bf16_params"], marks=pytest.mark.verify),
        pytest.param(["hardware.num_micro_batches=2", "task.label_smoothing=0.1"], marks=pytest.mark.verify),
    ],
    ids=lambda overrides: "".join(overrides[:1]) or "plain",
)
@pytest.mark.parametrize("model", [pytest.param("vit_tiny", marks=pytest.mark.verify), "vit_cifar10"])
def test_the_memory_of_a_step_is_predicted_to_the_byte(
    model: str, overrides: list[str], make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_predicted(make_trial(*DIGITS, f"model={model}", *NARROW, "model.depth=1", *overrides), monkeypatch)


def test_memory_is_predicted_to_the_byte_where_the_images_are_kept_as_bytes(
    make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "MAX_FLOAT_BYTES", 0)
    path = write(tmp_path, count=30)
    assert_predicted(make_trial("task=vit", f"data.path={path}", "task.batch_size=8", *NARROW), monkeypatch)


def test_checkpointing_keeps_fewer_activations(make_trial: MakeTrial) -> None:
    plain, fewer = (
        predict(make_trial(*DIGITS, *NARROW, f"hardware.gradient_checkpointing={asked}")) for asked in ("false", "true")
    )
    assert fewer.activation_bytes < 0.6 * plain.activation_bytes
    assert fewer.state_bytes == plain.state_bytes
