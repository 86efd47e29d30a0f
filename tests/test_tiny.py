"""The embedded diffusion model: its tokenizer, its recipe, what is kept of it, and what it draws."""

import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optbench import components
from optbench.captions import DIGITS, load_mnist, shrunk
from optbench.errors import UsageError
from optbench.lora import tiny
from optbench.lora.tiny import TinyModel
from optbench.lora.tokenizer import make_tokenizer
from tests.conftest import MakeTrial

FEW_STEPS = ("num_steps=3", "batch_size=4", "num_warmup_steps=1", "num_threads=1")
SMALL = ("model.unet.block_out_channels=[8,8,16]", "model.unet.attention_head_dim=2")


@pytest.fixture
def _few_digits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A made-up MNIST of 30 images, and a cache of the test's own."""

    def load(**_: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        images = torch.randint(256, (30, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return images, torch.arange(30) % 10, images[:0], torch.empty(0, dtype=torch.int64)

    monkeypatch.setattr(tiny, "load_mnist", load)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def build(make_trial: MakeTrial, *overrides: str) -> TinyModel:
    """The model of conf/model/tiny.yaml, with other values."""
    trial = make_trial("task=lora_sd", "model=tiny", *overrides)
    assert trial.model is not None
    model = components.build(trial.model, group="model")
    assert isinstance(model, TinyModel)
    return model


def few_steps(make_trial: MakeTrial, *recipe: str) -> TinyModel:
    """A smaller one, trained for three steps."""
    return build(make_trial, *SMALL, *(f"model.recipe.{override}" for override in (*FEW_STEPS, *recipe)))


def hashes(folder: Path) -> Mapping[str, str]:
    found: Mapping[str, str] = json.loads((folder / "contents.json").read_text())
    return found


# The tokenizer.


def test_each_word_of_the_captions_is_one_token_and_other_words_are_spelled() -> None:
    texts = [f"a photo of the digit {word}" for word in DIGITS]
    tokenizer = make_tokenizer(texts, max_length=16)
    for text in texts:
        ids = tokenizer(text).input_ids
        assert tokenizer.convert_ids_to_tokens(ids)[1:-1] == [f"{word}</w>" for word in text.split()]
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.tokenize("dog") == ["d", "o", "g</w>"]
    assert tokenizer.eos_token_id not in tokenizer("ein Häuschen, 7 €!").input_ids[:-1], "no byte is unknown"


def test_words_that_share_their_beginnings_stay_whole() -> None:
    words = ["photo", "photograph", "seven", "seventeen", "even", "ten", "to"]
    tokenizer = make_tokenizer([" ".join(words)], max_length=16)
    assert tokenizer.tokenize(" ".join(words)) == [f"{word}</w>" for word in words]


def test_captions_are_padded_to_the_length_of_the_text_encoder() -> None:
    tokenizer = make_tokenizer(["a photo"], max_length=6)
    end = tokenizer.eos_token_id
    ids = tokenizer(["a photo", "", "a photo a photo a photo"], padding="max_length", truncation=True).input_ids
    assert [len(each) for each in ids] == [6, 6, 6]
    assert ids[0][3:] == [end] * 3
    assert ids[1] == [tokenizer.bos_token_id, *[end] * 5]


# The folder.


@pytest.mark.usefixtures("_few_digits")
def test_the_libraries_load_what_was_trained(make_trial: MakeTrial) -> None:
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    model = few_steps(make_trial)
    folder = model.folder()
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
    prompts = tokenizer(["a photo of the digit two"], padding="max_length", return_tensors="pt").input_ids
    assert prompts.shape == (1, model.text_encoder["max_position_embeddings"])
    assert len(tokenizer) == text_encoder.config.vocab_size
    assert tokenizer.convert_ids_to_tokens(prompts[0].tolist())[5:7] == ["digit</w>", "two</w>"]
    told = text_encoder(prompts).last_hidden_state
    assert unet(torch.zeros(1, 1, 16, 16), torch.tensor([5]), told).sample.shape == (1, 1, 16, 16)
    assert {key: scheduler.config[key] for key in model.scheduler} == dict(model.scheduler)


@pytest.mark.usefixtures("_few_digits")
def test_the_same_recipe_gives_the_same_bits_and_another_seed_others(
    make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = few_steps(make_trial)
    first = model.folder()
    torch.manual_seed(123)  # of whoever needs the model
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    second = model.folder()
    assert first != second
    assert hashes(first) == hashes(second)
    third = few_steps(make_trial, "seed=1").folder()
    assert third.parent == second.parent
    assert hashes(third)["unet/config.json"] == hashes(second)["unet/config.json"]
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert hashes(third)[weights] != hashes(second)[weights]


@pytest.mark.verify
@pytest.mark.usefixtures("_few_digits")
def test_two_threads_give_the_same_bits_each_time(
    make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the full size: what is summed by several threads in an order by chance is so for large tensors alone."""
    found = []
    for name in ("one", "two", "three"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        found.append(hashes(build(make_trial, "model.recipe.num_steps=8", "model.recipe.num_threads=2").folder()))
    assert found[0] == found[1] == found[2]


@pytest.mark.usefixtures("_few_digits")
def test_whoever_needs_the_model_keeps_its_threads_and_random_numbers(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(*_: object, **__: object) -> None:
        torch.rand(1)
        seen.append((torch.get_num_threads(), torch.is_grad_enabled()))

    monkeypatch.setattr(tiny, "_train", look)
    model = few_steps(make_trial, "num_threads=2")
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    with torch.no_grad():
        model.folder()
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == 1
    assert seen == [(2, True)]


@pytest.mark.usefixtures("_few_digits")
def test_it_is_trained_once_and_again_where_a_file_is_damaged(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings: list[int] = []
    train = tiny._train

    def counted(*given: Any, **options: Any) -> None:
        trainings.append(1)
        train(*given, **options)

    monkeypatch.setattr(tiny, "_train", counted)
    model = few_steps(make_trial)
    with ThreadPoolExecutor(2) as pool:
        folder, same = pool.map(lambda _: model.folder(), range(2))
    assert folder == same == model.folder()
    assert len(trainings) == 1
    before = hashes(folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut off")
    assert hashes(model.folder()) == before
    assert len(trainings) == 2


@pytest.mark.usefixtures("_few_digits")
def test_nothing_is_kept_of_a_training_that_was_interrupted(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny, "_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        few_steps(make_trial).folder()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".safetensors"]


@pytest.mark.usefixtures("_few_digits")
def test_the_log_says_that_it_takes_long_and_how_far_it_is(
    make_trial: MakeTrial, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="optbench")
    few_steps(make_trial, "num_steps=20", "batch_size=1").folder()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "training the base model of model=tiny, once, which takes minutes: 20 steps"
    assert [line.split(",")[0] for line in lines[1:]] == [f"model=tiny: step {2 * n} of 20" for n in range(1, 11)]


@pytest.mark.usefixtures("_few_digits")
def test_it_learns_the_digits_that_are_named_alone(make_trial: MakeTrial) -> None:
    images, labels = few_steps(make_trial, "digits=[2,5]")._images()
    assert set(labels.tolist()) == {2, 5}
    assert images.shape == (6, 1, 16, 16)
    assert -1.0 <= images.min() < images.max() <= 1.0


# What is refused.


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.resolution=15", r"model.resolution=15: it is one of 8, 16, 32"),
        ("model.unet.in_channels=3", r"model.unet.in_channels=3: it must be 1"),
        ("model.unet.cross_attention_dim=64", r"model.unet.cross_attention_dim=64: it must be 32"),
        ("model.recipe.digits=[10]", r"model.recipe.digits=\[10\]: expected one or more of 0 to 9"),
        ("model.recipe.digits=[]", r"model.recipe.digits=\[\]"),
        ("model.recipe.num_steps=0", r"model.recipe.num_steps=0: it is at least 1"),
        ("model.recipe.num_steps=many", r"model.recipe.num_steps='many': expected"),
        ("+model.recipe.stepz=5", r"unknown key 'model.recipe.stepz'"),
        ("model.recipe.caption=a digit", r"it must hold {digit}"),
        ("model.recipe.empty_share=1.0", r"model.recipe.empty_share=1.0"),
        ("model.recipe.lr=0.0", r"lr=0.0"),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_anything_trains(
    override: str, said: str, make_trial: MakeTrial
) -> None:
    with pytest.raises(UsageError, match=said):
        build(make_trial, override)


@pytest.mark.usefixtures("_few_digits")
def test_a_config_that_the_libraries_refuse_says_so(make_trial: MakeTrial) -> None:
    model = few_steps(make_trial)
    wrong = TinyModel(**{**_values(model), "unet": {**model.unet, "layers": 3}})
    with pytest.raises(UsageError, match=r"model.unet or model.text_encoder is refused: .*layers"):
        wrong.folder()


def _values(model: TinyModel) -> dict[str, Any]:
    return {name: getattr(model, name) for name in TinyModel.__dataclass_fields__}


# What it draws.


def classifier(size: int) -> nn.Module:
    """A small convolutional network for MNIST's digits at this size, and what it gets right of the test images."""
    images, labels, test_images, test_labels = load_mnist(path=None)
    inputs, tests = (shrunk(part, size).float() / 127.5 - 1.0 for part in (images, test_images))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3)]
        model = nn.Sequential(*layers, nn.Linear(4 * size * size, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.002)
        for _ in range(1500):
            batch = torch.randint(len(inputs), (64,))
            loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        assert (model(tests).argmax(1) == test_labels).float().mean() > 0.97
    return model


@pytest.mark.verify
def test_samples_show_the_digit_of_their_prompt(make_trial: MakeTrial) -> None:
    """Ninety samples by DDIM in 25 steps, with guidance, judged by a network that was trained on MNIST itself."""
    from diffusers import UNet2DConditionModel

    from optbench.lora.pipeline import Prompts, draw, encode_prompts

    if not {"OPTBENCH_DATA", "CI"} & os.environ.keys():
        pytest.skip("OPTBENCH_DATA names no folder with MNIST")
    model = build(make_trial)
    unet = UNet2DConditionModel.from_pretrained(model.folder() / "unet").eval()
    captions = [model.parsed_recipe.caption.format(digit=word) for word in DIGITS[:9]]
    told = encode_prompts(model, [*captions, ""], device=torch.device("cpu"))
    labels = torch.arange(9).repeat_interleave(10)
    prompts, empty = (Prompts.from_tuple(told.of(places)) for places in (labels, torch.tensor([9])))
    samples = draw(model, unet, prompts, empty=empty, num_steps=25, seed=0)
    judge = classifier(model.resolution)
    with torch.no_grad():
        found = judge(samples * 2.0 - 1.0).argmax(1)
    assert (found == labels).float().mean() >= 0.8
