"""The character GPT: its text, what it is made of, and how it is trained and evaluated."""

import dataclasses
import hashlib
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optbench.tasks import char_gpt
from optbench.tasks.char_gpt import CausalAttention, CharGpt, Gpt, GptConfig
from torch import nn
from torch.nn import functional

from optbench import components, hub, memory
from optbench.catalogue import entries, names
from optbench.component import Component
from optbench.device import configured
from optbench.errors import UsageError
from optbench.memory import Training, measure
from optbench.optim.param_groups import hidden_matrices
from optbench.prediction import predict
from optbench.run import check
from optbench.seeding import stream
from optbench.text import TextData, load_characters
from tests.conftest import MakeTrial, RunTrial

CPU = torch.device("cpu")
SMALL = {"block_size": 8, "dim": 16, "depth": 2, "num_heads": 4, "dropout": 0.0, "bias": False}
NARROW = ["model.block_size=16", "model.dim=32", "model.depth=2", "task.batch_size=8"]


def config(**changes: Any) -> GptConfig:
    return GptConfig(**{**SMALL, **changes})


def published(name: str) -> GptConfig:
    (entry,) = (entry for entry in entries("model") if entry.name == name)
    return GptConfig(**{key: value for key, value in entry.config.items() if key not in ("name", "_target_")})


def text(num_train: int = 200, num_test: int = 60, *, num_characters: int = 5) -> TextData:
    tokens = torch.randint(
        num_characters, (num_train + num_test,), generator=torch.Generator().manual_seed(0), dtype=torch.int32
    )
    return TextData(train=tokens[:num_train], test=tokens[num_train:], characters="abcde"[:num_characters])


def task(**changes: Any) -> CharGpt:
    defaults: dict[str, Any] = {
        "data": text(),
        "model": config(),
        "batch_size": 4,
        "num_eval_batches": None,
        "seed": 0,
        "device": CPU,
    }
    return CharGpt(**{**defaults, **changes})


# The text.


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTBENCH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def load(**changes: Any) -> TextData:
    keys: dict[str, Any] = {
        "url": "https://example.org/input.txt",
        "sha256": None,
        "folder": "shakespeare",
        "file": "input.txt",
        "train_fraction": 0.9,
        "path": None,
        "device": CPU,
    }
    return load_characters(**{**keys, **changes})


def test_characters_are_numbered_in_their_order_and_the_end_of_the_text_is_for_test(tmp_path: Path) -> None:
    written = "banana split\nÄpfel, 中\n" * 3
    (tmp_path / "mine.txt").write_text(written, encoding="utf-8")
    found = load(path=str(tmp_path / "mine.txt"))
    assert found.characters == "".join(sorted(set(written)))
    everything = torch.cat((found.train, found.test))
    assert "".join(found.characters[number] for number in everything.tolist()) == written
    assert len(found.train) == int(len(written) * 0.9)
    assert everything.dtype == torch.int32


