"""Settings that language models were trained with, number by number against the sources that they come from."""

import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from optbench.catalogue import entries
from optbench.component import Component, component
from optbench.components import locate
from optbench.errors import UsageError
from optbench.parsing import parse_mapping
from optbench.trial import Trial
from tests.conftest import MakeTrial, RunTrial

CONF = Path(__file__).parent.parent / "conf"
CATALOGUE = {entry.name: entry for entry in entries("optimizer") if entry.name.startswith("preset/")}
NAMES = list(CATALOGUE)
SCHEDULES = [entry.name for entry in entries("schedule") if "optimizer=preset/" in entry.header]
NOT_OFFERED = {"maximize", "capturable", "differentiable", "kwargs", "clip_lambda"}

Preset = Callable[[str, str], Trial]


def by_size(sizes: str, **given: Any) -> dict[str, dict[str, Any]]:
    """What the source gives for each size of model: of a tuple, the value at that size's place."""
    return {
        size: {key: value[place] if isinstance(value, tuple) else value for key, value in given.items()}
        for place, size in enumerate(sizes.split(" "))
    }


def constant(name: str, *, warmup: float) -> dict[str, Any]:
    # A part of the budget is written in YAML to five digits.
    return {"name": name, "target": "optbench.schedule.constant", "warmup": pytest.approx(warmup, rel=2e-5)}


def cosine(name: str, *, final_factor: float, warmup: float) -> dict[str, Any]:
    return constant(name, warmup=warmup) | {"target": "optbench.schedule.cosine", "final_factor": final_factor}


def epfl(**given: Any) -> dict[str, dict[str, Any]]:
    """What all scripts of EPFL's have in common, unless `given` says otherwise."""
    schedule = tuple(cosine("epfl", final_factor=1 / 100, warmup=2_000 / steps) for steps in EPFL_STEPS)
    common = {"lr": 1e-3, "weight_decay": 0.1, "clip": (0.5, 0.5, 0.1), "schedule": schedule}
    return by_size("124M 210M 720M", **(common | given))


EPFL_STEPS = (128_000, 128_000, 48_000)
LIKE_GPT3: dict[str, Any] = {"betas": [0.9, 0.95], "weight_decay": 0.1, "clip": 1.0}  # as later sources give it too

