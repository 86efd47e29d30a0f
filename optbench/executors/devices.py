"""What this machine has to run trials on; asked without torch, which takes its time and the GPU's memory."""

import functools
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from optbench.machine import torch_has_cuda


def gpus() -> list[str]:
    """The GPUs that may be used, as `CUDA_VISIBLE_DEVICES` names them; none where torch is a build for CPUs."""
    return visible_gpus() if torch_has_cuda() else []


def visible_gpus() -> list[str]:
    """Those that this process may see, as `CUDA_VISIBLE_DEVICES` names them, whatever torch can do with them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    return list(_gpus_of_machine())


@functools.cache  # asked for each time that slots are counted
def _gpus_of_machine() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    with suppress(OSError, subprocess.TimeoutExpired):
        asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=30)
        if answer.returncode == 0:
            return answer.stdout.split()
    return []


def thread_variables(num_threads: int) -> dict[str, str]:
    """Variables that a process has to be born with to compute with so many threads."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(num_threads))


def num_cores() -> int:
    """The cores that this process may use: a container's quota and an affinity mask count."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores
