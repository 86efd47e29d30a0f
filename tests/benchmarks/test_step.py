"""How long the step of each optimizer takes on fixed shapes: `optbench regress suite=bench` compares the figures.

The instrument of regression runs is loaded from its file beside these tests, and nothing else of `optbench.regress` is
used: where the optbench that is timed is another commit's, it is timed by the same code, with its own optimizers.
"""

import gc
import importlib.util
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from pytest_benchmark.fixture import BenchmarkFixture

import optbench
from optbench.composing import composing
from optbench.device import configured, resolve_device
from optbench.environment import environment
from optbench.trial import Trial

CHECKOUT = Path(__file__).parents[2]
# By these the gate says which steps of which suite are timed, and where more configs are.
SUITE = os.environ.get("OPTBENCH_BENCH_SUITE") or "bench"
ONLY = os.environ.get("OPTBENCH_BENCH_ONLY")  # a list in JSON; without one, all
CONFIGS = os.environ.get("OPTBENCH_BENCH_CONFIGS")
MIN_ROUNDS, MAX_ROUNDS = 5, 400
# For so many rounds a slow step is timed for longer, up to so many times: the quickest of few is chance.
ENOUGH_ROUNDS, MAX_STRETCH = 40, 3.0
NUM_ESTIMATED = 3


def load_instrument() -> ModuleType:
    spec = importlib.util.spec_from_file_location("instrument", CHECKOUT / "optbench" / "regress" / "instrument.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_suite() -> Mapping[str, Any]:
    shelves = [*([Path(CONFIGS)] if CONFIGS else []), CHECKOUT / "conf"]
    files = [shelf / "nightly" / f"{SUITE}.yaml" for shelf in shelves]
    content: Mapping[str, Any] = yaml.safe_load(next(file for file in files if file.is_file()).read_text())
    return content


def trials() -> dict[str, Trial]:
    """The steps that are asked for, by their subjects."""
    with composing(Path(CONFIGS) if CONFIGS else None) as composer:
        configs = [
            config
            for overrides in suite["steps"].values()
            for config in composer.configs([*overrides, "sweep=once"], one_trial=False)
        ]
    found = {instrument.subject(trial): trial for trial in map(Trial.from_config, configs)}
    only = json.loads(ONLY) if ONLY else list(found)
    return {subject: trial for subject, trial in found.items() if subject in only}


instrument = load_instrument()
suite = read_suite()


class Pauses:
    """How long pytest-benchmark's clock has stood still."""

    seconds = 0.0


def clock() -> float:
    return time.perf_counter() - Pauses.seconds


@pytest.mark.benchmark(timer=clock, disable_gc=True)
@pytest.mark.parametrize(("subject", "trial"), [pytest.param(*each, id=each[0]) for each in trials().items()])
def test_the_step_of_an_optimizer_on_fixed_shapes(subject: str, trial: Trial, benchmark: BenchmarkFixture) -> None:
    device = resolve_device(trial.hardware)
    with configured(trial.hardware, device), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries warn of is no news of a benchmark
        stepping, kernel = instrument.Stepping(trial, device), instrument.Kernel(device)
        stepping.take(instrument.NUM_WARMUP_STEPS)
        kernel_seconds: list[float] = []
        num_runs = kernel.num_runs(timed(stepping.take, device))

        def before_each_round() -> None:  # in turn, so that both see the same machine
            kernel_seconds.append(timed(lambda: kernel(num_runs), device) / num_runs)
            stepping.prepare()
            finish(device)

        def period_of_steps() -> None:
            stepping.step()
            for _ in range(stepping.period - 1):
                finish(device)
                Pauses.seconds += timed(stepping.prepare, device)
                stepping.step()
            finish(device)

        rounds = num_rounds(before_each_round, period_of_steps)
        kernel_seconds.clear()
        gc.collect()
        benchmark.pedantic(period_of_steps, setup=before_each_round, rounds=rounds)
        benchmark.extra_info |= {
            "subject": subject,
            "kernel_seconds": kernel_seconds,
            "num_steps": stepping.period,
            "environment": environment(device),
            "optbench": optbench.__file__,
        }


def num_rounds(prepare: Callable[[], None], call: Callable[[], None]) -> int:
    """As many as fit into the suite's seconds, which are stretched for what is slow."""
    begun = time.perf_counter()
    for _ in range(NUM_ESTIMATED):
        prepare()
        call()
    fitting = suite["time"]["seconds"] * NUM_ESTIMATED / (time.perf_counter() - begun)
    stretched = min(ENOUGH_ROUNDS, MAX_STRETCH * fitting)
    return round(min(max(MIN_ROUNDS, fitting, stretched), MAX_ROUNDS))


def timed(call: Callable[[], object], device: torch.device) -> float:
    finish(device)
    begun = time.perf_counter()
    call()
    finish(device)
    return time.perf_counter() - begun


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
