"""From overrides to trials, and from trials to a store."""

import os
import re
import sys
from pathlib import Path

import pytest

from optbench.cli import main
from optbench.component import DESCRIPTION
from optbench.compose import Composer
from optbench.errors import UsageError
from optbench.store import Store
from optbench.sweep import carry_out
from optbench.sweeper import split_allowed
from optbench.trial import Trial

QUICK = ["task=quadratic", "budget.num_steps=20", "evaluation.every_num_steps=10", "executor=serial"]


def trials(composer: Composer, *overrides: str) -> list[Trial]:
    return [Trial.from_config(config) for config in composer.configs(list(overrides), one_trial=False)]


def carried_out(composer: Composer, arguments: list[str]) -> int:
    given, allowed = split_allowed(arguments)
    configs = composer.configs(given, one_trial=False)
    return carry_out(configs, overrides=arguments, allowed=[*allowed, *composer.packages_named(given)])


def sweep(composer: Composer, results: Path, *overrides: str) -> int:
    arguments = [*QUICK, f"results={results}", *overrides]
    return carried_out(composer, arguments)


def test_a_sweep_is_every_combination_the_seed_varying_fastest(composer: Composer) -> None:
    made = trials(composer, "optimizer=lion,adamw", "optimizer.lr=0.1,0.2")
    assert [(trial.optimizer.name, trial.optimizer.arguments["lr"], trial.seed) for trial in made] == [
        (name, lr, seed) for name in ("lion", "adamw") for lr in (0.1, 0.2) for seed in (0, 1, 2)
    ]


def test_seeds_that_are_given_take_the_place_of_the_default_ones(composer: Composer) -> None:
    assert [trial.seed for trial in trials(composer, "seed=7")] == [7]
    assert [trial.seed for trial in trials(composer, "seed=range(5)")] == [0, 1, 2, 3, 4]


def test_an_experiment_brings_its_own_parameters_and_name(composer: Composer) -> None:
    configs = list(composer.configs(["experiment=lr_grid", "optimizer=lion,adamw"], one_trial=False))
    assert len(configs) == 2 * 7 * 3
    assert {config["sweep"]["name"] for config in configs} == {"lr_grid"}


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("optimizer.lr=0.1,0.2", [0.1, 0.2]),
        ("optimizer.lr=choice(0.1,0.2)", [0.1, 0.2]),
        ("optimizer.lr=range(1,4)", [1.0, 2.0, 3.0]),
        ("optimizer.lr=sort(0.3,0.1)", [0.1, 0.3]),
        ("optimizer.lr=tag(coarse,choice(0.1,0.2))", [0.1, 0.2]),
        ("optimizer.lr=1e-4,3e-4", [0.0001, 0.0003]),
        ("optimizer.betas=[0.9,0.99],[0.95,0.98]", [[0.9, 0.99], [0.95, 0.98]]),
    ],
)
def test_hydras_sweep_grammar_works(composer: Composer, override: str, values: list[object]) -> None:
    key = override.partition("=")[0].removeprefix("optimizer.")
    assert [trial.optimizer.arguments[key] for trial in trials(composer, override, "seed=0")] == values


def test_a_glob_chooses_among_the_options_of_a_group(composer: Composer) -> None:
    names = {trial.optimizer.name for trial in trials(composer, "optimizer=glob(rmsprop*)", "seed=0")}
    assert names == {"rmsprop", "rmsprop_centered", "rmsprop_momentum"}


def test_a_key_that_only_some_other_optimizer_has_is_no_obstacle(composer: Composer) -> None:
    """Hydra's own sweeper checks `optimizer.d0` against the default optimizer, which has no such key."""
    made = trials(composer, "optimizer=prodigy", "optimizer.d0=0.00001,0.0001", "seed=0")
    assert [trial.optimizer.arguments["d0"] for trial in made] == [0.00001, 0.0001]


def test_the_example_of_the_readme_composes(composer: Composer) -> None:
    overrides = [
        "optimizer=lion,adamw",
        "task=mnist_mlp",
        "optimizer.lr=1e-4,3e-4",
        "seed=range(5)",
        "optimizer.betas=[0.9,0.99]",
        "+schedule.warmup=0.1",
    ]
    made = trials(composer, *overrides)
    assert len(made) == 2 * 2 * 5
    assert {trial.schedule.arguments["warmup"] for trial in made} == {0.1}
    assert {trial.data.name for trial in made if trial.data} == {"mnist"}


