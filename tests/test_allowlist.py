"""Which packages a config may call, and who may allow more."""

from pathlib import Path

import pytest

from optbench.allowlist import ALLOWED, check_names, check_shell, check_targets
from optbench.catalogue import GROUPS, entries
from optbench.cli import main
from optbench.component import Component
from optbench.compose import Composer
from optbench.control import Control
from optbench.errors import UsageError
from optbench.execution import Event, Job, Refused
from optbench.executors.attempt import attempt
from optbench.loggers import NullLogger
from optbench.store import Store
from optbench.sweeper import split_allowed
from optbench.trial import Trial
from tests.conftest import MakeTrial
from tests.handmade import context


def part(target: str) -> tuple[str, Component]:
    return "optimizer", Component(name="mine", target=target, arguments={})


@pytest.mark.parametrize("group", GROUPS)
def test_the_catalogue_may_be_called(group: str) -> None:
    targets = [str(entry.config["_target_"]) for entry in entries(group) if "_target_" in entry.config]
    check_names([(group, part(target)[1]) for target in targets if target != "???"], allowed=())


@pytest.mark.parametrize("group", ALLOWED)
@pytest.mark.parametrize(
    "target",
    [
        "optbench.parity.Declared.from_config",
        "optbench.components.resolve",
        "optbench.components.build",
        "optbench.cli.main",
        "optbench.optim.build._build",
        "optbench.optim.build:_build",
        "optbench.tasks.mnist_mlp._private",
    ],
)
def test_what_would_call_other_targets_may_not_be_called_by_a_file(group: str, target: str) -> None:
    with pytest.raises(UsageError, match="not among the packages"):
        check_names([(group, part(target)[1])], allowed=())


@pytest.mark.parametrize("group", ["schedule", "logger", "executor"])
def test_a_group_may_call_what_is_made_for_it_alone(group: str) -> None:
    with pytest.raises(UsageError, match=rf"Allowed for {group}: optbench.{group}"):
        check_names([(group, part("torch.optim.SGD")[1])], allowed=())


@pytest.mark.parametrize(
    "lines", ["callbacks: {x: {_target_: my_lab.Callback}}", "hydra_logging: {handlers: {x: {(): my_lab.Handler}}}"]
)
def test_a_primary_config_cannot_have_hydra_call_anything(
    lines: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(f"defaults: [config, _self_]\nhydra:\n  {lines}\n")
    with pytest.raises(SystemExit) as caught:
        main(["run", "--config-dir", str(tmp_path), "--config-name", "mine", f"results={tmp_path / 'r'}"])
    assert caught.value.code == 2
    assert f"mine: it sets hydra.{lines.partition(':')[0]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "target", ["os.system", "torch.load", "pandas.read_pickle", "torchvision.ops.nms", "optbenchx.y"]
)
def test_a_file_cannot_call_other_packages(target: str) -> None:
    with pytest.raises(
        UsageError, match=rf"{target} is not among the packages.*\n.*add allow={target.partition('.')[0]}"
    ):
        check_names([part(target)], allowed=())


@pytest.mark.parametrize(
    "target",
    [
        "optbench.optim.build.torch.load",
        "optbench.optim.build.warnings.warn",
        "optbench.optim.build:torch.load",
        "optbench.optim.build:locate",
        "torch.optim.sgd:torch.hub.load",
        "torch.optim.adam.Tensor.backward",
    ],
)
def test_nor_what_an_allowed_package_only_passes_on(target: str) -> None:
    check_names([part(target)], allowed=())
    with pytest.raises(UsageError, match=r"is defined in .* is not among the packages"):
        check_targets([part(target)], allowed=())


def test_the_command_line_allows_a_package_and_its_modules_alone() -> None:
    check_names([part("my_lab.optim.Mine")], allowed=("my_lab",))
    with pytest.raises(UsageError, match="my_labs"):
        check_names([part("my_labs.Mine")], allowed=("my_lab",))


@pytest.mark.parametrize("text", ["allow=a,b", "allow=[a,b]", "allow=[a, b]"])
def test_packages_are_listed_as_any_list_is(text: str) -> None:
    assert split_allowed(["seed=0", text]) == (["seed=0"], ["a", "b"])


def test_a_class_that_is_typed_is_allowed_and_one_in_a_file_is_not(composer: Composer) -> None:
    typed = ["optimizer=custom", "optimizer._target_=my_lab.A,other.optim.B", "optimizer.lr=0.1"]
    assert composer.packages_named(typed) == ["my_lab.A", "other.optim.B"]
    check_names([part("my_lab.A")], allowed=composer.packages_named(typed))
    with pytest.raises(UsageError, match=r"my_lab\.C"):
        check_names([part("my_lab.C")], allowed=composer.packages_named(typed))
    assert composer.packages_named(["optimizer=adamw"]) == []


def test_a_config_file_cannot_allow_anything(composer: Composer) -> None:
    (config,) = composer.configs([], one_trial=True)
    with pytest.raises(UsageError, match="unknown key 'allow'"):
        Trial.from_config({**config, "allow": ["os"]})


