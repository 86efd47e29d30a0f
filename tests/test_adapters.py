"""LoRA adapters: where they go, how they start, what is trained, and what is refused."""

import json
import logging
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from optbench.component import Component
from optbench.errors import UsageError
from optbench.imports import quiet
from optbench.lora.adapters import Lora, adapter_parameters, add_adapters, target_layers
from optbench.lora.recipes import cached
from optbench.optim.build import build, describe_groups
from tests.conftest import MakeTrial
from tests.test_optimizers import optimizer

# Those of the files, one place for the tests.
DEFAULTS: dict[str, Any] = {
    "rank": 4,
    "alpha": None,
    "targets": ["all_linear"],
    "init": "kaiming",
    "init_std": None,
    "dropout": 0.0,
    "rslora": False,
    "dora": False,
}
UNCHANGED = ("kaiming", "gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora")


def lora(**changes: Any) -> Lora:
    return Lora.parse({**DEFAULTS, **changes})


def mlp(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    layers = {"fc1": nn.Linear(16, 12), "act": nn.ReLU(), "fc2": nn.Linear(12, 12), "fc3": nn.Linear(12, 6)}
    return nn.Sequential(OrderedDict(layers)).to(dtype)


def inputs(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(5, 16, generator=torch.Generator().manual_seed(1)).to(dtype)


def adapted(seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> nn.Sequential:
    model = mlp(dtype)
    add_adapters(model, lora(**changes), seed=seed)
    return model


def unet() -> nn.Module:
    with quiet():
        from diffusers import UNet2DConditionModel
    model: nn.Module = UNet2DConditionModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        layers_per_block=1,
        cross_attention_dim=8,
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    return model


def test_the_adapters_alone_are_trained() -> None:
    model = adapted()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == set(adapter_parameters(model))
    assert trained == {f"{layer}.lora_{part}.default.weight" for layer in ("fc1", "fc2", "fc3") for part in "AB"}
    assert adapter_parameters(model)["fc3.lora_A.default.weight"].shape == (4, 12)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("init", UNCHANGED)
def test_a_model_with_adapters_starts_as_it_was(init: str, dora: bool) -> None:
    model = adapted(init=init, dora=dora)
    torch.testing.assert_close(model(inputs()), mlp()(inputs()))


def test_only_a_random_b_makes_it_another_model_at_once() -> None:
    assert not torch.allclose(adapted(init="random_b")(inputs()), mlp()(inputs()), atol=0.01)


@pytest.mark.parametrize("init", [*UNCHANGED, "random_b"])
def test_a_start_says_whether_it_takes_something_off_the_frozen_weights(init: str) -> None:
    weight = adapted(init=init).fc1.base_layer.weight
    assert lora(init=init).changes_base is not torch.equal(weight, mlp().fc1.weight)


@pytest.mark.parametrize("init", ["kaiming", "gaussian", "orthogonal", "pissa_niter_4", "random_b"])
def test_the_seed_decides_the_start(init: str) -> None:
    first, again, other = (adapter_parameters(adapted(seed, init=init)) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    if init != "pissa_niter_4":  # which draws on the way to one solution
        assert not any(torch.equal(first[name], other[name]) for name in first if "lora_A" in name)


def test_adding_adapters_leaves_the_global_generator_alone() -> None:
    model = mlp()
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    add_adapters(model, lora(), seed=0)
    assert torch.equal(torch.rand(1), expected)


def test_adapters_are_in_full_precision_and_the_same_whatever_the_base_is() -> None:
    full, half = (adapted(dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert half.fc1.base_layer.weight.dtype == torch.bfloat16
    for name, parameter in adapter_parameters(half).items():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, adapter_parameters(full)[name])
    half(inputs(torch.bfloat16)).sum().backward()
    assert all(parameter.grad is not None for parameter in adapter_parameters(half).values())


@pytest.mark.parametrize(("given", "expected"), [(None, 0.25), (0.02, 0.02), (1.0, 1.0)])
def test_the_spread_of_a_is_the_one_asked_for(given: float | None, expected: float) -> None:
    model = nn.Sequential(nn.Linear(2000, 4))
    add_adapters(model, lora(init="gaussian", init_std=given), seed=0)
    values = adapter_parameters(model)["0.lora_A.default.weight"]
    assert values.std().item() == pytest.approx(expected, rel=0.05)


def test_kaimings_spread_is_that_of_a_linear_layer() -> None:
    model = nn.Sequential(nn.Linear(2000, 4))
    add_adapters(model, lora(), seed=0)
    values = adapter_parameters(model)["0.lora_A.default.weight"]
    assert values.abs().max().item() <= 2000**-0.5
    assert values.std().item() == pytest.approx((3 * 2000) ** -0.5, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "scale"),
    [({}, 1.0), ({"alpha": 1}, 0.25), ({"alpha": 32.0}, 8.0), ({"alpha": 8.0, "rslora": True}, 4.0)],
)
def test_what_is_learned_is_scaled_by_alpha_over_rank(changes: dict[str, Any], scale: float) -> None:
    model = adapted(**changes)
    with torch.no_grad():
        model.fc1.lora_B.default.weight.fill_(0.1)
        x = inputs()
        added = model.fc1(x) - model.fc1.base_layer(x)
        expected = scale * model.fc1.lora_B.default(model.fc1.lora_A.default(x))
    assert lora(**changes).scale == pytest.approx(scale)
    torch.testing.assert_close(added, expected)


def test_dropout_is_on_the_way_into_the_adapter() -> None:
    assert adapted(dropout=0.5).fc1.lora_dropout.default.p == 0.5


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("attention", {"to_q", "to_k", "to_v", "0"}),
        ("attention_ff", {"to_q", "to_k", "to_v", "0", "proj", "2"}),
        (["to_q", "conv_in"], {"to_q", "conv_in"}),
        (["attention", "conv_in"], {"to_q", "to_k", "to_v", "0", "conv_in"}),
    ],
)
def test_a_set_or_a_list_of_targets_is_of_these_layers(targets: Any, expected: set[str]) -> None:
    layers = target_layers(unet(), lora(targets=targets))
    assert {name.rpartition(".")[2] for name in layers} == expected


def test_all_linear_layers_are_all_of_them_and_convolutions_come_on_top() -> None:
    model = unet()
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    convolutions = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert set(target_layers(model, lora())) == linear
    assert set(target_layers(model, lora(targets="all_linear_conv"))) == linear | convolutions


def test_a_model_of_diffusers_trains_in_every_layer_asked_for() -> None:
    model = unet()
    layers = target_layers(model, lora(targets="all_linear_conv"))
    add_adapters(model, lora(targets="all_linear_conv"), seed=0)
    parts = adapter_parameters(model)
    assert len(parts) == 2 * len(layers)
    model(torch.randn(1, 1, 8, 8), torch.tensor([3]), torch.randn(1, 2, 8)).sample.square().sum().backward()
    assert all(parameter.grad is not None for parameter in parts.values())
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name not in parts)


def test_a_name_is_taken_in_full_and_not_wherever_another_name_ends_in_it() -> None:
    model = nn.ModuleDict({"out": nn.Linear(4, 4), "block": nn.ModuleDict({"out": nn.Conv2d(4, 4, 1)})})
    add_adapters(model, lora(), seed=0)
    assert isinstance(model["block"]["out"], nn.Conv2d)  # type: ignore[index]


def test_layers_in_four_bits_get_adapters_in_full_precision() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model = nn.Sequential(bitsandbytes.nn.Linear4bit(64, 64, quant_type="nf4", compute_dtype=torch.float32)).to("cpu")
    x = torch.randn(3, 64)
    before = model(x)
    add_adapters(model, lora(), seed=0)
    assert model[0].base_layer.weight.dtype == torch.uint8
    torch.testing.assert_close(model(x), before)
    model(x).sum().backward()
    assert all(parameter.dtype == torch.float32 for parameter in adapter_parameters(model).values())
    with pytest.raises(UsageError, match=r"init=olora cannot start layers that are quantised: 0\."):
        add_adapters(nn.Sequential(model[0].base_layer), lora(init="olora"), seed=0)


@pytest.mark.parametrize("init", [*UNCHANGED, "random_b"])
def test_without_data_the_adapters_have_the_same_sizes(init: str) -> None:
    real = {name: tuple(parameter.shape) for name, parameter in adapter_parameters(adapted(init=init)).items()}
    with FakeTensorMode():
        made = adapter_parameters(_convertible(lambda: adapted(init=init)))
    assert {name: tuple(parameter.shape) for name, parameter in made.items()} == real


def _convertible(make: Any) -> nn.Module:
    """As `optbench.prediction` has it: a fake parameter is converted by taking another's place."""
    from optbench.prediction import _convertible_modules

    with _convertible_modules():
        model: nn.Module = make()
    return model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, r"task\.lora\.rank=0: it must be above 0\."),
        ({"rank": 2.5}, r"task\.lora\.rank=2\.5: expected int"),
        ({"alpha": 0.0}, r"task\.lora\.alpha=0\.0: it must be above 0, or null"),
        ({"dropout": 1.0}, r"task\.lora\.dropout=1\.0: it must be from 0 to below 1"),
        ({"ranks": 2}, r"unknown key 'task\.lora\.ranks'\. Did you mean 'task\.lora\.rank'"),
        ({"init": "kaimin"}, r"unknown value 'kaimin' for task\.lora\.init\. Did you mean 'kaiming'"),
        ({"init": "pissa_niter_0"}, r"unknown value 'pissa_niter_0' for task\.lora\.init"),
        ({"init_std": 0.1}, r"init_std=0\.1 is for init=gaussian alone, and this is kaiming"),
        ({"init": "gaussian", "init_std": 0.0}, r"with A and B at zero nothing is trained"),
        ({"init": "orthogonal", "rank": 3}, r"an even rank, and task\.lora\.rank=3"),
        ({"targets": 3}, r"task\.lora\.targets=3: expected a list"),
        ({"targets": ["fc1", 3]}, r"task\.lora\.targets=3: expected str"),
        ({"targets": []}, r"task\.lora\.targets is empty"),
    ],
    ids=lambda part: str(part)[:30],
)
def test_a_value_that_no_adapter_can_have_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lora(**changes)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(UsageError, match=r"task\.lora\.targets is missing"):
        Lora.parse({key: value for key, value in DEFAULTS.items() if key != "targets"})


