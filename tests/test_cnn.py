"""Convolutional networks: what they are made of, what they are trained on, and what that takes."""

import colorsys
import dataclasses
import io
import itertools
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from optbench.tasks import cnn
from optbench.tasks.cnn import Cnn, ConvNet, ConvNetConfig, Pool, recolour, standardize
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from optbench import building, data, hub, memory
from optbench.catalogue import entries, names
from optbench.data import ImageData, draw_flips_and_crops, flip_and_crop
from optbench.device import configured
from optbench.errors import UsageError
from optbench.memory import Training, measure
from optbench.optim.param_groups import hidden_matrices
from optbench.prediction import predict
from optbench.run import check
from optbench.seeding import stream
from tests.conftest import MakeTrial, RunTrial

CPU = torch.device("cpu")
SMALL = {
    "channels": [4, 6],
    "kernel_sizes": [3, 3],
    "paddings": ["same", "valid"],
    "pool_sizes": [0, 2],
    "hidden_sizes": [10],
    "conv_dropout": 0.0,
    "hidden_dropout": 0.0,
    "init": "pytorch",
    "l2": 0.0,
}
# Eight by eight pixels that come with scikit-learn.
DIGITS = ["task=cnn", "data=digits", "task.batch_size=32"]


def config(**changes: Any) -> ConvNetConfig:
    return ConvNetConfig(**{**SMALL, **changes})


def published(name: str) -> ConvNetConfig:
    (entry,) = (entry for entry in entries("model") if entry.name == name)
    return ConvNetConfig(**{key: value for key, value in entry.config.items() if key not in ("name", "_target_")})


def network(name: str, *, shape: tuple[int, int, int]) -> ConvNet:
    torch.manual_seed(0)
    return ConvNet(published(name), image_shape=shape, num_classes=10)


def images(num_train: int = 12, *, size: int = 8, channels: int = 3, mean: float = 0.5, std: float = 0.25) -> ImageData:
    """Images of chance, normalised."""
    generator = torch.Generator().manual_seed(0)
    inputs = (torch.rand(num_train, channels, size, size, generator=generator) - mean) / std
    labels = torch.arange(num_train) % 3
    return ImageData(
        train_inputs=inputs,
        train_labels=labels,
        test_inputs=inputs,
        test_labels=labels,
        num_classes=3,
        mean=torch.full((1, channels, 1, 1), mean),
        std=torch.full((1, channels, 1, 1), std),
    )


def task(**changes: Any) -> Cnn:
    defaults: dict[str, Any] = {
        "data": images(),
        "model": config(),
        "batch_size": 4,
        "augmentation": "none",
        "crop_padding": 2,
        "standardize_images": False,
        "num_train": None,
        "num_test": None,
        "init_seed": None,
        "order_seed": None,
        "seed": 0,
        "device": CPU,
    }
    return Cnn(**{**defaults, **changes})


# The networks.


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("cnn_mnist", (1, 28, 28), 1_199_882),
        ("cnn_2c2d", (1, 28, 28), 3_274_634),
        ("cnn_3c3d", (3, 32, 32), 895_210),
    ],
)
def test_the_published_networks_have_the_published_numbers_of_parameters(
    name: str, shape: tuple[int, int, int], count: int
) -> None:
    with torch.device("meta"):
        model = ConvNet(published(name), image_shape=shape, num_classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_the_numbers_of_parameters_are_those_of_the_arithmetic() -> None:
    def dense(*widths: int) -> int:
        return sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(widths))

    assert 32 * (9 + 1) + 64 * (9 * 32 + 1) + dense(12 * 12 * 64, 128, 10) == 1_199_882
    assert 32 * (25 + 1) + 64 * (25 * 32 + 1) + dense(7 * 7 * 64, 1024, 10) == 3_274_634
    assert 64 * (75 + 1) + 96 * (9 * 64 + 1) + 128 * (9 * 96 + 1) + dense(3 * 3 * 128, 512, 256, 10) == 895_210


