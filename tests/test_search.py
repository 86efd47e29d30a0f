"""Search spaces: what is drawn from a range, what a grid has, and what an optimizer's block may say."""

import math
import random
from collections.abc import Mapping
from typing import Any

import pytest

from optbench.errors import UsageError
from optbench.search import Choices, Dimension, Range, grid, read_block


def parse_range(key: str, value: Any) -> Range | Choices:
    low, high = map(float, str(value).split(".."))
    assert key.startswith("optimizer.")
    return Range(low=low, high=high)


def dimension(key: str, *values: Any, when: Mapping[str, list[Any]] | None = None) -> Dimension:
    return Dimension(key=key, grid=values, values=Choices(values=values), when=when or {})


def drawn(values: Range | Choices, number: int = 1000) -> list[Any]:
    generator = random.Random(0)
    return [values.sample(generator) for _ in range(number)]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("integer", [False, True])
def test_a_range_has_numbers_between_its_bounds(log: bool, integer: bool) -> None:
    found = drawn(Range(low=1, high=1000, log=log, integer=integer))
    assert all(1 <= value <= 1000 for value in found)
    assert {type(value) for value in found} == {int if integer else float}
    middle = math.sqrt(1000) if log else 500
    assert 0.4 < sum(value < middle for value in found) / len(found) < 0.6


def test_whole_numbers_have_both_bounds() -> None:
    for log in (False, True):
        assert set(drawn(Range(low=1, high=4, log=log, integer=True))) == {1, 2, 3, 4}
    assert set(drawn(Range(low=0.5, high=2.5, integer=True))) == {1, 2}


def test_a_number_is_spelt_in_six_digits() -> None:
    assert all(value == float(f"{value:.6g}") for value in drawn(Range(low=0.00001, high=0.1, log=True)))


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"low": 1.0, "high": 1.0}, "below the second"),
        ({"low": 2.0, "high": 1.0}, "below the second"),
        ({"low": 0.0, "high": math.inf}, "neither infinite"),
        ({"low": 0.0, "high": 1.0, "log": True}, "above 0"),
        ({"low": 0.2, "high": 0.8, "integer": True}, "no whole number"),
    ],
)
def test_a_range_without_numbers_is_a_mistake(bounds: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Range(**bounds)


def test_a_grid_is_every_combination_the_last_key_varying_fastest() -> None:
    dimensions = [dimension("a", 1, 2), dimension("b", 3, 4)]
    assert list(grid(dimensions, {})) == [{"a": a, "b": b} for a in (1, 2) for b in (3, 4)]
    assert list(grid([], {})) == [{}]


def test_where_a_condition_fails_a_point_is_there_once() -> None:
    dimensions = [dimension("a", 1, 2), dimension("b", 3, 4, when={"a": [2]}), dimension("c", 5, 6, when={"b": [4]})]
    assert list(grid(dimensions, {"b": 0})) == [
        {"a": 1},
        {"a": 2, "b": 3},
        {"a": 2, "b": 4, "c": 5},
        {"a": 2, "b": 4, "c": 6},
    ]


def test_a_key_that_does_not_count_has_the_value_of_the_config() -> None:
    dimensions = [dimension("a", 1, 2), dimension("b", 3, when={"a": [2]}), dimension("c", 5, 6, when={"b": [0]})]
    assert list(grid(dimensions, {"b": 0})) == [{"a": 1, "c": 5}, {"a": 1, "c": 6}, {"a": 2, "b": 3}]


def test_a_block_gives_dimensions_and_each_comes_after_its_conditions() -> None:
    block = {
        "nesterov": {"grid": [True, False], "when": {"momentum": [0.9, 0.99]}},
        "lr": {"grid": [0.1], "range": "0.01..1"},
        "momentum": {"grid": [0.0, 0.9], "when": {"companion.lr": 1}},
        "companion.lr": {"range": "1..2"},
    }
    dimensions = read_block(block, parse_range=parse_range)
    assert [each.key.removeprefix("optimizer.") for each in dimensions] == [
        "lr",
        "companion.lr",
        "momentum",
        "nesterov",
    ]
    lr, companion_lr, momentum, nesterov = dimensions
    assert (lr.grid, lr.values) == ([0.1], Range(low=0.01, high=1.0))
    assert companion_lr.grid == []
    assert momentum.values == Choices(values=[0.0, 0.9])
    assert momentum.when == {"optimizer.companion.lr": [1]}
    assert nesterov.when == {"optimizer.momentum": [0.9, 0.99]}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ([1], r"optimizer.search=\[1\]: expected a mapping"),
        ({"lr": [0.1]}, r"optimizer.search.lr=\[0.1\]: expected a mapping"),
        ({"lr": {"gird": [0.1]}}, r"unknown key 'optimizer.search.lr.gird'. Did you mean 'optimizer.search.lr.grid'"),
        ({"lr": {"grid": 0.1}}, r"optimizer.search.lr.grid=0.1: expected a list"),
        ({"lr": {}}, r"optimizer.search.lr: it needs a grid"),
        ({"lr": {"grid": [1], "when": [1]}}, r"optimizer.search.lr.when=\[1\]: expected a mapping"),
        (
            {"a": {"grid": [1], "when": {"b": 1}}, "b": {"grid": [1], "when": {"a": 1}}},
            r"optimizer.a and optimizer.b have conditions on each other",
        ),
    ],
)
def test_a_block_that_is_none_is_explained(block: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_block(block, parse_range=parse_range)
