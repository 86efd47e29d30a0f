"""What a run found: versions, commit and machine, stored beside what was asked."""

import os
import platform
from functools import cache
from typing import Any

import torch

from optbench.machine import PACKAGES, commit, cpu_name, git, version


def environment(device: torch.device) -> dict[str, Any]:
    """Where and with what a trial ran on `device`."""
    return {
        **_machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "device_type": device.type,
        "num_threads": torch.get_num_threads(),
    }


@cache
def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "num_cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda,
        "packages": {name: found for name in PACKAGES if (found := version(name)) is not None},
        "commit": commit(),
        "modified": bool(git("status", "--porcelain", "-uno")) if commit() else None,
    }