@pytest.mark.parametrize("init", ["eva", "lora_ga", "loftq", "corda"])
def test_a_start_that_looks_at_the_data_first_is_refused_with_the_reason(init: str) -> None:
    with pytest.raises(UsageError, match=rf"init={init} is refused: it needs .* from a pass over the data"):
        lora(init=init)


@pytest.mark.filterwarnings("ignore:`init_lora_weights` is 'eva' but")
def test_peft_passes_over_the_missing_data_of_these_starts() -> None:
    """Why they are refused; should peft come to refuse them itself, this is where it shows."""
    from peft import LoraConfig, inject_adapter_in_model

    for init in ("eva", "lora_ga"):
        config = LoraConfig(r=4, target_modules=["fc1"], init_lora_weights=init)  # type: ignore[arg-type]
        model = inject_adapter_in_model(config, mlp())
        assert not adapter_parameters(model)["fc1.lora_B.default.weight"].any()


def test_a_target_that_matches_nothing_lists_what_there_is() -> None:
    with pytest.raises(
        UsageError, match=r"unknown layer 'fc4' in task\.lora\.targets\. Did you mean 'fc\d'\?\n.*fc1, fc2, fc3"
    ):
        add_adapters(mlp(), lora(targets=["fc1", "fc4"]), seed=0)
    with pytest.raises(UsageError, match=r"Did you mean 'to_q'\?\nAllowed: .*conv_in, .*to_out\.0, to_q, to_v"):
        add_adapters(unet(), lora(targets=["to_qq"]), seed=0)
    with pytest.raises(UsageError, match=r"unknown layer 'attenton' in task\.lora\.targets\. Did you mean 'attention'"):
        add_adapters(mlp(), lora(targets=["attenton"]), seed=0)
    with pytest.raises(UsageError, match=r"does not have all of to_q, to_k, .*\n.*: fc1, fc2, fc3\. .*targets=\[fc1\]"):
        add_adapters(mlp(), lora(targets=["attention"]), seed=0)
    with pytest.raises(UsageError, match=r"there is no such layer\.\n.*none that is linear"):
        add_adapters(nn.Sequential(nn.ReLU()), lora(), seed=0)


