"""From overrides to configs: the same ones that Hydra composes, faster, one by one, and by every method of a sweep."""

import itertools
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra import initialize_config_module
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf, open_dict

from optbench.compose import Composer
from optbench.composing import hydra_version
from optbench.errors import UsageError
from optbench.method import Method
from optbench.search import Choices, Dimension, Range
from optbench.trial import Trial

Config = dict[str, Any]
Compose = Callable[[Sequence[str]], Config]


@pytest.fixture(scope="module")
def hydra_compose() -> Compose:
    """What Hydra's own `compose` makes of overrides without lists."""

    def compose(overrides: Sequence[str]) -> Config:
        with initialize_config_module("optbench.conf", **hydra_version()):
            config = hydra.compose("config", overrides=list(overrides), return_hydra_config=True)
        with open_dict(config):
            del config["hydra"]
        found = OmegaConf.to_container(config, resolve=True)
        assert isinstance(found, dict)
        return {str(key): value for key, value in found.items()}

    return compose


def configs(composer: Composer, *overrides: str) -> list[Config]:
    return list(composer.configs(overrides, one_trial=False))


def settings(composer: Composer, *overrides: str) -> list[tuple[str, float, int]]:
    return [
        (config["optimizer"]["name"], config["optimizer"]["lr"], config["seed"])
        for config in configs(composer, *overrides)
    ]


@pytest.mark.parametrize(
    "lists",
    [
        {"optimizer": ["lion", "adamw"], "optimizer.lr": ["0.1", "0.2"], "seed": ["3", "4"]},
        {"task": ["digits_mlp", "quadratic", "mnist_mlp"], "budget.num_steps": ["5"]},
        {"data": ["digits"], "task": ["mnist_mlp"], "~data.mean": []},
        {"task": ["mnist_mlp"], "data.path": ["a", "b"], "data.sha256": ["null"]},
        {"+optimizer.maximize": ["true"], "~optimizer.eps": [], "++optimizer.lr": ["0.5", "0.25"]},
        {"optimizer.betas": ["[0.9,0.99]", "[0.5,0.5]"], "task.hidden_sizes": ["[7]", "[3,3,3]"]},
        {"optimizer": ["preset/llama2"], "optimizer.preset.size": ["7B", "70B"], "optimizer.eps": ["0.1", "0.2"]},
        {"optimizer": ["preset/llama2"], "optimizer.lr": ["0.1", "0.2"], "optimizer.preset.size": ["13B"]},
        {
            "optimizer": ["preset/epfl_adamw"],
            "optimizer.preset.size": ["124M", "720M"],
            "max_grad_norm": ["null", "2.0"],
        },
        {"optimizer": ["preset/epfl_dmuon"], "optimizer.companion.lr": ["0.1"], "optimizer.preset.size": ["720M"]},
        {"optimizer": ["preset/llama"], "schedule": ["llama", "constant"]},
        {"schedule": ["llama"], "++optimizer.preset": ["{warmup: 0.25}"]},
        {"optimizer": ["momentum_averaging"], "optimizer.momentum": ["0.5", "0.75"], "optimizer.lr": ["0.5"]},
        {"optimizer": ["momentum_averaging"], "optimizer.dampening": ["0.5"], "optimizer.momentum": ["0.25"]},
        {"+optimizer.extra": ["${optimizer.lr}"], "optimizer.lr": ["0.5", "0.25"], "seed": ["0", "1"]},
        {"optimizer.eps": ["${optimizer.extra.b}"], "+optimizer.extra": ["{a: 1, b: 0.5}"], "seed": ["0"]},
        {"optimizer.weight_decay": ["${oc.env:OPTBENCH_NO_SUCH_VARIABLE,0.5}"], "seed": ["0", "1"]},
        {"optimizer": ["muon"], "optimizer.companion.lr": ["0.5", "0.25"], "optimizer.ns_steps": ["3"]},
        {"optimizer": ["galore"], "optimizer.matrices.rank": ["4", "8"], "+optimizer.follow": ["{eps: lr}"]},
        {"param_groups": ["no_decay", "mup"], "seed": ["0"]},
        {"param_groups": ["mup"], "param_groups.base_width": ["50", "100"]},
        {"target.metric": ["test_loss"], "target.value": ["0.5", "null"], "logger": ["none"]},
        {"lr_scaling": ["{rule: linear, base_batch_size: 32}"], "task.batch_size": ["16", "32"]},
        {"hardware": ["cpu"], "hardware.num_threads": ["1", "2"], "results": ["elsewhere"]},
        {"++task.metrics.extra": ["max"], "~task.batch_size": [], "optimizer.name": ["'a, b'"]},
        {"~data": [], "task": ["quadratic"], "task.condition_number": ["10.0", "inf"]},
        {"~experiment": [], "limits.trial_seconds": ["5.0"], "divergence.max_loss": ["inf"]},
    ],
    ids=lambda lists: " ".join(lists),
)
def test_a_config_is_what_hydra_composes(
    lists: dict[str, list[str]], composer: Composer, hydra_compose: Compose
) -> None:
    lists = {"sweep": ["once"], **lists}
    overrides = [f"{key}={','.join(values)}" if values else key for key, values in lists.items()]
    each = [[f"{key}={value}" for value in values] or [key] for key, values in lists.items()]
    expected = [hydra_compose(combination) for combination in itertools.product(*each)]
    assert configs(composer, *overrides) == expected