def test_ends_of_lines_are_one_character_whatever_wrote_them(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(b"one\r\ntwo\rthree\n")
    found = load(path=str(tmp_path / "mine.txt"))
    assert len(found.train) + len(found.test) == len("one\ntwo\nthree\n")
    assert "\r" not in found.characters


@pytest.mark.parametrize("place", ["input.txt", "shakespeare/input.txt"])
@pytest.mark.parametrize("is_variable", [False, True])
def test_a_folder_is_searched_for_the_file(
    place: str, is_variable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("to be or not to be")
    if is_variable:
        monkeypatch.setenv("OPTBENCH_DATA", str(tmp_path))
    found = load(path=None if is_variable else str(tmp_path))
    assert found.characters == " benort"


@pytest.mark.parametrize(
    ("written", "changes", "message"),
    [
        (b"ab\xff", {}, r"mine.txt is no text in UTF-8: invalid start byte at byte 2"),
        (b"", {}, r"mine.txt has 0 characters, too few"),
        (b"a", {}, r"mine.txt has 1 characters, too few"),
        (b"abc", {"train_fraction": 1.0}, r"data.train_fraction=1.0: expected a number between 0 and 1"),
        (b"abc", {"sha256": "0" * 64}, r"mine.txt is not the expected text: .*\n.*data.sha256=null"),
    ],
)
def test_a_text_that_cannot_be_used_is_refused(
    written: bytes, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_bytes(written)
    with pytest.raises(UsageError, match=message):
        load(path=str(tmp_path / "mine.txt"), **changes)


def test_a_file_that_is_not_there_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"data.path=.*none.txt: there is no such file or folder.\n.*data.path=<the fi"
    ):
        load(path=str(tmp_path / "none.txt"))
    with pytest.raises(UsageError, match=r"data.path=.* has no text input.txt. Looked for:\n.*shakespeare/input.txt"):
        load(path=str(tmp_path))


def test_without_network_or_copy_the_error_names_every_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(UsageError, match=r"could not be downloaded \(OSError: no route to host\)") as caught:
        load()
    for way_out in ("data.path=<the file", "OPTBENCH_DATA=<folder>", "data.path=<file> data.sha256=null"):
        assert way_out in str(caught.value)


def test_a_text_is_downloaded_once_checked_and_downloaded_again_where_the_copy_is_damaged(tmp_path: Path) -> None:
    written = b"to be or not to be"
    (tmp_path / "served.txt").write_bytes(written)
    url = (tmp_path / "served.txt").as_uri()
    sha256 = hashlib.sha256(written).hexdigest()
    first = load(url=url, sha256=sha256)
    (kept,) = hub.cache_folder().iterdir()
    (tmp_path / "served.txt").unlink()
    assert torch.equal(load(url=url, sha256=sha256).train, first.train)
    kept.write_bytes(written[:5])
    with pytest.raises(UsageError, match="could not be downloaded"):
        load(url=url, sha256=sha256)
    (tmp_path / "served.txt").write_bytes(written)
    assert torch.equal(load(url=url, sha256=sha256).train, first.train)
    (tmp_path / "other.txt").write_bytes(b"something else")
    with pytest.raises(UsageError, match="invalid hash value"):
        load(url=(tmp_path / "other.txt").as_uri(), sha256=sha256)
    assert list(hub.cache_folder().iterdir()) == [kept]  # and what is not the text is not kept


def test_the_file_of_the_catalogue_asks_for_a_pinned_revision_and_hash() -> None:
    (entry,) = (entry for entry in entries("data") if entry.name == "shakespeare")
    assert len(entry.config["url"].split("/")[5]) == 40
    assert len(entry.config["sha256"]) == 64


# The model.


@pytest.mark.parametrize(("name", "count"), [("gpt_shakespeare_cpu", 804_096), ("gpt_shakespeare", 10_745_088)])
def test_the_models_have_the_numbers_of_parameters_of_nanogpt(name: str, count: int) -> None:
    """Which prints them without positions: 0.80M and 10.65M."""
    model = Gpt(published(name), num_characters=65)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    width, blocks, size = published(name).dim, published(name).depth, published(name).block_size
    assert count == blocks * (12 * width**2 + 2 * width) + (65 + size + 1) * width


def test_the_task_names_all_models_and_data_that_suit_it() -> None:
    assert set(char_gpt.MODELS) == {
        entry.name for entry in entries("model") if entry.config["_target_"].startswith("optbench.tasks.char_gpt.")
    }
    assert set(char_gpt.DATA) <= set(names("data"))


def test_the_last_layer_is_the_embedding_on_the_device_and_in_another_dtype_too() -> None:
    model = task().model
    assert model.head.weight is model.tokens.weight
    assert "head.weight" not in dict(model.named_parameters())
    assert not [name for name, _ in model.named_parameters() if name.endswith("bias")]
    biased = Gpt(config(bias=True), num_characters=5)
    assert [name for name, _ in biased.named_parameters() if name.endswith("bias")]


def test_a_later_character_changes_no_earlier_output() -> None:
    model = Gpt(config(), num_characters=5).eval()
    first = torch.randint(5, (1, 8))
    other = first.clone()
    other[0, 5] = (other[0, 5] + 1) % 5
    before, after = model(first), model(other)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_an_earlier_character_changes_every_later_output_and_its_place_does() -> None:
    torch.manual_seed(0)
    model = Gpt(config(), num_characters=5).eval()
    first = torch.randint(5, (1, 8))
    other = first.clone()
    other[0, 0] = (other[0, 0] + 1) % 5
    assert ((model(first) - model(other)).abs().amax((0, 2)) > 1e-6).all()
    same = model(torch.zeros(1, 8, dtype=torch.int64))
    assert not torch.allclose(same[:, 0], same[:, 1])


def test_attention_is_the_textbook_formula_below_the_diagonal() -> None:
    torch.manual_seed(0)
    attention = CausalAttention(config(dim=12, num_heads=3))
    x = torch.randn(2, 5, 12)
    queries, keys, values = attention.qkv(x).chunk(3, dim=-1)
    heads = []
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        scores = queries[..., part] @ keys[..., part].transpose(1, 2) / 4**0.5
        is_later = torch.ones(5, 5, dtype=torch.bool).triu(1)
        heads.append(scores.masked_fill(is_later, -math.inf).softmax(-1) @ values[..., part])
    torch.testing.assert_close(attention(x), attention.out(torch.cat(heads, dim=-1)))


def test_weights_start_as_those_of_nanogpt() -> None:
    torch.manual_seed(0)
    model = Gpt(published("gpt_shakespeare_cpu"), num_characters=65)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert parameter.unique().tolist() == [1.0], name
            continue
        is_added = name.endswith((".out.weight", ".mlp.2.weight"))
        assert parameter.std().item() == pytest.approx(0.02 / math.sqrt(8) if is_added else 0.02, rel=0.03), name
        assert parameter.mean().item() == pytest.approx(0.0, abs=0.001)


def test_before_training_every_character_is_about_as_likely() -> None:
    torch.manual_seed(0)
    model = Gpt(published("gpt_shakespeare_cpu"), num_characters=65)
    characters = torch.randint(65, (4, 65))
    loss = functional.cross_entropy(model(characters[:, :-1]).flatten(0, 1), characters[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(65), abs=0.1)


def test_dropout_is_where_nanogpt_has_it() -> None:
    model = Gpt(published("gpt_shakespeare"), num_characters=65)
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    rates += [module.dropout for module in model.modules() if isinstance(module, CausalAttention)]
    assert rates == [0.2] * (1 + 3 * 6)


def test_hidden_matrices_are_those_of_the_blocks() -> None:
    found = {name for name, _, is_hidden in hidden_matrices(Gpt(config(), num_characters=5)) if is_hidden}
    assert all(name.startswith("blocks.") for name in found)
    assert len(found) == 2 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 18}, r"model.num_heads=4 does not divide model.dim=18"),
        ({"depth": 0}, r"model.depth=0: expected 1 or more"),
        ({"dropout": 1.0}, r"model.dropout=1.0: expected a number from 0 to below 1"),
        ({"block_size": 8.0}, r"model.block_size=8.0: expected int, got float"),
        ({"bias": 1}, r"model.bias=1: expected bool, got int"),
    ],
)
def test_a_model_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**changes)