def test_the_task_names_all_models_and_data_that_suit_it() -> None:
    assert set(cnn.MODELS) == {
        entry.name for entry in entries("model") if entry.config["_target_"].startswith("optbench.tasks.cnn.")
    }
    assert set(cnn.DATA) <= set(names("data"))


@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [("cnn_mnist", (1, 28, 28), [12]), ("cnn_2c2d", (1, 28, 28), [14, 7]), ("cnn_3c3d", (3, 32, 32), [14, 6, 3])],
)
def test_what_is_pooled_has_the_published_sizes(name: str, shape: tuple[int, int, int], sizes: list[int]) -> None:
    model = network(name, shape=shape)
    found: list[int] = []
    for module in model.modules():
        if isinstance(module, Pool):
            module.register_forward_hook(lambda _, __, output: found.append(output.shape[-1]))
    model(torch.zeros(1, *shape))
    assert found == sizes


def pooled_by_hand(row: list[float], *, size: int) -> list[float]:
    """TensorFlow's rule for the padding `same`: what is odd of it goes behind."""
    outputs = -(-len(row) // 2)
    before = max((outputs - 1) * 2 + size - len(row), 0) // 2
    return [max(row[max(start, 0) : start + size]) for start in range(-before, 2 * outputs - before, 2)]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("length", [1, 2, 5, 6, 7, 12])
def test_windows_are_padded_as_those_of_tensorflow(size: int, length: int) -> None:
    row = torch.randn(length, generator=torch.Generator().manual_seed(length))
    found = Pool(size)(row.expand(1, 1, 1, length))
    expected = pooled_by_hand(row.tolist(), size=size)
    assert found.flatten().tolist() == expected


def test_the_network_is_the_example_of_pytorch_written_out() -> None:
    model = network("cnn_mnist", shape=(1, 28, 28)).eval()
    inputs = torch.randn(2, 1, 28, 28)
    first, second = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    hidden, head = (module for module in model.modules() if isinstance(module, nn.Linear))
    x = functional.conv2d(inputs, first.weight, first.bias).relu()
    x = functional.conv2d(x, second.weight, second.bias).relu()
    x = functional.max_pool2d(x, 2).flatten(1)
    torch.testing.assert_close(model(inputs), head(hidden(x).relu()))


def test_weights_of_2c2d_are_cut_off_at_two_standard_deviations() -> None:
    model = network("cnn_2c2d", shape=(1, 28, 28))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert parameter.unique().tolist() == pytest.approx([0.05]), name
        else:
            assert parameter.abs().max() <= 0.1
    hidden = model.hidden[0].weight
    assert hidden.std().item() == pytest.approx(0.05 * cnn.CUT_OFF_STD, rel=0.002)
    assert hidden.mean().item() == pytest.approx(0.0, abs=0.0002)


def test_weights_of_3c3d_are_those_of_glorot() -> None:
    model = network("cnn_3c3d", shape=(3, 32, 32))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert parameter.count_nonzero() == 0, name
            continue
        per_pixel = parameter[0, 0].numel()
        std = math.sqrt(2 / ((parameter.shape[0] + parameter.shape[1]) * per_pixel))
        assert parameter.std().item() == pytest.approx(std, rel=0.03)
        largest = 2 / cnn.CUT_OFF_STD if parameter.ndim == 4 else math.sqrt(3)  # a normal one cut off, a uniform one
        assert 0.95 * largest * std < parameter.abs().max().item() <= 1.0001 * largest * std


def test_the_l2_term_of_3c3d_explains_the_published_loss_before_training() -> None:
    """DeepOBS's baselines have a test loss of 3.592 (standard deviation 0.019) there, with an accuracy of chance."""
    model = network("cnn_3c3d", shape=(3, 32, 32))
    term = 0.5 * 0.002 * sum(weight.square().sum().item() for weight in model.parameters() if weight.ndim > 1)
    cross_entropy = functional.cross_entropy(
        model(standardize(torch.rand(200, 3, 32, 32))), torch.arange(200) % 10
    ).item()
    assert term == pytest.approx(1.26, abs=0.02)
    assert cross_entropy + term == pytest.approx(3.592, abs=0.1)


def test_dropout_is_where_the_example_has_it() -> None:
    model = network("cnn_mnist", shape=(1, 28, 28))
    dropouts = [(name, module.p) for name, module in model.named_modules() if isinstance(module, nn.Dropout)]
    assert dropouts == [("convolutions.5", 0.25), ("hidden.2", 0.5)]
    assert not [module for module in network("cnn_3c3d", shape=(3, 32, 32)).modules() if isinstance(module, nn.Dropout)]


def test_hidden_matrices_are_the_hidden_dense_layers() -> None:
    model = network("cnn_3c3d", shape=(3, 32, 32))
    assert [name for name, _, is_hidden in hidden_matrices(model) if is_hidden] == [
        "hidden.0.weight",
        "hidden.2.weight",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": [4]}, r"model.kernel_sizes has 2 values and model.channels 1"),
        ({"channels": [4, 0]}, r"model.channels=\[4, 0\]: expected 1 or more of each"),
        ({"channels": "46"}, r"model.channels='46': expected a list"),
        ({"hidden_sizes": [1.5]}, r"model.hidden_sizes=1.5: expected int, got float"),
        ({"kernel_sizes": [4, 3]}, r"model.kernel_sizes=\[4, 3\]: those with padding `same` must be odd"),
        ({"paddings": ["sam", "valid"]}, r"Did you mean 'same'"),
        ({"pool_sizes": [4, 0]}, r"unknown value '4' for model.pool_sizes"),
        ({"conv_dropout": 1.0}, r"model.conv_dropout=1.0: expected a number from 0 to below 1"),
        ({"init": "xavir"}, r"Did you mean 'xavier'"),
        ({"l2": -0.1}, r"model.l2=-0.1: expected 0 or more"),
    ],
)
def test_a_model_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**changes)


