"""Curves in columns."""

import math

import pytest

from optbench.measurement import MAX_CURVE_POINTS, Measurement, Status, columns


def _rows(num_rows: int) -> list[Measurement]:
    return [
        Measurement(
            step=3 * index,
            seconds=index / 7,
            lr=0.1,
            gradient_evaluations=4 * index,
            metrics={"train_loss": 1.0 / (index + 1)},
        )
        for index in range(num_rows)
    ]


def test_a_run_counts_as_a_result_when_it_completed_or_reached_its_target() -> None:
    assert {status for status in Status if status.succeeded} == {Status.COMPLETED, Status.REACHED_TARGET}


@pytest.mark.parametrize("num_rows", [1, 2, MAX_CURVE_POINTS - 1, MAX_CURVE_POINTS])
def test_a_short_curve_is_kept_as_it_is(num_rows: int) -> None:
    rows = _rows(num_rows)
    assert columns(rows) == {
        "step": [row.step for row in rows],
        "seconds": [row.seconds for row in rows],
        "lr": [row.lr for row in rows],
        "gradient_evaluations": [row.gradient_evaluations for row in rows],
        "train_loss": [row.metrics["train_loss"] for row in rows],
    }


@pytest.mark.parametrize("num_rows", [1001, 1002, 1999, 2000, 12345])
def test_a_long_curve_is_thinned_evenly_to_a_thousand_rows_with_its_first_and_last(num_rows: int) -> None:
    rows = _rows(num_rows)
    curve = columns(rows)
    assert {len(column) for column in curve.values()} == {MAX_CURVE_POINTS}
    assert (curve["step"][0], curve["step"][-1]) == (0, rows[-1].step)
    gaps = {int(b - a) // 3 for a, b in zip(curve["step"], curve["step"][1:], strict=False)}
    even = (num_rows - 1) / (MAX_CURVE_POINTS - 1)
    assert gaps <= {math.floor(even), math.ceil(even)}, "no row twice, and none left out more than another"
    by_step = {row.step: row.metrics["train_loss"] for row in rows}
    assert curve["train_loss"] == [by_step[int(step)] for step in curve["step"]], "columns stay in step"


def test_a_metric_that_a_row_lacks_is_nan_there_and_the_columns_keep_their_length() -> None:
    curve = columns(
        [
            Measurement(step=0, seconds=0.0, lr=0.1, gradient_evaluations=0, metrics={"test_loss": 2.0}),
            Measurement(
                step=5, seconds=1.0, lr=0.1, gradient_evaluations=0, metrics={"train_loss": 1.5, "test_loss": 1.0}
            ),
            Measurement(
                step=7, seconds=1.2, lr=0.1, gradient_evaluations=0, metrics={"train_loss": 1e9}, status=Status.DIVERGED
            ),
        ]
    )
    assert curve["test_loss"][:2] == [2.0, 1.0]
    assert math.isnan(curve["test_loss"][2])
    assert math.isnan(curve["train_loss"][0])
    assert curve["train_loss"][1:] == [1.5, 1e9]


def test_a_run_that_measured_nothing_has_an_empty_curve() -> None:
    assert columns([]) == {"step": [], "seconds": [], "lr": [], "gradient_evaluations": []}