# The task.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": text(8)}, r"model.block_size=8: the text has 8 characters for training, .* takes 9.\n.*data.path"),
        ({"data": text(99, 5)}, r"model.block_size=8: the text has 5 characters for test"),
        ({"data": "images"}, r"task=char_gpt learns from a text, not from str: data=shakespeare, "),
        ({"model": "vit"}, r"task=char_gpt takes model=gpt_shakespeare_cpu, gpt_shakespeare, not a str"),
        ({"batch_size": 0}, r"task.batch_size=0: expected 1 or more"),
        ({"num_eval_batches": -1}, r"task.num_eval_batches=-1: expected 0 or more, or null"),
    ],
)
def test_a_task_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        task(**changes)


def test_a_block_longer_than_the_text_shows_before_anything_trains(make_trial: MakeTrial, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("too short a text. " * 10)
    asked = make_trial("task=char_gpt", f"data.path={tmp_path / 'short.txt'}", "data.sha256=null")
    with pytest.raises(UsageError, match=r"model.block_size=64: the text has 18 characters for test"):
        check(asked)


def test_a_minibatch_is_pieces_of_the_text_and_what_follows_each_character() -> None:
    # A text in which each character tells where it stands.
    tokens = torch.arange(40, dtype=torch.int32)
    given = TextData(train=tokens[:30], test=tokens[30:], characters="".join(map(chr, range(40))))
    starts: set[int] = set()
    for inputs, targets in itertools.islice(task(data=given).batches(), 1200):
        assert torch.equal(targets, inputs + 1)
        assert (inputs.diff(dim=1) == 1).all()
        assert inputs.shape == (4, 8)
        starts |= set(inputs[:, 0].tolist())
    assert starts == set(range(30 - 8))
    assert targets.dtype == torch.int64


def test_the_pieces_are_those_of_the_seeds_stream() -> None:
    first, same, other = (list(itertools.islice(task(seed=seed).batches(), 3)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for one, two in zip(first, same, strict=True) for a, b in zip(one, two, strict=True))
    assert not torch.equal(first[0][0], other[0][0])
    generator = torch.Generator().manual_seed(stream(0, "order"))
    starts = torch.randint(200 - 8, (char_gpt.NUM_DRAWN, 4), generator=generator)[0]
    expected = torch.stack([text().train[start : start + 8] for start in starts.tolist()])
    assert torch.equal(first[0][0], expected.long())


def test_the_loss_is_the_mean_in_nats_over_all_characters() -> None:
    given = task()
    inputs, targets = next(given.batches())
    chances = given.model(inputs).softmax(-1).gather(-1, targets[..., None])
    assert given.loss((inputs, targets)).item() == pytest.approx(-chances.log().mean().item(), rel=1e-5)


@pytest.mark.parametrize("num_test", [60, 57, 58, 9])
@pytest.mark.parametrize("num_eval_batches", [None, 0])
def test_the_whole_test_split_is_evaluated_each_character_once(num_test: int, num_eval_batches: int | None) -> None:
    given = task(data=text(200, num_test), num_eval_batches=num_eval_batches)
    test = given._data.test.long()
    losses = []
    for start in range(0, num_test - 1, 8):
        piece = test[start : start + 9]
        logits = given.model(piece[None, :-1])[0]
        losses += functional.cross_entropy(logits, piece[1:], reduction="none").tolist()
    assert len(losses) == num_test - 1
    assert given.evaluate()["test_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_number_of_evaluated_minibatches_are_the_same_pieces_for_every_seed() -> None:
    asked = [list(task(num_eval_batches=3, seed=seed)._evaluated()) for seed in (0, 1)]
    (inputs, _), (others, _) = asked[0][0], asked[1][0]
    assert inputs.shape == (3 * 4, 8)
    assert torch.equal(inputs, others)
    assert inputs.unique(dim=0).shape[0] > 6


@pytest.mark.parametrize("num_eval_batches", [None, 2])
def test_evaluation_is_without_dropout_and_leaves_mode_and_random_numbers_alone(num_eval_batches: int | None) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    noisy = task(model=config(dropout=0.5), num_eval_batches=num_eval_batches)
    batch = next(noisy.batches())
    metrics = noisy.evaluate()
    assert torch.equal(torch.rand(1), expected)
    assert noisy.model.training
    assert noisy.evaluate() == metrics
    assert noisy.loss(batch) != noisy.loss(batch)
    noisy.model.eval()
    noisy.evaluate()
    assert not noisy.model.training


# Training.


@pytest.fixture
def written(tmp_path: Path) -> list[str]:
    """A text of a few words in a random order."""
    words = ["apple", "banana", "cherry", "damson", "elder", "fig"]
    chosen = np.random.default_rng(0).choice(words, 1500)
    (tmp_path / "fruit.txt").write_text(" ".join(chosen))
    return ["task=char_gpt", f"data.path={tmp_path / 'fruit.txt'}", "data.sha256=null", *NARROW]


def test_a_small_text_is_learned_to_well_below_the_entropy_of_its_characters(
    written: list[str], run_trial: RunTrial
) -> None:
    overrides = ["optimizer=adamw", "optimizer.lr=0.003", "budget.num_steps=150", "evaluation.every_num_steps=150"]
    result = run_trial(*written, *overrides, "param_groups=matrices_decay", "max_grad_norm=1.0")
    assert result.status == "completed"
    path = Path(next(override.partition("=")[2] for override in written if override.startswith("data.path=")))
    _, counts = np.unique(list(path.read_text()), return_counts=True)
    shares = counts / counts.sum()
    entropy = -(shares * np.log(shares)).sum()
    first, last = result.curve["test_loss"]
    assert first == pytest.approx(math.log(len(counts)), abs=0.2)
    assert last < 0.5 * entropy


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_losses_bit_for_bit_and_another_seed_others(
    precision: str, written: list[str], run_trial: RunTrial
) -> None:
    def losses(seed: int) -> list[float]:
        overrides = ["model.dropout=0.1", "budget.num_steps=4", "evaluation.every_num_steps=2", f"seed={seed}"]
        result = run_trial(*written, *overrides, "optimizer=adamw", f"hardware.precision={precision}")
        return [*result.curve["train_loss"][1:], *result.curve["test_loss"]]

    first = losses(0)
    assert np.isfinite(first).all()
    assert losses(0) == first
    assert not set(losses(1)) & set(first)


# Memory.


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model.dropout=0.1", "hardware.gradient_checkpointing=true"],
        ["hardware.precision=bf16_params", "hardware.num_micro_batches=2"],
    ],
    ids=["plain", "checkpointed", "bf16"],
)
def test_the_memory_of_a_step_is_predicted_to_the_byte(
    overrides: list[str], written: list[str], make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "kernel_peak_bytes", lambda _: None)
    monkeypatch.setattr(memory, "NUM_FIRST_STEPS", 1)
    asked = make_trial(*written, "optimizer=adamw", "model.depth=1", *overrides)
    with configured(asked.hardware, CPU):
        taken = measure(asked, CPU)
    found = [dataclasses.asdict(each) for each in (predict(asked), taken)]
    for figures in found:
        del figures["kind"], figures["kernel_peak_bytes"]
    assert found[0] == found[1]
    assert taken.num_parameters == 32 * (12 * 32 + 2 + 1 + 16) + 32 * _num_characters(asked.data)


def _num_characters(component: Component | None) -> int:
    assert component is not None
    data = components.build(component, group="data", device=CPU)
    assert isinstance(data, TextData)
    return len(data.characters)