# The task.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": images(size=2)}, r"images of 2 x 2 pixels are too small for this model: a kernel of 3 x 3"),
        ({"data": "captions"}, r"task=cnn learns from images with labels, not from str: data=mnist, "),
        ({"model": "unet"}, r"task=cnn takes model=cnn_mnist, cnn_2c2d, cnn_3c3d, not a str"),
        ({"batch_size": 13}, r"task.batch_size=13: there are 12 training images"),
        ({"batch_size": 4, "num_train": 3}, r"task.batch_size=4: there are 3 training images"),
        ({"num_train": 13}, r"task.num_train=13: there are 12; expected 1 to 12, or null"),
        ({"num_test": 0}, r"task.num_test=0: there are 12"),
        ({"augmentation": "flip"}, r"Did you mean 'flip_crop'"),
        ({"crop_padding": -1}, r"task.crop_padding=-1: expected 0 or more pixels"),
        ({"standardize_images": 1}, r"task.standardize_images=1: expected bool, got int"),
    ],
)
def test_a_task_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        task(**changes)


def test_images_that_are_too_small_for_a_network_show_before_anything_trains(make_trial: MakeTrial) -> None:
    with pytest.raises(UsageError, match=r"images of 8 x 8 pixels are too small .*\n.*model=cnn_mnist data=mnist"):
        check(make_trial(*DIGITS, "model=cnn_3c3d"))


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


def test_seeds_differ_in_weights_and_order_unless_these_are_fixed() -> None:
    first, other = task(seed=0), task(seed=1)
    assert not torch.equal(first.model.head.weight, other.model.head.weight)
    assert not torch.equal(next(first.batches())[0], next(other.batches())[0])
    fixed = [task(seed=seed, init_seed=7, order_seed=5 - seed) for seed in (0, 1)]
    assert torch.equal(fixed[0].model.head.weight, fixed[1].model.head.weight)
    assert torch.equal(next(fixed[0].batches())[0], next(fixed[1].batches())[0])