# A module that leaves a file where it is imported, and another where it is called.
HOSTILE = """
from pathlib import Path
Path("imported").touch()
def make(*_, **__):
    Path("called").touch()
"""
PLACES = {
    "task": "name: mine\n_target_: {target}\nnum_steps: 2\nevaluate_every_num_steps: 1\n",
    "data": "name: mine\n_target_: {target}\n",
    "optimizer": "name: mine\n_target_: {target}\nlr: 0.1\n",
    "schedule": "name: mine\n_target_: {target}\n",
    "param_groups": "name: mine\n_target_: {target}\n",
    "logger": "name: mine\n_target_: {target}\n",
    "executor": "name: mine\n_target_: {target}\n",
    "optimizer, as a companion": (
        "defaults: [muon]\nname: mine\ncompanion: {{name: mine, _target_: {target}, lr: 0.1}}\n"
    ),
    "optimizer, in an argument": "defaults: [sgd]\nname: mine\nlr: {{_target_: {target}}}\n",
    "optimizer, in an argument that it lacks": "defaults: [sgd]\nname: mine\nx: {{_target_: {target}}}\n",
    "optimizer, in what describes it": "defaults: [sgd]\nname: mine\nrule: {{_target_: {target}}}\n",
    "optimizer, in what is searched": "defaults: [sgd]\nname: mine\nsearch: {{_target_: {{grid: [{target}]}}}}\n",
    "experiment": "# @package _global_\noptimizer:\n  _target_: {target}\n",
    "experiment, in what is swept": "# @package _global_\nsweep:\n  params: {{optimizer._target_: {target}}}\n",
    "experiment, allowing it": ("# @package _global_\nallow: [my_hostile_lab]\noptimizer:\n  _target_: {target}\n"),
    "experiment, with its allowing swept": (
        "# @package _global_\nsweep:\n  params: {{allow: my_hostile_lab}}\noptimizer:\n  _target_: {target}\n"
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_a_file_would_call_is_not_even_imported(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    group = place.partition(",")[0]
    (tmp_path / "conf" / group).mkdir(parents=True)
    (tmp_path / "conf" / group / "mine.yaml").write_text(PLACES[place].format(target="my_hostile_lab.make"))
    (tmp_path / "my_hostile_lab.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    quick = ["task=quadratic", "budget.num_steps=2", "evaluation.every_num_steps=1", "executor=serial", "seed=0"]
    others = [line for line in quick if not line.startswith(f"{group}=")]
    method = ["sweep=random", "n=2"] if "searched" in place else []
    choice = f"+{group}=mine" if group in ("data", "param_groups") else f"{group}=mine"
    with pytest.raises(SystemExit) as caught:
        main(["sweep", "--config-dir", "conf", *others, choice, *method])
    shown = capsys.readouterr()
    assert not (tmp_path / "imported").exists(), shown.out + shown.err
    assert not (tmp_path / "called").exists()
    assert caught.value.code == (0 if "describes" in place else 2), shown.out + shown.err


def test_who_runs_a_trial_checks_it_once_more(
    make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search makes trials that nobody has looked at before the first one started."""
    (tmp_path / "my_hostile_lab.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    trial = make_trial(
        "task=quadratic", "optimizer=custom", "optimizer._target_=my_hostile_lab.make", "optimizer.lr=0.1"
    )
    heard: list[Event] = []
    attempt(
        Job(trial=trial),
        context=context(tmp_path),
        store=Store(tmp_path, "default"),
        logger=NullLogger(),
        control=Control(),
        report=heard.append,
    )
    assert isinstance(heard[-1], Refused)
    assert "not among the packages" in heard[-1].text
    assert not (tmp_path / "imported").exists()


SHELL = {"setup": ["touch evil"], "sbatch": {"wrap": "touch evil", "constraint": "a100"}}


@pytest.mark.parametrize("name", SHELL)
def test_a_file_brings_no_lines_of_shell(name: str) -> None:
    executor = Component(name="mine", target="optbench.executors.slurm.SlurmExecutor", arguments={name: SHELL[name]})
    for overrides in ([], ["executor=mine", "+executor.sbatch.constraint=a100"]):
        with pytest.raises(UsageError, match=rf"executor\.{name} comes from a file.*\n.*allow=executor\.{name}"):
            check_shell(executor, overrides=overrides, allowed=("my_lab",))
    check_shell(executor, overrides=[], allowed=(f"executor.{name}",))


@pytest.mark.parametrize(
    "overrides",
    [
        ["executor.setup=[touch evil]", "+executor.sbatch.wrap=touch evil", "++executor.sbatch.constraint=a100"],
        ["executor.setup=[touch evil]", "executor.sbatch={wrap: touch evil, constraint: a100}"],
    ],
)
def test_who_types_them_may_have_them_run(overrides: list[str]) -> None:
    executor = Component(name="mine", target="optbench.executors.slurm.SlurmExecutor", arguments=SHELL)
    check_shell(executor, overrides=overrides, allowed=())


def test_the_catalogue_brings_none() -> None:
    for entry in entries("executor"):
        arguments = {key: value for key, value in entry.config.items() if key not in ("name", "_target_")}
        check_shell(Component(name=entry.name, target="", arguments=arguments), overrides=[], allowed=())