def test_configs_share_what_they_have_in_common_and_nothing_else(composer: Composer) -> None:
    first, second, third, fourth = configs(composer, "optimizer.lr=0.1,0.2", "seed=0,1")
    assert first["task"] is second["task"] is third["task"]
    assert first["optimizer"] is second["optimizer"]
    assert first["optimizer"]["betas"] is third["optimizer"]["betas"]
    assert [config["optimizer"]["lr"] for config in (first, second, third, fourth)] == [0.1, 0.1, 0.2, 0.2]


def test_a_value_that_the_files_do_not_have_is_no_obstacle_where_another_one_is_given(composer: Composer) -> None:
    """No rate is published for this size, but none is needed."""
    (config,) = composer.configs(
        ["optimizer=preset/llama2", "optimizer.preset.size=8B", "optimizer.lr=0.5"], one_trial=True
    )
    assert config["optimizer"]["lr"] == 0.5


def test_the_first_config_comes_before_the_others_are_composed(composer: Composer) -> None:
    found = composer.configs(["optimizer.lr=0.1,abc", "seed=0"], one_trial=False)
    assert next(found)["optimizer"]["lr"] == 0.1
    with pytest.raises(UsageError, match=r"optimizer.lr='abc': expected a number"):
        next(found)


def test_a_mistake_in_all_configs_is_found_before_one_is_asked_for(composer: Composer) -> None:
    with pytest.raises(UsageError, match=r"unknown key 'optimizer.lrr'"):
        composer.configs(["optimizer.lrr=0.1", "seed=0"], one_trial=False)


class CountingLoader:
    """Hydra's loader of configs, and how often it has composed."""

    def __init__(self, loader: ConfigLoader) -> None:
        self._loader = loader
        self.num_compositions = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def load_configuration(self, *arguments: Any, **keywords: Any) -> Any:
        self.num_compositions += 1
        return self._loader.load_configuration(*arguments, **keywords)


def test_hydra_composes_once_for_each_set_of_group_choices() -> None:
    with initialize_config_module("optbench.conf", **hydra_version()):
        loader: Any = CountingLoader(GlobalHydra.instance().config_loader())
        composer = Composer(loader, [])
        assert len(configs(composer, "optimizer=lion,adamw", "optimizer.lr=range(1,50)", "seed=range(10)")) == 980
    assert loader.num_compositions == 2


def test_the_memory_of_a_trial_does_not_grow_with_what_trials_have_in_common(composer: Composer) -> None:
    overrides = ["optimizer=lion,adamw", "optimizer.lr=range(1,51)", "seed=range(10)"]
    list(composer.configs(overrides, one_trial=False))
    tracemalloc.start()
    try:
        trials = [Trial.from_config(config) for config in composer.configs(overrides, one_trial=False)]
        assert len({trial.id for trial in trials}) == 1000
        assert tracemalloc.get_traced_memory()[0] / len(trials) < 10_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("seed=range(3)", [0, 1, 2]),
        ("seed=sort(3,1,2)", [1, 2, 3]),
        ("seed=sort(3,1,2,reverse=true)", [3, 2, 1]),
        ("seed=tag(some,choice(1,2))", [1, 2]),
        ("seed=int(1.0,2.0)", [1, 2]),
    ],
)
def test_the_functions_of_the_grammar_work(composer: Composer, override: str, values: list[int]) -> None:
    assert [config["seed"] for config in configs(composer, override)] == values


def test_a_shuffled_list_has_the_same_trials(composer: Composer) -> None:
    ids = {
        order: sorted(Trial.from_config(config).id for config in configs(composer, f"seed={order}"))
        for order in ("shuffle(range(20))", "range(20)")
    }
    assert ids["shuffle(range(20))"] == ids["range(20)"]


