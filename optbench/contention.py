"""Whether a measurement has its device to itself."""

import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import torch

from optbench.nvml import gpu

# Below this, the ticks of a hundredth of a second in which a system counts are too coarse.
MIN_SECONDS = 0.5
# In cores: what a system does for itself.
_SYSTEM_CORES = 0.25
# Of the cores that a measurement leaves free: what others may use of them without getting in its way.
_SHARE_OF_FREE = 0.1
_MAX_UTILISATION = 5


class Watch:
    """Looks for others on a measurement's device: on a GPU when it is made, on the cores while its context lasts.

    Make it before anything is put on the GPU, so that all that is found there is others'.

    Args:
        device: of the measurement.

    Attributes:
        findings: after the context, a sentence for each thing that others did; empty where the device was idle, None
            where nobody can tell.
    """

    def __init__(self, device: torch.device) -> None:
        self.findings: Sequence[str] | None = None
        self._gpu = gpu(device)
        self._on_gpu: list[str] | None = [] if device.type != "cuda" else None
        if self._gpu is not None and (processes := self._gpu.ask("nvmlDeviceGetComputeRunningProcesses")) is not None:
            rates = self._gpu.ask("nvmlDeviceGetUtilizationRates")
            others = {process.pid for process in processes} - {os.getpid()}
            self._on_gpu = gpu_findings(num_others=len(others), utilisation=None if rates is None else rates.gpu)
        self._started = 0.0
        self._before: tuple[float, float] | None = None

    def __enter__(self) -> Self:
        self._before, self._started = _core_seconds(), time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        after, seconds = _core_seconds(), time.monotonic() - self._started
        on_cores = None
        if self._before is not None and after is not None and seconds >= MIN_SECONDS:
            used, own = (later - earlier for earlier, later in zip(self._before, after, strict=True))
            on_cores = core_findings(
                others=max(0.0, used - own) / seconds,
                num_cores=len(_cores()),
                num_needed=torch.get_num_threads(),
            )
        known = [findings for findings in (self._on_gpu, on_cores) if findings is not None]
        found = [finding for findings in known for finding in findings]
        self.findings = found if found or len(known) == 2 else None


def core_findings(*, others: float, num_cores: int, num_needed: int) -> list[str]:
    """What is to be said of the cores.

    Others may use a quarter of a core, and a tenth of the cores that the measurement does not need.

    Args:
        others: cores that others used on average.
        num_cores: that there are.
        num_needed: threads of the measurement.
    """
    allowed = _SYSTEM_CORES + _SHARE_OF_FREE * max(0, num_cores - num_needed)
    if others <= allowed:
        return []
    return [f"other processes used {others:.1f} of {num_cores} cores"]


def gpu_findings(*, num_others: int, utilisation: int | None) -> list[str]:
    """What is to be said of a GPU.

    Args:
        num_others: processes on it that are not the measurement.
        utilisation: per cent of the time before the measurement; None where the GPU does not tell.
    """
    found = []
    if num_others:
        found.append(f"{num_others} other {'process was' if num_others == 1 else 'processes were'} on the GPU")
    if utilisation is not None and utilisation > _MAX_UTILISATION:
        found.append(f"the GPU was busy {utilisation} % of the time before the measurement")
    return found


def _cores() -> Sequence[int]:
    """Those that this process may run on."""
    import psutil

    process = psutil.Process()
    return process.cpu_affinity() if hasattr(process, "cpu_affinity") else range(psutil.cpu_count() or 1)


def _core_seconds() -> tuple[float, float] | None:
    """Seconds so far that these cores were not idle, and those of them that were ours; None where nobody can tell.

    What a host takes of a virtual machine's cores for others (`steal`) counts as not idle.
    """
    try:
        import psutil
    except ImportError:
        return None
    by_core = psutil.cpu_times(percpu=True)
    used = sum(sum(by_core[core]) - _idle(by_core[core]) for core in _cores() if core < len(by_core))
    process = psutil.Process()
    own = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.Error:  # ended meanwhile: its parent has waited for it, and counts it
            continue
        own += times.user + times.system + times.children_user + times.children_system
    return (used, own) if used else None


def _idle(times: object) -> float:
    """Of a core's seconds, those in which it did nothing, and those that another name counts already."""
    return sum(float(getattr(times, name, 0.0)) for name in ("idle", "iowait", "guest", "guest_nice"))