def test_each_task_brings_its_own_data_unless_told_otherwise(composer: Composer) -> None:
    made = trials(composer, "task=digits_mlp,quadratic,mnist_mlp", "seed=0")
    assert [trial.data.name if trial.data else None for trial in made] == ["digits", None, "mnist"]
    (other,) = trials(composer, "task=mnist_mlp", "data=digits", "seed=0")
    assert other.data is not None
    assert other.data.name == "digits"


def test_a_key_can_be_added_forced_and_deleted(composer: Composer) -> None:
    (added,) = trials(composer, "+optimizer.maximize=true", "~optimizer.foreach", "++optimizer.lr=0.5", "seed=0")
    assert added.optimizer.arguments["maximize"] is True
    assert "foreach" not in added.optimizer.arguments
    assert added.optimizer.arguments["lr"] == 0.5


def test_a_whole_number_becomes_a_float_where_the_file_has_one(composer: Composer) -> None:
    (one,) = trials(composer, "optimizer.lr=1", "seed=0")
    (same,) = trials(composer, "optimizer.lr=1.0", "seed=0")
    assert one.id == same.id


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimzer=lion", r"unknown key 'optimzer'. Did you mean 'optimizer'\?"),
        ("optimizer=lino", r"unknown optimizer 'lino'. Did you mean 'lion'\?\nAllowed: adadelta, adafactor, .*sgd"),
        ("task=mnist", r"unknown task 'mnist'. Did you mean 'mnist_mlp'"),
        (
            "optimizer.lrr=0.1",
            r"unknown key 'optimizer.lrr' for optimizer=adamw. Did you mean 'optimizer.lr'",
        ),
        ("budget.num_step=3", r"unknown key 'budget.num_step'. Did you mean 'budget.num_steps'"),
        ("+budget.num_step=3", r"unknown key 'budget.num_step'. Did you mean 'budget.num_steps'"),
        ("+foo=1", r"unknown key 'foo'"),
        ("seed.x=1", r"seed is a single value"),
        ("optimizer.lr=abc", r"optimizer.lr='abc': expected a number .*got text"),
        ("optimizer.lr=true", r"optimizer.lr=True: expected a number"),
        ("optimizer.betas=0.9", r"optimizer.betas=0.9: expected a list"),
        ("optimizer.betas=[0.9,x]", r"optimizer.betas='x': expected a number"),
        ("optimizer.amsgrad=1", r"optimizer.amsgrad=1: expected true or false"),
        ("seed=1.5", r"seed=1.5: expected a whole number"),
        ("seed=-1", r"seed=-1: it must be 0 or above"),
        ("budget.num_steps=0", r"budget.num_steps=0: it must be above 0"),
        ("budget.num_steps=ten", r"budget.num_steps='ten': expected int"),
        ("hardware.device=gpu", r"unknown value 'gpu' for hardware.device. Did you mean 'cpu'"),
        ("target.value=0.9", r"a target needs both"),
        ("optimizer.lr=interval(0.1,1)", r"an interval has no values"),
        ("seed=range(5", r"seed=range\(5: not a valid override"),
        ("optimizer.lr=${optimizer.nothing}", r"optimizer.lr: .*optimizer.nothing"),
    ],
)
def test_a_mistake_is_explained(composer: Composer, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        trials(composer, override)


def test_a_list_of_values_is_refused_for_a_single_run(composer: Composer) -> None:
    with pytest.raises(UsageError, match="optbench sweep optimizer=lion,adamw"):
        composer.configs(["optimizer=lion,adamw"], one_trial=True)


def test_a_sweep_stores_every_trial_and_the_same_command_trains_nothing(
    composer: Composer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(composer, tmp_path, "optimizer=sgd,adam") == 0
    files = sorted((tmp_path / "default" / "trials").iterdir())
    before = [(file.name, file.stat().st_mtime_ns) for file in files]
    assert len(before) == 6
    assert "6 trials to run" in capsys.readouterr().out

    assert sweep(composer, tmp_path, "optimizer=sgd,adam") == 0
    assert "nothing to run, 6 stored already" in capsys.readouterr().out
    assert [(file.name, file.stat().st_mtime_ns) for file in files] == before


def test_a_larger_sweep_trains_only_what_is_new(
    composer: Composer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(composer, tmp_path, "optimizer.lr=0.1")
    sweep(composer, tmp_path, "optimizer.lr=0.1,0.2")
    assert "3 trials to run, 3 stored already" in capsys.readouterr().out


def test_a_trial_that_is_spelt_twice_runs_once(
    composer: Composer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(composer, tmp_path, "optimizer.lr=0.001,1e-3", "seed=0")
    assert "1 trial to run, 1 duplicate merged" in capsys.readouterr().out


def test_a_diverged_trial_is_a_row(composer: Composer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "task=quadratic_deep",
        "optimizer=sgd",
        "optimizer.lr=0.01,0.0398",
        "seed=0",
        "executor=serial",
        f"results={tmp_path}",
    ]
    assert carried_out(composer, arguments) == 1
    output = capsys.readouterr().out
    assert "lr=0.0398" in output
    assert "1 diverged" in output
    index = Store(tmp_path, "default").index().set_index("status")
    assert index.loc["diverged", "diverged_at_step"] > 1
    assert index.loc["completed", "test_loss"] < 100.0


class Explosive:
    """A quadratic that raises in its fifth step when its seed is 1."""

    def __init__(self, *, condition_number: float, dimension: int, seed: int, device: object) -> None:
        from optbench.tasks.quadratic import Quadratic

        self._inner = Quadratic(condition_number=condition_number, dimension=dimension, seed=seed, device=device)  # type: ignore[arg-type]
        self.model = self._inner.model
        self.batches = self._inner.batches
        self.evaluate = self._inner.evaluate
        self._steps_left = 4 if seed == 1 else 10**9

    def loss(self, batch: None) -> object:
        self._steps_left -= 1
        if self._steps_left < 0:
            raise RuntimeError("boom [at] 100 %")
        return self._inner.loss(batch)


def test_a_trial_that_raises_is_a_row_and_the_others_go_on(
    composer: Composer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = "task._target_=tests.test_sweeper.Explosive"
    assert sweep(composer, tmp_path, target) == 1
    index = Store(tmp_path, "default").index().set_index("seed")
    assert dict(index["status"]) == {0: "completed", 1: "crashed", 2: "completed"}
    assert index.loc[1, "reason"] == "RuntimeError: boom [at] 100 %"
    output = capsys.readouterr().out
    assert "1 crashed" in output
    assert "RuntimeError: boom [at] 100 %" in output

    # It is a result like any other, until it is asked for again: then the old one is set aside, not overwritten.
    sweep(composer, tmp_path, target)
    assert "nothing to run, 3 stored already" in capsys.readouterr().out
    sweep(composer, tmp_path, target, "sweep.rerun=[crashed]")
    assert "1 trial to run, 2 stored already" in capsys.readouterr().out
    assert len(list((tmp_path / "default" / "superseded").iterdir())) == 1
    assert len(list((tmp_path / "default" / "trials").iterdir())) == 3


def test_a_null_where_a_number_belongs_is_a_mistake(composer: Composer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"schedule 'constant' refuses .*warmup"):
        sweep(composer, tmp_path, "schedule.warmup=null")


def test_a_mistake_in_one_trial_stops_the_sweep_before_any_trains(composer: Composer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="refuses lr=-1"):
        sweep(composer, tmp_path, "optimizer=sgd,adam", "optimizer.lr=0.1,-1")
    assert not (tmp_path / "default" / "trials").exists()


def test_a_damaged_result_is_set_aside_and_trained_again(
    composer: Composer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(composer, tmp_path, "seed=0")
    (file,) = (tmp_path / "default" / "trials").iterdir()
    file.write_text(file.read_text().replace("completed", "complete!"))
    sweep(composer, tmp_path, "seed=0")
    captured = capsys.readouterr()
    assert "did not hold what was written" in captured.err
    assert "1 trial to run" in captured.out
    assert len(list((tmp_path / "default" / "quarantine").iterdir())) == 1


def test_an_unknown_status_to_run_again_is_a_mistake(composer: Composer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown status 'crash' .*Did you mean 'crashed'"):
        sweep(composer, tmp_path, "sweep.rerun=crash")


def test_a_folder_that_cannot_be_written_to_is_a_clear_error(composer: Composer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UsageError, match="cannot be written to"):
        sweep(composer, tmp_path / "file", "seed=0")


def test_a_full_disk_stops_the_sweep_and_keeps_what_was_stored(
    composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    links = []

    def link(source: object, target: object) -> None:
        links.append(target)
        if len(links) == 2:
            raise OSError(28, "No space left on device")
        original(source, target)  # type: ignore[arg-type]

    original = os.link
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(UsageError, match=r"No space left on device[^$]*What was stored before is kept"):
        sweep(composer, tmp_path)
    monkeypatch.undo()
    assert len(list((tmp_path / "default" / "trials").iterdir())) == 1
    sweep(composer, tmp_path)
    assert "2 trials to run, 1 stored already" in capsys.readouterr().out


@pytest.mark.parametrize("override", ["results=a,b", "sweep.name=a,b", "logger=none,wandb"])
def test_what_a_sweep_has_once_cannot_be_swept(composer: Composer, tmp_path: Path, override: str) -> None:
    with pytest.raises(UsageError, match=r"one sweep has one value for it"):
        sweep(composer, tmp_path, override, "seed=0")


def test_an_optimizer_that_leaves_a_parameter_out_costs_its_own_trials_alone(
    composer: Composer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the real model shows it, when other trials may be stored already."""
    target = "optimizer._target_=torch.optim.AdamW,tests.test_optimizers.SmallOnly"
    plain = ["~optimizer.betas", "~optimizer.eps", "~optimizer.amsgrad", "~optimizer.foreach", "~optimizer.fused"]
    arguments = ["task=digits_mlp", "budget.num_steps=2", "seed=0", target, *plain, "~optimizer.weight_decay"]
    arguments += ["executor=serial", f"results={tmp_path}"]
    assert carried_out(composer, arguments) == 1
    assert "leaves out 5 of 6 trainable parameters" in capsys.readouterr().out
    assert len(list((tmp_path / "default" / "trials").iterdir())) == 2


def test_with_a_target_the_fewest_steps_are_the_best(
    composer: Composer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that reach it end with about the same loss."""
    target = ["target.metric=distance", "target.value=1.0", "optimizer=sgd,adam,rmsprop", "optimizer.lr=0.01"]
    arguments = ["task=saddle", "seed=0", "budget.num_steps=100", "executor=serial", *target, f"results={tmp_path}"]
    assert carried_out(composer, arguments) == 0
    output = capsys.readouterr().out
    assert "best by steps to the target" in output
    assert re.findall(r"(\w+) +lr=0.01 +\d", output) == ["rmsprop", "adam", "sgd"]
    assert "never (0/1)" in output


def test_an_infinite_bound_can_be_stored_and_read_back(composer: Composer, tmp_path: Path) -> None:
    assert sweep(composer, tmp_path, "divergence.max_loss=inf", "seed=0,1") == 0
    assert sweep(composer, tmp_path, "divergence.max_loss=inf", "seed=0,1") == 0
    assert Store(tmp_path, "default").index()["setting"].nunique() == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task=digits_mlp task.batch_size=100000", r"task.batch_size=100000: there are 1437 training images"),
        ("task=quadratic_deep task.batch_size=1001", r"task.batch_size=1001: there are 1000 samples"),
        ("task.batch_size=0 task=quadratic_deep", r"task.batch_size=0"),
        ("task.condition_number=0.5", r"task.condition_number=0.5"),
        ("optimizer.betas=[0.9]", r"adamw .*refuses .*betas=\[0.9\]"),
        ("optimizer.fused=true optimizer.foreach=true", r"adamw .*refuses .*fused=True"),
        ("optimizer=lion optimizer.use_triton=true", r"lion .*refuses .*use_triton=True"),
        ("seed=range(0)", r"seed=range\(0\): this lists no value"),
        ("results=null", r"results is missing"),
        ("sweep.name=null", r"a plain folder name is needed"),
        ("~logger", r"logger is missing"),
    ],
)
def test_a_mistake_that_takes_a_closer_look_is_found_before_anything_trains(
    composer: Composer, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        sweep(composer, tmp_path, *override.split())
    assert not list(tmp_path.rglob("*.json"))


def test_a_sweep_shows_its_own_trials_whatever_others_planned_meanwhile(
    composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Store.write_plan
    monkeypatch.setattr(Store, "write_plan", lambda self, *_, **__: original(self, [], ["another command"]))
    assert sweep(composer, tmp_path, "optimizer=sgd", "optimizer.lr=10.0", "seed=0") == 1
    assert "1 diverged" in capsys.readouterr().out


def test_data_from_two_places_are_two_questions_unless_a_hash_says_they_are_the_same(composer: Composer) -> None:
    paths = ["task=mnist_mlp", "seed=0", "data.path=a,b"]
    known, same = trials(composer, *paths)
    assert known.id == same.id
    one, other = trials(composer, *paths, "data.sha256=null")
    assert one.id != other.id


class Stillborn:
    """Raises while it is built."""

    def __init__(self, *, condition_number: float, dimension: int, seed: int, device: object) -> None:
        raise RuntimeError(f"no {dimension} x {condition_number} today, {seed}, {device}")


def test_a_task_that_cannot_be_built_is_a_row_too(composer: Composer, tmp_path: Path) -> None:
    targets = "task._target_=tests.test_sweeper.Stillborn,optbench.tasks.quadratic.Quadratic"
    assert sweep(composer, tmp_path, targets, "seed=0") == 1
    assert sorted(Store(tmp_path, "default").index()["status"]) == ["completed", "crashed"]


def test_the_control_called_null_is_chosen_like_any_other(composer: Composer) -> None:
    configs = composer.configs(["optimizer=null,adamw", "seed=0"], one_trial=False)
    assert [config["optimizer"]["name"] for config in configs] == ["null", "adamw"]
    with pytest.raises(UsageError, match="a group is not set to null; leave it out with ~task"):
        composer.configs(["task=null"], one_trial=True)


def test_a_class_on_the_command_line_takes_its_hyperparameters_without_a_plus(composer: Composer) -> None:
    overrides = [
        "optimizer=custom",
        "optimizer.lr=0.1",
        "optimizer._target_=torch.optim.ASGD,torch.optim.Rprop",
        "seed=0",
    ]
    configs = composer.configs(overrides, one_trial=False)
    assert [config["optimizer"] for config in configs] == [
        {"name": f"torch.optim.{name}", "_target_": f"torch.optim.{name}", "lr": 0.1} for name in ("ASGD", "Rprop")
    ]


def test_a_class_on_the_command_line_is_trained_and_its_mistyped_key_is_named(
    composer: Composer, tmp_path: Path
) -> None:
    custom = ["task=quadratic", "seed=0", "optimizer=custom", "optimizer._target_=torch.optim.Rprop"]
    assert sweep(composer, tmp_path, *custom, "optimizer.lr=0.1") == 0
    with pytest.raises(
        UsageError, match=r"unknown key 'optimizer.lrr' for torch.optim.Rprop. Did you mean 'optimizer.lr'"
    ):
        sweep(composer, tmp_path, *custom, "optimizer.lrr=0.1")


def test_a_custom_optimizer_without_a_class_says_what_is_missing(composer: Composer) -> None:
    with pytest.raises(
        UsageError, match=r"optimizer._target_ has no value yet: give it one, as in optimizer._target_=my_"
    ):
        composer.configs(["optimizer=custom"], one_trial=True)


def test_a_size_that_a_preset_lacks_is_named_with_those_it_has(composer: Composer) -> None:
    with pytest.raises(
        UsageError, match=r"unknown value '8B' for what optimizer.lr depends on.\nAllowed: 13B, 34B, 70B, 7B"
    ):
        composer.configs(["optimizer=preset/llama2", "optimizer.preset.size=8B"], one_trial=True)


def test_a_mistyped_preset_names_the_nearest(composer: Composer) -> None:
    with pytest.raises(UsageError, match="Did you mean 'preset/llama2'"):
        composer.configs(["optimizer=preset/lama2"], one_trial=True)


def test_a_schedule_that_is_given_wins_over_that_of_a_preset(composer: Composer) -> None:
    (own,) = composer.configs(["optimizer=preset/llama2"], one_trial=True)
    (given,) = composer.configs(["optimizer=preset/llama2", "schedule=constant"], one_trial=True)
    assert own["schedule"]["_target_"] == "optbench.schedule.cosine"
    assert given["schedule"]["name"] == "constant"
    assert own["max_grad_norm"] == given["max_grad_norm"] == 1.0


def test_a_package_that_is_missing_is_named_with_the_extra_that_has_it(
    composer: Composer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    with pytest.raises(UsageError, match=r"cannot be imported.*\n.*pip install 'optbench\[zoo\]'"):
        sweep(composer, tmp_path, "optimizer=schedulefree_sgd", "seed=0")


def test_what_authors_advise_against_is_said_once_and_the_sweep_goes_on(
    composer: Composer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["task=quadratic", "optimizer=prodigy", "optimizer.lr=0.5", "schedule=step", "seed=0,1"]
    assert sweep(composer, tmp_path, *overrides) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert "prodigy: lr=0.5, where its authors advise 1; schedule=step" in line


# What is chosen, and by which keys.


@pytest.mark.parametrize("chosen", [["optimizer=adamw"], []])
@pytest.mark.parametrize("place", ["--config-dir", "hydra.searchpath"])
def test_a_file_with_a_name_that_is_taken_is_not_passed_over(
    place: str, chosen: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "adamw.yaml").write_text("name: adamw\n_target_: torch.optim.RAdam\nlr: 0.01\n")
    folder = ["--config-dir", str(tmp_path)] if place == "--config-dir" else [f"hydra.searchpath=[file://{tmp_path}]"]
    with pytest.raises(SystemExit) as caught:
        main(["run", *folder, *QUICK, *chosen, f"results={tmp_path / 'results'}"])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert f"{tmp_path}/optimizer/adamw.yaml: optimizer=adamw is pkg://optbench.conf/optimizer/adamw.yaml" in message
    assert "Rename it" in message
    assert not (tmp_path / "results").exists()


def test_a_group_that_is_empty_by_default_can_be_compared_with_its_options(composer: Composer) -> None:
    for option in ("null,no_decay", "no_decay,null"):
        configs = composer.configs([f"param_groups={option}", "experiment=null", "seed=0"], one_trial=False)
        chosen = [(config.get("param_groups") or {"name": "null"})["name"] for config in configs]
        assert chosen == option.split(",")


def test_no_allowed_key_is_one_that_only_describes(composer: Composer) -> None:
    with pytest.raises(UsageError, match=r"unknown key 'optimizer.xyz'") as caught:
        composer.configs(["optimizer=schedulefree_adamw", "optimizer.xyz=1"], one_trial=True)
    allowed = str(caught.value).partition("Allowed: ")[2].rstrip(".").split(", ")
    assert "optimizer.lr" in allowed
    assert not {f"optimizer.{key}" for key in DESCRIPTION} & set(allowed)
    with pytest.raises(UsageError, match=r"Allowed: lr_scaling.base_batch_size, lr_scaling.rule"):
        composer.configs(["lr_scaling.roole=1"], one_trial=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("optimizer=muon optimizer.companion.lrr=1", r"'optimizer.companion.lrr' for optimizer.companion=adamw. Did"),
        (
            "param_groups.groups=5",
            r"no param_groups is chosen.\nChoose an option first, as in param_groups=\w+.*no_dec",
        ),
        ("+param_groups.groups=5", r"no param_groups is chosen"),
        ("task=quadratic data.path=x", r"no data is chosen.\nChoose an option first, as in data=\w+.*digits, "),
        ("experiment=lr_grid experiment.x=1", r"unknown key 'experiment'"),
        ("optimizer=custom optimizer.lrr=1", r"optimizer._target_ has no value yet"),
        (
            "optimizer=preset/llama2 optimizer.preset.size=null",
            r"unknown value 'null' for what optimizer.lr depends on.\nAllowed: 13B, 34B, 70B, 7B",
        ),
        ("optimizer.rule=foo", r"optimizer.rule=foo: optimizer.rule only describes the optimizer, .* changes nothing"),
        ("optimizer.state_bytes_per_parameter=1", r"optimizer.state_bytes_per_parameter only describes"),
        ("optimizer.convention.eps=x", r"optimizer.convention only describes"),
        ("+optimizer.limits.zero_rate=x", r"optimizer.limits only describes"),
        ("optimizer=muon +optimizer.companion.rule=x", r"optimizer.companion.rule only describes"),
    ],
)
def test_a_key_at_the_wrong_place_is_explained(composer: Composer, overrides: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        composer.configs(overrides.split(), one_trial=True)


def test_what_changes_training_beside_the_arguments_can_be_set(composer: Composer) -> None:
    (config,) = composer.configs(["+optimizer.capabilities=[create_graph]", "+optimizer.follow={}"], one_trial=True)
    assert config["optimizer"]["capabilities"] == ["create_graph"]