def test_making_a_task_its_batches_and_evaluating_leave_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    noisy = task(augmentation="flip_crop_colour", model=config(conv_dropout=0.5, hidden_dropout=0.5))
    next(noisy.batches())
    noisy.evaluate()
    assert torch.equal(torch.rand(1), expected)


def test_evaluation_is_without_dropout_over_all_test_images_and_restores_the_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noisy = task(model=config(conv_dropout=0.5, hidden_dropout=0.5))
    monkeypatch.setattr(cnn, "EVALUATION_BATCH_SIZE", 5)
    batch = next(noisy.batches())
    assert noisy.loss(batch) != noisy.loss(batch)
    metrics = noisy.evaluate()
    assert noisy.model.training
    assert noisy.evaluate() == metrics
    noisy.model.eval()
    noisy.evaluate()
    assert not noisy.model.training
    logits = noisy.model(images().test_inputs)
    assert metrics["test_loss"] == pytest.approx(functional.cross_entropy(logits, images().test_labels).item())
    assert metrics["test_accuracy"] == pytest.approx((logits.argmax(1) == images().test_labels).float().mean().item())


def test_the_l2_term_is_for_the_training_loss_alone_and_spares_the_biases() -> None:
    plain, decayed = task(), task(model=config(l2=0.1))
    batch = next(plain.batches())
    difference = decayed.loss(batch) - plain.loss(batch)
    expected = sum(0.05 * weight.square().sum() for weight in plain.model.parameters() if weight.ndim > 1)
    torch.testing.assert_close(difference, expected)
    assert decayed.evaluate() == plain.evaluate()
    decayed.loss(batch).backward()
    plain.loss(batch).backward()
    for one, other in zip(decayed.model.parameters(), plain.model.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        added = 0.1 * other.detach() if other.ndim > 1 else torch.zeros_like(other)
        torch.testing.assert_close(one.grad - other.grad, added, atol=1e-6, rtol=1e-4)


def test_a_subset_is_the_first_images_of_each_split() -> None:
    small = task(num_train=5, num_test=7, batch_size=5)
    inputs, _ = next(small.batches())
    assert {image.sum().item() for image in inputs} == {image.sum().item() for image in images().train_inputs[:5]}
    correct = small.model.eval()(images().test_inputs[:7]).argmax(1) == images().test_labels[:7]
    assert small.evaluate()["test_accuracy"] == pytest.approx(correct.float().mean().item())


# Images in other colours.


def test_each_image_is_standardized_by_itself_in_training_and_test() -> None:
    standardized = task(standardize_images=True)
    inputs, _ = next(standardized.batches())
    flat = inputs.flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(4), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(flat.std(1, correction=0), torch.ones(4), atol=1e-5, rtol=0.0)
    logits = standardized.model(standardize(images().test_inputs * 0.25 + 0.5))
    expected = functional.cross_entropy(logits, images().test_labels).item()
    assert standardized.evaluate()["test_loss"] == pytest.approx(expected, rel=1e-5)
    assert standardize(torch.zeros(1, 3, 4, 4)).count_nonzero() == 0


def test_saturation_is_changed_as_in_the_colour_space_hsv_and_contrast_around_each_channels_mean() -> None:
    pixels = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    pixels[0] = 0.0  # a black image, and a grey one
    pixels[1] = 0.3
    draws = torch.tensor([[0.1, 0.5], [0.9, 0.5], [0.0, 0.5], [1.0, 0.5], [0.5, 0.0], [0.7, 1.0]])
    found = recolour(pixels, draws)
    for image, changed, (saturation, contrast) in zip(pixels, found, draws.tolist(), strict=True):
        expected = torch.empty_like(image)
        for row, column in itertools.product(range(4), range(4)):
            hue, amount, value = colorsys.rgb_to_hsv(*image[:, row, column].tolist())
            amount = min(1.0, amount * (0.5 + saturation))
            expected[:, row, column] = torch.tensor(colorsys.hsv_to_rgb(hue, amount, value))
        mean = expected.mean((1, 2), keepdim=True)
        torch.testing.assert_close(changed, mean + (0.2 + 1.6 * contrast) * (expected - mean))


def test_images_of_one_channel_have_no_saturation() -> None:
    pixels = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(recolour(pixels, torch.tensor([[0.0, 0.5], [1.0, 0.5]])), pixels)


def test_windows_and_mirrors_are_those_of_the_pass_and_colours_come_after_them() -> None:
    given = images()
    found, labels = next(task(augmentation="flip_crop", seed=3).batches())
    generator = torch.Generator().manual_seed(stream(3, "augmentation"))
    draws = draw_flips_and_crops(12, padding=2, generator=generator)
    factors = torch.rand((12, 2), generator=generator)
    order = torch.Generator().manual_seed(stream(3, "order"))
    torch.empty((), dtype=torch.int64).random_(generator=order)
    batch = torch.randperm(12, generator=order)[:4]
    assert torch.equal(labels, given.train_labels[batch])
    black = torch.full((1, 3, 1, 1), -2.0)
    expected = flip_and_crop(given.train_inputs[batch], draws[batch], padding=2, black=black)
    assert torch.equal(found, expected)
    coloured, _ = next(task(augmentation="flip_crop_colour", seed=3).batches())
    torch.testing.assert_close(coloured, (recolour(expected * 0.25 + 0.5, factors[batch]) - 0.5) / 0.25)
    both, _ = next(task(augmentation="flip_crop_colour", standardize_images=True, seed=3).batches())
    torch.testing.assert_close(both, standardize(recolour(expected * 0.25 + 0.5, factors[batch])))


def test_each_pass_meets_other_colours() -> None:
    passes = task(data=images(num_train=4), augmentation="flip_crop_colour", crop_padding=0).batches()
    first, second = (inputs for inputs, _ in itertools.islice(passes, 2))
    assert not set(first.amax((1, 2, 3)).tolist()) & set(second.amax((1, 2, 3)).tolist())


# Data that stay bytes.


def write(folder: Path, arrays: Any, *, counts: tuple[int, int]) -> Path:
    """Images and labels in the hub's layout."""
    for split, count in zip(("train", "test"), counts, strict=True):
        cells = []
        for image in arrays(split, count):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, format="png")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        pq.write_table(
            pa.table({"img": cells, "label": [index % 3 for index in range(count)]}), folder / f"{split}.parquet"
        )
    return folder


