"""Claims about trainings, and pictures of them: told from stored curves alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from optbench import findings
from optbench.curve_claims import curve_claims, table
from optbench.errors import UsageError
from optbench.figures import figures
from optbench.measurement import Result, Status
from optbench.store import Store
from optbench.trial import Trial
from tests.handmade import config


def record(d: list[float], *, status: str = "completed", seed: int = 0, **keys: Any) -> dict[str, Any]:
    """What the store has of a trial with this curve of d, whose config has these keys of its task."""
    return {
        "config": {
            "task": {"name": "t", "metrics": {"test_loss": "min"}, **keys},
            "optimizer": {"name": keys.get("optimizer", "prodigy"), "lr": keys.get("lr", 1.0)},
            "seed": seed,
        },
        "status": status,
        "curve": {
            "step": list(range(max(len(d), len(keys.get("losses", []))))),
            "d": d,
            "test_loss": keys.get("losses", d),
        },
        "summary": {"state_bytes": 16, "parameter_bytes": 4},
    }


def claim(expected: str, **more: Any) -> dict[str, Any]:
    return {"id": "C00", "text": "it is so", "figure": "d", "expected": expected, "source": "a paper", **more}


def verdict(expected: str, records: list[dict[str, Any]], **more: Any) -> tuple[str, str, str]:
    (parsed,) = curve_claims([claim(expected, **more)])
    return parsed.verdict(records)


RANKS = [record([0.001, 8.0 / rank**0.5], rank=rank) for rank in (16, 1, 4)]


def test_a_figure_falls_or_rises_along_a_key_in_the_order_of_its_values() -> None:
    assert verdict("falls", RANKS, along="task.rank")[2] == "holds"
    assert verdict("rises", RANKS, along="task.rank")[2] == "does not hold"
    assert verdict("falls", RANKS[:1], along="task.rank")[2] == "not measured"


def test_a_power_is_fitted_to_the_means_over_seeds() -> None:
    doubled = [*RANKS, record([0.001, 4.0], rank=1, seed=1), record([0.001, 12.0], rank=1, seed=2)]
    measured, trials, said = verdict("power", doubled, along="task.rank", published=-0.46, tolerance=0.15)
    assert (measured.partition(":")[0], trials, said) == ("-0.500", "5", "holds")
    assert verdict("power", RANKS, along="task.rank", published=-0.9, tolerance=0.15)[2] == "does not hold"


@pytest.mark.parametrize(("tolerance", "said"), [(0.06, "holds"), (0.04, "does not hold")])
def test_figures_are_the_same_within_a_tolerance(tolerance: float, said: str) -> None:
    records = [record([1.0, value], scale=value) for value in (0.95, 1.0, 1.05)]
    measured, _, found = verdict("same", records, along="task.scale", tolerance=tolerance)
    assert "5.0% apart at most" in measured
    assert found == said


def test_one_curve_that_falls_refutes_that_none_does() -> None:
    rising, falling = record([1.0, 1.0, 2.0]), record([1.0, 3.0, 2.9])
    assert verdict("never_falls", [rising])[2] == "holds"
    assert verdict("never_falls", [rising, falling]) == ("falls in 1 of 2 curves", "2", "does not hold")


def test_state_is_over_the_bytes_of_what_is_trained() -> None:
    equals = {"figure": "state_over_parameters", "published": 4.0, "tolerance": 0.01}
    assert verdict("equals", RANKS, **equals) == ("4", "3", "holds")
    assert verdict("equals", RANKS, **{**equals, "published": 2.0})[2] == "does not hold"


def test_a_rise_is_counted_to_nine_tenths_of_the_last_value() -> None:
    records = [record([0.0, 5.0, 9.0, 9.1, 10.0], rank=1), record([0.0, 9.5, 10.0], rank=4)]
    measured, _, said = verdict("falls", records, figure="steps_to_90_percent", along="task.rank")
    assert (measured, said) == ("2 (rank=1), 1 (rank=4)", "holds")


def test_the_best_rate_is_looked_for_among_other_trials() -> None:
    others = [record([], optimizer="adam", lr=lr, losses=[9.0, loss]) for lr, loss in ((0.1, 3), (1.0, 2), (10.0, 4))]
    near = {"where": {"optimizer.name": "prodigy"}, "against": {"optimizer.name": "adam"}, "tolerance": 3.0}
    assert verdict("near_best_lr", [*others, record([0.0, 2.5])], **near)[::2] == (
        "d 2.5, best lr 1 by test_loss: 2.50 times",
        "holds",
    )
    assert verdict("near_best_lr", [*others, record([0.0, 4.0])], **near)[2] == "does not hold"
    assert "at the edge" in verdict("near_best_lr", [*others[1:], record([0.0, 4.0])], **near)[0]


def test_trials_that_failed_are_counted_and_not_measured() -> None:
    records = [*RANKS, record([0.001, 99.0], rank=64, status="diverged")]
    assert verdict("falls", records, along="task.rank")[1:] == ("3, 1 failed", "holds")
    assert verdict("falls", records[3:], along="task.rank") == ("-", "0, 1 failed", "not measured")


def test_a_claim_is_about_trials_with_these_values_alone() -> None:
    mixed = [*RANKS, record([0.0, 99.0], rank=64)]
    assert verdict("falls", mixed, along="task.rank")[2] == "does not hold"
    assert verdict("falls", mixed, along="task.rank", where={"task.rank": [1, 4, 16]})[1:] == ("3", "holds")
    assert verdict("falls", mixed, along="task.rank", where={"task.name": "other"})[2] == "not measured"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"expected": "fals"}, "falls"),
        ({"expected": "power", "along": "task.rank"}, "published is missing: expected=power needs it"),
        ({"expected": "falls"}, "along is missing"),
        ({"expected": "falls", "allong": "task.rank"}, "along"),
        ({"expected": "falls", "along": "task.rank", "where": 3}, "expected a mapping"),
    ],
)
def test_a_claim_that_is_none_says_what_is_wrong(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        curve_claims([claim(**wrong)])


def test_claims_about_memory_are_left_to_costs() -> None:
    assert curve_claims([{"id": "C04", "optimizer": "momentum"}]) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"name": "../up"}, "name of a file"), ({"z": "d"}, "y"), ({"log_y": "yes"}, "expected bool")],
)
def test_a_figure_that_is_none_says_what_is_wrong(wrong: dict[str, Any], message: str) -> None:
    figure = {"name": "d", "title": "d", "x": "step", "y": "d", "by": "task.rank"}
    with pytest.raises(UsageError, match=message):
        figures([{**figure, **wrong}])


SHOWN = {
    "claims": [claim("falls", along="task.rank"), {"id": "C04", "optimizer": "momentum"}],
    "figures": [{"name": "d_by_rank", "title": "d", "x": "step", "y": "d", "by": "task.rank", "log_y": True}],
}


def stored(folder: Path) -> tuple[Store, list[str]]:
    store, ids = Store(folder, "s"), []
    for rank in (1, 4):
        for seed in (0, 1):
            trial = Trial.from_config(config({"task.rank": rank, "seed": seed}))
            curve = {"step": [0, 1], "seconds": [0.0, 1.0], "lr": [1.0, 1.0], "d": [0.1, 8.0 / rank + seed]}
            found = Result(
                status=Status.COMPLETED,
                summary={"num_steps": 1},
                curve={**curve, "gradient_evaluations": [0, 1]},
                timing={"train_seconds": 1.0, "step_seconds": 1.0},
                environment={"device": "cpu", "device_type": "cpu", "num_threads": 1, "commit": None, "packages": {}},
            )
            store.publish(trial, found)
            ids.append(trial.id)
    return store, ids


def test_an_experiment_leaves_its_claims_and_pictures_beside_the_results(tmp_path: Path) -> None:
    store, ids = stored(tmp_path)
    page = Console(record=True, width=160)
    written = findings.show(store, SHOWN, ids=ids, page=page)
    pictures = [f"d_by_rank.{kind}" for kind in ("svg", "png", "csv")]
    assert [path.name for path in written] == ["claims.md", "claims.csv", *pictures]
    assert "8.5 (rank=1), 2.5 (rank=4)" in page.export_text()
    assert "| holds " in (store.folder / "claims.md").read_text()
    lines = (store.folder / "figures" / "d_by_rank.csv").read_text().splitlines()
    assert lines[0] == "task.rank,seed,step,d"
    assert "1,1,1.0,9.0" in lines
    assert len(lines) == 1 + 2 * 4
    picture = (store.folder / "figures" / "d_by_rank.svg").read_text()
    assert "rank=4" in picture
    assert "http" not in picture.partition("<defs>")[2], "nothing is fetched"


def test_a_picture_is_the_same_in_every_byte(tmp_path: Path) -> None:
    store, ids = stored(tmp_path)
    page = Console(quiet=True)
    first = [path.read_bytes() for path in findings.show(store, SHOWN, ids=ids, page=page)]
    assert [path.read_bytes() for path in findings.show(store, SHOWN, ids=ids, page=page)] == first


def test_nothing_is_drawn_of_a_curve_that_is_not_there(tmp_path: Path) -> None:
    store, ids = stored(tmp_path)
    absent = {"figures": [{**SHOWN["figures"][0], "y": "effective_lr"}]}
    assert findings.show(store, absent, ids=ids, page=Console(quiet=True)) == []


def test_a_claim_of_hostile_names_is_text(tmp_path: Path) -> None:
    store, ids = stored(tmp_path)
    hostile = {**claim("falls", along="task.rank"), "id": "=1+1", "text": "<b>|", "source": "<script>"}
    findings.show(store, {"claims": [hostile]}, ids=ids, page=Console(quiet=True))
    assert "'=1+1" in (store.folder / "claims.csv").read_text()
    text = (store.folder / "claims.md").read_text()
    assert "&lt;b>\\|" in text
    assert "&lt;script>" in text
    assert json.dumps(table(curve_claims([hostile]), []).to_dict("records"))
