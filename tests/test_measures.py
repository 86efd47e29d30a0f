"""From trials to a number for each seed: columns of curves, the best over a grid, exponents, ratios, failures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from optbench.papers.measures import Measured, measured
from optbench.papers.outcome import check_outcome
from optbench.papers.paper import Measure
from optbench.papers.reading import read
from optbench.papers.verdicts import Judgement, Verdict

Records = list[dict[str, Any]]


def trial(seed: int, values: Sequence[float | None], *, status: str = "completed", **config: Any) -> dict[str, Any]:
    """A stored trial whose loss is measured every ten steps; keys of its optimizer by name."""
    return {
        "id": f"{seed}-{config}",
        "status": status,
        "config": {"seed": seed, "optimizer": {"name": "adam", **config}},
        "curve": {"step": [10 * place for place in range(len(values))], "loss": list(values)},
        "summary": {"state_bytes": 800, "parameter_bytes": 400, "num_parameters": 100},
    }


def check_of(fields: str) -> Any:
    """The check of a one-celled paper whose cell has these fields, in YAML's flow style."""
    paper = f"""
name: one
title: one
claim: one
source: {{authors: A, title: T, year: 2000, url: U, where: W}}
cost: {{minutes: 1.0, machine: two cores}}
tables:
  - {{name: t, title: t, because: b, rows: {{r: {{}}}}, published: {{r: {{{fields}}}}}}}
"""
    return read(paper, where="one").tables[0].cells[0].check


def measure_of(fields: str) -> Measure:
    measure: Measure = check_of(f"{fields}, at_most: 1.0").measure
    return measure


def found(records: Records, fields: str) -> Measured:
    return measured(measure_of(fields), records)


def judged(records: Records, fields: str) -> Judgement:
    return check_outcome(check_of(fields), records, compute=lambda _: math.nan)


def grid(figure: Any, *, seeds: int = 3) -> Records:
    """A trial for each rate and decay, whose last loss is the figure of seed, rate and decay."""
    return [
        trial(seed, [10.0, figure(seed, lr, decay)], lr=lr, decay=decay)
        for seed in range(seeds)
        for lr in (0.001, 0.01, 0.1)
        for decay in (0.01, 0.1, 1.0, 10.0)
    ]


@pytest.mark.parametrize(
    ("at", "expected"), [("first", 4.0), ("last", 3.0), ("min", 1.0), ("max", 4.0), ("mean", 2.5), ("20", 2.0)]
)
def test_a_figure_is_one_value_of_a_curve(at: str, expected: float) -> None:
    assert found([trial(0, [4.0, 1.0, 2.0, 3.0])], f"figure: loss, at: {at}").values == {0: expected}


def test_steps_narrow_a_curve_down() -> None:
    records = [trial(0, [9.0, 1.0, 2.0, 30.0])]
    assert found(records, "figure: loss, at: max, steps: [10, 20]").values == {0: 2.0}


def test_a_step_that_was_not_measured_has_no_value() -> None:
    assert found([trial(0, [4.0, 1.0])], "figure: loss, at: 15").values == {}


def test_sizes_come_from_the_summary() -> None:
    for name, expected in (("state_over_parameters", 2.0), ("parameters_and_state", 3.0), ("num_parameters", 100.0)):
        assert found([trial(0, [1.0])], f"figure: {name}").values == {0: expected}
    assert found([trial(0, [1.0])], "figure: parameters_state_and_gradients").values == {0: 4.0}


def test_a_target_that_was_not_reached_is_infinitely_far() -> None:
    reached, not_reached = trial(0, [1.0], status="reached_target"), trial(1, [1.0])
    reached["summary"]["steps_to_target"] = 7
    assert found([reached, not_reached], "figure: steps_to_target").values == {0: 7.0, 1: math.inf}


def test_the_best_and_where_it_is_are_found_for_each_seed() -> None:
    records = grid(lambda seed, lr, decay: abs(math.log10(lr) + 2) + seed + decay)
    own = [record for record in records if record["config"]["optimizer"]["decay"] == 1.0]
    assert found(own, "figure: loss, reduce: {kind: best, along: optimizer.lr}").values == {0: 1.0, 1: 2.0, 2: 3.0}
    at = found(own, "figure: loss, reduce: {kind: best_at, along: optimizer.lr}").values
    assert at == {0: 0.01, 1: 0.01, 2: 0.01}
    worst = found(own, "figure: loss, reduce: {kind: best_at, along: optimizer.lr, best: max}").values
    assert set(worst.values()) <= {0.001, 0.1}