@pytest.mark.parametrize("augmentation", ["none", "flip_crop_colour"])
def test_bytes_and_floats_give_the_same_minibatches_and_metrics_to_the_bit(
    augmentation: str, make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chance(split: str, count: int) -> Any:
        return np.random.default_rng(len(split)).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)

    path = write(tmp_path, chance, counts=(20, 8))
    overrides = [f"task.augmentation={augmentation}", "task.standardize_images=true", "task.batch_size=8"]
    trial = make_trial("task=cnn", "data=cifar10", f"data.path={path}", *overrides)
    found = []
    for most in (data.MAX_FLOAT_BYTES, 0):
        monkeypatch.setattr(data, "MAX_FLOAT_BYTES", most)
        building._loaded_data.clear()
        made = building.build_task(trial, CPU)
        assert isinstance(made, Cnn)
        found.append((list(itertools.islice(made.batches(), 5)), made.evaluate(), made._train_inputs.dtype))
    (floats, metrics, first), (kept, same, second) = found
    assert (first, second) == (torch.float32, torch.uint8)
    assert all(torch.equal(a, b) for pair in zip(floats, kept, strict=True) for a, b in zip(*pair, strict=True))
    assert metrics == same
    building._loaded_data.clear()


# Training.


@pytest.fixture(scope="module")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """640 training images of MNIST and 200 test images, in a folder of their own."""
    if not {"OPTBENCH_DATA", "CI"} & os.environ.keys():
        pytest.skip("OPTBENCH_DATA names no folder with MNIST")
    (entry,) = (entry for entry in entries("data") if entry.name == "mnist")
    folder = tmp_path_factory.mktemp("digits")
    for split, count in (("train", 640), ("test", 200)):
        if source := os.environ.get("OPTBENCH_DATA"):
            whole = Path(source) / "mnist" / f"{split}.parquet"
        else:  # CI has to find it; elsewhere nothing is downloaded for a test
            name, revision = entry.config[f"{split}_file"], entry.config["revision"]
            (whole,) = hub.download(entry.config["repo"], [name], revision=revision, ways_out="")
        first = next(pq.ParquetFile(whole).iter_batches(batch_size=count))
        pq.write_table(pa.Table.from_batches([first]), folder / f"{split}.parquet")
    return str(folder)


