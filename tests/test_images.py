"""Images of any size: from folders, and from the Parquet files that the hub keeps of every data set."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from optbench import images
from optbench.data import ImageData
from optbench.errors import UsageError
from optbench.images import fitted, load_hub_images, load_image_folder

CPU = torch.device("cpu")
COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OPTBENCH_DATA", raising=False)


def encoded(colour: Any, *, size: tuple[int, int] = (6, 4), mode: str = "RGB", kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(buffer, format=kind)
    return buffer.getvalue()


def classes(folder: Path, counts: dict[str, int]) -> Path:
    """A folder with so many images of each colour, of other sizes and kinds."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            kind = "png" if index % 2 else "bmp"
            (folder / name / f"{index:03}.{kind}").write_bytes(
                encoded(COLOURS[name], size=(4 + index % 5, 9 - index % 3), kind=kind)
            )
    return folder


def load_folder(path: Path | None, **options: Any) -> ImageData:
    defaults: dict[str, Any] = {
        "image_size": 4,
        "test_fraction": 0.25,
        "split_seed": 0,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "device": CPU,
    }
    return load_image_folder(path=None if path is None else str(path), **{**defaults, **options})


def assert_colours_are_labels(data: ImageData, names: list[str]) -> None:
    for inputs, labels in ((data.train_inputs, data.train_labels), (data.test_inputs, data.test_labels)):
        expected = torch.tensor([COLOURS[names[label]] for label in labels]) / 255
        assert torch.equal(inputs, expected[:, :, None, None].expand_as(inputs))


# One image.


def test_the_middle_of_an_image_is_cut_out_and_resized() -> None:
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 20:40] = 200
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    found = fitted(buffer.getvalue(), 10)
    assert found is not None
    assert found.shape == (10, 10, 3)
    assert (found[:, 1:-1] == 200).all(), "the outermost are mixed with what lies outside"
    half = fitted(buffer.getvalue(), 20)
    assert half is not None
    assert np.array_equal(half, pixels[:, 20:40])


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "I;16"])
def test_an_image_of_any_mode_becomes_rgb(mode: str) -> None:
    found = fitted(encoded((255, 255, 255), mode=mode, kind="tiff"), 3)
    assert found is not None
    assert (found.shape, found.dtype) == ((3, 3, 3), np.uint8)
    assert (found == 255).all()


@pytest.mark.parametrize("data", [b"", b"not an image", encoded((1, 2, 3), kind="png")[:40]])
def test_what_is_no_image_is_none(data: bytes) -> None:
    assert fitted(data, 4) is None


# Folders.


def test_a_folder_of_classes_is_split_within_each_class(tmp_path: Path) -> None:
    found = load_folder(classes(tmp_path / "photos", {"red": 8, "green": 12, "blue": 4}))
    assert torch.bincount(found.train_labels).tolist() == [3, 9, 6]
    assert torch.bincount(found.test_labels).tolist() == [1, 3, 2]
    assert found.num_classes == 3
    assert_colours_are_labels(found, ["blue", "green", "red"])


