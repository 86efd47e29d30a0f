"""Data: read from a folder, checked, cached, or missing with words that help."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from optbench.tasks.mnist_mlp import ImageMlp
from PIL import Image

from optbench import components, data, hub
from optbench.data import ImageData, load_digits, load_parquet
from optbench.errors import UsageError
from optbench.run import check
from tests.conftest import MakeTrial

CPU = torch.device("cpu")
SHARED = os.environ.get("OPTBENCH_DATA")  # before each test takes it away
Load = Callable[..., ImageData]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OPTBENCH_DATA", raising=False)


def pixels(seed: int, count: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4), dtype=np.uint8)


def write(folder: Path, name: str, *, seed: int, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for image in pixels(seed, count):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="png")
        images.append({"bytes": buffer.getvalue(), "path": None})
    table = pa.table({"image": images, "label": [index % 3 for index in range(count)]})
    pq.write_table(table, folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "copies" / "tiny", "train.parquet", seed=0, count=9)
    write(tmp_path / "copies" / "tiny", "test.parquet", seed=1, count=6)
    return tmp_path / "copies"


def load(**options: Any) -> ImageData:
    defaults = {
        "repo": "someone/tiny",
        "revision": "0" * 40,
        "train_file": "data/train-00000-of-00001.parquet",
        "test_file": "data/test-00000-of-00001.parquet",
        "image_column": "image",
        "label_column": "label",
        "mean": [0.5],
        "std": [0.25],
        "sha256": None,
        "path": None,
        "device": CPU,
    }
    return load_parquet(**{**defaults, **options})


def test_images_are_decoded_scaled_and_normalised(folder: Path) -> None:
    found = load(path=str(folder))
    expected = (torch.tensor(pixels(0, 9)).float()[:, None] / 255 - 0.5) / 0.25
    torch.testing.assert_close(found.train_inputs, expected)
    assert found.train_labels.tolist() == [0, 1, 2] * 3
    assert (found.test_inputs.shape, found.num_classes) == ((6, 1, 4, 4), 3)


@pytest.mark.parametrize("place", ["tiny/train.parquet", "train.parquet", "data/train-00000-of-00001.parquet"])
def test_a_folder_may_hold_the_files_in_the_usual_places(place: str, tmp_path: Path) -> None:
    for split, seed in (("train", 0), ("test", 1)):
        file = tmp_path / "copies" / place.replace("train", split)
        write(file.parent, file.name, seed=seed, count=3)
    assert len(load(path=str(tmp_path / "copies")).train_labels) == 3


def test_the_environment_names_a_folder_for_all_data_sets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTBENCH_DATA", str(folder))
    assert len(load().train_labels) == 9


def test_colour_images_get_their_channels_first(tmp_path: Path) -> None:
    for name in ("train.parquet", "test.parquet"):
        buffer = io.BytesIO()
        Image.fromarray(np.zeros((4, 5, 3), dtype=np.uint8)).save(buffer, format="png")
        table = pa.table({"image": [{"bytes": buffer.getvalue(), "path": None}], "label": [0]})
        pq.write_table(table, tmp_path / name)
    assert load(path=str(tmp_path), mean=[0.5] * 3, std=[0.5] * 3).train_inputs.shape == (1, 3, 4, 5)


def test_other_images_than_the_expected_ones_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="not the expected ones") as caught:
        load(path=str(folder), sha256="0" * 64)
    right = str(caught.value).partition("their sha256 is ")[2][:64]
    assert len(load(path=str(folder), sha256=right).train_labels) == 9


def test_copies_that_are_known_are_accepted_and_noted(folder: Path) -> None:
    with pytest.raises(UsageError, match="not the expected ones") as caught:
        load(path=str(folder), sha256="0" * 64, copies={"1" * 64: "others"})
    found = str(caught.value).partition("their sha256 is ")[2][:64]
    for sha256 in (None, "0" * 64):
        assert load(path=str(folder), sha256=sha256, copies={found: "JPEG copies"}).note == "JPEG copies"
    assert load(path=str(folder), sha256=found, copies={"1" * 64: "others"}).note == ""


def test_the_copies_of_cifar10_are_known_to_be_copies(make_trial: MakeTrial) -> None:
    """The hash in the file is compared where the copies are decoded in full, which takes a while."""
    trial = make_trial("task=vit")
    assert trial.data is not None
    (sha256, note) = next(iter(trial.data.arguments["copies"].items()))
    assert len(bytes.fromhex(sha256)) == 32
    assert note.startswith("JPEG copies")


@pytest.mark.verify
def test_the_local_copies_of_cifar10_are_those_of_the_file(make_trial: MakeTrial) -> None:
    if SHARED is None or not (Path(SHARED) / "cifar10").is_dir():
        pytest.skip("OPTBENCH_DATA names no folder with CIFAR-10")
    trial = make_trial("task=vit", f"data.path={SHARED}")
    assert trial.data is not None
    found = components.build(trial.data, group="data", device=CPU)
    assert found.note.startswith("JPEG copies")
    assert (found.train_inputs.dtype, found.train_inputs.shape) == (torch.uint8, (50_000, 3, 32, 32))
    assert torch.equal(torch.bincount(found.test_labels), torch.full((10,), 1000))


def test_images_of_several_sizes_are_refused_with_a_way_out(tmp_path: Path) -> None:
    for split in ("train", "test"):
        cells = []
        for size in (4, 5):
            buffer = io.BytesIO()
            Image.new("L", (size, 4)).save(buffer, format="png")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        pq.write_table(pa.table({"image": cells, "label": [0, 1]}), tmp_path / f"{split}.parquet")
    with pytest.raises(UsageError, match=r"differ in size or kind .*such as 4 x 4, 4 x 5.*\n.*data=hub_images"):
        load(path=str(tmp_path))


def test_a_mean_for_each_channel_and_no_other_number_of_them(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"data.std=\[0.2, 0.3\]: 2 values, and the images have 1 channel"):
        load(path=str(folder), std=[0.2, 0.3])


def test_large_images_stay_bytes_and_are_made_ready_to_the_same_numbers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    floats = load(path=str(folder), mean=[0.1307], std=[0.3081])
    size = 4 * (9 + 6) * 4 * 4
    monkeypatch.setattr(data, "MAX_FLOAT_BYTES", size)
    assert load(path=str(folder)).train_inputs.dtype == torch.float32
    monkeypatch.setattr(data, "MAX_FLOAT_BYTES", size - 1)
    kept = load(path=str(folder), mean=[0.1307], std=[0.3081])
    assert kept.train_inputs.dtype == kept.test_inputs.dtype == torch.uint8
    assert torch.equal(kept.ready(kept.train_inputs[2:5]), floats.train_inputs[2:5])
    assert kept.train_inputs.dtype == torch.uint8, "they are left as they are"
    assert torch.equal(kept.ready(kept.black), floats.black)
    assert floats.black.item() == pytest.approx(-0.1307 / 0.3081)
    assert floats.ready(floats.train_inputs) is floats.train_inputs


def test_the_perceptron_trains_on_bytes_as_it_does_on_floats(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(found: ImageData) -> list[float]:
        task = ImageMlp(data=found, hidden_sizes=[5], batch_size=4, init_seed=None, order_seed=None, seed=0, device=CPU)
        batches = task.batches()
        return [*(task.loss(next(batches)).item() for _ in range(5)), task.evaluate()["test_loss"]]

    floats = load(path=str(folder))
    monkeypatch.setattr(data, "MAX_FLOAT_BYTES", 0)
    assert losses(load(path=str(folder))) == losses(floats)


def test_arrays_are_kept_in_their_order_and_made_again_where_the_file_is_damaged() -> None:
    arrays = [np.full(2, index) for index in range(12)]
    assert all(np.array_equal(a, b) for a, b in zip(hub.cached_arrays("key", lambda: arrays), arrays, strict=True))
    again = hub.cached_arrays("key", lambda: pytest.fail("made again"))
    assert all(np.array_equal(a, b) for a, b in zip(again, arrays, strict=True))
    (file,) = hub.cache_folder().iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert len(hub.cached_arrays("key", lambda: arrays[:3])) == 3
    assert len(hub.cached_arrays("key", list)) == 3


def test_where_nothing_can_be_kept_it_is_made_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(hub.cached_arrays("key", lambda: [np.zeros(1)])) == 1
    assert len(hub.cached_arrays("key", lambda: [np.zeros(1), np.zeros(1)])) == 2


def test_images_are_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(path=str(folder))
    monkeypatch.setattr(data, "_read", lambda *_, **__: pytest.fail("decoded again"))
    torch.testing.assert_close(load(path=str(folder)).train_inputs, first.train_inputs)


def test_the_cache_is_not_mistaken_for_other_files(folder: Path) -> None:
    load(path=str(folder))
    write(folder / "tiny", "train.parquet", seed=5, count=9)
    expected = (torch.tensor(pixels(5, 9)).float()[:, None] / 255 - 0.5) / 0.25
    torch.testing.assert_close(load(path=str(folder)).train_inputs, expected)


def test_a_folder_without_the_data_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data.path=.* has no train split of someone/tiny") as caught:
        load(path=str(tmp_path))
    assert str(tmp_path / "tiny" / "train.parquet") in str(caught.value)


def test_a_wrong_column_names_those_there_are(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"no column 'img'. It has: image, label"):
        load(path=str(folder), image_column="img")


def test_without_network_or_copy_the_error_names_every_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*_: object, **__: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(UsageError, match="no route to host") as caught:
        load()
    for way_out in ("data.path=<folder>", "OPTBENCH_DATA=<folder>", "task=digits_mlp"):
        assert way_out in str(caught.value)


def test_the_download_asks_for_the_pinned_revision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[object, ...]] = []

    def download(repo: str, file: str, *, repo_type: str, revision: str) -> str:
        asked.append((repo, file, repo_type, revision))
        return str(folder / "tiny" / ("train.parquet" if "train" in file else "test.parquet"))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert len(load().train_labels) == 9
    assert asked[0] == ("someone/tiny", "data/train-00000-of-00001.parquet", "dataset", "0" * 40)


def test_digits_are_split_within_each_class_and_normalised() -> None:
    digits = load_digits(test_size=360, split_seed=0, mean=[0.3053], std=[0.3760], device=CPU)
    assert digits.train_inputs.shape == (1437, 1, 8, 8)
    assert digits.test_inputs.shape == (360, 1, 8, 8)
    everything = torch.cat((digits.train_inputs, digits.test_inputs))
    assert everything.mean().item() == pytest.approx(0.0, abs=0.001)
    assert everything.std().item() == pytest.approx(1.0, abs=0.001)
    shares = torch.bincount(digits.test_labels) / torch.bincount(torch.cat((digits.train_labels, digits.test_labels)))
    assert shares.min() > 0.18


def test_missing_data_show_before_anything_trains(make_trial: MakeTrial, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no train split of ylecun/mnist"):
        check(make_trial("task=mnist_mlp", f"data.path={tmp_path}"))
