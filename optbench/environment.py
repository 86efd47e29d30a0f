"""What a run found: versions, commit and machine, stored beside what was asked."""

import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "optbench",
    "torch",
    "numpy",
    "hydra-core",
    "omegaconf",
    "bitsandbytes",
    "lion-pytorch",
    "prodigyopt",
    "scikit-learn",
)


def environment(device: torch.device) -> dict[str, Any]:
    """Where and with what a trial ran on `device`."""
    return {
        **_machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
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
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        **_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> dict[str, Any]:
    """The commit of optbench's own source, where it runs from a checkout."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
        return result.stdout.strip() if result.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD") if git("ls-files", Path(__file__).name) else ""
        return {
            "commit": commit or None,
            "modified": bool(git("status", "--porcelain", "-uno")) if commit else None,
        }
    except (OSError, subprocess.TimeoutExpired):
        return {"commit": None, "modified": None}