# Methods.


def test_a_grid_is_each_optimizers_own(composer: Composer) -> None:
    found = settings(composer, "sweep=grid", "optimizer=lion,adamw")
    rates = {name: sorted({lr for other, lr, _ in found if other == name}) for name in ("lion", "adamw")}
    assert len(found) == 3 * sum(map(len, rates.values()))
    assert max(rates["lion"]) < max(rates["adamw"])
    for name, grid in rates.items():
        (config,) = composer.configs([f"optimizer={name}"], one_trial=True)
        assert grid == config["optimizer"]["search"]["lr"]["grid"]


def test_what_the_command_line_gives_takes_the_place_of_a_grid(composer: Composer) -> None:
    found = settings(composer, "sweep=grid", "optimizer=lion,adamw", "optimizer.lr=0.5,0.25", "seed=7")
    assert found == [(name, lr, 7) for name in ("lion", "adamw") for lr in (0.5, 0.25)]


def test_a_key_that_an_optimizer_does_not_search_stays_as_it_is(composer: Composer) -> None:
    found = configs(composer, "sweep=grid", "optimizer=adamw,muon", "sweep.keys=companion.lr", "seed=0")
    assert [config["optimizer"]["name"] for config in found].count("adamw") == 1
    assert len({config["optimizer"]["companion"]["lr"] for config in found if "companion" in config["optimizer"]}) > 1


def test_a_control_that_has_nothing_to_search_is_there_once(composer: Composer) -> None:
    assert settings(composer, "sweep=grid", "optimizer=null", "seed=0") == [("null", 0.0, 0)]