def test_a_layer_that_cannot_be_decomposed_is_named() -> None:
    with pytest.raises(
        UsageError, match=r"init=pissa cannot start layers that are smaller than task\.lora\.rank=8: fc3\."
    ):
        add_adapters(mlp(), lora(init="pissa", rank=8), seed=0)
    with pytest.raises(UsageError, match=r"cannot start layers that are convolutions: conv_in, .* and \d+ more"):
        add_adapters(unet(), lora(init="orthogonal", targets="all_linear_conv"), seed=0)


def test_without_peft_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"peft is not installed, and this needs it: pip install 'optbench\[lora\]'"):
        add_adapters(mlp(), lora(), seed=0)


def test_a_rank_above_a_layers_own_is_allowed_where_a_is_drawn() -> None:
    assert adapter_parameters(adapted(rank=64))["fc3.lora_B.default.weight"].shape == (6, 64)


# LoRA+.


def plus(ratio: float) -> Component:
    return Component(name="lora_plus", target="optbench.optim.param_groups.lora_plus", arguments={"ratio": ratio})


def test_lora_plus_trains_b_at_a_multiple_of_the_rate(make_trial: MakeTrial) -> None:
    trial = make_trial("param_groups=lora_plus")
    model = adapted(dora=True)
    built = build(optimizer("torch.optim.AdamW", lr=0.01), model, param_groups=trial.param_groups)
    rates = {id(parameter): group["lr"] for group in built.param_groups for parameter in group["params"]}
    for name, parameter in adapter_parameters(model).items():
        assert rates[id(parameter)] == pytest.approx(0.16 if "lora_B" in name else 0.01)
    assert [group["lr"] for group in describe_groups(built)] == pytest.approx([0.16, 0.01])


