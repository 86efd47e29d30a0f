"""Images with captions: digits in a style, folders, the hub's Parquet files, and what is refused."""

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from optbench import captions, components
from optbench.captions import CaptionedImages, load_captioned_folder, load_captioned_hub, load_digits_in_style, shrunk
from optbench.errors import UsageError
from tests.conftest import MakeTrial

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "mnist" not in request.fixturenames:  # which takes long to decode
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("OPTBENCH_DATA", raising=False)


@pytest.fixture
def mnist() -> None:
    if not {"OPTBENCH_DATA", "CI"} & os.environ.keys():
        pytest.skip("OPTBENCH_DATA names no folder with MNIST")


# Digits.


@pytest.fixture
def _few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up MNIST: 20 images of each class, whose first pixel is their class, and 5 for test."""

    def load(**_: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        def part(of_each: int, seed: int) -> tuple[Tensor, Tensor]:
            labels = torch.arange(10).repeat(of_each)
            generator = torch.Generator().manual_seed(seed)
            images = torch.randint(256, (len(labels), 1, 28, 28), dtype=torch.uint8, generator=generator)
            images[:, 0, 0, 0] = labels.to(torch.uint8)
            return images, labels

        return (*part(20, 0), *part(5, 1))

    monkeypatch.setattr(captions, "load_mnist", load)


def digits(**options: Any) -> CaptionedImages:
    given = {
        "style": "upright",
        "digits": [3, 7],
        "caption": "a photo of the digit {digit}",
        "num_train": 6,
        "num_test": 4,
        "seed": 0,
        "size": 32,
        "path": None,
        "device": CPU,
    }
    return load_digits_in_style(**{**given, **options})


@pytest.mark.usefixtures("_few_digits")
def test_classes_take_turns_and_each_image_has_the_word_for_its_own() -> None:
    found = digits()
    three, seven = "a photo of the digit three", "a photo of the digit seven"
    assert found.train_captions == (three, seven) * 3
    assert found.test_captions == (three, seven) * 2
    assert found.train_images[:, 0, 2, 2].tolist() == [3, 7] * 3  # the first pixel, behind the frame
    assert (found.train_images.dtype, found.train_images.shape) == (torch.uint8, (6, 1, 32, 32))


@pytest.mark.usefixtures("_few_digits")
def test_no_image_is_taken_twice_and_the_seed_decides_which_ones() -> None:
    images = digits(num_train=40).train_images
    assert len(images.flatten(1).unique(dim=0)) == 40
    assert torch.equal(digits().train_images, digits().train_images)
    assert not torch.equal(digits().train_images, digits(seed=1).train_images)


@pytest.mark.usefixtures("_few_digits")
def test_a_style_changes_the_images_and_nothing_else() -> None:
    upright, rotated, inverted = (digits(style=style) for style in ("upright", "rotated", "inverted"))
    assert torch.equal(rotated.train_images, torch.rot90(upright.train_images, 1, (2, 3)))
    assert torch.equal(inverted.test_images, 255 - upright.test_images)
    assert upright.train_captions == rotated.train_captions == inverted.train_captions


@pytest.mark.usefixtures("_few_digits")
def test_a_part_for_test_may_be_empty() -> None:
    found = digits(num_test=0)
    assert (len(found.test_images), found.test_captions) == (0, ())


@pytest.mark.usefixtures("_few_digits")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"style": "rotate"}, "Did you mean 'rotated'"),
        ({"digits": [3, 10]}, r"data.digits=\[3, 10\]"),
        ({"digits": []}, r"data.digits=\[\]"),
        ({"caption": "a digit"}, "it must hold {digit}"),
        ({"num_train": 0}, "data.num_train=0"),
        ({"num_train": 42}, "data.num_train=42: MNIST has 20 images of the digit 3, not 21"),
        ({"size": 0}, "data.size=0"),
    ],
)
def test_what_digits_cannot_be_is_refused(options: Mapping[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        digits(**options)


def test_a_smaller_image_has_the_mean_over_squares() -> None:
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[0, 0, :2, :2] = torch.tensor([[100, 200], [0, 100]])
    small = shrunk(image, 16)
    assert small.shape == (1, 1, 16, 16)
    assert small[0, 0, 1, 1] == 100  # the frame is two pixels, which is one here
    assert small.sum() == 100


def test_an_image_may_be_brought_to_the_size_of_a_large_model() -> None:
    image = torch.full((1, 1, 28, 28), 200, dtype=torch.uint8)
    large = shrunk(image, 64)
    assert large.shape == (1, 1, 64, 64)
    assert large[0, 0, 32, 32] == 200
    assert large[0, 0, 0, 0] == 0


@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize("name", ["digits_rotated", "digits_inverted", "digits_held_out"])
def test_the_digits_of_a_config_are_those_of_mnist_at_the_size_of_the_model(name: str, make_trial: MakeTrial) -> None:
    trial = make_trial("task=lora_sd", "model=tiny", f"data={name}", "data.num_train=90")
    assert trial.data is not None
    found = components.build(trial.data, group="data", device=CPU)
    assert found.train_images.shape == (90, 1, 16, 16)
    assert found.test_images.shape == (90, 1, 16, 16)
    assert (found.train_images.float().mean() > 127) == (name == "digits_inverted")
    assert ("nine" in " ".join(found.train_captions)) == (name == "digits_held_out")


# Folders.


def png(seed: int = 0, *, size: tuple[int, int] = (8, 8)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


def write_images(folder: Path, names: Sequence[str]) -> Path:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(seed))
    return folder


def write_rows(folder: Path, rows: Sequence[object]) -> None:
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def row(name: str, text: object) -> dict[str, object]:
    return {"file_name": name, "text": text}


def load(folder: Path | None, **options: Any) -> CaptionedImages:
    given = {"caption_column": "text", "caption": None, "size": 8, "test_fraction": 0.0, "split_seed": 0, "device": CPU}
    return load_captioned_folder(path=None if folder is None else str(folder), **{**given, **options})


def test_images_come_with_the_captions_of_their_lines(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", ["a.png", "more/b.png"])
    write_rows(folder, [row("more/b.png", "a dog"), row("a.png", " a cat ")])
    found = load(folder)
    assert found.train_captions == ("a dog", "a cat")
    assert found.train_images.shape == (2, 3, 8, 8)
    expected = np.moveaxis(np.asarray(Image.open(io.BytesIO(png(1)))), -1, 0)
    assert torch.equal(found.train_images[0], torch.tensor(expected))
    assert len(found.test_images) == 0


def test_metadata_may_be_a_table_with_another_column(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", ["a.png", "b.png"])
    (folder / "metadata.csv").write_text('file_name,said\na.png,"a cat, asleep"\nb.png,a dog\n')
    assert load(folder, caption_column="said").train_captions == ("a cat, asleep", "a dog")
    with pytest.raises(UsageError, match=r"no column 'text'. It has: file_name, said.\nName the one") as caught:
        load(folder)
    assert "data.caption_column=..." in str(caught.value)


@pytest.mark.parametrize("name", ["test", "validation"])
def test_folders_may_hold_the_two_splits(name: str, tmp_path: Path) -> None:
    for part in ("train", name):
        write_images(tmp_path / "photos" / part, ["a.png"])
        write_rows(tmp_path / "photos" / part, [row("a.png", f"for {part}")])
    found = load(tmp_path / "photos", test_fraction=0.5)
    assert (found.train_captions, found.test_captions) == (("for train",), (f"for {name}",))


def test_images_alone_get_one_caption(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", ["b.JPG", "a.png", ".hidden.png", "notes.txt"])
    assert load(folder, caption="a photo of sks dog").train_captions == ("a photo of sks dog",) * 2


def test_a_part_is_held_out_by_chance_that_a_seed_decides(tmp_path: Path) -> None:
    names = [f"{index}.png" for index in range(10)]
    folder = write_images(tmp_path / "photos", names)
    write_rows(folder, [row(name, f"image {name}") for name in names])
    found = load(folder, test_fraction=0.3)
    assert len(found.test_captions) == len(found.test_images) == 3
    assert {*found.train_captions, *found.test_captions} == {f"image {name}" for name in names}
    assert load(folder, test_fraction=0.3).test_captions == found.test_captions
    assert load(folder, test_fraction=0.3, split_seed=1).test_captions != found.test_captions


def test_the_middle_of_images_of_any_size_is_kept(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", ["a.png"])
    (folder / "b.png").write_bytes(png(size=(20, 11)))
    assert load(folder, caption="a cat", size=4).train_images.shape == (2, 3, 4, 4)


def test_lines_and_images_that_do_not_match_are_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", ["a.png", "b.png", "c.png"])
    lines = [
        json.dumps(row("a.png", "a cat")),
        json.dumps(row("gone.png", "a dog")),
        "{not json",
        json.dumps(row("b.png", "  ")),
        json.dumps({"text": "nameless"}),
        json.dumps(row("a.png", "again")),
        json.dumps(["a list"]),
        json.dumps(row("../a.png", "outside")),
    ]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.raises(UsageError, match="do not match") as caught:
        load(folder)
    message = str(caught.value)
    for said in (
        "metadata.jsonl line 2: there is no image gone.png",
        "metadata.jsonl line 3 is no JSON",
        "metadata.jsonl line 4: b.png has no caption in 'text'",
        "metadata.jsonl line 5 has no file_name",
        "metadata.jsonl line 6: a.png has a caption already",
        "metadata.jsonl line 7 is no object",
        "metadata.jsonl line 8: there is no image ../a.png",
        "c.png has no line in metadata.jsonl",
    ):
        assert said in message


def test_ten_problems_are_named_and_the_others_counted(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", ["a.png"])
    write_rows(folder, [row("a.png", "a cat"), *(row(f"{index}.png", "a dog") for index in range(13))])
    with pytest.raises(UsageError, match="and 3 more") as caught:
        load(folder)
    assert str(caught.value).count("there is no image") == 10


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", ["a.png", "b.png"])
    (folder / "b.png").write_bytes(png()[:40])
    with pytest.raises(UsageError, match=r"b.png is no image that can be read"):
        load(folder, caption="a cat")


def test_a_folder_that_cannot_be_used_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.path=<folder>"):
        load(None)
    with pytest.raises(UsageError, match="there is no such folder"):
        load(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no images"):
        load(tmp_path / "empty")
    folder = write_images(tmp_path / "photos", ["a.png"])
    with pytest.raises(UsageError, match=r"has no metadata.jsonl or metadata.csv") as caught:
        load(folder)
    assert '"file_name": "a.png"' in str(caught.value)
    assert "data.caption='a photo of sks dog'" in str(caught.value)
    with pytest.raises(UsageError, match=r"data.test_fraction=1"):
        load(folder, test_fraction=1)
    (folder / "metadata.jsonl").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UsageError, match="UTF-8"):
        load(folder)


# The hub.


def write_parquet(folder: Path, texts: Sequence[str | None], *, images: Sequence[bytes | None] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": image, "path": None} for image in images or [png(seed) for seed in range(len(texts))]]
    pq.write_table(pa.table({"image": cells, "text": list(texts)}), folder / "0000.parquet")
    return folder


def load_hub(folder: Path | None, **options: Any) -> CaptionedImages:
    given = {
        "repo": "someone/pictures",
        "revision": "refs/convert/parquet",
        "config": "default",
        "split": "train",
        "image_column": "image",
        "caption_column": "text",
        "caption": None,
        "size": 8,
        "test_fraction": 0.0,
        "split_seed": 0,
        "path": None if folder is None else str(folder),
        "device": CPU,
    }
    return load_captioned_hub(**{**given, **options})


@pytest.mark.parametrize("place", ["pictures/default/train", "default/train", "train"])
def test_a_copy_of_the_hub_may_lie_in_the_usual_places(place: str, tmp_path: Path) -> None:
    write_parquet(tmp_path / "copies" / place, ["a cat", "a dog"])
    found = load_hub(tmp_path / "copies")
    assert (found.train_captions, found.train_images.shape) == (("a cat", "a dog"), (2, 3, 8, 8))


def test_one_caption_for_all_needs_no_column(tmp_path: Path) -> None:
    write_parquet(tmp_path / "dog" / "train", ["x", "y"])
    found = load_hub(tmp_path / "dog", caption="a photo of sks dog", caption_column=None, test_fraction=0.5)
    assert found.train_captions == found.test_captions == ("a photo of sks dog",)


def test_rows_that_lack_an_image_or_a_caption_are_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train", ["a cat", None, "a dog", "a cow"], images=[png(), png(), None, b"no image"])
    with pytest.raises(UsageError, match="row 1 has no caption in column 'text'") as caught:
        load_hub(tmp_path)
    assert "row 2 of column 'image' holds no image bytes" in str(caught.value)
    write_parquet(tmp_path / "train", ["a cat", "a cow"], images=[png(), b"no image"])
    with pytest.raises(UsageError, match="row 1 is no image that can be read"):
        load_hub(tmp_path)


def test_a_data_set_that_cannot_be_used_says_what_there_is(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train", ["a cat"])
    with pytest.raises(UsageError, match=r"no column 'said'\. It has: image, text"):
        load_hub(tmp_path, caption_column="said")
    with pytest.raises(UsageError, match="has no split test of someone/pictures"):
        load_hub(tmp_path, split="test")
    with pytest.raises(UsageError, match="both null"):
        load_hub(tmp_path, caption_column=None)
    write_parquet(tmp_path / "none", [])
    with pytest.raises(UsageError, match="the split none is empty"):
        load_hub(tmp_path, split="none")


def test_without_network_or_copy_the_error_names_every_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*_: object, **__: object) -> list[str]:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", fail)
    with pytest.raises(UsageError, match="no route to host") as caught:
        load_hub(None)
    for way_out in ("hf download someone/pictures --repo-type dataset", "data.path=<folder>", "data=digits_rotated"):
        assert way_out in str(caught.value)
