"""Which packages a config may call, and who may allow more."""

from pathlib import Path

import pytest

from optbench.allowlist import ALLOWED, check_names, check_targets
from optbench.catalogue import GROUPS, entries
from optbench.cli import main
from optbench.component import Component
from optbench.errors import UsageError
from optbench.sweeper import Composer, split_allowed
from optbench.trial import Trial


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
        "optbench.components._import",
        "optbench.components.build",
        "optbench.cli.main",
        "optbench.optim.build._build",
        "optbench.tasks.mnist_mlp._private",
    ],
)
def test_what_would_call_other_targets_may_not_be_called_by_a_file(group: str, target: str) -> None:
    with pytest.raises(UsageError, match="not among the packages"):
        check_names([(group, part(target)[1])], allowed=())


@pytest.mark.parametrize("group", ["schedule", "logger"])
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


@pytest.mark.parametrize("target", ["optbench.optim.build.torch.load", "optbench.optim.build.pkgutil.resolve_name"])
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
