"""Times of steps by pytest-benchmark: one process of pytest for each process that the gate asks for."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optbench
from optbench.errors import UsageError
from optbench.executors.devices import thread_variables
from optbench.regress.readings import Sample
from optbench.regress.sides import Side
from optbench.secrets import hidden

# How the file of benchmarks is told what to time.
SUITE_VARIABLE, ONLY_VARIABLE, FOLDER_VARIABLE = "OPTBENCH_BENCH_SUITE", "OPTBENCH_BENCH_ONLY", "OPTBENCH_BENCH_CONFIGS"


def file_of(benchmarks: str) -> Path:
    """The file of benchmarks of a suite.

    Args:
        benchmarks: below optbench's checkout.

    Raises:
        UsageError: optbench does not run from a checkout, or has no such file.
    """
    found = Path(optbench.__file__).parents[1] / benchmarks
    if not found.is_file():
        raise UsageError(f"{found} is not there: suites with benchmarks need a checkout of optbench, tests included.")
    return found


def samples(
    side: Side,
    *,
    suite: str,
    file: Path,
    only: Sequence[str],
    num_threads: int = 1,
    configs: Path | None = None,
) -> tuple[dict[str, Sample], dict[str, Any], dict[str, str]]:
    """Times of these subjects, of one process of pytest; its environment, and why some have none.

    Args:
        side: whose.
        suite: the name of the suite whose steps are timed.
        file: of the benchmarks.
        only: the subjects.
        num_threads: of the process.
        configs: a folder of more configs.

    Raises:
        UsageError: pytest or pytest-benchmark is not there.
    """
    with TemporaryDirectory(prefix="optbench-") as folder:
        out = Path(folder) / "benchmarks.json"
        done = subprocess.run(
            # Without what the checkout would add to the path: an optbench of another side has to stay the first.
            [
                *(side.python, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", "-o", "pythonpath="),
                *("--import-mode=importlib", "--noconftest", f"--benchmark-json={out}", str(file)),
            ],
            env={
                # A pytest that this one runs in would have its options here, too.
                **{key: value for key, value in side.environ().items() if not key.startswith("PYTEST")},
                **thread_variables(num_threads),
                SUITE_VARIABLE: suite,
                ONLY_VARIABLE: json.dumps(list(only)),
                FOLDER_VARIABLE: "" if configs is None else str(configs.resolve()),
            },
            cwd=file.parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            report: Mapping[str, Any] = json.loads(out.read_bytes())
        except (OSError, ValueError):
            report = {}
    if not report.get("benchmarks"):
        lines = hidden("\n".join([*done.stdout.strip().splitlines()[-5:], *done.stderr.strip().splitlines()[-3:]]))
        if "No module named pytest" in done.stderr or "unrecognized arguments" in done.stderr:
            raise UsageError(f"{side.name}: pytest-benchmark is needed: pip install 'optbench[dev]'.\n{lines}")
        return {}, {}, dict.fromkeys(only, f"pytest ended with code {done.returncode}: {' '.join(lines.split())[:300]}")
    for benchmark in report["benchmarks"]:
        side.check(benchmark["extra_info"]["optbench"])
    return parse(report, only=only)


def parse(
    report: Mapping[str, Any], *, only: Sequence[str]
) -> tuple[dict[str, Sample], dict[str, Any], dict[str, str]]:
    """The times in a report of pytest-benchmark, by the subjects that the benchmarks say they are of."""
    found: dict[str, Sample] = {}
    environment: dict[str, Any] = {}
    for benchmark in report["benchmarks"]:
        told = benchmark["extra_info"]
        own, kernel = (sorted(data) for data in (benchmark["stats"]["data"], told["kernel_seconds"]))
        num_steps = int(told["num_steps"])
        found[told["subject"]] = Sample(
            **dict(zip(("best", "p10", "median"), (one / num_steps for one in _quantiles(own)), strict=True)),
            **dict(zip(("kernel_best", "kernel_p10", "kernel_median"), _quantiles(kernel), strict=True)),
            num_steps=len(own) * num_steps,
        )
        environment = {key: value for key, value in told["environment"].items() if key != "host"}
    return found, environment, {subject: "its benchmark failed" for subject in only if subject not in found}


def _quantiles(ordered: Sequence[float]) -> tuple[float, float, float]:
    last = len(ordered) - 1
    return ordered[0], ordered[int(0.1 * last)], ordered[last // 2]
