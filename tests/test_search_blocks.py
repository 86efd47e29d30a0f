"""The contract of every `search:` in conf/optimizer: what is worth trying, and that it can be tried."""

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from omegaconf import OmegaConf

from optbench.catalogue import entries
from optbench.component import OptimizerComponent, optimizer_component
from optbench.keys import typed
from optbench.optim.build import check
from optbench.pages import optimizers_page
from tests.handmade import trial

CONF = Path(__file__).parent.parent / "conf" / "optimizer"
CATALOGUE = {entry.name: entry.config for entry in entries("optimizer")}
CONTROLS = {"null", "sgd_untuned"}
SEARCHED = [name for name in CATALOGUE if "/" not in name and name != "custom" and name not in CONTROLS]
KEYS = [(name, key) for name in SEARCHED for key in CATALOGUE[name].get("search", {})]

# The library's own rate is known to be far too low: there is nothing to try below it.
LOWEST_BY_DEFAULT = {"momentum_averaging", "muon", "sgd"}


def space(name: str, key: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = CATALOGUE[name]["search"][key]
    return found


def own(name: str, key: str) -> Any:
    """The file's value of a key with dots."""
    node: Any = CATALOGUE[name]
    for part in key.split("."):
        assert part in node, f"{name} has no {key}"
        node = node[part]
    return node


def interval(text: str) -> IntervalSweep:
    """A range, read as Hydra reads an override."""
    value = OverridesParser.create().parse_override(f"key={text}").value()
    assert isinstance(value, IntervalSweep)
    return value


def chosen(name: str, values: Mapping[str, Any]) -> OptimizerComponent:
    """The file's optimizer, with these values for keys with dots."""
    config = OmegaConf.create({"optimizer": yaml.safe_load((CONF / f"{name}.yaml").read_text())})
    for key, value in values.items():
        OmegaConf.update(config, f"optimizer.{key}", value)
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    return optimizer_component(resolved["optimizer"])


def test_every_optimizer_has_a_search_and_a_control_an_empty_one() -> None:
    assert all(CATALOGUE[name].get("search") for name in SEARCHED)
    assert all(CATALOGUE[name]["search"] == {} for name in CONTROLS)


def test_published_settings_and_classes_without_a_file_have_none() -> None:
    assert not [name for name, config in CATALOGUE.items() if ("/" in name or name == "custom") and "search" in config]


@pytest.mark.parametrize("name", SEARCHED)
def test_everyone_gets_seven_rates_evenly_spaced_in_the_logarithm(name: str) -> None:
    grid = space(name, "lr")["grid"]
    steps = [high / low for low, high in pairwise(grid)]
    assert len(grid) == 7
    assert all(1.5 < step <= 4.0 for step in steps)
    assert max(steps) / min(steps) < 1.2501


@pytest.mark.parametrize("name", SEARCHED)
def test_the_rate_in_the_file_is_inside_the_grid(name: str) -> None:
    lr, grid = own(name, "lr"), space(name, "lr")["grid"]
    if name in LOWEST_BY_DEFAULT:
        assert lr == grid[0]
    elif lr is not None:
        assert grid[0] < lr < grid[-1]


@pytest.mark.parametrize("name", SEARCHED)
def test_rates_are_drawn_evenly_in_the_logarithm(name: str) -> None:
    assert "log" in interval(space(name, "lr")["range"]).tags


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_a_space_has_a_grid_and_perhaps_a_range_and_a_condition(name: str, key: str) -> None:
    found = space(name, key)
    assert {"grid"} <= set(found) <= {"grid", "range", "when"}
    values = [repr(value) for value in found["grid"]]
    assert len(set(values)) == len(values)
    assert key == "lr" or 2 <= len(values) <= 4


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_a_space_is_of_a_key_of_the_file_with_values_of_its_type(name: str, key: str) -> None:
    before = own(name, key)
    for value in space(name, key)["grid"]:
        found = typed(value, before, key=key)
        assert repr(found) == repr(value)  # 0.0, and not 0
        assert not isinstance(before, list) or len(value) == len(before)


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, key in KEYS if key != "lr"])
def test_what_the_file_has_is_among_the_values_unless_they_are_conditional(name: str, key: str) -> None:
    assert own(name, key) in space(name, key)["grid"] or "when" in space(name, key)


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, key in KEYS if "range" in space(name, key)])
def test_a_range_is_an_interval_around_the_grid(name: str, key: str) -> None:
    found, grid = interval(space(name, key)["range"]), space(name, key)["grid"]
    assert found.tags <= {"log"}
    assert found.start is not None
    assert found.end is not None
    low, high = float(found.start), float(found.end)
    assert 0.0 <= low < high < math.inf
    if "log" in found.tags:
        assert low > 0.0
        grid = [value for value in grid if value != 0.0]  # none at all, which a logarithm does not reach
    assert all(low <= value <= high for value in grid)


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, key in KEYS if "when" in space(name, key)])
def test_a_condition_is_on_values_that_an_earlier_key_can_have(name: str, key: str) -> None:
    keys = list(CATALOGUE[name]["search"])
    for other, values in space(name, key)["when"].items():
        assert keys.index(other) < keys.index(key)
        assert isinstance(values, list)
        assert all(value in space(name, other)["grid"] for value in values)
        assert set(map(repr, values)) < set(map(repr, space(name, other)["grid"])), "else it always counts"


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_every_value_of_a_grid_builds_the_optimizer(name: str, key: str) -> None:
    condition = {other: values[0] for other, values in space(name, key).get("when", {}).items()}
    for value in space(name, key)["grid"]:
        values = {**condition, key: value}
        if values.get("relative_step") is False:  # Adafactor chooses a rate itself, or takes one
            values = {"lr": 0.01, **values}
        check(chosen(name, values))


def test_a_search_is_no_part_of_what_a_trial_asks() -> None:
    assert trial({"optimizer.search": {"lr": {"grid": [0.1, 0.3]}}}).id == trial().id


def test_the_page_has_the_space_of_every_optimizer_that_is_tuned() -> None:
    _, _, section = optimizers_page().partition("## What is worth trying")
    section, _, _ = section.partition("\n## ")
    assert [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")] == SEARCHED
    assert "| `lion` | 0.00001 to 0.01 | `weight_decay`, `betas` |" in section