def test_the_seed_decides_what_is_held_out_and_the_order(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("red", "green"):
        (folder / name).mkdir(parents=True)
        for index in range(12):
            (folder / name / f"{index}.png").write_bytes(encoded((index * 20, 0, 0)))
    first, same, other = (load_folder(folder, split_seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.test_inputs, same.test_inputs)
    assert torch.equal(first.train_inputs, same.train_inputs)
    assert not torch.equal(first.test_inputs, other.test_inputs)
    everything = torch.cat((first.train_inputs, first.test_inputs))[:, 0, 0, 0]
    assert torch.equal(everything.unique(return_counts=True)[1], torch.full((12,), 2))
    assert len(set(first.train_labels[:8].tolist())) == 2, "the first few are of all classes"


@pytest.mark.parametrize("test", ["test", "val", "validation", "valid"])
def test_a_folder_may_bring_its_own_split(test: str, tmp_path: Path) -> None:
    classes(tmp_path / "photos" / "train", {"red": 3, "green": 2})
    classes(tmp_path / "photos" / test, {"red": 1, "green": 1})
    (tmp_path / "photos" / "train" / "red" / ".DS_Store").write_bytes(b"hidden")
    found = load_folder(tmp_path / "photos")
    assert (len(found.train_labels), len(found.test_labels)) == (5, 2)
    assert_colours_are_labels(found, ["green", "red"])


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    folder = classes(tmp_path / "photos", {"red": 4})
    (folder / "red").rename(folder / "train")
    classes(folder, {"green": 4})
    found = load_folder(folder)
    assert found.num_classes == 2
    assert_colours_are_labels(found, ["green", "red"])


def test_a_folder_is_decoded_once_and_again_when_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = classes(tmp_path / "photos", {"red": 4, "green": 4})
    first = load_folder(folder)
    with monkeypatch.context() as patched:
        patched.setattr(images, "fitted", lambda *_: pytest.fail("decoded again"))
        assert torch.equal(load_folder(folder).train_inputs, first.train_inputs)
    (folder / "red" / "001.png").write_bytes(encoded((9, 9, 9)))
    changed = load_folder(folder)
    assert ((torch.cat((changed.train_inputs, changed.test_inputs)) * 255).round() == 9).all((1, 2, 3)).sum() == 1


def test_a_missing_folder_is_said_to_be() -> None:
    with pytest.raises(UsageError, match=r"data.path is missing: data.path=<folder>"):
        load_folder(None)
    with pytest.raises(UsageError, match=r"data.path=/nowhere: there is no such folder"):
        load_folder(Path("/nowhere"))


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(encoded((1, 2, 3)))
    with pytest.raises(UsageError, match=r"photos holds no folders.\nExpected one for each class"):
        load_folder(tmp_path / "photos")


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    folder = classes(tmp_path / "photos", {"red": 2, "green": 2})
    (folder / "blue").mkdir()
    with pytest.raises(UsageError, match=r"a class without images: .*photos/blue\."):
        load_folder(folder)


def test_a_class_of_one_image_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one image cannot be in both splits, and there is no other of: red"):
        load_folder(classes(tmp_path / "photos", {"red": 1, "green": 2}))


def test_files_that_are_no_images_are_named_all_of_them(tmp_path: Path) -> None:
    folder = classes(tmp_path / "photos", {"red": 2, "green": 2})
    for index in range(13):
        (folder / "red" / f"note{index:02}.txt").write_text("not an image")
    with pytest.raises(UsageError, match="no image that can be read; repair or remove:") as caught:
        load_folder(folder)
    message = str(caught.value)
    assert str(folder / "red" / "note00.txt") in message
    assert message.endswith("and 3 more")
    assert "000.bmp" not in message


def test_a_training_split_without_another_says_what_to_do(tmp_path: Path) -> None:
    classes(tmp_path / "photos" / "train", {"red": 2, "green": 2})
    with pytest.raises(UsageError, match=r"no folder test, val, validation, valid.\n.*data.path=.*photos/train"):
        load_folder(tmp_path / "photos")


def test_classes_that_differ_between_the_splits_are_named(tmp_path: Path) -> None:
    classes(tmp_path / "photos" / "train", {"red": 2, "green": 2})
    classes(tmp_path / "photos" / "val", {"red": 2, "blue": 2})
    with pytest.raises(UsageError, match="the classes of train and val differ; in one of them alone: blue, green"):
        load_folder(tmp_path / "photos")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "data.image_size=0: expected a whole number of pixels"),
        ({"test_fraction": 1.0}, "data.test_fraction=1.0: expected a number between 0 and 1"),
        ({"mean": [0.5]}, r"data.mean=\[0.5\]: 1 values, and the images have 3 channel"),
    ],
)
def test_values_out_of_their_range_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = classes(tmp_path / "photos", {"red": 2, "green": 2})
    with pytest.raises(UsageError, match=message):
        load_folder(folder, **options)


# The hub.


def write(file: Path, labels: list[Any], *, column: str = "label", cells: list[Any] | None = None) -> None:
    """A Parquet file with an image of the first, second or third colour for each label."""
    file.parent.mkdir(parents=True, exist_ok=True)
    names = sorted(COLOURS)
    if cells is None:
        shown = [names.index(label) if label in names else (label or 0) for label in labels]
        cells = [
            {"bytes": encoded(COLOURS[names[max(index, 0)]], size=(3 + row % 4, 5)), "path": None}
            for row, index in enumerate(shown)
        ]
    pq.write_table(pa.table({"picture": cells, column: labels}), file)


