"""How long people wait for help, and for being told of a mistake: less than for torch alone."""

import subprocess
import sys
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ROUNDS = 5


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["sweep", "optimizer=lino"], ["sweep", "optimizer=lion", "optimizer.lrr=0.1"], ["list"]],
    ids=" ".join,
)
def test_the_command_answers_before_torch_would_be_imported(arguments: list[str], benchmark: BenchmarkFixture) -> None:
    torch_seconds: list[float] = []

    def before_each_round() -> None:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        torch_seconds.append(time.perf_counter() - start)

    benchmark.pedantic(
        lambda: subprocess.run([sys.executable, "-m", "optbench", *arguments], capture_output=True, check=False),
        setup=before_each_round,
        rounds=ROUNDS,
    )
    ratio = min(benchmark.stats.stats.data) / min(torch_seconds)
    benchmark.extra_info["ratio_to_import_torch"] = ratio
    seconds = min(benchmark.stats.stats.data)
    print(f"\noptbench {' '.join(arguments)}: {seconds:.2f} s, {ratio:.2f} times `import torch`")
    assert ratio < 1.0
