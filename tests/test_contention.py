"""Whether the device is the measurement's alone: the rule, and a machine that is kept busy."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch

from optbench import contention
from optbench.contention import Watch, core_findings, gpu_findings

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
# Starts a process that is nobody's child, says its id, and leaves it; that ends by itself, too.
ORPHAN = """
import subprocess, sys
code = "import time\\nend = time.monotonic() + 20\\nwhile time.monotonic() < end: pass"
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
print(subprocess.Popen([sys.executable, "-c", code], start_new_session=True, **quiet).pid)
"""


@pytest.fixture
def busy() -> Iterator[None]:
    """Somebody else's process keeps a core busy."""
    said = subprocess.run([sys.executable, "-c", ORPHAN], check=True, capture_output=True, text=True, timeout=30)
    yield
    with suppress(ProcessLookupError):
        os.kill(int(said.stdout), signal.SIGKILL)


@pytest.mark.usefixtures("busy")
def test_a_core_that_another_process_keeps_busy_is_found() -> None:
    watch = Watch(CPU)
    with watch:
        time.sleep(1.5)
    assert watch.findings is not None
    assert len(watch.findings) == 1
    assert watch.findings[0].startswith("other processes used ")


def test_what_a_process_and_its_children_use_is_their_own() -> None:
    burn = "import time\nwhile time.process_time() < 0.4: pass"
    before = contention._core_seconds()
    subprocess.run([sys.executable, "-c", burn], check=True, timeout=60)
    with subprocess.Popen([sys.executable, "-c", burn]) as running:
        pass
    started = time.process_time()
    while time.process_time() < started + 0.3:
        pass
    after = contention._core_seconds()
    assert running.returncode == 0
    assert before is not None
    assert after is not None
    assert after[1] - before[1] > 0.9 * (0.4 + 0.4 + 0.3)


@pytest.mark.parametrize(
    ("others", "num_cores", "num_needed", "is_contended"),
    [
        (0.0, 2, 1, False),
        (0.3, 2, 1, False),
        (0.4, 2, 1, True),
        (0.3, 2, 2, True),
        (0.2, 2, 2, False),
        (0.3, 1, 4, True),
        (6.0, 64, 1, False),
        (7.0, 64, 1, True),
    ],
)
def test_others_may_use_a_little_and_a_tenth_of_what_is_free(
    others: float, num_cores: int, num_needed: int, is_contended: bool
) -> None:
    assert bool(core_findings(others=others, num_cores=num_cores, num_needed=num_needed)) is is_contended


def test_the_finding_says_how_much() -> None:
    assert core_findings(others=1.32, num_cores=2, num_needed=1) == ["other processes used 1.3 of 2 cores"]
    assert gpu_findings(num_others=1, utilisation=0) == ["1 other process was on the GPU"]
    assert gpu_findings(num_others=2, utilisation=40) == [
        "2 other processes were on the GPU",
        "the GPU was busy 40 % of the time before the measurement",
    ]
    assert gpu_findings(num_others=0, utilisation=None) == gpu_findings(num_others=0, utilisation=5) == []


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float] | None]:
    """What the cores and this process used so far, one after another; ten seconds pass between them."""
    figures: list[tuple[float, float] | None] = [(100.0, 5.0), (110.0, 15.0)]
    clock = [0.0]

    def monotonic() -> float:
        clock[0] += 10.0
        return clock[0]

    monkeypatch.setattr(contention, "_core_seconds", lambda: figures.pop(0))
    monkeypatch.setattr(contention, "_cores", lambda: range(2))
    monkeypatch.setattr(contention, "time", SimpleNamespace(monotonic=monotonic))
    return figures


def watched(device: torch.device) -> list[str] | None:
    with Watch(device) as watch:
        pass
    return None if watch.findings is None else list(watch.findings)


@pytest.mark.usefixtures("counted")
def test_cores_that_only_the_measurement_used_are_idle() -> None:
    assert watched(CPU) == []


def test_what_others_used_is_what_is_left(counted: list[tuple[float, float] | None]) -> None:
    counted[1] = (120.0, 15.0)
    assert watched(CPU) == ["other processes used 1.0 of 2 cores"]


def test_nobody_can_tell_where_nothing_is_counted(counted: list[tuple[float, float] | None]) -> None:
    counted[:] = [None, None]
    assert watched(CPU) is None


def test_nobody_can_tell_in_no_time() -> None:
    assert watched(CPU) is None


def test_without_psutil_nobody_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert contention._core_seconds() is None


class Gpu:
    """Stands in for NVIDIA's library and one GPU."""

    def __init__(self, pids: list[int] | None, utilisation: int | None) -> None:
        self._answers = {
            "nvmlDeviceGetComputeRunningProcesses": None
            if pids is None
            else [SimpleNamespace(pid=pid) for pid in pids],
            "nvmlDeviceGetUtilizationRates": None if utilisation is None else SimpleNamespace(gpu=utilisation),
        }

    def ask(self, question: str) -> object:
        return self._answers[question]


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(
    ("pids", "utilisation", "findings"),
    [
        ([], 0, []),
        ([os.getpid()], 3, []),
        ([os.getpid(), 1], 0, ["1 other process was on the GPU"]),
        ([], 97, ["the GPU was busy 97 % of the time before the measurement"]),
        ([], None, []),
        (None, None, None),
    ],
)
def test_a_gpu_is_looked_at_before_the_measurement(
    pids: list[int] | None,
    utilisation: int | None,
    findings: list[str] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contention, "gpu", lambda _: Gpu(pids, utilisation))
    assert watched(GPU) == findings


def test_busy_cores_are_told_where_nobody_knows_the_gpu(
    counted: list[tuple[float, float] | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted[1] = (120.0, 15.0)
    monkeypatch.setattr(contention, "gpu", lambda _: None)
    assert watched(GPU) == ["other processes used 1.0 of 2 cores"]
