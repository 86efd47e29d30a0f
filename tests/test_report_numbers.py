"""Every number of the tables, once more, from the raw files of the trials and by other code than the report's."""

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from optbench.analysis import Analysis
from optbench.costs import Costs
from optbench.measurement import Status
from optbench.sheet import Sheet
from optbench.store import Store
from tests.costs import ABACUS, cost, memory, spread, time
from tests.reports import analysis_of, fill, optimizer

scipy_stats = pytest.importorskip("scipy.stats")

Raw = Mapping[str, Any]
RATES = (0.001, 0.01, 0.1)
PEAKS = {"adamw": 4096, "lion": 3072, "sgd": 2048}
STATES = {"adamw": 8000, "lion": 4000, "sgd": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, three optimizers, three rates, five seeds; some trials fail."""
    results = tmp_path_factory.mktemp("results")
    generator = np.random.default_rng(0)
    for task in ("blobs", "spirals"):
        store = Store(results, task)
        for place, (name, lr) in enumerate(itertools.product(PEAKS, RATES)):
            losses: list[float | Status] = list(generator.lognormal(0.1 * place, 0.2, size=5).tolist())
            if (name, lr) == ("sgd", 0.1):
                losses = [Status.DIVERGED] * 5
            if (name, lr) == ("lion", 0.1):
                losses[2] = Status.OUT_OF_MEMORY
            fill(
                store,
                {"task.name": task, **optimizer(name, lr)},
                losses,
                peak_bytes=PEAKS[name],
                state_bytes=STATES[name],
                test_accuracy=0.9,
            )
    return results


@pytest.fixture(scope="module")
def analysis(folder: Path) -> Analysis:
    return analysis_of(folder)


@pytest.fixture(scope="module")
def raw(folder: Path) -> list[Raw]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/trials/*.json"))]


def settings_of(raw: list[Raw], task: str) -> dict[tuple[str, float], list[Raw]]:
    """The trials of each optimizer and rate, by seed."""
    found: dict[tuple[str, float], list[Raw]] = {}
    for record in sorted(raw, key=lambda record: record["config"]["seed"]):
        if record["config"]["task"]["name"] == task:
            key = record["config"]["optimizer"]["name"], record["config"]["optimizer"]["lr"]
            found.setdefault(key, []).append(record)
    return found


def losses_of(records: list[Raw]) -> dict[int, float]:
    return {
        record["config"]["seed"]: record["summary"]["test_loss"]
        for record in records
        if record["status"] == "completed"
    }


def best_of(settings: Mapping[tuple[str, float], list[Raw]], name: str) -> tuple[str, float]:
    """The setting without failures that has the lowest mean loss."""
    whole = {
        key: np.mean(list(losses_of(records).values()))
        for key, records in settings.items()
        if key[0] == name and len(losses_of(records)) == len(records)
    }
    return min(whole, key=lambda key: whole[key])


def bootstrap(values: list[float]) -> tuple[float, float]:
    """The percentile interval over all resamples, by sorting every one of them."""
    means = sorted(math.fsum(draw) / len(values) for draw in itertools.product(values, repeat=len(values)))
    return means[math.ceil(0.025 * len(means)) - 1], means[math.ceil(0.975 * len(means)) - 1]


def sheet_of(analysis: Analysis, name: str) -> Sheet:
    return next(sheet for sheet in analysis.all_sheets() if sheet.name == name)


@pytest.fixture(params=["blobs", "spirals"])
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def numbers_in(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", text)]


def test_the_best_settings(analysis: Analysis, raw: list[Raw], task: str) -> None:
    settings = settings_of(raw, task)
    sheet = sheet_of(analysis, f"best_{task}")
    rows = {row["optimizer"]: row for row in sheet.numbers.to_dict("records")}
    words = {row["optimizer"]: row for row in sheet.words.to_dict("records")}
    bests = {name: best_of(settings, name) for name in PEAKS}
    first = min(bests, key=lambda name: np.mean(list(losses_of(settings[bests[name]]).values())))
    assert list(rows) == sorted(bests, key=lambda name: float(np.mean(list(losses_of(settings[bests[name]]).values()))))
    for name, row in rows.items():
        records = settings[bests[name]]
        losses = losses_of(records)
        low, high = bootstrap(list(losses.values()))
        assert row["setting"] == f"lr={bests[name][1]:g}"
        assert row["num_trials"] == row["num_succeeded"] == row["test_loss_num_seeds"] == 5
        assert (row["test_loss"], row["test_loss_low"], row["test_loss_high"]) == pytest.approx(
            (np.mean(list(losses.values())), low, high)
        )
        assert row["test_accuracy"] == pytest.approx(0.9)
        assert row["peak_bytes"] == PEAKS[name]
        assert row["state_bytes_per_parameter"] == STATES[name] / 1000
        assert row["step_seconds"] == np.median([record["timing"]["step_seconds"] for record in records])
        mine = [one for key, own in settings.items() if key[0] == name for one in own]
        assert row["num_settings"] == len(RATES)
        assert row["num_trials_of_all_settings"] == len(mine)
        assert row["num_failed_of_all_settings"] == sum(one["status"] != "completed" for one in mine)
        assert words[name]["failed of all"] == f"{row['num_failed_of_all_settings']}/15"
        assert numbers_in(words[name]["test loss"]) == pytest.approx([row["test_loss"], low, high], rel=1e-3)
        assert (row["mark"] == "best") == (name == first)
        assert (words[name][""] == "★") == (name == first)
        if name != first:
            reference = losses_of(settings[bests[first]])
            own = [losses[seed] for seed in sorted(losses)]
            test = scipy_stats.ttest_rel(own, [reference[seed] for seed in sorted(losses)])
            interval = test.confidence_interval(0.95)
            assert row["difference"] == pytest.approx(np.mean(own) - np.mean(list(reference.values())))
            assert (row["difference_low"], row["difference_high"]) == pytest.approx((interval.low, interval.high))
            assert row["difference_p_value"] == pytest.approx(test.pvalue)
            shown = numbers_in(words[name]["minus the best"].replace("+", ""))
            assert shown == pytest.approx([row["difference"], interval.low, interval.high], rel=6e-3)


def test_ties_are_by_holm_over_the_optimizers(analysis: Analysis, task: str) -> None:
    rows = sheet_of(analysis, f"best_{task}").numbers.to_dict("records")
    compared = sorted((row for row in rows if row["mark"] != "best"), key=lambda row: float(row["difference_p_value"]))
    is_apart = True
    for rank, row in enumerate(compared):
        is_apart = is_apart and row["difference_p_value"] * (len(compared) - rank) <= 0.05
        assert row["is_tied"] == (not is_apart)


def test_the_edges(analysis: Analysis, raw: list[Raw], task: str) -> None:
    settings = settings_of(raw, task)
    for row in sheet_of(analysis, f"best_{task}").numbers.to_dict("records"):
        lr = best_of(settings, row["optimizer"])[1]
        side = {min(RATES): "lowest", max(RATES): "highest"}.get(lr)
        expected = f"optimizer.lr={lr:g} is the {side} of 3 tried" if side else ""
        assert row["edges"] == expected


def test_all_settings(analysis: Analysis, raw: list[Raw], task: str) -> None:
    settings = settings_of(raw, task)
    rows = sheet_of(analysis, f"settings_{task}").numbers.to_dict("records")
    assert len(rows) == len(settings) == 9
    for row in rows:
        records = settings[row["optimizer"], float(row["setting"].removeprefix("lr="))]
        losses = losses_of(records)
        counts = Counter(record["status"] for record in records)
        assert row["num_trials"] == 5
        assert row["num_succeeded"] == len(losses)
        assert row["num_diverged"] == counts["diverged"]
        assert row["num_out_of_memory"] == counts["out_of_memory"]
        if losses:
            assert row["test_loss"] == pytest.approx(np.mean(list(losses.values())))
        else:
            assert math.isnan(row["test_loss"])
    complete = [row["num_succeeded"] == 5 for row in rows]
    assert complete == sorted(complete, reverse=True), "settings with failures come last"


def test_failures(analysis: Analysis, raw: list[Raw], folder: Path) -> None:
    failed = [record for record in raw if record["status"] != "completed"]
    rows = sheet_of(analysis, "failures").numbers.to_dict("records")
    assert len(rows) == len(failed) == 12
    by_file = {
        str(folder / record["config"]["task"]["name"] / "trials" / f"{record['id']}.json"): record for record in failed
    }
    for row in rows:
        record = by_file.pop(row["file"])
        assert (row["task"], row["optimizer"], row["seed"], row["status"]) == (
            record["config"]["task"]["name"],
            record["config"]["optimizer"]["name"],
            record["config"]["seed"],
            record["status"],
        )
        assert row["step"] == record["summary"]["num_steps"]
        assert row["reason"]
    assert not by_file


def test_hyperparameters(analysis: Analysis, raw: list[Raw]) -> None:
    rows = sheet_of(analysis, "hyperparameters").numbers.to_dict("records")
    assert len(rows) == 6
    for row in rows:
        settings = settings_of(raw, row["task"])
        key = best_of(settings, row["optimizer"])
        config = settings[key][0]["config"]
        assert row["lr"] == key[1] == config["optimizer"]["lr"]
        assert row["weight_decay"] == config["optimizer"]["weight_decay"]
        assert row["betas"] == "[0.9,0.999]"
        assert row["batch_size"] == config["task"]["batch_size"]
        assert row["steps"] == config["budget"]["num_steps"] or pd.isna(row["steps"])
        assert row["searched"] == "lr: 0.001, 0.01, 0.1"
        assert row["seeds"] == 5


def test_over_all_tasks(analysis: Analysis, raw: list[Raw]) -> None:
    rows = {row["optimizer"]: row for row in sheet_of(analysis, "over_tasks").numbers.to_dict("records")}
    by_task = {task: settings_of(raw, task) for task in ("blobs", "spirals")}
    scores: dict[str, dict[str, list[float]]] = {}
    for task, settings in by_task.items():
        losses = {name: list(losses_of(settings[best_of(settings, name)]).values()) for name in PEAKS}
        best = min(np.mean(own) for own in losses.values())
        for name, own in losses.items():
            scores.setdefault(name, {})[task] = [max((10.0 - loss) / (10.0 - best), 0.0) for loss in own]
    for name, row in rows.items():
        pooled = [score for own in scores[name].values() for score in own]
        assert row["score"] == pytest.approx(scipy_stats.trim_mean(pooled, 0.25))
        assert row["num_trials"] == 10
        assert row["num_failed"] == 0
        assert row["mean_rank"] == pytest.approx(np.mean([row["rank_on_blobs"], row["rank_on_spirals"]]))
        if name != "adamw":
            wins = [
                np.mean([own > other for own, other in itertools.product(scores[name][task], scores["adamw"][task])])
                for task in by_task
            ]
            assert row["probability_of_improvement"] == pytest.approx(np.mean(wins))


def cells_of(markdown: str) -> Iterator[list[str]]:
    for line in markdown.splitlines():
        if line.startswith("| ") and not line.startswith("| --"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_csv_markdown_and_latex_hold_the_same_table(analysis: Analysis, tmp_path: Path) -> None:
    from optbench.writing import csv, latex, markdown

    for sheet in analysis.all_sheets():
        path = tmp_path / f"{sheet.name}.csv"
        path.write_text(csv(sheet.numbers))
        again = pd.read_csv(path)
        assert list(again.columns) == list(sheet.numbers.columns)
        for name in again.select_dtypes("number"):
            assert again[name].to_numpy(float) == pytest.approx(sheet.numbers[name].to_numpy(float), nan_ok=True)
        header, *lines = cells_of(markdown(sheet))
        assert header == [str(name) for name in sheet.words]
        assert lines == [[re.sub(" +", " ", cell) for cell in line] for line in sheet.words.to_numpy().tolist()]
        body = latex(sheet).partition("\\midrule\n")[2].partition("\\bottomrule")[0]
        assert len(body.splitlines()) == len(sheet.words)
        assert all(line.count(" & ") == len(sheet.words.columns) - 1 for line in body.splitlines())


def test_costs(tmp_path: Path) -> None:
    store = Store(tmp_path, "sweep")
    for place, name in enumerate(PEAKS, start=1):
        fill(store, optimizer(name), [1.0])
        measured = memory(peak_bytes=1000 * place, state_bytes=100 * place)
        timed = time(step=spread(0.001 * place), ratio=spread(0.5 * place))
        Costs(store).write(cost(optimizer(name), device=ABACUS, memory=measured, time=timed))
    raw = {
        record["config"]["optimizer"]["name"]: record
        for record in (json.loads(path.read_text()) for path in tmp_path.glob("sweep/costs/*.json"))
    }
    sheets = {sheet.name.partition("_")[0]: sheet for sheet in analysis_of(tmp_path).costs()}
    assert sheets.keys() == {"memory", "time"}
    for kind, sheet in sheets.items():
        assert len(sheet.numbers) == len(PEAKS)
        for row, words in zip(sheet.numbers.to_dict("records"), sheet.words.to_dict("records"), strict=True):
            record = raw[row["optimizer"]]
            assert row["memory.peak_bytes"] == record["memory"]["peak_bytes"]
            assert row["memory.state_bytes"] == record["memory"]["state_bytes"]
            assert row["time.step.median"] == record["time"]["step"]["median"]
            assert row["time.ratio.p90"] == record["time"]["ratio"]["p90"]
            assert row["optimizer_share"] == pytest.approx(0.004 / record["time"]["step"]["median"])
            if kind == "memory":
                in_bytes, in_kib = row["memory.peak_bytes"], row["memory.peak_bytes"] / 1024
                assert words["peak (measured)"] in (f"{in_bytes} B", f"{in_kib:.4g} KiB")
            else:
                assert numbers_in(words["step (ms)"])[0] == pytest.approx(1e3 * record["time"]["step"]["median"])
    found = analysis_of(tmp_path)
    best = {row["optimizer"]: row for row in found.of_contest(found.contests[0])[0].numbers.to_dict("records")}
    for name, record in raw.items():
        assert best[name]["peak_bytes"] == record["memory"]["peak_bytes"]
        assert best[name]["step_seconds"] == record["time"]["step"]["median"]
        assert best[name]["step_ratio"] == record["time"]["ratio"]["median"]