# For each preset and size: the arguments that its source gives, the bound of the gradient's norm (`clip`), the
# schedule, and the arguments of the companion where there is one. PaLM and T5 have one setting for all sizes.
SETTINGS = {
    # Brown et al. (2020), table 2.1 and appendix B, https://arxiv.org/abs/2005.14165. In millions of tokens.
    "preset/gpt3": by_size(
        "125M 350M 760M 1300M 2700M 6700M 13B 175B",
        lr=(6e-4, 3e-4, 2.5e-4, 2e-4, 1.6e-4, 1.2e-4, 1e-4, 6e-5),
        **LIKE_GPT3,
        eps=1e-8,
        schedule=cosine("gpt3", final_factor=0.1, warmup=375 / 260_000),
    ),
    # https://github.com/bigscience-workshop/bigscience, 9e64ede, train/tr11-176B-ml/README.md. In samples.
    "preset/bloom": by_size(
        "176B",
        lr=6e-5,
        **LIKE_GPT3,
        eps=1e-8,
        schedule=cosine("bloom", final_factor=6e-6 / 6e-5, warmup=183_105 / 200_000_000),
    ),
    # Chowdhery et al. (2022), section 5, https://arxiv.org/abs/2204.02311: a decay of lr squared, so the factor is 1.
    "preset/palm": by_size(
        "",
        lr=1e-2,
        beta1=0.9,
        decay_rate=-0.8,
        weight_decay=1.0,
        clip=1.0,
        schedule=constant("palm", warmup=0.0)
        | {"target": "optbench.schedule.flat_inverse_sqrt", "flat": pytest.approx(10_000 / 255_000, rel=2e-5)},
    ),
    # Touvron et al. (2023), section 2.3 and table 2, https://arxiv.org/abs/2302.13971: 4 million tokens a step.
    "preset/llama": by_size(
        "7B 13B 33B 65B",
        lr=(3e-4, 3e-4, 1.5e-4, 1.5e-4),
        **LIKE_GPT3,
        schedule=tuple(
            cosine("llama", final_factor=0.1, warmup=2_000 / (tokens / 4e6)) for tokens in (1e12, 1e12, 1.4e12, 1.4e12)
        ),
    ),
    # Touvron et al. (2023), section 2.2 and table 1, https://arxiv.org/abs/2307.09288: 4 million tokens a step.
    "preset/llama2": by_size(
        "7B 13B 34B 70B",
        lr=(3e-4, 3e-4, 1.5e-4, 1.5e-4),
        **LIKE_GPT3,
        eps=1e-5,
        schedule=cosine("llama2", final_factor=0.1, warmup=2_000 / (2e12 / 4e6)),
    ),
    # Grattafiori et al. (2024), section 3.4.1, https://arxiv.org/abs/2407.21783: from 8e-5 to 8e-7.
    "preset/llama3": by_size(
        "405B", lr=8e-5, clip=None, schedule=cosine("llama3", final_factor=1 / 100, warmup=8_000 / 1_200_000)
    ),
    # https://github.com/karpathy/nanoGPT, 3adf61e, train.py and config/train_gpt2.py: from 6e-4 to 6e-5.
    "preset/nanogpt": by_size(
        "124M", lr=6e-4, **LIKE_GPT3, schedule=cosine("nanogpt", final_factor=0.1, warmup=2_000 / 600_000)
    ),
    # The rate: Raffel et al. (2020), section 3.1, https://arxiv.org/abs/1910.10683. The switches:
    # https://huggingface.co/docs/transformers/main_classes/optimizer_schedules. eps, clip_threshold and decay_rate:
    # Shazeer and Stern (2018), https://arxiv.org/abs/1804.04235.
    "preset/t5": by_size(
        "",
        lr=1e-3,
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
        eps=[1e-30, 1e-3],
        clip_threshold=1.0,
        decay_rate=-0.8,
        clip=None,
        schedule=constant("constant", warmup=0.0),
    ),
    # Semenov, Pagliardini and Jaggi (2025), https://github.com/epfml/llm-optimizer-benchmark, fdecd5d: scripts/124m,
    # 210m and 720m; what these leave open, in src/config/base.py, src/main.py and src/optim. AdamW's eps is PyTorch's.
    "preset/epfl_adamw": epfl(betas=([0.8, 0.999], [0.9, 0.999], [0.9, 0.999]), eps=1e-8),
    "preset/epfl_lion": epfl(lr=(1e-3, 5e-4, 2e-4), betas=[0.9, 0.99], clip=(0.5, 0.5, 1.0)),
    "preset/epfl_signum": epfl(lr=(1e-3, 5e-4, 2e-4), momentum=(0.9, 0.95, 0.95), nesterov=(False, True, True)),
    "preset/epfl_prodigy": epfl(
        lr=1.0,
        betas=([0.9, 0.999], [0.9, 0.999], [0.95, 0.99]),
        beta3=None,
        eps=1e-8,
        decouple=True,
        use_bias_correction=True,
        safeguard_warmup=False,
        d0=1e-6,
        d_coef=1.0,
        growth_rate=math.inf,
    ),
    "preset/epfl_schedulefree": epfl(
        betas=[0.9, 0.9999],
        eps=1e-8,
        r=0.0,
        weight_lr_power=2.0,
        warmup_steps=0,  # here the schedule has it
        schedule=tuple(
            constant("epfl_schedulefree", warmup=warmup / steps)
            for warmup, steps in zip((2_000, 8_000, 8_000), EPFL_STEPS, strict=True)
        ),
    ),
    "preset/epfl_ademamix": epfl(
        betas=[0.9, 0.999, 0.999], alpha=8.0, t_alpha_beta3=EPFL_STEPS, eps=1e-8, weight_decouple=True
    ),
    "preset/epfl_adopt": epfl(betas=([0.9, 0.999], [0.9, 0.999], [0.95, 0.999]), eps=1e-6, weight_decouple=True),
    "preset/epfl_soap": epfl(
        betas=([0.9, 0.999], [0.9, 0.999], [0.95, 0.95]),
        shampoo_beta=None,  # there -1: the second of betas
        eps=1e-8,
        precondition_frequency=10,
        max_precondition_dim=10_000,
        merge_dims=False,
        precondition_1d=False,
        normalize_gradient=False,
        correct_bias=True,
        data_format="channels_first",
    ),
    "preset/epfl_mars": epfl(
        lr=3e-3,
        betas=[0.95, 0.99],
        gamma=0.025,
        eps=1e-8,
        mars_type="adamw",
        ams_bound=False,
        optimize_1d=False,
        lr_1d=1e-3,
        betas_1d=[0.8, 0.999],
        weight_decay_1d=0.1,
        weight_decouple=True,
    ),
    "preset/epfl_dmuon": epfl(
        momentum=0.95,
        nesterov=True,
        ns_coefficients=[3.4445, -4.775, 2.0315],
        ns_steps=5,
        eps=1e-7,
        adjust_lr_fn="match_rms_adamw",
        companion=tuple(
            {"lr": 1e-3, "betas": betas, "eps": 1e-8, "weight_decay": 0.1}
            for betas in ([0.8, 0.999], [0.8, 0.999], [0.9, 0.99])
        ),
    ),
}
EACH_SIZE = [pytest.param(name, size, id=f"{name}-{size}") for name, table in SETTINGS.items() for size in table]


