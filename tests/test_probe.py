"""Probes: real processes that measure, predict, die, hang and are interrupted."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from optbench.asking import StoppedError
from optbench.cli import main
from optbench.cost import Cost, Phase
from optbench.costs import Costs
from optbench.errors import UsageError
from optbench.probing import Probes, reference
from optbench.store import Store
from tests.handmade import config

MakeTrial = Callable[..., Any]
SECONDS = 0.1


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    return int(str(raised.value.code))


def faulty(name: str, **arguments: Any) -> dict[str, Any]:
    task = {"name": name, "_target_": f"tests.faulty.{name}", "num_steps": 10, "evaluate_every_num_steps": 10}
    optimizer = {"name": "sgd", "_target_": "torch.optim.SGD", "lr": 0.1}
    return config({"task": {**task, **arguments}, "data": None, "optimizer": optimizer, "hardware.device": "cpu"})


class _Soon:
    """A signal comes a moment later."""

    is_urgent = False

    def __init__(self) -> None:
        self._at = time.monotonic() + 0.3

    @property
    def is_requested(self) -> bool:
        return time.monotonic() >= self._at


def my_probes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if "optbench.probe" in child.cmdline()]


@pytest.fixture(scope="module")
def lion(make_trial: MakeTrial) -> Cost:
    return Probes().cost(make_trial("optimizer=lion", "hardware=cpu").config, seconds=SECONDS)


def test_a_probe_measures_memory_and_time_and_predicts_beside_it(lion: Cost) -> None:
    assert lion.failures == {}
    assert lion.memory is not None
    assert lion.predicted is not None
    same = dataclasses.replace(lion.predicted, kind="measured", kernel_peak_bytes=lion.memory.kernel_peak_bytes)
    assert same == lion.memory
    assert lion.environment["device_type"] == "cpu"
    # None where the steps were over before the cores could be watched for long enough.
    assert lion.contended is None or all("cores" in finding for finding in lion.contended)


def test_the_parts_add_up_to_the_peak_and_the_phases_to_the_step(lion: Cost) -> None:
    assert lion.memory is not None
    assert sum(lion.memory.peak_parts.values()) == lion.memory.peak_bytes
    assert lion.memory.times_parameters == pytest.approx(2.0)
    assert lion.time is not None
    assert set(lion.time.phases) == set(Phase)
    assert sum(phase.median for phase in lion.time.phases.values()) == pytest.approx(lion.time.step.median, rel=0.3)
    assert lion.time.step.n >= 5
    assert 0.0 < lion.time.optimizer_share < 1.0


def test_the_reference_is_adamw_on_the_same_task_and_hardware(make_trial: MakeTrial) -> None:
    asked = make_trial("optimizer=lion", "hardware.num_micro_batches=2", "param_groups=no_decay").config
    other = reference(asked)
    assert other["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert (other["task"], other["hardware"]) == (asked["task"], asked["hardware"])


def test_a_probe_that_is_killed_says_so_of_each_figure() -> None:
    found = Probes(allowed=["tests"]).cost(faulty("Killed"), seconds=SECONDS)
    assert (found.memory, found.time, found.predicted) == (None, None, None)
    assert set(found.failures) == {"memory", "time", "predicted"}
    assert "signal 9 (out of memory?)" in found.failures["memory"]


def test_a_probe_that_takes_too_long_is_ended() -> None:
    found = Probes(allowed=["tests"], max_seconds=0.5).cost(faulty("Slow", pause=0.1), seconds=SECONDS)
    assert "ended after 0.5 s" in found.failures["memory"]
    assert my_probes() == []


def test_a_signal_ends_the_probe_under_way() -> None:
    with pytest.raises(StoppedError):
        Probes(allowed=["tests"], interruption=_Soon()).cost(faulty("Slow", pause=60.0), seconds=SECONDS)
    assert my_probes() == []


def test_a_class_that_nobody_allowed_is_called_in_no_probe() -> None:
    with pytest.raises(UsageError, match="allow=tests"):
        Probes().cost(faulty("Line"), seconds=SECONDS)


def test_a_sweep_measures_each_cost_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "task=digits_mlp",
        "hardware=cpu",
        "budget.num_steps=10",
        "seed=0",
        "cost.seconds=0.1",
        f"results={tmp_path}",
    ]
    rates = "optimizer.lr=0.001,0.002"
    assert call("sweep", *words, "optimizer=momentum", rates) == 0
    output = capsys.readouterr().out
    assert "cost 1/1: a step of momentum on digits_mlp" in output, "rates cost nothing"
    assert "adamw" in output.partition("step /")[2]
    costs = Costs(Store(tmp_path, "default"))
    assert [cost.config["optimizer"]["name"] for cost in costs.all()] == ["momentum"]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "default" / "costs").iterdir()}
    assert call("sweep", *words, "optimizer=momentum", rates) == 0
    assert "cost " not in capsys.readouterr().out.partition("default (")[0]
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_costs_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["task=quadratic", "hardware=cpu", "budget.num_steps=10", "seed=0", f"results={tmp_path}"]
    assert call("sweep", *words, "optimizer=sgd", "cost.seconds=null") == 0
    assert not (tmp_path / "default" / "costs").exists()
    assert "as the trials ran" in capsys.readouterr().out


def test_the_verb_measures_and_shows_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["task=digits_mlp", "hardware=cpu", "cost.seconds=0.1", f"results={tmp_path}"]
    assert call("cost", *words, "optimizer=adamw") == 0
    output = capsys.readouterr().out
    for text in (
        "memory: digits_mlp on",
        "time: digits_mlp on",
        "3.00x",
        "4.00x",
        "Peaks on the CPU are of tensor bytes",
    ):
        assert text in output
    folder = tmp_path / "default"
    assert "| optimizer" in (folder / "costs.md").read_text()
    assert "memory.peak_bytes" in (folder / "costs.csv").read_text()
    capsys.readouterr()
    assert call("plan", *words, "optimizer=adamw", "seed=0") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  digits_mlp"))
    (found,) = Costs(Store(tmp_path, "default")).all()
    assert found.memory is not None
    peak = f"{found.memory.peak_bytes / 1024:.4g}"
    assert row.split().count(peak) == 2, "as measured and as predicted"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cost", "optimizer=adamww"], "Did you mean 'adamw'"),
        (["cost", "cost.second=1"], "cost.seconds"),
        (["cost", "cost.seconds=-1"], "cost.seconds=-1: it must be above 0"),
        (["fit", "hardware=cuda"], "Name a card, as in hardware=rtx4090"),
        (["fit", "hardware=rtx4091"], "Did you mean 'rtx4090'"),
    ],
)
def test_a_mistake_is_named_before_anything_is_measured(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words, f"results={tmp_path / 'results'}") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