def test_a_condition_is_looked_up_in_what_is_fixed(composer: Composer, conditional: Composer) -> None:
    del composer
    every = configs(conditional, "optimizer=conditional", "sweep=grid", "sweep.keys=all", "seed=0")
    assert [(config["optimizer"]["momentum"], config["optimizer"]["nesterov"]) for config in every] == [
        (0.0, False),
        (0.9, False),
        (0.9, True),
    ]
    fixed = ["optimizer=conditional", "sweep=grid", "sweep.keys=all", "seed=0", "optimizer.momentum=0.5"]
    assert [config["optimizer"]["nesterov"] for config in configs(conditional, *fixed)] == [False]


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Composer:
    """A composer that has an optimizer with a condition in its search block, and two without a sound one."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "optimizer").mkdir()
    head = "_target_: torch.optim.SGD\nlr: 0.1\nmomentum: 0.0\nnesterov: false\n"
    search = "search:\n  nesterov: {grid: [false, true], when: {momentum: [0.9]}}\n  momentum: {grid: [0.0, 0.9]}\n"
    (folder / "optimizer" / "conditional.yaml").write_text(f"name: conditional\n{head}{search}")
    (folder / "optimizer" / "unsearched.yaml").write_text(f"name: unsearched\n{head}")
    only_range = "search:\n  lr: {range: 'tag(log, interval(0.1, 1.0))'}\n"
    (folder / "optimizer" / "ungridded.yaml").write_text(f"name: ungridded\n{head}{only_range}")
    with initialize_config_module("optbench.conf", **hydra_version()):
        loader = GlobalHydra.instance().config_loader()
    return Composer(loader, [f"hydra.searchpath=[file://{folder}]"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "sweep=grid optimizer=unsearched",
            r"unsearched.*no search block.*\n.*optimizer.lr=0.0003,0.001,0.003, or add",
        ),
        ("sweep=random n=2 optimizer=unsearched", r"unsearched.*no search block.*\n.*tag\(log, interval"),
        ("sweep=grid optimizer=ungridded", r"optimizer.lr has a range and no grid.*\nGive values, as in optimizer.lr="),
        ("sweep=grid sweep.keys=[lrr]", r"unknown key 'lrr' of sweep.keys.*Did you mean 'lr'"),
        ("sweep=zip optimizer=lion,adamw optimizer.lr=1,2,3", r"optimizer=lion,adamw \(2\), optimizer.lr=1,2,3 \(3\)"),
        ("sweep=random", r"sweep=random has no budget: give n=50"),
        ("sweep=optuna", r"sweep=optuna has no budget: give n=50"),
        ("sweep=random sweep.seconds=5.0", r"Give n=50 to know it before"),
        ("sweep=random n=0", r"n=0: it must be above 0"),
        ("sweep=random n=x", r"n='x': expected int"),
        ("sweep=random n=2,3", r"n: one sweep has one value for it"),
        ("n=50", r"n=50: this is the budget of sweep=random and sweep=optuna, and sweep.method=product has none"),
        ("sweep=grid n=50", r"n=50.*sweep.method=grid has none"),
        ("sweep=zip n=50", r"n=50.*sweep.method=zip has none"),
        ("sweep=default,once", r"sweep: one sweep has one value for it"),
        ("sweep.method=gird", r"unknown value 'gird' for sweep.method. Did you mean 'grid'"),
        ("sweep=grid optimizer.lr=interval(0.1,1)", r"an interval has no values to run through.*\n.*sweep=random"),
        ("sweep=random n=2 optimizer=interval(0,1)", r"an interval has no values"),
        ("sweep=random n=2 seed=interval(0,1)", r"an interval has no values"),
        ("sweep=random n=2 optimizer.lr=interval(1,0.1)", r"the first bound has to be below the second"),
        ("sweep=random n=2 optimizer.lr=tag(log,interval(0,1))", r"both bounds have to be above 0"),
        ("sweep=random n=2 optimizer.lr=tag(lgo,interval(0.1,1))", r"lgo says nothing about an interval"),
        ("sweep=random n=2 optimizer.lrr=interval(0.1,1)", r"unknown key 'optimizer.lrr'"),
    ],
)
def test_what_a_method_cannot_do_is_said(conditional: Composer, overrides: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        configs(conditional, *overrides.split())


def test_a_single_run_has_no_tuning_budget(composer: Composer) -> None:
    with pytest.raises(UsageError, match="`run` trains one trial; n is for sweep=random"):
        composer.configs(["n=5"], one_trial=True)


def test_a_zip_gives_each_optimizer_its_own_rate(composer: Composer) -> None:
    found = settings(composer, "sweep=zip", "optimizer=lion,adamw", "optimizer.lr=0.25,0.5", "seed=0,4,5")
    assert found == [(name, lr, seed) for name, lr in (("lion", 0.25), ("adamw", 0.5)) for seed in (0, 4, 5)]
    assert len(settings(composer, "sweep=zip", "optimizer=lion,adamw", "optimizer.weight_decay=0.5")) == 6


def test_random_settings_are_the_same_again_and_a_larger_budget_goes_on_with_them(composer: Composer) -> None:
    few = settings(composer, "sweep=random", "n=4", "optimizer=lion")
    assert len(set(few)) == 4
    assert settings(composer, "sweep=random", "n=9", "optimizer=lion")[:4] == few
    assert settings(composer, "sweep=random", "n=4", "optimizer=adamw,lion")[4:] == few
    assert not set(few) & set(settings(composer, "sweep=random", "n=4", "optimizer=lion", "sweep.seed=1"))


def test_every_random_setting_is_trained_from_every_seed(composer: Composer) -> None:
    found = settings(composer, "sweep=random", "n=3", "optimizer=lion", "seed=5,6")
    assert [seed for _, _, seed in found] == [5, 6] * 3
    assert [lr for _, lr, _ in found[::2]] == [lr for _, lr, _ in found[1::2]]


def test_a_small_space_is_tried_once_and_not_more(composer: Composer) -> None:
    overrides = ["sweep=random", "n=50", "sweep.keys=[]", "optimizer.eps=choice(0.1,0.2,0.3)"]
    assert sorted(config["optimizer"]["eps"] for config in configs(composer, *overrides)) == [0.1, 0.2, 0.3]


def test_a_search_composes_as_many_trials_as_optuna_will_choose(composer: Composer) -> None:
    assert len(configs(composer, "sweep=optuna", "n=3", "optimizer=lion,adamw", "seed=0,1")) == 12


def test_studies_are_what_is_listed_and_not_searched(composer: Composer) -> None:
    listed = ["optimizer=lion,adamw", "task=digits_mlp,quadratic", "optimizer.weight_decay=0.5,5e-1", "seed=0,1"]
    studies = composer.studies(["sweep=optuna", "n=3", "sweep.keys=[lr]", *listed, "results=elsewhere"])
    assert [study.name for study in studies] == [
        f"optimizer={optimizer} task={task} optimizer.weight_decay=0.5"
        for optimizer in ("lion", "adamw")
        for task in ("digits_mlp", "quadratic")
    ]
    assert [[dimension.key for dimension in study.dimensions] for study in studies] == [["optimizer.lr"]] * 4


def test_a_study_makes_the_configs_of_a_point(composer: Composer) -> None:
    (study,) = composer.studies(["sweep=random", "n=1", "sweep.keys=[lr]", "seed=3,4", "budget.num_steps=9"])
    first, second = study.configs({"optimizer.lr": 0.5})
    assert (first["seed"], second["seed"]) == (3, 4)
    assert first["optimizer"]["lr"] == second["optimizer"]["lr"] == 0.5
    assert first["budget"]["num_steps"] == 9
    assert study.configs({})[0]["optimizer"]["lr"] == 0.001
    with pytest.raises(UsageError, match=r"optimizer.lr='x': expected a number"):
        study.configs({"optimizer.lr": "x"})


def test_intervals_and_choices_on_the_command_line_are_searched(composer: Composer) -> None:
    (study,) = composer.studies(
        [
            "sweep=random",
            "n=1",
            "sweep.keys=[]",
            "optimizer.lr=tag(log,interval(0.1,1))",
            "task.batch_size=interval(16,64)",
            "+optimizer.maximize=choice(true,false)",
            "optimizer.eps=int(interval(1,3))",
        ]
    )
    assert {dimension.key: dimension.values for dimension in study.dimensions} == {
        "optimizer.lr": Range(low=0.1, high=1.0, log=True),
        "task.batch_size": Range(low=16.0, high=64.0, integer=True),
        "optimizer.maximize": Choices(values=[True, False]),
        "optimizer.eps": Range(low=1, high=3, integer=True),
    }
    (config,) = study.configs({"optimizer.maximize": True})
    assert config["optimizer"]["maximize"] is True


def test_ranges_of_files_are_read_in_hydras_grammar(composer: Composer) -> None:
    (study,) = composer.studies(["sweep=random", "n=1", "optimizer=adamw"])
    dimensions: dict[str, Dimension] = {dimension.key: dimension for dimension in study.dimensions}
    lr, betas = dimensions["optimizer.lr"], dimensions["optimizer.betas"]
    assert isinstance(lr.values, Range)
    assert lr.values.log
    assert isinstance(betas.values, Choices)
    assert list(betas.values.values) == list(betas.grid)


def test_a_strategy_tells_the_budget(composer: Composer) -> None:
    strategy = composer.strategy(["sweep=optuna", "n=7", "sweep.seconds=60"])
    assert (strategy.method, strategy.num_settings, strategy.seconds) == (Method.OPTUNA, 7, 60.0)
    assert composer.strategy([]).method is Method.PRODUCT


SETTINGS = """
# @package _global_
sweep:
  params: {seed: "0,1"}
  settings:
    - {task.hidden_sizes: [10, 20]}
    - {optimizer: prodigy, optimizer.lr: 0.5, optimizer.safeguard_warmup: true}
    - {task.batch_size: 32}
