"""Which packages a config may call, and who may allow more."""

import pytest

from optbench.allowlist import check_names, check_targets
from optbench.catalogue import GROUPS, entries
from optbench.component import Component
from optbench.errors import UsageError
from optbench.sweeper import Composer, split_allowed
from optbench.trial import Trial


def part(target: str) -> tuple[str, Component]:
    return "optimizer", Component(name="mine", target=target, arguments={})


@pytest.mark.parametrize("group", GROUPS)
def test_the_catalogue_may_be_called(group: str) -> None:
    targets = [str(entry.config["_target_"]) for entry in entries(group) if "_target_" in entry.config]
    check_names([part(target) for target in targets if target != "???"], allowed=())


@pytest.mark.parametrize(
    "target", ["os.system", "torch.load", "pandas.read_pickle", "torchvision.ops.nms", "optbenchx.y"]
)
def test_a_file_cannot_call_other_packages(target: str) -> None:
    with pytest.raises(
        UsageError, match=rf"{target} is not among the packages.*\n.*add allow={target.partition('.')[0]}"
    ):
        check_names([part(target)], allowed=())


@pytest.mark.parametrize(
    "target", ["optbench.run.platform.node", "optbench.run.torch.load", "optbench.store.os.remove"]
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
    assert composer.packages_named(typed) == ["my_lab", "other"]
    assert composer.packages_named(["optimizer=adamw"]) == []


def test_a_config_file_cannot_allow_anything(composer: Composer) -> None:
    (config,) = composer.configs([], one_trial=True)
    with pytest.raises(UsageError, match="unknown key 'allow'"):
        Trial.from_config({**config, "allow": ["os"]})