def load_hub(**options: Any) -> ImageData:
    defaults: dict[str, Any] = {
        "repo": "someone/colours",
        "revision": "refs/convert/parquet",
        "config": "default",
        "train_split": "train",
        "test_split": "validation",
        "image_column": "picture",
        "label_column": "label",
        "image_size": 4,
        "order_seed": 0,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "path": None,
        "device": CPU,
    }
    return load_hub_images(**{**defaults, **options})


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A local copy as the hub has it: training images in two files, sorted by class."""
    folder = tmp_path / "copy"
    write(folder / "default" / "train" / "0000.parquet", [0] * 6 + [1] * 6)
    write(folder / "default" / "train" / "0001.parquet", [2] * 6)
    write(folder / "default" / "validation" / "0000.parquet", [0, 1, 2])
    return folder


def test_all_files_of_a_split_are_read_and_mixed(copy: Path) -> None:
    found = load_hub(path=str(copy))
    assert torch.bincount(found.train_labels).tolist() == [6, 6, 6]
    assert found.train_labels.tolist() != sorted(found.train_labels.tolist())
    assert_colours_are_labels(found, sorted(COLOURS))


@pytest.mark.parametrize(
    "place", ["colours/default/{}/0.parquet", "colours/{}/0.parquet", "{}/0.parquet", "colours/{}.parquet"]
)
def test_a_local_copy_may_lie_in_the_usual_places(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "validation"):
        write(tmp_path / "copy" / place.format(split), [0, 1, 2])
    monkeypatch.setenv("OPTBENCH_DATA", str(tmp_path / "copy"))
    assert len(load_hub().train_labels) == 3


def test_labels_may_be_names(tmp_path: Path) -> None:
    write(tmp_path / "train" / "0.parquet", ["red", "blue", "green", "red"])
    write(tmp_path / "validation" / "0.parquet", ["green", "red"])
    found = load_hub(path=str(tmp_path))
    assert found.num_classes == 3
    assert_colours_are_labels(found, sorted(COLOURS))


def test_the_hub_is_asked_for_every_file_of_both_splits(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, ...]] = []

    def list_repo_files(_: object, repo: str, *, repo_type: str, revision: str) -> list[str]:
        assert (repo, repo_type, revision) == ("someone/colours", "dataset", "refs/convert/parquet")
        return [".gitattributes", *(str(file.relative_to(copy)) for file in sorted(copy.rglob("*.parquet")))]

    def download(repo: str, file: str, *, repo_type: str, revision: str) -> str:
        asked.append((repo, repo_type, file, revision))
        return str(copy / file)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", list_repo_files)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    found = load_hub()
    assert torch.equal(found.train_inputs, load_hub(path=str(copy)).train_inputs)
    files = ["default/train/0000.parquet", "default/train/0001.parquet", "default/validation/0000.parquet"]
    assert asked == [("someone/colours", "dataset", file, "refs/convert/parquet") for file in files]
    with pytest.raises(UsageError, match=r"no file other/train/\*.parquet.\nFolders .*: default/train, default/valid"):
        load_hub(config="other")


def test_without_network_or_copy_the_error_names_every_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*_: object, **__: object) -> list[str]:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", fail)
    with pytest.raises(UsageError, match="no route to host") as caught:
        load_hub()
    for way_out in ("data.path=<folder>", "OPTBENCH_DATA=<folder>", "hf download someone/colours", "data=digits"):
        assert way_out in str(caught.value)


def test_a_copy_without_the_split_says_where_it_looked(copy: Path) -> None:
    with pytest.raises(UsageError, match=r"data.path=.* has no split test of someone/colours. Looked for:") as caught:
        load_hub(path=str(copy), test_split="test")
    assert str(copy / "colours" / "default" / "test" / "*.parquet") in str(caught.value)


def test_a_wrong_column_names_those_there_are(copy: Path) -> None:
    with pytest.raises(UsageError, match=r"no column 'image'. It has: picture, label"):
        load_hub(path=str(copy), image_column="image")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([-1, -1], r"the split validation has labels that the training split lacks, or none \(-1\)"),
        ([0, 3], r"the split validation has labels that the training split lacks"),
        ([], r"the split validation is empty"),
        ([0, None], r"row 1 of column 'label' holds no label"),
    ],
)
def test_a_split_without_labels_is_refused(labels: list[Any], message: str, copy: Path) -> None:
    cells = [{"bytes": encoded((1, 2, 3)), "path": ""} for _ in labels]
    file = copy / "default" / "validation" / "0000.parquet"
    if labels:
        write(file, labels, cells=cells)
    else:
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        pq.write_table(pa.table({"picture": pa.array([], kind), "label": pa.array([], pa.int64())}), file)
    with pytest.raises(UsageError, match=message):
        load_hub(path=str(copy))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"bytes": None, "path": "a.png"}, "row 1 of column 'picture' holds no image bytes"),
        ({"bytes": b"not an image", "path": None}, "row 1 of column 'picture' is no image that can be read"),
    ],
)
def test_a_row_without_an_image_is_named(cell: dict[str, Any], message: str, copy: Path) -> None:
    good = {"bytes": encoded((1, 2, 3)), "path": None}
    write(copy / "default" / "train" / "0000.parquet", [0, 1], cells=[good, cell])
    with pytest.raises(UsageError, match=message):
        load_hub(path=str(copy))