def test_lora_plus_wants_adapters_and_a_ratio_above_0() -> None:
    with pytest.raises(UsageError, match=r"no trainable lora_B\.\n.*task=lora_mlp"):
        build(optimizer("torch.optim.AdamW", lr=0.01), mlp(), param_groups=plus(16.0))
    with pytest.raises(UsageError, match=r"param_groups\.ratio=0\.0: it must be above 0"):
        build(optimizer("torch.optim.AdamW", lr=0.01), adapted(), param_groups=plus(0.0))


# What is made once and kept.


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "optbench"


class Making:
    """Makes a folder with two files, and counts how often."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.times = 0
        self._seconds = seconds

    def __call__(self, folder: Path) -> None:
        self.times += 1
        (folder / "deep").mkdir()
        (folder / "weights").write_text("numbers")
        time.sleep(self._seconds)
        (folder / "deep" / "config.json").write_text("{}")


@pytest.mark.usefixtures("cache")
def test_a_recipe_is_followed_once() -> None:
    make = Making()
    first = cached("base", {"lr": 0.1}, make)
    assert cached("base", {"lr": 0.1}, make) == first
    assert make.times == 1
    assert (first / "weights").read_text() == "numbers"
    assert set(json.loads((first / "contents.json").read_text())) == {"weights", "deep/config.json"}
    assert cached("base", {"lr": 0.2}, make) != first
    assert make.times == 2


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("damage", ["gone", "another", "more"])
def test_a_folder_that_is_not_as_it_was_made_is_made_again(damage: str) -> None:
    make = Making()
    folder = cached("base", {}, make)
    if damage == "gone":
        (folder / "weights").unlink()
    else:
        (folder / ("weights" if damage == "another" else "new")).write_text("else")
    assert cached("base", {}, make) == folder
    assert make.times == 2
    assert sorted(path.name for path in folder.iterdir()) == ["contents.json", "deep", "weights"]


def test_what_fails_leaves_nothing_and_what_was_killed_is_swept_up(cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        cached("base", {}, fail)
    assert not [path for path in cache.iterdir() if path.is_dir()]
    folder = cached("base", {}, Making())
    abandoned = folder.with_name(f"{folder.name}.0.partial")
    folder.rename(abandoned)
    assert cached("base", {}, Making()) == folder
    assert [path for path in cache.iterdir() if path.is_dir()] == [folder]


@pytest.mark.usefixtures("cache")
def test_of_several_that_ask_at_once_one_makes_it(caplog: pytest.LogCaptureFixture) -> None:
    make = Making(seconds=0.2)
    found: list[Path] = []
    with caplog.at_level(logging.INFO, logger="optbench"):
        threads = [threading.Thread(target=lambda: found.append(cached("base", {}, make))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert make.times == 1
    assert len(found) == 4
    assert len(set(found)) == 1
    assert caplog.messages == ["waiting for another process, which is making base"] * 3


def test_a_cache_that_cannot_be_written_to_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"base cannot be made in .*\n.*XDG_CACHE_HOME=<folder>"):
        cached("base", {}, Making())