def test_an_exponent_is_that_of_a_power_law() -> None:
    records = [trial(seed, [(seed + 1) * lr**-0.46], lr=lr) for seed in range(2) for lr in (1.0, 4.0, 16.0, 64.0)]
    values = found(records, "figure: loss, reduce: {kind: power, along: optimizer.lr}").values
    assert list(values.values()) == pytest.approx([-0.46, -0.46])


def test_the_exponent_of_a_valley_is_that_of_its_bottom() -> None:
    valley = grid(lambda seed, lr, decay: 1.0 + 0.001 * seed + (math.log10(lr * decay) + 2) ** 2)
    fields = "figure: loss, reduce: {kind: ridge, along: optimizer.lr, across: optimizer.decay}"
    assert list(found(valley, fields).values.values()) == pytest.approx([-1.0] * 3)
    upright = grid(lambda seed, _, decay: 1.0 + seed + (math.log10(decay) + 1) ** 2)
    assert list(found(upright, fields).values.values()) == pytest.approx([0.0] * 3)


def test_only_values_along_that_come_near_the_best_make_a_valley() -> None:
    def far_off(_: int, lr: float, decay: float) -> float:
        return 5.0 + decay if lr == 0.1 else 1.0 + (math.log10(lr * decay) + 2) ** 2

    fields = "figure: loss, reduce: {kind: ridge, along: optimizer.lr, across: optimizer.decay, within: 0.1}"
    assert list(found(grid(far_off), fields).values.values()) == pytest.approx([-1.0] * 3)


def test_the_figure_of_means_has_the_spread_of_the_jackknife() -> None:
    records = [trial(seed, [loss]) for seed, loss in enumerate([1.0, 2.0, 6.0])]
    for record in records:
        record["config"]["optimizer"]["lr"] = 0.1
    one = found(records, "figure: loss, reduce: {kind: best, along: optimizer.lr, of: mean}")
    assert one.pooled == 3.0
    assert list(one.values.values()) == pytest.approx([1.0, 2.0, 6.0])  # of a mean, the values themselves


def test_a_best_of_means_is_taken_over_settings_that_did_well_with_every_seed() -> None:
    records = grid(lambda _, lr, decay: lr + decay)
    records[0]["status"] = "diverged"  # of the best setting, one seed
    one = found(records, "figure: loss, reduce: {kind: best, along: optimizer.lr, across: optimizer.decay, of: mean}")
    assert one.pooled == pytest.approx(0.01 + 0.01)


def test_the_share_that_falls_is_one_where_all_neighbours_do() -> None:
    records = [trial(0, [1.0 / lr], lr=lr) for lr in (3.0, 1.0, 2.0)]  # in the order of the rates, not of the records
    assert found(records, "figure: loss, reduce: {kind: falls, along: optimizer.lr}").values == {0: 1.0}
    assert found(records, "figure: loss, reduce: {kind: rises, along: optimizer.lr}").values == {0: 0.0}


def test_comparisons_are_made_seed_by_seed() -> None:
    records = [
        trial(seed, [value], lr=lr)
        for lr, factor in ((1.0, 1.0), (2.0, 3.0))
        for seed, value in ((0, 5.0 * factor), (1, 7.0 * factor))
    ]
    records.append(trial(2, [100.0], lr=2.0))  # without a partner
    base = "figure: loss, where: {optimizer.lr: 2.0}, against: {where: {optimizer.lr: 1.0}}"
    assert found(records, f"{base}, compare: ratio").values == {0: 3.0, 1: 3.0}
    assert found(records, f"{base}, compare: difference").values == {0: 10.0, 1: 14.0}


def test_a_cell_of_which_a_trial_diverged_is_not_reproduced_however_good_the_others_are() -> None:
    records = [trial(0, [1.0]), trial(1, [1.0]), trial(2, [None], status="diverged")]
    one = judged(records, "figure: loss, value: 1.0, tolerance: 0.5")
    assert one.verdict is Verdict.NOT_REPRODUCED
    assert one.note == "1 of 3 diverged"


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        (["diverged"] * 3, Verdict.REPRODUCED),
        (["diverged", "diverged", "completed"], Verdict.NOT_REPRODUCED),
        (["completed"] * 3, Verdict.NOT_REPRODUCED),
        (["crashed"] * 3, Verdict.NOT_RUN),
        (["diverged", "diverged", "crashed"], Verdict.NOT_RUN),
    ],
)
def test_what_is_published_as_diverging_has_to_diverge_with_every_seed(statuses: list[str], verdict: Verdict) -> None:
    records = [trial(seed, [1.0], status=status) for seed, status in enumerate(statuses)]
    assert judged(records, "figure: loss, value: .nan, diverges: true").verdict is verdict


