"""Settings that language models were trained with, against the tables that they come from."""

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from optbench.catalogue import entries
from optbench.component import optimizer_component
from optbench.components import locate
from optbench.errors import UsageError
from optbench.schedule import cosine
from optbench.sweeper import Composer
from tests.conftest import MakeTrial, RunTrial

CONF = Path(__file__).parent.parent / "conf"
CATALOGUE = {entry.name: entry for entry in entries("optimizer") if entry.name.startswith("preset/")}
NAMES = list(CATALOGUE)
SCHEDULES = [entry.name for entry in entries("schedule") if "optimizer=preset/" in entry.header]
NOT_OFFERED = {"maximize", "capturable", "differentiable", "kwargs", "clip_lambda"}


def needs_its_package(name: str) -> None:
    pytest.importorskip(CATALOGUE[name].package.partition(".")[0])


def sizes(name: str) -> list[str]:
    """The sizes of model that a preset is given for; none where it is one for all."""
    node = CATALOGUE[name].config.get("preset") or {}
    return list(next((value for value in node.values() if isinstance(value, dict)), {}))


def test_there_are_presets_of_language_models() -> None:
    assert {"preset/gpt3", "preset/bloom", "preset/palm", "preset/llama2", "preset/t5"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_gives_its_source(name: str) -> None:
    assert CATALOGUE[name].source.startswith("https://")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_gives_every_argument_of_its_class(name: str, composer: Composer) -> None:
    needs_its_package(name)
    (config,) = composer.configs([f"optimizer={name}"], one_trial=True)
    component = optimizer_component(config["optimizer"])
    _, *parameters = inspect.signature(locate(component, group="optimizer")).parameters
    assert set(component.arguments) == set(parameters) - NOT_OFFERED


@pytest.mark.parametrize("name", NAMES)
def test_every_value_that_goes_by_size_is_given_for_the_same_sizes(name: str) -> None:
    node = CATALOGUE[name].config.get("preset") or {}
    tables = [value for value in node.values() if isinstance(value, dict)]
    assert all(list(table) == sizes(name) for table in tables)
    assert not tables or node["size"] == sizes(name)[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_trains_in_each_of_its_sizes(name: str, run_trial: RunTrial) -> None:
    needs_its_package(name)
    for size in sizes(name) or [""]:
        overrides = [f"optimizer.preset.size={size}"] if size else []
        result = run_trial(f"optimizer={name}", *overrides, "budget.num_steps=8", "evaluation.every_num_steps=4")
        assert result.status == "completed", result.summary
        assert all(math.isfinite(loss) for loss in result.curve["test_loss"])


@pytest.mark.parametrize(
    ("name", "table"),
    [
        (
            "preset/gpt3",
            {
                "125M": 6e-4,
                "350M": 3e-4,
                "760M": 2.5e-4,
                "1300M": 2e-4,
                "2700M": 1.6e-4,
                "6700M": 1.2e-4,
                "13B": 1e-4,
                "175B": 6e-5,
            },
        ),
        ("preset/bloom", {"176B": 6e-5}),
        ("preset/llama", {"7B": 3e-4, "13B": 3e-4, "33B": 1.5e-4, "65B": 1.5e-4}),
        ("preset/llama2", {"7B": 3e-4, "13B": 3e-4, "34B": 1.5e-4, "70B": 1.5e-4}),
        ("preset/llama3", {"405B": 8e-5}),
        ("preset/nanogpt", {"124M": 6e-4}),
        ("preset/epfl_lion", {"124M": 1e-3, "210M": 5e-4, "720M": 2e-4}),
        ("preset/epfl_signum", {"124M": 1e-3, "210M": 5e-4, "720M": 2e-4}),
    ],
)
def test_a_size_gives_the_peak_rate_of_the_paper_s_table(
    name: str, table: dict[str, float], make_trial: MakeTrial
) -> None:
    assert list(table) == sizes(name)
    for size, lr in table.items():
        trial = make_trial(f"optimizer={name}", f"optimizer.preset.size={size}")
        assert trial.optimizer.arguments["lr"] == lr


@pytest.mark.parametrize(
    ("name", "size", "arguments"),
    [
        ("preset/llama2", "7B", {"betas": [0.9, 0.95], "eps": 1e-5, "weight_decay": 0.1}),
        ("preset/epfl_adamw", "124M", {"lr": 1e-3, "betas": [0.8, 0.999]}),
        ("preset/epfl_adamw", "720M", {"lr": 1e-3, "betas": [0.9, 0.999]}),
        ("preset/epfl_signum", "124M", {"momentum": 0.9, "nesterov": False}),
        ("preset/epfl_signum", "720M", {"momentum": 0.95, "nesterov": True}),
        ("preset/epfl_prodigy", "720M", {"lr": 1.0, "betas": [0.95, 0.99], "use_bias_correction": True}),
        ("preset/epfl_ademamix", "720M", {"betas": [0.9, 0.999, 0.999], "alpha": 8.0, "t_alpha_beta3": 48000}),
        ("preset/epfl_soap", "720M", {"betas": [0.95, 0.95]}),
        ("preset/epfl_adopt", "720M", {"betas": [0.95, 0.999], "weight_decouple": True}),
        ("preset/epfl_mars", "720M", {"lr": 3e-3, "betas": [0.95, 0.99], "lr_1d": 1e-3, "betas_1d": [0.8, 0.999]}),
    ],
)
def test_other_arguments_go_by_size_too(name: str, size: str, arguments: dict[str, Any], make_trial: MakeTrial) -> None:
    trial = make_trial(f"optimizer={name}", f"optimizer.preset.size={size}")
    assert {key: trial.optimizer.arguments[key] for key in arguments} == arguments


def test_the_companion_of_muon_goes_by_size(make_trial: MakeTrial) -> None:
    for size, betas in (("124M", [0.8, 0.999]), ("720M", [0.9, 0.99])):
        companion = make_trial("optimizer=preset/epfl_dmuon", f"optimizer.preset.size={size}").optimizer.companion
        assert companion is not None
        assert companion.arguments["betas"] == betas


@pytest.mark.parametrize(
    ("name", "size", "steps", "warmup_steps", "final_factor"),
    [
        ("preset/llama", "7B", 250_000, 2_000, 0.1),
        ("preset/llama", "65B", 350_000, 2_000, 0.1),
        ("preset/llama2", "70B", 500_000, 2_000, 0.1),
        ("preset/llama3", "405B", 1_200_000, 8_000, 0.01),
        ("preset/nanogpt", "124M", 600_000, 2_000, 0.1),
        ("preset/gpt3", "13B", 260_000, 375, 0.1),  # in millions of tokens
        ("preset/bloom", "176B", 200_000_000, 183_105, 0.1),  # in samples
        ("preset/epfl_adamw", "124M", 128_000, 2_000, 0.01),
        ("preset/epfl_adamw", "720M", 48_000, 2_000, 0.01),
    ],
)
def test_a_preset_brings_the_schedule_of_its_source_as_parts_of_the_budget(
    name: str, *, size: str, steps: int, warmup_steps: int, final_factor: float, make_trial: MakeTrial
) -> None:
    trial = make_trial(f"optimizer={name}", f"optimizer.preset.size={size}")
    assert trial.schedule.target == "optbench.schedule.cosine"
    assert trial.schedule.arguments["warmup"] == pytest.approx(warmup_steps / steps, rel=1e-4)
    assert trial.schedule.arguments["final_factor"] == final_factor
    factor = cosine(**trial.schedule.arguments)
    assert factor(1.01 * warmup_steps / steps) == pytest.approx(1.0, abs=1e-4)
    assert factor(1.0) == pytest.approx(final_factor)


def test_schedule_free_keeps_its_rate_after_a_warm_up(make_trial: MakeTrial) -> None:
    for size, warmup in (("124M", 2 / 128), ("210M", 8 / 128), ("720M", 8 / 48)):
        trial = make_trial("optimizer=preset/epfl_schedulefree", f"optimizer.preset.size={size}")
        assert trial.schedule.target == "optbench.schedule.constant"
        assert trial.schedule.arguments["warmup"] == pytest.approx(warmup, rel=1e-4)


def test_palm_has_a_rate_of_a_hundredth_for_its_first_10_000_steps(make_trial: MakeTrial) -> None:
    trial = make_trial("optimizer=preset/palm")
    assert trial.optimizer.arguments["lr"] == 0.01
    assert trial.schedule.arguments["flat"] == pytest.approx(10_000 / 255_000, rel=1e-4)


@pytest.mark.parametrize(
    ("overrides", "max_grad_norm"),
    [
        (["optimizer=preset/llama2"], 1.0),
        (["optimizer=preset/epfl_adamw"], 0.5),
        (["optimizer=preset/epfl_adamw", "optimizer.preset.size=720M"], 0.1),
        (["optimizer=preset/epfl_lion", "optimizer.preset.size=720M"], 1.0),
        (["optimizer=preset/llama2", "max_grad_norm=2.0"], 2.0),
        (["optimizer=preset/t5"], None),
        (["optimizer=preset/llama3"], None),
        ([], None),
    ],
)
def test_a_preset_clips_gradients_as_its_source_does(
    overrides: list[str], max_grad_norm: float | None, make_trial: MakeTrial
) -> None:
    assert make_trial(*overrides).max_grad_norm == max_grad_norm


def test_what_is_given_beside_a_preset_wins(make_trial: MakeTrial) -> None:
    trial = make_trial("optimizer=preset/llama2", "schedule=constant", "optimizer.lr=0.01", "optimizer.eps=0.1")
    assert trial.schedule.name == "constant"
    assert trial.optimizer.arguments["lr"] == 0.01
    assert trial.optimizer.arguments["eps"] == 0.1


def test_the_size_is_no_argument_of_the_optimizer_and_equal_settings_are_one_trial(make_trial: MakeTrial) -> None:
    small, medium, large = (
        make_trial("optimizer=preset/llama2", f"optimizer.preset.size={size}") for size in ("7B", "13B", "70B")
    )
    assert "preset" not in small.optimizer.arguments
    assert small.id == medium.id != large.id


@pytest.mark.parametrize("name", [name for name in NAMES if sizes(name)])
def test_a_size_that_the_source_does_not_have_is_an_error_that_names_it(name: str, make_trial: MakeTrial) -> None:
    with pytest.raises(UsageError, match="9B"):
        make_trial(f"optimizer={name}", "optimizer.preset.size=9B")


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_schedule_of_a_preset_is_one_for_other_optimizers_too(name: str, make_trial: MakeTrial) -> None:
    trial = make_trial("optimizer=adamw", f"schedule={name}")
    assert 0.0 <= trial.schedule.arguments["warmup"] < 0.2


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_of_a_preset_belongs_to_one(name: str) -> None:
    texts = [(CONF / "optimizer" / f"{preset}.yaml").read_text() for preset in NAMES]
    chosen = [entry for text in texts for entry in yaml.safe_load(text).get("defaults", ())]
    assert {"override /schedule": name} in chosen