@pytest.mark.parametrize(("model", "lr"), [("cnn_mnist", 0.001), ("cnn_2c2d", 0.0003)])
def test_in_one_pass_over_a_few_digits_of_mnist_the_loss_falls(
    model: str, lr: float, run_trial: RunTrial, few_digits: str
) -> None:
    result = run_trial(
        "task=cnn",
        f"model={model}",
        f"data.path={few_digits}",
        "data.sha256=null",
        "budget.num_steps=10",
        "evaluation.every_num_steps=10",
        "optimizer=adam",
        f"optimizer.lr={lr}",
    )
    assert result.status == "completed"
    first, last = result.curve["test_loss"]
    assert first == pytest.approx(math.log(10), abs=0.3)
    assert last < 0.75 * first


def test_on_scans_of_digits_the_network_is_right_most_of_the_time(run_trial: RunTrial) -> None:
    overrides = ["budget.num_steps=120", "evaluation.every_num_steps=120", "optimizer=adam", "optimizer.lr=0.003"]
    result = run_trial(*DIGITS, *overrides)
    assert result.curve["test_accuracy"][-1] > 0.9


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_losses_bit_for_bit_and_another_seed_others(
    precision: str, run_trial: RunTrial
) -> None:
    def losses(seed: int) -> list[float]:
        overrides = [*DIGITS, "task.augmentation=flip_crop", "model.l2=0.001", "budget.num_steps=6"]
        result = run_trial(
            *overrides,
            "evaluation.every_num_steps=2",
            "optimizer=adamw",
            f"seed={seed}",
            f"hardware.precision={precision}",
        )
        return [*result.curve["train_loss"][1:], *result.curve["test_loss"]]

    first = losses(0)
    assert np.isfinite(first).all()
    assert losses(0) == first
    assert not set(losses(1)) & set(first)


def test_a_step_in_parts_is_the_same_step_l2_term_included(run_trial: RunTrial) -> None:
    overrides = [*DIGITS, "model.conv_dropout=0.0", "model.hidden_dropout=0.0", "model.l2=0.01", "budget.num_steps=3"]
    whole, parts = (
        run_trial(*overrides, "optimizer=sgd", f"hardware.num_micro_batches={number}").curve["train_loss"][-1]
        for number in (1, 4)
    )
    assert parts == pytest.approx(whole, rel=1e-5)


# Memory.


@pytest.mark.parametrize(
    "overrides",
    [[], ["model=cnn_2c2d", "hardware.precision=bf16"], ["model.l2=0.002", "task.augmentation=flip_crop_colour"]],
    ids=["mnist", "2c2d", "l2"],
)
def test_the_memory_of_a_step_is_predicted_to_the_byte(
    overrides: list[str], make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "kernel_peak_bytes", lambda _: None)
    monkeypatch.setattr(memory, "NUM_FIRST_STEPS", 1)
    asked = make_trial(*DIGITS, "optimizer=adamw", *overrides)
    with configured(asked.hardware, CPU):
        taken = measure(asked, CPU)
    found = [dataclasses.asdict(each) for each in (predict(asked), taken)]
    for figures in found:
        del figures["kind"], figures["kernel_peak_bytes"]
    assert found[0] == found[1]
    assert taken.activation_bytes > 0
