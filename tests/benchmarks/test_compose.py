"""A thousand configs: expanding a sweep, against Hydra's own composition of each."""

import time

import hydra
import pytest
from hydra import initialize_config_module
from pytest_benchmark.fixture import BenchmarkFixture

from optbench.compose import Composer
from optbench.composing import hydra_version

RATES = [0.0001 * (1 + number) for number in range(50)]
NUM_SEEDS = 10
NUM_SAMPLED = 20


@pytest.mark.parametrize("optimizers", [["lion", "adamw"], ["preset/llama2", "preset/nanogpt"]], ids=",".join)
def test_a_config_is_expanded_faster_than_hydra_composes_it(
    composer: Composer, optimizers: list[str], benchmark: BenchmarkFixture
) -> None:
    swept = [f"optimizer={','.join(optimizers)}", f"optimizer.lr={','.join(map(str, RATES))}"]
    swept.append(f"seed=range({NUM_SEEDS})")
    found = benchmark.pedantic(lambda: list(composer.configs(swept, one_trial=False)), rounds=5, warmup_rounds=1)
    assert len(found) == len(optimizers) * len(RATES) * NUM_SEEDS

    with initialize_config_module("optbench.conf", **hydra_version()):
        start = time.perf_counter()
        for config in found[:: len(found) // NUM_SAMPLED]:
            optimizer = config["optimizer"]
            overrides = [f"optimizer={optimizer['name']}", f"optimizer.lr={optimizer['lr']}", f"seed={config['seed']}"]
            composed = hydra.compose("config", overrides=overrides)
            assert composed.optimizer.lr == optimizer["lr"]
        seconds = (time.perf_counter() - start) / NUM_SAMPLED
    ours = min(benchmark.stats.stats.data) / len(found)
    benchmark.extra_info["times_faster_than_hydra"] = seconds / ours
    print(f"\n{len(found)} configs: {ours * 1e3:.2f} ms each, {seconds / ours:.0f} times faster than Hydra's compose")
    assert seconds / ours > 8