def test_crashes_are_named_and_no_finding() -> None:
    one = judged([trial(0, [1.0], status="crashed")], "figure: loss, value: 1.0, tolerance: 0.5")
    assert one.verdict is Verdict.NOT_RUN
    assert one.note == "1 of 1 crashed"


def test_a_few_seeds_that_are_left_of_many_crashes_say_nothing() -> None:
    records = [trial(seed, [1.0], status="completed" if seed < 2 else "out_of_memory") for seed in range(10)]
    one = judged(records, "figure: loss, value: 1.0, tolerance: 0.5")
    assert (one.verdict, one.note) == (Verdict.NOT_RUN, "8 of 10 out of memory")


def test_a_grid_on_which_everything_diverged_is_not_reproduced() -> None:
    records = grid(lambda *_: 1.0)
    for record in records:
        record["status"] = "diverged"
    for kind in ("best, along: optimizer.lr, across: optimizer.decay, of: mean", "best_at, along: optimizer.lr"):
        one = judged(records, f"figure: loss, reduce: {{kind: {kind}}}, value: 1.0, tolerance: 0.5")
        assert one.verdict is Verdict.NOT_REPRODUCED, kind
        assert one.note == "36 of 36 diverged"


def test_a_rate_that_diverged_does_not_fall() -> None:
    records = [trial(0, [1.0 / lr], lr=lr) for lr in (1.0, 2.0, 3.0)]
    records[1]["status"] = "diverged"
    one = judged(records, "figure: loss, reduce: {kind: falls, along: optimizer.lr}, at_least: 1.0")
    assert one.verdict is Verdict.NOT_REPRODUCED


def test_a_valley_of_two_decays_has_no_exponent() -> None:
    records = [one for one in grid(lambda _, lr, decay: lr * decay) if one["config"]["optimizer"]["decay"] > 0.5]
    fields = (
        "figure: loss, reduce: {kind: ridge, along: optimizer.lr, across: optimizer.decay}, value: 0.0, tolerance: 1.0"
    )
    assert judged(records, fields).verdict is Verdict.NOT_RUN


def test_trials_that_could_not_be_run_make_their_cells_not_run() -> None:
    records, absent = [trial(seed, [1.0]) for seed in range(3)], [{"config": trial(3, [1.0])["config"]}]
    check = check_of("figure: loss, value: 1.0, tolerance: 0.5")
    one = check_outcome(check, records, compute=lambda _: 0.0, missing=absent)
    assert (one.verdict, one.note) == (Verdict.NOT_RUN, "1 of its trials were not run")


def test_a_trial_at_a_shorter_budget_takes_no_seed_away() -> None:
    records = [trial(seed, [4.0, 1.0 + 0.01 * seed]) for seed in range(3)] + [trial(seed, [4.0]) for seed in range(3)]
    assert found(records, "figure: loss, at: 10").values == {0: 1.0, 1: 1.01, 2: 1.02}


def test_a_seed_without_the_figure_is_not_passed_over() -> None:
    records = [trial(0, [4.0, 1.0]), trial(1, [4.0, 1.0]), trial(2, [4.0])]
    assert judged(records, "figure: loss, at: 10, value: 1.0, tolerance: 0.5").verdict is Verdict.NOT_RUN


def test_the_spread_of_a_comparison_of_means_is_that_of_the_compared_figure() -> None:
    """Both sides go up and down together, so that their ratio is known exactly."""
    records = [
        trial(seed, [factor * (1.0 + seed)], lr=lr, side=side)
        for seed in range(4)
        for side, factor in (("a", 3.0), ("b", 1.0))
        for lr in (0.1, 0.2)
    ]
    one = found(
        records,
        "figure: loss, where: {optimizer.side: a}, reduce: {kind: best, along: optimizer.lr, of: mean}, "
        "compare: ratio, against: {where: {optimizer.side: b}}",
    )
    assert one.pooled == pytest.approx(3.0)
    assert list(one.values.values()) == pytest.approx([3.0] * 4)


def test_a_cell_without_trials_was_not_run() -> None:
    assert judged([], "figure: loss, value: 1.0, tolerance: 0.5").verdict is Verdict.NOT_RUN


def test_a_figure_that_no_trial_has_was_not_run_and_says_so() -> None:
    one = judged([trial(0, [1.0])], "figure: accuracy, value: 1.0, tolerance: 0.5")
    assert (one.verdict, one.note) == (Verdict.NOT_RUN, "no such figure")


def test_own_data_have_no_verdict() -> None:
    records: Sequence[Mapping[str, Any]] = [trial(0, [1.0]), trial(1, [2.0])]
    one = check_outcome(check_of("figure: loss"), records, compute=lambda _: 0.0)
    assert (one.verdict, one.mean) == (None, 1.5)