"""


def with_settings(tmp_path: Path) -> Composer:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text(SETTINGS)
    with initialize_config_module("optbench.conf", **hydra_version()):
        return Composer(GlobalHydra.instance().config_loader(), [f"hydra.searchpath=[file://{tmp_path}]"])


def told(config: Any) -> tuple[Any, ...]:
    task, optimizer = config["task"], config["optimizer"]
    return optimizer["name"], optimizer["lr"], tuple(task["hidden_sizes"]), task["batch_size"], config["seed"]


def test_settings_are_points_of_a_sweep_each_with_keys_of_its_own(tmp_path: Path) -> None:
    found = [told(config) for config in with_settings(tmp_path).configs(["experiment=mine"], one_trial=False)]
    assert found == [
        *(("adamw", 0.001, (10, 20), 64, seed) for seed in (0, 1)),
        *(("prodigy", 0.5, (100, 100), 64, seed) for seed in (0, 1)),
        *(("adamw", 0.001, (100, 100), 32, seed) for seed in (0, 1)),
    ]


def test_the_command_line_comes_before_a_setting(tmp_path: Path) -> None:
    asked = ["experiment=mine", "optimizer.lr=0.1,0.2", "seed=7"]
    found = [told(config) for config in with_settings(tmp_path).configs(asked, one_trial=False)]
    assert [(name, lr, seed) for name, lr, *_, seed in found] == [
        (name, lr, 7) for name in ("adamw", "prodigy", "adamw") for lr in (0.1, 0.2)
    ]


def test_settings_and_a_method_that_chooses_its_own_points_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"sweep\.settings are the points of a sweep"):
        list(with_settings(tmp_path).configs(["experiment=mine", "sweep.method=grid"], one_trial=False))