@pytest.fixture(scope="module")
def preset(make_trial: MakeTrial) -> Preset:
    """The trial of a preset's size."""

    def trial(name: str, size: str) -> Trial:
        return make_trial(f"optimizer={name}", *([f"optimizer.preset.size={size}"] if size else []))

    return functools.cache(trial)


def needs_its_package(name: str) -> None:
    pytest.importorskip(CATALOGUE[name].package.partition(".")[0])


def described(schedule: Component) -> dict[str, Any]:
    return {"name": schedule.name, "target": schedule.target, **schedule.arguments}


def defaults(of: Component) -> dict[str, Any]:
    """The arguments of a component's class, at the values that it gives them itself."""
    _, *parameters = inspect.signature(locate(of, group="optimizer")).parameters.values()
    values = {parameter.name: parameter.default for parameter in parameters if parameter.name not in NOT_OFFERED}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_has_a_source_and_the_sizes_that_it_gives(name: str) -> None:
    assert CATALOGUE[name].source.startswith("https://")
    node = CATALOGUE[name].config.get("preset") or {"size": ""}
    assert node["size"] == next(iter(SETTINGS[name]))
    assert all(list(table) == list(SETTINGS[name]) for table in node.values() if isinstance(table, dict))


@pytest.mark.parametrize(("name", "size"), EACH_SIZE)
def test_every_number_of_a_preset_is_its_source_s(name: str, size: str, preset: Preset) -> None:
    trial = preset(name, size)
    expected = SETTINGS[name][size]
    actual = {**trial.optimizer.arguments, "clip": trial.max_grad_norm, "schedule": described(trial.schedule)}
    if trial.optimizer.companion is not None:
        actual["companion"] = {key: trial.optimizer.companion.arguments[key] for key in expected["companion"]}
    assert {key: actual[key] for key in expected} == expected


@pytest.mark.parametrize(("name", "size"), EACH_SIZE)
def test_what_its_source_does_not_give_is_the_default_of_the_class(name: str, size: str, preset: Preset) -> None:
    needs_its_package(name)
    optimizer, expected = preset(name, size).optimizer, SETTINGS[name][size]
    for part, given in ((optimizer, expected), (optimizer.companion, expected.get("companion", {}))):
        if part is not None:
            own = {key: value for key, value in part.arguments.items() if key not in given}
            assert own == {key: value for key, value in defaults(part).items() if key not in given}


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_trains(name: str, run_trial: RunTrial) -> None:
    needs_its_package(name)
    result = run_trial(f"optimizer={name}", "budget.num_steps=4", "evaluation.every_num_steps=4")
    assert result.status == "completed", result.summary
    assert all(math.isfinite(loss) for loss in result.curve["test_loss"])


def test_what_is_given_beside_a_preset_wins(make_trial: MakeTrial) -> None:
    given = ("schedule=constant", "optimizer.lr=0.01", "optimizer.eps=0.1", "max_grad_norm=2.0")
    trial = make_trial("optimizer=preset/llama2", *given)
    assert (trial.schedule.name, trial.max_grad_norm) == ("constant", 2.0)
    assert (trial.optimizer.arguments["lr"], trial.optimizer.arguments["eps"]) == (0.01, 0.1)


def test_the_size_is_no_argument_of_the_optimizer_and_equal_settings_are_one_trial(preset: Preset) -> None:
    small, medium, large = (preset("preset/llama2", size) for size in ("7B", "13B", "70B"))
    assert "preset" not in small.optimizer.arguments
    assert small.id == medium.id != large.id


@pytest.mark.parametrize("name", [name for name, table in SETTINGS.items() if "" not in table])
def test_a_size_that_the_source_does_not_have_is_an_error_that_names_it(name: str, preset: Preset) -> None:
    with pytest.raises(UsageError, match="9B"):
        preset(name, "9B")


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_schedule_of_a_preset_is_that_of_its_first_size_for_other_optimizers(name: str) -> None:
    first_sizes = [next(iter(table.values()))["schedule"] for table in SETTINGS.values()]
    node = OmegaConf.to_container(OmegaConf.load(CONF / "schedule" / f"{name}.yaml"), resolve=True)
    schedule = component(parse_mapping(node, where="schedule"), group="schedule")
    assert described(schedule) in first_sizes


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_of_a_preset_belongs_to_one(name: str) -> None:
    texts = [(CONF / "optimizer" / f"{preset}.yaml").read_text() for preset in NAMES]
    chosen = [entry for text in texts for entry in yaml.safe_load(text).get("defaults", ())]
    assert {"override /schedule": name} in chosen
